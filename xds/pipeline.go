// Package xds is the control plane in one value: it reads the gateway file,
// compiles it and hands releases to the push engine, again after every change of
// the file or of the registered instances. Invariants: what is served is valid as
// a whole; a file that is bad is held back, alone if the others are valid without
// its change, and shows until it is mended; at start the last good set on disk
// stands in, and without one a bad file is fatal; nothing is decoded while
// nothing changed, and a change is decoded once.
package xds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tollgate/xds/admin"
	"tollgate/xds/compile"
	"tollgate/xds/config"
	"tollgate/xds/config/language"
	"tollgate/xds/discovery"
	"tollgate/xds/endpoint"
	"tollgate/xds/files"
	"tollgate/xds/release"
	"tollgate/xds/shrink"
	"tollgate/xds/store"
)

// keepAgain is how soon a last good set that could not be written is tried again.
const keepAgain = 10 * time.Second

// Source gives the operator's files.
type Source interface {
	Read() (*files.Reading, error)
	Watch(ctx context.Context, changed chan<- struct{}, log *slog.Logger) error
	Dir() string
}

// Publisher takes releases; the last one wins.
type Publisher interface {
	Publish(*release.Release)
}

// Instances knows who is registered. The lists that it hands out do not change.
type Instances interface {
	Snapshot() map[string][]discovery.Instance
	Changed() <-chan struct{}
}

// PipelineConfig is what a pipeline is made of.
type PipelineConfig struct {
	Source      Source
	LastGood    *store.LastGood
	StrictStart bool // a bad file is fatal at start, whatever the last good set
	AllowShrink bool // a change may take away whatever it likes
	Publisher   Publisher
	Instances   Instances
	ExtAuthz    []string // host:port of the authorization servers
	RateLimit   []string // host:port of the limiters
	TrustDomain string   // of these two's certificates; "": they speak plain text
	// Port gives the address of a listener whose port the file leaves open: the
	// same for the same listener, however often it is asked. nil keeps the file's.
	Port    func(config.Listener) (netip.AddrPort, error)
	Metrics prometheus.Registerer
	Log     *slog.Logger
}

// Pipeline is the way from the files to the push engine.
type Pipeline struct {
	cfg     PipelineConfig
	parser  *language.Parser
	again   chan struct{} // read now, whether or not anything changed
	allow   chan string   // the revision of a set that may take away what it does
	reloads *prometheus.CounterVec
	bad     prometheus.Gauge

	// Of the goroutine that runs the pipeline alone.
	reading  *files.Reading // the last; nil: the files could not be read
	compiler *compile.Compiler
	lane     endpoint.Lane
	said     []string // notes of the compiler, already counted in the log
	release  *release.Release
	known    endpoint.Instances // that the release was made with

	mu        sync.Mutex // written by that goroutine, read by others
	gateway   *config.Gateway
	listeners map[string]netip.AddrPort
	sources   []config.Source // what is served
	served    admin.Served
	faults    []string // of the files
	unkept    error    // why the last good set is not on disk
	waits     *waiting // what waits to be allowed; nil: nothing does
}

// NewPipeline reads and compiles the files once. A fault is an error that lists
// all, unless the last good set can be served.
func NewPipeline(cfg PipelineConfig) (*Pipeline, error) {
	p := &Pipeline{
		compiler: compile.NewCompiler(), release: &release.Release{},
		cfg:       cfg,
		again:     make(chan struct{}, 1),
		allow:     make(chan string, 1),
		listeners: map[string]netip.AddrPort{},
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tollgate_reloads_total", Help: "Reads of the gateway file by result.",
		}, []string{"result"}),
		bad: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tollgate_config_faults", Help: "Faults of the gateway file as it is on disk; the last good one is served.",
		}),
	}
	if err := errors.Join(cfg.Metrics.Register(p.reloads), cfg.Metrics.Register(p.bad)); err != nil {
		return nil, err
	}
	for _, result := range []string{"ok", "refused"} {
		p.reloads.WithLabelValues(result) // a rate needs the zero before the first
	}
	var err error
	if p.parser, err = language.NewParser(); err != nil {
		return nil, err
	}
	return p, p.start()
}

