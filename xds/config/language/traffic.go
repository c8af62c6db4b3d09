package language

import (
	"strings"
	"time"

	"tollgate/api/contract"
	"tollgate/internal/strictyaml"
	"tollgate/xds/config"
	"tollgate/xds/config/syntax"
)

func cors(s *syntax.CORS) *config.CORS {
	if s == nil || s.Off {
		return nil
	}
	return &config.CORS{
		Origins: strs(s.Origins), Methods: strs(s.Methods), Headers: strs(s.Headers), ExposeHeaders: strs(s.ExposeHeaders),
		Credentials: s.Credentials.V, MaxAge: s.MaxAge.V.D(),
	}
}

func timeout(s *syntax.Timeout) config.Timeout {
	const unset = 15 * time.Second
	if s == nil {
		return config.Timeout{Default: unset}
	}
	out := config.Timeout{Default: or(s.Default, unset, optional), PerTry: s.PerTry.V.D()}
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

func retry(s *syntax.Retry) *config.Retry {
	if s == nil || s.Off {
		return nil
	}
	out := &config.Retry{
		Attempts: or(s.Attempts, 2, number), BackoffBase: 25 * time.Millisecond,
		RetryOn: listed(strs(s.RetryOn), []string{"connect-failure", "refused-stream"}),
	}
	backoff := s.Backoff
	if backoff == nil {
		backoff = &syntax.Backoff{}
	}
	// Capped as package check asks, so that sums cannot overflow.
	out.BackoffBase = min(or(backoff.Base, out.BackoffBase, span), time.Minute)
	out.BackoffMax = min(or(backoff.Max, 10*out.BackoffBase, span), time.Hour)
	return out
}

// attemptsFit refuses attempts that the timeout cuts off before they begin.
func (b *builder) attemptsFit(r *syntax.Route, out *config.Route, path string) {
	if out.Retry == nil || out.Retry.Attempts < 2 {
		return
	}
	totals := []time.Duration{out.Timeout.Default}
	for _, m := range contract.Methods() {
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

func rewrite(s *syntax.Rewrite) *config.Rewrite {
	if s == nil || s.Off {
		return nil
	}
	out := &config.Rewrite{Path: string(s.Path.V), Prefix: string(s.Prefix.V), Host: string(s.Host.V)}
	if x := s.Regex; x != nil {
		out.Regex = &config.RegexRewrite{Pattern: string(x.Pattern.V), Substitution: x.Substitution.V}
	}
	return out
}

func headerEdit(s *syntax.HeaderEdit) config.HeaderEdit {
	if s == nil || s.Off {
		return config.HeaderEdit{}
	}
	return config.HeaderEdit{Set: headers(s.Set), Add: headers(s.Add), Remove: strs(s.Remove)}
}

func headers(written strictyaml.Map[strictyaml.Value[syntax.HeaderValue]]) []config.Header {
	var out []config.Header
	for i := range written.Items {
		out = append(out, config.Header{Name: strings.ToLower(written.Items[i].Key.V), Value: string(written.Items[i].Value.V)})
	}
	return out
}
