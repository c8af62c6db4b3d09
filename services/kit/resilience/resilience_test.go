package resilience_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tollgate/services/kit/resilience"
)

var errDown = errors.New("down")

func policy(t *testing.T, cfg resilience.Config) *resilience.Policy {
	t.Helper()
	cfg.Transient = func(err error) bool { return errors.Is(err, errDown) || errors.Is(err, context.DeadlineExceeded) }
	p, err := resilience.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAttempts(t *testing.T) {
	final := errors.New("final")
	for _, tt := range []struct {
		name  string
		fails int
		err   error
		calls int
		want  error
	}{
		{"first", 0, errDown, 1, nil},
		{"third", 2, errDown, 3, nil},
		{"never", 9, errDown, 3, errDown},
		{"not transient", 9, final, 1, final},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls := 0
			got, err := resilience.Do(t.Context(), policy(t, resilience.Config{}), func(context.Context) (int, error) {
				calls++
				if calls <= tt.fails {
					return 0, tt.err
				}
				return 7, nil
			})
			if calls != tt.calls || !errors.Is(err, tt.want) || (err == nil) != (got == 7) {
				t.Errorf("%d calls, %d, %v", calls, got, err)
			}
		})
	}
}

// Every attempt has its own deadline, and all of them end with the caller's.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, resilience.Config{PerAttempt: 300 * time.Millisecond})
		hang := func(ctx context.Context) (int, error) {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("no deadline for the peer to learn of")
			}
			<-ctx.Done()
			return 0, ctx.Err()
		}
		start := time.Now()
		if _, err := resilience.Do(t.Context(), p, hang); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if d := time.Since(start); d < 900*time.Millisecond || d > 1100*time.Millisecond {
			t.Errorf("three attempts took %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start = time.Now()
		if _, err := resilience.Do(ctx, p, hang); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if d := time.Since(start); d != 100*time.Millisecond {
			t.Errorf("outlived its caller: %v", d)
		}
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := policy(t, resilience.Config{Attempts: 1})
		calls, down := 0, true
		call := func() error {
			_, err := resilience.Do(t.Context(), p, func(context.Context) (int, error) {
				calls++
				if down {
					return 0, errDown
				}
				return 0, nil
			})
			return err
		}
		for range 50 {
			_ = call()
		}
		if calls != 10 || !errors.Is(call(), resilience.ErrOpen) {
			t.Errorf("%d calls reached a dead peer, want 10", calls)
		}
		down = false
		time.Sleep(2100 * time.Millisecond)
		for range 20 {
			if err := call(); err != nil {
				t.Fatalf("after the peer healed: %v", err)
			}
		}
	})
}

// With all calls failing at once, retries stay within the budget.
func TestRetryBudget(t *testing.T) {
	p := policy(t, resilience.Config{MinCalls: 100000})
	const callers = 100
	var calls atomic.Int32
	var wg sync.WaitGroup
	gate := make(chan struct{})
	for range callers {
		wg.Go(func() {
			_, err := resilience.Do(t.Context(), p, func(context.Context) (int, error) {
				calls.Add(1)
				<-gate
				time.Sleep(20 * time.Millisecond)
				return 0, errDown
			})
			if !errors.Is(err, errDown) {
				t.Errorf("the caller does not learn why: %v", err)
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	close(gate)
	wg.Wait()
	if n := calls.Load(); n > callers*2 {
		t.Errorf("%d attempts for %d calls", n, callers)
	}
}

func TestTransientIsRequired(t *testing.T) {
	if _, err := resilience.New(resilience.Config{}); err == nil {
		t.Error("no error")
	}
}
