package credential_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tollgate/extauthz/credential"
	"tollgate/internal/jwks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestKeyFileIsFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	contents := make(chan int, 16)
	var bad atomic.Bool
	f := credential.NewKeyFile(slog.New(slog.DiscardHandler), func(k []credential.Key) { contents <- len(k) }, func(why error) { bad.Store(why != nil) })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	f.Follow(path)
	go func() { done <- f.Run(ctx) }()
	expect := func(want int, within time.Duration) {
		t.Helper()
		select {
		case got := <-contents:
			if got != want {
				t.Fatalf("%d keys, want %d", got, want)
			}
		case <-time.After(within):
			t.Fatalf("no change within %v", within)
		}
	}
	expect(0, time.Second) // missing: no keys
	for n := 1; n <= 2; n++ {
		if _, _, err := credential.CreateKey(path, credential.KeySpec{Tenant: "a"}, time.Now()); err != nil {
			t.Fatal(err)
		}
		expect(n, time.Second)
	}
	good, _ := os.ReadFile(path)
	_ = os.WriteFile(path, []byte("keys: {"), 0o600)
	for deadline := time.Now().Add(time.Second); !bad.Load(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a bad file is not reported")
		}
	}
	_ = os.WriteFile(path, good, 0o600)
	expect(2, time.Second) // nothing in between: the last good keys stayed
	cancel()
	if err := <-done; err != nil || bad.Load() {
		t.Error(err, bad.Load())
	}
}

// stalled is a log whose reader stopped.
type stalled struct {
	slog.Handler
	until chan struct{}
}

func (s stalled) Enabled(context.Context, slog.Level) bool { return true }
func (s stalled) Handle(context.Context, slog.Record) error {
	<-s.until
	return nil
}

// TestRevocationIsNotHeldUp: a log that nobody reads keeps no key alive.
func TestRevocationIsNotHeldUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	key, _, err := credential.CreateKey(path, credential.KeySpec{Tenant: "a"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := credential.RevokeKey(path, key.ID, time.Now()); err != nil {
		t.Fatal(err)
	}
	told := make(chan []credential.Key, 1)
	log := stalled{until: make(chan struct{})}
	f := credential.NewKeyFile(slog.New(log), func(k []credential.Key) { told <- k }, func(error) {})
	done := make(chan struct{})
	go func() { f.Follow(path); close(done) }()
	select {
	case keys := <-told:
		if len(keys) != 1 || keys[0].State(time.Now()) != credential.Revoked {
			t.Error(keys)
		}
	case <-time.After(5 * time.Second):
		t.Error("the revocation waits for the log")
	}
	close(log.until)
	<-done
}

// web answers for the issuer, so that time can be faked around it.
type web struct {
	mu      sync.Mutex
	body    string
	control string
	status  int
	fail    bool
	calls   int
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	if w.fail {
		return nil, errors.New("down")
	}
	h := http.Header{"Cache-Control": {w.control}, "Location": {"https://evil.test/"}}
	return &http.Response{StatusCode: w.status, Header: h, Body: io.NopCloser(strings.NewReader(w.body)), Request: r}, nil
}

func (w *web) change(edit func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	edit()
}

func (w *web) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls
}

func keySet(t *testing.T, kid string) string {
	t.Helper()
	public, _, _ := ed25519.GenerateKey(rand.Reader)
	data, err := jwks.Marshal(jwks.Key{ID: kid, Alg: jwks.EdDSA, Public: public})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestRemote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &web{body: keySet(t, "one"), status: 200, control: "public, max-age=600"}
		r, err := credential.NewRemote("https://issuer.test/jwks", w, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		has := func(kid string) bool {
			set, ok := r.Keys(time.Now())
			_, found := set.Lookup(kid)
			return ok && found
		}
		if has("one") {
			t.Error("keys before the first fetch")
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = r.Run(ctx) }()
		synctest.Wait()
		if !has("one") || w.count() != 1 {
			t.Fatal("not fetched at once")
		}
		w.change(func() { w.body = keySet(t, "two") })
		for range 100 { // a flood of unknown kids
			r.Miss()
			time.Sleep(50 * time.Millisecond)
		}
		if w.count() != 1 {
			t.Errorf("%d fetches within 5 s", w.count())
		}
		time.Sleep(6 * time.Second)
		if w.count() != 2 || !has("two") || has("one") {
			t.Errorf("%d fetches after 11 s", w.count())
		}
		time.Sleep(10 * time.Minute)
		if w.count() < 3 || w.count() > 4 {
			t.Errorf("%d fetches after max-age", w.count())
		}
		w.change(func() { w.fail = true })
		time.Sleep(23 * time.Hour)
		if !has("two") {
			t.Error("the last set did not stay")
		}
		time.Sleep(2 * time.Hour)
		if has("two") {
			t.Error("a set of yesterday still counts")
		}
		w.change(func() { w.fail = false })
		time.Sleep(2 * time.Minute)
		if !has("two") {
			t.Error("did not recover")
		}
		before := w.count()
		for _, broken := range []struct {
			status int
			body   string
		}{{status: 302}, {status: 500}, {status: 200, body: `{"keys":[]}`}, {status: 200, body: strings.Repeat(" ", 70_000)}} {
			w.change(func() { w.status, w.body = broken.status, broken.body })
			time.Sleep(time.Hour)
			if !has("two") {
				t.Errorf("%d %.20q pushed out the last good set", broken.status, broken.body)
			}
		}
		if w.count() == before {
			t.Error("no attempt was made")
		}
		cancel()
		synctest.Wait()
	})
}

func TestCheckURL(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://a.test/jwks": true, "http://127.0.0.1:9/j": true, "http://[::1]/j": true, "http://localhost/j": true,
		"http://a.test/jwks": false, "http://127.0.0.1.evil.test/": false, "https://u:p@a.test/": false, "file:///etc/passwd": false, "": false, "://": false, "https://": false,
	} {
		if err := credential.CheckURL(url); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		} else if err != nil && strings.Contains(err.Error(), ":p@") {
			t.Error("a password is in the error")
		}
	}
}
