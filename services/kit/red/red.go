// Package red counts a service's requests: rate, errors, duration. Invariant:
// every label value comes from a fixed set (a route pattern, never a path; a
// known method, never the client's word), so clients cannot add series.
package red

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts requests by method, endpoint and status.
type Metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inflight prometheus.Gauge
}

// New registers the metrics of one service.
func New(registerer prometheus.Registerer, service string) (*Metrics, error) {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "service_requests_total", Help: "Requests answered.",
		}, []string{"method", "endpoint", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "service_request_duration_seconds", Help: "Time to answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"method", "endpoint"}),
		inflight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "service_requests_in_flight", Help: "Requests being answered.",
		}),
	}
	labelled := prometheus.WrapRegistererWith(prometheus.Labels{"service": service}, registerer)
	err := errors.Join(labelled.Register(m.requests), labelled.Register(m.duration), labelled.Register(m.inflight))
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w: give each service its own registry", service, err)
	}
	return m, nil
}

// Begin counts a request in; the function returned counts it out.
func (m *Metrics) Begin() (end func(method, endpoint, status string)) {
	start := time.Now()
	m.inflight.Inc()
	return func(method, endpoint, status string) {
		m.inflight.Dec()
		m.requests.WithLabelValues(method, endpoint, status).Inc()
		m.duration.WithLabelValues(method, endpoint).Observe(time.Since(start).Seconds())
	}
}
