package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"tollgate/api/contract"
	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
	"tollgate/internal/identity"
)

const (
	// ann of tenant A has a key, bob a token; gus and gil of tenant B likewise.
	keyOfA  = "x-api-key: {key}"
	evil    = "evil" // is in every value that a client must not get through
	lingers = 150 * time.Millisecond
)

// lair is the gateway under attack and all that watches it.
type lair struct {
	*harness.Stack
	partner   *harness.Issuer
	upstreams map[string]*harness.Upstream
	secrets   *strings.Replacer
	identity  map[string]*identity.Verifier // by audience
	strangers int                           // how many addresses were used by inputs that are refused
	self      string                        // x-forwarded-for of a client that says nothing: for loopback Envoy writes its own address
}

func newLair(t *testing.T) *lair {
	t.Helper()
	l := &lair{partner: harness.NewIssuer(t), upstreams: map[string]*harness.Upstream{}, identity: map[string]*identity.Verifier{}}
	vars := map[string]string{}
	for _, u := range harness.NewUpstreams(t, "open", "orders", "admin", "globex") {
		l.upstreams[u.Name], vars[u.Name] = u, u.Address
	}
	cert, key := harness.Certificate(t, "api.e2e.test", "admin.e2e.test")
	l.Stack = harness.NewStack(t, harness.Options{
		Gateway: attackGateway, Vars: vars, Spy: true,
		Files: map[string]string{"edge.crt": cert, "edge.key": key, "partner.json": string(l.partner.JWKS())},
		Keys: []harness.Key{
			{Name: "a", Tenant: "acme", Owner: "ann", Permissions: []string{"orders:read", "orders:write"}},
			{Name: "b", Tenant: "globex", Owner: "gus", Permissions: []string{"orders:read"}},
			{Name: "root", Tenant: "acme", Owner: "root", Permissions: []string{"admin"}},
		},
	})
	l.secrets = strings.NewReplacer(
		"{key}", l.Secrets["a"], "{keyB}", l.Secrets["b"], "{root}", l.Secrets["root"],
		"{token}", l.Issuer.Token(t, harness.Claims("acme", "bob", "orders:read")),
		"{tokenB}", l.Issuer.Token(t, harness.Claims("globex", "gil", "orders:read")),
		"{tokenP}", l.partner.Token(t, harness.With(harness.Claims("acme", "pat", "orders:read"), map[string]any{"iss": "https://partner.e2e.test"})),
	)
	private, err := identity.LoadKey(l.DataDir() + "/identity.key")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := identity.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	for name := range l.upstreams {
		if l.identity[name], err = identity.NewVerifier(signer.KeySet(), name); err != nil {
			t.Fatal(err)
		}
	}
	_, honest := l.send(t, &attack{target: "/public/x", want: refused(http.StatusOK)}, nil)
	if len(honest.reached) != 1 {
		t.Fatalf("an honest request reached %v", honest.reached)
	}
	l.self = honest.reached[0].Header.Get("X-Forwarded-For")
	return l
}

// reached is what one upstream got.
type reached struct {
	name string
	harness.Seen
}

// prove sends the input without and with a credential.
func (l *lair) prove(t *testing.T, a *attack) {
	t.Run("without a credential", func(t *testing.T) {
		_, got := l.send(t, a, nil)
		answer := got.answers[0]
		if answer.Status != a.bareStatus() {
			t.Errorf("status %d, want %d: %s", answer.Status, a.bareStatus(), answer.Body)
		}
		for _, r := range got.reached {
			if r.name != "open" {
				t.Errorf("%s %s reached %s", r.Method, r.Target, r.name)
			}
		}
		if len(got.admitted) != 0 {
			t.Errorf("ext_authz admitted %v", got.admitted)
		}
		for name, n := range got.bytes {
			if n != 0 {
				t.Errorf("%d bytes reached %s", n, name)
			}
		}
		l.wantRefusal(t, a, answer)
	})
	t.Run("with a credential", func(t *testing.T) {
		with := a.with
		if with == nil {
			with = []string{keyOfA}
		}
		sent, got := l.send(t, a, with)
		answer := got.answers[0]
		if answer.Status != a.want.status {
			t.Errorf("status %d, want %d: %s\nsent %.600q", answer.Status, a.want.status, answer.Body, sent)
		}
		if a.want.status == http.StatusOK {
			l.wantView(t, a, got)
			return
		}
		for _, r := range got.reached {
			t.Errorf("refused, yet %s %s reached %s", r.Method, r.Target, r.name)
		}
		l.wantRefusal(t, a, answer)
	})
}

// exchange is everything that one input left behind.
type exchange struct {
	answers  []traffic.Wire
	admitted []harness.Check
	reached  []reached
	bytes    map[string]int64 // to protected upstreams
}

