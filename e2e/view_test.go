package e2e_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
	"tollgate/internal/oneview"
)

// viewGateway gives every upstream the same routes, under a host of its own.
// What begins with "strict" nobody may use: an answer from the upstream to a
// request that it reads as a strict one is a way around. Only a rule of /r looks
// at role, no condition of the host does: elsewhere role may be there twice.
func viewGateway(languages []string) string {
	var upstreams, routes strings.Builder
	for _, l := range languages {
		fmt.Fprintf(&upstreams, "  - {name: %s, endpoints: [\"${%s}\"]}\n", l, l)
		fmt.Fprintf(&routes, `  - name: %[1]s
    match: {hosts: [%[1]s.test]}
    upstream: %[1]s
    routes:
      - {name: strict-verb, match: {path: {exact: "/p/things:purge"}}, authorize: [{permission: "never:ever"}]}
      - {name: strict-me, match: {path: {prefix: "/p/@me"}}, authorize: [{permission: "never:ever"}]}
      - {name: strict-cafe, match: {path: {prefix: "/p/caf%%C3%%A9"}}, authorize: [{permission: "never:ever"}]}
      - {name: strict-query, match: {path: {prefix: /p}, query: {mode: admin}}, authorize: [{permission: "never:ever"}]}
      - {name: strict-header, match: {path: {prefix: /p}, headers: {x-mode: admin}}, authorize: [{permission: "never:ever"}]}
      - {name: public, match: {path: {prefix: /p}}, auth: public}
      - {name: blind, match: {path: {prefix: /s}}, auth: public}
      - name: rules
        match: {path: {prefix: /r}}
        authorize:
          - {deny: '"mode" in request.query && request.query["mode"] == "admin"'}
          - {deny: '"role" in request.query && request.query["role"] == "admin"'}
          - {deny: '"x-mode" in request.headers && request.headers["x-mode"] == "admin"'}
          - {deny: 'request.path.startsWith("/r/@me") || request.path == "/r/things:purge"'}
          - {deny: 'size(request.segments) > 1 && request.segments[1] == "café"'}
          - {deny: 'request.method == "DELETE"'}
          - {allow: 'true'}
`, l)
	}
	return head + "defaults: {auth: " + either + "}\nupstreams:\n" + upstreams.String() + "routes:\n" + routes.String()
}

// view is what an upstream made of a request.
type view struct {
	Method   string      `json:"method"`
	Segments []string    `json:"segments"`
	Query    [][2]string `json:"query"`
	Mode     string      `json:"mode"`
	Error    string      `json:"error"`
}

// strict reports whether who reads it so may not have it.
func (v *view) strict() bool {
	at := func(i int) string {
		if i < len(v.Segments) {
			return v.Segments[i]
		}
		return ""
	}
	admin := slices.ContainsFunc(v.Query, func(p [2]string) bool { return folded(p[0]) == "mode" && p[1] == "admin" })
	ruled := slices.ContainsFunc(v.Query, func(p [2]string) bool { return folded(p[0]) == "role" && p[1] == "admin" })
	return admin || at(0) == "r" && ruled || v.Mode == "admin" || at(1) == "@me" || at(1) == "things:purge" && len(v.Segments) == 2 || at(1) == "café" ||
		at(0) == "r" && strings.EqualFold(v.Method, http.MethodDelete)
}

// folded is the name that one framework or another over these readers has for a
// parameter: without brackets, what they index, its case, and marks before it.
func folded(name string) string {
	name = strings.TrimLeft(strings.ReplaceAll(name, "[]", ""), " !.?[]")
	if end := strings.IndexAny(name, "[]\x00"); end >= 0 {
		name = name[:end]
	}
	return strings.ToLower(strings.TrimSuffix(name, ".0"))
}

// probe is one request; lines are further header lines.
type probe struct {
	method, target string
	lines          []string
}

// readGo is the view of Go's net/http.
func readGo(w http.ResponseWriter, r *http.Request) {
	v := view{Method: r.Method, Segments: strings.Split(r.URL.Path, "/")[1:], Mode: r.Header.Get("x-mode")}
	for name, values := range r.URL.Query() {
		for _, value := range values {
			v.Query = append(v.Query, [2]string{name, value})
		}
	}
	_ = json.NewEncoder(w).Encode(v)
}

