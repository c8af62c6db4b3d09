package user_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	userv1 "tollgate/api/user/v1"
	"tollgate/services/kit/testkit"
	"tollgate/services/user"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type instance struct {
	web, calls string
	stop       func()
}

func start(t *testing.T, dir, name string, signer *testkit.Signer, registries ...string) instance {
	t.Helper()
	web, calls := testkit.Listen(t), testkit.Listen(t)
	server, err := user.New(user.Config{
		HTTP: web, GRPC: calls, DataDir: dir, Instance: name, Audiences: []string{"orders", "users"},
		JWKS: testkit.JWKSFile(t, signer), Registry: registries, Log: testkit.Quiet(), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return instance{"http://" + web.Addr().String(), calls.Addr().String(), testkit.Start(t, server)}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) data(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, &struct{ Data any }{v}); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
}

func call(t *testing.T, method, url, token, body string) answer {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("x-auth-token", token)
	}
	req.Header.Set("Authorization", "Bearer never-shown")
	req.Header.Set("x-api-key", "never-shown")
	req.Header.Set("x-auth-tenant", "shown")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, data}
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func as(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "x-auth-token", token)
}

func TestUsers(t *testing.T) {
	t.Parallel()
	signer := testkit.NewSigner(t, "k1")
	s := start(t, t.TempDir(), "u1", signer)
	acme, other := signer.Token(t, "acme"), signer.Token(t, "other")
	created := call(t, "POST", s.web+"/api/users", acme, `{"name":"Ada","email":"Ada@example.com"}`)
	if created.status != 201 || created.header.Get("x-served-by") != "u1" {
		t.Fatalf("%d %v %s", created.status, created.header, created.body)
	}
	var ada user.User
	created.data(t, &ada)
	path := created.header.Get("Location")
	for _, tt := range []struct {
		name, method, path, token, body string
		status                          int
		contains                        string
	}{
		{"own", "GET", path, acme, "", 200, `"email":"ada@example.com"`},
		{"another tenant's", "GET", path, other, "", 404, "not_found"},
		{"own list", "GET", "/api/users", acme, "", 200, ada.ID},
		{"another tenant's list", "GET", "/api/users", other, "", 200, `"data":[]`},
		{"the same email", "POST", "/api/users", acme, `{"name":"A","email":"ada@example.com"}`, 409, "already_exists"},
		{"the same email elsewhere", "POST", "/api/users", other, `{"name":"A","email":"ada@example.com"}`, 201, "usr_"},
		{"a tenant in the body", "POST", "/api/users", other, `{"name":"A","email":"b@example.com","tenant":"acme"}`, 400, `\"tenant\" is unknown`},
		{"no name", "POST", "/api/users", acme, `{"email":"c@example.com"}`, 400, "name: must be"},
		{"a control character", "POST", "/api/users", acme, `{"name":"a\u0000","email":"c@example.com"}`, 400, "name: must be"},
		{"no email", "POST", "/api/users", acme, `{"name":"A","email":"A <c@example.com>"}`, 400, "email: must be"},
		{"injection", "GET", "/api/users/x'%20OR%20'1'='1", acme, "", 404, "not_found"},
		{"page token of nobody", "GET", "/api/users?page_token=x", acme, "", 400, "page_token"},
		{"method", "DELETE", path, acme, "", 405, "method_not_allowed"},
		{"no token", "GET", path, "", "", 401, "missing_credential"},
		{"a token of tenant none", "GET", path, signer.Token(t, "(none)"), "", 403, "unknown_tenant"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := call(t, tt.method, s.web+tt.path, tt.token, tt.body)
			if got.status != tt.status || !strings.Contains(string(got.body), tt.contains) {
				t.Errorf("%d %s, want %d %q", got.status, got.body, tt.status, tt.contains)
			}
		})
	}
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	signer := testkit.NewSigner(t, "k1")
	s := start(t, t.TempDir(), "u1", signer)
	conn := dial(t, s.calls)
	client := userv1.NewUserServiceClient(conn)
	acme := as(t.Context(), signer.Token(t, "acme"))
	var header metadata.MD
	created, err := client.CreateUser(acme, &userv1.CreateUserRequest{Name: "Ada", Email: "ada@example.com"}, grpc.Header(&header))
	if err != nil || header.Get("x-served-by")[0] != "u1" {
		t.Fatal(err, header)
	}
	id := created.GetUser().GetId()
	get := func(ctx context.Context) error {
		_, err := client.GetUser(ctx, &userv1.GetUserRequest{Id: id})
		return err
	}
	for name, tt := range map[string]struct {
		err  error
		want codes.Code
	}{
		"own":              {get(acme), codes.OK},
		"another tenant's": {get(as(t.Context(), signer.Token(t, "other"))), codes.NotFound},
		"no token":         {get(t.Context()), codes.Unauthenticated},
		"a bad token":      {get(as(t.Context(), "x")), codes.Unauthenticated},
		"two tokens":       {get(as(acme, signer.Token(t, "other"))), codes.Unauthenticated},
		"no tenant":        {get(as(t.Context(), signer.Token(t, ""))), codes.PermissionDenied},
	} {
		if status.Code(tt.err) != tt.want {
			t.Errorf("%s: %v, want %v", name, tt.err, tt.want)
		}
	}
	if _, err := client.CreateUser(acme, &userv1.CreateUserRequest{Name: "A", Email: "ada@example.com"}); status.Code(err) != codes.AlreadyExists {
		t.Error(err)
	}
	if _, err := client.CreateUser(acme, &userv1.CreateUserRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	health, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health is not open: %v %v", health, err)
	}
}