func (l *lair) send(t *testing.T, a *attack, with []string) (string, exchange) {
	t.Helper()
	before := map[string]int64{}
	for name, u := range l.upstreams {
		before[name] = u.Bytes()
		for _, late := range u.Take() {
			t.Errorf("%s %s reached %s after its answer", late.Method, late.Target, name)
		}
	}
	if late := l.Spy.Take(); len(late) != 0 {
		t.Errorf("%d checks came after their answer: %v", len(late), late)
	}
	to := traffic.Target{Address: l.Address(t, "http"), SNI: a.sni}
	if a.want.status != http.StatusOK {
		// Who shows many bad credentials in a second is slowed down; each of these
		// is to be judged for itself.
		l.strangers++
		to.From = fmt.Sprintf("127.0.%d.%d", 1+l.strangers/250, 1+l.strangers%250)
	}
	if a.sni != "" {
		to.Address = l.Address(t, "https")
	}
	var got exchange
	var sent string
	var err error
	if a.h2 {
		fields := a.fields(l.secrets, with)
		sent = fmt.Sprint(fields)
		var answer traffic.Wire
		answer, err = to.Stream(fields)
		got.answers = []traffic.Wire{answer}
	} else {
		sent = a.request(l.secrets, with)
		linger := time.Duration(0)
		if a.raw != "" {
			linger = lingers
		}
		got.answers, err = to.Answers([]byte(sent), linger)
	}
	if err != nil {
		t.Fatalf("no answer: %v\nsent %.600q", err, sent)
	}
	if then := got.answers[1:]; a.then == 0 && len(then) != 0 || a.then != 0 && (len(then) != 1 || then[0].Status != a.then) {
		t.Errorf("behind the first answer came %v, want status %d (0: nothing)", then, a.then)
	}
	got.bytes = map[string]int64{}
	for _, check := range l.Spy.Take() {
		if check.Response.GetOkResponse() != nil {
			got.admitted = append(got.admitted, check)
		}
	}
	for name, u := range l.upstreams {
		for _, seen := range u.Take() {
			got.reached = append(got.reached, reached{name, seen})
		}
		if name != "open" {
			got.bytes[name] = u.Bytes() - before[name]
		}
	}
	return sent, got
}

