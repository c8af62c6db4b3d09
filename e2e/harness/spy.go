package harness

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Spy stands between Envoy and an authorization server and remembers what was
// asked and answered. It changes nothing.
type Spy struct {
	Address string

	next authv3.AuthorizationClient
	mu   sync.Mutex
	seen []Check
}

// Check is one question of Envoy and its answer.
type Check struct {
	Request  *authv3.CheckRequest
	Response *authv3.CheckResponse
	Err      error
}

// NewSpy listens on a socket and asks the server behind it.
func NewSpy(t TB, address, server string) *Spy {
	t.Helper()
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatalf("spy: %v", err)
	}
	path := strings.TrimPrefix(address, "unix:")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatalf("spy: %v", err)
	}
	listener, err := net.Listen("unix", path) //nolint:noctx // immediate
	if err != nil {
		t.Fatalf("spy: %v", err)
	}
	s := &Spy{Address: address, next: authv3.NewAuthorizationClient(conn)}
	server2 := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server2, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server2.Serve(listener)
	}()
	t.Cleanup(func() {
		server2.Stop()
		<-done
		_ = conn.Close()
	})
	return s
}

// Check implements the authorization service.
func (s *Spy) Check(ctx context.Context, request *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	response, err := s.next.Check(ctx, request)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, Check{Request: request, Response: response, Err: err})
	return response, err
}

// Take returns what was seen since the last call.
func (s *Spy) Take() []Check {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}
