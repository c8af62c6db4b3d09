// Command xds measures what one changed endpoint costs a control plane that has
// many proxies: ours and the two caches of go-control-plane, interleaved. Server
// and clients are processes of their own, every client has a TCP connection, a
// raw codec and no state, so that the numbers are the server's. Load stays on
// loopback and is bounded in count.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// shape is the size of one run.
type shape struct {
	clients, clusters, edits int
	resume                   bool // clients bring all versions, as after a restart of the control plane
}

func main() {
	serve := flag.String("serve", "", "be the server of this `kind` (the bench starts itself so)")
	load := flag.String("load", "", "be the clients of the server at this `address`")
	kinds := flag.String("kinds", "ours,linear,snapshot", "what to measure")
	s := shape{}
	flag.IntVar(&s.clients, "clients", 100, "proxies")
	flag.IntVar(&s.clusters, "clusters", 1_000, "clusters, each with its endpoints")
	flag.IntVar(&s.edits, "edits", 10, "changed endpoints, one after the other")
	flag.BoolVar(&s.resume, "resume", false, "clients bring all versions instead of syncing cold")
	rounds := flag.Int("rounds", 2, "how often each kind is measured, in turn")
	flag.Parse()
	var err error
	switch {
	case *serve != "":
		err = be(*serve, s, os.Stdin, os.Stdout)
	case *load != "":
		err = drive(*load, s, os.Stdin, os.Stdout)
	default:
		err = compare(context.Background(), strings.Split(*kinds, ","), *rounds, s, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// compare prints a row for every run.
func compare(ctx context.Context, kinds []string, rounds int, s shape, out io.Writer) error {
	fmt.Fprintf(out, "%d proxies x %d clusters, resume %t\n%-9s %13s %13s %13s %13s %13s %13s %13s\n", s.clients, s.clusters, s.resume, "",
		"sync ms", "sync CPU ms", "RSS kB/stream", "last ACK ms", "(worst)", "CPU ms/edit", "bytes/client")
	for range rounds {
		for _, kind := range kinds {
			if err := measure(ctx, kind, s, out); err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
		}
	}
	return nil
}

// measure is one run: a server and its clients, made anew.
func measure(ctx context.Context, kind string, s shape, out io.Writer) (err error) {
	server, err := start(ctx, s, "-serve", kind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.end()) }()
	var address string
	if _, err := fmt.Sscan(server.line(), &address); err != nil {
		return err
	}
	clients, err := start(ctx, s, "-load", address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, clients.end()) }()
	if _, err := clients.ask("learn"); err != nil {
		return err
	}
	before, err := server.stat()
	if err != nil {
		return err
	}
	began := time.Now()
	if _, err := clients.ask("sync"); err != nil {
		return err
	}
	synced := time.Since(began)
	time.Sleep(time.Second) // what a server does behind the last answer counts, too
	after, err := server.stat()
	if err != nil {
		return err
	}
	var took, cpu []float64
	bytes := 0
	for range s.edits {
		ms, edit, n, err := change(server, clients)
		if err != nil {
			return err
		}
		took, cpu, bytes = append(took, ms), append(cpu, edit), n
	}
	slices.Sort(took)
	slices.Sort(cpu)
	fmt.Fprintf(out, "%-9s %13.0f %13.0f %13.1f %13.1f %13.1f %13.1f %13d\n", kind, synced.Seconds()*1e3, after.until-before.from,
		(after.rss-before.rss)/float64(s.clients), took[len(took)/2], took[len(took)-1], cpu[len(cpu)/2], bytes/s.clients)
	return nil
}

// change edits one endpoint and waits until the last client has answered it.
func change(server, clients *process) (ms, cpu float64, bytes int, err error) {
	if _, err := clients.ask("expect"); err != nil {
		return 0, 0, 0, err
	}
	if _, err := server.ask("prepare"); err != nil {
		return 0, 0, 0, err
	}
	before, err := server.stat()
	if err != nil {
		return 0, 0, 0, err
	}
	began := time.Now()
	if _, err := server.ask("edit"); err != nil {
		return 0, 0, 0, err
	}
	said, err := clients.ask("wait")
	ms = time.Since(began).Seconds() * 1e3
	if err != nil {
		return 0, 0, 0, err
	}
	if _, err := fmt.Sscan(said, &bytes); err != nil {
		return 0, 0, 0, err
	}
	time.Sleep(150 * time.Millisecond)
	after, err := server.stat()
	return ms, after.until - before.from, bytes, err
}

// process is this program in another part of the bench; it answers every line
// that it is told with one.
type process struct {
	cmd   *exec.Cmd
	tell  io.WriteCloser
	lines *bufio.Scanner
}

func start(ctx context.Context, s shape, part ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := append(part, fmt.Sprintf("-clients=%d", s.clients), fmt.Sprintf("-clusters=%d", s.clusters), fmt.Sprintf("-resume=%t", s.resume))
	p := &process{cmd: exec.CommandContext(ctx, self, args...)}
	p.cmd.Stderr = os.Stderr
	if p.tell, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.lines = bufio.NewScanner(stdout)
	return p, p.cmd.Start()
}

func (p *process) line() string {
	p.lines.Scan()
	return p.lines.Text()
}

func (p *process) ask(what string) (string, error) {
	if _, err := fmt.Fprintln(p.tell, what); err != nil {
		return "", err
	}
	if !p.lines.Scan() {
		return "", fmt.Errorf("no answer to %q: the other process ended", what)
	}
	return p.lines.Text(), nil
}

// stat is what a server has used: CPU in ms, up to the collection that the bench
// makes and from it on, and memory in kB after it.
type stat struct{ until, from, rss float64 }

func (p *process) stat() (stat, error) {
	said, err := p.ask("stat")
	if err != nil {
		return stat{}, err
	}
	var s stat
	_, err = fmt.Sscan(said, &s.until, &s.from, &s.rss)
	return s, err
}

func (p *process) end() error { return errors.Join(p.tell.Close(), p.cmd.Wait()) }