// request is the input as bytes of HTTP/1.
func (a *attack) request(secrets *strings.Replacer, with []string) string {
	if a.raw != "" {
		credential := ""
		for _, line := range with {
			credential += line + "\r\n"
		}
		return secrets.Replace(strings.ReplaceAll(a.raw, "{credential}", credential))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", or(a.method, "GET"), or(a.target, "/orders/1"))
	if a.host != "-" {
		fmt.Fprintf(&b, "Host: %s\r\n", or(a.host, "api.e2e.test"))
	}
	for _, line := range slices.Concat(a.lines, with) {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\r\n")
	return secrets.Replace(b.String())
}

// fields is the input as header fields and data of HTTP/2.
func (a *attack) fields(secrets *strings.Replacer, with []string) []traffic.Frame {
	fields := slices.Clone(a.pseudo)
	if fields == nil {
		fields = []traffic.Frame{{Name: ":method", Value: or(a.method, "GET")}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: or(a.target, "/orders/1")}}
		if a.host != "-" {
			fields = append(fields, traffic.Frame{Name: ":authority", Value: or(a.host, "api.e2e.test")})
		}
	}
	for _, line := range slices.Concat(a.lines, with) {
		name, value, _ := strings.Cut(line, ": ")
		fields = append(fields, traffic.Frame{Name: name, Value: secrets.Replace(value)})
	}
	if a.body != "" {
		fields = append(fields, traffic.Frame{Value: a.body})
	}
	return fields
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// wantRefusal holds every refusal to the envelope, which echoes nothing.
func (l *lair) wantRefusal(t *testing.T, a *attack, answer traffic.Wire) {
	t.Helper()
	if answer.Status < 400 || a.method == http.MethodHead || a.method == http.MethodConnect {
		return
	}
	var e envelope
	if err := json.Unmarshal([]byte(answer.Body), &e); err != nil || e.Error.Code == "" || e.Error.Reason == "" {
		t.Errorf("not the envelope: %v in %q", err, answer.Body)
	}
	if strings.Contains(answer.Body, evil) {
		t.Errorf("the refusal echoes what was sent: %s", answer.Body)
	}
	if answer.Status == http.StatusUnauthorized && answer.Header.Get("www-authenticate") == "" {
		t.Error("401 without a challenge")
	}
}

// wantView compares what was authorised with what arrived.
func (l *lair) wantView(t *testing.T, a *attack, got exchange) {
	t.Helper()
	want := a.want
	if len(got.reached) != 1 {
		t.Fatalf("%d requests reached the upstreams, want one: %+v", len(got.reached), got.reached)
	}
	arrived := got.reached[0]
	upstream := map[string]string{"public": "open", "admin": "admin", "office": "admin", "globex": "globex"}[want.route]
	if arrived.name != or(upstream, "orders") || arrived.Target != want.path || arrived.Host != want.host {
		t.Errorf("%s saw %s on host %s, want the upstream of %s to see %s on host %s", arrived.name, arrived.Target, arrived.Host, want.route, want.path, want.host)
	}
	l.wantStripped(t, "upstream", arrived.Header)
	if want.route == "public" {
		if len(got.admitted) != 0 {
			t.Errorf("something protected was admitted: %v", got.admitted)
		}
		return
	}
	if len(got.admitted) != 1 {
		t.Fatalf("%d checks admitted something, want one: %v", len(got.admitted), got.admitted)
	}
	attributes := got.admitted[0].Request.GetAttributes()
	asked := attributes.GetRequest().GetHttp()
	if asked.GetPath() != arrived.Target || asked.GetHost() != arrived.Host || asked.GetMethod() != arrived.Method {
		t.Errorf("authorised %s %s on %s, but %s %s on %s arrived", asked.GetMethod(), asked.GetPath(), asked.GetHost(), arrived.Method, arrived.Target, arrived.Host)
	}
	if policy := attributes.GetContextExtensions()["policy"]; !strings.HasSuffix(strings.Split(policy, "@")[0], want.route) {
		t.Errorf("decided by policy %q, want that of %s", policy, want.route)
	}
	if from := attributes.GetSource().GetAddress().GetSocketAddress().GetAddress(); from != "127.0.0.1" {
		t.Errorf("the client's address was taken for %s", from)
	}
	header := headersAsked(asked)
	l.wantStripped(t, "ext_authz", header)
	wantSameHeaders(t, header, arrived.Header)
	for name, value := range a.keep {
		if seen, came := strings.Join(header.Values(name), "|"), strings.Join(arrived.Header.Values(name), "|"); seen != value || came != value {
			t.Errorf("%s: ext_authz saw %q, the upstream %q, want %q", name, seen, came, value)
		}
	}
	l.wantIdentity(t, want, got.admitted[0].Response, arrived)
}

func headersAsked(asked *authv3.AttributeContext_HttpRequest) http.Header {
	header := http.Header{}
	for _, line := range asked.GetHeaderMap().GetHeaders() {
		header.Add(line.GetKey(), string(line.GetRawValue()))
	}
	return header
}

// wantStripped fails on a header of ours or of a proxy that still says what
// the client said.
func (l *lair) wantStripped(t *testing.T, who string, header http.Header) {
	t.Helper()
	for name, values := range header {
		lower := strings.ToLower(name)
		ours := slices.ContainsFunc(contract.StrippedPrefixes(), func(p string) bool { return strings.HasPrefix(lower, p) }) ||
			slices.Contains(contract.StrippedNames(), lower)
		if ours && strings.Contains(strings.Join(values, ","), evil) {
			t.Errorf("%s saw the client's %s: %q", who, name, values)
		}
	}
	if from := strings.Join(header.Values("X-Forwarded-For"), "|"); from != l.self {
		t.Errorf("%s saw the address %q, want %q", who, from, l.self)
	}
}

// wantSameHeaders: every header that was authorised arrived, but for what a hop
// owns and the credentials.
func wantSameHeaders(t *testing.T, asked, arrived http.Header) {
	t.Helper()
	hop := []string{"Authorization", "X-Api-Key", "Host", "Transfer-Encoding", "Connection", "Te", "Trailer", "Upgrade", "Traceparent", "Tracestate", "Expect", "Cookie"}
	for name, values := range asked {
		if strings.HasPrefix(name, ":") || slices.Contains(hop, name) {
			continue
		}
		if came := arrived.Values(name); !slices.Equal(came, values) {
			t.Errorf("%s: ext_authz saw %q, the upstream %q", name, values, came)
		}
	}
}

// wantIdentity: the upstream hears of one caller, the one whom ext_authz found.
func (l *lair) wantIdentity(t *testing.T, want outcome, decided *authv3.CheckResponse, arrived reached) {
	t.Helper()
	for _, name := range []string{"Authorization", "X-Api-Key"} {
		if values := arrived.Header.Values(name); len(values) != 0 {
			t.Errorf("the upstream got the credential in %s", name)
		}
	}
	for name, value := range map[string]string{"X-Auth-Tenant": "acme", "X-Auth-User": or(want.written, want.user), "X-Auth-Kind": want.kind} {
		if came := arrived.Header.Values(name); len(came) != 1 || came[0] != value {
			t.Errorf("%s: %q, want %q once", name, came, value)
		}
	}
	metadata := decided.GetDynamicMetadata().GetFields()
	for name, value := range map[string]string{"tenant": "acme", "user": want.user, "kind": want.kind} {
		if found := metadata[name].GetStringValue(); found != value {
			t.Errorf("ext_authz decided for %s %q, want %q", name, found, value)
		}
	}
	minted := ""
	for _, h := range decided.GetOkResponse().GetHeaders() {
		if h.GetHeader().GetKey() == contract.HeaderToken {
			minted = h.GetHeader().GetValue()
		}
	}
	came := arrived.Header.Values(contract.HeaderToken)
	if len(came) != 1 || came[0] != minted {
		t.Fatalf("%d identity tokens arrived, want the one of ext_authz", len(came))
	}
	claims, err := l.identity[arrived.name].Verify(came[0], time.Now())
	if err != nil || claims.Tenant != "acme" || claims.Subject != want.user || claims.Kind != want.kind {
		t.Errorf("identity token: %+v, %v", claims, err)
	}
}
