package agent_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"tollgate/api/contract"
	"tollgate/xds/agent"
	"tollgate/xds/push"
	"tollgate/xds/release"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a gRPC server until the test ends and returns its address and how
// to stop it before.
func serve(t *testing.T, register func(*grpc.Server)) (string, func()) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(push.ServerOptions()...)
	register(server)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) })
	stop := func() { server.Stop(); wg.Wait() }
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// plane is a control plane with these clusters.
func plane(t *testing.T, names ...string) (string, func()) {
	t.Helper()
	var objects []release.Object
	for _, name := range names {
		objects = append(objects, release.Object{Audience: release.Edge, Type: release.TypeCluster, Name: name, Message: &clusterv3.Cluster{Name: name}})
	}
	all, err := release.New(objects)
	if err != nil {
		t.Fatal(err)
	}
	engine, err := push.New(push.Config{Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	engine.Publish(all)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = engine.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return serve(t, func(s *grpc.Server) { engine.Register(s) })
}

// start runs an agent until the test ends.
func start(t *testing.T, dir string, servers ...string) (*agent.Agent, string) {
	t.Helper()
	return startAs(t, "", dir, servers...)
}

func startAs(t *testing.T, node, dir string, servers ...string) (*agent.Agent, string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(agent.Config{
		Listener: l, Servers: servers, DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
		Dir: dir, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Silence: 300 * time.Millisecond, NodeID: node,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = a.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return a, l.Addr().String()
}

// proxy is a client that comes back, as Envoy does.
type proxy struct {
	address string
	node    string
	refuses string            // what it refuses
	has     map[string]string // name → version
	last    error
}

// until follows the agent until it has these clusters, for at most a time.
func (p *proxy) until(t *testing.T, within time.Duration, want ...string) bool {
	t.Helper()
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for ctx.Err() == nil {
		if p.follow(ctx, conn, want) {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

func (p *proxy) follow(ctx context.Context, conn *grpc.ClientConn, want []string) bool {
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return false
	}
	if p.has == nil {
		p.has = map[string]string{}
	}
	ask := &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: p.node, Cluster: "edge"}, TypeUrl: contract.TypeCluster, InitialResourceVersions: p.has}
	for stream.Send(ask) == nil {
		if len(p.has) == len(want) && !slices.ContainsFunc(want, func(n string) bool { return p.has[n] == "" }) {
			// What was answered last must arrive before the stream is cut.
			_ = stream.CloseSend()
			time.Sleep(50 * time.Millisecond)
			return true
		}
		response, err := stream.Recv()
		if err != nil {
			if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Canceled { // our own end
				p.last = err
			}
			return false
		}
		ask = &discoveryv3.DeltaDiscoveryRequest{TypeUrl: response.GetTypeUrl(), ResponseNonce: response.GetNonce()}
		if slices.ContainsFunc(response.GetResources(), func(r *discoveryv3.Resource) bool { return r.GetName() == p.refuses }) {
			ask.ErrorDetail = &rpcstatus.Status{Code: int32(codes.InvalidArgument), Message: "no"}
			continue
		}
		for _, r := range response.GetResources() {
			p.has[r.GetName()] = r.GetVersion()
		}
		for _, name := range response.GetRemovedResources() {
			delete(p.has, name)
		}
	}
	return false
}

func want(t *testing.T, ok bool, what string) {
	t.Helper()
	if !ok {
		t.Fatalf("%s: no", what)
	}
}

// settledOnDisk waits until a folder holds what a proxy accepted.
func settledOnDisk(t *testing.T, dir string) {
	t.Helper()
	for range 500 {
		if names, _ := filepath.Glob(filepath.Join(dir, "*.accepted")); len(names) > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("nothing was written")
}

// TestRestart: agent, proxy and control plane all end; the proxy that comes back
// has what it had, then what the control plane that comes back says.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at, stop := plane(t, "a", "b")
	_, address := start(t, dir, at)
	want(t, (&proxy{address: address, node: "n"}).until(t, 10*time.Second, "a", "b"), "the first sync")
	settledOnDisk(t, dir)
	stop()

	a, address := start(t, dir, at)
	p := &proxy{address: address, node: "n"}
	want(t, p.until(t, 10*time.Second, "a", "b"), "what was kept")
	if faults := a.Faults(); len(faults) != 1 || !strings.Contains(faults[0], "no control plane answers") {
		t.Errorf("nobody is told: %q", faults)
	}
	want(t, !(&proxy{address: address, node: "other"}).until(t, time.Second, "a", "b"), "another node has what this one accepted")

	next, _ := plane(t, "b", "c")
	a, address = start(t, dir, at, next)
	p.address = address
	want(t, p.until(t, 10*time.Second, "b", "c"), "what the other control plane says")
	if faults := a.Faults(); len(faults) != 0 {
		t.Errorf("faults with a control plane: %q", faults)
	}
}

// TestRefusedIsNotKept: what a proxy refused is not served from disk.
func TestRefusedIsNotKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at, stop := plane(t, "bad", "good")
	_, address := start(t, dir, at)
	want(t, (&proxy{address: address, node: "n", refuses: "bad"}).until(t, 10*time.Second, "good"), "the good one")
	settledOnDisk(t, dir)
	stop()
	_, address = start(t, dir, at)
	want(t, (&proxy{address: address, node: "n"}).until(t, 10*time.Second, "good"), "the good one again")
}

// TestLostFolder: a proxy that runs while what was kept of it is lost brings its
// versions, and all is kept again.
func TestLostFolder(t *testing.T) {
	t.Parallel()
	at, stop := plane(t, "a", "b")
	_, address := start(t, t.TempDir(), at)
	p := &proxy{address: address, node: "n"}
	want(t, p.until(t, 10*time.Second, "a", "b"), "the first sync")

	dir := t.TempDir()
	_, p.address = start(t, dir, at)
	p.has["gone"] = "1" // and one that the control plane dropped meanwhile
	want(t, p.until(t, 10*time.Second, "a", "b"), "the second sync")
	settledOnDisk(t, dir)
	stop()
	_, address = start(t, dir, at)
	want(t, (&proxy{address: address, node: "n"}).until(t, 10*time.Second, "a", "b"), "all of it from the new folder")
}

// scripted is a control plane that refuses, or says nothing.
type scripted struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	refusal error
}

func (s *scripted) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	if s.refusal != nil {
		return s.refusal
	}
	<-stream.Context().Done()
	return nil
}

// TestOthersAtTheSameAddress: a control plane that is silent is like none; one
// that refuses the proxy is obeyed.
func TestOthersAtTheSameAddress(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at, stop := plane(t, "a")
	_, address := start(t, dir, at)
	want(t, (&proxy{address: address, node: "n"}).until(t, 10*time.Second, "a"), "the first sync")
	settledOnDisk(t, dir)
	stop()

	silent, _ := serve(t, func(s *grpc.Server) { discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, &scripted{}) })
	_, address = start(t, dir, silent)
	want(t, (&proxy{address: address, node: "n"}).until(t, 10*time.Second, "a"), "what was kept, beside a silent control plane")

	refuses, over := serve(t, func(s *grpc.Server) {
		discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, &scripted{refusal: status.Error(codes.PermissionDenied, "revoked")})
	})
	a, address := start(t, dir, refuses)
	p := &proxy{address: address, node: "n"}
	want(t, !p.until(t, 2*time.Second, "a"), "a proxy that was refused has what it once accepted")
	if status.Code(p.last) != codes.PermissionDenied {
		t.Errorf("it was told %v, not that it was refused", p.last)
	}
	if faults := a.Faults(); len(faults) != 1 || !strings.Contains(faults[0], "refuses the proxy: revoked") {
		t.Errorf("nobody is told that it was refused: %q", faults)
	}
	over() // now there is none at all
	want(t, !(&proxy{address: address, node: "n"}).until(t, 2*time.Second, "a"), "what it had before it was refused, in the outage after that")
	gone(t, dir)
	_, address = start(t, dir, refuses)
	want(t, !(&proxy{address: address, node: "n"}).until(t, 2*time.Second, "a"), "what it had before it was refused, after a restart")
}

