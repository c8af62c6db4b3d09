package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Child is a process that dies with this one and says in one line of JSON on
// its standard output when it is ready.
type Child struct {
	cmd  *exec.Cmd
	line chan []byte
	done chan struct{}
	err  error
}

// StartChild starts a program in a process group of its own, so that Ctrl-C
// reaches only its parent, which stops it in order. Its standard error goes to output.
func StartChild(output io.Writer, path string, args ...string) (*Child, error) {
	c := &Child{cmd: exec.Command(path, args...), line: make(chan []byte, 1), done: make(chan struct{})} //nolint:noctx // it ends by Stop, in order, never by a context
	c.cmd.Stderr = output
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error)
	go func() {
		// Pdeathsig is sent when the thread that forked ends, not the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(c.done)
		err := c.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		scanner := bufio.NewScanner(stdout)
		if scanner.Scan() {
			c.line <- append([]byte(nil), scanner.Bytes()...)
		}
		for scanner.Scan() {
			continue // nothing more is said, and a full pipe must not stop it
		}
		c.err = c.cmd.Wait()
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	return c, nil
}

// PID is the child's.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Ready waits for the line and decodes it into v.
func (c *Child) Ready(ctx context.Context, v any) error {
	select {
	case line := <-c.line:
		return json.Unmarshal(line, v)
	case <-c.done:
		return fmt.Errorf("it ended before it was ready: %w", c.err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Done is closed when the child has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// Stop sends SIGTERM, and SIGKILL after grace; it returns when the child is gone.
func (c *Child) Stop(grace time.Duration) error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		<-c.done
		return nil
	}
	select {
	case <-c.done:
		return nil
	case <-time.After(grace):
	}
	if err := c.cmd.Process.Kill(); err != nil {
		return err
	}
	<-c.done
	return errors.New("it did not stop in time and was killed")
}
