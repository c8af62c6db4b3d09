package logpipe_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tollgate/internal/logpipe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gate is a sink that takes nothing until it is opened.
type gate struct {
	open chan struct{}
	mu   sync.Mutex
	got  bytes.Buffer
	err  error
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return 0, g.err
	}
	return g.got.Write(p)
}

func (g *gate) text() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.got.String()
}

func TestLinesComeOutWholeAndInOrder(t *testing.T) {
	t.Parallel()
	sink := newGate()
	close(sink.open)
	w := logpipe.New(sink, logpipe.Limit)
	var want strings.Builder
	for i := range 10_000 {
		line := fmt.Sprintf("line %d\n", i)
		want.WriteString(line)
		if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	w.Close(5 * time.Second)
	if sink.text() != want.String() {
		t.Errorf("%d bytes came out, want %d in order", len(sink.text()), want.Len())
	}
	if w.Dropped() != 0 {
		t.Errorf("dropped %d", w.Dropped())
	}
}

// Whoever logs goes on while nobody reads; what is lost is counted exactly and
// told once, with whole lines around it.
func TestStalledSinkDropsAndCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newGate()
		w := logpipe.New(sink, 1000)
		line := []byte(strings.Repeat("x", 99) + "\n")
		start := time.Now()
		w.Write(line) // the sink holds this one
		synctest.Wait()
		for range 500 {
			w.Write(line)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("writing waited %s for the sink", took)
		}
		if got := w.Dropped(); got != 490 {
			t.Errorf("dropped %d lines, want 490: ten fit", got)
		}
		close(sink.open)
		synctest.Wait()
		got := sink.text()
		if n := strings.Count(got, string(line)); n != 11 {
			t.Errorf("%d whole lines came out, want 11", n)
		}
		if n := strings.Count(got, `"dropped":490,"total":490}`+"\n"); n != 1 || strings.Count(got, "\n") != 12 {
			t.Errorf("the gap is told %d times, want once: %.300s", n, got)
		}
		w.Write([]byte("after\n"))
		synctest.Wait()
		if !strings.HasSuffix(sink.text(), "after\n") {
			t.Error("the sink takes lines again, but none came")
		}
		w.Close(time.Second)
	})
}

func TestManyWritersOfAStalledPipe(t *testing.T) {
	t.Parallel()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w := logpipe.New(writer, 4096)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 200 {
				w.Write([]byte(strings.Repeat("y", 200) + "\n"))
			}
		})
	}
	wg.Wait()
	if w.Dropped() == 0 {
		t.Error("2 MB fit into a pipe that nobody reads")
	}
	done := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(reader)
		done <- all
	}()
	w.Close(10 * time.Second)
	writer.Close()
	got := strings.Split(strings.TrimSuffix(string(<-done), "\n"), "\n")
	whole := 0
	for _, line := range got {
		if line == strings.Repeat("y", 200) {
			whole++
		} else if !strings.HasPrefix(line, `{"time"`) {
			t.Fatalf("a torn line: %q", line)
		}
	}
	if total := uint64(whole) + w.Dropped(); total != 10_000 {
		t.Errorf("%d written and %d dropped, want 10000 together", whole, w.Dropped())
	}
	reader.Close()
}

// A process that ends does not wait for a reader that stalls.
func TestCloseGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newGate()
		w := logpipe.New(sink, 1000)
		w.Write([]byte("a\n"))
		start := time.Now()
		w.Close(time.Second)
		if took := time.Since(start); took != time.Second {
			t.Errorf("Close took %s, want 1s", took)
		}
		w.Write([]byte("late\n"))
		if w.Dropped() != 1 {
			t.Errorf("a line after Close: dropped %d, want 1", w.Dropped())
		}
		close(sink.open)
	})
}

func TestSinkThatIsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink := newGate()
		sink.err = errors.New("broken pipe")
		close(sink.open)
		w := logpipe.New(sink, 1000)
		for range 5 {
			w.Write([]byte("a\n"))
			synctest.Wait()
		}
		if w.Dropped() != 5 {
			t.Errorf("dropped %d, want 5", w.Dropped())
		}
		w.Close(time.Second)
	})
}
