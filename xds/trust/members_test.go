package trust_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"tollgate/api/contract"
	"tollgate/internal/join"
	"tollgate/internal/peer"
	"tollgate/xds/trust"
)

// stay opens a stream and tells when it ends, and how.
func (p *plane) stay(t *testing.T, source peer.Source) (ended chan error, conn *grpc.ClientConn) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+p.address, grpc.WithTransportCredentials(peer.Mutual{Source: source, Roles: []string{contract.RoleXDS}}.Credentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	stream, err := healthv1.NewHealthClient(conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() {
		_, err := stream.Recv()
		ended <- err
	}()
	return ended, conn
}

func check(t *testing.T, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	return err
}

// TestNoStreamOutlivesItsCertificate: who does not renew is out at the moment its
// certificate ends, whatever it has open; who renews comes back at once.
func TestNoStreamOutlivesItsCertificate(t *testing.T) {
	p := startPlane(t, t.TempDir(), 3*time.Second, contract.RoleXDS)
	lazy, err := p.member(t, contract.RoleEdge, "lazy")
	if err != nil {
		t.Fatal(err)
	}
	busy, err := p.member(t, contract.RoleEdge, "busy")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	renewing := make(chan error, 1)
	go func() { renewing <- busy.Run(ctx) }()
	defer func() {
		cancel()
		<-renewing
	}()
	svid, _ := lazy.GetX509SVID()
	end := svid.Certificates[0].NotAfter
	lazyEnded, lazyConn := p.stay(t, lazy)
	busyEnded, busyConn := p.stay(t, busy)
	select {
	case err := <-lazyEnded:
		if left := time.Until(end); left > 0 {
			t.Errorf("ended %s before the certificate: %v", left, err)
		}
	case <-time.After(time.Until(end) + 5*time.Second):
		t.Fatal("a stream outlives its certificate")
	}
	if err := check(t, lazyConn); err == nil {
		t.Error("an ended certificate opens the door again")
	}
	if !strings.Contains(p.log.text(), `"msg":"connection ended","name":"edge/lazy"`) {
		t.Errorf("nobody says so: %s", p.log.text())
	}
	select {
	case <-busyEnded: // the connection of its first certificate
	case <-time.After(10 * time.Second):
		t.Fatal("the stream of the first certificate goes on")
	}
	if err := check(t, busyConn); err != nil {
		t.Errorf("a member that renewed does not come back: %v", err)
	}
}

// renew asks for a certificate as a member that does not give up does.
func (p *plane) renew(t *testing.T, source peer.Source) (int, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(join.Request{CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))})
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: peer.Mutual{Source: source, Roles: []string{contract.RoleXDS}}.Client("http/1.1"), DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	response, err := client.Post("https://"+p.address+"/v1/renew", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}

