package strictyaml_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/internal/strictyaml"
)

// assembled decodes a document part by part; ok is false where only the whole
// can say what it means.
func assembled(text string) (out document, ok bool) {
	parts, ok := strictyaml.Cut([]byte(text), "nodes", "maps")
	if !ok {
		return out, false
	}
	for _, p := range parts {
		var one document
		var target any = &one
		switch {
		case p.Element && p.Key == "nodes":
			out.Nodes = append(out.Nodes, inner{})
			target = &out.Nodes[len(out.Nodes)-1]
		case p.Element:
			out.Maps = append(out.Maps, strictyaml.Map[strictyaml.Value[string]]{})
			target = &out.Maps[len(out.Maps)-1]
		}
		if len(strictyaml.DecodePart(p, target, strictyaml.Options{File: "f", Resolve: references})) > 0 {
			return out, false
		}
		if p.Element {
			continue
		}
		switch p.Key {
		case "nodes":
			out.Nodes = one.Nodes
		case "maps":
			out.Maps = one.Maps
		default:
			nodes, maps := out.Nodes, out.Maps
			merge(&out, &one, p.Key)
			out.Nodes, out.Maps = nodes, maps
		}
	}
	out.Pos = strictyaml.Pos{}
	return out, true
}

func merge(out, one *document, key string) {
	switch key {
	case "map":
		out.Map = one.Map
	case "list":
		out.List = one.List
	case "one":
		out.One = one.One
	case "two":
		out.Two = one.Two
	case "deep":
		out.Deep = one.Deep
	case "empty":
		out.Empty = one.Empty
	case "alias":
		out.Alias = one.Alias
	case "lists":
		out.Lists = one.Lists
	case "twice":
		out.Twice = one.Twice
	}
}

// agree holds the parts of a text against the whole.
func agree(t *testing.T, text string) (cut bool) {
	t.Helper()
	parts, ok := assembled(text)
	if !ok || parts.One.IsSet() && parts.Two.IsSet() {
		return false // what must not stand together is asked of the whole
	}
	whole, faults := decode(text)
	whole.Pos = strictyaml.Pos{}
	if len(faults) > 0 {
		t.Fatalf("the parts are fine, the whole is not: %v\n%s", faults, text)
	}
	if diff := cmp.Diff(whole, parts); diff != "" {
		t.Fatalf("-whole +parts:\n%s\n%s", diff, text)
	}
	return true
}

const cuttable = `# a comment
---
one: x   # why
nodes:   # these

  # the first
  - name: a
    color: red
    nodes:
      - {name: b, size: 3}
      - name: c

  - {name: d, nodes: [
      {name: e}]}
  -
    name: f
  # the last
map:
  a: true
list:
- x
- y
maps:
- a: b
  c: d
- {e: f}
deep: {x: [{name: y}]}
`

func TestCut(t *testing.T) {
	if !agree(t, cuttable) {
		t.Error("not cut")
	}
	parts, _ := strictyaml.Cut([]byte(cuttable), "nodes", "maps")
	var got []string
	for _, p := range parts {
		got = append(got, fmt.Sprintf("%s %v %d", p.Key, p.Element, p.Line))
	}
	want := []string{
		"one false 2", "nodes true 6", "nodes true 12", "nodes true 14", "map false 17", "list false 19",
		"maps true 23", "maps true 25", "deep false 26",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// TestCutLeavesToTheWhole: what the lines alone cannot tell, and what is wrong.
func TestCutLeavesToTheWhole(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                 "",
		"comments":                "# x\n",
		"flow":                    "{one: x}\n",
		"indented":                "  one: x\n",
		"quoted key":              "\"one\": x\n",
		"twice":                   "one: a\none: b\n",
		"second document":         "one: a\n---\ntwo: b\n",
		"end of document":         "one: a\n...\n",
		"directive":               "%YAML 1.2\n---\none: a\n",
		"windows lines":           "one: a\r\nmap: {a: true}\r\n",
		"old mac lines":           "one: a\rmap: {a: true}\n",
		"a line separator":        "one: a\u2028\nmap: {a: true}\n",
		"byte order mark":         "\ufeffone: a\n",
		"anchor and alias":        "nodes:\n  - &a\n    name: a\n  - *a\n",
		"quotes over a dash":      "nodes:\n  - name: \"a\n  - name: b\"\n",
		"quotes over a key":       "one: \"a\nlist: b\"\n",
		"flow over a dash":        "nodes:\n  - {name: a,\n  - b}\n",
		"flow over a key":         "list: [a,\none: b]\n",
		"elements not in line":    "nodes:\n  - name: a\n - name: b\n",
		"a word among elements":   "nodes:\n  - name: a\n  b\n",
		"an empty element":        "nodes:\n  - name: a\n  -\n",
		"key alone":               "nodes:\n",
		"required in an element":  "nodes:\n  - color: red\n",
		"unknown key":             "nope: x\n",
		"reference that is unset": "one: env:M\n",
	} {
		if agree(t, text) {
			t.Errorf("%s: was cut", name)
		}
	}
}

// FuzzCut: whatever is cut and decodes means what the whole means, every
// position included. The fuzzer's bytes choose edits of a text that is cut.
func FuzzCut(f *testing.F) {
	pieces := []string{
		"\n", " ", "  ", "- ", "-", "\"", "'", "{", "}", "[", "]", ":", ": ", "#", " # ", "|\n", ">-\n", "&a ", "*a", "---\n", "? ", "!x ", "\t", ",",
		"name: z", "one: ", "nodes:\n", "  - name: n\n", "maps:\n- q: r\n", "    color: green\n", "map: {k: true}\n", "env:N", "%", "...\n", "\r", "\u2028",
	}
	f.Add([]byte{})
	f.Add([]byte{40, 0, 60, 5, 90, 5})
	f.Add([]byte{0, 31, 0, 0, 250, 24})
	f.Add([]byte{120, 26, 121, 26})
	f.Fuzz(func(t *testing.T, edits []byte) {
		text := cuttable
		for i := 0; i+1 < len(edits) && i < 12; i += 2 {
			at := int(edits[i]) * len(text) / 256
			if piece := int(edits[i+1]); piece%4 == 3 { // remove up to a line
				end := min(len(text), at+1+piece/8)
				text = text[:at] + text[end:]
			} else {
				text = text[:at] + pieces[piece%len(pieces)] + text[at:]
			}
		}
		agree(t, text)
		agree(t, strings.ReplaceAll(text, "\n- ", "\n  - "))
	})
}
