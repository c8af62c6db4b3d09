package rls_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"tollgate/ratelimit/rls"
	"tollgate/ratelimit/store"
	"tollgate/ratelimit/store/redistest"
)

// serverEnv turns the test binary into a server: "canned/4", "memory/1",
// "redis/1"; redisEnv is the URL for the last.
const (
	serverEnv = "RLS_TEST_SERVER"
	redisEnv  = "RLS_TEST_REDIS"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(serverEnv); role != "" {
		runServer(role)
		return
	}
	goleak.VerifyTestMain(m)
}

// canned answers the same bytes without deciding anything: what grpc-go and
// the messages themselves cost.
type canned struct {
	rlsv3.UnimplementedRateLimitServiceServer
	answer *rlsv3.RateLimitResponse
}

func (c canned) ShouldRateLimit(context.Context, *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	return c.answer, nil
}

// runServer serves until its standard input ends.
func runServer(role string) {
	t := &testing.T{}
	kind, n, _ := strings.Cut(role, "/")
	var counters rls.Store = store.NewMemory(0)
	if kind == "redis" {
		redis, err := store.NewRedis(store.RedisConfig{URL: os.Getenv(redisEnv), OpTimeout: time.Second})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		counters = store.NewFailover(store.FailoverConfig{Primary: redis, Local: store.NewMemory(0), Timeout: time.Second, Log: discard()})
	}
	s, _ := service(t, counters, benchRules()...)
	var impl rlsv3.RateLimitServiceServer = s
	if kind == "canned" {
		impl = canned{answer: ask(t, s, benchRequest(int(n[0]-'0')))}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	server := grpc.NewServer()
	rlsv3.RegisterRateLimitServiceServer(server, impl)
	go func() { _ = server.Serve(l) }()
	fmt.Println(l.Addr())
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	server.Stop()
}

// contestant is a server process and its clients.
type contestant struct {
	cmd     *exec.Cmd
	clients []rlsv3.RateLimitServiceClient
}

func start(b *testing.B, role string) contestant {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverEnv+"="+role, "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	c := contestant{cmd: cmd}
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	var conns []*grpc.ClientConn
	for range 4 {
		conn, err := grpc.NewClient(strings.TrimSpace(address), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		conns = append(conns, conn)
		c.clients = append(c.clients, rlsv3.NewRateLimitServiceClient(conn))
	}
	b.Cleanup(func() {
		for _, conn := range conns {
			conn.Close()
		}
		stdin.Close()
		_ = cmd.Wait()
	})
	return c
}

// cpu is the processor time of a process so far, to the nanosecond.
func (c contestant) cpu(b *testing.B) time.Duration {
	b.Helper()
	// The clock id of another process's CPU time: ~pid << 3 | CPUCLOCK_SCHED.
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^c.cmd.Process.Pid<<3|2), &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// round returns the CPU time of one request.
func (c contestant) round(b *testing.B, req *rlsv3.RateLimitRequest) float64 {
	b.Helper()
	const callers, each = 64, 250
	before := c.cpu(b)
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for range each {
				if _, err := c.clients[caller%len(c.clients)].ShouldRateLimit(context.Background(), req); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return float64((c.cpu(b) - before).Nanoseconds()) / (callers * each)
}

// BenchmarkCPU compares a deciding server with one that answers the same bytes
// at once: rounds of 16,000 requests in turn, medians of the CPU time of the
// server process alone. Run it with -benchtime=15x.
func BenchmarkCPU(b *testing.B) {
	b.Setenv(redisEnv, redistest.Start(b).URL)
	for _, kind := range []string{"memory", "redis"} {
		for _, n := range []int{1, 4} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				req := benchRequest(n)
				empty, decided := start(b, fmt.Sprintf("canned/%d", n)), start(b, fmt.Sprintf("%s/%d", kind, n))
				empty.round(b, req)
				decided.round(b, req)
				var e, d []float64
				for b.Loop() {
					e = append(e, empty.round(b, req))
					d = append(d, decided.round(b, req))
				}
				slices.Sort(e)
				slices.Sort(d)
				b.ReportMetric(e[len(e)/2]/1000, "us-empty")
				b.ReportMetric(d[len(d)/2]/1000, "us-decided")
				b.ReportMetric(d[len(d)/2]/e[len(e)/2], "ratio")
			})
		}
	}
}
