// Package parts decodes gateway files part by part: each route, each upstream
// and each other key of a file by itself, unless it decoded the same text before.
// Invariant: what it returns is what the whole file decodes to, but for positions
// of elements, which are where the text stood when it was decoded first.
package parts

import (
	"bytes"
	"maps"
	"reflect"
	"slices"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config"
	"tollgate/xds/config/syntax"
)

// The lists whose elements are parts of their own.
const (
	Routes    = "routes"
	Upstreams = "upstreams"
)

// Files are sources as they were decoded, and what was known of them before. M
// is what is made of an element and kept with it.
type Files[M any] struct {
	known  map[string]*File[M] // by name of the source
	turn   uint64              // counts the sets
	shapes strictyaml.Shapes
}

// File is a source without a fault.
type File[M any] struct {
	// Rest is everything but the elements of routes and upstreams.
	Rest              *syntax.File
	Defaults          *config.Edition // what Rest.Defaults says
	DefaultsLine      int             // lines before them
	Routes, Upstreams []Place[M]

	source config.Source
	asked  []asked                        // of the parts that are no elements
	known  map[string]map[string]*Part[M] // by key and text
}

// Place is where an element stands now.
type Place[M any] struct {
	Part *Part[M]
	Line int // lines before it
}

// Part is some lines of a source, decoded. Positions in it are those of where
// it stood then.
type Part[M any] struct {
	strictyaml.Part
	Route    *syntax.Route    // or:
	Upstream *syntax.Upstream // or neither, in a part that is no element
	Made     *M

	edition *config.Edition
	asked   []asked
	turn    uint64 // when it was used last
	rest    *syntax.File
	within  []*Part[M] // elements of rest
}

// asked is a reference with what it stood for.
type asked struct {
	ref  config.Reference
	text string
}

// New returns Files that have seen nothing.
func New[M any]() *Files[M] {
	return &Files[M]{known: map[string]*File[M]{}, shapes: strictyaml.Shapes{}}
}

// Read decodes what changed of the sources. It returns nil if there is a fault,
// and for what only a look at the whole can judge.
func (p *Files[M]) Read(sources []config.Source, resolve config.Resolve) []*File[M] {
	p.turn++
	files := make([]*File[M], 0, len(sources))
	now := make(map[string]*File[M], len(sources))
	for _, s := range sources {
		f := p.known[s.Name]
		if now[s.Name] != nil || resolve == nil {
			return nil
		}
		if f == nil || !f.still(s, resolve) {
			if f = p.decode(s, resolve, f); f == nil {
				return nil
			}
			p.known[s.Name] = f
		}
		now[s.Name] = f
		files = append(files, f)
	}
	p.known = now
	return files
}

// still reports whether a source says what it said.
func (f *File[M]) still(s config.Source, resolve config.Resolve) bool {
	if !bytes.Equal(f.source.Data, s.Data) || !still(f.asked, resolve) {
		return false
	}
	f.source = s
	for _, places := range [][]Place[M]{f.Routes, f.Upstreams} {
		for i := range places {
			if !still(places[i].Part.asked, resolve) {
				return false
			}
		}
	}
	return true
}

func still(list []asked, resolve config.Resolve) bool {
	for _, a := range list {
		if now := resolve(a.ref); now.Err != nil || now.Text != a.text {
			return false
		}
	}
	return true
}

// decode decodes a source part by part, taking those that it knows from last; nil
// if there is a fault.
func (p *Files[M]) decode(s config.Source, resolve config.Resolve, last *File[M]) *File[M] {
	cut, ok := strictyaml.Cut(s.Data, Routes, Upstreams)
	if !ok {
		return p.whole(s, resolve)
	}
	f := &File[M]{source: s, Rest: &syntax.File{Pos: strictyaml.Pos{File: s.Name, Line: cut[0].Line + 1, Col: 1}}, known: map[string]map[string]*Part[M]{}}
	if last != nil && last.known != nil {
		f.known = last.known
	}
	fields := strictyaml.Fields(reflect.TypeFor[syntax.File]())
	for _, field := range fields {
		if field.Required && !slices.ContainsFunc(cut, func(one strictyaml.Part) bool { return one.Key == field.Name }) {
			return nil
		}
	}
	for _, one := range cut {
		made := p.part(one, f, resolve)
		if made == nil {
			return nil
		}
		if made.rest != nil {
			f.take(made, fields)
		}
		f.place(made, one.Line)
		for _, element := range made.within {
			f.place(element, one.Line)
		}
	}
	f.forget(p.turn, len(cut))
	return f
}

