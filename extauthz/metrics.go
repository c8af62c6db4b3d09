package extauthz

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/extauthz/policy"
)

// metrics has labels from closed sets only: never a tenant, user, key or route.
type metrics struct {
	decisions *prometheus.CounterVec
	duration  prometheus.Histogram
	shadows   *prometheus.CounterVec
	policies  prometheus.Gauge
	keysBad   prometheus.Gauge
	keys      prometheus.Gauge
	refused   prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	const prefix = "tollgate_extauthz_"
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "decisions_total", Help: "Decisions by outcome, status and reason."}, []string{"decision", "status", "reason"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: prefix + "check_seconds", Help: "Time to decide.",
			Buckets: []float64{5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 1e-2, 1e-1},
		}),
		shadows:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "shadow_rules_total", Help: "What rules with enforce: false would have done."}, []string{"result"}),
		policies: prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "policies", Help: "Policies in force, removed ones of the last minute included."}),
		keys:     prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "api_keys", Help: "API keys in the key file."}),
		keysBad:  prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "key_file_bad", Help: "1 while the key file cannot be read and its last good content stays."}),
		refused:  prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "config_refused_total", Help: "Updates of the control plane that were refused."}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.decisions, m.duration, m.shadows, m.policies, m.keys, m.keysBad, m.refused} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Decided counts one decision.
func (m *metrics) Decided(d *policy.Decision, _ string, took time.Duration) {
	decision, status := "allow", "200"
	if !d.Allow {
		decision, status = "deny", strconv.Itoa(d.Reason.Status())
	}
	m.decisions.WithLabelValues(decision, status, string(d.Reason)).Inc()
	m.duration.Observe(took.Seconds())
	for _, s := range d.Shadows {
		m.shadows.WithLabelValues(s.Result).Inc()
	}
}
