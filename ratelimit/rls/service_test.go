package rls_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	limitsv1 "tollgate/api/limits/v1"
	"tollgate/internal/envelope"
	"tollgate/ratelimit/engine"
	"tollgate/ratelimit/limits"
	"tollgate/ratelimit/rls"
	"tollgate/ratelimit/store"
)

// noon is 15 s into a minute.
var noon = time.Date(2026, 11, 21, 12, 0, 15, 0, time.UTC)

func rule(id string, limit uint64, unit string, window time.Duration, edits ...func(*limitsv1.Rule)) *limitsv1.Rule {
	r := &limitsv1.Rule{
		Id: id, Slot: id, Limit: limit, Window: durationpb.New(window), Unit: unit,
		Algorithm: limitsv1.Rule_FIXED, OnError: limitsv1.Rule_LOCAL,
	}
	for _, edit := range edits {
		edit(r)
	}
	return r
}

func shadow(r *limitsv1.Rule) { r.Shadow = true }

func gcra(r *limitsv1.Rule) { r.Algorithm = limitsv1.Rule_GCRA }

// refusals remembers what an observer is told.
type refusals []string

func (r *refusals) Refusals(rule string, shadow bool) rls.Counter {
	if shadow {
		rule += " (shadow)"
	}
	return counter(func() { *r = append(*r, rule) })
}

type counter func()

func (c counter) Inc() { c() }

