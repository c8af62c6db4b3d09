package xds

import (
	"bytes"
	"errors"
	"slices"

	"tollgate/xds/admin"
	"tollgate/xds/config"
	"tollgate/xds/files"
)

// choice is what is served of what the files say.
type choice struct {
	sources  []config.Source
	gateway  *config.Gateway // nil: nothing of it, what is served stays
	warnings []config.Fault
	held     []admin.HeldFile
	err      error // every fault; nil: all files are served as they are
}

// faults is a line for each.
func (c choice) faults() []string {
	var faults []string
	for _, h := range c.held {
		faults = append(faults, h.Faults...)
	}
	return faults
}

// choose serves the files as they are if they parse. Otherwise each faulty one
// is held back: its last good text stands in for it, or it is left out when it
// has none, and if that set is valid the changes of all others land.
func (p *Pipeline) choose(now *files.Reading, last []config.Source) choice {
	gateway, warnings, err := p.parser.Parse(now.Sources, now.Resolve)
	held := faulty(err, now.Unread)
	if len(held) == 0 && err == nil {
		return choice{sources: now.Sources, gateway: gateway, warnings: warnings}
	}
	out := choice{held: held, err: joined(err, now.Unread)}
	mixed := standIn(now, last, held)
	if len(last) == 0 || len(mixed) == 0 || same(mixed, now.Sources) {
		return out
	}
	gateway, warnings, err = p.parser.Parse(mixed, now.Resolve)
	if err == nil {
		out.sources, out.gateway, out.warnings = mixed, gateway, warnings
	}
	return out
}

// standIn puts the last good text in the place of each held file.
func standIn(now *files.Reading, last []config.Source, held []admin.HeldFile) []config.Source {
	var mixed []config.Source
	for _, name := range now.Names {
		from := now.Sources
		if slices.ContainsFunc(held, func(h admin.HeldFile) bool { return h.File == name }) {
			from = last
		}
		if i := slices.IndexFunc(from, func(s config.Source) bool { return s.Name == name }); i >= 0 {
			mixed = append(mixed, from[i])
		}
	}
	return mixed
}

func same(a, b []config.Source) bool {
	return slices.EqualFunc(a, b, func(x, y config.Source) bool { return x.Name == y.Name && bytes.Equal(x.Data, y.Data) })
}

// faulty sorts faults by the file that they are in; "" is of none.
func faulty(err error, unread []files.Unread) []admin.HeldFile {
	var held []admin.HeldFile
	add := func(file, fault string) {
		i := slices.IndexFunc(held, func(h admin.HeldFile) bool { return h.File == file })
		if i < 0 {
			i, held = len(held), append(held, admin.HeldFile{File: file})
		}
		held[i].Faults = append(held[i].Faults, fault)
	}
	var faults config.Faults
	switch {
	case errors.As(err, &faults):
		for _, f := range faults {
			add(f.Pos.File, f.String())
		}
	case err != nil:
		add("", err.Error())
	}
	for _, u := range unread {
		add(u.Name, u.Err.Error())
	}
	return held
}

func joined(err error, unread []files.Unread) error {
	all := []error{err}
	for _, u := range unread {
		all = append(all, u.Err)
	}
	return errors.Join(all...)
}
