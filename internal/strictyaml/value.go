package strictyaml

import (
	"encoding"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Scalar is one written word, before it means anything.
type Scalar struct {
	Written string
	resolve func(ref string) (string, error)
}

// IsReference reports whether text stands for a value kept elsewhere.
func IsReference(text string) bool {
	return strings.HasPrefix(text, "env:") || strings.HasPrefix(text, "file:")
}

// Text is the word itself, or what it refers to.
func (s Scalar) Text() (string, error) {
	if !IsReference(s.Written) {
		return s.Written, nil
	}
	return s.Resolve(s.Written)
}

// Resolve gives what a reference stands for.
func (s Scalar) Resolve(ref string) (string, error) {
	if s.resolve == nil {
		return "", fmt.Errorf("%s cannot be read here", ref)
	}
	return s.resolve(ref)
}

// Setter is a type that is written as one word.
type Setter interface {
	Set(s Scalar) error
}

// Shorthand is a block that may also be written as one word.
type Shorthand interface {
	Shorthand(s Scalar) error
}

// Later is the type of a key that a later version will know.
type Later struct{}

// Value is a word with its meaning and its place. The zero Value was not
// written.
type Value[T any] struct {
	Pos
	V   T
	Ref string // the reference it came from, which may be shown where V may not
}

// Shown is the value as a message may show it.
func (v Value[T]) Shown() string {
	if v.Ref != "" {
		return v.Ref
	}
	return fmt.Sprint(v.V)
}

// Set reads the word. A text that came from a reference is in no error.
func (v *Value[T]) Set(s Scalar) error {
	text, err := s.Text()
	if err != nil {
		return err
	}
	if IsReference(s.Written) {
		v.Ref = s.Written
	}
	if err := parse(any(&v.V), text); err != nil {
		if v.Ref != "" {
			return fmt.Errorf("what %s stands for is not valid here", v.Ref)
		}
		return err
	}
	return nil
}

func parse(out any, text string) error {
	switch out := out.(type) {
	case *string:
		*out = text
	case *bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("must be true or false, not %q", text)
		}
		*out = text == "true"
	case *int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || (text != "0" && strings.HasPrefix(strings.TrimLeft(text, "+-"), "0")) {
			return fmt.Errorf("must be a whole number, not %q", text)
		}
		*out = n
	case encoding.TextUnmarshaler:
		return out.UnmarshalText([]byte(text))
	default:
		return errors.New("cannot be written in a file")
	}
	return nil
}

// List is a list with its place, so that an empty one differs from none. The
// word `none` is an empty list.
type List[T any] struct {
	Pos
	Items []T
	None  bool
}

// Shorthand takes the word none.
func (l *List[T]) Shorthand(s Scalar) error {
	if s.Written != "none" {
		return fmt.Errorf("must be a list or `none`, not %q", s.Written)
	}
	l.None = true
	return nil
}

func (l *List[T]) elements() any { return &l.Items }

// Entry is one line of a Map.
type Entry[T any] struct {
	Key   Value[string]
	Value T
}

// Map is a mapping whose keys the operator chooses, in the order of the file.
type Map[T any] struct {
	Pos
	Items []Entry[T]
}

func (m *Map[T]) add(key Value[string]) any {
	m.Items = append(m.Items, Entry[T]{Key: key})
	return &m.Items[len(m.Items)-1].Value
}
