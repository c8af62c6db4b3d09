package routing

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"tollgate/api/contract"
	"tollgate/xds/compile/bounds"
	"tollgate/xds/compile/field"
	"tollgate/xds/compile/matching"
	"tollgate/xds/config"
)

// StreamIdle is how long a request may be silent unless its route says more;
// openIdle bounds those that have no timeout.
const (
	StreamIdle = time.Minute
	openIdle   = time.Hour
)

// variant is the part of a route whose requests share timeout and retries.
type variant struct {
	suffix  string   // of the Envoy route's name
	methods []string // empty: all that earlier variants left
	keyed   bool     // only with an Idempotency-Key
	timeout time.Duration
	retry   bool // as written; else only what cannot have reached the upstream
}

// variants splits a route by method; the last one bears its plain name.
func variants(r *config.Route) []variant {
	methods := matching.WithHead(r.Match.Methods)
	open := len(methods) == 0
	if open {
		methods = contract.Methods()
		for m := range r.Timeout.ByMethod {
			if !slices.Contains(methods, m) {
				methods = append(methods, m)
			}
		}
		slices.SortFunc(methods, matching.CompareMethods)
	}
	limited := r.Retry != nil && slices.ContainsFunc(r.Retry.RetryOn, func(w string) bool { return !unsent(w) })
	var out []variant
	for _, m := range methods {
		v := variant{suffix: "#" + strings.ToLower(m), timeout: r.Timeout.Of(m), retry: !limited || idempotent(m)}
		i := slices.IndexFunc(out, func(o variant) bool { return o.timeout == v.timeout && o.retry == v.retry })
		if i < 0 {
			i, out = len(out), append(out, v)
		}
		out[i].methods = append(out[i].methods, m)
	}
	if open {
		out = withRest(out, variant{timeout: r.Timeout.Default, retry: !limited})
	}
	out[len(out)-1].suffix = ""
	return withKeyed(out)
}

// withRest puts methods that nobody listed behind all others.
func withRest(in []variant, rest variant) []variant {
	i := slices.IndexFunc(in, func(v variant) bool { return v.timeout == rest.timeout && v.retry == rest.retry })
	if i >= 0 {
		in = slices.Delete(in, i, i+1)
	}
	return append(in, rest)
}

// withKeyed puts before each variant of limited retries one for requests that
// may be repeated because they say so.
func withKeyed(in []variant) []variant {
	var out []variant
	for _, v := range in {
		if !v.retry {
			keyed := v
			keyed.suffix, keyed.keyed, keyed.retry = v.suffix+suffixKeyed, true, true
			out = append(out, keyed)
		}
		out = append(out, v)
	}
	return out
}

