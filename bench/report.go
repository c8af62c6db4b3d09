package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Variants that others are divided by, and those that are held to a target.
const (
	floorBare  = "bare Envoy with TLS"
	floorEmpty = "bare Envoy, two empty services"
	ourPublic  = "public route"
	ourWhole   = "the whole: key and limit"
)

// ratios are the targets: one variant's CPU over a floor's of the same run.
func ratios() []struct {
	of, over string
	most     float64
} {
	return []struct {
		of, over string
		most     float64
	}{{ourPublic, floorBare, 1.15}, {ourWhole, floorEmpty, 1.15}}
}

// show prints the table and returns the targets that were missed.
func show(out io.Writer, results []result) (missed []string) {
	total := map[string]float64{}
	for _, r := range results {
		total[r.name] = r.total()
	}
	fmt.Fprintf(out, "CPU in µs a request (medians), one Envoy worker, %d connections kept alive\n", connections)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "variant\trequests/s\tenvoy\textauthz\tratelimit\tempty\tredis\tall\t÷ bare\t÷ empty services\t")
	for _, r := range results {
		cell := func(process string) string {
			if v, ok := r.cpu[process]; ok {
				return strconv.FormatFloat(v, 'f', 1, 64)
			}
			return "–"
		}
		fmt.Fprintf(table, "%s\t%.0f\t%s\t%s\t%s\t%s\t%s\t%.1f\t%.2f\t%.2f\t\n", r.name, r.rps, cell("envoy"), cell("extauthz"), cell("ratelimit"),
			cell("empty"), cell("redis"), r.total(), r.total()/total[floorBare], r.total()/total[floorEmpty])
	}
	if err := table.Flush(); err != nil {
		return []string{err.Error()}
	}
	fmt.Fprintln(out)
	for _, t := range ratios() {
		if ratio := total[t.of] / total[t.over]; ratio > t.most {
			missed = append(missed, fmt.Sprintf("%s takes %.2f × %s, at most %.2f", t.of, ratio, t.over, t.most))
		}
	}
	return missed
}

// target is a bound on one figure of a package's benchmark.
type target struct {
	pkg, bench, row, unit string
	most                  float64
	what                  string
}

// packages runs the benchmarks of the hot paths and holds them to their targets.
func packages(ctx context.Context, out io.Writer) (missed []string, err error) {
	targets := []target{
		{"./extauthz/check", "Ratio", "BenchmarkRatio/key", "ratio", 1.35, "Check with a key against an empty handler"},
		{"./extauthz/check", "Ratio", "BenchmarkRatio/jwt", "ratio", 1.35, "Check with a cached JWT and CEL against an empty handler"},
		{"./ratelimit/rls", "CPU/memory", "BenchmarkCPU/memory/1", "ratio", 1.4, "ShouldRateLimit in memory against an empty handler"},
		{"./xds/compile", "Compile/10000", "BenchmarkCompile/10000-with-release", "ns/op", 500e6, "full compile of 10,000 routes"},
	}
	for _, run := range []struct{ pkg, bench, time string }{
		{"./extauthz/check", "Ratio", "1x"},
		{"./extauthz/check", "Check", "1s"},
		{"./ratelimit/rls", "CPU/memory", "1x"},
		{"./ratelimit/rls", "ShouldRateLimit", "1s"},
		{"./xds/compile", "Compile", "5x"},
		{"./xds/push", "OneChange", "20x"},
	} {
		cmd := exec.CommandContext(ctx, "go", "test", run.pkg, "-run", "^$", "-bench", run.bench, "-benchtime", run.time, "-benchmem")
		var text bytes.Buffer
		cmd.Stdout, cmd.Stderr = &text, os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("benchmarks of %s: %w\n%s", run.pkg, err, &text)
		}
		for line := range strings.Lines(text.String()) {
			if strings.HasPrefix(line, "Benchmark") {
				fmt.Fprint(out, line)
			}
			for _, t := range targets {
				if t.pkg != run.pkg || t.bench != run.bench && !strings.HasPrefix(t.bench, run.bench) {
					continue
				}
				if got, ok := figure(line, t.row, t.unit); ok && got > t.most {
					missed = append(missed, fmt.Sprintf("%s: %g %s, at most %g", t.what, got, t.unit, t.most))
				}
			}
		}
	}
	return missed, nil
}

// figure reads the value before a unit in one line of `go test -bench`.
func figure(line, row, unit string) (float64, bool) {
	fields := strings.Fields(line)
	if len(fields) == 0 || fields[0] != row && !strings.HasPrefix(fields[0], row+"-") {
		return 0, false
	}
	for i := 1; i < len(fields); i++ {
		if fields[i] == unit {
			v, err := strconv.ParseFloat(fields[i-1], 64)
			return v, err == nil
		}
	}
	return 0, false
}
