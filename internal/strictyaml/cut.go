package strictyaml

import (
	"bytes"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v4"
)

// Part is some lines of a document that mean by themselves what they mean in it.
type Part struct {
	Key     string // of the document
	Element bool   // one element of the list under the key; else the key with all of its value
	Line    int    // how many lines stand before it
	Text    []byte
}

// Cut divides a document into the parts of its keys, and those of some lists
// into their elements; lines that say nothing may be in no part. It only looks at
// where lines begin, so it is a guess: if each part decodes without a fault, the
// parts are the document, because nothing that YAML lets go on over such a line
// ends before it. ok is false where that is not sure.
func Cut(data []byte, lists ...string) (parts []Part, ok bool) {
	if len(data) > MaxSize || bytes.IndexByte(data, 0) >= 0 || marks(data) > maxMarks || breaksLines(data) {
		return nil, false
	}
	c := cutter{data: data, lists: lists, seen: map[string]bool{}}
	for start, line := 0, 0; start < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[start:], '\n'); i >= 0 {
			end = start + i + 1
		}
		if !c.line(start, end, line) {
			return nil, false
		}
		start = end
	}
	c.end(len(data))
	return c.parts, len(c.parts) > 0
}

// breaksLines reports whether there is anything that a YAML parser takes for the
// end of a line and we do not, or that stands at the beginning of a line and is
// not of it.
func breaksLines(data []byte) bool {
	for _, mark := range []string{"\r", "\u0085", "\u2028", "\u2029", "\ufeff"} {
		if bytes.Contains(data, []byte(mark)) {
			return true
		}
	}
	return false
}

type cutter struct {
	data  []byte
	lists []string
	parts []Part
	seen  map[string]bool

	open   bool // a part is open, since:
	start  int
	listed bool // its key is of a list whose elements are parts:
	indent int  // where their dashes stand; -1: none was seen yet
	begun  bool // the document has
}

// line takes one line of the document; false gives up.
func (c *cutter) line(start, end, number int) bool {
	text := bytes.TrimRight(c.data[start:end], " \n")
	indent := 0
	for indent < len(text) && text[indent] == ' ' {
		indent++
	}
	switch {
	case indent == len(text) || text[indent] == '#':
		return true // of whatever is open
	case !c.begun && string(text) == "---":
		c.begun = true
		return true
	case indent > 0 || text[0] == '-':
		return c.within(text, start, number, indent)
	}
	c.begun = true
	key, rest, found := bytes.Cut(text, []byte(":"))
	if !found || !plainKey(key) || (len(rest) > 0 && rest[0] != ' ') || c.seen[string(key)] {
		return false
	}
	c.end(start)
	c.seen[string(key)] = true
	rest = bytes.TrimLeft(rest, " ")
	c.listed = slices.Contains(c.lists, string(key)) && (len(rest) == 0 || rest[0] == '#')
	c.indent = -1
	c.parts = append(c.parts, Part{Key: string(key), Line: number})
	c.open, c.start = true, start
	return true
}

// within takes a line that begins no key of the document.
func (c *cutter) within(text []byte, start, number, indent int) bool {
	if !c.open || bytes.HasPrefix(text, []byte("---")) {
		return false
	}
	dash := text[indent] == '-' && (indent+1 == len(text) || text[indent+1] == ' ')
	switch {
	case !c.listed:
		return true
	case c.indent < 0 && !dash: // not the list that was expected
		c.listed = false
		return true
	case c.indent < 0: // the key alone says nothing more
		c.indent = indent
		c.parts[len(c.parts)-1].Element = true
		c.parts[len(c.parts)-1].Line = number
		c.start = start
		return true
	case indent < c.indent || (indent == c.indent && !dash):
		return false
	case indent == c.indent:
		key := c.parts[len(c.parts)-1].Key
		c.end(start)
		c.parts = append(c.parts, Part{Key: key, Element: true, Line: number})
		c.open, c.start = true, start
	}
	return true
}

// end closes the open part where another one begins.
func (c *cutter) end(at int) {
	if c.open {
		c.parts[len(c.parts)-1].Text = c.data[c.start:at]
	}
	c.open = false
}

// plainKey tells a key that can be nothing else.
func plainKey(key []byte) bool {
	for _, b := range key {
		if (b < 'a' || b > 'z') && b != '_' {
			return false
		}
	}
	return len(key) > 0
}

// DecodePart decodes a part into the element that out points to, or for a part
// that is no element into the document around it. What a document must have is
// not asked for. A part with a fault may be no part at all: only the whole says
// what is wrong, and where.
func DecodePart(p Part, out any, o Options) []Fault {
	d := newDecoder(o)
	d.before, d.partial = p.Line, true
	root := d.tree(p.Text)
	switch {
	case root == nil:
	case !p.Element:
		if root.Kind != yaml.MappingNode || len(root.Content) != 2 || root.Content[0].Value != p.Key {
			d.fault(d.at(1, 1), "", "is not "+p.Key)
			break
		}
		if d.sound(root, 1) {
			d.value(root, reflect.ValueOf(out).Elem(), place{}, nil)
		}
	case root.Kind != yaml.SequenceNode || len(root.Content) != 1:
		d.fault(d.at(1, 1), p.Key, "is not one element")
	default:
		if d.sound(root, 2) {
			d.partial = false
			d.value(root.Content[0], reflect.ValueOf(out).Elem(), place{path: element(place{path: p.Key}, name(root.Content[0], 0))}, nil)
		}
	}
	return d.faults
}
