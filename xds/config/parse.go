package config

import (
	"errors"
	"slices"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/syntax"
)

// Parse gives the gateway that the sources describe, with its warnings, or
// every fault, as Faults.
func Parse(sources []Source, values Values) (*Gateway, []Fault, error) {
	b := &builder{unclear: map[Fault]bool{}}
	files, readable := b.decode(sources, values)
	gateway := &Gateway{}
	if readable { // what half a file means is not worth a second fault
		if err := b.build(files, gateway); err != nil {
			return nil, nil, err
		}
	}
	warnings := ordered(b.warnings, sources)
	if len(b.faults) > 0 {
		return nil, warnings, Faults(ordered(b.faults, sources))
	}
	return gateway, warnings, nil
}

func (b *builder) decode(sources []Source, values Values) (files []*syntax.File, readable bool) {
	readable = true
	for _, source := range sources {
		file := &syntax.File{}
		faults := strictyaml.Decode(source.Data, file, strictyaml.Options{
			File: source.Name,
			Resolve: func(ref string) (string, error) {
				value, known := values[Reference{Source: source.Name, Ref: ref}]
				if !known {
					return "", errors.New(ref + " was not read")
				}
				if value.Err != nil {
					return "", errors.New(ref + " cannot be read: " + value.Err.Error())
				}
				return value.Text, nil
			},
		})
		for _, f := range faults {
			b.fault(f.Pos, f.Path, "%s", f.Message)
			b.unclear[Fault{Pos: Pos(f.Pos), Path: f.Path}] = f.Word
		}
		readable = readable && file.IsSet()
		files = append(files, file)
	}
	if len(sources) == 0 {
		b.fault(strictyaml.Pos{}, "", "no gateway file")
	}
	return files, readable
}

// References lists the env: and file: values of the sources, in the order of
// the sources and without repetitions, so that the caller can read them for
// Parse. The error is about sources that are no gateway files at all; Parse
// says the same, and more.
func References(sources []Source) ([]Reference, error) {
	var out []Reference
	var unreadable Faults
	for _, source := range sources {
		var found []string
		var file syntax.File
		faults := strictyaml.Decode(source.Data, &file, strictyaml.Options{
			File:    source.Name,
			Resolve: func(ref string) (string, error) { found = append(found, ref); return "", nil },
		})
		if !file.IsSet() {
			for _, f := range faults {
				unreadable = append(unreadable, Fault{Pos: Pos(f.Pos), Path: f.Path, Message: f.Message})
			}
		}
		slices.Sort(found)
		for _, ref := range slices.Compact(found) {
			out = append(out, Reference{Source: source.Name, Ref: ref})
		}
	}
	if len(unreadable) > 0 {
		return out, Faults(ordered(unreadable, sources))
	}
	return out, nil
}
