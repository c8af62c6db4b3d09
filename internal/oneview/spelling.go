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

// AliasPattern is RE2 for targets with a parameter that some decoder takes for
// one of that name: HasPattern, and what PHP makes of names.
func AliasPattern(name string) string { return before + alias(name) + `(?:=[^&]*)?` + behind }

// TwicePattern is RE2 for targets with two such parameters.
func TwicePattern(name string) string {
	return before + alias(name) + `(?:=[^&]*)?&(?:.*&)?` + alias(name) + `(?:=[^&]*)?` + behind
}

// Alias reports whether some decoder takes a decoded name for another one: what
// AliasPattern is for targets.
func Alias(name, of string) bool {
	return name == of || fold(name, !strings.Contains(of, "[")) == underscored(of)
}

// Folded reports whether some decoder takes a decoded name for another one.
func Folded(name string) bool { return fold(name, true) != name }

// fold is what PHP makes of a name: spaces before it are dropped, "." and " " are
// "_", and what follows "[" or NUL is no part of it; but a "[" that nothing
// closes is "_", too.
func fold(name string, list bool) string {
	name = strings.TrimLeft(name, " ")
	if list {
		name, _, _ = strings.Cut(name, "\x00")
		if head, index, open := strings.Cut(name, "["); open && strings.Contains(index, "]") {
			name = head
		} else if open {
			name = head + "_" + index
		}
	}
	return underscored(name)
}

func underscored(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == ' ' {
			return '_'
		}
		return r
	}, name)
}

// alias adds what PHP makes of names (fold).
func alias(name string) string {
	var b strings.Builder
	b.WriteString(`(?:\+|%20)*`)
	for i := range len(name) {
		if strings.IndexByte("_. ", name[i]) >= 0 {
			b.WriteString(`(?:[_.+\[]|%5[BbFf]|%2[Ee]|%20)`)
		} else {
			b.WriteString(spelled(name[i:i+1], true))
		}
	}
	if !strings.Contains(name, "[") {
		b.WriteString(`(?:(?:\[|%5[Bb]|%00)[^=&]*)?`)
	}
	return b.String()
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
