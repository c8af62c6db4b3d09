package oneview

import (
	"fmt"
	"regexp"
	"strings"
)

// before and behind are RE2 for what may stand around a parameter in a target.
const (
	before = `[^?]*\?(?:.*&)?`
	behind = `(?:&.*)?`
)

// HasPattern is RE2 for targets with a parameter of that name, however it is
// spelled.
func HasPattern(name string) string { return before + spelled(name, true) + `(?:=[^&]*)?` + behind }

// EqualsPattern is RE2 for targets with a parameter of that name and value; ""
// is also the value of a name without "=".
func EqualsPattern(name, value string) string {
	if value == "" {
		return before + spelled(name, true) + `=?` + behind
	}
	return before + spelled(name, true) + "=" + spelled(value, false) + behind
}

// BeginsPattern is RE2 for targets with a parameter of that name whose value
// begins so.
func BeginsPattern(name, prefix string) string {
	return before + spelled(name, true) + "=" + spelled(prefix, false) + `[^&]*` + behind
}

// PlainPattern is RE2 for targets with a parameter of that name, spelled as the
// name itself, whose value has no escape.
func PlainPattern(name string) string {
	return before + regexp.QuoteMeta(name) + `(?:=[^&%+]*)?` + behind
}

// spelled is RE2 for every way to write a text in a query.
func spelled(text string, name bool) string {
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		code := escapedAs(c)
		switch {
		case c == ' ':
			b.WriteString(`(?:\+|%20)`)
		case !bareQuery(c), c == '+', c == '&', c == '=' && name:
			b.WriteString(code)
		default:
			b.WriteString("(?:" + regexp.QuoteMeta(string(c)) + "|" + code + ")")
		}
	}
	return b.String()
}

// escapedAs is RE2 for the escape of a byte, in either case.
func escapedAs(c byte) string {
	out := "%"
	for _, d := range fmt.Sprintf("%02X", c) {
		if d >= 'A' {
			out += "[" + string(d) + string(d-'A'+'a') + "]"
		} else {
			out += string(d)
		}
	}
	return out
}
