package strictyaml

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Options say where the data comes from and what references in it stand for.
type Options struct {
	File    string
	Resolve func(ref string) (string, error) // nil: a reference is a fault
	Shapes  Shapes                           // what was learned of types in earlier calls; nil: nothing
}

// Shapes are what the tags of types say, for calls that follow one another.
type Shapes map[reflect.Type][]Field

// Decode reads one YAML document into the struct that out points to and
// returns every fault.
//
// Fields are named by their yaml tag; options after the name are `required`,
// `inline` for an embedded struct, and `nest` for a list whose elements' names
// join the name of the element around them. Further tags: oneof:"a b" lists the
// words that are known and later:"c" those that a later version will know,
// range:"1..9" bounds a number, example:"[x]" shows how a list or a mapping is
// written, other:"a b" lists keys that are written by mistake for it, and fields
// with the same alt:"x" exclude each other (alt:"x!": one of them must be written).
//
// A key or word that is not known but near a known one is a fault, and is then
// read as that one, a number beyond its bounds as the nearest within: one slip
// makes one fault, and what else is wrong is told.
func Decode(data []byte, out any, o Options) []Fault {
	d := newDecoder(o)
	if root := d.load(data); root != nil {
		d.value(root, reflect.ValueOf(out).Elem(), place{}, nil)
	}
	return d.faults
}

func newDecoder(o Options) *decoder {
	d := &decoder{options: o, shapes: o.Shapes}
	if d.shapes == nil {
		d.shapes = Shapes{}
	}
	return d
}

type decoder struct {
	options Options
	faults  []Fault
	shapes  Shapes
	before  int  // lines before the data
	partial bool // the root is a part of what it should be
}

// place is a path, and how elements of a list there are named.
type place struct {
	path string
	nest bool
}

func (p place) key(name string) place {
	if p.path == "" {
		return place{path: name}
	}
	return place{path: p.path + "." + name}
}

func (d *decoder) at(line, col int) Pos {
	return Pos{File: d.options.File, Line: d.before + line, Col: col}
}

func (d *decoder) fault(pos Pos, path, message string) {
	if len(d.faults) < maxFaults {
		d.faults = append(d.faults, Fault{Pos: pos, Path: path, Message: message})
	}
}

func (d *decoder) word(pos Pos, path, message string) {
	d.fault(pos, path, message)
	d.faults[len(d.faults)-1].Word = true
}

type located interface{ Locate(Pos) }

// value decodes n into v by what v is.
func (d *decoder) value(n *yaml.Node, v reflect.Value, p place, f *Field) {
	pos := d.at(n.Line, n.Column)
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		d.fault(pos, p.path, "has no value: write one, or remove the key")
		return
	}
	target := v.Addr().Interface()
	if l, ok := target.(located); ok {
		l.Locate(pos)
	}
	if setter, ok := target.(Setter); ok {
		d.scalar(n, setter, p, f)
		return
	}
	if short, ok := target.(Shorthand); ok && n.Kind == yaml.ScalarNode {
		if err := short.Shorthand(Scalar{Written: n.Value, resolve: d.options.Resolve}); err != nil {
			d.word(pos, p.path, err.Error()+f.form(p))
		}
		return
	}
	switch t := target.(type) {
	case interface{ elements() any }:
		d.list(n, reflect.ValueOf(t.elements()).Elem(), p, f)
	case interface{ add(Value[string]) any }:
		d.entries(n, t.add, p, f)
	default:
		if v.Kind() == reflect.Slice {
			d.list(n, v, p, f)
			return
		}
		d.block(n, v, p, f)
	}
}

func (d *decoder) scalar(n *yaml.Node, setter Setter, p place, f *Field) {
	pos := d.at(n.Line, n.Column)
	if n.Kind != yaml.ScalarNode {
		d.word(pos, p.path, "must be one value, not "+kind(n))
		return
	}
	s := Scalar{Written: n.Value, resolve: d.options.Resolve}
	if err := setter.Set(s); err != nil {
		d.word(pos, p.path, err.Error())
		return
	}
	if f == nil {
		return
	}
	message, meant := f.check(s, setter)
	if message == "" {
		return
	}
	d.word(pos, p.path, message)
	if number, ok := setter.(*Value[int64]); ok && f.Bounded {
		number.V = min(max(number.V, f.Min), f.Max)
	}
	if meant != "" {
		_ = setter.Set(Scalar{Written: meant}) // a word of ours, which it takes
	}
}

