package order_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tollgate/services/kit/testkit"
)

// Instances of both services leave one after the other under load; a client
// that, as a proxy does, sends to what the registry names over kept
// connections loses nothing, and no order is lost or stored twice. On a machine
// without time to spare a call may miss its deadline; it says so, after it.
func TestDrainUnderLoad(t *testing.T) {
	t.Parallel()
	registry := testkit.NewRegistry(t)
	s := newShop(t, registry.URL)
	u1, u2 := s.user(t, "u1"), s.user(t, "u2")
	o1, o2 := s.order(t, "o1", u1.calls, u2.calls), s.order(t, "o2", u1.calls, u2.calls)
	testkit.Until(t, "all registered", func() bool {
		return len(registry.Up("order"))+len(registry.Up("order-grpc"))+len(registry.Up("user"))+len(registry.Up("user-grpc")) == 8
	})
	acme := s.signer.Token(t, "acme")
	body := fmt.Sprintf(`{"user_id":%q,"item":"book","amount_cents":5}`, ada(t, u1, acme))

	const deadline = 300 * time.Millisecond // of one attempt to ask for a user
	var sent, failed, late atomic.Int32
	served := sync.Map{}
	stop := make(chan struct{})
	var load sync.WaitGroup
	for worker := range 4 {
		load.Go(func() {
			// One that is shared opens connections to spare, on which a server that
			// ends waits for a first request.
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for i := worker; ; i++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				up := registry.Up("order")
				sent.Add(1)
				if len(up) == 0 {
					failed.Add(1)
					t.Error("nobody is registered")
					continue
				}
				asked := time.Now()
				got, err := send(client, "POST", "http://"+up[i%len(up)]+"/api/orders", acme, body)
				if err == nil && got.status == http.StatusGatewayTimeout && time.Since(asked) >= deadline {
					late.Add(1)
					continue
				}
				if err != nil || got.status != http.StatusCreated {
					failed.Add(1)
					t.Errorf("%v: %d %s", err, got.status, got.body)
					continue
				}
				served.Store(got.header.Get("x-served-by"), true)
			}
		})
	}
	time.Sleep(500 * time.Millisecond)
	for _, leaver := range []instance{o1, u2} {
		begin := time.Now()
		leaver.stop()
		if d := time.Since(begin); d < 900*time.Millisecond || d > 4*time.Second {
			t.Errorf("left after %v, want about a second", d)
		}
		time.Sleep(300 * time.Millisecond)
	}
	for wait := time.Now(); sent.Load() < 100 && time.Since(wait) < 20*time.Second; {
		time.Sleep(10 * time.Millisecond)
	}
	close(stop)
	load.Wait()
	if up := registry.Up("order"); len(up) != 1 || "http://"+up[0] != o2.web {
		t.Errorf("still registered: %v", up)
	}
	for _, name := range []string{"o1", "o2"} {
		if _, ok := served.Load(name); !ok {
			t.Errorf("%s served nothing", name)
		}
	}
	stored := 0
	for token, more := "", true; more; {
		got := call(t, "GET", o2.web+"/api/orders?page_size=100&page_token="+token, acme, "")
		stored += strings.Count(got.body, `"ord_`)
		_, token, more = strings.Cut(got.body, `"next_page_token":"`)
		token, _, _ = strings.Cut(token, `"`)
	}
	t.Logf("%d sent, %d failed, %d late, %d stored", sent.Load(), failed.Load(), late.Load(), stored)
	if stored != int(sent.Load()-late.Load()) || sent.Load() < 100 || late.Load() > sent.Load()/10 {
		t.Errorf("%d sent, %d late, %d stored", sent.Load(), late.Load(), stored)
	}
}
