package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tollgate/cmd/tollgate/demo"
	"tollgate/cmd/tollgate/fleet"
	"tollgate/cmd/tollgate/verb"
	"tollgate/envoy"
	"tollgate/extauthz"
	"tollgate/internal/daemon"
	"tollgate/internal/settings"
	"tollgate/ratelimit"
	"tollgate/xds"
	"tollgate/xds/files"
)

// readyWithin bounds a start; what takes longer is broken and says why.
const readyWithin = 30 * time.Second

func runVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use: "run", Short: "Everything on this machine: control plane, ext_authz, rate limit and a supervised Envoy", Args: verb.FileByFlag,
		Example: "  tollgate run -f configs/gateway.yaml --demo                  # to try it: two demo services, a key, curl lines\n" +
			"  tollgate run -f gateway.yaml --redis-url redis://redis:6379  # to serve: the key file that the gateway file names, counters in Redis",
		RunE: verb.Do(runAll),
	}
	f := cmd.Flags()
	settings.Common(f, "127.0.0.1:9900")
	settings.FileFlag(f)
	settings.DataFlag(f)
	f.String(settings.XDSAddress, "", "`ADDRESS` of xDS (default: the socket xds.sock in the data folder)")
	f.String(settings.AuthzAddress, "", "`ADDRESS` of ext_authz (default: the socket extauthz.sock in the data folder)")
	f.String(settings.LimitAddress, "", "`ADDRESS` of the rate-limit service (default: the socket ratelimit.sock in the data folder)")
	f.String(settings.EnvoyAdmin, "", "`ADDRESS` of Envoy's own admin, loopback or a socket (default: envoy-admin.sock in the data folder)")
	f.String(settings.EnvoyPath, "", "Envoy `BINARY` (also TOLLGATE_ENVOY; default: envoy on PATH, else .tools/envoy)")
	f.Bool(settings.NoEnvoy, false, "start no Envoy")
	f.Int(settings.Workers, 0, "Envoy's worker threads (default: one a core)")
	f.Bool(settings.FreePorts, false, "every address, the file's listeners included, on a free port of loopback")
	f.Bool(settings.AllowShrink, false, "no change waits because it takes away more than 30% of the routes or endpoints (and at least 10)")
	f.Bool(settings.StrictStart, false, "a bad gateway file ends the start, even if the last good one could be served")
	f.Bool(settings.Demo, false, "start the demo services, and make a key and a JWT in memory")
	f.String(settings.RedisURL, "", "`URL` of Redis (default: counters in memory)")
	f.String(settings.Keys, "", "key `FILE` (default: the store that the gateway file names)")
	f.String(settings.IdentityKey, "", "Ed25519 key `FILE` that signs x-auth-token (default: identity.key in the data folder)")
	f.String(settings.NodeID, "", "unique `NAME` of the proxy (default: edge)")
	return cmd
}

// stack is all that `tollgate run` starts.
type stack struct {
	settings  settings.Settings
	log       *slog.Logger
	trust     *fleet.Trust
	metrics   *prometheus.Registry
	listeners addresses
	control   *xds.ControlPlane
	files     *files.Set
	dataDir   string
	authz     *extauthz.Server
	limits    *ratelimit.Server
	admin     *daemon.Admin
	envoy     *envoy.Supervisor // nil: none
	demo      *demo.Demo        // nil: none
	served    readyFlag
	hangup    *daemon.Hangup
}

// addresses are bound before anything is served.
type addresses struct{ xds, authz, limits, admin net.Listener }

// close ends those that nobody serves.
func (a addresses) close() error {
	var faults []error
	for _, l := range []net.Listener{a.xds, a.authz, a.limits, a.admin} {
		if l != nil {
			if err := l.Close(); !errors.Is(err, net.ErrClosed) {
				faults = append(faults, err)
			}
		}
	}
	return errors.Join(faults...)
}

