package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/harness"
)

// TestBoxService: a registered service with its token moves nobody but itself,
// and goes nowhere where it is not.
func TestBoxService(t *testing.T) {
	envoyAdmin := harness.FreeAddress(t)
	b := startBox(t, "--envoy-admin-address", envoyAdmin)
	order, own := b.up.Address, harness.NewUpstream(t, "own").Address
	at := func(address string) string { return `{"address":"` + address + `","ttl_s":300}` }
	users, fars := b.registryToken(t, "user"), b.registryToken(t, "far")
	if r := (attempt{Do: "PUT", Target: b.registry("order", "1"), Body: at(order), Header: b.registryToken(t, "order")}).must(t); r.Status != http.StatusNoContent {
		t.Fatalf("%+v", r)
	}
	if r := (attempt{Do: "PUT", Target: b.registry("user", "1"), Body: at(own), Header: users}).must(t); r.Status != http.StatusNoContent {
		t.Fatalf("%+v", r)
	}
	served := func() error { return gives(b.base+"/order/x", nil, http.StatusOK) }
	harness.Eventually(t, 10*time.Second, "order is served", served)
	listed := attempt{Do: "GET", Target: "http://" + b.admin + "/v1/registry", Header: b.bearer("admin.token")}
	before := listed.must(t)

	raw := "http://" + b.admin + "/v1/registry/"
	_, listenerPort, _ := strings.Cut(strings.TrimPrefix(b.base, "http://"), ":")
	type row struct {
		name string
		attempt
		status int
		logged string // in the log beside the service that is named
	}
	another := func(name, do, target, body string) row {
		return row{name, attempt{Do: do, Target: target, Body: body, Header: users}, 401, "no token of this service"}
	}
	place := func(address, logged string) row {
		return row{address, attempt{Do: "PUT", Target: b.registry("user", "2"), Body: at(address), Header: users}, 400, logged}
	}
	rows := []row{
		another("another's name", "PUT", b.registry("order", "2"), at(own)),
		another("another's instance", "PUT", b.registry("order", "1"), at(own)),
		another("another's gRPC half", "PUT", b.registry("order-grpc", "1"), at(own)),
		another("another's removal", "DELETE", b.registry("order", "1"), ""),
		another("in capitals", "PUT", raw+"ORDER/1", at(own)),
		another("by an escaped path", "PUT", raw+"user%2F..%2Forder/1", at(own)),
		another("by a name that holds its own", "PUT", raw+"user-grpc-grpc/1", at(own)),
		another("by a path that is cleaned", "DELETE", raw+"user/../order/1", ""),
		another("by two slashes", "PUT", raw+"/order/1", at(own)),
		place(envoyAdmin, "the gateway itself"),
		place("[::ffff:127.0.0.1]"+envoyAdmin[strings.LastIndex(envoyAdmin, ":"):], "the gateway itself"),
		place(b.admin, "the gateway itself"),
		place("127.0.0.1:"+listenerPort, "the gateway itself"),
		place(order, "where the service order is"),
		place("[::ffff:"+strings.Replace(order, ":", "]:", 1), "where the service order is"),
		place("169.254.169.254:80", "link-local"),
		place("[::ffff:169.254.169.254]:80", "link-local"),
		place("[fe80::1]:80", "link-local"),
		place("[fd00:ec2::254]:80", "secrets"),
		place("[64:ff9b::a9fe:a9fe]:80", "clothes"),
		place("0.0.0.0:"+listenerPort, "unspecified"),
		place("[::]:"+listenerPort, "unspecified"),
		place("[::ffff:0.0.0.0]:80", "unspecified"),
		place("255.255.255.255:80", "broadcast"),
		place("224.0.0.1:80", "multicast"),
		place("8.8.8.8:53", "no network"),
		place("10.0.0.1:80", "no network"),
		place("localhost:80", "IP address and port"),
		place("unix:/run/docker.sock", "IP address and port"),
		{"outside of its networks", attempt{Do: "PUT", Target: b.registry("far", "1"), Body: at(own), Header: fars}, 400, "no network where far may be"},
		{"two addresses in one body", attempt{Do: "PUT", Target: b.registry("user", "2"), Body: `{"address":"` + own + `","address":"169.254.169.254:80"}`, Header: users}, 400, "link-local"},
	}
	for i, r := range rows {
		got := r.must(t)
		if got.Status != r.status {
			t.Errorf("%s: %d %s, want %d", r.name, got.Status, got.Got, r.status)
		}
		harness.Eventually(t, 5*time.Second, fmt.Sprintf("the log tells of %s", r.name), func() error {
			n := 0
			for line := range strings.Lines(b.Log()) {
				if strings.Contains(line, `"registration refused`) && containsAll(line, `"address":"127.1.`) {
					n++
				}
			}
			if n < i+1 || !strings.Contains(b.Log(), r.logged) {
				return fmt.Errorf("%d lines\n%s", n, b.Log())
			}
			return nil
		})
	}
	if after := listed.must(t); after.Got != before.Got || !strings.Contains(after.Got, `"address":"`+order+`"`) {
		t.Errorf("before: %s\nafter: %s", before.Got, after.Got)
	}
	if err := served(); err != nil {
		t.Error(err)
	}
	if err := gives(b.base+"/far/x", nil, http.StatusServiceUnavailable); err != nil {
		t.Error(err)
	}
	// Its token is for the registry: it reads nothing, and sends nothing again.
	for _, a := range []attempt{{Do: "GET", Target: "http://" + b.admin + "/v1/status"}, {Do: "GET", Target: listed.Target}, {Do: "POST", Target: "http://" + b.admin + "/v1/resend?node=edge"}} {
		a.Header = users
		if r := a.must(t); r.Status != http.StatusUnauthorized {
			t.Errorf("%s %s: %+v", a.Do, a.Target, r)
		}
	}
	if r := (attempt{Do: "DELETE", Target: b.registry("user", "1"), Header: users}).must(t); r.Status != http.StatusNoContent {
		t.Errorf("it may leave: %+v", r)
	}
	b.unmoved(t)
}

