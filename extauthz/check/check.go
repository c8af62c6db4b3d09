// Package check is the door that Envoy knocks at: it turns a CheckRequest into
// a policy.Request and the decision into a CheckResponse. Invariant: a request
// passes only by a decision that admits; whatever is missing, unknown or broken
// here is a 503, never a pass and never blamed on the caller.
package check

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"tollgate/api/contract"
	"tollgate/extauthz/credential"
	"tollgate/extauthz/policy"
	"tollgate/internal/clientrate"
	"tollgate/internal/envelope"
	"tollgate/internal/identity"
)

const (
	maxAnswers  = 50_000
	tokenReuse  = identity.Lifetime / 2
	notReady    = "The gateway is not ready to decide, try again"
	ambiguous   = "The request is ambiguous: "
	jsonContent = "application/json"
)

// Snapshot is everything a decision depends on, immutable; Server.Use swaps it
// whole, so that no request is decided by a mixture.
type Snapshot struct {
	Policies    map[string]*policy.Policy
	Tenants     policy.Tenants
	Credentials *credential.Verifier
	KeyHeader   string // lower case; "" when there are no keys
}

// Recorder counts decisions.
type Recorder interface {
	Decided(d *policy.Decision, policy string, took time.Duration)
}

// Server answers Envoy's checks.
type Server struct {
	authv3.UnimplementedAuthorizationServer

	signer   *identity.Signer
	log      *slog.Logger
	record   Recorder
	snapshot atomic.Pointer[Snapshot]
	answers  *credential.Cache[answerKey, *readyAnswer]
	denials  clientrate.Sampler // of the log
	failures clientrate.Counter // bad credentials
}

// answerKey names a response that can be given again: everything in it follows
// from these, pointers being to immutable values. Another policy or credential
// is another pointer, so an edit elsewhere leaves the answer ready.
type answerKey struct {
	policy    *policy.Policy
	caller    *policy.Caller
	plan      string
	rule      string
	keyHeader string
}

type readyAnswer struct {
	response *authv3.CheckResponse
	until    time.Time
}

// New returns a server that answers 503 until Use.
func New(signer *identity.Signer, log *slog.Logger, record Recorder) *Server {
	return &Server{signer: signer, log: log, record: record, answers: credential.NewCache[answerKey, *readyAnswer](maxAnswers)}
}

// Use decides by s from now on.
func (s *Server) Use(next *Snapshot) { s.snapshot.Store(next) }

// Check decides one request.
func (s *Server) Check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return s.At(ctx, r, time.Now()), nil
}

// At decides at a given time.
func (s *Server) At(ctx context.Context, r *authv3.CheckRequest, now time.Time) (out *authv3.CheckResponse) {
	c := call{server: s, now: now, snapshot: s.snapshot.Load(), name: r.GetAttributes().GetContextExtensions()[contract.KeyPolicy]}
	defer func() {
		if cause := recover(); cause != nil {
			// Only its type: the cause itself may quote the request.
			s.log.Error("check panicked", "component", "extauthz", "resource", c.name, "err", fmt.Sprintf("%T", cause), "stack", string(debug.Stack()))
			body := envelope.JSON(http.StatusServiceUnavailable, string(policy.PolicyNotReady), notReady, inquire(c.http).requestID, now)
			out = respond(&answer{body: string(body), set: []header{{"content-type", jsonContent}}})
		}
	}()
	return c.decide(ctx, r)
}

// call is one check under way.
type call struct {
	server   *Server
	now      time.Time
	snapshot *Snapshot
	name     string // of the policy, as sent
	policy   *policy.Policy
	seen     seen
	http     *authv3.AttributeContext_HttpRequest
	client   string // its address
}

func (c *call) decide(ctx context.Context, r *authv3.CheckRequest) *authv3.CheckResponse {
	keyHeader := ""
	if c.snapshot != nil {
		keyHeader = c.snapshot.KeyHeader
		c.policy = c.snapshot.Policies[c.name]
	}
	c.http = r.GetAttributes().GetRequest().GetHttp()
	c.client = r.GetAttributes().GetSource().GetAddress().GetSocketAddress().GetAddress()
	c.seen = scan(c.http, keyHeader)
	if c.policy == nil || c.http == nil {
		return c.refuse(&policy.Decision{Reason: policy.PolicyNotReady}, notReady)
	}
	request, fault := read(r, &c.seen, c.policy.Looks, c.now)
	if fault != "" {
		return c.refuse(&policy.Decision{Reason: policy.BadRequest}, ambiguous+fault)
	}
	d := c.policy.Decide(ctx, &request, c.snapshot.Tenants, c.snapshot.Credentials)
	if d.Reason == policy.IssuerUnavailable {
		// Its key may be one of this moment: a rotation must log nobody out.
		if d.Reason = c.snapshot.Credentials.Await(ctx, c.policy.Issuers(), request.Token, c.now); d.Reason == "" {
			d = c.policy.Decide(ctx, &request, c.snapshot.Tenants, c.snapshot.Credentials)
		}
	}
	if !d.Allow {
		return c.refuse(&d, message(d.Reason))
	}
	out := c.admit(&d)
	if out == nil {
		return c.refuse(&policy.Decision{Reason: policy.PolicyNotReady}, notReady)
	}
	c.server.record.Decided(&d, c.name, time.Since(c.now))
	return out
}

