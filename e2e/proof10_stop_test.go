package e2e_test

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

// TestProof10Stop: SIGTERM to a part that has a twin, and to the control
// plane, fails no request.
func TestProof10Stop(t *testing.T) {
	whole := t
	ups := harness.NewUpstreams(t, "open", "closed")
	s := harness.NewStack(t, harness.Options{
		Gateway: killGateway, ExtAuthz: 2, RateLimit: 2, Keys: []harness.Key{{Name: "key", Tenant: "acme", Permissions: []string{"*"}}},
		Vars: map[string]string{"open": ups[0].Address, "closed": ups[1].Address},
	})
	stop := func(t *testing.T, p *harness.Process) {
		t.Helper()
		load := traffic.Start(traffic.Load{Request: traffic.Request{URL: s.URL("/closed"), Header: withKey(s.Secrets["key"])}, Rate: 200, Duration: time.Minute})
		time.Sleep(300 * time.Millisecond)
		code, took := p.Terminate(t, 5*time.Second)
		if code != 0 || took > 5*time.Second {
			t.Errorf("exit %d after %s, want 0 within 5 s", code, took)
		}
		time.Sleep(700 * time.Millisecond)
		clean(t, "load", load.Stop(), okOnly)
	}
	t.Run("control plane", func(t *testing.T) {
		stop(t, s.XDS)
		s.RestartControlPlane(whole)
	})
	t.Run("one of two authorization servers", func(t *testing.T) {
		stop(t, s.ExtAuthz[0])
		s.RestartExtAuthz(whole, 0)
	})
	t.Run("one of two limiters", func(t *testing.T) { stop(t, s.RateLimit[0]) })
}

// TestProof10StopInstance: one of two instances of a service drains without a
// failed request.
func TestProof10StopInstance(t *testing.T) {
	run, _ := startRun(t, copyDemo(t), "--demo")
	load := traffic.Start(traffic.Load{
		Request: traffic.Request{URL: run.Ready.Listeners["http"] + "/api/users/_whoami", Header: withToken(run.Ready.Demo.JWT)}, Rate: 50, Duration: time.Minute,
	})
	time.Sleep(300 * time.Millisecond)
	for _, i := range run.Ready.Instances {
		if i.Service == "user" {
			if err := syscall.Kill(i.PID, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	time.Sleep(3 * time.Second)
	r := load.Stop()
	// The demo's own limit is 60 at once and ten a second: what it refuses is right.
	clean(t, "load", r, okOnly, http.StatusTooManyRequests)
	if len(r.By) != 2 {
		t.Errorf("answers by %v, want both instances before and one after", r.By)
	}
}

// TestProof10StopAll: SIGTERM to `tollgate run` finishes what was accepted,
// exits 0 and leaves nothing behind within 5 s.
func TestProof10StopAll(t *testing.T) {
	slow := harness.NewUpstream(t, "slow")
	slow.Handle(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(2 * time.Second)
		w.WriteHeader(http.StatusOK)
	})
	file := writeGateway(t, head+`
upstreams: [{name: slow, endpoints: ["`+slow.Address+`"]}]
routes: [{name: slow, match: {path: {prefix: /}}, auth: public, upstream: slow, timeout: 10s}]
`)
	run, _ := startRun(t, file)
	accepted := traffic.Start(traffic.Load{Request: traffic.Request{URL: run.Ready.Listeners["http"] + "/"}, Workers: 8, Count: 8, Timeout: 10 * time.Second})
	time.Sleep(300 * time.Millisecond)
	code, took := run.Terminate(t, 6*time.Second)
	if code != 0 || took > 5*time.Second {
		t.Errorf("exit %d after %s, want 0 within 5 s", code, took)
	}
	clean(t, "accepted before the signal", accepted.Wait(), okOnly)
	for name, pid := range run.Ready.PIDs {
		if err := syscall.Kill(pid, 0); err == nil && name != "tollgate" {
			t.Errorf("%s (pid %d) is still there", name, pid)
		}
	}
}

// TestProof10StopIdle: whom nobody asks anything ends at once; one connected
// client, though it is silent, still gets its time to hear of the end.
func TestProof10StopIdle(t *testing.T) {
	up := harness.NewUpstream(t, "up")
	file := writeGateway(t, head+`
upstreams: [{name: up, endpoints: ["`+up.Address+`"]}]
routes: [{name: up, match: {path: {prefix: /}}, auth: public, upstream: up}]
`)
	t.Run("nobody", func(t *testing.T) {
		run, _ := startRun(t, file)
		if code, took := run.Terminate(t, 6*time.Second); code != 0 || took > 1500*time.Millisecond {
			t.Errorf("exit %d after %s, want 0 within 1.5 s", code, took)
		} else {
			t.Logf("ended after %s", took)
		}
	})
	t.Run("a silent connection", func(t *testing.T) {
		run, _ := startRun(t, file)
		client := traffic.NewClient(1)
		defer client.CloseIdleConnections()
		request := traffic.Request{URL: run.Ready.Listeners["http"] + "/"}
		request.Do(t, client)
		run.Signal(t, syscall.SIGTERM)
		time.Sleep(1700 * time.Millisecond) // longer than an idle one takes to end
		if answer := request.Do(t, client); answer.Status != okOnly {
			t.Errorf("its request got %d", answer.Status)
		}
		start := time.Now()
		if code := run.Wait(t, 6*time.Second); code != 0 {
			t.Errorf("exit %d", code)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("it ended %s after its last client had left", took)
		}
	})
}