func tableOf(t testing.TB, rules ...*limitsv1.Rule) *limits.Table {
	t.Helper()
	parsed, err := limits.Rules(&limitsv1.RuleSet{Name: "s", Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	table, err := limits.NewTable(parsed)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func service(t testing.TB, s rls.Store, rules ...*limitsv1.Rule) (*rls.Service, *refusals) {
	t.Helper()
	seen := &refusals{}
	svc := rls.New(s, seen, func() time.Time { return noon })
	svc.SetTable(tableOf(t, rules...))
	return svc, seen
}

// request asks for limits, each "id" or "id key=value key=value".
func request(descriptors ...string) *rlsv3.RateLimitRequest {
	req := &rlsv3.RateLimitRequest{Domain: "tollgate"}
	for _, d := range descriptors {
		words := strings.Fields(d)
		entries := []*ratelimitv3.RateLimitDescriptor_Entry{{Key: "limit", Value: words[0]}}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			entries = append(entries, &ratelimitv3.RateLimitDescriptor_Entry{Key: key, Value: value})
		}
		req.Descriptors = append(req.Descriptors, &ratelimitv3.RateLimitDescriptor{Entries: entries})
	}
	return req
}

func ask(t testing.TB, s *rls.Service, req *rlsv3.RateLimitRequest) *rlsv3.RateLimitResponse {
	t.Helper()
	answer, err := s.ShouldRateLimit(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	neverUnknown(t, answer)
	return answer
}

// neverUnknown looks at the bytes that Envoy gets: an absent code admits.
func neverUnknown(t testing.TB, answer *rlsv3.RateLimitResponse) {
	t.Helper()
	wire, err := proto.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	number, kind, n := protowire.ConsumeTag(wire)
	if n < 0 || number != 1 || kind != protowire.VarintType {
		t.Fatalf("the answer does not begin with overall_code: %x", wire)
	}
	code, _ := protowire.ConsumeVarint(wire[n:])
	if code != uint64(rlsv3.RateLimitResponse_OK) && code != uint64(rlsv3.RateLimitResponse_OVER_LIMIT) {
		t.Fatalf("overall_code %d", code)
	}
}

func meta(answer *rlsv3.RateLimitResponse) string {
	f := answer.GetDynamicMetadata().GetFields()
	return f["limit"].GetStringValue() + " " + f["decision"].GetStringValue()
}

func TestStatuses(t *testing.T) {
	s, seen := service(
		t, store.NewMemory(0),
		rule("minute", 3, "minute", time.Minute),
		rule("month", 5_000_000_000, "month", 720*time.Hour),
		rule("ten", 7, "", 10*time.Second),
		rule("short", 9, "", 250*time.Millisecond),
		rule("bucket", 60, "minute", time.Minute, gcra, func(r *limitsv1.Rule) { r.Burst = 10 }),
		rule("watch", 1, "hour", time.Hour, shadow),
		rule("plan/pro/0", 8, "hour", time.Hour, func(r *limitsv1.Rule) { r.Slot, r.Plan = "plan/0", "pro" }),
	)
	req := request("minute", "month", "ten", "short", "bucket", "watch", "plan/0 plan=pro", "plan/0 plan=none")
	ok := rlsv3.RateLimitResponse_OK
	type st = rlsv3.RateLimitResponse_DescriptorStatus
	type lim = rlsv3.RateLimitResponse_RateLimit
	want := []*st{
		{Code: ok, CurrentLimit: &lim{Name: "minute", RequestsPerUnit: 3, Unit: rlsv3.RateLimitResponse_RateLimit_MINUTE}, LimitRemaining: 2, DurationUntilReset: durationpb.New(45 * time.Second)},
		{Code: ok, CurrentLimit: &lim{Name: "month", RequestsPerUnit: 4294967295, Unit: rlsv3.RateLimitResponse_RateLimit_MONTH}, LimitRemaining: 4294967295, DurationUntilReset: durationpb.New(1_339_185 * time.Second)},
		{Code: ok, CurrentLimit: &lim{Name: "ten", RequestsPerUnit: 7, Unit: rlsv3.RateLimitResponse_RateLimit_SECOND, UnitMultiplier: wrapperspb.UInt32(10)}, LimitRemaining: 6, DurationUntilReset: durationpb.New(5 * time.Second)},
		{Code: ok, CurrentLimit: &lim{Name: "short", RequestsPerUnit: 9}, LimitRemaining: 8, DurationUntilReset: durationpb.New(time.Second)},
		{Code: ok, CurrentLimit: &lim{Name: "bucket", RequestsPerUnit: 60, Unit: rlsv3.RateLimitResponse_RateLimit_MINUTE}, LimitRemaining: 9, DurationUntilReset: durationpb.New(time.Second)},
		{Code: ok},
		{Code: ok, CurrentLimit: &lim{Name: "plan/pro/0", RequestsPerUnit: 8, Unit: rlsv3.RateLimitResponse_RateLimit_HOUR}, LimitRemaining: 7, DurationUntilReset: durationpb.New(3585 * time.Second)},
		{Code: ok},
	}
	answer := ask(t, s, req)
	if diff := cmp.Diff(want, answer.GetStatuses(), protocmp.Transform(), protocmp.IgnoreFields(&st{}, "duration_until_reset")); diff != "" {
		t.Fatal(diff)
	}
	for i := range want {
		if i != 1 && want[i].GetDurationUntilReset().GetSeconds() != answer.Statuses[i].GetDurationUntilReset().GetSeconds() {
			t.Errorf("status %d resets in %s, want %s", i, answer.Statuses[i].DurationUntilReset, want[i].DurationUntilReset)
		}
	}
	if got := meta(answer); got != "minute ok" {
		t.Errorf("metadata %q: the tightest is the one that Envoy shows", got)
	}
	if got := meta(ask(t, s, req)); got != "watch shadow" {
		t.Errorf("metadata %q: the shadow would have refused", got)
	}
	if len(*seen) != 1 || (*seen)[0] != "watch (shadow)" {
		t.Errorf("observer told %v", *seen)
	}
	ask(t, s, req)
	answer = ask(t, s, req)
	if answer.OverallCode != rlsv3.RateLimitResponse_OVER_LIMIT || meta(answer) != "minute over_limit" {
		t.Fatalf("fourth: %v", answer)
	}
	if r := answer.Statuses[6]; r.Code != ok || r.LimitRemaining != 5 {
		t.Errorf("a refused request took from another limit: %v", r)
	}
}

func TestOverLimit(t *testing.T) {
	s, seen := service(
		t, store.NewMemory(0),
		rule("loose", 5, "hour", time.Hour),
		rule("tight", 1, "minute", time.Minute, func(r *limitsv1.Rule) { r.Message = `slow "down"` }),
		rule("plain", 1, "", 10*time.Second),
	)
	ask(t, s, request("loose", "tight"))
	answer := ask(t, s, request("loose", "tight"))
	if answer.OverallCode != rlsv3.RateLimitResponse_OVER_LIMIT || meta(answer) != "tight over_limit" {
		t.Fatalf("answer %v", answer)
	}
	headers := map[string]string{}
	for _, h := range answer.ResponseHeadersToAdd {
		headers[h.Key] = h.Value
	}
	if diff := cmp.Diff(map[string]string{"content-type": "application/json", "retry-after": "45"}, headers); diff != "" {
		t.Error(diff)
	}
	var body envelope.Body
	if err := json.Unmarshal(answer.RawBody, &body); err != nil {
		t.Fatal(err)
	}
	want := envelope.Body{
		Error: envelope.Error{Code: "RATE_LIMITED", Reason: "over_limit", Message: `slow "down"`, Details: []string{}},
		Meta:  envelope.Meta{Timestamp: "2026-11-21T12:00:15.000Z"},
	}
	if diff := cmp.Diff(want, body); diff != "" {
		t.Error(diff)
	}
	if len(*seen) != 1 || (*seen)[0] != "tight" {
		t.Errorf("observer told %v", *seen)
	}
	ask(t, s, request("plain"))
	answer = ask(t, s, request("plain"))
	if !strings.Contains(string(answer.RawBody), "Too many requests: try again in 5 s") {
		t.Errorf("body %s", answer.RawBody)
	}
	answer = ask(t, s, request("plain", "tight"))
	if meta(answer) != "tight over_limit" || len(answer.ResponseHeadersToAdd) != 2 {
		t.Errorf("of two that refuse, the longer wait counts: %v", answer)
	}
}

// TestEnvoyShowsTheRefusing: Envoy shows the first status with the smallest
// remaining; a limit that refuses a large cost must be it.
func TestEnvoyShowsTheRefusing(t *testing.T) {
	s, _ := service(t, store.NewMemory(0), rule("small", 2, "hour", time.Hour), rule("large", 9, "minute", time.Minute))
	req := request("small", "large")
	req.Descriptors[1].HitsAddend = wrapperspb.UInt64(8)
	ask(t, s, req)
	answer := ask(t, s, req)
	if answer.Statuses[1].Code != rlsv3.RateLimitResponse_OVER_LIMIT || answer.Statuses[1].LimitRemaining != 0 {
		t.Errorf("refusing status %v", answer.Statuses[1])
	}
	if answer.Statuses[0].LimitRemaining != 1 {
		t.Errorf("other status %v", answer.Statuses[0])
	}
}

func TestHits(t *testing.T) {
	tests := []struct {
		name string
		edit func(*rlsv3.RateLimitRequest)
		left uint32 // of 100
	}{
		{"none means one", func(*rlsv3.RateLimitRequest) {}, 99},
		{"the request's", func(r *rlsv3.RateLimitRequest) { r.HitsAddend = 7 }, 93},
		{"the descriptor's wins", func(r *rlsv3.RateLimitRequest) {
			r.HitsAddend, r.Descriptors[0].HitsAddend = 7, wrapperspb.UInt64(3)
		}, 97},
		{"the descriptor's 0 asks only", func(r *rlsv3.RateLimitRequest) {
			r.HitsAddend, r.Descriptors[0].HitsAddend = 7, wrapperspb.UInt64(0)
		}, 100},
		{"one counter twice costs both", func(r *rlsv3.RateLimitRequest) {
			r.HitsAddend = 2
			r.Descriptors = append(r.Descriptors, proto.Clone(r.Descriptors[0]).(*ratelimitv3.RateLimitDescriptor))
		}, 96},
		{"more than fits takes nothing", func(r *rlsv3.RateLimitRequest) { r.Descriptors[0].HitsAddend = wrapperspb.UInt64(1 << 63) }, 100},
		{"an override in the request is not trusted", func(r *rlsv3.RateLimitRequest) {
			r.Descriptors[0].Limit = &ratelimitv3.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: 1_000_000}
		}, 99},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, _ := service(t, store.NewMemory(0), rule("r", 100, "hour", time.Hour))
			req := request("r")
			test.edit(req)
			ask(t, s, req)
			peek := request("r")
			peek.Descriptors[0].HitsAddend = wrapperspb.UInt64(0)
			if got := ask(t, s, peek).Statuses[0].LimitRemaining; got != test.left {
				t.Fatalf("%d left, want %d", got, test.left)
			}
		})
	}
}

