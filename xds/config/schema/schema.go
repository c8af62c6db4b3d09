// Package schema describes the gateway file for editors and people: a JSON
// Schema and a reference page, both made from the types of package syntax and
// their comments. Invariant: it is linked by the generator and its tests alone.
package schema

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"

	"github.com/invopop/jsonschema"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/syntax"
)

// reference lets any word stand elsewhere.
const reference = `^(env|file):.+$`

// JSON returns the JSON Schema of a gateway file.
func JSON(c Comments) ([]byte, error) {
	g := &generator{comments: c, definitions: jsonschema.Definitions{}}
	root := g.value(reflect.TypeFor[syntax.File](), nil)
	root.Version = jsonschema.Version
	root.ID = "https://tollgate.example/gateway.schema.json"
	root.Title = "Tollgate gateway file, version 1"
	root.Definitions = g.definitions
	out, err := json.MarshalIndent(root, "", "  ")
	return append(out, '\n'), err
}

type generator struct {
	comments    Comments
	definitions jsonschema.Definitions
}

// value is the schema of what may be written for a type.
func (g *generator) value(t reflect.Type, f *strictyaml.Field) *jsonschema.Schema {
	switch shape, inner := shapeOf(t); shape {
	case pointerShape:
		return g.value(inner, f)
	case wordShape:
		return word(inner, f)
	case sliceShape:
		return &jsonschema.Schema{Type: "array", Items: g.value(inner, f)}
	case listShape:
		return either(&jsonschema.Schema{Type: "array", Items: g.value(inner, f)}, &jsonschema.Schema{Const: "none"})
	case mapShape:
		return &jsonschema.Schema{Type: "object", AdditionalProperties: g.value(inner, f)}
	case contentShape:
		return &jsonschema.Schema{Type: "string", Pattern: reference}
	case pathShape:
		return &jsonschema.Schema{Type: "string", Pattern: "."}
	default:
		return g.block(t)
	}
}

// block is a reference to the definition of a struct.
func (g *generator) block(t reflect.Type) *jsonschema.Schema {
	ref := &jsonschema.Schema{Ref: "#/$defs/" + t.Name()}
	if _, known := g.definitions[t.Name()]; known {
		return ref
	}
	s := &jsonschema.Schema{}
	g.definitions[t.Name()] = s // before its fields: routes hold routes
	object := g.object(t)
	switch short := shorthand(t); {
	case t == reflect.TypeFor[syntax.Claim]():
		*s = *either(&jsonschema.Schema{Type: "array", Items: text()}, text())
	case short == nil:
		*s = *object
	default:
		*s = *either(object, short)
	}
	s.Description = g.comments[t.Name()]
	return ref
}

func (g *generator) object(t reflect.Type) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "object", Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema}
	for _, f := range strictyaml.Fields(t) {
		if f.Unsupported {
			continue
		}
		property := g.value(f.Type, &f)
		property.Description = g.comments.field(f)
		s.Properties.Set(f.Name, property)
		if f.Required {
			s.Required = append(s.Required, f.Name)
		}
		if f.AltRequired {
			s.OneOf = append(s.OneOf, &jsonschema.Schema{Required: []string{f.Name}})
		}
	}
	return s
}

// shorthand is what may be written instead of a mapping, nil for nothing.
func shorthand(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[syntax.Auth]():
		return &jsonschema.Schema{Enum: []any{"public", "api_key"}}
	case reflect.TypeFor[syntax.Credential]():
		return &jsonschema.Schema{Const: "api_key"}
	case reflect.TypeFor[syntax.Condition]():
		return text()
	case reflect.TypeFor[syntax.Timeout](), reflect.TypeFor[syntax.Endpoint](), reflect.TypeFor[syntax.JWKS]():
		return &jsonschema.Schema{Type: "string"}
	}
	if _, ok := reflect.New(t).Interface().(strictyaml.Shorthand); ok {
		return &jsonschema.Schema{Const: "none"}
	}
	return nil
}

// word is the schema of one word.
func word(t reflect.Type, f *strictyaml.Field) *jsonschema.Schema {
	if f != nil && len(f.OneOf) > 0 {
		return &jsonschema.Schema{Enum: enum(f.OneOf)}
	}
	elsewhere := &jsonschema.Schema{Type: "string", Pattern: reference}
	switch t {
	case reflect.TypeFor[bool]():
		return either(&jsonschema.Schema{Type: "boolean"}, elsewhere)
	case reflect.TypeFor[int64]():
		n := &jsonschema.Schema{Type: "integer"}
		if f != nil && f.Bounded {
			n.Minimum, n.Maximum = number(f.Min), number(f.Max)
		}
		return either(n, elsewhere)
	case reflect.TypeFor[syntax.Share]():
		return &jsonschema.Schema{Type: "string", Pattern: `^[0-9.]+%$|` + reference}
	case reflect.TypeFor[syntax.Span]():
		return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+d|([0-9.]+(ns|us|µs|ms|s|m|h))+)$|` + reference}
	case reflect.TypeFor[string](), reflect.TypeFor[syntax.HeaderValue](), reflect.TypeFor[syntax.Name](), reflect.TypeFor[syntax.TenantName]():
		return text()
	default:
		return &jsonschema.Schema{Type: "string"}
	}
}

func enum(words []string) []any {
	var out []any
	for _, w := range words {
		out = append(out, w)
		if n, err := strconv.Atoi(w); err == nil {
			out = append(out, n)
		}
	}
	return out
}

func text() *jsonschema.Schema {
	return either(&jsonschema.Schema{Type: "string"}, &jsonschema.Schema{Type: "number"}, &jsonschema.Schema{Type: "boolean"})
}

func either(schemas ...*jsonschema.Schema) *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: schemas}
}

func number(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }

type shape int

const (
	blockShape shape = iota
	pointerShape
	wordShape
	sliceShape
	listShape
	mapShape
	contentShape
	pathShape
)

// shapeOf tells how a type is written, with the type inside it.
func shapeOf(t reflect.Type) (shape, reflect.Type) {
	switch {
	case t.Kind() == reflect.Pointer:
		return pointerShape, t.Elem()
	case t.Kind() == reflect.Slice:
		return sliceShape, t.Elem()
	case t == reflect.TypeFor[syntax.Content]():
		return contentShape, nil
	case t == reflect.TypeFor[syntax.ContentFile](), t == reflect.TypeFor[syntax.StorePath]():
		return pathShape, nil
	case t.PkgPath() != reflect.TypeFor[strictyaml.Pos]().PkgPath():
		return blockShape, nil
	}
	name, _, _ := strings.Cut(t.Name(), "[")
	switch items, _ := t.FieldByName("Items"); name {
	case "List":
		return listShape, items.Type.Elem()
	case "Map":
		inner, _ := items.Type.Elem().FieldByName("Value")
		return mapShape, inner.Type
	default:
		v, _ := t.FieldByName("V")
		return wordShape, v.Type
	}
}