// viewTargets are paths and queries that decoders are known to differ in, and
// every byte, bare and escaped in either case, in each place.
func viewTargets() []string {
	out := []string{
		"/p", "/p/", "/p/a", "/p/a/", "/p/things:purge", "/p/things%3Apurge", "/p/things%3apurge", "/p/thing%73:purge", "/p/@me", "/p/%40me", "/p/@m%65", "/p/@me/x", "/p/caf%C3%A9", "/p/caf%c3%a9", "/p/caf%C3%a9/x",
		"/p/cafe%CC%81", "/p/caf%E9", "/p/..;/r", "/p/;/@me", "/p/@me;x", "/p/;@me", "/p/./@me", "/p//@me", "/p/%2e/@me", "/p/%2e%2e/p/@me", "/p/x/../@me", `/p\@me`, "/p/%5c@me", "/p%2f@me", "/p/%252e", "/p/%25%34%30me",
		"/p/%c0%80", "/p/%c1%80me", "/p/%e0%81%80me", "/p/%f0%80%81%80me", "/p/%ed%a0%80", "/p/%ef%bc%a0me", "/p/%u0040me", "/p/%", "/p/%4", "/p/%4g", "/p/a%20b", "/p/a+b", "/p/a%2bb", "/p/[1]", "/p/%5b1%5D", "/p/a%3fb", "/p/a%23b", "/p/a%22b",
		"/p?mode=admin", "/p?mode=user", "/p?%6dode=admin", "/p?mode=%61dmin", "/p?mode=user&mode=admin", "/p?mode=admin&mode=user", "/p?mode=user&%6dode=admin", "/p?mode", "/p?mode=", "/p?mode&mode=admin", "/p?a=1;mode=admin", "/p?mode=admin;a",
		"/p?mode=admin%zz", "/p?mode=admin%", "/p?mode=admin%00", "/p?mode%00=admin", "/p?+mode=admin", "/p?mode+=admin", "/p?%20mode=admin", "/p?mode[]=admin", "/p?mode%5b%5d=admin", "/p?mode.=admin", "/p?Mode=admin", "/p?mode=Admin", "/p?mode==admin", "/p?=mode=admin",
		"/p??mode=admin", "/p?&mode=admin", "/p?&&mode=admin&&", "/p?mode=%E0%80%80", "/p?a=%ff&mode=admin", "/p?a=%C3%A9&b=%c3%a9", "/p?a=%F0%9F%98%80", "/p?a=b=c", "/p?a=b%26mode=admin", "/p?a=b%3Bmode=admin", "/p?mode%3Dadmin", "/p?a=/../@me", "/p?a=%2e%2e%2f",
		"/p?" + strings.Repeat("a&", 127) + "mode=admin", "/p?" + strings.Repeat("a&", 128) + "mode=admin", "/p?mode=admin" + strings.Repeat("&", 12_000), "/p?" + strings.Repeat("a=1&", 1100) + "mode=admin",
		`/p?a={"b":[1]}`, "/p?a=|^`", `/p?a=\`, "/p?a='()*!$,:@/~", "/p?a=%0d%0a", "/p?a=<b>",
	}
	for i := range len(out) {
		out = append(out, "/r"+strings.TrimPrefix(out[i], "/p"))
	}
	for _, form := range []string{"[%s]", "%%5B%s%%5d", "[%s][]", "[]%s", "%s]", ".%s", "%s.0", "!%s", "?%s", "%s[", "][%s", "[%s]x"} {
		for _, path := range []string{"/p?", "/r?"} {
			out = append(out, path+fmt.Sprintf(form, "mode")+"=admin", path+"mode=user&"+fmt.Sprintf(form, "mode")+"=admin")
		}
		out = append(out, "/r?"+fmt.Sprintf(form, "role")+"=admin", "/s?"+fmt.Sprintf(form, "role")+"=admin")
	}
	out = append(out, "/p?MODE=admin", "/p?m[]ode=admin", "/r?m%5B%5Dode=admin", "/r?r[]ole=admin", "/p?mode=user&Mode=admin", "/p?[other]=admin", "/r?other[mode]=admin")
	for _, query := range []string{
		"role=admin", "role=user", "%72ole=admin", "role=%61dmin", "role=user&role=admin", "role=admin&role=user", "role=user&%72ole=admin", "role", "role&role=admin",
		"role[]=admin", "+role=admin", "role%00=admin", "role%5b0%5d=admin", "Role=admin", "role==admin", "role=admin&" + strings.Repeat("a&", 127),
	} {
		out = append(out, "/r?"+query, "/s?"+query)
	}
	for c := range 256 {
		out = append(out, fmt.Sprintf("/p/x%%%02Xy", c), fmt.Sprintf("/p?a%%%02xb=c%%%02xd", c, c))
		if lower := fmt.Sprintf("/r/x%%%02xy", c); !slices.Contains(out, strings.ToUpper(lower)) {
			out = append(out, lower)
		}
		if c > 0x20 && c < 0x7f {
			out = append(out, fmt.Sprintf("/p/x%cy", c), fmt.Sprintf("/r?a%cb=c%cd", c, c))
		}
	}
	return out
}

// viewRequests are methods and headers that readers differ in.
func viewRequests() []probe {
	var out []probe
	for _, path := range []string{"/p/h", "/r/h"} {
		for _, lines := range [][]string{
			{"x-mode: admin"},
			{"x-mode: user"},
			{"X-Mode: admin"},
			{"x-mode:admin "},
			{"x-mode: \tadmin\t"},
			{"x-mode: admin", "x-mode: user"},
			{"x-mode: user", "x-mode: admin"},
			{"x-mode: user", "X-MODE: admin"},
			{"x-mode:", "x-mode: admin"},
			{"x-mode: user,admin"},
			{"x-mode: admin,user"},
			{"x_mode: admin"},
			{"x-mode : admin"},
			{"x-mode: user", " admin"},
			{"x-mode: ad", " min"},
			{"x-mode: admin\x00"},
			{"x-mode: \"admin\""},
			{"x-mode: adm\u00edn"},
			{"x-http-method-override: DELETE"},
			{"x-http-method: DELETE"},
			{"x-method-override: DELETE"},
		} {
			out = append(out, probe{"GET", path, lines})
		}
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "delete", "Delete", "dELETE", "DELETE ", "PROPFIND", "TRACE", "QUERY", "G\x00T"} {
			out = append(out, probe{method, path, nil})
		}
	}
	return out
}

// mutant is one of the targets with a few bytes of it changed.
func mutant(r *rand.Rand, targets []string) string {
	pieces := []string{"%", "%6d", "%6D", "mode", "=", "admin", "role", "&", ";", "+", "?", "/", ".", "..", "//", "@me", ":", "%40", "%3A", "%c3", "%A9", "%00", "%2e", "%2F", "%25", "[", "]", "\\", "#", "a", "%e0", "%80", "%ff", "%20", "%5f", "[]", "%5B", "%5d", "Mode", "[mode]", "!", "role]"}
	target := targets[r.IntN(len(targets))]
	if len(target) > 300 {
		target = "/p?mode=user"
	}
	for range 1 + r.IntN(4) {
		at := 2 + r.IntN(len(target)-1)
		end := min(len(target), at+r.IntN(3))
		target = target[:at] + pieces[r.IntN(len(pieces))] + target[end:]
	}
	return target
}

// TestOneView (S3, S4, S13): whatever the target, the method and the headers,
// upstreams of four languages read what rules and routes were shown, and nothing
// that is refused for one spelling passes in another; or it is 400.
// ONE_VIEW_FUZZ (a duration, none unless set) is how long mutants of the
// table follow, ONE_VIEW_SEED makes them those of another run.
func TestOneView(t *testing.T) {
	languages := append([]string{"go"}, harness.Languages()...)
	vars := map[string]string{}
	own := harness.NewUpstream(t, "go")
	own.Handle(readGo)
	vars["go"] = own.Address
	for _, l := range harness.Languages() {
		vars[l] = harness.NewReader(t, l)
	}
	s := harness.NewStack(t, harness.Options{
		Gateway: viewGateway(languages), Vars: vars,
		Keys: []harness.Key{{Name: "a", Tenant: "acme", Owner: "ann", Permissions: []string{"orders:read"}}},
	})
	v := &viewer{address: s.Address(t, "http"), key: s.Secrets["a"], languages: languages, count: map[int]int{}}
	targets := viewTargets()
	for _, target := range targets {
		v.check(t, probe{"GET", target, nil})
	}
	for _, l := range languages {
		for _, target := range []string{"/s?role=user&role=admin", "/s?role[]=admin"} {
			if answer := v.ask(t, "GET "+target+" HTTP/1.1\r\nHost: "+l+".test\r\nconnection: close\r\n\r\n"); answer.Status != http.StatusOK {
				t.Errorf("%s, where nobody looks at role: %d %.200s", target, answer.Status, answer.Body)
			}
		}
	}
	requests := viewRequests()
	for _, p := range requests {
		v.check(t, p)
	}
	t.Logf("%d targets and %d methods and headers for %d languages, by status %v", len(targets), len(requests), len(languages), v.count)
	if n := len(targets) + len(requests); n < 400 || v.count[http.StatusOK] < n/4 || v.count[http.StatusForbidden] < 50 {
		t.Errorf("%d inputs, by status %v: the table is too small, or nothing gets through", n, v.count)
	}
	budget, err := time.ParseDuration(or(os.Getenv("ONE_VIEW_FUZZ"), "0s"))
	if err != nil {
		t.Fatal(err)
	}
	var seed uint64 = 1
	if text := os.Getenv("ONE_VIEW_SEED"); text != "" {
		if _, err := fmt.Sscan(text, &seed); err != nil {
			t.Fatal(err)
		}
	}
	random, mutants := rand.New(rand.NewPCG(seed, 0)), 0
	for end := time.Now().Add(budget); time.Now().Before(end) && !t.Failed(); mutants++ {
		v.check(t, probe{"GET", mutant(random, targets), nil})
	}
	t.Logf("%d mutants of seed %d", mutants, seed)
}

// viewer sends probes to every upstream and compares.
type viewer struct {
	address, key string
	languages    []string
	count        map[int]int
}

func (v *viewer) check(t *testing.T, p probe) {
	t.Helper()
	statuses := map[int]bool{}
	for _, l := range v.languages {
		raw := p.method + " " + p.target + " HTTP/1.1\r\nHost: " + l + ".test\r\nx-api-key: " + v.key + "\r\nconnection: close\r\n"
		for _, line := range p.lines {
			raw += line + "\r\n"
		}
		answer := v.ask(t, raw+"\r\n")
		v.count[answer.Status]++
		fromUpstream := answer.Header.Get("x-upstream") != ""
		if answer.Status == http.StatusOK && p.method != http.MethodHead {
			v.compare(t, p, l, answer.Body)
		}
		if fromUpstream || answer.Status != http.StatusBadRequest || strings.Contains(answer.Body, `"bad_request"`) {
			statuses[answer.Status] = true // what Java's own parser refuses is no view
		}
		if answer.Status >= 500 && answer.Status != http.StatusNotImplemented {
			t.Errorf("%s %.200q %q to %s: %d %.300s", p.method, p.target, p.lines, l, answer.Status, answer.Body)
		}
	}
	if len(statuses) > 1 {
		t.Errorf("%s %.200q %q: hosts of equal routes answered %v", p.method, p.target, p.lines, statuses)
	}
}

// ask sends a request again while the gateway is too busy to decide: that
// refuses, and is nobody's view.
func (v *viewer) ask(t *testing.T, raw string) traffic.Wire {
	t.Helper()
	var answer traffic.Wire
	for range 50 {
		var err error
		if answer, err = traffic.HTTP1(v.address, []byte(raw)); err == nil && answer.Status != http.StatusServiceUnavailable {
			return answer
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("no decision on %.300q: %d %s", raw, answer.Status, answer.Body)
	return answer
}

// compare holds one upstream's view to the one that rules were shown.
func (v *viewer) compare(t *testing.T, p probe, language, body string) {
	t.Helper()
	var got view
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Error != "" {
		t.Errorf("%s %.200q %q: %s cannot read it: %v %.300s", p.method, p.target, p.lines, language, err, body)
		return
	}
	if got.strict() {
		t.Errorf("%s %.200q %q: %s reads what nobody may have: %+v", p.method, p.target, p.lines, language, got)
	}
	shown, err := oneview.Parse(p.target)
	if err != nil {
		// Envoy's normalization made it plain; what came of it is in the view.
		target := ""
		for _, segment := range got.Segments {
			target += "/" + url.PathEscape(segment)
		}
		target = strings.NewReplacer("%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*", "%2C", ",").Replace(target)
		_, query, asked := strings.Cut(p.target, "?")
		if asked {
			target += "?" + query
		}
		if shown, err = oneview.Parse(target); err != nil {
			t.Errorf("%s %.200q: %s got %+v, which rules cannot read: %v", p.method, p.target, language, got, err)
			return
		}
	}
	want := make([][2]string, 0, len(shown.Parameters))
	for _, q := range shown.Parameters {
		want = append(want, [2]string{q.Name, q.Value})
	}
	order := func(a, b [2]string) int { return strings.Compare(a[0]+"\x00"+a[1], b[0]+"\x00"+b[1]) }
	slices.SortFunc(want, order)
	slices.SortFunc(got.Query, order)
	if !slices.Equal(got.Query, want) {
		t.Errorf("%.200q: %s reads the query %q, rules %q", p.target, language, got.Query, want)
	}
	if normal := !strings.ContainsAny(p.target, `\`) && !strings.Contains(p.target, "/.") && !strings.Contains(p.target, "//") && !strings.Contains(strings.ToLower(p.target), "%2e"); normal && !slices.Equal(got.Segments, shown.Segments) {
		t.Errorf("%.200q: %s reads the segments %q, rules %q", p.target, language, got.Segments, shown.Segments)
	}
	if got.Method != strings.TrimSpace(p.method) {
		t.Errorf("%s %.200q: %s reads the method %s", p.method, p.target, language, got.Method)
	}
}
