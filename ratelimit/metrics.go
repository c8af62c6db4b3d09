package ratelimit

import (
	"context"
	"sync"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/ratelimit/rls"
	"tollgate/ratelimit/store"
)

// maxRuleLabels bounds the series of refusals by rule; rules beyond it, over
// the life of the process, share the label "other".
const maxRuleLabels = 1000

type metrics struct {
	requests *prometheus.CounterVec
	duration prometheus.Observer
	refused  *prometheus.CounterVec
	updates  *prometheus.CounterVec
	rules    prometheus.Gauge
	degraded prometheus.Gauge

	ok, over, unavailable, bad, canceled prometheus.Counter

	mu     sync.Mutex
	series map[seriesKey]prometheus.Counter
	ids    map[string]bool
}

type seriesKey struct {
	rule   string
	shadow bool
}

func newMetrics(registry prometheus.Registerer, counters func() int) (*metrics, error) {
	duration := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "tollgate_ratelimit_request_duration_seconds", Help: "Time to answer ShouldRateLimit.",
		Buckets: []float64{.00002, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .02, .05, .1},
	})
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollgate_ratelimit_requests_total", Help: "Answers by decision: ok, over_limit; or none was made: unavailable (unknown limit, store down), bad_request, canceled.",
		}, []string{"decision"}),
		duration: duration,
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollgate_ratelimit_refused_total", Help: "Refusals by rule; mode shadow: would have refused.",
		}, []string{"rule", "mode"}),
		updates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollgate_ratelimit_rule_updates_total", Help: "Updates of the control plane: applied, refused.",
		}, []string{"result"}),
		rules: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tollgate_ratelimit_rules", Help: "Rules in use, removed ones that proxies may still ask for included.",
		}),
		degraded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tollgate_ratelimit_store_degraded", Help: "1 while Redis is down and every limit does what its on_error says.",
		}),
		series: map[seriesKey]prometheus.Counter{},
		ids:    map[string]bool{},
	}
	m.ok, m.over = m.requests.WithLabelValues("ok"), m.requests.WithLabelValues("over_limit")
	m.unavailable, m.bad, m.canceled = m.requests.WithLabelValues("unavailable"), m.requests.WithLabelValues("bad_request"), m.requests.WithLabelValues("canceled")
	held := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tollgate_ratelimit_memory_counters", Help: "Counters held in this process.",
	}, func() float64 { return float64(counters()) })
	for _, c := range []prometheus.Collector{m.requests, duration, m.refused, m.updates, m.rules, m.degraded, held} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// watchStore shows what a store that limiters share did.
func watchStore(registry prometheus.Registerer, shared *store.Failover) error {
	count := func(name, help string, of func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(of()) })
	}
	for _, c := range []prometheus.Collector{
		count("tollgate_ratelimit_store_trips_total", "Trips to Redis; one serves all requests that wait.", shared.Trips),
		count("tollgate_ratelimit_store_local_total", "Requests decided without Redis because it did not answer, by the on_error of their limits.", shared.Locals),
		count("tollgate_ratelimit_store_remembered_total", "Refusals by counters that Redis had said were spent, without asking it again.", shared.Remembered),
	} {
		if err := registry.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (m *metrics) setDegraded(down bool) {
	if down {
		m.degraded.Set(1)
		return
	}
	m.degraded.Set(0)
}

// Refusals returns the counter of a rule's refusals.
func (m *metrics) Refusals(rule string, shadow bool) rls.Counter {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := seriesKey{rule, shadow}
	if c, ok := m.series[key]; ok {
		return c
	}
	if !m.ids[rule] && len(m.ids) >= maxRuleLabels {
		key.rule = "other"
	}
	m.ids[key.rule] = true
	mode := "enforced"
	if shadow {
		mode = "shadow"
	}
	c := m.refused.WithLabelValues(key.rule, mode)
	m.series[key] = c
	return c
}

// observe measures ShouldRateLimit and leaves health checks alone.
func (m *metrics) observe(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if info.FullMethod != rlsv3.RateLimitService_ShouldRateLimit_FullMethodName {
		return next(ctx, req)
	}
	start := time.Now()
	answer, err := next(ctx, req)
	m.duration.Observe(time.Since(start).Seconds())
	m.outcome(answer, err).Inc()
	return answer, err
}

func (m *metrics) outcome(answer any, err error) prometheus.Counter {
	switch status.Code(err) {
	case codes.OK:
		if response, _ := answer.(*rlsv3.RateLimitResponse); response.GetOverallCode() == rlsv3.RateLimitResponse_OVER_LIMIT {
			return m.over
		}
		return m.ok
	case codes.InvalidArgument:
		return m.bad
	case codes.Canceled, codes.DeadlineExceeded:
		return m.canceled
	}
	return m.unavailable
}
