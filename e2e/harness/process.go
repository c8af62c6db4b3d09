package harness

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// keptLog is how much of a process's output a failing test shows.
const keptLog = 64 << 10

// Ready is the line with which a role or the whole gateway says that it serves.
type Ready struct {
	Ready      bool              `json:"ready"`
	Role       string            `json:"role"`
	Address    string            `json:"address"`
	Admin      string            `json:"admin"`
	PID        int               `json:"pid"`
	Listeners  map[string]string `json:"listeners"`
	XDS        string            `json:"xds"`
	ExtAuthz   string            `json:"extauthz"`
	RateLimit  string            `json:"ratelimit"`
	EnvoyAdmin string            `json:"envoy_admin"`
	PIDs       map[string]int    `json:"pids"`
	Instances  []Instance        `json:"instances"`
	Demo       struct {
		APIKey string `json:"api_key"`
		JWT    string `json:"jwt"`
	} `json:"demo"`
}

// Instance is a demo service's process.
type Instance struct {
	Service string `json:"service"`
	PID     int    `json:"pid"`
	HTTP    string `json:"http"`
	GRPC    string `json:"grpc"`
}

// Command is a program to start.
type Command struct {
	Name string
	Path string
	Args []string
	Env  []string // beside the test's own
	Dir  string
	// Stderr takes the program's standard error; nil: what a failing test shows.
	Stderr *os.File
}

// Process is a program under test.
type Process struct {
	Name  string
	Ready Ready // of a program that says so

	cmd  *exec.Cmd
	log  *tail
	line chan string // its first line on standard output
	done chan struct{}
}

// Start starts a program. It is killed when the test ends; a failing test shows
// the end of its output.
func Start(t TB, c Command) *Process {
	t.Helper()
	p := &Process{Name: c.Name, log: &tail{}, line: make(chan string, 1), done: make(chan struct{})}
	p.cmd = exec.Command(c.Path, c.Args...) //nolint:noctx // ended by pid in the cleanup, also when the test's context is long gone
	p.cmd.Dir, p.cmd.Env = c.Dir, append(os.Environ(), c.Env...)
	p.cmd.Stderr = p.log
	if c.Stderr != nil {
		p.cmd.Stderr = c.Stderr
	}
	// A test binary that dies takes its children along.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("start %s: %v", c.Name, err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", c.Name, err)
	}
	go p.watch(stdout)
	t.Cleanup(func() {
		p.Kill()
		if f, ok := t.(interface{ Failed() bool }); ok && f.Failed() {
			t.Logf("--- %s (pid %d) said last:\n%s", p.Name, p.PID(), p.Log())
		}
	})
	return p
}

func (p *Process) watch(stdout io.Reader) {
	defer close(p.done)
	lines := bufio.NewReader(stdout)
	first, _ := lines.ReadString('\n')
	p.line <- first
	_, _ = p.log.Write([]byte(first))
	_, _ = io.Copy(p.log, lines)
	_ = p.cmd.Wait()
}

// AwaitReady waits for the ready line and keeps it in p.Ready.
func (p *Process) AwaitReady(t TB, within time.Duration) *Process {
	t.Helper()
	select {
	case line := <-p.line:
		if err := json.Unmarshal([]byte(line), &p.Ready); err != nil || !p.Ready.Ready {
			p.Kill()
			t.Fatalf("%s did not say that it is ready: %v (exit %d)\n%s", p.Name, err, p.ExitCode(), p.Log())
		}
	case <-time.After(within):
		t.Fatalf("%s is not ready after %v\n%s", p.Name, within, p.Log())
	}
	return p
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log returns the end of what the process wrote.
func (p *Process) Log() string { return p.log.String() }

// Alive says whether the process has not ended.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill ends the process with SIGKILL and waits.
func (p *Process) Kill() {
	if p.Alive() {
		_ = p.cmd.Process.Kill()
	}
	<-p.done
}

// Signal sends a signal.
func (p *Process) Signal(t TB, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %s: %v", p.Name, err)
	}
}

// Terminate sends SIGTERM and returns the exit code and how long the process
// took to end.
func (p *Process) Terminate(t TB, within time.Duration) (int, time.Duration) {
	t.Helper()
	start := time.Now()
	p.Signal(t, syscall.SIGTERM)
	return p.Wait(t, within), time.Since(start)
}

// Wait waits for the end and returns the exit code.
func (p *Process) Wait(t TB, within time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		t.Fatalf("%s has not ended after %v\n%s", p.Name, within, p.Log())
	}
	return p.ExitCode()
}

// ExitCode is that of a process that has ended, -1 when a signal ended it.
func (p *Process) ExitCode() int {
	if p.cmd.ProcessState == nil {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// CPU returns what the threads of a process have run, in nanoseconds of the
// scheduler's own account; those that have ended are not in it.
func CPU(pid int) (time.Duration, error) {
	threads, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/schedstat")
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("process %d has no threads", pid)
	}
	var sum int64
	for _, path := range threads {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that has ended since
		}
		ran, _, _ := strings.Cut(string(data), " ")
		n, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += n
	}
	return time.Duration(sum), nil
}

// Run runs our binary to its end and returns what it wrote and its exit code.
func Run(t TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs strings.Builder
	cmd := exec.Command(Tollgate(t), args...) //nolint:noctx // bounded by the timer below
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatalf("tollgate %v: %v", args, err)
	}
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data = append(l.data, p...)
	if len(l.data) > 2*keptLog {
		l.data = append([]byte(nil), l.data[len(l.data)-keptLog:]...)
	}
	return len(p), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.data)
}
