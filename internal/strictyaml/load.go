// Package strictyaml decodes YAML that people write into Go structs and reports
// every fault at once, each with its position and its path. Invariant: whatever
// the input, it neither panics nor hangs, its memory is bounded by the limits
// below, and nothing that it does not understand is ignored.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

// The limits of a file. A node of the parsed tree costs some 200 bytes, and a
// hostile file can have one in every two bytes: hence a limit of its own.
const (
	MaxSize    = 16 << 20
	MaxDepth   = 64
	maxMarks   = 1_000_000
	maxFaults  = 10_000
	parseDepth = MaxDepth + 8 // deeper, the parser stops; up to here the walk names the place
)

// Pos is a place in a file; lines and columns count from 1.
type Pos struct {
	File      string
	Line, Col int
}

// IsSet reports whether something was written at all.
func (p Pos) IsSet() bool { return p.Line > 0 }

// Locate notes where a value was written.
func (p *Pos) Locate(at Pos) { *p = at }

// Fault is one thing wrong with a file.
type Fault struct {
	Pos
	Path    string
	Message string
	Word    bool // about the one word that stands there: what it should mean cannot be known
}

// load gives the root of the only document, or the faults that keep it from
// being walked at all.
func (d *decoder) load(data []byte) *yaml.Node {
	if len(data) > MaxSize {
		d.fault(d.at(1, 1), "", fmt.Sprintf("the file has %d bytes, at most %d are read; split it", len(data), MaxSize))
		return nil
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		line := 1 + bytes.Count(data[:i], []byte("\n"))
		d.fault(d.at(line, i-bytes.LastIndexByte(data[:i], '\n')), "", "a NUL byte: the file is not UTF-8 text")
		return nil
	}
	if marks(data) > maxMarks {
		d.fault(d.at(1, 1), "", fmt.Sprintf("the file has more than %d values; split it", maxMarks))
		return nil
	}
	root := d.tree(data)
	switch {
	case root == nil || !d.sound(root, 1):
		return nil
	case root.Kind == yaml.ScalarNode && root.Tag == "!!null":
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: root.Line, Column: root.Column}
	}
	return root
}

// tree parses data as one document.
func (d *decoder) tree(data []byte) *yaml.Node {
	var doc yaml.Node
	depth := loaderlimits.DepthFunc(func(depth int, _ *yaml.DepthContext) error {
		if depth > parseDepth {
			return fmt.Errorf("nested deeper than %d levels", MaxDepth)
		}
		return nil
	})
	if err := yaml.Load(data, &doc, yaml.WithPlugin(loaderlimits.New(depth))); err != nil {
		d.syntax(data, err)
		return nil
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1, Column: 1}
	}
	return doc.Content[0]
}

// marks is an upper bound of how many nodes the parser can make of data.
func marks(data []byte) int {
	n := 0
	for _, c := range []byte("\n\r,:[{?") {
		n += bytes.Count(data, []byte{c})
	}
	return n
}

func (d *decoder) syntax(data []byte, err error) {
	line, col, message := 1, 1, err.Error()
	var at *yaml.LoadError
	if errors.As(err, &at) {
		if at.Mark.Line > 0 {
			line, col = at.Mark.Line, max(at.Mark.Column, 1)
		}
		message = at.Message
	}
	switch {
	case strings.Contains(message, "no documents"):
		message = "the file is empty"
	case strings.Contains(message, "expected single document"):
		if i := bytes.LastIndex(data, []byte("\n---")); i >= 0 {
			line = 2 + bytes.Count(data[:i], []byte("\n"))
		}
		message = "a second document: a file holds one; remove what follows `---`"
	default:
		message = "not YAML: " + message
	}
	d.fault(d.at(line, col), "", message)
}

// sound refuses what the language does without: anchors and aliases (and with
// them every bomb), merge keys, tags, keys that are no scalars, deep nesting.
func (d *decoder) sound(n *yaml.Node, depth int) bool {
	pos := d.at(n.Line, n.Column)
	switch {
	case depth > MaxDepth:
		return d.unsound(pos, fmt.Sprintf("nested deeper than %d levels", MaxDepth))
	case n.Kind == yaml.AliasNode:
		return d.unsound(pos, "aliases are not supported: write the value out, or use defaults and groups")
	case n.Anchor != "":
		return d.unsound(pos, "anchors are not supported: write the value out, or use defaults and groups")
	case n.Style&yaml.TaggedStyle != 0:
		return d.unsound(pos, "tags are not supported: remove "+n.Tag)
	}
	ok := true
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			ok = d.key(c) && ok
			continue
		}
		ok = d.sound(c, depth+1) && ok
	}
	return ok
}

func (d *decoder) key(k *yaml.Node) bool {
	pos := d.at(k.Line, k.Column)
	switch {
	case k.Kind == yaml.AliasNode || k.Anchor != "":
		return d.unsound(pos, "anchors and aliases are not supported: write the key out")
	case k.Kind != yaml.ScalarNode:
		return d.unsound(pos, "a key must be a word")
	case k.Tag == "!!merge" || (k.Value == "<<" && k.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) == 0):
		return d.unsound(pos, "merge keys are not supported: write the values out, or use defaults and groups")
	case k.Style&yaml.TaggedStyle != 0:
		return d.unsound(pos, "tags are not supported: remove "+k.Tag)
	}
	return true
}

func (d *decoder) unsound(pos Pos, message string) bool {
	d.fault(pos, "", message)
	return false
}
