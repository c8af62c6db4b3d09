package inherit

import (
	"reflect"

	"tollgate/internal/strictyaml"
)

// merger lays inner levels over outer ones. It remembers the shapes of the
// types, which makes ten thousand routes cheap.
type merger struct {
	shapes map[reflect.Type][]strictyaml.Field
}

// merge gives inner with what it leaves out taken from outer. Neither changes.
func merge[T any](m *merger, outer, inner T) T {
	out := inner
	m.lay(reflect.ValueOf(&outer).Elem(), reflect.ValueOf(&out).Elem())
	return out
}

// lay fills into, a copy that is free to change, from outer.
func (m *merger) lay(outer, into reflect.Value) {
	switch {
	case !written(outer):
	case !written(into):
		into.Set(outer)
	case into.Kind() == reflect.Pointer:
		if whole(into.Interface()) {
			return
		}
		own := reflect.New(into.Type().Elem())
		own.Elem().Set(into.Elem())
		m.block(outer.Elem(), own.Elem())
		into.Set(own)
	case into.Kind() == reflect.Struct && isMap(into):
		m.entries(outer, into)
	case into.Kind() == reflect.Struct && !isWord(into):
		m.block(outer, into)
	}
}

// block merges key by key. A key drops those of the outer level that it excludes.
func (m *merger) block(outer, into reflect.Value) {
	fields, ok := m.shapes[into.Type()]
	if !ok {
		fields = strictyaml.Fields(into.Type())
		m.shapes[into.Type()] = fields
	}
	taken := map[string]bool{}
	for i := range fields {
		if fields[i].Alt != "" && written(into.FieldByIndex(fields[i].Index)) {
			taken[fields[i].Alt] = true
		}
	}
	for i := range fields {
		f := &fields[i]
		if f.Unsupported || (f.Alt != "" && taken[f.Alt]) {
			continue
		}
		m.lay(outer.FieldByIndex(f.Index), into.FieldByIndex(f.Index))
	}
}

// entries puts the outer entries that inner does not have before its own.
func (m *merger) entries(outer, into reflect.Value) {
	own := into.FieldByName("Items")
	have := make(map[string]bool, own.Len())
	for i := range own.Len() {
		have[own.Index(i).FieldByName("Key").FieldByName("V").String()] = true
	}
	theirs := outer.FieldByName("Items")
	merged := reflect.MakeSlice(own.Type(), 0, own.Len()+theirs.Len())
	for i := range theirs.Len() {
		if e := theirs.Index(i); !have[e.FieldByName("Key").FieldByName("V").String()] {
			merged = reflect.Append(merged, e)
		}
	}
	own.Set(reflect.AppendSlice(merged, own))
}

// written reports whether the file says something here.
func written(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice:
		return !v.IsNil()
	default:
		if p, ok := v.Interface().(interface{ IsSet() bool }); ok && (isWord(v) || isMap(v)) {
			return p.IsSet()
		}
		return true
	}
}

// isMap tells a strictyaml.Map, whose entries merge.
func isMap(v reflect.Value) bool {
	items := v.FieldByName("Items")
	return items.IsValid() && items.Type().Elem().Kind() == reflect.Struct && items.Type().Elem().NumField() == 2 &&
		items.Type().Elem().Field(0).Name == "Key"
}

// isWord tells a value or a list, which replace.
func isWord(v reflect.Value) bool {
	if v.Kind() != reflect.Struct {
		return true
	}
	return v.FieldByName("V").IsValid() || v.FieldByName("Items").IsValid()
}

func whole(block any) bool {
	r, ok := block.(interface{ Replaces() bool })
	return ok && r.Replaces()
}