// Two instances share one file: written at either, read at both, each row once
// over all pages.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	signer, dir := testkit.NewSigner(t, "k1"), t.TempDir()
	instances := make([]instance, 2)
	for i := range instances {
		instances[i] = start(t, dir, fmt.Sprint("u", i), signer)
	}
	token := signer.Token(t, "acme")
	var wg sync.WaitGroup
	for i, s := range instances {
		for j := range 20 {
			wg.Go(func() {
				body := fmt.Sprintf(`{"name":"n","email":"u%d-%d@example.com"}`, i, j)
				if got := call(t, "POST", s.web+"/api/users", token, body); got.status != 201 {
					t.Errorf("%d %s", got.status, got.body)
				}
			})
		}
	}
	wg.Wait()
	seen := map[string]int{}
	next, pages := "", 0
	for {
		var page struct {
			Data []user.User
			Meta struct {
				NextPageToken string `json:"next_page_token"`
			}
		}
		got := call(t, "GET", instances[pages%2].web+"/api/users?page_size=7&page_token="+next, token, "")
		if err := json.Unmarshal(got.body, &page); err != nil {
			t.Fatal(err)
		}
		for _, u := range page.Data {
			seen[u.Email]++
		}
		pages++
		if next = page.Meta.NextPageToken; next == "" {
			break
		}
	}
	if len(seen) != 40 || pages != 6 {
		t.Errorf("%d users on %d pages, want 40 on 6", len(seen), pages)
	}
}

func TestWhoAmI(t *testing.T) {
	t.Parallel()
	signer := testkit.NewSigner(t, "k1")
	s := start(t, t.TempDir(), "u1", signer)
	got := call(t, "GET", s.web+"/api/users/_whoami", signer.Token(t, "acme"), "")
	var view struct {
		Service, Instance, Tenant, User, Kind, Host, Path, Method string
		Permissions                                               []string
		Headers                                                   map[string][]string
	}
	if err := json.Unmarshal(got.body, &view); err != nil {
		t.Fatal(err)
	}
	if view.Service != "user" || view.Instance != "u1" || view.Tenant != "acme" || view.User != "ada" || view.Kind != "jwt" ||
		view.Host != strings.TrimPrefix(s.web, "http://") || view.Path != "/api/users/_whoami" || view.Method != "GET" || len(view.Permissions) != 1 {
		t.Errorf("view %+v", view)
	}
	if !slices.Equal(view.Headers["x-auth-tenant"], []string{"shown"}) || view.Headers["authorization"] == nil {
		t.Errorf("headers %v", view.Headers)
	}
	if s := string(got.body); strings.Contains(s, "never-shown") || strings.Contains(s, "eyJ") {
		t.Errorf("shows a credential: %s", s)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	signer := testkit.NewSigner(t, "k1")
	s := start(t, t.TempDir(), "u1", signer)
	call(t, "GET", s.web+"/api/users/7", signer.Token(t, "acme"), "")
	got := call(t, "GET", s.web+"/metrics", "", "")
	if want := `service_requests_total{endpoint="/api/users/{id}",method="GET",service="user",status="404"} 1`; !strings.Contains(string(got.body), want) {
		t.Errorf("%s\nlacks %s", got.body, want)
	}
}

func TestRegisters(t *testing.T) {
	t.Parallel()
	signer, registry := testkit.NewSigner(t, "k1"), testkit.NewRegistry(t)
	begin := time.Now()
	s := start(t, t.TempDir(), "u1", signer, registry.URL)
	testkit.Until(t, "both doors registered", func() bool { return len(registry.Up("user")) == 1 && len(registry.Up("user-grpc")) == 1 })
	d := time.Since(begin)
	t.Logf("registered %v after the start", d)
	if d > time.Second {
		t.Errorf("registered after %v", d)
	}
	if "http://"+registry.Up("user")[0] != s.web || registry.Up("user-grpc")[0] != s.calls {
		t.Errorf("registered %v %v", registry.Up("user"), registry.Up("user-grpc"))
	}
}

func TestNewRefuses(t *testing.T) {
	good := user.Config{
		HTTP: testkit.Listen(t), GRPC: testkit.Listen(t), DataDir: t.TempDir(), Instance: "u1",
		Audiences: []string{"users"}, JWKS: "keys", Log: testkit.Quiet(),
	}
	for name, spoil := range map[string]func(*user.Config){
		"no audience":  func(c *user.Config) { c.Audiences = nil },
		"no keys":      func(c *user.Config) { c.JWKS = "" },
		"no instance":  func(c *user.Config) { c.Instance = "" },
		"no listener":  func(c *user.Config) { c.GRPC = nil },
		"bad registry": func(c *user.Config) { c.Registry = []string{"x"} },
		"no folder":    func(c *user.Config) { c.DataDir = "/dev/null/x" },
		"not a folder": func(c *user.Config) { c.DataDir = "" },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := user.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