// take puts the one key of a part into the file.
func (f *File[M]) take(made *Part[M], fields []strictyaml.Field) {
	f.asked = append(f.asked, made.asked...)
	if made.rest.Defaults != nil {
		f.Defaults, f.DefaultsLine = made.edition, made.Line
	}
	if len(made.within) > 0 {
		return
	}
	i := slices.IndexFunc(fields, func(field strictyaml.Field) bool { return field.Name == made.Key })
	from, to := reflect.ValueOf(made.rest).Elem(), reflect.ValueOf(f.Rest).Elem()
	to.FieldByIndex(fields[i].Index).Set(from.FieldByIndex(fields[i].Index))
}

func (f *File[M]) place(p *Part[M], line int) {
	switch {
	case p.Route != nil:
		f.Routes = append(f.Routes, Place[M]{p, line})
	case p.Upstream != nil:
		f.Upstreams = append(f.Upstreams, Place[M]{p, line})
	}
}

// forget drops what was not used for long, when that is most.
func (f *File[M]) forget(turn uint64, now int) {
	for _, known := range f.known {
		if len(known) > 2*now+100 {
			maps.DeleteFunc(known, func(_ string, p *Part[M]) bool { return p.turn != turn })
		}
	}
}

// part decodes one part, or takes it from what was decoded before: an element
// wherever it stands now, anything else where it stood.
func (p *Files[M]) part(one strictyaml.Part, f *File[M], resolve config.Resolve) *Part[M] {
	known := f.known[one.Key][string(one.Text)]
	if known == nil || known.Element != one.Element || !still(known.asked, resolve) {
		return p.anew(one, f, resolve, &config.Edition{})
	}
	if one.Element || known.Line == one.Line {
		known.turn = p.turn
		return known
	}
	return p.anew(one, f, resolve, known.edition)
}

// Again decodes an element where it stands now; nil if there is a fault.
func (p *Files[M]) Again(f *File[M], at *Place[M], resolve config.Resolve) *Part[M] {
	one := at.Part.Part
	one.Line = at.Line
	again := p.anew(one, f, resolve, at.Part.edition)
	if again != nil {
		at.Part = again
	}
	return again
}

// anew decodes a part where it stands; nil if there is a fault.
func (p *Files[M]) anew(one strictyaml.Part, f *File[M], resolve config.Resolve, edition *config.Edition) *Part[M] {
	text := string(one.Text)
	one.Text = []byte(text) // the file that it stood in may go
	made := &Part[M]{Part: one, edition: edition, turn: p.turn}
	var into any
	switch {
	case one.Element && one.Key == Routes:
		made.Route = &syntax.Route{}
		into = made.Route
	case one.Element:
		made.Upstream = &syntax.Upstream{}
		into = made.Upstream
	default:
		made.rest = &syntax.File{}
		into = made.rest
	}
	options := strictyaml.Options{File: f.source.Name, Resolve: recorded(f.source.Name, resolve, &made.asked), Shapes: p.shapes}
	if len(strictyaml.DecodePart(one, into, options)) > 0 {
		return nil
	}
	if f.known[one.Key] == nil {
		f.known[one.Key] = map[string]*Part[M]{}
	}
	f.known[one.Key][text] = made
	if made.rest != nil {
		made.within = elements[M](made.rest, one, nil)
	}
	return made
}

// elements are routes and upstreams that are not told apart by their lines.
func elements[M any](rest *syntax.File, of strictyaml.Part, out []*Part[M]) []*Part[M] {
	for i := range rest.Routes {
		out = append(out, &Part[M]{Part: of, Route: &rest.Routes[i]})
	}
	for i := range rest.Upstreams {
		out = append(out, &Part[M]{Part: of, Upstream: &rest.Upstreams[i]})
	}
	return out
}

// recorded resolves references and notes what they stood for.
func recorded(source string, resolve config.Resolve, into *[]asked) func(string) (string, error) {
	return func(ref string) (string, error) {
		value := resolve(config.Reference{Source: source, Ref: ref})
		if value.Err == nil {
			*into = append(*into, asked{config.Reference{Source: source, Ref: ref}, value.Text})
		}
		return value.Text, value.Err
	}
}

// whole decodes a source that cannot be cut.
func (p *Files[M]) whole(s config.Source, resolve config.Resolve) *File[M] {
	f := &File[M]{source: s, Rest: &syntax.File{}, Defaults: &config.Edition{}}
	options := strictyaml.Options{File: s.Name, Resolve: recorded(s.Name, resolve, &f.asked), Shapes: p.shapes}
	if len(strictyaml.Decode(s.Data, f.Rest, options)) > 0 || !f.Rest.IsSet() {
		return nil
	}
	for _, element := range elements[M](f.Rest, strictyaml.Part{}, nil) {
		f.place(element, 0)
	}
	f.Rest.Routes, f.Rest.Upstreams = nil, nil
	return f
}
