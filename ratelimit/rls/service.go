// Package rls speaks envoy.service.ratelimit.v3: it turns a RateLimitRequest
// into counters, has them decided, and says so. Invariant: an answer says OK
// or OVER_LIMIT. Envoy admits a request on any other code, the zero value
// included, so what cannot be decided is a gRPC error and the route's own
// failure mode applies.
package rls

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/api/contract"
	"tollgate/ratelimit/engine"
	"tollgate/ratelimit/limits"
)

// maxDescriptors bounds the work of one request; the routes that we compile
// send one descriptor a limit.
const maxDescriptors = 128

// Store decides the counters of one request together.
type Store interface {
	Take(ctx context.Context, now time.Time, cells []engine.Cell) ([]engine.Reading, error)
}

// Observer counts the refusals of every rule, those of shadows apart.
type Observer interface {
	Refusals(rule string, shadow bool) Counter
}

// Counter counts. It is for concurrent use.
type Counter interface{ Inc() }

// Service is the rate-limit service.
type Service struct {
	store    Store
	observer Observer
	now      func() time.Time
	book     atomic.Pointer[book]
}

// New returns a service that knows no limits until SetTable. now is
// time.Now outside tests.
func New(store Store, observer Observer, now func() time.Time) *Service {
	s := &Service{store: store, observer: observer, now: now}
	s.book.Store(newBook(&limits.Table{}, observer))
	return s
}

// SetTable makes the service answer by a new table; requests under way end
// with the old one.
func (s *Service) SetTable(t *limits.Table) { s.book.Store(newBook(t, s.observer)) }

// ShouldRateLimit decides one request.
func (s *Service) ShouldRateLimit(ctx context.Context, req *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	if req.GetDomain() != contract.LimitDomain {
		return nil, status.Errorf(codes.InvalidArgument, "rate limit: this server answers for domain %q only: set it in the rate-limit filter", contract.LimitDomain)
	}
	if n := len(req.GetDescriptors()); n == 0 || n > maxDescriptors {
		return nil, status.Errorf(codes.InvalidArgument, "rate limit: %d descriptors: send 1 to %d", n, maxDescriptors)
	}
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	book := s.book.Load()
	plan, err := book.plan(req)
	if err != nil {
		return nil, status.Error(code(err), "rate limit: "+err.Error())
	}
	now := s.now()
	if len(plan.cells) > 0 {
		if plan.readings, err = s.store.Take(ctx, now, plan.cells); err != nil {
			return nil, status.Error(code(err), "rate limit: "+err.Error())
		}
	}
	for i := range plan.readings {
		if !plan.readings[i].Allowed {
			book.pages[plan.rules[i]].refused.Inc()
		}
	}
	return book.answer(plan, now), nil
}

// code is what makes Envoy do the right thing: every code is a failure of the
// limiter to it; the words are for those who read logs.
func code(err error) codes.Code {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, limits.ErrBadDescriptor):
		return codes.InvalidArgument
	}
	return codes.Unavailable
}

// plan is one request as counters. of[i] is the cell of descriptor i, -1 for
// none.
type plan struct {
	of       []int
	cells    []engine.Cell
	rules    []*limits.Rule
	readings []engine.Reading
}

// plan finds the counters of a request. Two descriptors of one counter are one
// cell that costs both.
func (b *book) plan(req *rlsv3.RateLimitRequest) (*plan, error) {
	n := len(req.GetDescriptors())
	p := &plan{of: make([]int, n), cells: make([]engine.Cell, 0, n), rules: make([]*limits.Rule, 0, n)}
	var room [8]limits.Entry
	for i, d := range req.GetDescriptors() {
		entries := room[:0]
		for _, e := range d.GetEntries() {
			entries = append(entries, limits.Entry{Key: e.GetKey(), Value: e.GetValue()})
		}
		found, ok, err := b.table.Match(entries)
		if err != nil {
			return nil, err
		}
		if !ok {
			p.of[i] = -1
			continue
		}
		cost, err := cost(req, d)
		if err != nil {
			return nil, err
		}
		p.of[i] = p.add(found, cost)
	}
	return p, nil
}

func (p *plan) add(found limits.Cell, cost uint64) int {
	for i := range p.cells {
		if p.cells[i].Key == found.Key {
			p.cells[i].Cost += cost
			return i
		}
	}
	r := found.Rule
	p.cells = append(p.cells, engine.Cell{Key: found.Key, Rule: r.ID, Rate: r.Rate, Cost: cost, Shadow: r.Shadow, OnError: r.OnError})
	p.rules = append(p.rules, r)
	return len(p.cells) - 1
}

// cost: a descriptor's own number counts as written, 0 included; the
// request's 0 means that it has none.
func cost(req *rlsv3.RateLimitRequest, d *ratelimitv3.RateLimitDescriptor) (uint64, error) {
	if d.GetIsNegativeHits() {
		return 0, errNegativeHits
	}
	if own := d.GetHitsAddend(); own != nil {
		return min(own.GetValue(), engine.MaxLimit), nil
	}
	return uint64(max(req.GetHitsAddend(), 1)), nil
}
