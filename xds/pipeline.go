// Package xds is the control plane in one value: it reads the gateway file,
// compiles it and hands releases to the push engine, again after every change of
// the file or of the registered instances. Invariant: a bad file at start is
// fatal; a bad file later changes nothing that is served, and shows until it is
// mended.
package xds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/xds/compile"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// Source gives the operator's files and the values of their references.
type Source interface {
	Read() ([]config.Source, config.Values, error)
	Watch(ctx context.Context, changed chan<- struct{}, log *slog.Logger) error
}

// Publisher takes releases; the last one wins.
type Publisher interface {
	Publish(*release.Release)
}

// Instances knows who is registered.
type Instances interface {
	Instances() map[string][]compile.Instance
	Changed() <-chan struct{}
}

// PipelineConfig is what a pipeline is made of.
type PipelineConfig struct {
	Source    Source
	Publisher Publisher
	Instances Instances
	ExtAuthz  []string // host:port of the authorization servers
	RateLimit []string // host:port of the limiters
	TLS       bool     // these two speak TLS
	// Port gives the address of a listener whose port the file leaves open: the
	// same for the same listener, however often it is asked. nil keeps the file's.
	Port    func(config.Listener) (netip.AddrPort, error)
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// Pipeline is the pipeline from the file to the push engine.
type Pipeline struct {
	cfg       PipelineConfig
	gateway   *config.Gateway
	listeners map[string]netip.AddrPort
	reloads   *prometheus.CounterVec
	bad       prometheus.Gauge

	mu     sync.Mutex
	faults []string
}

// NewPipeline reads and compiles the file once; a fault is an error that lists all.
func NewPipeline(cfg PipelineConfig) (*Pipeline, error) {
	c := &Pipeline{
		cfg:       cfg,
		listeners: map[string]netip.AddrPort{},
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollgate_reloads_total", Help: "Reads of the gateway file by result.",
		}, []string{"result"}),
		bad: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tollgate_config_faults", Help: "Faults of the gateway file as it is on disk; the last good one is served.",
		}),
	}
	if err := errors.Join(cfg.Metrics.Register(c.reloads), cfg.Metrics.Register(c.bad)); err != nil {
		return nil, err
	}
	if err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Gateway is the file as it was at start.
func (c *Pipeline) Gateway() *config.Gateway { return c.gateway }

// Listeners are the addresses that Envoy serves, by listener name.
func (c *Pipeline) Listeners() map[string]netip.AddrPort { return c.listeners }

// Faults are those of the file as it is on disk; empty when it is served.
func (c *Pipeline) Faults() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.faults
}

// Run follows the file and the instances until ctx ends.
func (c *Pipeline) Run(ctx context.Context) error {
	changed := make(chan struct{})
	failed := make(chan error, 1)
	go func() { failed <- c.cfg.Source.Watch(ctx, changed, c.cfg.Log) }()
	for {
		select {
		case err := <-failed:
			return err
		case <-changed:
			c.follow()
		case <-c.cfg.Instances.Changed():
			if err := c.publish(c.gateway); err != nil {
				c.cfg.Log.Error("instances could not be published, the last release stays", "err", err)
			}
		}
	}
}

func (c *Pipeline) follow() {
	start := time.Now()
	err := c.reload()
	if err == nil {
		c.set(nil)
		c.reloads.WithLabelValues("ok").Inc()
		c.cfg.Log.Info("gateway file loaded", "dur", time.Since(start))
		return
	}
	faults := lines(err)
	c.set(faults)
	c.reloads.WithLabelValues("refused").Inc()
	for _, fault := range faults {
		c.cfg.Log.Error("gateway file refused, the last good one stays", "err", fault)
	}
}

func (c *Pipeline) set(faults []string) {
	c.bad.Set(float64(len(faults)))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = faults
}

func (c *Pipeline) reload() error {
	sources, values, err := c.cfg.Source.Read()
	if err != nil {
		return err
	}
	gateway, warnings, err := config.Parse(sources, values)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		c.cfg.Log.Warn("gateway file", "err", w.String())
	}
	if err := c.publish(gateway); err != nil {
		return err
	}
	c.gateway = gateway
	return nil
}

func (c *Pipeline) publish(gateway *config.Gateway) error {
	if err := c.ports(gateway); err != nil {
		return err
	}
	objects, warnings := compile.Compile(gateway, compile.Scope{
		ExtAuthz: c.cfg.ExtAuthz, RateLimit: c.cfg.RateLimit, TLS: c.cfg.TLS,
		Listeners: c.listeners, Instances: c.cfg.Instances.Instances(),
	})
	for _, w := range warnings {
		c.cfg.Log.Debug("compile", "err", w)
	}
	r, err := release.New(objects)
	if err != nil {
		return fmt.Errorf("the file is valid but its resources are not, which is a defect of tollgate: %w", err)
	}
	c.cfg.Publisher.Publish(r)
	return nil
}

// ports replaces the addresses that the file leaves open.
func (c *Pipeline) ports(gateway *config.Gateway) error {
	if c.cfg.Port == nil {
		return nil
	}
	next := map[string]netip.AddrPort{}
	for _, l := range gateway.Listeners {
		address, err := c.cfg.Port(l)
		if err != nil {
			return fmt.Errorf("%s:%d:%d: listeners[%s].address: %w", l.Pos.File, l.Pos.Line, l.Pos.Col, l.Name, err)
		}
		next[l.Name] = address
	}
	c.listeners = next
	return nil
}

func lines(err error) []string {
	var faults config.Faults
	if !errors.As(err, &faults) {
		return []string{err.Error()}
	}
	out := make([]string, 0, len(faults))
	for _, f := range faults {
		out = append(out, f.String())
	}
	return out
}