// TestRemovedMember: who is removed by another process is out within seconds,
// stays out over a restart and with what it has, harms no namesake of another
// role, and comes back with a new token only.
func TestRemovedMember(t *testing.T) {
	dir := t.TempDir()
	p := startPlane(t, dir, time.Minute, contract.RoleXDS)
	thief, err := p.member(t, contract.RoleEdge, "edge-1")
	if err != nil {
		t.Fatal(err)
	}
	other, err := p.member(t, contract.RoleEdge, "edge-2")
	if err != nil {
		t.Fatal(err)
	}
	unused, err := p.tokens.Make(contract.RoleEdge, "edge-1", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	spent, err := p.tokens.Make(contract.RoleEdge, "edge-1", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	if _, _, err := p.tokens.Redeem(spent, key.Public()); err != nil {
		t.Fatal(err)
	}
	ended, conn := p.stay(t, thief)
	kept, _ := p.stay(t, other)
	operator, err := trust.OpenMembers(dir, time.Now) // another process
	if err != nil {
		t.Fatal(err)
	}
	since, err := operator.Remove(contract.RoleEdge, "edge-1", false)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("its stream goes on")
	}
	if err := check(t, conn); status.Code(err) != codes.PermissionDenied {
		t.Errorf("it comes in again, or is not told: %v", err)
	}
	if code, text := p.renew(t, thief); code != http.StatusForbidden || !strings.Contains(text, "edge/edge-1 was removed from the fleet") {
		t.Errorf("renewal: %d %s", code, text)
	}
	for name, token := range map[string]string{"unused": unused, "spent": spent} {
		if _, _, err := p.tokens.Redeem(token, key.Public()); !errors.Is(err, trust.ErrToken) || !errors.Is(err, trust.ErrRemoved) {
			t.Errorf("a token that was made before, %s: %v", name, err)
		}
	}
	again := startPlane(t, dir, time.Minute, contract.RoleXDS)
	if err := again.ask(t, thief, contract.RoleXDS); err == nil {
		t.Error("a restart forgets")
	}
	for _, say := range []string{`"msg":"connection ended","name":"edge/edge-1"`, `"msg":"renewal refused","name":"edge/edge-1"`, "removed from the fleet"} {
		if !strings.Contains(p.log.text(), say) {
			t.Errorf("the log lacks %s: %s", say, p.log.text())
		}
	}
	select {
	case err := <-kept:
		t.Errorf("another's stream ended: %v", err)
	default:
	}
	time.Sleep(time.Until(since)) // as the verb does
	if back, err := p.member(t, contract.RoleEdge, "edge-1"); err != nil {
		t.Errorf("a new token: %v", err)
	} else if err := p.ask(t, back, contract.RoleXDS); err != nil {
		t.Errorf("who is let in again: %v", err)
	} else if code, text := p.renew(t, back); code != http.StatusOK {
		t.Errorf("its renewal: %d %s", code, text)
	}
	if err := p.ask(t, thief, contract.RoleXDS); err == nil {
		t.Error("with the new one the old one is back, too")
	}
}

// TestMembersOnDisk: a typing error is not taken for done, and what cannot be
// read keeps out whom it is about, and nobody else.
func TestMembersOnDisk(t *testing.T) {
	dir := t.TempDir()
	at := &clock{at: time.Now()}
	a, tokens := open(t, dir, at.now)
	for _, name := range []string{"edge-1", "edge-1.removed", "edge.2"} {
		if _, err := tokens.Make(contract.RoleEdge, name, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	m := a.Members()
	for _, bad := range [][2]string{{"edge", "edge-7"}, {"service", "edge-1"}, {"edge", "../edge-1"}, {"edge", ""}, {"xds", "xds-1"}} {
		if _, err := m.Remove(bad[0], bad[1], false); err == nil {
			t.Errorf("%q was removed", bad)
		}
	}
	if _, err := m.Remove("edge", "edge-7", false); !strings.Contains(err.Error(), "edge/edge-1, edge/edge-1.removed, edge/edge.2") {
		t.Errorf("the names that there are: %v", err)
	}
	if len(m.Removed()) != 0 {
		t.Errorf("%v is removed", m.Removed())
	}
	if _, err := m.Remove("edge", "own", true); err != nil {
		t.Errorf("a fleet with certificates of its own: %v", err)
	}
	since, err := m.Remove("edge", "edge-1", false)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "fleet", "removed", "edge.edge-1")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	judge := func(name string, made time.Time) error {
		at.add(time.Second) // the disk is looked at again
		return m.Refuse(peer.Identity{Role: "edge", Name: name, NotBefore: made})
	}
	for _, c := range []struct {
		name string
		made time.Time
		out  bool
	}{
		{"edge-1", since.Add(-time.Second), true},
		{"edge-1", since, false},
		{"edge-1.removed", since.Add(-time.Hour), false},
		{"edge.2", since.Add(-time.Hour), false},
	} {
		if err := judge(c.name, c.made); errors.Is(err, trust.ErrRemoved) != c.out {
			t.Errorf("%s of %s: %v", c.name, c.made, err)
		}
	}
	// A certificate that is made in the second of the removal, by a clock that is
	// behind, does not look older than the removal.
	at.add(since.Sub(at.now()) - time.Second)
	chain, err := a.Issue(newKey(t).Public(), "edge", "edge-1")
	if err != nil || chain[0].NotBefore.Before(since) {
		t.Errorf("%v, %v", chain, err)
	}
	// A control plane that has not looked at the disk yet renews for who was removed
	// in the meantime, at the end of a second: that counts no more either.
	at.add(2*time.Second - time.Duration(at.now().Nanosecond()) - 50*time.Millisecond)
	stale, err := trust.Open(trust.Config{Dir: dir, TTL: 2 * time.Second, Now: at.now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Remove("edge", "edge-1.removed", false); err != nil {
		t.Fatal(err)
	}
	at.add(990 * time.Millisecond)
	if chain, err = stale.Issue(newKey(t).Public(), "edge", "edge-1.removed"); err != nil {
		t.Fatal(err)
	}
	if who, err := peer.IdentityOf(chain[0]); err != nil || !errors.Is(m.Refuse(who), trust.ErrRemoved) {
		t.Errorf("made at %s by who did not know: %v, %v", who.NotBefore, err, m.Removed())
	}
	if err := os.WriteFile(path, []byte("yesterday"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := judge("edge-1", since.Add(time.Hour)); !errors.Is(err, trust.ErrRemoved) {
		t.Errorf("a removal that cannot be read: %v", err)
	}
	if err := judge("edge.2", since); err != nil {
		t.Errorf("another: %v", err)
	}
	if _, err := a.Issue(newKey(t).Public(), "edge", "edge-1"); !errors.Is(err, trust.ErrRemoved) {
		t.Errorf("a certificate for who is removed for ever: %v", err)
	}
	if err := m.Fault(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("nobody says so: %v", err)
	}
	// A folder that cannot be read any more forgets nobody.
	if err := os.Rename(filepath.Dir(path), filepath.Dir(path)+"-moved"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Dir(path), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := judge("edge-1", since.Add(-time.Hour)); !errors.Is(err, trust.ErrRemoved) || m.Fault() == nil {
		t.Errorf("a folder that cannot be read: %v, fault %v", err, m.Fault())
	}
	if _, err := trust.OpenMembers(dir, at.now); err == nil {
		t.Error("a start that cannot know who is out")
	}
}
