// Package resilience guards calls to a peer: a circuit breaker around retries
// around a deadline for each attempt. Invariant: one Policy stands for one
// peer and is shared by all calls to it, so the retry budget and the breaker
// see them all; a call never outlives its context.
package resilience

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/budget"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
)

// ErrOpen is returned without calling while the breaker is open.
var ErrOpen = errors.New("circuit breaker is open")

// Config describes how to call one peer. Zero values take the defaults.
type Config struct {
	Attempts    int              // the first included; 3
	PerAttempt  time.Duration    // 300 ms
	Backoff     time.Duration    // before the first retry, doubled after; 25 ms
	BackoffMax  time.Duration    // 250 ms
	RetryBudget float64          // retries per running call, 0 to 1; 0.2
	FailureRate float64          // of calls within Window, that opens the breaker; 0.5
	MinCalls    uint             // within Window before the rate counts; 10
	Window      time.Duration    // 10 s
	OpenFor     time.Duration    // before one call may try again; 2 s
	Transient   func(error) bool // worth a retry, and counted by the breaker; required
}

// Policy is a configured guard. It is safe for concurrent use.
type Policy struct {
	executor   failsafe.Executor[any]
	perAttempt time.Duration
}

// New returns a guard for one peer.
func New(cfg Config) (*Policy, error) {
	if cfg.Transient == nil {
		return nil, errors.New("resilience: Transient is missing: say which errors a retry may heal")
	}
	cfg = withDefaults(cfg)
	transient := func(_ any, err error) bool { return err != nil && cfg.Transient(err) }
	retry := retrypolicy.NewBuilder[any]().
		HandleIf(transient).
		WithMaxAttempts(cfg.Attempts).
		WithBackoff(cfg.Backoff, cfg.BackoffMax).
		WithJitterFactor(0.25).
		WithBudget(budget.NewBuilder().WithMaxRate(cfg.RetryBudget).Build()).
		ReturnLastFailure().
		Build()
	breaker := circuitbreaker.NewBuilder[any]().
		HandleIf(transient).
		WithFailureRateThreshold(cfg.FailureRate, cfg.MinCalls, cfg.Window).
		WithDelay(cfg.OpenFor).
		Build()
	return &Policy{executor: failsafe.With[any](breaker, retry), perAttempt: cfg.PerAttempt}, nil
}

// Do calls fn under the guard. Each attempt gets a context with its own
// deadline, so that a peer over gRPC learns of it.
func Do[R any](ctx context.Context, p *Policy, fn func(context.Context) (R, error)) (R, error) {
	var last error
	result, err := p.executor.WithContext(ctx).Get(func() (any, error) {
		attempt, cancel := context.WithTimeout(ctx, p.perAttempt)
		defer cancel()
		r, err := fn(attempt)
		last = err
		return r, err
	})
	var none R
	switch {
	case errors.Is(err, circuitbreaker.ErrOpen):
		return none, ErrOpen
	case errors.Is(err, budget.ErrExceeded):
		// The budget only stopped another try: the caller wants to know why
		// the tries before it failed.
		return none, fmt.Errorf("retry budget is spent: %w", last)
	case err != nil:
		return none, err
	}
	return result.(R), nil
}

func withDefaults(c Config) Config {
	c.Attempts = orDefault(c.Attempts, 3)
	c.PerAttempt = orDefault(c.PerAttempt, 300*time.Millisecond)
	c.Backoff = orDefault(c.Backoff, 25*time.Millisecond)
	c.BackoffMax = orDefault(c.BackoffMax, 250*time.Millisecond)
	c.RetryBudget = orDefault(c.RetryBudget, 0.2)
	c.FailureRate = orDefault(c.FailureRate, 0.5)
	c.MinCalls = orDefault(c.MinCalls, 10)
	c.Window = orDefault(c.Window, 10*time.Second)
	c.OpenFor = orDefault(c.OpenFor, 2*time.Second)
	return c
}

func orDefault[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}
