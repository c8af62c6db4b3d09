package limiting_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	refv3 "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"

	limitsv1 "tollgate/api/limits/v1"
	"tollgate/xds/compile/limiting"
	"tollgate/xds/config"
)

func limit(id string, by ...string) config.Limit {
	return config.Limit{ID: id, Limit: 10, Window: time.Minute, Unit: "minute", By: by}
}

func with(l config.Limit, edit func(*config.Limit)) config.Limit {
	edit(&l)
	return l
}

func closed(l *config.Limit) { l.OnError = config.OnErrorClosed }

func open(l *config.Limit) { l.OnError = config.OnErrorOpen }

func route(auth config.AuthMode, limits ...config.Limit) *config.Route {
	return &config.Route{Name: "r", Upstream: "u", Auth: config.Auth{Mode: auth}, RateLimit: limits}
}

// descriptors writes what a route feeds its filter with, one line each: "key=value"
// of what is fixed, "key?" of what may be missing and then drops the descriptor's
// entry, "key" of what is always there.
func descriptors(t *testing.T, f *limiting.Feeds, r *config.Route) (filter string, lines []string) {
	t.Helper()
	filter, typed := f.PerRoute(r)
	if typed == nil {
		return filter, nil
	}
	var per ratelimitv3.RateLimitPerRoute
	if err := typed.UnmarshalTo(&per); err != nil {
		t.Fatal(err)
	}
	for _, d := range per.GetRateLimits() {
		var words []string
		for _, a := range d.GetActions() {
			words = append(words, entry(a))
		}
		lines = append(lines, strings.Join(words, " "))
	}
	return filter, lines
}

func entry(a *routev3.RateLimit_Action) string {
	optional := func(skip bool) string {
		if skip {
			return "?"
		}
		return "!" // a request without it would not be counted at all
	}
	switch a := a.GetActionSpecifier().(type) {
	case *routev3.RateLimit_Action_GenericKey_:
		return a.GenericKey.GetDescriptorKey() + "=" + a.GenericKey.GetDescriptorValue()
	case *routev3.RateLimit_Action_RemoteAddress_:
		return "remote_address"
	case *routev3.RateLimit_Action_Metadata:
		return a.Metadata.GetDescriptorKey() + "~" + a.Metadata.GetDefaultValue()
	case *routev3.RateLimit_Action_RequestHeaders_:
		h := a.RequestHeaders
		if h.GetHeaderName() == ":method" {
			return h.GetDescriptorKey()
		}
		return h.GetDescriptorKey() + "<" + h.GetHeaderName() + optional(h.GetSkipIfAbsent())
	case *routev3.RateLimit_Action_QueryParameters_:
		q := a.QueryParameters
		return q.GetDescriptorKey() + "<" + q.GetQueryParameterName() + optional(q.GetSkipIfAbsent())
	}
	return fmt.Sprintf("%T", a)
}

