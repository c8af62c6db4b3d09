package rls

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tollgate/internal/envelope"
	"tollgate/ratelimit/engine"
	"tollgate/ratelimit/limits"
)

// errNegativeHits refuses what our routes never send.
var errNegativeHits = fmt.Errorf("%w: is_negative_hits is not supported", limits.ErrBadDescriptor)

// outcome is the word for a decision in the dynamic metadata.
type outcome string

const (
	outcomeOK     outcome = "ok"
	outcomeOver   outcome = "over_limit"
	outcomeShadow outcome = "shadow"
)

// book is a table with the parts of answers that depend on the rule alone,
// made once. They are shared by answers under way, so nothing writes to them.
type book struct {
	table *limits.Table
	pages map[*limits.Rule]*page
	none  *structpb.Struct
}

type page struct {
	limit      *rlsv3.RateLimitResponse_RateLimit
	ok, shadow *structpb.Struct
	refused    Counter
	last       atomic.Pointer[refusal]
}

// refusal is what all refusals by one rule within one second say: whoever is
// refused comes again at once, so it must cost less than to be admitted.
type refusal struct {
	second, after int64
	body          []byte
	metadata      *structpb.Struct
	headers       []*corev3.HeaderValue
}

func newBook(t *limits.Table, o Observer) *book {
	b := &book{table: t, pages: make(map[*limits.Rule]*page, len(t.Rules())), none: metadata(limits.None, outcomeOK)}
	for _, r := range t.Rules() {
		b.pages[r] = &page{
			limit: currentLimit(r),
			ok:    metadata(r.ID, outcomeOK), shadow: metadata(r.ID, outcomeShadow),
			refused: o.Refusals(r.ID, r.Shadow),
		}
	}
	return b
}

// metadata holds strings only: Envoy's access log and descriptors do not see
// anything else.
func metadata(limit string, o outcome) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		"limit":    structpb.NewStringValue(strings.ToValidUTF8(limit, "_")),
		"decision": structpb.NewStringValue(string(o)),
	}}
}

// currentLimit is what Envoy makes X-RateLimit-Limit of.
func currentLimit(r *limits.Rule) *rlsv3.RateLimitResponse_RateLimit {
	l := &rlsv3.RateLimitResponse_RateLimit{Name: headerName(r.ID), RequestsPerUnit: clamp(r.Rate.Limit)}
	switch r.Unit {
	case "second":
		l.Unit = rlsv3.RateLimitResponse_RateLimit_SECOND
	case "minute":
		l.Unit = rlsv3.RateLimitResponse_RateLimit_MINUTE
	case "hour":
		l.Unit = rlsv3.RateLimitResponse_RateLimit_HOUR
	case "day":
		l.Unit = rlsv3.RateLimitResponse_RateLimit_DAY
	case "week":
		l.Unit = rlsv3.RateLimitResponse_RateLimit_WEEK
	case "month":
		l.Unit = rlsv3.RateLimitResponse_RateLimit_MONTH
	default:
		if seconds := r.Rate.Window / time.Second; r.Rate.Window%time.Second == 0 && seconds <= math.MaxUint32 {
			l.Unit = rlsv3.RateLimitResponse_RateLimit_SECOND
			l.UnitMultiplier = wrapperspb.UInt32(uint32(seconds))
		}
	}
	return l
}

// headerName keeps out what Envoy would put unescaped between quotes.
func headerName(id string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '_'
		}
		return r
	}, id)
}

func clamp(n uint64) uint32 { return uint32(min(n, math.MaxUint32)) }

// answer is the only maker of responses.
func (b *book) answer(p *plan, now time.Time) *rlsv3.RateLimitResponse {
	response := &rlsv3.RateLimitResponse{
		OverallCode: rlsv3.RateLimitResponse_OK,
		Statuses:    b.statuses(p),
	}
	tightest, shadow, refusing := -1, -1, -1
	for i, r := range p.readings {
		switch {
		case !r.Allowed && p.cells[i].Shadow:
			shadow = i
		case !r.Allowed && (refusing < 0 || r.RetryAfter > p.readings[refusing].RetryAfter):
			refusing = i
		case r.Known && !p.cells[i].Shadow && (tightest < 0 || r.Remaining < p.readings[tightest].Remaining):
			tightest = i
		}
	}
	switch {
	case refusing >= 0:
		b.refuse(response, p.rules[refusing], p.readings[refusing], now)
	case shadow >= 0:
		response.DynamicMetadata = b.pages[p.rules[shadow]].shadow
	case tightest >= 0:
		response.DynamicMetadata = b.pages[p.rules[tightest]].ok
	default:
		response.DynamicMetadata = b.none
	}
	return response
}

// statuses has one status a descriptor, in order. Envoy makes X-RateLimit-*
// of the smallest limit_remaining among those with a current_limit, so a
// shadow and a limit that was not counted show none, and one that refuses
// shows nothing remaining even when a smaller request would fit.
func (b *book) statuses(p *plan) []*rlsv3.RateLimitResponse_DescriptorStatus {
	type full struct {
		status rlsv3.RateLimitResponse_DescriptorStatus
		reset  durationpb.Duration
	}
	room := make([]full, len(p.of))
	statuses := make([]*rlsv3.RateLimitResponse_DescriptorStatus, len(p.of))
	for i, cell := range p.of {
		s := &room[i].status
		statuses[i] = s
		s.Code = rlsv3.RateLimitResponse_OK
		if cell < 0 || p.cells[cell].Shadow || !p.readings[cell].Known {
			continue
		}
		r := &p.readings[cell]
		s.CurrentLimit = b.pages[p.rules[cell]].limit
		s.DurationUntilReset = &room[i].reset
		s.DurationUntilReset.Seconds = engine.Seconds(r.Reset)
		s.LimitRemaining = clamp(r.Remaining)
		if !r.Allowed {
			s.Code = rlsv3.RateLimitResponse_OVER_LIMIT
			s.LimitRemaining = 0
			s.DurationUntilReset.Seconds = retryAfter(r)
		}
	}
	return statuses
}

func retryAfter(r *engine.Reading) int64 { return max(engine.Seconds(r.RetryAfter), 1) }

func (b *book) refuse(response *rlsv3.RateLimitResponse, rule *limits.Rule, r engine.Reading, now time.Time) {
	after, p := retryAfter(&r), b.pages[rule]
	said := p.last.Load()
	if said == nil || said.second != now.Unix() || said.after != after {
		said = newRefusal(rule, after, now)
		p.last.Store(said)
	}
	response.OverallCode = rlsv3.RateLimitResponse_OVER_LIMIT
	response.RawBody = said.body
	response.DynamicMetadata = said.metadata
	response.ResponseHeadersToAdd = said.headers
}

func newRefusal(rule *limits.Rule, after int64, now time.Time) *refusal {
	message := rule.Message
	if message == "" {
		message = fmt.Sprintf("Too many requests: try again in %d s", after)
	}
	said := &refusal{
		second: now.Unix(), after: after,
		body: envelope.JSON(http.StatusTooManyRequests, "over_limit", message, "", now),
		// Envoy knows the request's id and writes the envelope anew around this.
		metadata: metadata(rule.ID, outcomeOver),
		headers: []*corev3.HeaderValue{
			{Key: "content-type", Value: "application/json"},
			{Key: "retry-after", Value: strconv.FormatInt(after, 10)},
		},
	}
	said.metadata.Fields["message"] = structpb.NewStringValue(strings.ToValidUTF8(message, "_"))
	return said
}
