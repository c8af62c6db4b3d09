package main

import (
	"slices"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"

	"tollgate/e2e/harness"
	"tollgate/xds/compile"
	"tollgate/xds/compile/static"
	"tollgate/xds/config"
	"tollgate/xds/config/language"
	"tollgate/xds/endpoint"
)

// rung takes one thing away from what a public route passes; each rung also
// takes what those before it took, so the last is nearly a bare Envoy.
type rung struct {
	name string
	take func(*hcmv3.HttpConnectionManager)
}

func rungs() []rung {
	return []rung{
		{"public route, access log to a file", func(*hcmv3.HttpConnectionManager) {}},
		{"− access log", func(m *hcmv3.HttpConnectionManager) { m.AccessLog = nil }},
		{"− filters that are off for the route", func(m *hcmv3.HttpConnectionManager) {
			m.HttpFilters = m.GetHttpFilters()[len(m.GetHttpFilters())-1:]
			routes := m.GetRouteConfig()
			routes.TypedPerFilterConfig = nil
			for _, host := range routes.GetVirtualHosts() {
				for _, route := range host.GetRoutes() {
					route.TypedPerFilterConfig = nil
				}
			}
		}},
		{"− stripped headers", func(m *hcmv3.HttpConnectionManager) { m.EarlyHeaderMutationExtensions = nil }},
		{"− error envelope", func(m *hcmv3.HttpConnectionManager) { m.LocalReplyConfig = nil }},
		{"− guards and all other routes", func(m *hcmv3.HttpConnectionManager) {
			for _, host := range m.GetRouteConfig().GetVirtualHosts() {
				host.Routes = slices.DeleteFunc(host.GetRoutes(), func(r *routev3.Route) bool { return r.GetName() != "public" })
			}
		}},
		{"− path rules, request ids, timers, limits", func(m *hcmv3.HttpConnectionManager) {
			kept := &hcmv3.HttpConnectionManager{StatPrefix: m.GetStatPrefix(), HttpFilters: m.GetHttpFilters(), RouteSpecifier: m.GetRouteSpecifier()}
			proto.Reset(m)
			proto.Merge(m, kept)
		}},
	}
}

// ladder are variants that show what each part of a public route's way costs.
func (b *bed) ladder(upstream, cert, key string) []variant {
	var out []variant
	taken := []func(*hcmv3.HttpConnectionManager){}
	for _, r := range rungs() {
		taken = append(taken, r.take)
		listen := harness.FreeAddress(b)
		bootstrap := b.compiled(listen, upstream, "127.0.0.1:1", cert, key)
		for _, take := range taken {
			edit(b, bootstrap, take)
		}
		pid := b.proxy(r.name, listen, bootstrap)
		out = append(out, variant{r.name, "https://" + listen + "/public", nil, map[string]int{"envoy": pid}, client()})
	}
	return out
}

// asking are the same Envoy configuration as the whole, with the two empty
// services in the place of ours.
func (b *bed) asking(upstream, services string, pid int, cert, key string) variant {
	listen := harness.FreeAddress(b)
	envoy := b.proxy("whole, empty services", listen, b.compiled(listen, upstream, services, cert, key))
	return variant{
		"our Envoy config, empty services", "https://" + listen + "/whole",
		map[string]string{"x-api-key": "none"},
		map[string]int{"envoy": envoy, "empty": pid},
		client(),
	}
}

// compiled is what our control plane would tell an Envoy.
func (b *bed) compiled(listen, upstream, services, cert, key string) *bootstrapv3.Bootstrap {
	text := []byte(expand(gateway, map[string]string{"https": listen, "up": upstream, "log": "{path: /dev/null}"}))
	sources := []config.Source{{Name: "gateway.yaml", Data: text}}
	gw, _, err := language.Parse(sources, func(r config.Reference) config.Value {
		switch r.Ref {
		case "file:edge.crt":
			return config.Value{Text: cert}
		case "file:edge.key":
			return config.Value{Text: key}
		}
		return config.Value{Text: `{"keys":[]}`}
	})
	if err != nil {
		b.Fatalf("the bench's gateway: %v", err)
	}
	objects, _ := compile.Compile(gw, compile.Scope{ExtAuthz: []string{services}, RateLimit: []string{services}})
	objects = append(objects, endpoint.Objects(gw.Upstreams, nil)...)
	bootstrap, err := static.Bootstrap(objects)
	if err != nil {
		b.Fatalf("the bench's gateway: %v", err)
	}
	return bootstrap
}

func edit(b *bed, bootstrap *bootstrapv3.Bootstrap, take func(*hcmv3.HttpConnectionManager)) {
	for _, l := range bootstrap.GetStaticResources().GetListeners() {
		for _, chain := range l.GetFilterChains() {
			last := chain.GetFilters()[len(chain.GetFilters())-1]
			manager := &hcmv3.HttpConnectionManager{}
			if err := last.GetTypedConfig().UnmarshalTo(manager); err != nil {
				b.Fatalf("%v", err)
			}
			take(manager)
			last.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed(manager)}
		}
	}
}