// TestFilterOfARoute: one limit that must not be passed over without a limiter
// makes the whole route refuse then; what does not cover it has no say.
func TestFilterOfARoute(t *testing.T) {
	plain, strict, lax := limit("l"), with(limit("l"), closed), with(limit("l"), open)
	plan := func(l config.Limit) []config.Plan {
		return []config.Plan{{Name: "free"}, {Name: "pro", RateLimit: []config.Limit{l}}}
	}
	none := []config.Limit(nil)
	for name, test := range map[string]struct {
		gateway []config.Limit
		plans   []config.Plan
		route   *config.Route
		want    string
	}{
		"nothing limits it":              {none, nil, route(config.AuthAnyOf), ""},
		"answered here":                  {[]config.Limit{strict}, plan(strict), &config.Route{Name: "r", RateLimit: []config.Limit{strict}}, ""},
		"the gateway's":                  {[]config.Limit{plain}, nil, route(config.AuthPublic), limiting.OpenFilter},
		"the gateway's closed":           {[]config.Limit{lax, strict}, nil, route(config.AuthPublic), limiting.DenyFilter},
		"its own":                        {none, nil, route(config.AuthPublic, lax), limiting.OpenFilter},
		"its own closed":                 {[]config.Limit{plain}, nil, route(config.AuthPublic, lax, strict), limiting.DenyFilter},
		"a plan's":                       {none, plan(plain), route(config.AuthAnyOf), limiting.OpenFilter},
		"a plan's closed":                {none, plan(strict), route(config.AuthAnyOf), limiting.DenyFilter},
		"a plan's, public":               {none, plan(strict), route(config.AuthPublic), ""},
		"a plan's closed, public, own":   {none, plan(strict), route(config.AuthPublic, plain), limiting.OpenFilter},
		"a plan's closed, public, all's": {[]config.Limit{plain}, plan(strict), route(config.AuthPublic), limiting.OpenFilter},
	} {
		f := limiting.NewFeeds(&config.Gateway{RateLimit: test.gateway, Plans: test.plans})
		filter, lines := descriptors(t, f, test.route)
		if filter != test.want || (len(lines) > 0) != (test.want != "") {
			t.Errorf("%s: filter %q, %d descriptors; want %q", name, filter, len(lines), test.want)
		}
	}
}

// gateway is one of every kind of limit, with every word.
func gateway() *config.Gateway {
	return &config.Gateway{
		RateLimit: []config.Limit{limit("g/all"), limit("g/ip", "header:X-Device", "ip", "query:page", "method")},
		Plans: []config.Plan{
			{Name: "free", RateLimit: []config.Limit{limit("p/free/0", "tenant")}},
			{Name: "pro", RateLimit: []config.Limit{limit("p/pro/0", "tenant"), limit("p/pro/1", "user", "claim:region")}},
		},
		Routes: []*config.Route{
			route(config.AuthAnyOf, limit("r/0", "credential")),
			{Name: "public", Upstream: "u", Auth: config.Auth{Mode: config.AuthPublic}},
			{Name: "here", RateLimit: []config.Limit{limit("here/0")}},
		},
	}
}