// start serves the files, or what of them the last good set can mend.
func (p *Pipeline) start() error {
	last, err := p.cfg.LastGood.Load()
	if err != nil {
		p.cfg.Log.Warn("the last good set is left out of account", "err", err)
	}
	if last == nil {
		last = &store.Set{}
	}
	p.served = admin.Served{Revision: last.Revision, Since: last.Since}
	now, err := p.cfg.Source.Read()
	if err != nil {
		now = &files.Reading{}
	}
	chosen := choice{err: err, held: faulty(err, nil)}
	if err == nil {
		p.reading, chosen = now, p.choose(now, last.Sources)
	}
	if chosen.err != nil && p.cfg.StrictStart {
		return chosen.err
	}
	if chosen.gateway == nil && len(last.Sources) > 0 {
		chosen.sources = last.Sources
		if chosen.gateway, chosen.warnings, err = p.parser.Parse(last.Sources, now.Resolve); err != nil {
			return errors.Join(chosen.err, fmt.Errorf("the last good set cannot be served either: %w", err))
		}
	}
	if chosen.gateway == nil {
		return chosen.err
	}
	if err := p.serve(chosen); err != nil {
		return err
	}
	if chosen.err != nil {
		p.complain(chosen)
	}
	return nil
}

// Gateway is the file that is served.
func (p *Pipeline) Gateway() *config.Gateway {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gateway
}

// Listeners are the addresses that Envoy serves, by listener name.
func (p *Pipeline) Listeners() map[string]netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.listeners
}

// Served is which files are served, and which are held back.
func (p *Pipeline) Served() admin.Served {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.served
}

// Faults are those of the files as they are on disk, and of keeping what is
// good; empty when all is well.
func (p *Pipeline) Faults() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	faults := slices.Clone(p.faults)
	if p.unkept != nil {
		faults = append(faults, p.unkept.Error())
	}
	return faults
}

// Reload reads the files now, whether or not a change was seen.
func (p *Pipeline) Reload() {
	select {
	case p.again <- struct{}{}:
	default: // it will
	}
}

// AllowShrink serves what waits because it takes away too much, if the files
// still say that, and returns what it was; nil when nothing waits.
func (p *Pipeline) AllowShrink() error {
	p.mu.Lock()
	waits := p.waits
	p.mu.Unlock()
	if waits == nil {
		return nil
	}
	select {
	case p.allow <- waits.revision:
	default: // it is on its way
	}
	return waits.why
}

// waiting is a set of files that takes away too much.
type waiting struct {
	revision string
	why      error
}

// Run follows the files and the instances until ctx ends.
func (p *Pipeline) Run(ctx context.Context) error {
	changed := make(chan struct{})
	failed := make(chan error, 1)
	go func() { failed <- p.cfg.Source.Watch(ctx, changed, p.cfg.Log) }()
	retry := time.NewTicker(keepAgain)
	defer retry.Stop()
	for {
		select {
		case err := <-failed:
			return err
		case <-changed:
			p.follow(false, "")
		case <-p.again:
			p.follow(true, "")
		case allowed := <-p.allow:
			p.follow(true, allowed)
		case <-retry.C:
			if p.unkept != nil {
				p.keep()
			}
		case <-p.cfg.Instances.Changed():
			if err := p.instances(); err != nil {
				p.cfg.Log.Error("instances could not be published, the last release stays", "err", err)
			}
		}
	}
}

// follow serves what the files say now, if they say anything new or if told to.
// What takes away too much waits, unless it is the set of the allowed revision.
func (p *Pipeline) follow(always bool, allowed string) {
	start := time.Now()
	now, err := p.cfg.Source.Read()
	unchanged := err == nil && p.reading != nil && now.Same(p.reading)
	p.reading = now
	if unchanged && !always {
		return
	}
	chosen := choice{err: err, held: faulty(err, nil)}
	if err == nil {
		chosen = p.choose(now, p.sources)
	}
	chosen = p.shrinks(chosen, allowed)
	if chosen.gateway != nil {
		if err := p.serve(chosen); err != nil {
			chosen = choice{err: errors.Join(chosen.err, err), held: append(chosen.held, faulty(err, nil)...)}
		}
	}
	if chosen.err != nil {
		p.reloads.WithLabelValues("refused").Inc()
		p.complain(chosen)
		return
	}
	p.reloads.WithLabelValues("ok").Inc()
	p.cfg.Log.Info("gateway file loaded", "version", p.served.Revision, "dur", time.Since(start))
}

// shrinks lets a choice wait that takes away too much.
func (p *Pipeline) shrinks(c choice, allowed string) choice {
	var waits *waiting
	if c.gateway != nil && !p.cfg.AllowShrink {
		revision := store.Revision(p.cfg.Source.Dir(), c.sources)
		if why := shrink.Gateway(p.gateway, c.gateway); why != nil && revision != allowed {
			waits = &waiting{revision, why}
			c = choice{err: errors.Join(c.err, why), held: append(c.held, faulty(why, nil)...)}
		}
	}
	p.mu.Lock()
	p.waits = waits
	p.mu.Unlock()
	return c
}