func runAll(cmd *cobra.Command, _ []string) error {
	s, err := settings.Load(cmd)
	if err != nil {
		return err
	}
	log, err := s.Logger()
	if err != nil {
		return err
	}
	if err := s.PlainAdmin(); err != nil {
		return err
	}
	t := &stack{settings: s, log: log, metrics: s.Metrics(), hangup: daemon.CatchHangup()}
	told := cmd.Context() // ends with SIGTERM or Ctrl-C
	if err := t.build(told); err != nil {
		return errors.Join(err, t.listeners.close())
	}
	// What serves outlives the signal until Envoy has drained.
	alive, end := context.WithCancel(context.WithoutCancel(told))
	defer end()
	group, alive := errgroup.WithContext(alive)
	for _, r := range t.runners() {
		group.Go(func() error { return r.Run(alive) })
	}
	started, stop := context.WithCancel(told)
	defer stop()
	defer context.AfterFunc(alive, stop)() // a role that fails ends the start, too
	err = t.start(started)
	if err == nil {
		err = t.readiness().say(cmd.OutOrStdout(), s.On(settings.JSON), s.List(settings.File))
	}
	if err == nil {
		<-started.Done()
	}
	t.stop(context.WithoutCancel(told))
	end()
	if told.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // told to stop while it started
	}
	return errors.Join(group.Wait(), err)
}

// build binds every address and makes every part; nothing runs yet.
func (t *stack) build(ctx context.Context) error {
	s := t.settings
	var err error
	if t.files, t.dataDir, err = gatewayFiles(s); err != nil {
		return err
	}
	for _, l := range []struct {
		flag string
		to   *net.Listener
	}{{settings.XDSAddress, &t.listeners.xds}, {settings.AuthzAddress, &t.listeners.authz}, {settings.LimitAddress, &t.listeners.limits}} {
		at, err := s.Place(l.flag, t.dataDir)
		if err != nil {
			return err
		}
		if t.trust, err = fleet.OneMachine(s, t.log, at.String()); err != nil {
			return err
		}
		if *l.to, err = listen(ctx, t.at(nil), l.flag); err != nil {
			return err
		}
	}
	if t.listeners.admin, err = daemon.Listen(ctx, s.Admin(), "--"+settings.AdminAddress); err != nil {
		return err
	}
	at := t.at(t.listeners.xds)
	at.parts = []string{t.listeners.xds.Addr().String(), t.listeners.authz.Addr().String(), t.listeners.limits.Addr().String(), t.listeners.admin.Addr().String(), s.Text(settings.EnvoyAdmin)}
	at.proxy = t.node()
	t.control, err = controlPlane(at, t.files, nil, []string{t.listeners.authz.Addr().String()}, []string{t.listeners.limits.Addr().String()})
	if err != nil {
		return err
	}
	if err := t.roles(); err != nil {
		return err
	}
	token, err := settings.OpenAdmin(t.dataDir, t.listeners.admin.Addr())
	if err != nil {
		return err
	}
	open := map[string]http.Handler{}
	if !s.On(settings.NoEnvoy) {
		if err := t.proxy(ctx); err != nil {
			return err
		}
		open["GET /metrics/envoy"] = t.envoy.Metrics()
	}
	t.admin = daemon.NewAdmin(daemon.AdminConfig{
		Listener: t.listeners.admin, Metrics: t.metrics, Log: t.log, Token: token, Hosts: s.List(settings.AdminHost),
		Routes: map[string]http.Handler{"/v1/": t.control.Admin()}, Open: open, Own: registryRoutes(t.control),
		Readiness: func() ([]string, error) {
			return slices.Concat(t.control.Faults(), t.authz.Faults(), t.limits.Faults()), t.served.err()
		},
	})
	return nil
}

func (t *stack) at(l net.Listener) place {
	return place{settings: t.settings, trust: t.trust, dataDir: t.dataDir, listener: l, log: t.log, metrics: t.metrics}
}

