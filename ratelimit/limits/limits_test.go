package limits_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	limitsv1 "tollgate/api/limits/v1"
	"tollgate/ratelimit/engine"
	"tollgate/ratelimit/limits"
)

// rule returns a valid rule: 10 a minute in fixed windows, as changed by edits.
func rule(id, slot string, edits ...func(*limitsv1.Rule)) *limitsv1.Rule {
	r := &limitsv1.Rule{
		Id: id, Slot: slot, Limit: 10, Window: durationpb.New(time.Minute), Unit: "minute",
		Algorithm: limitsv1.Rule_FIXED, OnError: limitsv1.Rule_LOCAL,
	}
	for _, edit := range edits {
		edit(r)
	}
	return r
}

func by(names ...string) func(*limitsv1.Rule) {
	return func(r *limitsv1.Rule) { r.By = names }
}

func plan(name string) func(*limitsv1.Rule) {
	return func(r *limitsv1.Rule) { r.Plan = name }
}

func table(t fataler, rules ...*limitsv1.Rule) *limits.Table {
	t.Helper()
	parsed, err := limits.Rules(&limitsv1.RuleSet{Name: "gateway", Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	tab, err := limits.NewTable(parsed)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// fataler is a *testing.T or a *rapid.T.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

// entries makes a descriptor of "key=value" words.
func entries(words ...string) []limits.Entry {
	var es []limits.Entry
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		es = append(es, limits.Entry{Key: key, Value: value})
	}
	return es
}

func TestMatch(t *testing.T) {
	tab := table(
		t,
		rule("gateway/all", "gateway/all"),
		rule("route/a_b/0", "route/a_b/0", by("tenant", "query:q")),
		rule("ip", "ip", by("remote_address")),
		rule("plan/pro/0", "plan/0/tenant", plan("pro"), by("tenant")),
		rule("plan/free/0", "plan/0/tenant", plan("free"), by("tenant")),
	)
	long := strings.Repeat("x", 129)
	sum := sha256.Sum256([]byte(long))
	tests := []struct {
		name       string
		descriptor []limits.Entry
		rule       string // "" for no counter
		key        string
		err        error
	}{
		{"one counter for all", entries("limit=gateway/all"), "gateway/all", "gateway/all|1m0s|0", nil},
		{"by values", entries("limit=route/a_b/0", "tenant=acme", "query:q=1"), "route/a_b/0", "route/a_b/0|1m0s|2|tenant|query:q|acme|1", nil},
		{"an absent entry is one of its own", entries("limit=route/a_b/0", "tenant=acme"), "route/a_b/0", "route/a_b/0|1m0s|2|tenant|query:q|acme|\\-", nil},
		{"no client can say what is absent", entries("limit=route/a_b/0", "tenant=(none)", "query:q=(none)"), "route/a_b/0", `route/a_b/0|1m0s|2|tenant|query:q|\-|(none)`, nil},
		{"nor by a backslash", entries("limit=route/a_b/0", `tenant=\-`, `query:q=\-`), "route/a_b/0", `route/a_b/0|1m0s|2|tenant|query:q|\\-|\\-`, nil},
		{"an IPv4 address", entries("limit=ip", "remote_address=192.0.2.7"), "ip", "ip|1m0s|1|remote_address|192.0.2.7", nil},
		{"one that is mapped", entries("limit=ip", "remote_address=::ffff:192.0.2.7"), "ip", "ip|1m0s|1|remote_address|192.0.2.7", nil},
		{"IPv6 by its /64", entries("limit=ip", "remote_address=2001:db8:1:2:3:4:5:6"), "ip", "ip|1m0s|1|remote_address|2001:db8:1:2::/64", nil},
		{"another host of it", entries("limit=ip", "remote_address=2001:db8:1:2::9"), "ip", "ip|1m0s|1|remote_address|2001:db8:1:2::/64", nil},
		{"the next /64", entries("limit=ip", "remote_address=2001:db8:1:3::9"), "ip", "ip|1m0s|1|remote_address|2001:db8:1:3::/64", nil},
		{"no address at all", entries("limit=ip", "remote_address=pipe"), "ip", "ip|1m0s|1|remote_address|pipe", nil},
		{"an empty value is a value", entries("limit=route/a_b/0", "tenant=", "query:q="), "route/a_b/0", "route/a_b/0|1m0s|2|tenant|query:q||", nil},
		{"separators are escaped", entries("limit=route/a_b/0", `tenant=a|b\`, "query:q=c"), "route/a_b/0", `route/a_b/0|1m0s|2|tenant|query:q|a\|b\\|c`, nil},
		{"a long value is hashed", entries("limit=route/a_b/0", "tenant="+long), "route/a_b/0", `route/a_b/0|1m0s|2|tenant|query:q|\h` + base64.RawURLEncoding.EncodeToString(sum[:]) + `|\-`, nil},
		{"a plan's rule", entries("limit=plan/0/tenant", "plan=pro", "tenant=acme"), "plan/pro/0", "plan/pro/0|1m0s|1|tenant|acme", nil},
		{"another plan's rule", entries("limit=plan/0/tenant", "plan=free", "tenant=acme"), "plan/free/0", "plan/free/0|1m0s|1|tenant|acme", nil},
		{"a plan without the rule", entries("limit=plan/0/tenant", "plan=gold", "tenant=acme"), "", "", nil},
		{"no plan", entries("limit=plan/0/tenant", "plan=(none)", "tenant=(none)"), "", "", nil},
		{"plan entry missing", entries("limit=plan/0/tenant", "tenant=acme"), "", "", limits.ErrBadDescriptor},
		{"unknown limit", entries("limit=route/new/0", "tenant=acme"), "", "", limits.ErrUnknownLimit},
		{"no entries", nil, "", "", limits.ErrBadDescriptor},
		{"another server's descriptor", entries("generic_key=x"), "", "", limits.ErrBadDescriptor},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cell, ok, err := tab.Match(test.descriptor)
			if !errors.Is(err, test.err) || ok != (test.rule != "") {
				t.Fatalf("got %v, %v", ok, err)
			}
			if !ok {
				return
			}
			if cell.Rule.ID != test.rule || cell.Key != test.key {
				t.Fatalf("got rule %s, key %s; want %s, %s", cell.Rule.ID, cell.Key, test.rule, test.key)
			}
		})
	}
}

// TestKeysAreInjective: requests share a counter only if they agree in every
// value. The names are those with which a key joined without care collides.
func TestKeysAreInjective(t *testing.T) {
	tab := table(
		t,
		rule("r", "r", by("a", "b")), rule("r|1m0s|2|a|b", "s", by("a", "b")), rule("r_a", "t", by("a", "b")),
	)
	hostile := rapid.SampledFrom([]string{
		"", "a", "b", "_", "a_b", "a|b", "|", `\`, `\|`, `a\`, `|a`, "(none)", `\h`, "user_b", "a_user_b",
		strings.Repeat("x", 128), strings.Repeat("x", 129), strings.Repeat("x", 130), strings.Repeat(`\`, 200), "\x00", "é",
	})
	value := rapid.OneOf(hostile, rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		draw := func() (string, [3]string) {
			v := [3]string{rapid.SampledFrom([]string{"r", "s", "t"}).Draw(t, "slot"), value.Draw(t, "a"), value.Draw(t, "b")}
			cell, _, err := tab.Match([]limits.Entry{{Key: "limit", Value: v[0]}, {Key: "a", Value: v[1]}, {Key: "b", Value: v[2]}})
			if err != nil {
				t.Fatal(err)
			}
			return cell.Key, v
		}
		key1, v1 := draw()
		key2, v2 := draw()
		if (key1 == key2) != (v1 == v2) {
			t.Fatalf("%q has key %q, %q has key %q", v1, key1, v2, key2)
		}
		if len(key1) > 600 {
			t.Fatalf("key of %d bytes", len(key1))
		}
	})
}

// TestKeyKeepsItsCount: a new number goes on counting where the old one was; a
// new meaning starts afresh.
func TestKeyKeepsItsCount(t *testing.T) {
	key := func(edits ...func(*limitsv1.Rule)) string {
		cell, _, err := table(t, rule("r", "r", append([]func(*limitsv1.Rule){by("tenant")}, edits...)...)).Match(entries("limit=r", "tenant=x", "user=x"))
		if err != nil {
			t.Fatal(err)
		}
		return cell.Key
	}
	tests := []struct {
		name string
		edit func(*limitsv1.Rule)
		same bool
	}{
		{"limit", func(r *limitsv1.Rule) { r.Limit = 99 }, true},
		{"shadow", func(r *limitsv1.Rule) { r.Shadow = true }, true},
		{"message", func(r *limitsv1.Rule) { r.Message = "slow down" }, true},
		{"on_error", func(r *limitsv1.Rule) { r.OnError = limitsv1.Rule_CLOSED }, true},
		{"window", func(r *limitsv1.Rule) { r.Window, r.Unit = durationpb.New(time.Hour), "hour" }, false},
		{"the same window in other words", func(r *limitsv1.Rule) { r.Unit = "" }, true},
		{"algorithm", func(r *limitsv1.Rule) { r.Algorithm = limitsv1.Rule_GCRA }, false},
		{"by", by("user"), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := key() == key(test.edit); got != test.same {
				t.Fatalf("same key: %v, want %v", got, test.same)
			}
		})
	}
}

func TestRulesRefuse(t *testing.T) {
	tests := []struct {
		name string
		set  *limitsv1.RuleSet
		want []string // in the error
	}{
		{"no name", &limitsv1.RuleSet{}, []string{"rule set without a name"}},
		{"no id", &limitsv1.RuleSet{Name: "s", Rules: []*limitsv1.Rule{rule("", "x")}}, []string{`rule set "s", rule 0 (""): id or slot is empty`}},
		{"no window", &limitsv1.RuleSet{Name: "s", Rules: []*limitsv1.Rule{rule("r", "r", func(r *limitsv1.Rule) { r.Window, r.Unit = nil, "" })}}, []string{"window 0s"}},
		{"unit of another length", &limitsv1.RuleSet{Name: "s", Rules: []*limitsv1.Rule{rule("r", "r", func(r *limitsv1.Rule) { r.Unit = "hour" })}}, []string{`unit "hour" and window 1m0s disagree`}},
		{"unknown unit", &limitsv1.RuleSet{Name: "s", Rules: []*limitsv1.Rule{rule("r", "r", func(r *limitsv1.Rule) { r.Unit = "year" })}}, []string{`unit "year"`}},
		{"all faults at once", &limitsv1.RuleSet{Name: "s", Rules: []*limitsv1.Rule{
			rule("r", "r", func(r *limitsv1.Rule) { r.Algorithm = 9 }),
			rule("q", "q", func(r *limitsv1.Rule) { r.OnError = limitsv1.Rule_ON_ERROR_UNSPECIFIED }),
		}}, []string{`rule 0 ("r"): algorithm 9 is not known`, `rule 1 ("q"): on_error ON_ERROR_UNSPECIFIED`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := limits.Rules(test.set)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		})
	}
}

func TestTableRefusesContradictions(t *testing.T) {
	tests := []struct {
		name  string
		rules []*limitsv1.Rule
	}{
		{"one id twice", []*limitsv1.Rule{rule("r", "a"), rule("r", "b")}},
		{"one slot twice", []*limitsv1.Rule{rule("a", "r"), rule("b", "r")}},
		{"a slot with and without plan", []*limitsv1.Rule{rule("a", "r"), rule("b", "r", plan("pro"))}},
		{"a slot without and with plan", []*limitsv1.Rule{rule("b", "r", plan("pro")), rule("a", "r")}},
		{"one plan twice", []*limitsv1.Rule{rule("a", "r", plan("pro")), rule("b", "r", plan("pro"))}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			rules, err := limits.Rules(&limitsv1.RuleSet{Name: "s", Rules: test.rules})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := limits.NewTable(rules); err == nil {
				t.Fatal("accepted")
			}
		})
	}
}

func TestKeeper(t *testing.T) {
	now := time.Unix(1_767_225_600, 0)
	k := limits.NewKeeper(time.Minute)
	set := func(rules ...*limitsv1.Rule) []*limitsv1.RuleSet {
		return []*limitsv1.RuleSet{{Name: "route/x", Rules: rules}}
	}
	apply := func(upserts []*limitsv1.RuleSet, removed ...string) *limits.Table {
		t.Helper()
		tab, err := k.Apply(now, upserts, removed)
		if err != nil {
			t.Fatal(err)
		}
		return tab
	}
	expect := func(when string, tab *limits.Table, want ...string) {
		t.Helper()
		var got []string
		for _, r := range tab.Rules() {
			got = append(got, r.ID)
			if _, _, err := tab.Match(entries("limit=" + r.Slot)); err != nil {
				t.Errorf("%s: %s is listed but does not match: %v", when, r.ID, err)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%s: rules %v, want %v", when, got, want)
		}
	}
	expect("first", apply(set(rule("a", "a"), rule("b", "b"))), "a", "b")
	expect("b gone from its set, still kept", apply(set(rule("a", "a"))), "a", "b")
	now = now.Add(30 * time.Second)
	expect("set gone, both kept", apply(nil, "route/x"), "b", "a")
	if _, err := k.Apply(now, set(rule("", "")), nil); err == nil {
		t.Fatal("a bad set was accepted")
	}
	expect("a is back", apply(set(rule("a", "a", func(r *limitsv1.Rule) { r.Limit = 77 }))), "a", "b")
	if next, ok := k.Next(); !ok || !next.Equal(now.Add(30*time.Second)) {
		t.Fatalf("next expiry %v, %v", next, ok)
	}
	now = now.Add(30 * time.Second)
	tab := k.Expire(now)
	expect("b's minute is over", tab, "a")
	if tab.Rules()[0].Rate != (engine.Rate{Limit: 77, Window: time.Minute}) {
		t.Fatalf("the new number is not in use: %+v", tab.Rules()[0].Rate)
	}
	if _, ok := k.Next(); ok {
		t.Fatal("something is still to expire")
	}
	moved := rule("a", "elsewhere")
	expect("an id that moves leaves its old place for a while", apply(set(moved)), "a", "a")
}

func FuzzMatch(f *testing.F) {
	tab := table(f, rule("r", "r", by("a", "b")), rule("p", "p", plan("pro"), by("a")))
	f.Add("limit", "r", "a", "x", "b", "y")
	f.Add("limit", "p", "plan", "pro", "a", "y")
	f.Add("limit", "p", "plan", "", "a", `\h|`)
	f.Add("", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2, k3, v3 string) {
		descriptor := []limits.Entry{{Key: k1, Value: v1}, {Key: k2, Value: v2}, {Key: k3, Value: v3}}
		cell, ok, err := tab.Match(descriptor)
		if ok == (cell.Rule == nil) || ok && err != nil {
			t.Fatalf("%v, %v, %v", cell, ok, err)
		}
		again, _, _ := tab.Match(descriptor)
		if again != cell || len(cell.Key) > 1024 {
			t.Fatalf("key %q, then %q", cell.Key, again.Key)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	tab := table(b, rule("route/shop/orders/0", "route/shop/orders/0", by("tenant", "user")))
	descriptor := entries("limit=route/shop/orders/0", "tenant=acme", "user=alice@example.com")
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := tab.Match(descriptor); err != nil {
			b.Fatal(err)
		}
	}
}
