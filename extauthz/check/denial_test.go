package check_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/golang-jwt/jwt/v5"

	"tollgate/extauthz/check"
	"tollgate/extauthz/credential"
)

// logged is a gate whose log is read.
func logged(t testing.TB) (*gate, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	return newGateLogging(t, nil, slog.New(slog.NewJSONHandler(&out, nil))), &out
}

func records(t testing.TB, out *bytes.Buffer) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(out.String()) {
		record := map[string]any{}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		all = append(all, record)
	}
	return all
}

// The record of a denial says what an operator asks: who, where, and why.
func TestDenialRecord(t *testing.T) {
	g, out := logged(t)
	good := g.token(t, nil)
	forged := good[:len(good)-8] + "AAAAAAAA"
	for name, c := range map[string]struct {
		token  string
		policy string
		method string
		want   map[string]any
	}{
		"signature":     {forged, "ruled@1", "GET", map[string]any{"reason": "invalid_token", "cause": "signature: not of the key that it names, of issuer platform", "user": ""}},
		"audience":      {g.token(t, jwt.MapClaims{"aud": "other"}), "ruled@1", "GET", map[string]any{"reason": "invalid_token", "cause": "audience: for none of issuer platform"}},
		"issuer":        {g.token(t, jwt.MapClaims{"iss": "https://evil.test"}), "ruled@1", "GET", map[string]any{"reason": "invalid_token", "cause": "issuer: no issuer of the route has its iss"}},
		"no exp":        {g.token(t, jwt.MapClaims{"exp": nil}), "ruled@1", "GET", map[string]any{"reason": "invalid_token", "cause": "time: exp is missing, or exp, iat or nbf is no number of seconds"}},
		"not yet":       {g.token(t, jwt.MapClaims{"nbf": time.Now().Add(time.Hour).Unix()}), "ruled@1", "GET", map[string]any{"reason": "invalid_token", "cause": "time: not valid yet, by iat or nbf"}},
		"nobody":        {g.token(t, jwt.MapClaims{"sub": ""}), "ruled@1", "GET", map[string]any{"reason": "invalid_token", "cause": "user: it names nobody"}},
		"no token":      {"x", "ruled@1", "GET", map[string]any{"reason": "invalid_token", "cause": "token does not have three parts"}},
		"no rule holds": {good, "ruled@1", "POST", map[string]any{"reason": "permission_denied", "cause": "none of these holds: authorize[0]", "user": "ann", "tenant": "acme", "credential": "t-1", "kind": "jwt", "rule": ""}},
		"a permission":  {good, "strict@1", "GET", map[string]any{"reason": "permission_denied", "cause": "none of these holds: orders:delete", "user": "ann"}},
	} {
		out.Reset()
		g.At(t.Context(), request(c.policy, c.method, "/api/orders?secret=1", "authorization", "Bearer "+c.token), time.Now().Add(time.Duration(len(name))*time.Second))
		all := records(t, out)
		if len(all) != 1 {
			t.Fatalf("%s: %d records: %v", name, len(all), all)
		}
		c.want["client"], c.want["host"], c.want["method"], c.want["resource"], c.want["request_id"] = "10.0.0.7", "api.example.com", c.method, c.policy, "r-1"
		for field, want := range c.want {
			if got := all[0][field]; got != want {
				t.Errorf("%s: %s is %q, want %q", name, field, got, want)
			}
		}
		if strings.Contains(out.String(), c.token) && len(c.token) > 1 || strings.Contains(out.String(), "secret=1") {
			t.Errorf("%s: the record holds a secret: %s", name, out)
		}
	}
}

// One client's flood is a handful of lines a second and a count; another
// client's denial in the same second is written.
func TestDenialsAreSampled(t *testing.T) {
	g, out := logged(t)
	now := time.Date(2026, 11, 21, 4, 0, 0, 0, time.UTC)
	for range 1000 {
		g.At(t.Context(), request("orders@1", "GET", "/"), now)
	}
	if n := len(records(t, out)); n != 10 {
		t.Errorf("1000 denials of one client in a second are %d lines, want 10", n)
	}
	out.Reset()
	other := request("orders@1", "GET", "/")
	other.GetAttributes().GetSource().GetAddress().GetSocketAddress().Address = "2001:db8::1"
	g.At(t.Context(), other, now)
	if n := len(records(t, out)); n != 1 {
		t.Errorf("another client's denial is %d lines, want 1", n)
	}
	out.Reset()
	g.At(t.Context(), other, now.Add(time.Second))
	all := records(t, out)
	if len(all) != 2 || all[0]["msg"] != "denials not logged" || all[0]["count"] != 990.0 || all[0]["worst_client"] != "10.0.0.7" || all[0]["worst_count"] != 1000.0 {
		t.Errorf("a second later: %v", all)
	}
}

