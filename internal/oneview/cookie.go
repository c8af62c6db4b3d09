package oneview

import "regexp"

// Cookies are in one line; who splits it ends one at ";", at "," (Java) or at a
// space (Python), and a name without "=" has the value "" to PHP.
const (
	cookies = `(?:.*[;,\s])?`
	indices = `[^=;,\s]*`
)

// CookiePattern is RE2 for lines with a cookie of that name, as it is.
func CookiePattern(name string) string { return `(?:.*;)?\s*` + regexp.QuoteMeta(name) + `=.*` }

// CookieAliasPattern is RE2 for lines with a cookie that some decoder takes for
// one of that name.
func CookieAliasPattern(name string) string {
	one := alias(name, inCookie, indices) + `\s*`
	return cookies + one + `=.*|(?:.*;)?\s*` + one + `(?:;.*)?`
}

// CookieTwicePattern is RE2 for lines with two such cookies.
func CookieTwicePattern(name string) string {
	one := alias(name, inCookie, indices) + `\s*`
	return cookies + one + `(?:[=;].*[;,\s]|;)` + one + `(?:[=;].*)?`
}

// inCookie is RE2 for a character as it is or escaped: PHP before 8 and Rack
// before 2.2.3 decode names of cookies.
func inCookie(r string) string {
	escaped := ""
	for i := range len(r) {
		escaped += escapedAs(r[i])
	}
	return `(?:` + regexp.QuoteMeta(r) + `|` + escaped + `)`
}
