// Package slip says what a YAML decoder found wrong with a file in the words of
// the file. Invariant: each fault stands in a line of its own that begins with
// its place, and none repeats a value, which may be a secret.
package slip

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"

	"go.yaml.in/yaml/v4"

	"tollgate/internal/strictyaml"
)

// Max is how many faults of one file are told.
const Max = 10

// Shapes are what the types that a file is decoded into are called in it, such
// as "a list of keys". Of a struct its keys are known, too.
type Shapes map[reflect.Type]string

// Located returns the decoder's faults of the file of a name, each as
// name:line:col: what is wrong. Messages about types that no shape tells of stay
// as they are.
func (s Shapes) Located(name string, err error) error {
	var many *yaml.LoadErrors
	var one *yaml.LoadError
	faults := []*yaml.LoadError{}
	switch {
	case errors.As(err, &many):
		faults = many.Errors
	case errors.As(err, &one):
		faults = append(faults, one)
	default:
		return fmt.Errorf("%s:1:1: %w", name, err)
	}
	var out []error
	for _, f := range faults[:min(len(faults), Max)] {
		out = append(out, fmt.Errorf("%s:%d:%d: %s", name, max(f.Mark.Line, 1), max(f.Mark.Column, 1), s.worded(f.Message)))
	}
	return errors.Join(out...)
}

func (s Shapes) worded(message string) string {
	if m := regexp.MustCompile(`(?s)^field (.+) not found in type (\S+)$`).FindStringSubmatch(message); m != nil {
		return fmt.Sprintf("unknown key %q%s", m[1], strictyaml.Suggest(m[1], s.keys(m[2])))
	}
	if m := regexp.MustCompile(`(?s)^cannot construct !!(\w+).* into (\S+)$`).FindStringSubmatch(message); m != nil {
		for t, wanted := range s {
			if t.String() == m[2] {
				return fmt.Sprintf("%s is wanted here, not %s", wanted, written(m[1]))
			}
		}
	}
	if regexp.MustCompile(`^parsing time "`).MatchString(message) {
		return "a time is wanted here, such as 2026-11-21T04:00:00Z"
	}
	return message
}

// keys are those of the struct of a name.
func (s Shapes) keys(goType string) []string {
	var names []string
	for t := range s {
		if t.String() != goType || t.Kind() != reflect.Struct {
			continue
		}
		for _, f := range strictyaml.Fields(t) {
			names = append(names, f.Name)
		}
	}
	return names
}

// written is what a tag of YAML is to who writes it.
func written(tag string) string {
	switch tag {
	case "seq":
		return "a list"
	case "map":
		return "keys and values"
	}
	return "one word"
}

// Place finds a field of the i-th element of a list, or where it should be.
func Place(data []byte, list string, i int, field string) (line, col int) {
	var document map[string]yaml.Node
	var elements []yaml.Node
	if yaml.Unmarshal(data, &document) != nil {
		return 1, 1
	}
	all := document[list]
	if all.Decode(&elements) != nil || i >= len(elements) {
		return 1, 1
	}
	one := elements[i]
	for j := 0; j+1 < len(one.Content); j += 2 {
		if one.Content[j].Value == field {
			return one.Content[j+1].Line, one.Content[j+1].Column
		}
	}
	return one.Line, one.Column
}
