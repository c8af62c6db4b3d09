package config

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

func (b *builder) cors(s *syntax.CORS, path string) *CORS {
	if s == nil || s.Off {
		return nil
	}
	out := &CORS{
		Origins: strs(s.Origins), Methods: strs(s.Methods), Headers: strs(s.Headers), ExposeHeaders: strs(s.ExposeHeaders),
		Credentials: s.Credentials.V, MaxAge: s.MaxAge.V.D(),
	}
	if len(out.Origins) == 0 {
		b.fault(s.Pos, path, "origins is missing: name them, such as https://app.example.com")
	}
	for _, o := range s.Origins {
		switch {
		case o.V == "*" && out.Credentials:
			b.fault(o.Pos, path+".origins", "\"*\" with credentials: true would let every site act for the user: name the origins")
		case o.V != "*" && !originForm.MatchString(o.V):
			b.fault(o.Pos, path+".origins", "%q is not an origin such as https://app.example.com, https://*.example.com or \"*\"", o.Shown())
		}
	}
	return out
}

func timeout(s *syntax.Timeout) Timeout {
	const unset = 15 * time.Second
	if s == nil {
		return Timeout{Default: unset}
	}
	out := Timeout{Default: or(s.Default, unset, optional), PerTry: s.PerTry.V.D()}
	if s.Off {
		out.Default = 0
	}
	head := s.Head
	if !head.IsSet() {
		head = s.Get
	}
	for _, m := range []struct {
		name string
		v    strictyaml.Value[syntax.SpanOrNone]
	}{
		{"GET", s.Get},
		{"HEAD", head},
		{"POST", s.Post},
		{"PUT", s.Put},
		{"PATCH", s.Patch},
		{"DELETE", s.Delete},
		{"OPTIONS", s.Options},
	} {
		if m.v.IsSet() {
			if out.ByMethod == nil {
				out.ByMethod = map[string]time.Duration{}
			}
			out.ByMethod[m.name] = optional(m.v.V)
		}
	}
	return out
}

func optional(s syntax.SpanOrNone) time.Duration { return time.Duration(s) }

func (b *builder) retry(s *syntax.Retry, path string) *Retry {
	if s == nil || s.Off {
		return nil
	}
	out := &Retry{Attempts: or(s.Attempts, 2, number), RetryOn: strs(s.RetryOn), BackoffBase: 25 * time.Millisecond}
	if s.RetryOn == nil {
		out.RetryOn = []string{"connect-failure", "refused-stream"}
	} else if len(out.RetryOn) == 0 {
		b.fault(s.Pos, path+".retry_on", "is empty: name a reason, or write `retry: none`")
	}
	for _, w := range s.RetryOn {
		if !slices.Contains(retryWords(), w.V) && !statusForm.MatchString(w.V) {
			b.fault(w.Pos, path+".retry_on", "%q is neither a status such as 503 nor one of %s%s", w.Shown(), strings.Join(retryWords(), ", "), strictyaml.Suggest(w.V, retryWords()))
		}
	}
	if s.Backoff != nil {
		out.BackoffBase = or(s.Backoff.Base, out.BackoffBase, span)
	}
	if out.BackoffBase > time.Minute {
		b.fault(s.Backoff.Base.Pos, path+".backoff.base", "is at most 1m, not %s", out.BackoffBase)
		out.BackoffBase = time.Minute
	}
	out.BackoffMax = 10 * out.BackoffBase
	if s.Backoff != nil && s.Backoff.Max.IsSet() {
		out.BackoffMax = s.Backoff.Max.V.D()
		if out.BackoffMax < out.BackoffBase || out.BackoffMax > time.Hour {
			b.fault(s.Backoff.Max.Pos, path+".backoff.max", "must be from the base of %s to 1h, not %s", out.BackoffBase, out.BackoffMax)
			out.BackoffMax = out.BackoffBase
		}
	}
	return out
}

