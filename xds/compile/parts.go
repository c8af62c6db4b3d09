package compile

import (
	"hash/fnv"
	"strconv"
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"

	"tollgate/api/contract"
	"tollgate/xds/compile/field"
	"tollgate/xds/compile/shard"
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// form is how the routes of a listener are parted, so that Envoy need not take
// in all of them again when one is edited; nil for not at all.
func (b *builder) form(l *config.Listener) *shard.Form {
	if b.scope.Form != nil && !l.RedirectHTTPS {
		return b.scope.Form
	}
	return nil
}

// parted adds the routes of a listener.
func (b *builder) parted(l *config.Listener, form *shard.Form) {
	t := b.routing.Table(l, b.httpsPort())
	if form == nil {
		whole := t.Whole()
		b.add(release.Edge, release.TypeRoute, l.Name, whole.Configuration, l.Pos, whole.Refs...)
		return
	}
	name := func(part int) string { return partName(l, form, part) }
	for i, part := range t.Parts(*form, name) {
		b.add(release.Edge, release.TypeRoute, name(i), part.Configuration, l.Pos, part.Refs...)
		b.add(release.Edge, release.TypeScope, name(i), &routev3.ScopedRouteConfiguration{
			Name: name(i), RouteConfigurationName: name(i), Key: &routev3.ScopedRouteConfiguration_Key{
				Fragments: []*routev3.ScopedRouteConfiguration_Key_Fragment{{Type: &routev3.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: name(i)}}},
			},
		}, l.Pos, release.Ref{Type: release.TypeRoute, Name: name(i)})
	}
}

// routesRefs are what a listener finds its routes by.
func routesRefs(l *config.Listener, form *shard.Form) []release.Ref {
	if form == nil {
		return []release.Ref{{Type: release.TypeRoute, Name: l.Name}}
	}
	out := make([]release.Ref, form.Parts())
	for i := range out {
		out[i] = release.Ref{Type: release.TypeScope, Name: partName(l, form, i)}
	}
	return out
}

// partName is that of a part, of its scope and of the scope's key. Proxies hold
// the scopes of all listeners and forms together, so that each has its own.
func partName(l *config.Listener, f *shard.Form, part int) string {
	return partsName(l, f) + "/" + strconv.Itoa(part)
}

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
