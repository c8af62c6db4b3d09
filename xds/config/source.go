package config

import "errors"

// MaxSource is the largest gateway file that is read, in bytes.
const MaxSource = 16 << 20

// Source is one gateway file, already read.
type Source struct {
	Name string // shown in faults
	Data []byte
}

// Reference is a value of a file that stands elsewhere: "env:NAME", or
// "file:PATH" with PATH relative to the source.
type Reference struct {
	Source string // Source.Name
	Ref    string
}

// Value is what a reference stands for, or why it cannot be had.
type Value struct {
	Text string
	Err  error
}

// Resolve gives what a reference stands for. Parse asks for each reference where
// it stands, so what it asked for is what the sources name.
type Resolve func(Reference) Value

// Values holds what the references of the sources stand for.
type Values map[Reference]Value

// Of is the Resolve of values that are at hand; what is not among them was not read.
func (v Values) Of(ref Reference) Value {
	value, known := v[ref]
	if !known {
		return Value{Err: errors.New("it was not read")}
	}
	return value
}