func idempotent(method string) bool {
	return slices.Contains([]string{"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}, method)
}

// unsent words stand for failures before the upstream saw the request.
func unsent(word string) bool { return word == "connect-failure" || word == "refused-stream" }

// action is everything about forwarding but the cluster.
func (b *Builder) action(r *config.Route, v *variant) *routev3.RouteAction {
	out := &routev3.RouteAction{Timeout: field.Duration(v.timeout), RetryPolicy: b.retryPolicy(r, v), HashPolicy: b.hashPolicies(r.Upstream)}
	switch {
	case r.WebSocket || v.timeout == 0:
		out.IdleTimeout = field.Duration(max(openIdle, v.timeout))
	case v.timeout >= StreamIdle:
		out.IdleTimeout = field.Duration(v.timeout + time.Second)
	}
	if r.WebSocket {
		out.UpgradeConfigs = []*routev3.RouteAction_UpgradeConfig{{UpgradeType: "websocket", Enabled: field.Bool(true)}}
	}
	if bounds.Streams(r, b.upstreams) {
		out.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: field.Duration(r.MaxStream)}
	}
	if r.High {
		out.Priority = corev3.RoutingPriority_HIGH
	}
	if r.Mirror != nil {
		out.RequestMirrorPolicies = []*routev3.RouteAction_RequestMirrorPolicy{b.mirrorPolicy(r)}
	}
	if r.Rewrite != nil {
		rewrite(out, &r.Match, r.Rewrite)
	}
	return out
}

func (b *Builder) retryPolicy(r *config.Route, v *variant) *routev3.RetryPolicy {
	if r.Retry == nil || r.Retry.Attempts < 2 {
		return nil
	}
	out := &routev3.RetryPolicy{
		NumRetries:                    field.Uint(r.Retry.Attempts - 1),
		RetryBackOff:                  &routev3.RetryPolicy_RetryBackOff{BaseInterval: field.Duration(r.Retry.BackoffBase), MaxInterval: field.Duration(r.Retry.BackoffMax)},
		RetryHostPredicate:            b.otherHost,
		HostSelectionRetryMaxAttempts: 3,
	}
	var words []string
	repeatsReset := false
	for _, w := range r.Retry.RetryOn {
		if !v.retry && !unsent(w) {
			continue
		}
		if code, err := strconv.ParseUint(w, 10, 32); err == nil {
			out.RetriableStatusCodes = append(out.RetriableStatusCodes, uint32(code))
			continue
		}
		repeatsReset = repeatsReset || slices.Contains([]string{"5xx", "gateway-error", "reset"}, w)
		words = append(words, w)
	}
	if len(out.GetRetriableStatusCodes()) > 0 {
		words = append(words, "retriable-status-codes")
	}
	if len(words) == 0 {
		return nil
	}
	out.RetryOn = strings.Join(words, ",")
	if d := perTry(r, v, repeatsReset); d > 0 {
		out.PerTryTimeout = field.Duration(d)
	}
	return out
}

// perTry is the bound of one try. An unwritten one is left out where a try
// that ran out would not be repeated: it would only cut the timeout short.
func perTry(r *config.Route, v *variant, repeatsReset bool) time.Duration {
	if r.Timeout.PerTry > 0 {
		return r.Timeout.PerTry
	}
	if !repeatsReset {
		return 0
	}
	return (v.timeout - r.Retry.WorstBackoff()) / time.Duration(r.Retry.Attempts)
}

// hashPolicies are what consistent hashing of the upstream, or of any member
// of the split, looks at.
func (b *Builder) hashPolicies(name string) []*routev3.RouteAction_HashPolicy {
	u := b.upstreams[name]
	var words []string
	if u.Sticky != nil && u.Sticky.Header != "" {
		words = append(words, "header:"+u.Sticky.Header)
	}
	add := func(member *config.Upstream) {
		if w := member.Balancing.HashOn; w != "" && !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	add(u)
	for _, m := range u.Split {
		add(b.upstreams[m.Upstream])
	}
	var out []*routev3.RouteAction_HashPolicy
	for _, w := range words {
		out = append(out, hashPolicy(w))
	}
	return out
}

func hashPolicy(word string) *routev3.RouteAction_HashPolicy {
	kind, name, _ := strings.Cut(word, ":")
	switch kind {
	case "header":
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: name}}}
	case "cookie":
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Cookie_{Cookie: &routev3.RouteAction_HashPolicy_Cookie{Name: name}}}
	}
	return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_ConnectionProperties_{
		ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
	}}
}

func rewrite(out *routev3.RouteAction, m *config.Match, w *config.Rewrite) {
	switch {
	case w.Path != "" && m.Kind == config.PathTemplate && strings.Contains(w.Path, "{"):
		out.RegexRewrite = matching.FillTemplate(m.Path, w.Path)
	case w.Path != "":
		out.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{Pattern: field.Regex("^.*$"), Substitution: matching.LiteralSubstitution(w.Path)}
	case w.Prefix != "":
		out.RegexRewrite = matching.ReplacePrefix(m, w.Prefix)
	case w.Regex != nil:
		out.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{Pattern: field.Regex(w.Regex.Pattern), Substitution: w.Regex.Substitution}
	}
	if w.Host != "" {
		out.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: w.Host}
	}
}

func stickyCookie(s *config.Sticky, upstream string, secure bool) string {
	cookie := fmt.Sprintf("%s=%s; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax", s.Cookie, upstream, int64(s.TTL/time.Second))
	if secure {
		cookie += "; Secure"
	}
	return cookie
}
