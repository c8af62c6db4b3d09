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
	"strconv"
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
	w.calls++
	slow, fail := w.slow, w.fail
	h := http.Header{"Cache-Control": {w.control}, "Location": {"https://evil.test/"}}
	response := &http.Response{StatusCode: w.status, Header: h, Body: io.NopCloser(strings.NewReader(w.body)), Request: r}
	w.mu.Unlock()
	time.Sleep(slow) // a key that comes meanwhile is not in it
	if fail {
		return nil, errors.New("down")
	}
	return response, nil
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

// keySet has a new key for each kid.
func keySet(t *testing.T, kids ...string) string {
	t.Helper()
	var keys []jwks.Key
	for _, kid := range kids {
		public, _, _ := ed25519.GenerateKey(rand.Reader)
		keys = append(keys, jwks.Key{ID: kid, Alg: jwks.EdDSA, Public: public})
	}
	data, err := jwks.Marshal(keys...)
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
	fresh = r.Await(t.Context(), credential.Wanted{KeyID: kid, Issued: start, Arrived: start})
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

// TestUnknownKids: whatever kids somebody floods us with, a token of a key that
// was just rotated in waits 300 ms at most, and the issuer is asked five times a
// second at most. More cannot be had: nobody can tell the first token of a new
// key from one of no key, so that an attacker's best play is a new kid every
// 200 ms, and whoever fetches less often than that keeps somebody waiting.
func TestUnknownKids(t *testing.T) {
	for name, flood := range map[string]struct {
		every time.Duration
		kid   func(n int) string
	}{
		"1,000 a second, each of its own":     {time.Millisecond, func(n int) string { return "x" + strconv.Itoa(n) }},
		"1,000 a second, all the same":        {time.Millisecond, func(int) string { return "x" }},
		"the next keys' own, before they are": {time.Millisecond, func(n int) string { return "k" + strconv.Itoa(n%13) }},
		"one in 10 s":                         {10 * time.Second, func(int) string { return "x" }},
		"one as soon as it costs a fetch":     {200 * time.Millisecond, func(n int) string { return "x" + strconv.Itoa(n) }},
		"without a kid":                       {time.Millisecond, func(int) string { return "" }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &web{body: keySet(t, "k0", "other"), status: 200, slow: 98 * time.Millisecond, control: "max-age=900"}
				r := running(t, w)
				time.Sleep(time.Second)
				ctx, cancel := context.WithCancel(t.Context())
				var attack sync.WaitGroup
				attack.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						attack.Go(func() { ask(t, r, flood.kid(n)) })
						time.Sleep(flood.every)
					}
				})
				before, start := w.count(), time.Now()
				for n := 1; n <= 12; n++ {
					time.Sleep(time.Duration(1000+n*37) * time.Millisecond) // to meet the fetches at other places each time
					kid := "k" + strconv.Itoa(n)
					w.change(func() { w.body = keySet(t, kid, "other") })
					time.Sleep(time.Microsecond)
					if found, _, took := ask(t, r, kid); !found || took > 300*time.Millisecond {
						t.Errorf("%s: found %v after %v", kid, found, took)
					}
				}
				if n, most := w.count()-before, int(time.Since(start)/(200*time.Millisecond))+13; n > most {
					t.Errorf("%d fetches in %v, want at most %d", n, time.Since(start), most)
				}
				cancel()
				attack.Wait()
				after := w.count()
				time.Sleep(10 * time.Minute)
				if n := w.count() - after; n > 2 {
					t.Errorf("%d fetches in ten minutes after the flood", n)
				}
			})
		})
	}
}

// TestKeysWithoutAName: a set whose key has no kid is no news for ever.
func TestKeysWithoutAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &web{body: keySet(t, ""), status: 200, slow: time.Millisecond}
		r := running(t, w)
		time.Sleep(time.Second)
		before, start := w.count(), time.Now()
		for time.Since(start) < time.Minute {
			ask(t, r, "x")
			time.Sleep(time.Millisecond)
		}
		if n := w.count() - before; n > 305 {
			t.Errorf("%d fetches in a minute, want at most 300", n)
		}
	})
}

// TestOldTokensOfNoKey: whoever keeps tokens of a key that is long gone is no
// attack, yet there may be many of them: they cost one fetch in 10 s, and none
// waits for one that does not come.
func TestOldTokensOfNoKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &web{body: keySet(t, "one"), status: 200, slow: 50 * time.Millisecond}
		r := running(t, w)
		time.Sleep(time.Second)
		issued := time.Now().Add(-time.Hour)
		before, waited := w.count(), 0
		for range 600 {
			start := time.Now()
			r.Await(t.Context(), credential.Wanted{KeyID: "gone", Issued: issued, Arrived: start})
			if took := time.Since(start); took > 300*time.Millisecond {
				t.Fatalf("waited %v", took)
			} else if took > 0 {
				waited++
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := w.count() - before; n < 5 || n > 8 {
			t.Errorf("%d fetches in a minute, want 6 or 7", n)
		} else if waited > 3*n {
			t.Errorf("%d of 600 waited for %d fetches", waited, n)
		}
		w.change(func() { w.body = keySet(t, "two") })
		if found, _, took := ask(t, r, "two"); !found || took > 300*time.Millisecond {
			t.Errorf("a new key beside them: found %v after %v", found, took)
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
		if r.Await(ctx, credential.Wanted{KeyID: "two", Arrived: time.Now()}) {
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
			r.Await(ctx, credential.Wanted{KeyID: "evil", Arrived: time.Now()})
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
