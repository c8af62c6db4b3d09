package check

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tollgate/internal/strictyaml"
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

// Match checks hosts, methods and conditions.
func Match(report Report, s *syntax.Match, path string) {
	if s == nil {
		return
	}
	if s.Hosts.IsSet() && len(s.Hosts.Items) == 0 && !s.Hosts.None {
		report(s.Hosts.Pos, path+".hosts", "is empty: name hosts, or `none` for every host")
	}
	if s.Methods.IsSet() && len(s.Methods.Items) == 0 && !s.Methods.None {
		report(s.Methods.Pos, path+".methods", "is empty: name methods, or `none` for all")
	}
	for _, c := range s.Headers.Items {
		var name syntax.HeaderName
		if err := name.UnmarshalText([]byte(c.Key.V)); err != nil {
			report(c.Key.Pos, path+".headers", "%v", err)
		}
	}
	for _, c := range slices.Concat(s.Headers.Items, s.Query.Items, s.Cookies.Items) {
		if c.Key.V == "" {
			report(c.Key.Pos, path, "a condition has no name")
		}
		if c.Value.Prefix.IsSet() && c.Value.Prefix.V == "" {
			report(c.Value.Prefix.Pos, path, "an empty prefix: write {present: true}")
		}
	}
}

// CORS checks the origins.
func CORS(report Report, s *syntax.CORS, path string) {
	if s == nil || s.Off {
		return
	}
	if len(s.Origins) == 0 {
		report(s.Pos, path, "origins is missing: name them, such as https://app.example.com")
	}
	for _, o := range s.Origins {
		switch {
		case o.V == "*" && s.Credentials.V:
			report(o.Pos, path+".origins", "\"*\" with credentials: true would let every site act for the user: name the origins")
		case o.V != "*" && !originForm.MatchString(o.V):
			report(o.Pos, path+".origins", "%q is not an origin such as https://app.example.com, https://*.example.com or \"*\"", o.Shown())
		}
	}
}

// Retry checks the reasons and the pauses.
func Retry(report Report, s *syntax.Retry, path string) {
	if s == nil || s.Off {
		return
	}
	if s.RetryOn != nil && len(s.RetryOn) == 0 {
		report(s.Pos, path+".retry_on", "is empty: name a reason, or write `retry: none`")
	}
	for _, w := range s.RetryOn {
		if !slices.Contains(retryWords(), w.V) && !statusForm.MatchString(w.V) {
			report(w.Pos, path+".retry_on", "%q is neither a status such as 503 nor one of %s%s",
				w.Shown(), strings.Join(retryWords(), ", "), strictyaml.Suggest(w.Shown(), retryWords()))
		}
	}
	if s.Backoff == nil {
		return
	}
	base, most := s.Backoff.Base, s.Backoff.Max
	if base.V.D() > time.Minute {
		report(base.Pos, path+".backoff.base", "is at most 1m, not %s", base.V.D())
	}
	if most.V.D() > time.Hour || (most.IsSet() && most.V.D() < base.V.D()) {
		report(most.Pos, path+".backoff.max", "must be from the base of %s to 1h, not %s", base.V.D(), most.V.D())
	}
}

// Local checks that a route which Envoy answers itself says nothing about an upstream.
func Local(report Report, s *syntax.Route, path string) {
	const message = "%s needs an upstream: this route is answered by Envoy itself"
	if s.Rewrite != nil && !s.Rewrite.Off {
		report(s.Rewrite.Pos, path+".rewrite", message, "rewrite")
	}
	if s.Mirror != nil && !s.Mirror.Off {
		report(s.Mirror.Pos, path+".mirror", message, "mirror")
	}
	if s.Retry != nil && !s.Retry.Off {
		report(s.Retry.Pos, path+".retry", message, "retry")
	}
	if s.WebSocket.V {
		report(s.WebSocket.Pos, path+".websocket", message, "websocket")
	}
}

// Respond checks the size of the answer.
func Respond(report Report, s *syntax.Respond, path string) {
	const maxBody = 4096 // Envoy's own limit
	if len(s.Body.V) > maxBody {
		report(s.Body.Pos, path+".body", "has %d bytes, at most %d are answered by Envoy itself", len(s.Body.V), maxBody)
	}
}

// Redirect checks that it leads somewhere, by what the path match offers.
func Redirect(report Report, s *syntax.Redirect, match *syntax.Match, path string) {
	if s.Host.IsSet() {
		var host syntax.Hostname
		var hostPort syntax.HostPort
		text := []byte(s.Host.V)
		if strings.HasPrefix(s.Host.V, "*") || (host.UnmarshalText(text) != nil && hostPort.UnmarshalText(text) != nil) {
			report(s.Host.Pos, path+".host", "%q is not a host, with or without a port", s.Host.Shown())
		}
	}
	if !s.Scheme.IsSet() && !s.Host.IsSet() && !s.Path.IsSet() && !s.Prefix.IsSet() {
		report(s.Pos, path, "leads back to itself: write scheme, host, path or prefix")
	}
	variables(report, s.Path, match, path)
	prefix(report, s.Prefix, match, path)
}

// Rewrite checks that it changes something, by what the path match offers.
func Rewrite(report Report, s *syntax.Rewrite, match *syntax.Match, path string) {
	if s == nil || s.Off {
		return
	}
	variables(report, s.Path, match, path)
	prefix(report, s.Prefix, match, path)
	if strings.HasPrefix(string(s.Host.V), "*") {
		report(s.Host.Pos, path+".host", "must be one host")
	}
	if x := s.Regex; x != nil && x.Pattern.V != "" {
		groups := 0
		if re, err := regexp.Compile(string(x.Pattern.V)); err == nil {
			groups = re.NumSubexp()
		}
		for _, group := range groupForm.FindAllStringSubmatch(x.Substitution.V, -1) {
			if n, err := strconv.Atoi(group[1]); err != nil || n > groups {
				report(x.Substitution.Pos, path+".regex.substitution", "\\%s is no group of the pattern, which has %d", group[1], groups)
			}
		}
	}
	if !s.Path.IsSet() && !s.Prefix.IsSet() && s.Regex == nil && !s.Host.IsSet() {
		report(s.Pos, path, "changes nothing: write path, prefix, regex or host")
	}
}

func prefix(report Report, written strictyaml.Value[syntax.Path], match *syntax.Match, path string) {
	if written.IsSet() && (match == nil || match.Path == nil || !match.Path.Prefix.IsSet()) {
		report(written.Pos, path+".prefix", "replaces the matched prefix, but the route matches no path by prefix")
	}
}

// variables checks that a path names only what the template of the match has.
func variables(report Report, written strictyaml.Value[syntax.Template], match *syntax.Match, path string) {
	var known []string
	if match != nil && match.Path != nil {
		known = match.Path.Template.V.Variables()
	}
	for _, v := range written.V.Variables() {
		if !slices.Contains(known, v) {
			report(written.Pos, path+".path", "{%s} is no variable of the route's match.path.template%s", v, strictyaml.Suggest(v, known))
		}
	}
}
