package e2e_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/api/contract"
	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
	"tollgate/internal/peer"
	"tollgate/xds/release"
	"tollgate/xds/trust"
)

// shows are the certificate and the signer's key that a server shows; "" when
// none.
func shows(t *testing.T, address string) (serial, signer string) {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 3 * time.Second}, "tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		return "", ""
	}
	defer c.Close()
	chain := c.ConnectionState().PeerCertificates
	return chain[0].SerialNumber.String(), string(chain[0].AuthorityKeyId)
}

// TestFleetLife: certificates of a few seconds end and are renewed, a root is
// rotated and signs, a member is removed: nobody else fails a request, and what is
// edited in the end still reaches those who are in.
func TestFleetLife(t *testing.T) {
	const life = 8 * time.Second
	f := startFleet(t, life)
	lazy := f.member(t, contract.RoleEdge, "lazy") // and never renews
	svid, err := lazy.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	end := svid.Certificates[0].NotAfter
	load := traffic.Start(traffic.Load{Request: traffic.Request{URL: "http://" + f.base + "/api/x", Header: withKey(f.key)}, Rate: 50, Duration: time.Minute})

	_, old := shows(t, f.xds)
	// As one that was made a day ago less what members need to hear of it.
	made := func() time.Time { return time.Now().Add(life - trust.Overlap) }
	authority, err := trust.Open(trust.Config{Dir: f.state, Now: made})
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Rotate(); err != nil {
		t.Fatal(err)
	}

	t.Run("a stream ends with its certificate", func(t *testing.T) {
		got, err := subscribe(t, dial(t, f.xds, lazy, contract.RoleXDS), &corev3.Node{Id: "lazy", Cluster: "edge"}, life+10*time.Second, nil, release.TypeCluster)
		if late := time.Since(end); got == "" || status.Code(err) == codes.DeadlineExceeded || late < 0 || late > 5*time.Second {
			t.Errorf("it ended %s after its certificate, %v\n%s", late, err, got)
		}
		saysInLog(t, f.plane, "connection ended", "edge/lazy", "certificate has ended")
		if got, err := subscribe(t, dial(t, f.xds, lazy, contract.RoleXDS), &corev3.Node{Id: "lazy", Cluster: "edge"}, 5*time.Second, nil, release.TypeCluster); got != "" || status.Code(err) != codes.Unavailable {
			t.Errorf("it comes back: %v\n%s", err, got)
		}
	})
	t.Run("a new root signs", func(t *testing.T) {
		for _, address := range []string{f.xds, f.extauthz, f.ratelimit} {
			harness.Eventually(t, 90*time.Second, address+" shows a certificate of the new root", func() error {
				if _, signer := shows(t, address); signer == "" || signer == old {
					return errors.New("the old one signs")
				}
				return nil
			})
		}
	})
	t.Run("a member is removed", func(t *testing.T) { removeMembers(t, f) })
	f.edit(t, "prefix: /public}", "prefix: /edited}")
	harness.Eventually(t, 10*time.Second, "an edit arrives", func() error {
		return gives("http://"+f.base+"/edited/x", nil, http.StatusOK)
	})
	clean(t, "over certificates, roots and removals", load.Stop(), okOnly)
	f.unmoved(t)
	for _, p := range []*harness.Process{f.authz, f.limiter} {
		if strings.Contains(p.Log(), `"connection ended"`) {
			t.Errorf("%s cut a proxy that renews:\n%s", p.Name, p.Log())
		}
	}
}

