package guard

import (
	"fmt"
	"regexp"
	"slices"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/internal/oneview"
	"tollgate/xds/compile/field"
	"tollgate/xds/config"
)

// NamesFilter and LinesFilter sleep in every listener; virtual hosts whose
// routes have conditions wake them.
const (
	NamesFilter = "tollgate.guard.names"
	LinesFilter = "tollgate.guard.lines"
)

// Names is the configuration of NamesFilter: nothing but what hosts say.
func Names() *rbacv3.RBAC { return &rbacv3.RBAC{} }

// Lines is the configuration of LinesFilter. No matcher of Envoy can count the
// lines of a header: all of them see the lines joined by commas, and a comma may
// as well be in one honest line.
func Lines() *luav3.Lua {
	return &luav3.Lua{DefaultSourceCode: field.Inline(`function envoy_on_request(handle)
  local headers, names = handle:headers(), handle:filterContext():get("names")
  if names == nil then
    handle:respond({[":status"] = "400"}, "")
    return
  end
  for name in string.gmatch(names, "%S+") do
    if headers:getNumValues(name) > 1 then
      handle:respond({[":status"] = "400"}, "")
      return
    end
  end
end
`)}
}

// Host is what the routes of a virtual host look at.
type Host struct{ headers, cookies, query, patterns []string }

// Look adds the conditions of a route.
func (h *Host) Look(m *config.Match) {
	for _, c := range m.Headers {
		h.headers = append(h.headers, c.Name)
	}
	for _, c := range m.Cookies {
		h.cookies = append(h.cookies, c.Name)
	}
	for _, c := range m.Query {
		h.query = append(h.query, c.Name)
		if c.Op == config.Matches {
			h.patterns = append(h.patterns, c.Name)
		}
	}
}

// PerHost is the configuration of the filters for the virtual host; nil when
// nobody looks at anything.
func (h *Host) PerHost() map[string]*anypb.Any {
	out := map[string]*anypb.Any{}
	if policies := h.policies(); len(policies) > 0 {
		out[NamesFilter] = field.Any(&rbacv3.RBACPerRoute{Rbac: &rbacv3.RBAC{Rules: deny(policies)}})
	}
	headers := distinct(h.headers)
	if len(h.cookies) > 0 {
		headers = distinct(append(headers, "cookie"))
	}
	if len(headers) > 0 {
		names := ""
		for _, name := range headers {
			names += name + " "
		}
		out[LinesFilter] = field.Any(&luav3.LuaPerRoute{FilterContext: field.Struct(map[string]any{"names": names})})
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func (h *Host) policies() map[string]*rbacconfigv3.Permission {
	out := map[string]*rbacconfigv3.Permission{}
	for i, name := range distinct(h.query) {
		shown := shown(name, i)
		out["guard-query-"+shown+"-twice"] = when(":path", oneview.TwicePattern(name))
		// Somebody takes it for the name, yet it is not.
		out["guard-query-"+shown+"-alias"] = both(when(":path", oneview.AliasPattern(name)), unless(":path", oneview.HasPattern(name)))
	}
	if len(h.query) > 0 {
		out["guard-query-brackets"] = when(":path", oneview.RaggedPattern)
	}
	for i, name := range distinct(h.patterns) {
		// A regular expression is shown the value as it is written, so it must be
		// written as it is.
		out["guard-query-"+shown(name, i)+"-escaped"] = both(when(":path", oneview.HasPattern(name)), unless(":path", oneview.PlainPattern(name)))
	}
	for i, name := range distinct(h.cookies) {
		shown := shown(name, i)
		out["guard-cookie-"+shown+"-twice"] = when("cookie", oneview.CookieTwicePattern(name))
		out["guard-cookie-"+shown+"-alias"] = both(when("cookie", oneview.CookieAliasPattern(name)), unless("cookie", oneview.CookiePattern(name)))
		// What parsers of cookies trim, unescape or unquote, our condition does not.
		out["guard-cookie-"+shown+"-escaped"] = when("cookie", `(?:.*[;,])?\s*`+regexp.QuoteMeta(name)+`(?:\s+=.*|=\s+[^;,\s].*|=[^;,]*[%\\].*)`)
	}
	return out
}

// shown is a name as a log can bear it.
func shown(name string, i int) string {
	if plainName.MatchString(name) {
		return name
	}
	return fmt.Sprint(i)
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,40}$`)

func both(rules ...*rbacconfigv3.Permission) *rbacconfigv3.Permission {
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_AndRules{AndRules: &rbacconfigv3.Permission_Set{Rules: rules}}}
}

func distinct(names []string) []string {
	out := slices.Clone(names)
	slices.Sort(out)
	return slices.Compact(out)
}
