package credential_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
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
	slow    time.Duration
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	slow := w.slow
	w.mu.Unlock()
	time.Sleep(slow)
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
			set, _, ok := r.Keys(time.Now())
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
		time.Sleep(10 * time.Minute)
		if w.count() < 2 || w.count() > 3 || !has("two") || has("one") {
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

// running fetches from w until the test ends.
func running(t *testing.T, w *web) *credential.Remote {
	t.Helper()
	r, err := credential.NewRemote("https://issuer.test/jwks", w, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = r.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

// ask waits for a key as a request does, and reports how long that took.
func ask(t *testing.T, r *credential.Remote, kid string) (found, fresh bool, took time.Duration) {
	t.Helper()
	start := time.Now()
	fresh = r.Await(t.Context(), kid, start)
	set, _, _ := r.Keys(time.Now())
	_, found = set.Lookup(kid)
	return found, fresh, time.Since(start)
}

// TestRotation: whoever comes with a key of this moment gets through, by one
// fetch, and then again: a fetch that brought something is no abuse.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &web{body: keySet(t, "k0"), status: 200, slow: 50 * time.Millisecond}
		r := running(t, w)
		time.Sleep(time.Second)
		for _, kid := range []string{"k1", "k2", "k3"} {
			w.change(func() { w.body = keySet(t, kid) })
			before := w.count()
			var wait sync.WaitGroup
			for i := range 200 {
				wait.Go(func() {
					time.Sleep(time.Duration(i) * time.Millisecond / 4)
					if found, _, took := ask(t, r, kid); !found || took > 100*time.Millisecond {
						t.Errorf("%s: found %v after %v", kid, found, took)
					}
				})
			}
			wait.Wait()
			if n := w.count() - before; n != 1 {
				t.Errorf("%s: %d fetches", kid, n)
			}
			time.Sleep(time.Second)
		}
	})
}

// TestUnknownKids: a flood of them costs one fetch in 10 s and makes nobody wait
// for a fetch that cannot come.
func TestUnknownKids(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &web{body: keySet(t, "one"), status: 200, slow: 50 * time.Millisecond}
		r := running(t, w)
		time.Sleep(time.Second)
		before := w.count()
		if found, fresh, took := ask(t, r, "x"); found || !fresh || took != 50*time.Millisecond {
			t.Errorf("the first: found %v, fresh %v, after %v", found, fresh, took)
		}
		for range 95 {
			if found, fresh, took := ask(t, r, "x"); found || fresh || took != 0 {
				t.Fatalf("found %v, fresh %v, after %v", found, fresh, took)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := w.count() - before; n != 1 {
			t.Errorf("%d fetches in 9.5 s", n)
		}
		time.Sleep(11 * time.Second) // the flood's second fetch, and its 10 s
		w.change(func() { w.body = keySet(t, "two") })
		if found, _, _ := ask(t, r, "two"); !found {
			t.Error("after the flood a rotation is not seen")
		}
	})
}

// TestSlowAndLostIssuers: nobody waits longer than 300 ms, few enough wait at
// once, and an issuer that is lost is not asked by every token.
func TestSlowAndLostIssuers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &web{body: keySet(t, "one"), status: 200}
		r := running(t, w)
		time.Sleep(time.Second)
		w.change(func() { w.slow = 2 * time.Second })
		var waited, turned atomic.Int64
		var wait sync.WaitGroup
		for range 3000 {
			wait.Go(func() {
				switch _, fresh, took := ask(t, r, "two"); {
				case fresh || took > 300*time.Millisecond:
					t.Errorf("fresh %v after %v", fresh, took)
				case took == 300*time.Millisecond:
					waited.Add(1)
				default:
					turned.Add(1)
				}
			})
		}
		wait.Wait()
		if waited.Load() != 1024 || turned.Load() != 3000-1024 {
			t.Errorf("%d waited, %d were turned away", waited.Load(), turned.Load())
		}
		time.Sleep(time.Minute)
		w.change(func() { w.slow, w.fail = 0, true })
		before := w.count()
		for range 90 {
			if _, fresh, _ := ask(t, r, "two"); fresh {
				t.Fatal("a set from nowhere")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := w.count() - before; n > 5 {
			t.Errorf("%d attempts in 9 s", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if r.Await(ctx, "two", time.Now()) {
			t.Error("a caller who left")
		}
	})
}

// TestNotTheSet: what is no answer of the issuer is no key set, whatever it
// looks like.
func TestNotTheSet(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"an error with a key set in it": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, keySet(t, "evil"))
		},
		"a redirect to one": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/evil" {
				_, _ = io.WriteString(w, keySet(t, "evil"))
				return
			}
			http.Redirect(w, r, "/evil", http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); answer(w, r) }))
			defer server.Close()
			transport := &http.Transport{DisableKeepAlives: true}
			r, err := credential.NewRemote(server.URL+"/jwks", transport, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { _ = r.Run(ctx); close(done) }()
			for deadline := time.Now().Add(5 * time.Second); asked.Load() == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				continue
			}
			r.Await(ctx, "evil", time.Now())
			if _, _, ok := r.Keys(time.Now()); ok || asked.Load() == 0 {
				t.Errorf("taken as keys, after %d requests", asked.Load())
			}
			cancel()
			<-done
		})
	}
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
