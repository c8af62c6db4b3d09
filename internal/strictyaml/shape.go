package strictyaml

import (
	"math"
	"reflect"
	"strconv"
	"strings"
)

// Field is what the tags of a struct field say about its key.
type Field struct {
	Name        string
	Index       []int
	Type        reflect.Type
	Required    bool
	Nest        bool
	Unsupported bool // of type Later
	Bounded     bool
	Min, Max    int64
	OneOf       []string
	Later       []string
	Example     string   // what may be written for a list or a mapping
	Other       []string // what it may be called by mistake
	Alt         string
	AltRequired bool
	Owner       reflect.Type // the struct that declares it, which differs for inlined ones
	GoName      string
}

// Fields lists the keys of a struct in the order of its declaration, those of
// embedded structs in place.
func Fields(t reflect.Type) []Field {
	var out []Field
	for i := range t.NumField() {
		f := t.Field(i)
		tag, ok := f.Tag.Lookup("yaml")
		if !ok || tag == "-" {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if strings.Contains(options, "inline") {
			for _, inner := range Fields(f.Type) {
				inner.Index = append([]int{i}, inner.Index...)
				out = append(out, inner)
			}
			continue
		}
		field := Field{
			Name: name, Index: []int{i}, Type: f.Type, Owner: t, GoName: f.Name,
			Required:    strings.Contains(options, "required"),
			Nest:        strings.Contains(options, "nest"),
			Unsupported: f.Type == reflect.TypeFor[Later](),
			OneOf:       strings.Fields(f.Tag.Get("oneof")),
			Later:       strings.Fields(f.Tag.Get("later")),
			Example:     f.Tag.Get("example"),
			Other:       strings.Fields(f.Tag.Get("other")),
		}
		field.Alt, field.AltRequired = strings.CutSuffix(f.Tag.Get("alt"), "!")
		if low, high, ok := strings.Cut(f.Tag.Get("range"), ".."); ok {
			field.Bounded, field.Min, field.Max = true, bound(low, 0), bound(high, math.MaxInt64)
		}
		out = append(out, field)
	}
	return out
}

func bound(text string, open int64) int64 {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	return open
}

func (d *decoder) fields(t reflect.Type) []Field {
	if known, ok := d.shapes[t]; ok {
		return known
	}
	d.shapes[t] = Fields(t)
	return d.shapes[t]
}

func find(fields []Field, name string) *Field {
	for i := range fields {
		if fields[i].Name == name {
			return &fields[i]
		}
	}
	return nil
}

func names(fields []Field) []string {
	var out []string
	for i := range fields {
		if !fields[i].Unsupported {
			out = append(out, fields[i].Name)
		}
	}
	return out
}

func alternatives(fields []Field, alt string) []string {
	var out []string
	for i := range fields {
		if fields[i].Alt == alt && !fields[i].Unsupported {
			out = append(out, fields[i].Name)
		}
	}
	return out
}

// mistaken is the field that a key was likely taken for another name of.
func mistaken(fields []Field, key string) *Field {
	for i := range fields {
		for _, other := range fields[i].Other {
			if other == key {
				return &fields[i]
			}
		}
	}
	return nil
}