// removeMembers takes a service out of the balance, and an edge out of the fleet.
func removeMembers(t *testing.T, f *fleet) {
	gone := f.member(t, contract.RoleEdge, "gone")
	service := harness.Start(t, harness.Command{Name: "user", Path: harness.Tollgate(t), Args: []string{
		"service", "user", "--data-dir", filepath.Join(f.dir, "user"), "--join", f.token(t, contract.RoleService, "user"), "--registry", "https://" + f.xds,
		"--identity-jwks", filepath.Join(f.dir, "authz-1", "identity.jwks"), "--audience", "user",
	}}).AwaitReady(t, 20*time.Second)
	instances := func() string {
		token, err := os.ReadFile(filepath.Join(f.state, "admin.token"))
		if err != nil {
			t.Fatal(err)
		}
		return attempt{Do: "GET", Target: "http://" + f.adminXDS + "/v1/registry", Header: withToken(strings.TrimSpace(string(token)))}.must(t).Got
	}
	harness.Eventually(t, 20*time.Second, "it registers", func() error {
		if text := instances(); !containsAll(text, `"service":"user"`, `"service":"user-grpc"`) {
			return errors.New(text + service.Log())
		}
		return nil
	})
	// One that asked to be believed for minutes does not stay for them.
	out, errs, code := harness.Run(t, "registry-token", "--service", "user", "--data-dir", f.state)
	if code != 0 {
		t.Fatal(errs)
	}
	long := attempt{Do: "PUT", Target: "http://" + f.adminXDS + "/v1/registry/user/long", Body: `{"address":"` + f.up.Address + `","ttl_s":300}`, Header: withToken(strings.TrimSpace(out))}
	if r := long.must(t); r.Status != http.StatusNoContent {
		t.Fatalf("%+v", r)
	}
	conn := dial(t, f.xds, gone, contract.RoleXDS)
	node := &corev3.Node{Id: "gone", Cluster: "edge"}
	ended := make(chan error, 1)
	go func() {
		_, err := subscribe(t, conn, node, 20*time.Second, nil, release.TypeCluster)
		ended <- err
	}()
	harness.Eventually(t, 5*time.Second, "it is connected", func() error {
		if text := f.status(t); !strings.Contains(text, "gone ") {
			return errors.New(text)
		}
		return nil
	})
	if _, errs, code := harness.Run(t, "members", "remove", "edge/gone", "service/user", "--data-dir", f.state); code != 0 || !containsAll(errs, "edge/gone is out", "service/user is out") {
		t.Fatalf("exit %d: %s", code, errs)
	}
	if err := <-ended; status.Code(err) != codes.Unavailable {
		t.Errorf("its stream: %v", err)
	}
	saysInLog(t, f.plane, "connection ended", "edge/gone", "removed from the fleet")
	if got, err := subscribe(t, conn, node, 5*time.Second, nil, release.TypeCluster); got != "" || status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "edge/gone was removed from the fleet") {
		t.Errorf("it comes back: %v\n%s", err, got)
	}
	harness.Eventually(t, 10*time.Second, "it leaves the balance, though it goes on asking", func() error {
		if text := instances(); strings.Contains(text, `"service":"user`) {
			return errors.New(text)
		}
		return nil
	})
	saysInLog(t, f.plane, "registration refused", "service/user was removed from the fleet")
	saysInLog(t, f.plane, "renewal refused", "service/user")
	if text := instances(); strings.Contains(text, `"service":"user`) {
		t.Errorf("it is back: %s", text)
	}
	// A new token lets the name in again, at once.
	back := f.member(t, contract.RoleEdge, "gone")
	if got, err := subscribe(t, dial(t, f.xds, back, contract.RoleXDS), node, 700*time.Millisecond, nil, release.TypeCluster); got == "" {
		t.Errorf("with a new token: %v", err)
	}
	if got, err := subscribe(t, dial(t, f.xds, gone, contract.RoleXDS), node, 5*time.Second, nil, release.TypeCluster); got != "" || err == nil {
		t.Errorf("with what it had: %v\n%s", err, got)
	}
}

