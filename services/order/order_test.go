package order_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	orderv1 "tollgate/api/order/v1"
	"tollgate/services/kit/testkit"
	"tollgate/services/order"
	"tollgate/services/user"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shop is a user service and an order service under one gateway's keys.
type shop struct {
	signer     *testkit.Signer
	jwks       string
	dir        string
	registries []string
}

type instance struct {
	web, calls string
	stop       func()
}

func newShop(t *testing.T, registries ...string) *shop {
	t.Helper()
	s := &shop{signer: testkit.NewSigner(t, "k1"), dir: t.TempDir(), registries: registries}
	s.jwks = testkit.JWKSFile(t, s.signer)
	return s
}

func (s *shop) user(t *testing.T, name string) instance {
	t.Helper()
	web, calls := testkit.Listen(t), testkit.Listen(t)
	server, err := user.New(user.Config{
		HTTP: web, GRPC: calls, DataDir: s.dir, Instance: name, Audiences: []string{"orders", "users"},
		JWKS: s.jwks, Registry: s.registries, Log: testkit.Quiet(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return instance{"http://" + web.Addr().String(), calls.Addr().String(), testkit.Start(t, server)}
}

func (s *shop) order(t *testing.T, name string, users ...string) instance {
	t.Helper()
	web, calls := testkit.Listen(t), testkit.Listen(t)
	server, err := order.New(order.Config{
		HTTP: web, GRPC: calls, DataDir: s.dir, Instance: name, Audiences: []string{"orders"}, UserGRPC: users,
		JWKS: s.jwks, Registry: s.registries, Log: testkit.Quiet(), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return instance{"http://" + web.Addr().String(), calls.Addr().String(), testkit.Start(t, server)}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) id(t *testing.T) string {
	t.Helper()
	var v struct{ Data struct{ ID string } }
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || v.Data.ID == "" {
		t.Fatalf("%v: %d %s", err, a.status, a.body)
	}
	return v.Data.ID
}

// send makes a request on a client's own connections; header is name, value, ….
func send(client *http.Client, method, url, token, body string, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		req.Header.Set("x-auth-token", token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(data)}, err
}

func call(t *testing.T, method, url, token, body string, header ...string) answer {
	t.Helper()
	got, err := send(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, method, url, token, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func ada(t *testing.T, users instance, token string) string {
	t.Helper()
	return call(t, "POST", users.web+"/api/users", token, `{"name":"Ada","email":"ada@example.com"}`).id(t)
}

func TestOrders(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	users := s.user(t, "u1")
	orders := s.order(t, "o1", users.calls)
	acme, other := s.signer.Token(t, "acme"), s.signer.Token(t, "other")
	userID := ada(t, users, acme)
	body := func(item string) string {
		return fmt.Sprintf(`{"user_id":%q,"item":%q,"amount_cents":5}`, userID, item)
	}
	created := call(t, "POST", orders.web+"/api/orders", acme, body("book"))
	if created.status != 201 || created.header.Get("x-served-by") != "o1" || created.header.Get("Location") != "/api/orders/"+created.id(t) {
		t.Fatalf("%+v", created)
	}
	path := created.header.Get("Location")
	for _, tt := range []struct {
		name, method, path, token, body string
		status                          int
		contains                        string
	}{
		{"own", "GET", path, acme, "", 200, `"amount_cents":5`},
		{"own list", "GET", "/api/orders", acme, "", 200, created.id(t)},
		{"another tenant's", "GET", path, other, "", 404, "not_found"},
		{"another tenant's list", "GET", "/api/orders", other, "", 200, `"data":[]`},
		{"deleting another tenant's", "DELETE", path, other, "", 404, "not_found"},
		{"for another tenant's user", "POST", "/api/orders", other, body("book"), 404, "User not found"},
		{"for nobody", "POST", "/api/orders", acme, `{"user_id":"x","item":"a","amount_cents":1}`, 404, "User not found"},
		{"no user", "POST", "/api/orders", acme, `{"item":"a","amount_cents":1}`, 400, "user_id: must be"},
		{"no item", "POST", "/api/orders", acme, `{"user_id":"x","amount_cents":1}`, 400, "item: must be"},
		{"free", "POST", "/api/orders", acme, `{"user_id":"x","item":"a","amount_cents":0}`, 400, "amount_cents: must be"},
		{"negative", "POST", "/api/orders", acme, `{"user_id":"x","item":"a","amount_cents":-1}`, 400, "amount_cents: must be"},
		{"a tenant in the body", "POST", "/api/orders", acme, `{"user_id":"x","item":"a","amount_cents":1,"tenant":"other"}`, 400, `\"tenant\" is unknown`},
		{"not JSON", "POST", "/api/orders", acme, `user_id=x`, 400, "bad_request"},
		{"too large", "POST", "/api/orders", acme, body(strings.Repeat("x", 70<<10)), 413, "payload_too_large"},
		{"no token", "POST", "/api/orders", "", body("book"), 401, "missing_credential"},
		{"a token for users only", "GET", path, s.signer.Sign(t, func() map[string]any { c := testkit.Claims("acme"); c["aud"] = []string{"users"}; return c }(), nil), "", 401, "invalid_token"},
		{"deleting", "DELETE", path, acme, "", 204, ""},
		{"deleting again", "DELETE", path, acme, "", 404, "not_found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := call(t, tt.method, orders.web+tt.path, tt.token, tt.body)
			if got.status != tt.status || !strings.Contains(got.body, tt.contains) {
				t.Errorf("%d %s, want %d %q", got.status, got.body, tt.status, tt.contains)
			}
		})
	}
}

// A creation that is repeated, at either instance and at once, is stored once.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	users := s.user(t, "u1")
	instances := []instance{s.order(t, "o1", users.calls), s.order(t, "o2", users.calls)}
	acme, other := s.signer.Token(t, "acme"), s.signer.Token(t, "other")
	userID := ada(t, users, acme)
	body := fmt.Sprintf(`{"user_id":%q,"item":"book","amount_cents":5}`, userID)
	ids := make([]string, 10)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			ids[i] = call(t, "POST", instances[i%2].web+"/api/orders", acme, body, "Idempotency-Key", "k").id(t)
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("ids %v", ids)
		}
	}
	changed := strings.Replace(body, "book", "pen", 1)
	if got := call(t, "POST", instances[0].web+"/api/orders", acme, changed, "Idempotency-Key", "k"); got.status != 409 || !strings.Contains(got.body, "idempotency_key_reused") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := call(t, "POST", instances[0].web+"/api/orders", acme, body, "Idempotency-Key", "k", "Idempotency-Key", "l"); got.status != 400 {
		t.Errorf("two keys: %d", got.status)
	}
	if got := call(t, "POST", instances[0].web+"/api/orders", acme, body, "Idempotency-Key", strings.Repeat("k", 256)); got.status != 400 {
		t.Errorf("a long key: %d", got.status)
	}
	theirs := strings.Replace(body, userID, ada(t, users, other), 1)
	if got := call(t, "POST", instances[0].web+"/api/orders", other, theirs, "Idempotency-Key", "k"); got.status != 201 {
		t.Errorf("another tenant's key of that name: %d %s", got.status, got.body)
	}
}

// One user instance down: no order fails. Both down: a clear 503 for each
// order, before and after the breaker opens, and reading goes on.
func TestUserServiceDown(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	one, two := s.user(t, "u1"), s.user(t, "u2")
	orders := s.order(t, "o1", one.calls, two.calls)
	acme := s.signer.Token(t, "acme")
	body := fmt.Sprintf(`{"user_id":%q,"item":"book","amount_cents":5}`, ada(t, one, acme))
	create := func() answer { return call(t, "POST", orders.web+"/api/orders", acme, body) }
	for range 4 {
		if got := create(); got.status != 201 {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	one.stop()
	for range 10 {
		if got := create(); got.status != 201 {
			t.Fatalf("with one of two: %d %s", got.status, got.body)
		}
	}
	two.stop()
	for range 15 {
		got := create()
		if got.status != 503 || !strings.Contains(got.body, "upstream_unavailable") || got.header.Get("Retry-After") == "" {
			t.Fatalf("with none: %d %s", got.status, got.body)
		}
	}
	if got := call(t, "GET", orders.web+"/api/orders", acme, ""); got.status != 200 {
		t.Errorf("reading does not need users: %d", got.status)
	}
}

// A user service that takes calls and never answers costs an order a second,
// not its whole budget.
func TestUserServiceHangs(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	hung := testkit.Listen(t) // accepts, in the kernel, and says nothing
	orders := s.order(t, "o1", hung.Addr().String())
	begin := time.Now()
	got := call(t, "POST", orders.web+"/api/orders", s.signer.Token(t, "acme"), `{"user_id":"x","item":"a","amount_cents":1}`)
	if got.status != 504 && got.status != 503 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if d := time.Since(begin); d > 1500*time.Millisecond {
		t.Errorf("took %v", d)
	}
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	users := s.user(t, "u1")
	orders := s.order(t, "o1", users.calls)
	conn, err := grpc.NewClient(orders.calls, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := orderv1.NewOrderServiceClient(conn)
	token := s.signer.Token(t, "acme")
	userID := ada(t, users, token)
	acme := metadata.AppendToOutgoingContext(t.Context(), "x-auth-token", token)
	other := metadata.AppendToOutgoingContext(t.Context(), "x-auth-token", s.signer.Token(t, "other"))
	var ids []string
	for range 3 {
		created, err := client.CreateOrder(acme, &orderv1.CreateOrderRequest{UserId: userID, Item: "book", AmountCents: 5})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, created.GetOrder().GetId())
	}
	page, err := client.ListOrders(acme, &orderv1.ListOrdersRequest{PageSize: 2})
	if err != nil || len(page.GetOrders()) != 2 || page.GetOrders()[0].GetId() != ids[0] {
		t.Fatal(page, err)
	}
	rest, err := client.ListOrders(acme, &orderv1.ListOrdersRequest{PageToken: page.GetNextPageToken()})
	if err != nil || len(rest.GetOrders()) != 1 || rest.GetNextPageToken() != "" {
		t.Fatal(rest, err)
	}
	get := func(ctx context.Context) error {
		_, err := client.GetOrder(ctx, &orderv1.GetOrderRequest{Id: ids[0]})
		return err
	}
	create := func(ctx context.Context, r *orderv1.CreateOrderRequest) error {
		_, err := client.CreateOrder(ctx, r)
		return err
	}
	for name, tt := range map[string]struct {
		err  error
		want codes.Code
	}{
		"own":              {get(acme), codes.OK},
		"another tenant's": {get(other), codes.NotFound},
		"no token":         {get(t.Context()), codes.Unauthenticated},
		"no item":          {create(acme, &orderv1.CreateOrderRequest{UserId: userID, AmountCents: 5}), codes.InvalidArgument},
		"no such user":     {create(other, &orderv1.CreateOrderRequest{UserId: userID, Item: "x", AmountCents: 5}), codes.NotFound},
	} {
		if status.Code(tt.err) != tt.want {
			t.Errorf("%s: %v, want %v", name, tt.err, tt.want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	s := newShop(t)
	for name, users := range map[string][]string{"no peer": nil, "a peer without a port": {"127.0.0.1"}} {
		_, err := order.New(order.Config{
			HTTP: testkit.Listen(t), GRPC: testkit.Listen(t), DataDir: s.dir, Instance: "o1",
			Audiences: []string{"orders"}, JWKS: s.jwks, UserGRPC: users, Log: testkit.Quiet(),
		})
		if err == nil || !strings.Contains(err.Error(), "host:port") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
