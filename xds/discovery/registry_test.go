package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tollgate/xds/discovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPutRefuses(t *testing.T) {
	good := discovery.Registration{Address: "10.0.0.1:80"}
	for name, c := range map[string]struct {
		service, id string
		change      func(*discovery.Registration)
		says        string
	}{
		"service":     {"../x", "1", nil, "names are letters"},
		"instance":    {"order", strings.Repeat("a", 129), nil, "names are letters"},
		"host name":   {"order", "1", func(r *discovery.Registration) { r.Address = "db:80" }, "IP address and port"},
		"port 0":      {"order", "1", func(r *discovery.Registration) { r.Address = "10.0.0.1:0" }, "IP address and port"},
		"unspecified": {"order", "1", func(r *discovery.Registration) { r.Address = "0.0.0.0:80" }, "unspecified"},
		"IPv6 zone":   {"order", "1", func(r *discovery.Registration) { r.Address = "[fe80::1%eth0]:80" }, "IP address and port"},
		"multicast":   {"order", "1", func(r *discovery.Registration) { r.Address = "224.0.0.1:80" }, "multicast"},
		"no address":  {"order", "1", func(r *discovery.Registration) { r.Address = "" }, "IP address and port"},
		"no service":  {"", "1", nil, "names are letters"},
		"dots":        {"order", "..", nil, "names are letters"},
		"not a text":  {"order", "1", func(r *discovery.Registration) { r.Zone = "\xff" }, "UTF-8"},
		"state":       {"order", "1", func(r *discovery.Registration) { r.State = "down" }, "up or draining"},
		"weight":      {"order", "1", func(r *discovery.Registration) { r.Weight = 129 }, "at most 128"},
		"zone":        {"order", "1", func(r *discovery.Registration) { r.Zone = strings.Repeat("z", 129) }, "zone"},
		"ttl":         {"order", "1", func(r *discovery.Registration) { r.TTL = 301 }, "ttl_s"},
		"ttl below 0": {"order", "1", func(r *discovery.Registration) { r.TTL = -1 }, "ttl_s"},
	} {
		t.Run(name, func(t *testing.T) {
			reg := good
			if c.change != nil {
				c.change(&reg)
			}
			if err := discovery.NewRegistry(time.Now).Put(c.service, c.id, reg); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestHeartbeatKeepsAndSilenceDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := discovery.NewRegistry(time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		put := func(state string) {
			t.Helper()
			if err := r.Put("order", "1", discovery.Registration{Address: "10.0.0.1:80", TTL: 10, State: state}); err != nil {
				t.Fatal(err)
			}
		}
		changed := func() bool {
			select {
			case <-r.Changed():
				return true
			default:
				return false
			}
		}
		put("up")
		if !changed() {
			t.Fatal("a new instance is a change")
		}
		for range 5 {
			time.Sleep(9 * time.Second)
			put("")
		}
		if changed() || len(r.Snapshot()["order"]) != 1 {
			t.Fatal("a heartbeat keeps an instance and is no change")
		}
		put("draining")
		if !changed() || !r.Snapshot()["order"][0].Draining {
			t.Fatal("draining is a change")
		}
		time.Sleep(11 * time.Second)
		if order, known := r.Snapshot()["order"]; !changed() || len(order) != 0 || !known {
			t.Fatalf("a silent instance stayed, or its service is not known any more: %v", r.Snapshot())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	})
}

func TestFull(t *testing.T) {
	r := discovery.NewRegistry(time.Now)
	for i := range 10_000 {
		if i == 2000 {
			if err := r.Put("order", "more", discovery.Registration{Address: "10.0.0.1:80"}); !errors.Is(err, discovery.ErrFull) {
				t.Fatalf("one service too many: got %v", err)
			}
		}
		service := []string{"order", "order-grpc", "a", "b", "c"}[i/2000]
		if err := r.Put(service, fmt.Sprintf("i%d", i), discovery.Registration{Address: fmt.Sprintf("10.0.0.%d:80", max(i/2000, 1))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Put("d", "more", discovery.Registration{Address: "10.0.0.9:80"}); !errors.Is(err, discovery.ErrFull) {
		t.Fatalf("got %v", err)
	}
	r.Delete("order", "i0")
	r.Delete("order", "i0")
	if err := r.Put("order", "more", discovery.Registration{Address: "10.0.0.1:80"}); err != nil {
		t.Fatal(err)
	}
}

func TestPutTakes(t *testing.T) {
	r := discovery.NewRegistry(time.Now)
	for id, address := range map[string]string{"a": "10.0.0.1:80", "b.c-d_e": "[2001:db8::1]:80", "f": "[::ffff:10.0.0.2]:80"} {
		if err := r.Put("order", id, discovery.Registration{Address: address, TTL: 300, Weight: 128, Zone: "eu/1"}); err != nil {
			t.Error(err)
		}
	}
	got := r.Snapshot()["order"]
	if len(got) != 3 || got[0].ID != "a" || got[1].ID != "b.c-d_e" || got[2].Address.String() != "10.0.0.2:80" {
		t.Fatalf("got %v", got)
	}
	if err := r.Put("order", "a", discovery.Registration{Address: "10.0.0.1:80"}); err != nil {
		t.Fatal(err)
	}
	if one := r.Snapshot()["order"][0]; one.Weight != 1 || one.Draining {
		t.Fatalf("defaults: %+v", one)
	}
}

func FuzzPut(f *testing.F) {
	f.Add("order", "1", "10.0.0.1:80", "z", "up", 10, uint32(1))
	f.Add("", "..", "[::1%lo]:0", "\xff", "x", -1, uint32(1<<31))
	f.Fuzz(func(t *testing.T, service, id, address, zone, state string, ttl int, weight uint32) {
		r := discovery.NewRegistry(time.Now)
		err := r.Put(service, id, discovery.Registration{Address: address, Zone: zone, State: state, TTL: ttl, Weight: weight})
		got := r.Snapshot()
		if err != nil && len(got) != 0 {
			t.Fatalf("refused with %v, yet kept: %v", err, got)
		}
		if err == nil && (len(got[service]) != 1 || !got[service][0].Address.IsValid()) {
			t.Fatalf("taken, yet not there: %v", got)
		}
	})
}
