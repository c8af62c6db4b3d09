package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"tollgate/e2e/harness"
)

// TestProof11Refuser: a client that refuses every response gets each content at
// most once more as long as it is the same process, a fresh one is given a fresh
// start, and it shows in the status.
func TestProof11Refuser(t *testing.T) {
	up := harness.NewUpstream(t, "a")
	s := harness.NewStack(t, harness.Options{Gateway: steadyGateway, NoEnvoy: true, Vars: map[string]string{"a": up.Address}})
	conn, err := grpc.NewClient(s.XDS.Ready.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	times := map[string]int{} // type, name, version → how often sent
	refuse := func() {
		t.Helper()
		clear(times)
		defer func() {
			if len(times) < 3 {
				t.Errorf("it was sent %v", times)
			}
			for what, n := range times {
				if n > 2 {
					t.Errorf("%s was sent %d times", what, n)
				}
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		node := &corev3.Node{Id: "refuser", Cluster: "edge"}
		for _, kind := range []string{"cluster.v3.Cluster", "listener.v3.Listener"} {
			if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: "type.googleapis.com/envoy.config." + kind}); err != nil {
				t.Fatal(err)
			}
		}
		for {
			r, err := stream.Recv()
			if err != nil {
				return // its time is over
			}
			for _, one := range r.GetResources() {
				times[r.GetTypeUrl()+" "+one.GetName()+" "+one.GetVersion()]++
			}
			answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce(), ErrorDetail: &status.Status{Code: 13, Message: "never"}}
			if err := stream.Send(answer); err != nil {
				return
			}
		}
	}
	refuse()
	refuse()
	s.Save(t, steadyGateway+"  - {name: new, match: {path: {prefix: /new}}, auth: public, upstream: a}\n")
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		// While it is connected: what is gone is GONE, not REFUSED.
		harness.Eventually(t, 2*time.Second, "the status names it", func() error {
			out, _, code := harness.Run(t, "status", "--admin-address", s.Address(t, "admin"), "--data-dir", s.DataDir())
			if code != 1 || !containsAll(out, "refuser", "REFUSED", "never") {
				return fmt.Errorf("exit %d\n%s", code, out)
			}
			return nil
		})
	}()
	refuse()
	<-shown
}