// Thousands of addresses, each below its own bound, do not fill a disk either.
func TestDenialsOfManyClientsAreBounded(t *testing.T) {
	g, out := logged(t)
	now := time.Date(2026, 11, 21, 4, 0, 0, 0, time.UTC)
	long := strings.Repeat("x", 8000)
	for i := range 5000 {
		r := request("orders@1", long, "/"+long, "x-api-key", long)
		r.GetAttributes().GetSource().GetAddress().GetSocketAddress().Address = fmt.Sprintf("10.1.%d.%d", i>>8, i&255)
		g.At(t.Context(), r, now)
	}
	if n := out.Len(); n > 100_000 {
		t.Errorf("5000 denials of 5000 clients are %d bytes in a second, want at most 100,000", n)
	}
	// What is a fault of ours is never left out.
	out.Reset()
	for range 200 {
		g.At(t.Context(), request("orders@9", "GET", "/"), now)
	}
	if n := len(records(t, out)); n != 200 {
		t.Errorf("200 refusals for want of a policy are %d lines", n)
	}
}

// A flood that is shed is 503, nobody's fault and no guess, and does not fill the
// log; whoever was here before, or has a key, is not touched.
func TestShedding(t *testing.T) {
	g, out := logged(t)
	known := g.token(t, nil)
	now := time.Now().Truncate(time.Second)
	send := func(header, value string) *authv3.CheckResponse {
		response := g.At(t.Context(), request("orders@1", "GET", "/", header, value), now)
		closed(t, response)
		return response
	}
	if send("authorization", "Bearer "+known).GetOkResponse() == nil {
		t.Fatal("a good token")
	}
	g.use(func(s *check.Snapshot) {
		s.Credentials = credential.NewVerifier(g.issuers, g.index, credential.NewBulkhead(0))
	})
	out.Reset()
	var wait sync.WaitGroup
	for n := range 200 {
		forged := g.token(t, jwt.MapClaims{"jti": fmt.Sprint(n)})
		wait.Go(func() {
			response := send("authorization", "Bearer "+forged[:len(forged)-4]+"AAAA")
			if code := response.GetDeniedResponse().GetStatus().GetCode(); code != 503 || !strings.Contains(response.GetDeniedResponse().GetBody(), "authz_overloaded") {
				t.Errorf("%d %s", code, response.GetDeniedResponse().GetBody())
			}
		})
	}
	wait.Wait()
	if n := len(records(t, out)); n != 10 {
		t.Errorf("%d lines, want 10", n)
	}
	if send("authorization", "Bearer "+known).GetOkResponse() == nil || send("x-api-key", g.key).GetOkResponse() == nil {
		t.Error("who was here before, or has a key, is refused")
	}
	if code := send("x-api-key", "guess").GetDeniedResponse().GetStatus().GetCode(); code != 401 {
		t.Errorf("the first bad key of that address: %d", code)
	}
}

// Bad credentials of one address beyond a rate are 429; good ones of that
// address, and bad ones of another, are not touched.
func TestGuessersAreThrottled(t *testing.T) {
	g := newGate(t, nil)
	now := time.Date(2026, 11, 21, 4, 0, 0, 0, time.UTC)
	from := func(address, header, value string, at time.Time) (int, map[string]string) {
		r := request("orders@1", "GET", "/", header, value)
		r.GetAttributes().GetSource().GetAddress().GetSocketAddress().Address = address
		response := g.At(t.Context(), r, at)
		closed(t, response)
		if response.GetOkResponse() != nil {
			return 200, headersOf(response)
		}
		return int(response.GetDeniedResponse().GetStatus().GetCode()), headersOf(response)
	}
	for i := range 50 {
		want := 401
		if i >= 20 {
			want = 429
		}
		status, headers := from(fmt.Sprintf("2001:db8::%x", i), "x-api-key", fmt.Sprintf("guess-%d", i), now)
		if status != want || (want == 429) != (headers["retry-after"] == "1") {
			t.Fatalf("guess %d of a /64: %d %v, want %d", i, status, headers, want)
		}
	}
	if status, _ := from("2001:db8::1", "x-api-key", g.key, now); status != 200 {
		t.Errorf("a good key of the same address: %d", status)
	}
	if status, _ := from("2001:db8::1", "accept-language", "x", now); status != 401 {
		t.Errorf("no credential at all, of the same address: %d", status)
	}
	if status, _ := from("2001:db8:0:1::1", "x-api-key", "guess", now); status != 401 {
		t.Errorf("a bad key of the next /64: %d", status)
	}
	if status, _ := from("2001:db8::1", "authorization", "Bearer x", now.Add(time.Second)); status != 401 {
		t.Errorf("a second later: %d", status)
	}
	// Thousands of guessers at once: each has his own count, within bounds.
	for i := range 5000 {
		if status, _ := from(fmt.Sprintf("10.2.%d.%d", i>>8, i&255), "x-api-key", "guess", now.Add(2*time.Second)); status != 401 {
			t.Fatalf("the first guess of client %d: %d", i, status)
		}
	}
}
