package check_test

import (
	"fmt"
	"strings"
	"testing"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/internal/celenv"
)

// TestOneView (S3, S4, S10): a rule sees what the upstream will make of the
// request; where upstreams could disagree, it is 400.
func TestOneView(t *testing.T) {
	refuse := func(expr string) []*authzv1.Rule {
		return []*authzv1.Rule{
			{Id: "deny", Condition: &authzv1.Rule_Deny{Deny: expr}},
			{Id: "allow", Condition: &authzv1.Rule_Allow{Allow: "true"}},
		}
	}
	const (
		mode   = `"mode" in request.query && request.query["mode"] == "admin"`
		user   = `"user_id" in request.query && request.query["user_id"] == "1"`
		header = `"x-mode" in request.headers && request.headers["x-mode"] == "admin"`
		any    = `request.query.exists(k, request.query[k] == "admin")`
		both   = mode + ` || ` + any
		role   = `"f[role]" in request.query && request.query["f[role]"] == "admin"`
		prefix = `request.path.startsWith("/cel/a:b")`
		parts  = `size(request.segments) == 2 && request.segments[1] == "a b"`
		accent = `request.path == "/caf%C3%A9"`
	)
	many := strings.Repeat("a", celenv.MaxText+1)
	for _, test := range []struct {
		rule, target string
		headers      []string
		status       int
	}{
		{mode, "/x?mode=user", nil, 200},
		{mode, "/x", nil, 200},
		{mode, "/x?a=1&a=2&b", nil, 200}, // twice, but nobody looks
		{mode, "/x?mode=admin", nil, 403},
		{mode, "/x?%6dode=%61dmin", nil, 403},
		{mode, "/x?mode=admin&mode=x", nil, 400},
		{mode, "/x?mode=x&%6Dode=admin", nil, 400},
		{mode, "/x?mode[]=admin", nil, 400}, // PHP and qs read mode in all of these
		{mode, "/x?mode%5B0%5D=admin", nil, 400},
		{mode, "/x?+mode=admin", nil, 400},
		{mode, "/x?mode=user&mode%00x=admin", nil, 400},
		{mode, "/x?other[]=1&other[]=2&a.b=c&[other]=1&modes=1", nil, 200},
		{mode, "/x?[mode]=admin", nil, 400}, // qs
		{mode, "/x?%5bmode%5D=admin", nil, 400},
		{mode, "/x?[mode][]=admin", nil, 400},
		{mode, "/x?mode=user&[mode]=admin", nil, 400},
		{mode, "/x?mode]=admin", nil, 400}, // Rack 2
		{mode, "/x?.mode=admin", nil, 400},
		{mode, "/x?mode.0=admin", nil, 400},
		{mode, "/x?m[]ode=admin", nil, 400}, // Fiber
		{mode, "/x?!mode=admin", nil, 400},  // Spring
		{mode, "/x?Mode=admin", nil, 400},   // ASP.NET
		{mode, "/x?mode=user&MODE=admin", nil, 400},
		{mode, "/x??mode=admin", nil, 400}, // URLSearchParams
		{role, "/x?f[role]=admin", nil, 403},
		{role, "/x?f[role]=user&f[name]=ann", nil, 200},
		{role, "/x?[f][role]=admin", nil, 400},
		{role, "/x?f.role=admin", nil, 400},
		{role, "/x?f[role]x=admin", nil, 400},
		{role, "/x?f[role][]=admin", nil, 400},
		{role, "/x?f['role']=admin", nil, 400},
		{user, "/x?user.id=1", nil, 400},
		{user, "/x?user+id=1", nil, 400},
		{user, "/x?user[id=1", nil, 400},
		{user, "/x?user[id]=1", nil, 200},
		{user, "/x?user_id=1", nil, 403},
		{mode, "/x?a=1;mode=admin", nil, 400},
		{mode, "/x?mode=admin;", nil, 400},
		{mode, "/x?mode=admin%zz", nil, 400},
		{mode, "/x?mode=admin" + strings.Repeat("&", 12_000), nil, 400},
		{mode, "/x?mode=" + many, nil, 400},
		{header, "/x", []string{"x-mode", "user"}, 200},
		{header, "/x", []string{"accept", "a", "accept", "b"}, 200},
		{header, "/x", []string{"x-mode", "admin"}, 403},
		{header, "/x", []string{"x-mode", "admin", "x-mode", "user"}, 400},
		{header, "/x", []string{"X-Mode", "user", "x-mode", "user"}, 400},
		{header, "/x", []string{"x-mode", "caf\xc3\xa9"}, 400},
		{header, "/x", []string{"x-mode", many}, 400},
		{any, "/x?a=1&b=2", nil, 200},
		{any, "/x?a=1&b=admin", nil, 403},
		{any, "/x?a=1&a=2", nil, 400},
		{any, "/x?a.b=1", nil, 400},
		{any, "/x?a[]=1", nil, 400},
		{any, "/x?[a]=1", nil, 400},
		{any, "/x?a]=1", nil, 400},
		{any, "/x?!a=1", nil, 400},
		{any, "/x?userId=1", nil, 200},
		{both, "/x?userId=1", nil, 200},
		{both, "/x?Mode=user", nil, 400}, // one name is known
		{prefix, "/cel/a:b", nil, 403},
		{prefix, "/cel/a%3Ab", nil, 400},
		{prefix, "/cel/a%3ab", nil, 400},
		{prefix, "/" + strings.Repeat("a/", 200), nil, 400},
		{parts, "/x/a%20b", nil, 403},
		{parts, "/x/a%20c", nil, 200},
		{accent, "/caf%c3%a9", nil, 403},
		{accent, "/caf%C3%A9", nil, 403},
	} {
		g := newGate(t, nil, &authzv1.Policy{
			Name: "view@1", Route: "view", Audiences: []string{"orders"}, Rules: refuse(test.rule),
			Credentials: &authzv1.Credentials{Mode: authzv1.Credentials_ANY_OF, Credentials: []*authzv1.Credential{{Kind: &authzv1.Credential_ApiKey{ApiKey: &authzv1.ApiKey{}}}}},
		})
		response, err := g.Check(t.Context(), request("view@1", "GET", test.target, append([]string{"x-api-key", g.key}, test.headers...)...))
		if err != nil {
			t.Fatal(err)
		}
		closed(t, response)
		status := 200
		if d := response.GetDeniedResponse(); d != nil {
			status = int(d.GetStatus().GetCode())
		}
		if status != test.status {
			t.Errorf("%s: %.60s %.60s: %d, want %d: %s", test.rule, test.target, fmt.Sprint(test.headers), status, test.status, response.GetDeniedResponse().GetBody())
		}
	}
	g := newGate(t, nil)
	for _, method := range []string{"delete", "Get", "", "GE T", "GET\t"} {
		response, err := g.Check(t.Context(), request("orders@1", method, "/x", "x-api-key", g.key))
		if err != nil || response.GetDeniedResponse().GetStatus().GetCode() != 400 {
			t.Errorf("method %q: %v, %v", method, response, err)
		}
	}
}
