package e2e_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

const hoardGateway = `version: 1
listeners:
  - {name: http, address: "${http}"}
  - {name: six, address: "${six}"}
defaults: {auth: public, timeout: 10s}
upstreams:
  - {name: fast, endpoints: ["${fast}"]}
  - {name: slow, endpoints: ["${slow}"]}
routes:
  - {name: slow, match: {path: {prefix: /slow}}, upstream: slow}
  - {name: fast, match: {path: {prefix: /}}, upstream: fast}
`

// stone accepts connections and reads nothing.
func stone(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var held []net.Conn
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			// Little waits in the kernel: it has to wait in the proxy.
			_ = c.(*net.TCPConn).SetReadBuffer(4096)
			mu.Lock()
			held = append(held, c)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range held {
			_ = c.Close()
		}
	})
	return l.Addr().String()
}

// resident is a process's memory in bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// TestBodiesWithoutEnd: one client, 500 connections, bodies without an end for
// an upstream that takes nothing. Others are served, and the proxy stays small.
func TestBodiesWithoutEnd(t *testing.T) {
	fast := harness.NewUpstream(t, "fast")
	s := harness.NewStack(t, harness.Options{
		Gateway: hoardGateway, Workers: 2, Vars: map[string]string{"fast": fast.Address, "slow": stone(t), "six": free6(t)},
	})
	harness.AwaitListening(t, s.Expand(t, "${six}"))
	for family, address := range map[string]string{"IPv4": s.Address(t, "http"), "IPv6": s.Expand(t, "${six}")} {
		t.Run(family, func(t *testing.T) {
			honest := traffic.Start(traffic.Load{Request: traffic.Request{URL: "http://" + address + "/x"}, Rate: 50, Duration: time.Minute, Timeout: 15 * time.Second})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			attack := &traffic.Hoard{Address: address, Path: "/slow", Connections: 500, Streams: 3}
			attack.Start(ctx)
			var most, alive int64
			for end := time.Now().Add(6 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				most, alive = max(most, resident(t, s.Envoy.PID())), max(alive, attack.Alive())
			}
			cancel()
			attack.Wait()
			clean(t, "honest", honest.Stop(), okOnly)
			t.Log(s.Envoy.Stats(t, `^cluster\.fast\.(upstream_cx_connect_(fail|timeout)|upstream_rq_(pending_overflow|timeout|5xx))$`))
			cpu, _ := harness.CPU(s.Envoy.PID())
			t.Logf("%d connections sent %d MB; the proxy held %d MB at most; CPU %s", alive, attack.Sent()>>20, most>>20, cpu)
			if alive < 500 || attack.Sent() < 50<<20 {
				t.Errorf("the attack was none: %d connections, %d bytes", alive, attack.Sent())
			}
			if most > 512<<20 {
				t.Errorf("the proxy held %d MB, want at most 512", most>>20)
			}
			harness.Eventually(t, 20*time.Second, "the memory is free again", func() error {
				if n := s.Envoy.Stats(t, `^server\.memory_allocated$`)["server.memory_allocated"]; n > 100<<20 {
					return fmt.Errorf("%d MB", n>>20)
				}
				return nil
			})
		})
	}
}
