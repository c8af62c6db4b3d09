// Command bench measures what the gateway costs: requests a second and CPU per
// request of every process, as ratios to two floors of the same run: a bare
// Envoy with TLS that has no line of ours in it, and the same Envoy asking two
// services that do nothing. It prints the tables that the project quotes, and
// fails when a target is missed. Load stays on loopback and is bounded in count.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

func main() {
	quick := flag.Bool("quick", false, "a tenth of the requests, and no benchmarks of packages")
	ladder := flag.Bool("ladder", false, "also what each part of a public route's way costs")
	serve := flag.String("serve-empty", "", "be the two empty services on this `address`; the bench starts itself so")
	flag.Parse()
	err := error(nil)
	if *serve != "" {
		err = serveEmpty(context.Background(), *serve)
	} else {
		err = run(context.Background(), *quick, *ladder, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, quick, ladder bool, out io.Writer) (err error) {
	fmt.Fprintf(out, "%s/%s, %d cores, %s, load average %s\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), loadAverage())
	b := &bed{out: os.Stderr}
	defer b.clean()
	defer func() {
		// The harness ends a run that cannot go on by a panic of its own kind.
		if stop, ok := recover().(fatal); ok {
			err = errors.New(string(stop))
		}
	}()
	rounds, count := 5, 4000
	if quick {
		rounds, count = 3, 400
	}
	results, err := b.measure(rounds, count, ladder)
	if err != nil {
		return err
	}
	missed := show(out, results)
	if !quick {
		more, err := packages(ctx, out)
		if err != nil {
			return err
		}
		missed = append(missed, more...)
	}
	if len(missed) > 0 {
		return fmt.Errorf("missed: %s", strings.Join(missed, "; "))
	}
	return nil
}

func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(data))[:3], " ")
}