// attemptsFit refuses attempts that the timeout cuts off before they begin.
func (b *builder) attemptsFit(r *syntax.Route, out Route, path string) {
	if out.Retry == nil || out.Retry.Attempts < 2 {
		return
	}
	totals := []time.Duration{out.Timeout.Default}
	for _, m := range syntax.Methods() {
		totals = append(totals, out.Timeout.Of(m))
	}
	shortest := time.Duration(0)
	for _, t := range totals {
		if t > 0 && (shortest == 0 || t < shortest) {
			shortest = t
		}
	}
	worst, attempts := out.Retry.WorstBackoff(), time.Duration(out.Retry.Attempts)
	switch {
	case shortest == 0:
	case out.Timeout.PerTry > 0 && attempts*out.Timeout.PerTry+worst > shortest:
		b.fault(r.Timeout.PerTry.Pos, path+".timeout.per_try", "%d attempts of %s and back-offs of up to %s do not fit the timeout of %s: at most %s each",
			attempts, out.Timeout.PerTry, worst, shortest, max(0, (shortest-worst)/attempts).Truncate(time.Millisecond))
	case shortest <= worst:
		b.fault(r.Retry.Pos, path+".retry", "the back-offs alone may take %s of the timeout of %s: lower attempts or backoff", worst, shortest)
	}
}

func (b *builder) rewrite(s *syntax.Rewrite, m Match, path string) *Rewrite {
	if s == nil || s.Off {
		return nil
	}
	out := &Rewrite{Path: string(s.Path.V), Prefix: string(s.Prefix.V), Host: string(s.Host.V)}
	if s.Prefix.IsSet() && m.Kind != PathPrefix {
		b.fault(s.Prefix.Pos, path+".prefix", "replaces the matched prefix, but the route matches no path by prefix")
	}
	if strings.HasPrefix(out.Host, "*") {
		b.fault(s.Host.Pos, path+".host", "must be one host")
	}
	if x := s.Regex; x != nil {
		out.Regex = &RegexRewrite{Pattern: string(x.Pattern.V), Substitution: x.Substitution.V}
		re, err := regexp.Compile(out.Regex.Pattern)
		for _, group := range groupForm.FindAllStringSubmatch(x.Substitution.V, -1) {
			if n, convErr := strconv.Atoi(group[1]); err == nil && (convErr != nil || n > re.NumSubexp()) {
				b.fault(x.Substitution.Pos, path+".regex.substitution", "\\%s is no group of the pattern, which has %d", group[1], re.NumSubexp())
			}
		}
	}
	if !s.Path.IsSet() && !s.Prefix.IsSet() && s.Regex == nil && !s.Host.IsSet() {
		b.fault(s.Pos, path, "changes nothing: write path, prefix, regex or host")
	}
	return out
}

func (b *builder) mirror(s *syntax.Mirror, path string) *Mirror {
	if s == nil || s.Off {
		return nil
	}
	name := string(s.Upstream.V)
	switch target := b.upstreams[name]; {
	case !s.Upstream.IsSet():
		b.fault(s.Pos, path, "upstream is missing: name the one that gets the copies")
	case name == "":
	case target == nil:
		b.unknown(s.Upstream.Pos, path+".upstream", "upstream", name, b.names.upstreams)
	case target.Split != nil:
		b.fault(s.Upstream.Pos, path+".upstream", "%q is a split: name one of its members", name)
	}
	return &Mirror{Upstream: name, Percent: or(s.Percent, 100, percent)}
}

func (b *builder) headerEdit(s *syntax.HeaderEdit, path string) HeaderEdit {
	if s == nil || s.Off {
		return HeaderEdit{}
	}
	out := HeaderEdit{Remove: strs(s.Remove)}
	out.Set = b.headers(s.Set, path+".set")
	out.Add = b.headers(s.Add, path+".add")
	for _, h := range append(slices.Clone(out.Set), out.Add...) {
		for _, removed := range s.Remove {
			prefix, wild := strings.CutSuffix(string(removed.V), "*")
			if string(removed.V) == h.Name || (wild && strings.HasPrefix(h.Name, prefix)) {
				b.fault(removed.Pos, path+".remove", "%q is written and removed: choose one", h.Name)
			}
		}
	}
	return out
}

func (b *builder) headers(written strictyaml.Map[strictyaml.Value[syntax.HeaderValue]], path string) []Header {
	var out []Header
	for i := range written.Items {
		key, value := written.Items[i].Key, written.Items[i].Value
		var name syntax.HeaderName
		if err := name.UnmarshalText([]byte(key.V)); err != nil {
			b.fault(key.Pos, path, "%v", err)
			continue
		}
		for _, h := range out {
			if h.Name == string(name) {
				b.fault(key.Pos, path, "%q is there twice: case never matters", h.Name)
			}
		}
		out = append(out, Header{Name: string(name), Value: string(value.V)})
	}
	return out
}
