package credential_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tollgate/extauthz/credential"
	"tollgate/extauthz/policy"
	"tollgate/internal/jwks"
)

// gated is a source at which tokens of one moment stand still, in the midst of
// being verified.
type gated struct {
	credential.StaticKeys
	at           time.Time
	open         chan struct{}
	inside, most atomic.Int64
}

func (g *gated) Keys(now time.Time) (jwks.Set, time.Time, bool) {
	if now.Equal(g.at) {
		g.most.Store(max(g.most.Load(), g.inside.Add(1)))
		<-g.open
		g.inside.Add(-1)
	}
	return g.StaticKeys.Keys(now)
}

// TestForgeriesStandInLine: however many forged tokens come at once, two are
// looked at; the others wait for 250 ms and are then not called bad. Known tokens
// and keys pass all the while, and new ones once there is room.
func TestForgeriesStandInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		public, key, _ := ed25519.GenerateKey(rand.Reader)
		_, stranger, _ := ed25519.GenerateKey(rand.Reader)
		source := &gated{StaticKeys: credential.StaticKeys(jwks.NewSet(jwks.Key{ID: "k", Alg: jwks.EdDSA, Public: public})), at: now.Add(time.Second), open: make(chan struct{})}
		stored, secret, err := credential.NewKey(credential.KeySpec{Tenant: "a"}, now)
		if err != nil {
			t.Fatal(err)
		}
		v := credential.NewVerifier(map[string]*credential.Issuer{"platform": credential.NewIssuer(platform(), nil, source)},
			credential.NewKeyIndex(nil, []credential.Key{stored}), credential.NewBulkhead(2))
		token := func(key ed25519.PrivateKey, n int) string {
			return sign(t, key, map[string]any{"kid": "k"}, claims(jwt.MapClaims{"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "jti": strconv.Itoa(n)}))
		}
		issuers := []string{"platform"}
		known, fresh := token(key, 1), token(key, 2)
		if caller, reason := v.Token(t.Context(), issuers, known, now); caller == nil {
			t.Fatal(reason)
		}
		var mu sync.Mutex
		said := map[policy.Reason]int{}
		var wait sync.WaitGroup
		begun := time.Now()
		for n := range 500 {
			forged := token(stranger, n)
			wait.Go(func() {
				_, reason := v.Token(t.Context(), issuers, forged, source.at)
				mu.Lock()
				defer mu.Unlock()
				said[reason]++
			})
		}
		synctest.Wait()
		if n := source.inside.Load(); n != 2 {
			t.Errorf("%d are looked at, want 2", n)
		}
		if caller, reason := v.Token(t.Context(), issuers, known, now); caller == nil {
			t.Errorf("a known token: %q", reason)
		}
		if caller, reason := v.Key(secret, now); caller == nil {
			t.Errorf("an API key: %q", reason)
		}
		if time.Since(begun) != 0 {
			t.Errorf("they waited %v", time.Since(begun))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, reason := v.Token(ctx, issuers, fresh, now); reason != policy.Overloaded || time.Since(begun) != 20*time.Millisecond {
			t.Errorf("a new token of a request of 20 ms: %q after %v", reason, time.Since(begun))
		}
		cancel()
		if _, reason := v.Token(ctx, issuers, known, now); reason != "" {
			t.Errorf("a known token whose request ended: %q", reason)
		}
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		mu.Lock()
		if said[policy.Overloaded] != 498 || len(said) != 1 {
			t.Errorf("after 250 ms: %v", said)
		}
		mu.Unlock()
		close(source.open)
		wait.Wait()
		if said[policy.InvalidToken] != 2 || source.most.Load() != 2 {
			t.Errorf("in the end %v, at most %d at once", said, source.most.Load())
		}
		if caller, reason := v.Token(t.Context(), issuers, fresh, now); caller == nil {
			t.Errorf("a new token afterwards: %q", reason)
		}
		if _, reason := v.Token(ctx, issuers, token(key, 3), now); reason != policy.Overloaded {
			t.Errorf("a new token of a request that ended: %q", reason)
		}
	})
}
