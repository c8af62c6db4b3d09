package xds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"tollgate/internal/clientrate"
	"tollgate/internal/daemon"
	"tollgate/internal/peer"
	"tollgate/xds/admin"
	"tollgate/xds/config"
	"tollgate/xds/discovery"
	"tollgate/xds/files"
	"tollgate/xds/ledger"
	"tollgate/xds/push"
	"tollgate/xds/store"
	"tollgate/xds/trust"
)

// Config is what a control plane is started with.
type Config struct {
	Files    *files.Set // the gateway file
	DataDir  string     // state; it must exist
	Listener net.Listener
	// Identity is our certificate, by which members and we know each other over
	// TCP; nil: it is plain text.
	Identity    peer.Source
	Authority   *trust.Authority // where members get theirs; nil: not here
	ExtAuthz    []string         // host:port of the authorization servers, as the proxies reach them
	RateLimit   []string         // host:port of the limiters, as the proxies reach them
	TrustDomain string           // of these two's certificates; "": they speak plain text
	FreePorts   bool             // every listener of the file on a free port of loopback
	OneBox      bool             // instances are on this machine unless the file says where
	Parts       []string         // addresses of our own parts, where no instance is; sockets may be among them
	Proxy       string           // node id of the proxy that lives and dies with us; "": there is none
	AllowShrink bool             // a change may take away whatever it likes
	StrictStart bool             // a bad file is fatal at start, whatever the last good set
	Metrics     prometheus.Registerer
	Log         *slog.Logger
}

// ControlPlane is the pipeline with everything around it: the xDS server, the
// registry of instances, the ledger and the operator's API.
type ControlPlane struct {
	proxy    string
	listener net.Listener
	server   *grpc.Server
	members  *members
	pipeline *Pipeline
	push     *push.Server
	registry *discovery.Registry
	ledger   *ledger.Ledger
	admin    http.Handler
	expiry   expiry
}

// New reads the file and makes every part; nothing runs yet.
func New(cfg Config) (*ControlPlane, error) {
	log := cfg.Log.With("component", "xds")
	secret, err := discovery.LoadOrCreateSecret(filepath.Join(cfg.DataDir, "registry.token"))
	if err != nil {
		return nil, err
	}
	book, registry := ledger.New(time.Now), discovery.NewRegistry(time.Now)
	if err := registry.Restore(filepath.Join(cfg.DataDir, "registry.json")); err != nil {
		return nil, err
	}
	fleet, err := trust.OpenMembers(cfg.DataDir, time.Now)
	if err != nil {
		return nil, err
	}
	callers := clientrate.NewLog(log, "address")
	if err := callers.Register(cfg.Metrics, "control plane"); err != nil {
		return nil, err
	}
	engine, err := push.New(push.Config{Log: log, Callers: callers.Logger, Metrics: cfg.Metrics, Ledger: book, Admit: trust.Admit(cfg.Identity == nil, fleet.Refuse)})
	if err != nil {
		return nil, err
	}
	pipeline, err := NewPipeline(PipelineConfig{
		Source: cfg.Files, LastGood: store.NewLastGood(cfg.DataDir, cfg.Files.Dir(), cfg.Files.Paths()), StrictStart: cfg.StrictStart, AllowShrink: cfg.AllowShrink, Publisher: engine,
		Instances: registry, ExtAuthz: cfg.ExtAuthz, RateLimit: cfg.RateLimit, TrustDomain: cfg.TrustDomain,
		Port: newPorts(cfg.FreePorts).of, Metrics: cfg.Metrics, Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, cfg.Listener.Close())
	}
	registry.Judge(places(cfg, pipeline))
	if cfg.AllowShrink {
		registry.DropAnyNumber()
	}
	api := admin.Config{
		Ledger: book, Registry: registry, Served: pipeline.Served, Proxy: cfg.Proxy, Resend: engine.Resend,
		AllowShrink: map[string]func() error{"files": pipeline.AllowShrink, "instances": registry.AllowShrink},
		Secret:      secret, Log: callers.Logger, Now: time.Now,
	}
	members, credentials, err := open(cfg, api, fleet, log)
	if err != nil {
		return nil, errors.Join(err, cfg.Listener.Close())
	}
	server := grpc.NewServer(append(push.ServerOptions(), grpc.Creds(credentials))...)
	engine.Register(server)
	return &ControlPlane{
		proxy: cfg.Proxy, listener: cfg.Listener, server: server, members: members, pipeline: pipeline, push: engine, registry: registry, ledger: book,
		admin: admin.New(api),
	}, nil
}

// Run serves until ctx ends. Streams of xDS never end by themselves, so they
// are cut: every client keeps what it has and comes back.
func (c *ControlPlane) Run(ctx context.Context) error {
	serve := daemon.RunnerFunc(func(ctx context.Context) error {
		stopped := context.AfterFunc(ctx, c.server.Stop)
		defer stopped()
		return c.server.Serve(c.listener)
	})
	return daemon.Run(ctx, c.pipeline, c.push, c.registry, c.members, serve)
}

// Address is where xDS is served.
func (c *ControlPlane) Address() net.Addr { return c.listener.Addr() }

// Admin is the operator's API, for the pattern "/v1/" of an admin address.
func (c *ControlPlane) Admin() http.Handler { return c.admin }

// Gateway is the file that is served.
func (c *ControlPlane) Gateway() *config.Gateway { return c.pipeline.Gateway() }

// Listeners are the addresses that Envoy serves, by listener name.
func (c *ControlPlane) Listeners() map[string]netip.AddrPort { return c.pipeline.Listeners() }

// Follows returns nil once our proxy has answered for the listeners and routes
// that are served now; the error says what is missing.
func (c *ControlPlane) Follows() error {
	return c.ledger.Follows(c.proxy, c.pipeline.Served().Revision)
}

// Reload reads the files now, whether or not a change was seen.
func (c *ControlPlane) Reload() { c.pipeline.Reload() }

// Faults are what an operator should mend while the last good release is served.
func (c *ControlPlane) Faults() []string {
	faults := slices.Clone(c.pipeline.Faults())
	if err := c.registry.Fault(); err != nil {
		faults = append(faults, err.Error())
	}
	if err := c.registry.Silent(); err != nil {
		faults = append(faults, err.Error())
	}
	if c.proxy != "" && !c.ledger.Connected(c.proxy) {
		faults = append(faults, fmt.Sprintf("the proxy of this machine, %q, is not connected: it serves what it had", c.proxy))
	}
	faults = append(faults, c.expiry.faults(c.pipeline.Gateway(), time.Now())...)
	if err := c.members.Fault(); err != nil {
		faults = append(faults, err.Error())
	}
	return append(faults, c.ledger.Faults()...)
}

// places are where instances may register, by the gateway file that is served.
func places(cfg Config, pipeline *Pipeline) discovery.Places {
	var parts []netip.AddrPort
	for _, part := range cfg.Parts {
		if a, err := netip.ParseAddrPort(part); err == nil {
			parts = append(parts, a)
		}
	}
	p := discovery.Places{
		Default: discovery.Private,
		Parts: func() []netip.AddrPort {
			return slices.AppendSeq(slices.Clone(parts), maps.Values(pipeline.Listeners()))
		},
		Allowed: func(service string) []netip.Prefix {
			var out []netip.Prefix
			for _, u := range pipeline.Gateway().Upstreams {
				if u.Registry != "" && discovery.ServiceOf(u.Registry) == discovery.ServiceOf(service) {
					out = append(out, u.Allow...)
				}
			}
			return out
		},
	}
	if cfg.OneBox {
		p.Default = discovery.Machine
	}
	return p
}
