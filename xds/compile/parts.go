package compile

import (
	"fmt"
	"hash/fnv"
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"

	"tollgate/api/contract"
	"tollgate/xds/compile/field"
	"tollgate/xds/compile/routing"
	"tollgate/xds/compile/shard"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// form is how the routes of a listener are parted, so that Envoy need not take
// in all of them again when one is edited; nil for not at all.
func (b *builder) form(l *config.Listener) *shard.Form {
	if l.RedirectHTTPS {
		return nil
	}
	if b.scope.Form != nil {
		return b.scope.Form
	}
	if !b.scope.Parts || len(b.gw.Routes) <= shard.Enough {
		return nil
	}
	weights, routes := b.routing.Weights(l)
	if routes <= shard.Enough {
		return nil
	}
	f, cost, whole := shard.Choose(weights)
	if cost > 4*shard.Enough {
		b.warnings = append(b.warnings, fmt.Sprintf(
			"listeners[%s]: every edit of one of its %d routes makes a proxy take in %d routes on average, because many routes are for all hosts and all paths; "+
				"routes that name a host, or a path, are edited more cheaply", l.Name, routes, cost))
	}
	if 2*cost > whole {
		return nil
	}
	return &f
}

// parted adds the routes of a listener.
func (b *builder) parted(l *config.Listener, form *shard.Form) {
	t := b.routing.Table(l, b.httpsPort())
	if form == nil {
		whole := t.Whole()
		b.add(release.TypeRoute, l.Name, whole.Configuration, l.Pos, whole.Refs...)
		return
	}
	for _, part := range t.Parts(*form, partsName(l, form)) {
		name := part.Configuration.GetName()
		b.add(release.TypeRoute, name, part.Configuration, l.Pos, part.Refs...)
		scope := scopeOf(name)
		scope.Pos = l.Pos
		b.objects = append(b.objects, scope)
	}
}

// encodedParts adds the routes of a listener, those that changed encoded anew.
func (b *builder) encodedParts(m *routing.Memory, l *config.Listener, form *shard.Form) error {
	parts, err := b.routing.EncodedParts(m, l, *form, partsName(l, form), func(i int) any { return b.made[i] })
	for _, part := range parts {
		b.objects = append(b.objects, release.Object{Audience: release.Edge, Type: release.TypeRoute, Name: part.Name, Body: part.Body, Pos: l.Pos, Refs: part.Refs, Memo: part.Memo})
		scope, known := b.memory.scopes[part.Name]
		if !known {
			scope = scopeOf(part.Name)
			scope.Memo = &release.Memo{}
			b.memory.scopes[part.Name] = scope
		}
		scope.Pos = l.Pos
		b.objects = append(b.objects, scope)
	}
	return err
}

// scopeOf is the scope of a part.
func scopeOf(name string) release.Object {
	return release.Object{
		Audience: release.Edge, Type: release.TypeScope, Name: name, Refs: []release.Ref{{Type: release.TypeRoute, Name: name}},
		Message: &routev3.ScopedRouteConfiguration{
			Name: name, RouteConfigurationName: name, Key: &routev3.ScopedRouteConfiguration_Key{
				Fragments: []*routev3.ScopedRouteConfiguration_Key_Fragment{{Type: &routev3.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: name}}},
			},
		},
	}
}

// routesRefs are what a listener finds its routes by.
func routesRefs(l *config.Listener, form *shard.Form) []release.Ref {
	if form == nil {
		return []release.Ref{{Type: release.TypeRoute, Name: l.Name}}
	}
	out, prefix := make([]release.Ref, form.Parts()), partsName(l, form)
	for i := range out {
		out[i] = release.Ref{Type: release.TypeScope, Name: routing.PartName(prefix, i)}
	}
	return out
}

// partsName begins the names of parts, which are those of their scopes and keys,
// too. Proxies hold the scopes of all listeners and forms together, so that each
// has its own.
func partsName(l *config.Listener, f *shard.Form) string { return l.Name + "/" + f.Name() }

// inParts makes a connection manager look for each route in one part. The part
// is computed before any filter: Envoy settles by the first route it finds which
// filters a request passes, so that to look again later would be wrong.
func inParts(hcm *hcmv3.HttpConnectionManager, l *config.Listener, f shard.Form) {
	note := &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{Append: &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: contract.HeaderScope, Value: partsName(l, &f) + "/%CEL(" + f.Expression() + ")%"},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}}}
	hcm.EarlyHeaderMutationExtensions = append(hcm.EarlyHeaderMutationExtensions, field.Extension(
		"envoy.http.early_header_mutation.header_mutation", &earlyv3.HeaderMutation{Mutations: []*mutationv3.HeaderMutation{note}},
	))
	hcm.RouteSpecifier = &hcmv3.HttpConnectionManager_ScopedRoutes{ScopedRoutes: &hcmv3.ScopedRoutes{
		Name: partsName(l, &f), RdsConfigSource: field.ADS(0),
		ScopeKeyBuilder: &hcmv3.ScopedRoutes_ScopeKeyBuilder{Fragments: []*hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder{{
			Type: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_{
				HeaderValueExtractor: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor{
					Name:        contract.HeaderScope,
					ExtractType: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Index{},
				},
			},
		}}},
		ConfigSpecifier: &hcmv3.ScopedRoutes_ScopedRds{ScopedRds: &hcmv3.ScopedRds{ScopedRdsConfigSource: field.ADS(ownWait(partsName(l, &f)))}},
	}}
}

// ownWait is so long that it never ends, and another one for another name.
// Envoy shares what it holds of scopes between listeners that ask for them in
// the same words, and then opens a listener before the scopes are there that it
// alone needs.
func ownWait(name string) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash takes everything
	return 24*time.Hour + time.Duration(h.Sum32())*time.Millisecond
}
