package language

import (
	"fmt"
	"time"

	"tollgate/internal/celenv"
	"tollgate/internal/strictyaml"
	"tollgate/xds/config"
	"tollgate/xds/config/check"
	"tollgate/xds/config/inherit"
	"tollgate/xds/config/syntax"
)

// builder turns decoded files into the model and collects what is wrong.
type builder struct {
	faults, warnings []config.Fault
	doubts           doubts
}

func (b *builder) fault(pos strictyaml.Pos, path, format string, args ...any) {
	if b.doubts.follows(pos, path) {
		return
	}
	b.faults = append(b.faults, config.Fault{Pos: config.Pos(pos), Path: path, Message: fmt.Sprintf(format, args...)})
}

func (b *builder) warn(pos strictyaml.Pos, path, format string, args ...any) {
	b.warnings = append(b.warnings, config.Fault{Pos: config.Pos(pos), Path: path, Message: fmt.Sprintf(format, args...), Warning: true})
}

// build checks the parts and makes the model of them.
func (b *builder) build(files []*syntax.File, g *config.Gateway) error {
	inherited := inherit.From(b.defaults(files))
	upstreams, routes := inherited.Upstreams(files), inherited.Routes(files)
	cel, err := celenv.New()
	if err != nil {
		return err
	}
	checker := check.New(cel, b.fault, b.warn)
	checker.Files(files)
	checker.Upstreams(upstreams)
	checker.Routes(routes)

	for _, f := range files {
		b.file(f, g)
	}
	for i := range upstreams {
		g.Upstreams = append(g.Upstreams, upstream(&upstreams[i]))
	}
	for i := range routes {
		if r := &routes[i]; !r.IsGroup() {
			made := route(r)
			b.attemptsFit(r.Full, made, r.Path)
			b.doubts.route(r, made)
			g.Routes = append(g.Routes, made)
		}
	}
	b.telemetry(files, g)
	b.openPorts(g.Listeners)
	b.plaintext(g)
	b.ties(g)
	return nil
}

func (b *builder) defaults(files []*syntax.File) *syntax.Defaults {
	return single(b, files, "defaults", func(f *syntax.File) (*syntax.Defaults, strictyaml.Pos) {
		if f.Defaults == nil {
			return nil, strictyaml.Pos{}
		}
		return f.Defaults, f.Defaults.Pos
	})
}

// file adds what needs nothing from elsewhere.
func (*builder) file(f *syntax.File, g *config.Gateway) {
	identity(f.Identity, &g.Identity)
	for i := range f.Listeners {
		g.Listeners = append(g.Listeners, listener(&f.Listeners[i]))
	}
	for i := range f.Plans {
		p := &f.Plans[i]
		g.Plans = append(g.Plans, config.Plan{Pos: config.Pos(p.Pos), Name: string(p.Name.V), RateLimit: planLimits(p)})
	}
	for i := range f.Tenants {
		t := &f.Tenants[i]
		g.Tenants = append(g.Tenants, config.Tenant{Pos: config.Pos(t.Pos), Name: string(t.Name.V), Plan: string(t.Plan.V)})
	}
	g.RateLimit = append(g.RateLimit, limits("gateway", f.RateLimit.Items, len(g.RateLimit))...)
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

func (b *builder) telemetry(files []*syntax.File, g *config.Gateway) {
	access := single(b, files, "access_log", func(f *syntax.File) (*syntax.AccessLog, strictyaml.Pos) {
		if f.AccessLog == nil {
			return nil, strictyaml.Pos{}
		}
		return f.AccessLog, f.AccessLog.Pos
	})
	if access != nil {
		g.AccessLog = config.AccessLog{Off: access.Off, Path: access.Path.V}
	}
	tracing := single(b, files, "tracing", func(f *syntax.File) (*syntax.Tracing, strictyaml.Pos) {
		if f.Tracing == nil {
			return nil, strictyaml.Pos{}
		}
		return f.Tracing, f.Tracing.Pos
	})
	if tracing != nil && !tracing.Off {
		g.Tracing = &config.Tracing{OTLP: string(tracing.OTLP.V), Sampling: or(tracing.Sampling, 100, percent)}
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