// TestSilenceEndsWithAWord: a stream on which the control plane spoke lasts.
func TestSilenceEndsWithAWord(t *testing.T) {
	t.Parallel()
	at, _ := plane(t, "a")
	_, address := start(t, t.TempDir(), at)
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // three times the silence
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "n", Cluster: "edge"}, TypeUrl: contract.TypeCluster}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := stream.Recv(); err != nil {
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("the stream ended: %v", err)
			}
			return
		}
	}
}

// TestNodeID: a proxy that calls itself after its machine is to the control
// plane who its certificate says, and what it accepted is kept under that.
func TestNodeID(t *testing.T) {
	t.Parallel()
	met := make(chan string, 1)
	asks, over := serve(t, func(s *grpc.Server) { discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, &asking{met: met}) })
	_, address := startAs(t, "edge-1", t.TempDir(), asks)
	_ = (&proxy{address: address, node: "vm"}).until(t, time.Second, "none")
	if got := <-met; got != "edge-1" {
		t.Errorf("the control plane met %q", got)
	}
	over()
}

// asking is a control plane that only looks who comes.
type asking struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	met chan string
}

func (a *asking) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	first, err := stream.Recv()
	if err == nil {
		select {
		case a.met <- first.GetNode().GetId():
		default:
		}
	}
	return err
}