// check holds a word against the field's tags. meant is the word that was
// likeliest meant instead, if any.
func (f *Field) check(s Scalar, target any) (message, meant string) {
	if number, ok := target.(*Value[int64]); ok && f.Bounded && f.Min == f.Max && number.V != f.Min {
		return fmt.Sprintf("must be %d, not %s", f.Min, number.Shown()), ""
	}
	if number, ok := target.(*Value[int64]); ok && f.Bounded && (number.V < f.Min || number.V > f.Max) {
		return fmt.Sprintf("must be from %d to %d, not %s", f.Min, f.Max, number.Shown()), ""
	}
	if len(f.OneOf) == 0 {
		return "", ""
	}
	text, err := s.Text()
	if err != nil || slices.Contains(f.OneOf, text) {
		return "", ""
	}
	if slices.Contains(f.Later, text) {
		return text + " is not supported in this version", ""
	}
	return fmt.Sprintf("%q is not one of %s%s", s.Written, strings.Join(f.OneOf, ", "), Suggest(s.Written, f.OneOf)), Nearest(s.Written, f.OneOf)
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, p place, f *Field) {
	if n.Kind != yaml.SequenceNode {
		d.word(d.at(n.Line, n.Column), p.path, "must be a list, not "+kind(n)+f.form(p))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, c := range n.Content {
		d.value(c, v.Index(i), place{path: element(p, name(c, i))}, f)
	}
}

// element is the path of a list's element: a[x], and for a list that nests
// a[x/y] instead of a[x].a[y].
func element(p place, name string) string {
	if p.nest {
		if outer, ok := strings.CutSuffix(p.path[:strings.LastIndexByte(p.path, '.')+1], "]."); ok {
			return outer + "/" + name + "]"
		}
	}
	return p.path + "[" + name + "]"
}

// name is what an element calls itself, or its index.
func name(n *yaml.Node, i int) string {
	if n.Kind == yaml.MappingNode {
		for k := 0; k+1 < len(n.Content); k += 2 {
			if n.Content[k].Value == "name" && n.Content[k+1].Kind == yaml.ScalarNode && n.Content[k+1].Value != "" {
				return n.Content[k+1].Value
			}
		}
	}
	return strconv.Itoa(i)
}

func (d *decoder) entries(n *yaml.Node, add func(Value[string]) any, p place, f *Field) {
	if n.Kind != yaml.MappingNode {
		d.word(d.at(n.Line, n.Column), p.path, "must be a mapping, not "+kind(n)+f.form(p))
		return
	}
	first := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if !d.fresh(k, first, p) {
			continue
		}
		into := add(Value[string]{Pos: d.at(k.Line, k.Column), V: k.Value})
		d.value(n.Content[i+1], reflect.ValueOf(into).Elem(), p.key(k.Value), f)
	}
}

// form says how a list or a mapping is written; not for elements of a list.
func (f *Field) form(p place) string {
	if f == nil || f.Example == "" || strings.HasSuffix(p.path, "]") {
		return ""
	}
	return ": write " + f.Name + ": " + f.Example
}

func (d *decoder) fresh(k *yaml.Node, first map[string]int, p place) bool {
	if line, twice := first[k.Value]; twice {
		d.fault(d.at(k.Line, k.Column), p.path, fmt.Sprintf("duplicate key %q; the first is on line %d", k.Value, line))
		return false
	}
	first[k.Value] = k.Line
	return true
}

func (d *decoder) block(n *yaml.Node, v reflect.Value, p place, f *Field) {
	if n.Kind != yaml.MappingNode {
		d.word(d.at(n.Line, n.Column), p.path, "must be a mapping, not "+kind(n)+f.form(p))
		return
	}
	fields := d.fields(v.Type())
	first := make(map[string]int, len(n.Content)/2)
	var unknown []int
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if !d.fresh(k, first, p) {
			continue
		}
		f := find(fields, k.Value)
		switch {
		case f == nil:
			unknown = append(unknown, i)
		case f.Unsupported:
			d.fault(d.at(k.Line, k.Column), p.path, k.Value+" is not supported in this version")
		default:
			d.field(n.Content[i+1], v, p, f)
		}
	}
	for _, i := range unknown {
		k := n.Content[i]
		meant := Nearest(k.Value, names(fields))
		hint := Suggest(k.Value, names(fields))
		if f := mistaken(fields, k.Value); f != nil && meant == "" {
			hint = "; write " + f.Name + ": " + f.Example
		}
		d.fault(d.at(k.Line, k.Column), p.path, fmt.Sprintf("unknown key %q%s", k.Value, hint))
		if _, taken := first[meant]; meant != "" && !taken {
			first[meant] = k.Line
			d.field(n.Content[i+1], v, p, find(fields, meant))
		}
	}
	if !d.partial || p.path != "" {
		d.complete(n, fields, first, p)
	}
}

func (d *decoder) field(n *yaml.Node, block reflect.Value, p place, f *Field) {
	at := p.key(f.Name)
	at.nest = f.Nest
	d.value(n, block.FieldByIndex(f.Index), at, f)
}

// complete refuses a block that lacks what it needs or says one thing twice.
func (d *decoder) complete(n *yaml.Node, fields []Field, written map[string]int, p place) {
	pos := d.at(n.Line, n.Column)
	seen := map[string]string{}
	for i := range fields {
		f := &fields[i]
		_, set := written[f.Name]
		if f.Required && !set {
			d.fault(pos, p.path, f.Name+" is missing")
		}
		if f.Alt == "" || !set {
			continue
		}
		if other := seen[f.Alt]; other != "" {
			d.fault(pos, p.path, fmt.Sprintf("%s and %s exclude each other: write one", other, f.Name))
		}
		seen[f.Alt] = f.Name
	}
	asked := map[string]bool{}
	for i := range fields {
		if _, set := written[fields[i].Name]; set && fields[i].Unsupported {
			return // what is missing is what this version lacks
		}
	}
	for i := range fields {
		if alt := fields[i].Alt; fields[i].AltRequired && seen[alt] == "" && !asked[alt] {
			asked[alt] = true
			d.fault(pos, p.path, "write one of "+strings.Join(alternatives(fields, alt), ", "))
		}
	}
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "one value"
	}
}
