package config

import (
	"fmt"
	"time"

	"tollgate/internal/celenv"
	"tollgate/internal/strictyaml"
	"tollgate/xds/config/syntax"
)

// maxSuggestions bounds the search for near names: ten thousand wrong names
// among ten thousand right ones would take minutes.
const maxSuggestions = maxFaults

// builder turns decoded files into the model and collects what is wrong.
type builder struct {
	faults, warnings []Fault
	unclear          map[Fault]bool // words, by place, that did not decode: no second fault
	suggested        int
	merger           *syntax.Merger
	cel              *celenv.Env

	listeners map[string]strictyaml.Pos
	issuers   map[string]strictyaml.Pos
	plans     map[string]strictyaml.Pos
	upstreams map[string]*syntax.Upstream
	names     struct{ issuers, plans, listeners, upstreams []string }
	roles     map[string]strictyaml.Pos
	apiKeys   bool
}

func newBuilder() (*builder, error) {
	cel, err := celenv.New()
	if err != nil {
		return nil, err
	}
	return &builder{
		cel:       cel,
		merger:    syntax.NewMerger(),
		unclear:   map[Fault]bool{},
		listeners: map[string]strictyaml.Pos{},
		issuers:   map[string]strictyaml.Pos{},
		plans:     map[string]strictyaml.Pos{},
		upstreams: map[string]*syntax.Upstream{},
		roles:     map[string]strictyaml.Pos{},
	}, nil
}

func (b *builder) fault(pos strictyaml.Pos, path, format string, args ...any) {
	if b.unclear[Fault{Pos: Pos(pos), Path: path}] {
		return
	}
	b.faults = append(b.faults, Fault{Pos: Pos(pos), Path: path, Message: fmt.Sprintf(format, args...)})
}

func (b *builder) warn(pos strictyaml.Pos, path, format string, args ...any) {
	b.warnings = append(b.warnings, Fault{Pos: Pos(pos), Path: path, Message: fmt.Sprintf(format, args...), Warning: true})
}

// unknown says that nothing has this name, and which one was probably meant.
func (b *builder) unknown(name syntax.Identifier, path, what string, known []string) {
	hint := ""
	if b.suggested++; b.suggested <= maxSuggestions {
		hint = strictyaml.Suggest(name.Shown(), known)
	}
	if len(known) == 0 {
		hint = fmt.Sprintf("; the file names no %s", what)
	}
	b.fault(name.Pos, path, "no %s is named %q%s", what, name.Shown(), hint)
}

// unique notes a name; a second one is a fault that shows both places.
func (b *builder) unique(seen map[string]strictyaml.Pos, pos strictyaml.Pos, path, name string) bool {
	if name == "" { // faulty already
		return false
	}
	if first, twice := seen[name]; twice {
		b.fault(pos, path, "the name %q is taken: %s:%d:%d has it too", name, first.File, first.Line, first.Col)
		return false
	}
	seen[name] = pos
	return true
}

// build goes through the parts in the order in which they refer to each other.
func (b *builder) build(files []*syntax.File, g *Gateway) {
	defaults := b.defaults(files)
	for _, f := range files {
		b.identity(f.Identity, &g.Identity)
	}
	for _, f := range files {
		for i := range f.Listeners {
			b.listener(&f.Listeners[i], g)
		}
		for i := range f.Plans {
			b.plan(&f.Plans[i], g)
		}
	}
	b.openPorts(g.Listeners)
	tenants := map[string]strictyaml.Pos{}
	for _, f := range files {
		for i := range f.Tenants {
			b.tenant(&f.Tenants[i], tenants, g)
		}
		g.RateLimit = append(g.RateLimit, b.limits("gateway", "rate_limit", f.RateLimit.Items, len(g.RateLimit))...)
	}
	b.uniqueLimits(g.RateLimit, "rate_limit")
	b.allUpstreams(files, defaults.Upstream, g)
	b.allRoutes(files, defaults.Settings, g)
	b.telemetry(files, g)
	b.plaintext(g)
}

// single gives the one place where a block that cannot be shared out is written.
func single[T any](b *builder, files []*syntax.File, path string, of func(*syntax.File) (*T, strictyaml.Pos)) *T {
	var found *T
	var first strictyaml.Pos
	for _, f := range files {
		v, pos := of(f)
		if v == nil {
			continue
		}
		if found != nil {
			b.fault(pos, path, "is written in two files: %s:%d:%d has it too", first.File, first.Line, first.Col)
			continue
		}
		found, first = v, pos
	}
	return found
}

func (b *builder) defaults(files []*syntax.File) syntax.Defaults {
	found := single(b, files, "defaults", func(f *syntax.File) (*syntax.Defaults, strictyaml.Pos) {
		if f.Defaults == nil {
			return nil, strictyaml.Pos{}
		}
		return f.Defaults, f.Defaults.Pos
	})
	if found == nil {
		return syntax.Defaults{}
	}
	return *found
}

func (b *builder) telemetry(files []*syntax.File, g *Gateway) {
	access := single(b, files, "access_log", func(f *syntax.File) (*syntax.AccessLog, strictyaml.Pos) {
		if f.AccessLog == nil {
			return nil, strictyaml.Pos{}
		}
		return f.AccessLog, f.AccessLog.Pos
	})
	if access != nil {
		g.AccessLog = AccessLog{Off: access.Off, Path: access.Path.V}
	}
	tracing := single(b, files, "tracing", func(f *syntax.File) (*syntax.Tracing, strictyaml.Pos) {
		if f.Tracing == nil {
			return nil, strictyaml.Pos{}
		}
		return f.Tracing, f.Tracing.Pos
	})
	if tracing != nil && !tracing.Off {
		g.Tracing = &Tracing{OTLP: string(tracing.OTLP.V), Sampling: or(tracing.Sampling, 100, percent)}
	}
}

// or is what is written, or the default.
func or[T, M any](v strictyaml.Value[T], unset M, meaning func(T) M) M {
	if !v.IsSet() {
		return unset
	}
	return meaning(v.V)
}

func percent(s syntax.Share) float64     { return float64(s) }
func wholePercent(s syntax.Share) uint32 { return uint32(s + 0.5) }
func span(s syntax.Span) time.Duration   { return s.D() }
func number(n int64) uint32              { return uint32(n) }
func itself[T any](v T) T                { return v }
func strs[T ~string](v []strictyaml.Value[T]) []string {
	var out []string
	for _, s := range v {
		out = append(out, string(s.V))
	}
	return out
}

// index names an element in a path by its name or its number.
func index(list, name string, i int) string {
	if name == "" {
		return fmt.Sprintf("%s[%d]", list, i)
	}
	return list + "[" + name + "]"
}
