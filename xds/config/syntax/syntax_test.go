package syntax_test

import (
	"reflect"
	"testing"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/syntax"
)

// TestExamples: what a message tells to write may be written.
func TestExamples(t *testing.T) {
	seen := map[reflect.Type]bool{}
	examples := 0
	var walk func(reflect.Type)
	walk = func(of reflect.Type) {
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct || seen[of] {
			return
		}
		seen[of] = true
		for _, inside := range []string{"Items", "Value"} { // of a List, and of a Map's entries
			if f, ok := of.FieldByName(inside); ok {
				walk(f.Type)
			}
		}
		for _, f := range strictyaml.Fields(of) {
			walk(f.Type)
			if f.Example == "" {
				if len(f.Other) > 0 {
					t.Errorf("%v.%s is written by mistake as %q, but has no example", of, f.Name, f.Other)
				}
				continue
			}
			examples++
			text := f.Name + ": " + f.Example
			anything := func(string) (string, error) { return "x", nil }
			for _, fault := range strictyaml.Decode([]byte(text), reflect.New(of).Interface(), strictyaml.Options{Resolve: anything}) {
				if fault.Path != "" { // else: what stands beside it is missing
					t.Errorf("%v: %q: %s: %s", of, text, fault.Path, fault.Message)
				}
			}
		}
	}
	walk(reflect.TypeFor[syntax.File]())
	if examples < 40 {
		t.Errorf("only %d examples were found", examples)
	}
}