// TestAdminToken: who has it sees what runs and has something sent again; it
// moves no instance, is no key to Envoy, and shows no key of anybody.
func TestAdminToken(t *testing.T) {
	b := startBox(t)
	order := attempt{Do: "PUT", Target: b.registry("order", "1"), Body: `{"address":"` + b.up.Address + `","ttl_s":300}`, Header: b.registryToken(t, "order")}
	if r := order.must(t); r.Status != http.StatusNoContent {
		t.Fatalf("%+v", r)
	}
	delete(b.secrets, "admin.token") // it may see what it is
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/v1/status", "", 200},
		{"GET", "/v1/registry", "", 200},
		{"POST", "/v1/resend?node=edge", "", 200},
		{"POST", "/v1/resend?node=nobody", "", 404},
		{"GET", "/debug/pprof/cmdline", "", 200},
		{"GET", "/debug/pprof/heap?debug=1", "", 200},
		{"GET", "/debug/pprof/goroutine?debug=2", "", 200},
		{"PUT", "/v1/registry/order/2", order.Body, 401},
		{"DELETE", "/v1/registry/order/1", "", 401},
		{"POST", "/v1/registry/order/1", order.Body, 404},
		{"GET", "/config_dump", "", 404},
		{"POST", "/quitquitquit", "", 404},
		{"POST", "/metrics/envoy", "", 405},
		{"POST", "/v1/join", "{}", 404},
		{"PUT", "/v1/status", "{}", 404},
	} {
		r := attempt{Do: c.method, Target: "http://" + b.admin + c.path, Body: c.body, Header: withToken(b.adminToken(t))}.must(t)
		if r.Status != c.status {
			t.Errorf("%s %s: %d %.300s, want %d", c.method, c.path, r.Status, r.Got, c.status)
		}
		b.tells(t, c.path, r.Got)
	}
	b.unmoved(t)
}

// adminToken is the token of the folder of state.
func (b *box) adminToken(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(b.data, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}