// serve publishes a valid set and keeps it as the last good one.
func (p *Pipeline) serve(c choice) error {
	for _, w := range c.warnings {
		p.cfg.Log.Warn("gateway file", "err", w.String())
	}
	served := admin.Served{Revision: store.Revision(p.cfg.Source.Dir(), c.sources), Since: time.Now(), Held: c.held}
	listeners, err := p.publish(c.gateway, served.Revision)
	if err != nil {
		return err
	}
	for _, s := range c.sources {
		served.Files = append(served.Files, s.Name)
	}
	fresh := served.Revision != p.served.Revision
	if !fresh {
		served.Since = p.served.Since
	}
	p.bad.Set(float64(len(c.faults())))
	p.mu.Lock()
	p.gateway, p.listeners, p.sources, p.served, p.faults = c.gateway, listeners, c.sources, served, c.faults()
	p.mu.Unlock()
	if fresh {
		p.keep()
	}
	return nil
}

// keep writes the served set to disk. Serving goes on when that fails.
func (p *Pipeline) keep() {
	err := p.cfg.LastGood.Save(store.Set{Revision: p.served.Revision, Since: p.served.Since, Sources: p.sources})
	if err != nil {
		p.cfg.Log.Error("the last good set could not be kept", "err", err)
	}
	p.mu.Lock()
	p.unkept = err
	p.mu.Unlock()
}

// complain shows what is not served as it is on disk.
func (p *Pipeline) complain(c choice) {
	faults := c.faults()
	p.bad.Set(float64(len(faults)))
	p.mu.Lock()
	p.faults, p.served.Held = faults, c.held
	p.mu.Unlock()
	for _, fault := range faults {
		p.cfg.Log.Error("gateway file refused, the last good one stays", "err", fault)
	}
}

// publish hands the gateway to the push engine and returns the addresses of its
// listeners.
func (p *Pipeline) publish(gateway *config.Gateway, revision string) (map[string]netip.AddrPort, error) {
	listeners, err := p.ports(gateway)
	if err != nil {
		return nil, err
	}
	objects, warnings := p.compiler.Compile(gateway, compile.Scope{
		ExtAuthz: p.cfg.ExtAuthz, RateLimit: p.cfg.RateLimit, TrustDomain: p.cfg.TrustDomain,
		Listeners: listeners,
	})
	known := endpoint.Instances(p.cfg.Instances.Snapshot())
	objects = append(objects, p.lane.Objects(gateway.Upstreams, known)...)
	if !slices.Equal(warnings, p.said) { // most edits say nothing new
		if len(warnings) > 0 {
			p.cfg.Log.Info("the gateway file is valid, with notes that `tollgate validate` lists", "notes", len(warnings))
		}
		p.said = warnings
	}
	r, err := p.release.Next(objects)
	if err != nil {
		return nil, fmt.Errorf("the file is valid but its resources are not, which is a defect of tollgate: %w", err)
	}
	p.release, p.known = r.Of(revision), known
	p.cfg.Publisher.Publish(p.release)
	return listeners, nil
}

// instances publishes the endpoints of the services whose instances changed, and
// with them what there is.
func (p *Pipeline) instances() error {
	now := endpoint.Instances(p.cfg.Instances.Snapshot())
	changed := endpoint.Changed(p.gateway.Upstreams, p.known, now)
	if len(changed) == 0 {
		p.known = now
		return nil
	}
	r, err := p.release.With(changed)
	if err != nil {
		return err
	}
	p.release, p.known = r, now
	p.cfg.Publisher.Publish(r)
	return nil
}

// ports are the addresses of the listeners, those that the file leaves open chosen.
func (p *Pipeline) ports(gateway *config.Gateway) (map[string]netip.AddrPort, error) {
	listeners := map[string]netip.AddrPort{}
	if p.cfg.Port == nil {
		return listeners, nil
	}
	for _, l := range gateway.Listeners {
		address, err := p.cfg.Port(l)
		if err != nil {
			return nil, fmt.Errorf("%s:%d:%d: listeners[%s].address: %w", l.Pos.File, l.Pos.Line, l.Pos.Col, l.Name, err)
		}
		listeners[l.Name] = address
	}
	return listeners, nil
}
