package push

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/xds/push/wire"
)

type metrics struct {
	streams   prometheus.Gauge
	responses *prometheus.CounterVec
	answers   *prometheus.CounterVec
	overdue   *prometheus.GaugeVec
	rolls     prometheus.Histogram
	encoded   prometheus.CounterFunc
}

func newMetrics(r prometheus.Registerer, frames *wire.Frames) (metrics, error) {
	m := metrics{
		streams:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "tollgate_xds_streams", Help: "Connected xDS clients."}),
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tollgate_xds_responses_total", Help: "Responses sent, by type."}, []string{"type_url"}),
		answers:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tollgate_xds_answers_total", Help: "What clients said of responses: ack or nack, by type."}, []string{"type_url", "answer"}),
		overdue:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tollgate_xds_overdue_answers", Help: "Clients that owe an answer for more than 5 s, by type."}, []string{"type_url"}),
		rolls: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tollgate_xds_roll_seconds", Help: "From a release to its being handed to every stream.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}),
	}
	m.encoded = prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tollgate_xds_encoded_total", Help: "Responses encoded; the same bytes go to every client that is sent the same."},
		func() float64 { return float64(frames.Encoded()) })
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.streams), r.Register(m.responses), r.Register(m.answers), r.Register(m.overdue), r.Register(m.rolls), r.Register(m.encoded))
}
