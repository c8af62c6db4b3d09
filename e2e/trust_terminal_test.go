package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"tollgate/e2e/harness"
)

// moves says where a text would move the cursor of a terminal, or its words.
func moves(text string) string {
	for i, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			return fmt.Sprintf("%q at byte %d of %q", r, i, text)
		}
	}
	return ""
}

// hostile are escapes of ASCII, of C1, of directions, and bytes that are no UTF-8.
const hostile = "\x1b]0;pwned\x07\x1b[2J\u009b31m\u202eevil\u200b\r\nNODE\tedge cluster x SYNCED\x7f\x00"

// TestTerminalEscapes: what clients call themselves and what they say of what
// they refuse moves no cursor, forges no row and sends no key to the terminal of
// who asks for the status, as a table and as JSON.
func TestTerminalEscapes(t *testing.T) {
	b := startBox(t)
	conn, err := grpc.NewClient(b.Ready.XDS, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	node := &corev3.Node{Id: hostile, Cluster: "edge", UserAgentName: hostile, Locality: &corev3.Locality{Zone: hostile}}
	if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: cluster}); err != nil {
		t.Fatal(err)
	}
	words := "no \x1b[31mred " + hostile + " \u2066-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----"
	refusing := make(chan struct{})
	go func() {
		defer close(refusing)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce(), ErrorDetail: &status.Status{Code: 3, Message: words}})
		}
	}()
	defer func() {
		cancel()
		<-refusing
	}()
	address := []string{"--admin-address", b.admin, "--data-dir", b.data}
	harness.Eventually(t, 10*time.Second, "the status tells of the refusal", func() error {
		out, errs, code := harness.Run(t, append([]string{"status"}, address...)...)
		if code != 1 || !containsAll(out, "REFUSED", "evil", "no ") {
			return fmt.Errorf("exit %d\n%q\n%s", code, out, errs)
		}
		if at := moves(out + errs); at != "" {
			t.Errorf("the table: %s", at)
		}
		if strings.Contains(out, "\nNODE\tedge") || strings.Count(out, "\nNODE ") != 1 || strings.Contains(out, "MIGHAg") {
			t.Errorf("%s", out)
		}
		return nil
	})
	out, errs, code := harness.Run(t, append([]string{"status", "--json"}, address...)...)
	var decoded struct{ Nodes []struct{ Node string } }
	if err := json.Unmarshal([]byte(out), &decoded); err != nil || code != 1 || len(decoded.Nodes) == 0 {
		t.Errorf("exit %d, %v: %s%s", code, err, out, errs)
	}
	if at := moves(out + errs); at != "" || strings.Count(out, "\n") != 1 {
		t.Errorf("as JSON: %s\n%s", at, out)
	}
	// What is repeated to the operator by other verbs.
	for _, args := range [][]string{{"resend", strings.TrimSuffix(hostile, "\x00")}, {"resend", "no\x1b[2Jbody"}} {
		if out, errs, _ := harness.Run(t, append(args, address...)...); moves(out+errs) != "" {
			t.Errorf("%q: %s", args, moves(out+errs))
		}
	}
	if at := moves(b.Log()); strings.ContainsAny(at, "\x1b") {
		t.Errorf("the log: %s", at)
	}
}

// TestStatusOfAnImpostor: who answers in our place moves no cursor either.
func TestStatusOfAnImpostor(t *testing.T) {
	line := map[string]any{"node": hostile, "type": hostile, "revision": hostile, "state": hostile, "refusals": []any{map[string]any{"resource": hostile, "pos": hostile, "why": hostile}}}
	served := map[string]any{"revision": hostile, "files": []any{hostile}, "held": []any{map[string]any{"file": hostile, "faults": []any{hostile}}}}
	for name, answer := range map[string]struct {
		code int
		body any
	}{
		"a status":        {http.StatusOK, map[string]any{"served": served, "proxy": hostile, "nodes": []any{line}}},
		"a refusal":       {http.StatusTeapot, hostile},
		"no status":       {http.StatusOK, hostile},
		"another's error": {http.StatusUnauthorized, hostile},
	} {
		impostor := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(answer.code)
			if text, ok := answer.body.(string); ok {
				_, _ = w.Write([]byte(text))
				return
			}
			_ = json.NewEncoder(w).Encode(answer.body)
		}))
		at := strings.TrimPrefix(impostor.URL, "http://")
		for _, more := range [][]string{nil, {"--json"}, {"--admin-address", at + "," + at}} {
			out, errs, code := harness.Run(t, append([]string{"status", "--admin-address", at, "--data-dir", t.TempDir()}, more...)...)
			if code != 1 || moves(out+errs) != "" {
				t.Errorf("%s %v: exit %d, %s", name, more, code, moves(out+errs))
			}
		}
		impostor.Close()
	}
}

// TestTokenGoesToOurOwn: another user who takes the admin port while nobody serves
// there is not told the token, and the operator is told about him.
func TestTokenGoesToOurOwn(t *testing.T) {
	dir := harness.TempDir(t)
	const token = "0123456789abcdef0123456789abcdef"
	if err := os.WriteFile(filepath.Join(dir, "admin.token"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	port := harness.FreeAddress(t)
	heard := make(chan string, 1)
	go func() {
		defer close(heard)
		heard <- asStranger(t, []attempt{{Do: "listen", Target: port}})[0].Got
	}()
	harness.AwaitListening(t, port)
	for _, args := range [][]string{{"status"}, {"status", "--json"}, {"resend", "edge"}} {
		out, errs, code := harness.Run(t, append(args, "--admin-address", port, "--data-dir", dir)...)
		if code != 1 || !strings.Contains(out+errs, fmt.Sprintf("served by a process of user %d", stranger)) {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, errs)
		}
	}
	if _, err := knock("tcp", port, "END"); err != nil {
		t.Error(err)
	}
	if got := <-heard; strings.Contains(got, token) {
		t.Errorf("he hears %q", got)
	}
}
