package language

import (
	"errors"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config"
	"tollgate/xds/config/syntax"
)

// Parse gives the gateway that the sources describe, with its warnings, or
// every fault, as Faults. It decodes each source once.
func Parse(sources []config.Source, resolve config.Resolve) (*config.Gateway, []config.Fault, error) {
	b := &builder{}
	files, readable := b.decode(sources, resolve)
	gateway := &config.Gateway{}
	if readable { // what half a file means is not worth a second fault
		if err := b.build(files, gateway); err != nil {
			return nil, nil, err
		}
	}
	warnings := ordered(b.warnings, sources)
	if len(b.faults) > 0 {
		return nil, warnings, config.Faults(ordered(b.faults, sources))
	}
	return gateway, warnings, nil
}

func (b *builder) decode(sources []config.Source, resolve config.Resolve) (files []*syntax.File, readable bool) {
	readable = true
	for _, source := range sources {
		file := &syntax.File{}
		faults := strictyaml.Decode(source.Data, file, strictyaml.Options{
			File: source.Name,
			Resolve: func(ref string) (string, error) {
				if resolve == nil {
					return "", errors.New(ref + " was not read")
				}
				value := resolve(config.Reference{Source: source.Name, Ref: ref})
				if value.Err != nil {
					return "", errors.New(ref + " cannot be read: " + value.Err.Error())
				}
				return value.Text, nil
			},
		})
		for _, f := range faults {
			b.faults = append(b.faults, config.Fault{Pos: config.Pos(f.Pos), Path: f.Path, Message: f.Message})
			b.doubts.note(f)
		}
		readable = readable && file.IsSet()
		files = append(files, file)
	}
	if len(sources) == 0 {
		b.fault(strictyaml.Pos{}, "", "no gateway file")
	}
	return files, readable
}