// admit returns the response with the identity of the caller, nil if none can be made.
func (c *call) admit(d *policy.Decision) *authv3.CheckResponse {
	key := answerKey{c.policy, d.Caller, d.Plan, d.Rule, c.snapshot.KeyHeader}
	if ready, ok := c.server.answers.Get(key); ok && c.now.Before(ready.until) {
		return c.bounded(ready.response, d)
	}
	a := answer{allow: true, metadata: c.metadata(d)}
	if !c.policy.Forward {
		a.remove = append(a.remove, "authorization")
		if c.snapshot.KeyHeader != "" {
			a.remove = append(a.remove, c.snapshot.KeyHeader)
		}
	}
	if d.Caller != nil && !c.introduce(&a, d.Caller) {
		return nil
	}
	response := respond(&a)
	c.server.answers.Put(key, &readyAnswer{response: response, until: c.now.Add(tokenReuse)})
	return c.bounded(response, d)
}

// introduce tells the upstream who calls, and a mirror, whose token nobody else
// may take, in metadata that only the route's mirror policy reads.
func (c *call) introduce(a *answer, caller *policy.Caller) bool {
	token, ok := c.mint(caller, c.policy.Audiences...)
	if !ok {
		return false
	}
	a.set = append(a.set, header{contract.HeaderToken, token}, header{contract.HeaderUser, caller.User}, header{contract.HeaderKind, caller.Kind})
	if caller.Tenant != "" {
		a.set = append(a.set, header{contract.HeaderTenant, caller.Tenant})
	}
	if c.policy.Mirror == "" {
		return true
	}
	token, ok = c.mint(caller, c.policy.Mirror)
	a.metadata = append(a.metadata, header{contract.KeyMirrorToken, token})
	return ok
}

func (c *call) mint(caller *policy.Caller, audiences ...string) (string, bool) {
	token, err := c.server.signer.Mint(identity.Claims{
		Subject: caller.User, Tenant: caller.Tenant, Kind: caller.Kind, Permissions: caller.Permissions, Audiences: audiences,
	}, c.now)
	if err != nil {
		c.server.log.Error("identity token cannot be made", "component", "extauthz", "resource", c.name, "err", err)
	}
	return token, err == nil
}

// bounded ends a request that could outlive its credential together with it.
func (c *call) bounded(ready *authv3.CheckResponse, d *policy.Decision) *authv3.CheckResponse {
	if !c.policy.Streams || d.Until.IsZero() {
		return ready
	}
	return endingIn(ready, d.Until.Sub(c.now))
}

// metadata is what limits count by and logs show: always there, always strings.
func (c *call) metadata(d *policy.Decision) []header {
	caller := d.Caller
	if caller == nil {
		caller = &policy.Caller{}
	}
	name := c.name
	if c.policy == nil {
		name = "" // whatever the request named, it is no policy of ours
	}
	out := []header{
		{contract.KeyTenant, orNone(caller.Tenant)},
		{contract.KeyUser, orNone(caller.User)},
		{contract.KeyPlan, orNone(d.Plan)},
		{contract.KeyKind, orNone(caller.Kind)},
		{contract.KeyCredential, orNone(caller.Credential)},
		{contract.KeyCost, "1"},
		{contract.KeyPolicy, orNone(name)},
		{contract.KeyRule, orNone(d.Rule)},
	}
	if d.Reason != "" {
		out = append(out, header{contract.KeyReason, string(d.Reason)})
	}
	if c.policy != nil {
		for _, claim := range c.policy.LimitClaims {
			out = append(out, header{"claim:" + claim, orNone(claimText(caller.Claims[claim]))})
		}
	}
	return out
}

// orNone marks what is missing. A value that looks like the mark is quoted, so
// that nobody shares a counter with those who have none.
func orNone(s string) string {
	switch s {
	case "":
		return contract.None
	case contract.None:
		return strconv.Quote(contract.None)
	}
	return s
}

func (c *call) refuse(d *policy.Decision, text string) *authv3.CheckResponse {
	if c.guessing(d) {
		d = &policy.Decision{Reason: policy.TooManyFailures}
		text = message(d.Reason)
	}
	status, client := d.Reason.Status(), inquire(c.http)
	a := answer{status: status, metadata: c.metadata(d)}
	if strings.HasPrefix(client.contentType, "application/grpc") {
		a.body = string(d.Reason) + ": " + text // becomes grpc-message
	} else {
		a.body = string(envelope.JSON(status, string(d.Reason), text, client.requestID, c.now))
		a.set = append(a.set, header{"content-type", jsonContent})
	}
	switch status {
	case http.StatusTooManyRequests:
		a.set = append(a.set, header{"retry-after", "1"})
	case http.StatusUnauthorized:
		a.set = append(a.set, c.challenges(d.Reason)...)
	}
	c.server.record.Decided(d, c.name, time.Since(c.now))
	c.logRefusal(d, client.requestID)
	return respond(&a)
}

func (c *call) challenges(reason policy.Reason) []header {
	var out []header
	jwt, key := c.policy.Takes()
	if jwt {
		challenge := `Bearer realm="tollgate"`
		if reason == policy.InvalidToken || reason == policy.ExpiredToken {
			challenge += `, error="invalid_token"`
		}
		out = append(out, header{"www-authenticate", challenge})
	}
	if key {
		out = append(out, header{"www-authenticate", `ApiKey realm="tollgate"`})
	}
	return out
}