// TestOwnCertificatesAreReloaded: files of --tls-* that are replaced count from
// the next handshake on, half of a pair and a pair of strangers not at all.
func TestOwnCertificatesAreReloaded(t *testing.T) {
	dir := harness.TempDir(t)
	one, err := trust.Open(trust.Config{Dir: filepath.Join(dir, "one"), TTL: 30 * 24 * time.Hour, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	two, err := trust.Open(trust.Config{Dir: filepath.Join(dir, "two"), TTL: 30 * 24 * time.Hour, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	both := append(peer.PEM(one.Roots()), peer.PEM(two.Roots())...)
	put := func(name string, data []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path+"~", data, 0o600), os.Rename(path+"~", path)); err != nil {
			t.Fatal(err)
		}
	}
	pair := func(a *trust.Authority, role, name string) (chain, key []byte) {
		t.Helper()
		svid, err := a.Own(role, name).GetX509SVID()
		if err != nil {
			t.Fatal(err)
		}
		chain, key, err = svid.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return chain, key
	}
	give := func(a *trust.Authority, roots []byte, role string) {
		chain, key := pair(a, role, role+"-1")
		put(role+".key", key)
		put(role+".pem", chain)
		put(role+".ca", roots)
	}
	give(one, peer.PEM(one.Roots()), "xds")
	give(one, peer.PEM(one.Roots()), "ratelimit")
	at, admin, limits := harness.FreeAddress(t), harness.FreeAddress(t), harness.FreeAddress(t)
	put("gateway.yaml", []byte("version: 1\nlisteners: [{name: http, address: 127.0.0.1:1}]\n"))
	files := func(role string) []string {
		return []string{"--tls-cert", filepath.Join(dir, role+".pem"), "--tls-key", filepath.Join(dir, role+".key"), "--tls-ca", filepath.Join(dir, role+".ca"), "--data-dir", filepath.Join(dir, "state-"+role)}
	}
	start := func(role string, args ...string) *harness.Process {
		return harness.Start(t, harness.Command{Name: role, Path: harness.Tollgate(t), Args: append(append([]string{role, "--json"}, args...), files(role)...)}).AwaitReady(t, 20*time.Second)
	}
	plane := start("xds", "-f", filepath.Join(dir, "gateway.yaml"), "--xds-address", at, "--admin-address", admin, "--extauthz-servers", "127.0.0.1:1", "--ratelimit-servers", limits)
	limiter := start("ratelimit", "--ratelimit-address", limits, "--admin-address", harness.FreeAddress(t), "--xds-servers", at)
	served := func(address string, want func(serial string) bool) func() error {
		return func() error {
			if serial, _ := shows(t, address); serial == "" || !want(serial) {
				return fmt.Errorf("it shows %q", serial)
			}
			return nil
		}
	}
	first := map[string]string{}
	for _, address := range []string{at, limits} {
		first[address], _ = shows(t, address)
	}
	says := func(words string, want bool) func() error {
		return func() error {
			_, text, err := harness.Get("http://" + admin + "/readyz")
			if err == nil && strings.Contains(text, words) != want {
				err = fmt.Errorf("it says %s", text)
			}
			return err
		}
	}
	// A key that is not there yet: the last pair stays, and it shows.
	chain, key := pair(two, "xds", "xds-1")
	put("xds.pem", chain)
	harness.Eventually(t, 10*time.Second, "half a pair is a fault", says("xds.pem", true))
	if err := served(at, func(serial string) bool { return serial == first[at] })(); err != nil {
		t.Error(err)
	}
	put("xds.key", key)
	time.Sleep(1100 * time.Millisecond)
	if err := served(at, func(serial string) bool { return serial == first[at] })(); err != nil {
		t.Errorf("a certificate of a CA that --tls-ca does not know: %v", err)
	}
	// First everybody believes both, then everybody shows the second's.
	for _, role := range []string{"xds", "ratelimit"} {
		put(role+".ca", both)
	}
	harness.Eventually(t, 10*time.Second, "the whole pair is taken", served(at, func(serial string) bool { return serial != first[at] }))
	harness.Eventually(t, 10*time.Second, "no fault is left", says("xds.pem", false))
	give(two, both, "ratelimit")
	harness.Eventually(t, 10*time.Second, "the limiter shows the new one", served(limits, func(serial string) bool { return serial != first[limits] }))
	for _, role := range []string{"xds", "ratelimit"} {
		put(role+".ca", peer.PEM(two.Roots()))
	}
	// Who shows the first's is believed no more, who shows the second's is.
	for a, in := range map[*trust.Authority]bool{one: false, two: true} {
		source := forged{a.Own(contract.RoleRateLimit, "other"), two.Own(contract.RoleXDS, "x")}
		harness.Eventually(t, 10*time.Second, fmt.Sprintf("in: %v", in), func() error {
			_, err := subscribe(t, dial(t, at, source, contract.RoleXDS), &corev3.Node{Id: "other", Cluster: "tollgate-ratelimit"}, 500*time.Millisecond, nil, release.TypeRuleSet)
			if (status.Code(err) == codes.DeadlineExceeded) != in {
				return err
			}
			return nil
		})
	}
	// One that somebody must replace within the week shows, too.
	week, err := trust.Open(trust.Config{Dir: filepath.Join(dir, "two"), TTL: 30 * 24 * time.Hour, Now: func() time.Time { return time.Now().Add(-24 * 24 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	give(week, both, "xds")
	harness.Eventually(t, 10*time.Second, "its own certificate ends within the week", says("xds.pem ends ", true))
	cert, private := harness.CertificateFor(t, 6*24*time.Hour, "edge.test")
	put("edge.crt", []byte(cert))
	put("edge.key", []byte(private))
	put("gateway.yaml", []byte("version: 1\nlisteners: [{name: https, address: 127.0.0.1:1, tls: {certs: [{cert: file:edge.crt, key: file:edge.key}]}}]\n"))
	const listener = "listeners[https].tls.certs[0]: the certificate of file:edge.crt ends "
	harness.Eventually(t, 10*time.Second, "a listener's certificate ends within the week", says(listener, true))
	cert, private = harness.Certificate(t, "edge.test")
	put("edge.crt", []byte(cert))
	put("edge.key", []byte(private))
	harness.Eventually(t, 10*time.Second, "it is replaced", says(listener, false))
	if !plane.Alive() || !limiter.Alive() {
		t.Error("somebody ended")
	}
}