// TestRefusedWithADamagedFolder: a refusal also ends what could not be read.
func TestRefusedWithADamagedFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a.accepted", "b.accepted"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("no configuration, but perhaps a key"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refuses, _ := serve(t, func(s *grpc.Server) {
		discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, &scripted{refusal: status.Error(codes.Unauthenticated, "nobody")})
	})
	_, address := start(t, dir, refuses)
	_ = (&proxy{address: address, node: "n"}).until(t, 300*time.Millisecond, "a")
	gone(t, dir)
}

// gone waits until nothing that was accepted is on disk.
func gone(t *testing.T, dir string) {
	t.Helper()
	var names []string
	for range 500 {
		if names, _ = filepath.Glob(filepath.Join(dir, "*.accepted")); len(names) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%v are still there", names)
}

// TestDisk: damage and a folder that cannot be written are told, and stop nobody.
func TestDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at, stop := plane(t, "a")
	_, address := start(t, dir, at)
	want(t, (&proxy{address: address, node: "n"}).until(t, 10*time.Second, "a"), "the first sync")
	settledOnDisk(t, dir)
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	whole, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(names[0])
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others may read it: %v %v", info.Mode(), err)
	}
	stop()
	for name, data := range map[string][]byte{"empty": {}, "cut": whole[:len(whole)-1], "flipped": append(slices.Clone(whole[:len(whole)-1]), whole[len(whole)-1]^1)} {
		if err := os.WriteFile(names[0], data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, address = start(t, dir, at)
		want(t, !(&proxy{address: address, node: "n"}).until(t, 700*time.Millisecond, "a"), name+" is served")
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	at, _ = plane(t, "a")
	a, address := start(t, file, at) // a folder cannot be made there
	want(t, (&proxy{address: address, node: "n"}).until(t, 10*time.Second, "a"), "serving without a folder")
	for range 300 {
		if len(a.Faults()) > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("nobody is told that nothing can be kept")
}

// TestStops: an agent ends while a proxy is served what was kept.
func TestStops(t *testing.T) {
	t.Parallel()
	if _, err := agent.New(agent.Config{Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("an agent without a control plane to ask was made")
	}
}
