package check

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/paths"
	"tollgate/xds/config/syntax"
)

var (
	originForm = regexp.MustCompile(`^https?://(\*\.)?[A-Za-z0-9.-]+(:[0-9]+)?$`)
	groupForm  = regexp.MustCompile(`\\([0-9]+)`)
	statusForm = regexp.MustCompile(`^[45][0-9][0-9]$`)
)

func retryWords() []string {
	return []string{
		"5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "refused-stream", "retriable-4xx",
		"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
	}
}

// maxCondition bounds what a query parameter is compared with, in bytes: Envoy
// looks for every spelling of each, by a regular expression of bounded size.
const maxCondition = 256

// match checks hosts, methods and conditions.
func (c *Checker) match(s *syntax.Match, path string) {
	if s == nil {
		return
	}
	if p := s.Path; p != nil && strings.HasSuffix(string(p.Regex.V), "/*") {
		c.report(p.Regex.Pos, path+".path.regex", "%q ends with any number of slashes, and takes nothing below: write /.* at the end, or a prefix", p.Regex.Shown())
	}
	if s.Hosts.IsSet() && len(s.Hosts.Items) == 0 && !s.Hosts.None {
		c.report(s.Hosts.Pos, path+".hosts", "is empty: name hosts, or `none` for every host")
	}
	if s.Methods.IsSet() && len(s.Methods.Items) == 0 && !s.Methods.None {
		c.report(s.Methods.Pos, path+".methods", "is empty: name methods, or `none` for all")
	}
	for _, h := range s.Headers.Items {
		var name syntax.HeaderName
		if err := name.UnmarshalText([]byte(h.Key.V)); err != nil {
			c.report(h.Key.Pos, path+".headers", "%v", err)
		}
	}
	for _, q := range s.Query.Items {
		if long := max(len(q.Value.Exact.V), len(q.Value.Prefix.V)); len(q.Key.V) > maxCondition/4 || long > maxCondition {
			c.report(q.Key.Pos, path+".query", "a parameter's name has at most %d bytes, and what it is compared with %d", maxCondition/4, maxCondition)
		}
	}
	for _, entry := range slices.Concat(s.Headers.Items, s.Query.Items, s.Cookies.Items) {
		if entry.Key.V == "" {
			c.report(entry.Key.Pos, path, "a condition has no name")
		}
		if entry.Value.Prefix.IsSet() && entry.Value.Prefix.V == "" {
			c.report(entry.Value.Prefix.Pos, path, "an empty prefix: write {present: true}")
		}
	}
}

// cors checks the origins.
func (c *Checker) cors(s *syntax.CORS, path string) {
	if s == nil || s.Off {
		return
	}
	if len(s.Origins) == 0 {
		c.report(s.Pos, path, "origins is missing: name them, such as https://app.example.com")
	}
	for _, o := range s.Origins {
		switch {
		case o.V == "*" && s.Credentials.V:
			c.report(o.Pos, path+".origins", "\"*\" with credentials: true would let every site act for the user: name the origins")
		case o.V != "*" && !originForm.MatchString(o.V):
			c.report(o.Pos, path+".origins", "%q is not an origin such as https://app.example.com, https://*.example.com or \"*\"", o.Shown())
		case anybodys(o.V):
			c.report(o.Pos, path+".origins", "%q takes the sites of everybody who registers a name there: write your own domain, such as https://*.example.com, or \"*\"", o.Shown())
		}
	}
}

// anybodys reports whether an origin has its wildcard right below a suffix where
// anybody may register, such as https://*.com. A suffix that is on no list is a
// name of one's own network.
func anybodys(origin string) bool {
	_, below, wild := strings.Cut(origin, "*.")
	if !wild {
		return false
	}
	domain, _, _ := strings.Cut(strings.ToLower(below), ":")
	suffix, icann := publicsuffix.PublicSuffix(domain)
	return suffix == domain && (icann || strings.Contains(suffix, "."))
}

// retry checks the reasons and the pauses.
func (c *Checker) retry(s *syntax.Retry, path string) {
	if s == nil || s.Off {
		return
	}
	if s.RetryOn != nil && len(s.RetryOn) == 0 {
		c.report(s.Pos, path+".retry_on", "is empty: name a reason, or write `retry: none`")
	}
	for _, w := range s.RetryOn {
		if !slices.Contains(retryWords(), w.V) && !statusForm.MatchString(w.V) {
			c.report(w.Pos, path+".retry_on", "%q is neither a status such as 503 nor one of %s%s",
				w.Shown(), strings.Join(retryWords(), ", "), strictyaml.Suggest(w.Shown(), retryWords()))
		}
	}
	if s.Backoff == nil {
		return
	}
	base, most := s.Backoff.Base, s.Backoff.Max
	if base.V.D() > time.Minute {
		c.report(base.Pos, path+".backoff.base", "is at most 1m, not %s", base.V.D())
	}
	if most.V.D() > time.Hour || (most.IsSet() && most.V.D() < base.V.D()) {
		c.report(most.Pos, path+".backoff.max", "must be from the base of %s to 1h, not %s", base.V.D(), most.V.D())
	}
}