// failing is a store that cannot decide.
type failing struct{ err error }

func (f failing) Take(context.Context, time.Time, []engine.Cell) ([]engine.Reading, error) {
	return nil, f.err
}

func (f failing) Settle(context.Context, store.Trip) (store.Settled, error) {
	return store.Settled{}, f.err
}

func (f failing) Beat(context.Context) (int, error) { return 0, f.err }

func TestErrors(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	many := request("r")
	for range 200 {
		many.Descriptors = append(many.Descriptors, many.Descriptors[0])
	}
	refund := request("r")
	refund.Descriptors[0].IsNegativeHits = true
	tests := []struct {
		name  string
		ctx   context.Context
		req   *rlsv3.RateLimitRequest
		store rls.Store
		code  codes.Code
		says  string
	}{
		{"another domain", nil, &rlsv3.RateLimitRequest{Domain: "other", Descriptors: request("r").Descriptors}, nil, codes.InvalidArgument, `domain "tollgate" only`},
		{"no descriptors", nil, request(), nil, codes.InvalidArgument, "0 descriptors"},
		{"too many descriptors", nil, many, nil, codes.InvalidArgument, "201 descriptors"},
		{"nothing at all", nil, &rlsv3.RateLimitRequest{}, nil, codes.InvalidArgument, "domain"},
		{"an unknown limit", nil, request("r", "new"), nil, codes.Unavailable, `unknown limit "new"`},
		{"a refund", nil, refund, nil, codes.InvalidArgument, "is_negative_hits"},
		{"no first entry", nil, &rlsv3.RateLimitRequest{Domain: "tollgate", Descriptors: []*ratelimitv3.RateLimitDescriptor{{}}}, nil, codes.InvalidArgument, "first entry"},
		{"the caller is gone", ended, request("r"), nil, codes.Canceled, "canceled"},
		{"the store says closed", nil, request("r"), failing{store.ErrRefused}, codes.Unavailable, "on_error: closed"},
		{"the store fails", nil, request("r"), failing{errors.New("boom")}, codes.Unavailable, "boom"},
		{"the store is too late", nil, request("r"), failing{context.DeadlineExceeded}, codes.DeadlineExceeded, "deadline"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.ctx == nil {
				test.ctx = context.Background()
			}
			if test.store == nil {
				test.store = store.NewMemory(0)
			}
			s, _ := service(t, test.store, rule("r", 1, "hour", time.Hour))
			answer, err := s.ShouldRateLimit(test.ctx, test.req)
			if answer != nil || status.Code(err) != test.code || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("got %v, %v; want %s with %q", answer, err, test.code, test.says)
			}
		})
	}
}

