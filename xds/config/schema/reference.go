package schema

import (
	"fmt"
	"reflect"
	"strings"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/syntax"
)

const preface = `# The gateway file

<!-- Made by go run ./xds/config/schemagen from xds/config/syntax. Edit the comments there. -->

Every key of a gateway file. What is not listed is a fault, and so is a key
written twice; ` + "`tollgate validate FILE…`" + ` shows all faults at once.

- Durations are written ` + "`250ms 5s 1h 365d`, sizes `64KiB 10MiB`, percentages `20%`" + `.
- ` + "`env:NAME` and `file:PATH`" + ` (relative to the file) stand for a whole value.
- Routes inherit from their groups and from ` + "`defaults`" + `: the nearest level wins,
  blocks merge key by key, lists and ` + "`auth` replace, `none`" + ` turns off.
- Keys marked * are required. Of keys marked ○ exactly one is written.
`

// Markdown returns the reference page.
func Markdown(c Comments) []byte {
	p := &page{comments: c, queued: map[reflect.Type]bool{}}
	p.out.WriteString(preface)
	p.queue = []reflect.Type{reflect.TypeFor[syntax.File]()}
	for len(p.queue) > 0 {
		next := p.queue[0]
		p.queue = p.queue[1:]
		p.block(next)
	}
	return []byte(p.out.String())
}

type page struct {
	comments Comments
	out      strings.Builder
	queue    []reflect.Type
	queued   map[reflect.Type]bool
}

func (p *page) block(t reflect.Type) {
	fmt.Fprintf(&p.out, "\n## %s\n\n%s\n\n| key | value | meaning |\n|---|---|---|\n", t.Name(), p.comments[t.Name()])
	var later []string
	for _, f := range strictyaml.Fields(t) {
		if f.Unsupported {
			later = append(later, "`"+f.Name+"`")
			continue
		}
		mark := ""
		switch {
		case f.Required:
			mark = " *"
		case f.AltRequired:
			mark = " ○"
		}
		meaning := strings.ReplaceAll(p.comments.field(f), "|", "\\|")
		fmt.Fprintf(&p.out, "| `%s`%s | %s | %s |\n", f.Name, mark, p.kind(f.Type, &f), meaning)
	}
	if len(later) > 0 {
		fmt.Fprintf(&p.out, "\nNot in this version, and a fault: %s.\n", strings.Join(later, ", "))
	}
}

// kind names what is written, with a link to its own table for a block.
func (p *page) kind(t reflect.Type, f *strictyaml.Field) string {
	switch shape, inner := shapeOf(t); shape {
	case pointerShape:
		return p.kind(inner, f)
	case wordShape:
		return wordKind(inner, f)
	case sliceShape:
		return "list of " + p.kind(inner, f)
	case listShape:
		return "list of " + p.kind(inner, f) + ", or `none`"
	case mapShape:
		return "name: " + p.kind(inner, f)
	case contentShape:
		return "`env:NAME` or `file:PATH`"
	case pathShape:
		return "`file:PATH`"
	}
	if t == reflect.TypeFor[syntax.Claim]() {
		return "name or list of names"
	}
	if !p.queued[t] && t != reflect.TypeFor[syntax.File]() {
		p.queued[t] = true
		p.queue = append(p.queue, t)
	}
	return fmt.Sprintf("[%s](#%s)", t.Name(), strings.ToLower(t.Name()))
}

func wordKind(t reflect.Type, f *strictyaml.Field) string {
	if len(f.OneOf) > 0 {
		return "`" + strings.Join(f.OneOf, "`, `") + "`"
	}
	switch t {
	case reflect.TypeFor[string](), reflect.TypeFor[syntax.HeaderValue]():
		return "text"
	case reflect.TypeFor[bool]():
		return "`true`, `false`"
	case reflect.TypeFor[int64]():
		return "number"
	case reflect.TypeFor[syntax.Span]():
		return "duration"
	case reflect.TypeFor[syntax.SpanOrNone]():
		return "duration or `none`"
	case reflect.TypeFor[syntax.Share]():
		return "percentage"
	case reflect.TypeFor[syntax.Bytes]():
		return "size or `none`"
	case reflect.TypeFor[syntax.Name](), reflect.TypeFor[syntax.TenantName]():
		return "name"
	case reflect.TypeFor[syntax.HostPort]():
		return "host:port"
	case reflect.TypeFor[syntax.JWKSURL]():
		return "URL"
	case reflect.TypeFor[syntax.Pattern]():
		return "regex"
	default:
		return strings.ToLower(strings.Join(words(t.Name()), " "))
	}
}

// words splits a Go name.
func words(name string) []string {
	var out []string
	start := 0
	for i := 1; i < len(name); i++ {
		if name[i] >= 'A' && name[i] <= 'Z' && name[i-1] >= 'a' {
			out = append(out, name[start:i])
			start = i
		}
	}
	return append(out, name[start:])
}