// local checks that a route which Envoy answers itself says nothing about an upstream.
func (c *Checker) local(s *syntax.Route, path string) {
	const message = "%s needs an upstream: this route is answered by Envoy itself"
	if s.Rewrite != nil && !s.Rewrite.Off {
		c.report(s.Rewrite.Pos, path+".rewrite", message, "rewrite")
	}
	if s.Mirror != nil && !s.Mirror.Off {
		c.report(s.Mirror.Pos, path+".mirror", message, "mirror")
	}
	if s.Retry != nil && !s.Retry.Off {
		c.report(s.Retry.Pos, path+".retry", message, "retry")
	}
	if s.WebSocket.V {
		c.report(s.WebSocket.Pos, path+".websocket", message, "websocket")
	}
}

// respond checks the size of the answer.
func (c *Checker) respond(s *syntax.Respond, path string) {
	const maxBody = 4096 // Envoy's own limit
	if len(s.Body.V) > maxBody {
		c.report(s.Body.Pos, path+".body", "has %d bytes, at most %d are answered by Envoy itself", len(s.Body.V), maxBody)
	}
}

// redirect checks that it leads somewhere, by what the path match offers.
func (c *Checker) redirect(s *syntax.Redirect, match *syntax.Match, path string) {
	if s.Host.IsSet() {
		var host syntax.Hostname
		var hostPort syntax.HostPort
		text := []byte(s.Host.V)
		if strings.HasPrefix(s.Host.V, "*") || (host.UnmarshalText(text) != nil && hostPort.UnmarshalText(text) != nil) {
			c.report(s.Host.Pos, path+".host", "%q is not a host, with or without a port", s.Host.Shown())
		}
	}
	if !s.Scheme.IsSet() && !s.Host.IsSet() && !s.Path.IsSet() && !s.Prefix.IsSet() {
		c.report(s.Pos, path, "leads back to itself: write scheme, host, path or prefix")
	}
	c.variables(s.Path, match, path)
	c.prefix(s.Prefix, match, path)
}

// rewrite checks that it changes something, by what the path match offers.
func (c *Checker) rewrite(s *syntax.Rewrite, match *syntax.Match, path string) {
	if s == nil || s.Off {
		return
	}
	c.variables(s.Path, match, path)
	c.prefix(s.Prefix, match, path)
	if strings.HasPrefix(string(s.Host.V), "*") {
		c.report(s.Host.Pos, path+".host", "must be one host")
	}
	if x := s.Regex; x != nil && x.Pattern.V != "" {
		groups := 0
		if re, err := regexp.Compile(string(x.Pattern.V)); err == nil {
			groups = re.NumSubexp()
		}
		for _, group := range groupForm.FindAllStringSubmatch(x.Substitution.V, -1) {
			if n, err := strconv.Atoi(group[1]); err != nil || n > groups {
				c.report(x.Substitution.Pos, path+".regex.substitution", "\\%s is no group of the pattern, which has %d", group[1], groups)
			}
		}
	}
	if !s.Path.IsSet() && !s.Prefix.IsSet() && s.Regex == nil && !s.Host.IsSet() {
		c.report(s.Pos, path, "changes nothing: write path, prefix, regex or host")
	}
}

func (c *Checker) prefix(written strictyaml.Value[paths.Path], match *syntax.Match, path string) {
	if written.IsSet() && (match == nil || match.Path == nil || !match.Path.Prefix.IsSet()) {
		c.report(written.Pos, path+".prefix", "replaces the matched prefix, but the route matches no path by prefix")
	}
}

// variables checks that a path names only what the template of the match has.
func (c *Checker) variables(written strictyaml.Value[paths.Template], match *syntax.Match, path string) {
	var known []string
	if match != nil && match.Path != nil {
		known = match.Path.Template.V.Variables()
	}
	for _, v := range written.V.Variables() {
		if !slices.Contains(known, v) {
			c.report(written.Pos, path+".path", "{%s} is no variable of the route's match.path.template%s", v, strictyaml.Suggest(v, known))
		}
	}
}