func (t *stack) roles() error {
	s, xdsServers := t.settings, []string{t.control.Address().String()}
	key, err := loadIdentity(s, t.dataDir)
	if err != nil {
		return err
	}
	authz := authzConfig(t.at(t.listeners.authz), xdsServers, key)
	authz.KeysPath, authz.KeysBase = s.Text(settings.Keys), t.files.Dir()
	if s.On(settings.Demo) {
		if t.demo, err = demo.New(t.control.Gateway(), t.dataDir, t.log); err != nil {
			return err
		}
		authz.ExtraKeys, authz.ExtraJWKS = t.demo.Keys, t.demo.JWKS
	}
	if t.authz, err = extauthz.New(authz); err != nil {
		return err
	}
	t.limits, err = ratelimit.New(limitConfig(t.at(t.listeners.limits), xdsServers))
	return err
}

// node is the id of our own proxy; "": there is none.
func (t *stack) node() string {
	if t.settings.On(settings.NoEnvoy) {
		return ""
	}
	return cmp.Or(t.settings.Text(settings.NodeID), "edge")
}

func (t *stack) proxy(ctx context.Context) error {
	s := t.settings
	admin, err := s.EnvoyAdmin(t.dataDir)
	if err != nil {
		return err
	}
	path, err := envoy.Locate(ctx, s.Text(settings.EnvoyPath), ".")
	if err != nil {
		return err
	}
	dies := s.On(settings.Demo) || s.On(settings.FreePorts)
	if dies || !envoy.HasLeft(t.dataDir) { // one that was left has its addresses
		if err := envoy.TryListeners(ctx, t.control.Listeners()); err != nil {
			return err
		}
	}
	b := envoy.Bootstrap{NodeID: t.node(), XDSServers: []string{t.control.Address().String()}}
	t.envoy, err = envoy.NewSupervisor(ctx, envoy.SupervisorConfig{
		Path: path, Dir: t.dataDir, Bootstrap: b, Admin: admin, Concurrency: s.Number(settings.Workers), Output: s.Stderr(), Log: t.log.With("component", "envoy"), Metrics: t.metrics, DieWithParent: dies,
	})
	return err
}

func (t *stack) runners() []daemon.Runner {
	reload := []func(context.Context){func(context.Context) { t.control.Reload() }}
	all := []daemon.Runner{t.control, t.authz, t.limits, t.admin}
	if t.envoy != nil {
		all = append(all, t.envoy)
		reload = append(reload, t.envoy.Reload)
	}
	return append(all, t.hangup.Runner(t.log, reload...))
}

// start waits until every part serves.
func (t *stack) start(ctx context.Context) error {
	outer, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	group, ctx := errgroup.WithContext(outer)
	if t.demo != nil {
		group.Go(func() error { return t.demo.Start(ctx, "http://"+t.listeners.admin.Addr().String()) })
	}
	group.Go(func() error { return verb.Await(ctx, t.authz.Ready) })
	group.Go(func() error { return verb.Await(ctx, t.limits.Ready) })
	if t.envoy != nil {
		want := len(t.control.Listeners())
		group.Go(func() error { return verb.Await(ctx, func() error { return t.envoy.Ready(ctx, want) }) })
		// One that was adopted has listeners before it has heard of us.
		group.Go(func() error { return verb.Await(ctx, t.control.Follows) })
	}
	err := group.Wait()
	if err == nil && t.demo != nil && t.envoy != nil {
		err = verb.Await(outer, func() error { return t.envoy.Serves(outer, t.instances()) })
	}
	if err != nil && errors.Is(outer.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("not ready after %s: %w", readyWithin, err)
	}
	if err != nil {
		return err
	}
	t.served.set()
	return nil
}

// instances are how many of the demo's each upstream has.
func (t *stack) instances() map[string]int {
	want := map[string]int{}
	for _, u := range t.control.Gateway().Upstreams {
		for _, i := range t.demo.Instances {
			if u.Registry == i.Service {
				want[u.Name]++
			}
		}
	}
	return want
}

// stop ends in the order in which nobody is cut off: no new traffic, Envoy
// drains and ends, then the services; the roles end with their context.
func (t *stack) stop(ctx context.Context) {
	t.admin.Stopping()
	if t.envoy != nil {
		t.envoy.Stop(ctx)
	}
	if t.demo != nil {
		t.demo.Stop()
	}
}
