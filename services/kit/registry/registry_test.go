package registry_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tollgate/services/kit/registry"
	"tollgate/services/kit/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func client(t *testing.T, tokenFile string, urls ...string) *registry.Client {
	t.Helper()
	c, err := registry.New(registry.Config{
		URLs: urls, TokenFile: tokenFile, Instance: "a/1", Zone: "z",
		Services: map[string]string{"order": "127.0.0.1:1"}, Log: testkit.Quiet(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func calls(events []testkit.Event) []string {
	names := []string{}
	for _, e := range events {
		names = append(names, e.Call)
	}
	return names
}

// Both control planes hear up, draining, gone, in this order, with a second
// between the last two.
func TestLife(t *testing.T) {
	one, two := testkit.NewRegistry(t), testkit.NewRegistry(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	stop := testkit.Start(t, client(t, token, one.URL, two.URL+"/"))
	testkit.Until(t, "registered at both", func() bool { return len(one.Up("order")) == 1 && len(two.Up("order")) == 1 })
	if d := time.Since(start); d > time.Second {
		t.Errorf("registered after %v", d)
	}
	stop()
	for _, r := range []*testkit.Registry{one, two} {
		events := r.Events()
		want := []string{"PUT order/a/1 up", "PUT order/a/1 draining", "DELETE order/a/1"}
		if got := calls(events); !slices.Equal(got, want) {
			t.Fatalf("calls %q, want %q", got, want)
		}
		if gap := events[2].At.Sub(events[1].At); gap < 900*time.Millisecond || gap > 3*time.Second {
			t.Errorf("%v between draining and leaving", gap)
		}
		if events[0].Bearer != "Bearer s3cret" || events[0].Address != "127.0.0.1:1" {
			t.Errorf("event %+v", events[0])
		}
	}
}

// A control plane, and a token, that come later than the service.
func TestLateControlPlane(t *testing.T) {
	var ready atomic.Bool
	backend := testkit.NewRegistry(t)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !ready.Load() {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	defer front.Close()
	token := filepath.Join(t.TempDir(), "token")
	testkit.Start(t, client(t, token, front.URL))
	time.Sleep(250 * time.Millisecond)
	ready.Store(true)
	if err := os.WriteFile(token, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	testkit.Until(t, "registered", func() bool { return len(backend.Up("order")) == 1 })
	if d := time.Since(start); d > time.Second {
		t.Errorf("registered %v after the control plane came", d)
	}
}

// A dead registry delays the end by no more than the second it has anyway.
func TestDeadRegistry(t *testing.T) {
	hung := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hung }))
	defer server.Close()
	defer close(hung)
	stop := testkit.Start(t, client(t, "", server.URL, "http://127.0.0.1:1"))
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	stop()
	if d := time.Since(start); d < 900*time.Millisecond || d > 2500*time.Millisecond {
		t.Errorf("left after %v", d)
	}
}

// The token never follows a redirect.
func TestRedirect(t *testing.T) {
	var asked atomic.Int32
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer thief.Close()
	server := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	defer server.Close()
	testkit.Start(t, client(t, "", server.URL))()
	if asked.Load() != 0 {
		t.Error("followed")
	}
}

func TestNewRefuses(t *testing.T) {
	for _, u := range []string{"", "127.0.0.1:9900", "ftp://x", "http://", "http://%zz"} {
		_, err := registry.New(registry.Config{URLs: []string{u}})
		if err == nil || !strings.Contains(err.Error(), "http://host:port") {
			t.Errorf("%q: %v", u, err)
		}
	}
}
