package oneview_test

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"tollgate/internal/oneview"
)

func whole(pattern string) *regexp.Regexp { return regexp.MustCompile(`^(?:` + pattern + `)$`) }

// FuzzSpelling: what Envoy decides by a pattern is what Parse decides by decoded
// names and values.
func FuzzSpelling(f *testing.F) {
	for _, seed := range [][3]string{
		{"mode", "admin", "mode=admin"},
		{"mode", "admin", "%6dode=%61dmin&a"},
		{"a b", "c+d", "x&a+b=c%2bd"},
		{"f[n]", "=", "f%5Bn]=="},
		{"a=b", "", "a%3db"},
		{"m", "é", "m=%c3%a9"},
		{"mode", "", "mode&mode="},
		{"m_x", "1", "+m.x=1"},
		{"m", "1", "m[]=1"},
		{"m", "1", "m%00x=1"},
		{"m_x", "1", "m[x=1"},
		{"m_x", "1", "m%5bx&m[x]=1"},
		{"mode", "1", "[mode]=1&%5bMODE%5d"},
		{"f[a_b]", "1", "[f].a+b=1&f%5B'a_b'%5D[]"},
		{"k", "", "%e2%84%aa.0"},
		{"_a", "", ".a&!%3f_a]"},
		{"mode", "", "m[]ode&m%5b%5Dode&a[b].c"},
		{"", "", "="},
		{"&", "&", "%26=%26"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, name, value, query string) {
		target := "/a/b?" + query
		got, err := oneview.Parse(target)
		if err != nil || len(name)+len(value) > 64 || name == "" || !utf8.ValidString(name) || !utf8.ValidString(value) {
			return
		}
		has, equals, begins, plain, count := false, false, false, false, 0
		for pair := range strings.SplitSeq(query, "&") {
			if raw, v, _ := strings.Cut(pair, "="); raw == name && !strings.ContainsAny(v, "%+") {
				plain = true
			}
		}
		for _, p := range got.Parameters {
			if p.Name == name {
				has, count = true, count+1
				equals = equals || p.Value == value
				begins = begins || value != "" && strings.HasPrefix(p.Value, value)
			}
		}
		for pattern, want := range map[string]bool{oneview.HasPattern(name): has, oneview.EqualsPattern(name, value): equals} {
			if whole(pattern).MatchString(target) != want {
				t.Errorf("%q: %s: %v, want %v: %q", target, pattern, !want, want, got.Parameters)
			}
		}
		if value != "" && whole(oneview.BeginsPattern(name, value)).MatchString(target) != begins {
			t.Errorf("%q: %q begins with %q: %v: %q", target, name, value, !begins, got.Parameters)
		}
		if !strings.ContainsAny(name, "&=") && whole(oneview.PlainPattern(name)).MatchString(target) != plain {
			t.Errorf("%q: %q is plain: %v", target, name, !plain)
		}
		ragged := slices.ContainsFunc(got.Parameters, func(p oneview.Parameter) bool { return oneview.Ragged(p.Name) })
		if whole(oneview.RaggedPattern).MatchString(target) != ragged {
			t.Errorf("%q: ragged: %v", target, ragged)
		}
		if has && !whole(oneview.AliasPattern(name)).MatchString(target) {
			t.Errorf("%q: %q is no alias of itself", target, name)
		}
		if aliased := slices.ContainsFunc(got.Parameters, func(p oneview.Parameter) bool { return oneview.Alias(p.Name, name) }); aliased && !whole(oneview.AliasPattern(name)).MatchString(target) {
			t.Errorf("%q: an alias of %q, unseen by the pattern", target, name)
		}
		if count > 1 && !whole(oneview.TwicePattern(name)).MatchString(target) {
			t.Errorf("%q: %q is there %d times, unseen", target, name, count)
		}
	})
}