// TestOpenStore: a limit that was not counted shows no numbers.
func TestOpenStore(t *testing.T) {
	open := store.NewFailover(store.FailoverConfig{Primary: failing{errors.New("down")}, Local: store.NewMemory(0), Log: discard()})
	s, _ := service(t, open, rule("r", 1, "hour", time.Hour, func(r *limitsv1.Rule) { r.OnError = limitsv1.Rule_OPEN }))
	for range 3 {
		answer := ask(t, s, request("r"))
		if answer.OverallCode != rlsv3.RateLimitResponse_OK || answer.Statuses[0].CurrentLimit != nil || meta(answer) != "(none) ok" {
			t.Fatalf("%v", answer)
		}
	}
}

func TestBeforeTheFirstTable(t *testing.T) {
	s := rls.New(store.NewMemory(0), &refusals{}, time.Now)
	if _, err := s.ShouldRateLimit(context.Background(), request("r")); status.Code(err) != codes.Unavailable {
		t.Fatalf("error %v, want UNAVAILABLE", err)
	}
}

// TestOverflowIsRefused: costs that add up to 2^64 are not a cost of nothing.
func TestOverflowIsRefused(t *testing.T) {
	s, _ := service(t, store.NewMemory(0), rule("r", 100, "hour", time.Hour))
	req := request("r", "r")
	for _, d := range req.Descriptors {
		d.HitsAddend = wrapperspb.UInt64(1 << 63)
	}
	if answer := ask(t, s, req); answer.OverallCode != rlsv3.RateLimitResponse_OVER_LIMIT {
		t.Errorf("%v", answer)
	}
}

// TestRefusalIsCheaper: a refusal allocates less than an admission.
func TestRefusalIsCheaper(t *testing.T) {
	s, _ := service(t, store.NewMemory(0), rule("free", 1e9, "day", 24*time.Hour), rule("spent", 0, "day", 24*time.Hour))
	allocs := func(name string, want rlsv3.RateLimitResponse_Code) float64 {
		req := request(name)
		if got := ask(t, s, req).OverallCode; got != want {
			t.Fatalf("%s: %s", name, got)
		}
		return testing.AllocsPerRun(1000, func() { _, _ = s.ShouldRateLimit(context.Background(), req) })
	}
	admitted, refused := allocs("free", rlsv3.RateLimitResponse_OK), allocs("spent", rlsv3.RateLimitResponse_OVER_LIMIT)
	if refused > admitted || admitted > 12 {
		t.Errorf("%v allocations for an admission, %v for a refusal; want at most 12, and no more for the second", admitted, refused)
	}
}

// TestNamesAreSafeInHeaders: Envoy puts the name between quotes as it is.
func TestNamesAreSafeInHeaders(t *testing.T) {
	const id = "a\"b\\c\r\nd\u00e9"
	s, _ := service(t, store.NewMemory(0), rule(id, 1, "hour", time.Hour))
	req := request("x")
	req.Descriptors[0].Entries[0].Value = id
	if got := ask(t, s, req).GetStatuses()[0].GetCurrentLimit().GetName(); got != "a_b_c__d_" {
		t.Errorf("name %q", got)
	}
}
