package daemon_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tollgate/internal/daemon"
)

// TestMain also is the child process of TestChild.
func TestMain(m *testing.M) {
	if mode := os.Getenv("TOLLGATE_TEST_CHILD"); mode != "" {
		fmt.Println(`{"ready":true,"pid":` + fmt.Sprint(os.Getpid()) + `}`)
		if mode == "dies" {
			return
		}
		select {}
	}
	goleak.VerifyTestMain(m)
}

func TestListenNamesTheTakenPortAndItsFlag(t *testing.T) {
	first, err := daemon.Listen(t.Context(), "127.0.0.1:0", "--xds-address")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	_, err = daemon.Listen(t.Context(), first.Addr().String(), "--xds-address")
	for _, want := range []string{"--xds-address", first.Addr().String(), "taken", "--free-ports"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
}

func TestLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true,
		":1": false, "0.0.0.0:1": false, "[::]:1": false, "10.0.0.1:1": false, "example.com:1": false, "": false, "127.0.0.1": false,
	} {
		if got := daemon.Loopback(address); got != want {
			t.Errorf("Loopback(%q) = %v", address, got)
		}
	}
}

func TestRunStopsAllWithTheFirstFailure(t *testing.T) {
	boom := errors.New("boom")
	stopped := false
	err := daemon.Run(t.Context(),
		daemon.RunnerFunc(func(context.Context) error { return boom }),
		daemon.RunnerFunc(func(ctx context.Context) error { <-ctx.Done(); stopped = true; return nil }),
	)
	if !errors.Is(err, boom) || !stopped {
		t.Errorf("got %v, stopped %v", err, stopped)
	}
}

func TestReadyz(t *testing.T) {
	var faults []string
	var broken error
	l, err := daemon.Listen(t.Context(), "127.0.0.1:0", "--admin-address")
	if err != nil {
		t.Fatal(err)
	}
	admin := daemon.NewAdmin(daemon.AdminConfig{
		Listener: l, Metrics: daemon.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		Readiness: func() ([]string, error) { return faults, broken },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- admin.Run(ctx) }()

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) (int, string) {
		response, err := client.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(body)
	}
	check := func(wantCode int, wantStatus string, wantFaults int) {
		t.Helper()
		code, body := get("/readyz")
		var answer struct {
			Status string
			Faults []string
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		if code != wantCode || answer.Status != wantStatus || len(answer.Faults) != wantFaults {
			t.Errorf("got %d %s", code, body)
		}
	}
	check(200, "ok", 0)
	faults = []string{"gateway.yaml:1:1: x"}
	check(200, "degraded", 1)
	broken = errors.New("no policies yet")
	check(503, "starting", 1)
	admin.Stopping()
	check(503, "stopping", 0)
	if code, body := get("/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("healthz: %d %q", code, body)
	}
	if code, body := get("/metrics"); code != 200 || !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics: %d", code)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestChild(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var line struct {
		Ready bool
		PID   int
	}
	t.Run("stops", func(t *testing.T) {
		t.Setenv("TOLLGATE_TEST_CHILD", "lives")
		child, err := daemon.StartChild(io.Discard, self)
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Ready(t.Context(), &line); err != nil || line.PID != child.PID() {
			t.Errorf("got %v, %+v", err, line)
		}
		if err := child.Stop(5 * time.Second); err != nil {
			t.Error(err)
		}
	})
	t.Run("dies first", func(t *testing.T) {
		t.Setenv("TOLLGATE_TEST_CHILD", "dies")
		child, err := daemon.StartChild(io.Discard, self)
		if err != nil {
			t.Fatal(err)
		}
		<-child.Done()
		if err := child.Stop(time.Second); err != nil {
			t.Error(err)
		}
	})
	t.Run("is not there", func(t *testing.T) {
		if _, err := daemon.StartChild(io.Discard, "/none/such"); err == nil {
			t.Error("no error")
		}
	})
}
