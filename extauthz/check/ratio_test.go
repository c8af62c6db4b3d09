package check_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// fixed is the floor: a handler that decides nothing.
type fixed struct {
	authv3.UnimplementedAuthorizationServer
	answer *authv3.CheckResponse
}

func (f fixed) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return f.answer, nil
}

const childVariable = "TOLLGATE_CHECK_BENCH_SERVER"

// TestMain also is the server process of BenchmarkRatio, whose CPU must not be
// mixed with the client's.
func TestMain(m *testing.M) {
	kind := os.Getenv(childVariable)
	if kind == "" {
		m.Run()
		return
	}
	if err := serveChild(kind); err != nil {
		fmt.Fprintln(os.Stderr, err) // the parent misses its first line
	}
}

// serveChild prints its address and a credential, then serves until killed.
func serveChild(kind string) error {
	g := newGate(&testing.B{}, discard{})
	r := request("orders@1", "GET", "/api/orders/7?x=1", "x-api-key", g.key)
	header, value := "x-api-key", g.key
	if strings.HasSuffix(kind, "jwt") {
		header, value = "authorization", "Bearer "+g.token(&testing.B{}, nil)
		r = request("ruled@1", "GET", "/api/orders/7?x=1", header, value)
	}
	var impl authv3.AuthorizationServer = g.Server
	if strings.HasPrefix(kind, "empty") {
		impl = fixed{answer: g.At(context.Background(), r, time.Now())}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, impl)
	fmt.Printf("%s\t%s\t%s\n", l.Addr(), header, value)
	return s.Serve(l)
}

type child struct {
	client  authv3.AuthorizationClient
	request *authv3.CheckRequest
	pid     int
}

func spawn(b *testing.B, kind string) *child {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childVariable+"="+kind, "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	parts := strings.Split(strings.TrimSpace(line), "\t")
	conn, err := grpc.NewClient(parts[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	name := "orders@1"
	if strings.HasSuffix(kind, "jwt") {
		name = "ruled@1"
	}
	return &child{client: authv3.NewAuthorizationClient(conn), pid: cmd.Process.Pid, request: request(name, "GET", "/api/orders/7?x=1", parts[1], parts[2])}
}

// cpu is the time the process has used.
func (c *child) cpu(b *testing.B) time.Duration {
	b.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", c.pid))
	if err != nil || len(threads) == 0 {
		b.Fatal("no schedstat here", err)
	}
	total := uint64(0)
	for _, t := range threads {
		data, err := os.ReadFile(t)
		if err != nil {
			continue // the thread ended
		}
		n, _ := strconv.ParseUint(strings.Fields(string(data))[0], 10, 64)
		total += n
	}
	return time.Duration(total)
}

func (c *child) load(b *testing.B, calls int) {
	b.Helper()
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			for range calls / 16 {
				r, err := c.client.Check(b.Context(), c.request)
				if err != nil || r.GetOkResponse() == nil {
					b.Error(err, r)
					return
				}
			}
		})
	}
	wait.Wait()
}

// BenchmarkRatio gives the server's CPU per check as a multiple of an empty
// handler that answers the same bytes; the two take turns.
func BenchmarkRatio(b *testing.B) {
	for _, credential := range []string{"key", "jwt"} {
		b.Run(credential, func(b *testing.B) {
			const calls, rounds = 8000, 7
			ours, empty := spawn(b, "ours-"+credential), spawn(b, "empty-"+credential)
			ours.load(b, calls)
			empty.load(b, calls)
			for b.Loop() {
				var ratios []float64
				var per [2]time.Duration
				for range rounds {
					var used [2]time.Duration
					for i, c := range []*child{ours, empty} {
						before := c.cpu(b)
						c.load(b, calls)
						used[i] = c.cpu(b) - before
						per[i] += used[i] / calls / rounds
					}
					ratios = append(ratios, float64(used[0])/float64(used[1]))
				}
				slices.Sort(ratios)
				b.ReportMetric(ratios[rounds/2], "ratio")
				b.ReportMetric(float64(per[0].Nanoseconds()), "cpu-ns/check")
				b.ReportMetric(float64(per[1].Nanoseconds()), "cpu-ns/empty")
			}
		})
	}
}
