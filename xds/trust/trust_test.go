package trust_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"go.uber.org/goleak"

	"tollgate/api/contract"
	"tollgate/internal/join"
	"tollgate/xds/trust"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait")) // half a second after a refused body
}

type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func open(t *testing.T, dir string, now func() time.Time) (*trust.Authority, *trust.Tokens) {
	t.Helper()
	a, err := trust.Open(trust.Config{Dir: dir, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := trust.OpenTokens(dir, a, now)
	if err != nil {
		t.Fatal(err)
	}
	return a, tokens
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestOneFolderOneCA: control planes that start in the same millisecond on one
// folder believe each other, and take each other's tokens.
func TestOneFolderOneCA(t *testing.T) {
	for range 5 {
		dir := t.TempDir()
		const planes = 8
		authorities, tokens := make([]*trust.Authority, planes), make([]*trust.Tokens, planes)
		begin := make(chan struct{})
		var wg sync.WaitGroup
		for i := range planes {
			wg.Go(func() {
				<-begin
				authorities[i], tokens[i] = open(t, dir, time.Now)
			})
		}
		close(begin)
		wg.Wait()
		for i := range planes {
			if got, want := authorities[i].Roots(), authorities[0].Roots(); len(got) != 1 || !got[0].Equal(want[0]) {
				t.Fatalf("control plane %d has another CA", i)
			}
			token, err := tokens[i].Make(contract.RoleEdge, "edge-1", time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := tokens[(i+1)%planes].Redeem(token, newKey(t).Public()); err != nil {
				t.Fatal(err)
			}
		}
		if info, err := os.Stat(filepath.Join(dir, "ca", "1.pem")); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatal(info, err)
		}
	}
}

// TestTokens: what opens the door, and what does not.
func TestTokens(t *testing.T) {
	at := &clock{at: time.Now()}
	dir := t.TempDir()
	_, tokens := open(t, dir, at.now)
	_, others := open(t, t.TempDir(), at.now)
	make := func(from *trust.Tokens) string {
		token, err := from.Make(contract.RoleService, "orders", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	key := newKey(t).Public()
	spent := make(tokens)
	if role, name, err := tokens.Redeem(spent, key); err != nil || role != contract.RoleService || name != "orders" {
		t.Fatal(role, name, err)
	}
	if _, _, err := tokens.Redeem(spent, key); err != nil {
		t.Errorf("who lost the answer comes back with its key: %v", err)
	}
	claims, err := join.ParseToken(spent)
	if err != nil {
		t.Fatal(err)
	}
	claims.Role, claims.Name = contract.RoleEdge, "edge-1"
	sign := func(method jwt.SigningMethod, key any, c join.Claims) string {
		text, err := jwt.NewWithClaims(method, c).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	secret, err := os.ReadFile(filepath.Join(dir, "join.key"))
	if err != nil {
		t.Fatal(err)
	}
	control := claims
	control.Role, control.Name, control.ID = contract.RoleXDS, "xds-1", "9f2b7d34-0e0c-4c61-9f35-0d3f4a1a4b11"
	endless := claims
	endless.ExpiresAt, endless.ID = nil, "9f2b7d34-0e0c-4c61-9f35-0d3f4a1a4b12"
	path := claims
	path.ID = "../../ca/1.pem"
	audience := claims
	audience.Audience = nil
	late := make(tokens)
	parts := strings.Split(make(tokens), ".")
	cases := map[string]string{
		"none":               "",
		"words":              "let me in",
		"another fleet's":    make(others),
		"spent":              spent,
		"another claim":      strings.Join([]string{parts[0], strings.Split(sign(jwt.SigningMethodHS256, []byte("x"), claims), ".")[1], parts[2]}, "."),
		"no algorithm":       sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims),
		"another key":        sign(jwt.SigningMethodHS256, []byte("guess"), claims),
		"another algorithm":  sign(jwt.SigningMethodHS512, secret, claims),
		"of a control plane": sign(jwt.SigningMethodHS256, secret, control),
		"without an end":     sign(jwt.SigningMethodHS256, secret, endless),
		"id is a path":       sign(jwt.SigningMethodHS256, secret, path),
		"another audience":   sign(jwt.SigningMethodHS256, secret, audience),
	}
	for name, token := range cases {
		if role, who, err := tokens.Redeem(token, newKey(t).Public()); !errors.Is(err, trust.ErrToken) {
			t.Errorf("token %s: %s/%s, %v", name, role, who, err)
		}
	}
	at.add(time.Hour + time.Second)
	if _, _, err := tokens.Redeem(late, newKey(t).Public()); !errors.Is(err, trust.ErrToken) {
		t.Errorf("ended token: %v", err)
	}
	for _, bad := range [][2]string{{"xds", "a"}, {"admin", "a"}, {"edge", ""}, {"edge", "a/b"}, {"edge", ".."}, {"edge", strings.Repeat("a", 64)}, {"edge", "a b"}} {
		if _, err := tokens.Make(bad[0], bad[1], time.Hour); err == nil {
			t.Errorf("token of %q/%q was made", bad[0], bad[1])
		}
	}
	// A token that has ended is forgotten with the next one spent.
	at.add(2 * time.Hour)
	if _, _, err := tokens.Redeem(make(tokens), key); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "join-spent")); len(left) != 1 {
		t.Errorf("%d spent tokens are kept", len(left))
	}
}

// TestOneOfManyGetsIn: a thousand may know a token; one key gets in.
func TestOneOfManyGetsIn(t *testing.T) {
	dir := t.TempDir()
	_, first := open(t, dir, time.Now)
	_, second := open(t, dir, time.Now)
	token, err := first.Make(contract.RoleEdge, "edge-1", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	in := 0
	var wg sync.WaitGroup
	for i := range 64 {
		key := newKey(t).Public()
		wg.Go(func() {
			tokens := first
			if i%2 == 1 {
				tokens = second
			}
			if _, _, err := tokens.Redeem(token, key); err == nil {
				mu.Lock()
				in++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if in != 1 {
		t.Fatalf("%d keys got in with one token", in)
	}
}

// TestRotation: whatever was signed is believed until it ends, by everybody who
// renewed on time; and the new root is known before it signs.
func TestRotation(t *testing.T) {
	at := &clock{at: time.Now()}
	dir := t.TempDir()
	a, _ := open(t, dir, at.now)
	other, _ := open(t, dir, at.now)
	old := a.Roots()[0]
	at.add(time.Hour)
	if err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	type member struct {
		chain []*x509.Certificate
		roots []*x509.Certificate
		until time.Time
	}
	var members []member
	signed := map[string]bool{}
	for step := range 25 {
		chain, err := other.Issue(newKey(t).Public(), contract.RoleEdge, "edge-1")
		if err != nil {
			t.Fatal(err)
		}
		signed[join.Fingerprint(chain[1])] = true
		members = append(members, member{chain, other.Roots(), at.now().Add(trust.DefaultTTL / 2)})
		for i, x := range members {
			for j, y := range members {
				if at.now().After(x.until) || at.now().After(y.until) {
					continue
				}
				if _, _, err := x509svid.Verify(x.chain, x509bundle.FromX509Authorities(a.Domain(), y.roots), x509svid.WithTime(at.now())); err != nil {
					t.Fatalf("step %d: member %d is not believed by %d: %v", step, i, j, err)
				}
			}
		}
		at.add(4 * time.Hour)
	}
	if len(signed) != 2 {
		t.Errorf("%d roots have signed", len(signed))
	}
	if roots := a.Roots(); len(roots) != 1 || roots[0].Equal(old) {
		t.Errorf("the old root is believed for ever: %d roots", len(roots))
	}
}

// TestOperatorsCA: a CA of the operator's is taken with its key only.
func TestOperatorsCA(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, time.Now)
	file := filepath.Join(dir, "ca", "1.pem")
	a, err := trust.Open(trust.Config{Dir: t.TempDir(), CertFile: file, KeyFile: file, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Issue(newKey(t).Public(), contract.RoleEdge, "edge-1"); err != nil {
		t.Fatal(err)
	}
	if err := a.Rotate(); err == nil {
		t.Error("the operator's CA was rotated")
	}
	other := t.TempDir()
	open(t, other, time.Now)
	if _, err := trust.Open(trust.Config{CertFile: file, KeyFile: filepath.Join(other, "ca", "1.pem"), Now: time.Now}); err == nil {
		t.Error("a key that does not belong to the CA was taken")
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := trust.Open(trust.Config{CertFile: file, KeyFile: file, Now: time.Now}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
}