func TestAliases(t *testing.T) {
	for query, want := range map[string]bool{
		"m_x=1": true, "m.x=1": true, "m%2ex": true, "m+x=1": true, "+m_x=1": true, "%20m_x=1": true, "m_x[]=1": true, "m_x%5b0%5d=1": true, "m_x%00y=1": true, "%6d_x=1": true, "m[x=1": true, "m%5Bx=1": true,
		"m-x=1": false, "mm_x=1": false, "m_xx=1": false, "m_x%2b=1": false, "a=m_x": false, "m[x]=1": false, "m[]_x": false,
	} {
		if got := whole(oneview.AliasPattern("m_x")).MatchString("/a?" + query); got != want {
			t.Errorf("%s: an alias of m_x: %v", query, got)
		}
		target, err := oneview.Parse("/a?" + query)
		if err != nil || oneview.Alias(target.Parameters[0].Name, "m_x") != want {
			t.Errorf("%s: read as an alias of m_x: %v, %v", query, !want, err)
		}
		if whole(oneview.TwicePattern("m_x")).MatchString("/a?" + query) {
			t.Errorf("%s: twice", query)
		}
		if got := whole(oneview.TwicePattern("m_x")).MatchString("/a?m_x=1&b&" + query + "&c"); got != want {
			t.Errorf("%s: the second m_x: %v", query, got)
		}
	}
	for _, name := range []string{"mode", "user_id", "a.b", "f[role]", "f[a][b_c]", "ké s"} {
		for query, want := range spellings(name) {
			if got := whole(oneview.AliasPattern(name)).MatchString("/a?"+query) || whole(oneview.RaggedPattern).MatchString("/a?"+query); got != want {
				t.Errorf("%s: the pattern takes it for %s: %v", query, name, got)
			}
			target, err := oneview.Parse("/a?" + query)
			if err != nil {
				t.Fatalf("%s: %v", query, err)
			}
			if got := target.Parameters[0].Name; (oneview.Alias(got, name) || oneview.Ragged(got)) != want {
				t.Errorf("%q: read as %s: %v", got, name, !want)
			}
		}
	}
	if whole(oneview.TwicePattern("f[a]")).MatchString("/a?f[a]=1&f[b]=2") {
		t.Error("f[b] is no alias of f[a]")
	}
	for name, want := range map[string]bool{"m_x": false, "a-b": false, "é": false, "m.x": true, "m[]": true, "m[": true, "[m]": true, "m]": true, "!m": true, "?m": true, "userId": false, " m": true, "m x": true, "m\x00": true} {
		if oneview.Folded(name) != want {
			t.Errorf("%q: folded %v", name, !want)
		}
	}
}

// spellings are queries of one parameter, and whether some decoder may take it
// for one of that name.
func spellings(name string) map[string]bool {
	escaped, upper := url.QueryEscape(name), url.QueryEscape(strings.ToUpper(name))
	if name == "ké s" {
		name = escaped
	}
	last := name[len(name)-1:]
	out := map[string]bool{
		name: true, escaped: true, "+" + name: true, "[" + name + "]": true, "[" + escaped + "][]": true, "%5B" + escaped + "%5d": true, "[]" + name: true, "][" + name: true, name + "]": true, name + "%5D": true,
		"." + name: true, name + ".0": true, name + ".]": true, "." + name + "..": true, "." + name + ".": true, name + "%2e": true, "." + name + ".[]": true, name + "%2e%5D[]": true, "%2e" + name + "%2E%31": true, "!" + name: true, "?" + name: true, name + "[]": true, name + "[0]": true, name + "%00": true, name + "[x]y": true,
		upper: true, strings.ToUpper(name[:1]) + name[1:]: true, "[" + upper + "]": true,
		"x" + name: false, "x." + name: false, "x[" + name + "]": false, "-" + name: false, name + "-": last == "]", name + "x": last == "]", name + "." + name: last == "]", "$" + name: false,
	}
	if head, index, nested := strings.Cut(name, "["); nested {
		index = "[" + index
		out["["+head+"]"+index] = true
		out[head+strings.NewReplacer("[", "['", "]", "']").Replace(index)] = true
		out[strings.NewReplacer("][", ".", "[", ".", "]", "").Replace(name)] = true
		out[head+"[x]"] = false
		out[head] = false
		out[head+strings.TrimSuffix(index, "]")+"x]"] = false
	}
	if head, rest, line := strings.Cut(name, "_"); line && !strings.Contains(name, "[") {
		out[head+"."+rest], out[head+"+"+rest], out[head+"["+rest] = true, true, true
		out[head+"["+rest+"]"], out[head+rest], out[head+"-"+rest] = false, false, false
	}
	if before, after := name[:1], name[1:]; len(name) > 3 {
		out[before+"[]"+after], out[before+"%5b%5D"+after] = true, true // ragged
	}
	return out
}
