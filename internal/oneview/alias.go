package oneview

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Who reads another name than the one that is written, each as its source says:
// PHP drops spaces before it, has "_" for "." and " " and for a "[" that nothing
// closes, and ends it at NUL; qs (Express) reads [mode] and, asked to,
// .mode, mode.0, mode.] and .mode..; Rack 2 drops brackets before and behind; Spring takes
// !mode for a default of mode and f['a'] for f[a]; URLSearchParams drops a "?"
// before the first; ASP.NET, Echo, gorilla/schema and Spring disregard case; all
// of them read mode[] and mode[0] as mode, and f[a] as what others write f.a.
const (
	leading    = " !.?[]"
	underlines = "_. "
	separators = `[].'"`

	leads      = `(?:[ !+.?\[\]]|%(?:2[01Ee]|3[Ff]|5[BbDd]))*`
	underline  = `(?:[_. +]|%(?:2[0Ee]|5[Ff]))`
	unclosed   = `(?:[_. +\[]|%(?:2[0Ee]|5[BbFf]))`
	separator  = `(?:[\[\].'"]|%(?:2[27Ee]|5[BbDd]))`
	indexed    = `\[|\]|%(?:00|5[BbDd])|(?:\.|%2[Ee])(?:[0-9.\[\]]|%(?:2[Ee]|3[0-9]|5[BbDd]))`
	unindexed  = `\[|%(?:00|5[Bb])`
	otherwise  = `(?:[^\[\].=&%]|%(?:[^25]|2[^Ee]|5[^BbDd]))`
	parameters = `[^=&]*`
)

// AliasPattern is RE2 for targets with a parameter that some decoder takes for
// one of that name: HasPattern, and what decoders make of other names.
func AliasPattern(name string) string {
	return before + alias(name, inQuery, parameters) + `(?:=[^&]*)?` + behind
}

// TwicePattern is RE2 for targets with two such parameters.
func TwicePattern(name string) string {
	one := alias(name, inQuery, parameters)
	return before + one + `(?:=[^&]*)?&(?:.*&)?` + one + `(?:=[^&]*)?` + behind
}

// RaggedPattern is RE2 for targets with a parameter whose name goes on behind a
// closed bracket: Fiber reads m[]ode as mode, PHP and qs f[a]x as f[a].
const RaggedPattern = before + parameters + `(?:\]|%5[Dd])` + otherwise + `.*`

// Ragged reports the same of a decoded name.
func Ragged(name string) bool {
	for {
		_, rest, closed := strings.Cut(name, "]")
		if !closed || rest == "" {
			return false
		}
		if strings.IndexByte("[].", rest[0]) < 0 {
			return true
		}
		name = rest
	}
}

// Alias reports whether some decoder takes a decoded name for another one: what
// AliasPattern is for targets.
func Alias(name, of string) bool {
	for rest := name; ; rest = rest[1:] {
		if follows(rest, of) {
			return true
		}
		if rest == "" || strings.IndexByte(leading, rest[0]) < 0 {
			break
		}
	}
	return !strings.Contains(of, "[") && mangled(name) == underscored(of)
}

// Folded reports whether some decoder takes a decoded name for another one,
// whatever that is; case apart.
func Folded(name string) bool {
	return strings.ContainsAny(name, ". []\x00") || name != "" && strings.IndexByte(leading, name[0]) >= 0
}

// follows reports whether a name is another one up to where an index may begin.
func follows(name, of string) bool {
	for of != "" {
		switch {
		case of[0] == '[' || of[0] == ']':
			if of = strings.TrimLeft(of, "[]"); of == "" {
				name = strings.TrimLeft(name, `'"`)
				continue
			}
			rest := strings.TrimLeft(name, separators)
			if rest == name {
				return false
			}
			name = rest
		case name == "":
			return false
		case strings.IndexByte(underlines, of[0]) >= 0:
			if strings.IndexByte(underlines, name[0]) < 0 {
				return false
			}
			name, of = name[1:], of[1:]
		default:
			_, n := utf8.DecodeRuneInString(name)
			_, o := utf8.DecodeRuneInString(of)
			if !strings.EqualFold(name[:n], of[:o]) {
				return false
			}
			name, of = name[n:], of[o:]
		}
	}
	return name == "" || name == "." || strings.IndexByte("[]\x00", name[0]) >= 0 || len(name) > 1 && name[0] == '.' && strings.IndexByte("0123456789.[]", name[1]) >= 0
}

// mangled is what PHP makes of a name.
func mangled(name string) string {
	name, _, _ = strings.Cut(strings.TrimLeft(name, " "), "\x00")
	if head, index, open := strings.Cut(name, "["); open && strings.Contains(index, "]") {
		name = head
	} else if open {
		name = strings.ReplaceAll(name, "[", "_")
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

// alias is RE2 for every name that some decoder takes for this one; rest is what
// may stand in an index.
func alias(name string, written func(string) string, rest string) string {
	out := leads + each(name, written, underline, true) + `(?:(?:` + indexed + `)` + rest + `|\.|%2[Ee])?`
	if strings.ContainsAny(name, underlines) && !strings.Contains(name, "[") {
		out = `(?:` + out + `|(?:[ +]|%20)*` + each(name, written, unclosed, false) + `(?:(?:` + unindexed + `)` + rest + `)?)`
	}
	return out
}

// each is RE2 for the characters of a name one by one, with any case of them.
func each(name string, written func(string) string, line string, fold bool) string {
	var b strings.Builder
	for i, r := range name {
		switch {
		case r == '[' || r == ']':
			if i > 0 && (name[i-1] == '[' || name[i-1] == ']') {
				continue
			}
			if strings.TrimLeft(name[i:], "[]") == "" || i == 0 {
				b.WriteString(separator + "*")
			} else {
				b.WriteString(separator + "+")
			}
		case strings.ContainsRune(underlines, r):
			b.WriteString(line)
		case !fold || unicode.SimpleFold(r) == r:
			b.WriteString(written(string(r)))
		default:
			cases := written(string(r))
			for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
				cases += "|" + written(string(other))
			}
			b.WriteString("(?:" + cases + ")")
		}
	}
	return b.String()
}

func inQuery(text string) string { return spelled(text, true) }