// TestDescriptors: gateway's, plans', route's; every word by what cannot be
// missing first; a request without a value is counted all the same.
func TestDescriptors(t *testing.T) {
	gw := gateway()
	public := []string{"limit=g/all", "limit=g/ip remote_address method header:X-Device<x-device? query:page<page?"}
	private := slices.Concat(public, []string{
		"limit=plan/0/tenant plan~(none) tenant~(none)",
		"limit=plan/1/user,claim:region plan~(none) user~(none) claim:region~(none)",
	})
	f := limiting.NewFeeds(gw)
	for _, test := range []struct {
		route *config.Route
		want  []string
	}{
		{gw.Routes[0], append(slices.Clone(private), "limit=r/0 credential~(none)")},
		{gw.Routes[1], public},
		{route(config.AuthAnyOf), private},
		{route(config.AuthPublic, limit("own", "route")), append(slices.Clone(public), "limit=own route=r")},
	} {
		if _, got := descriptors(t, f, test.route); !slices.Equal(got, test.want) {
			t.Errorf("%s:\n%s\nwant\n%s", test.route.Name, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
	}
}

// TestCountedByRoute: a limit of all routes that counts by route names each of
// them, whether the route has limits of its own or not.
func TestCountedByRoute(t *testing.T) {
	for name, gw := range map[string]*config.Gateway{
		"gateway": {RateLimit: []config.Limit{limit("l", "route")}},
		"plan":    {Plans: []config.Plan{{Name: "p", RateLimit: []config.Limit{limit("p/0", "route")}}}},
	} {
		f := limiting.NewFeeds(gw)
		for _, own := range [][]config.Limit{nil, {limit("own")}} {
			for _, of := range []string{"one", "two"} {
				r := route(config.AuthAnyOf, own...)
				r.Name = of
				if _, got := descriptors(t, f, r); !strings.HasSuffix(got[0], " route="+of) {
					t.Errorf("%s: route %s feeds %q", name, of, got)
				}
			}
		}
	}
}

// TestEveryRuleIsFed: what the limiter counts and what routes feed it with name
// the same limits and count by the same words.
func TestEveryRuleIsFed(t *testing.T) {
	gw := gateway()
	f := limiting.NewFeeds(gw)
	fed := map[string][]string{}
	for _, r := range gw.Routes {
		_, lines := descriptors(t, f, r)
		for _, line := range lines {
			words := strings.Fields(line)
			keys := []string{}
			for _, w := range words[1:] {
				if key, _, _ := strings.Cut(strings.TrimSuffix(w, "?"), "<"); !strings.HasPrefix(key, "plan~") {
					key, _, _ = strings.Cut(key, "~")
					key, _, _ = strings.Cut(key, "=")
					keys = append(keys, key)
				}
			}
			slices.Sort(keys)
			fed[strings.TrimPrefix(words[0], "limit=")] = keys
		}
	}
	names := []string{}
	for _, set := range limiting.RuleSets(gw) {
		names = append(names, set.GetName())
		for _, r := range set.GetRules() {
			by := slices.Sorted(slices.Values(r.GetBy()))
			if keys, ok := fed[r.GetSlot()]; !ok || !slices.Equal(keys, by) {
				t.Errorf("rule %s of slot %s counts by %q, routes feed %q", r.GetId(), r.GetSlot(), by, keys)
			}
			if (r.GetPlan() != "") != strings.HasPrefix(r.GetId(), "p/"+r.GetPlan()) {
				t.Errorf("rule %s is of plan %q", r.GetId(), r.GetPlan())
			}
		}
	}
	if want := []string{"gateway", "plan/free", "plan/pro", "route/r"}; !slices.Equal(names, want) {
		t.Errorf("rule sets %q, want %q", names, want)
	}
}

// TestRule: all that a limit says reaches the limiter.
func TestRule(t *testing.T) {
	full := config.Limit{
		ID: "full", Limit: 7, Window: 10 * time.Second, Algorithm: config.GCRA, Burst: 9, Shadow: true,
		Message: "slow down", OnError: config.OnErrorClosed, By: []string{"ip"},
	}
	got := limiting.RuleSets(&config.Gateway{RateLimit: []config.Limit{full, with(limit("o"), open), with(limit("l"), func(l *config.Limit) { l.OnError = config.OnErrorLocal })}})[0].GetRules()
	r := got[0]
	if r.GetLimit() != 7 || r.GetWindow().AsDuration() != 10*time.Second || r.GetUnit() != "" || r.GetAlgorithm() != limitsv1.Rule_GCRA || r.GetBurst() != 9 ||
		!r.GetShadow() || r.GetMessage() != "slow down" || r.GetOnError() != limitsv1.Rule_CLOSED || !slices.Equal(r.GetBy(), []string{"remote_address"}) {
		t.Errorf("%v", r)
	}
	if r := got[1]; r.GetOnError() != limitsv1.Rule_OPEN || r.GetShadow() || r.GetUnit() != "minute" || r.GetAlgorithm() != limitsv1.Rule_FIXED {
		t.Errorf("%v", r)
	}
	if r := got[2]; r.GetOnError() != limitsv1.Rule_LOCAL {
		t.Errorf("%v", r)
	}
}

// tree writes a reference config, one line for each path to a limit.
func tree(at string, ds []*refv3.RateLimitDescriptor) (lines []string) {
	for _, d := range ds {
		here := strings.TrimSuffix(at+" "+d.GetKey()+"="+d.GetValue(), "=")
		if p := d.GetRateLimit(); p != nil {
			word := ""
			if d.GetShadowMode() {
				word = " shadow"
			}
			lines = append(lines, fmt.Sprintf("%s: %d per %s%s", strings.TrimSpace(here), p.GetRequestsPerUnit(), p.GetUnit(), word))
		}
		lines = append(lines, tree(here, d.GetDescriptors())...)
	}
	return lines
}

// TestReference: what the reference server counts, with a branch for each value
// that a request may lack, and a word on what it cannot count or counts otherwise.
func TestReference(t *testing.T) {
	unit := func(word string, window time.Duration) func(*config.Limit) {
		return func(l *config.Limit) { l.Unit, l.Window = word, window }
	}
	gw := &config.Gateway{
		RateLimit: []config.Limit{
			limit("all"), limit("ip", "ip"), limit("two", "query:q", "header:h", "method"),
			with(limit("shadow"), func(l *config.Limit) { l.Shadow = true }),
			with(limit("bucket"), func(l *config.Limit) { l.Algorithm = config.GCRA }),
			with(limit("week"), unit("week", 168*time.Hour)), with(limit("odd"), unit("", 10*time.Second)),
			with(limit("most"), func(l *config.Limit) { l.Limit = 1<<32 - 1 }), with(limit("huge"), func(l *config.Limit) { l.Limit = 1 << 32 }),
		},
		Plans:  []config.Plan{{Name: "free", RateLimit: []config.Limit{limit("f", "tenant")}}, {Name: "pro", RateLimit: []config.Limit{with(limit("p", "tenant"), unit("day", 24*time.Hour))}}},
		Routes: []*config.Route{route(config.AuthPublic, limit("own")), {Name: "here", RateLimit: []config.Limit{limit("here")}}},
	}
	out, warnings := limiting.Reference(gw)
	want := []string{
		"limit=all: 10 per MINUTE", "limit=ip remote_address: 10 per MINUTE",
		"limit=two method: 10 per MINUTE", "limit=two method query:q: 10 per MINUTE", "limit=two method query:q header:h: 10 per MINUTE", "limit=two method header:h: 10 per MINUTE",
		"limit=shadow: 10 per MINUTE shadow", "limit=most: 4294967295 per MINUTE",
		"limit=plan/0/tenant plan=free tenant: 10 per MINUTE", "limit=plan/0/tenant plan=pro tenant: 10 per DAY",
		"limit=own: 10 per MINUTE",
	}
	if got := tree("", out.GetDescriptors()); !slices.Equal(got, want) || out.GetDomain() != "tollgate" {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	starts := []string{
		"limit ip: the reference rate-limit server counts every IPv6 address by itself",
		"limit bucket: left out of the reference rate-limit server's config: it counts fixed windows only",
		"limit week: left out of the reference rate-limit server's config: its week is not the calendar's",
		"limit odd: left out of the reference rate-limit server's config: it has no window of 10s",
		"limit huge: left out of the reference rate-limit server's config: it cannot count to 4294967296",
	}
	if !slices.EqualFunc(warnings, starts, strings.HasPrefix) {
		t.Errorf("warned\n%s", strings.Join(warnings, "\n"))
	}
}

// TestFeedsAtOnce: routes that are compiled at the same time do not write into
// what they share.
func TestFeedsAtOnce(t *testing.T) {
	for limits := range 9 { // with and without room at the end of the shared list
		gw := &config.Gateway{}
		for i := range limits {
			gw.RateLimit = append(gw.RateLimit, limit(fmt.Sprint("g/", i)))
		}
		f := limiting.NewFeeds(gw)
		var group sync.WaitGroup
		for caller := range 4 {
			group.Go(func() {
				own := fmt.Sprint("own/", caller)
				for range 200 {
					if _, lines := descriptors(t, f, route(config.AuthPublic, limit(own))); lines[len(lines)-1] != "limit="+own {
						t.Errorf("%s feeds %q", own, lines)
						return
					}
				}
			})
		}
		group.Wait()
	}
}
