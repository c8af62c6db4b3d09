package compile

import (
	"maps"
	"regexp"
	"slices"
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	limitservicev3 "github.com/envoyproxy/go-control-plane/envoy/config/ratelimit/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	bodyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/body_size_limit/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	authzfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	floodv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	limitfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tollgate/api/contract"
	"tollgate/xds/compile/field"
	"tollgate/xds/compile/guard"
	"tollgate/xds/compile/headers"
	"tollgate/xds/compile/limiting"
	"tollgate/xds/compile/routing"
	"tollgate/xds/compile/shard"
	"tollgate/xds/config"
)

// floodAddresses is how many client addresses the flood guard tells apart; an
// attacker with more gets a fresh bucket for each, as one without would.
const floodAddresses = 50_000

// filters are those of a listener. What routes decide is not here: an edit of
// this list reconnects every client.
func (b *builder) filters(l *config.Listener, form *shard.Form) []*hcmv3.HttpFilter {
	out := append(guards(), filter(routing.CORSFilter, &corsv3.Cors{}))
	if l.Flood != nil {
		out = append(out, filter(floodFilter, flood(l.Flood)))
	}
	out = append(
		out, filter(routing.AuthzFilter, b.extAuthz(form)),
		filter(limiting.DenyFilter, rateLimit("deny", true)), filter(limiting.OpenFilter, rateLimit("open", false)),
	)
	sizes, prefixes := map[int64]bool{config.DefaultMaxBody: true}, false
	for i := range b.gw.Routes {
		r := b.gw.Routes[i]
		if r.MaxBody > 0 {
			sizes[r.MaxBody] = true
		}
		prefixes = prefixes || headers.PrefixRemovals(r) != nil
	}
	for _, size := range slices.Sorted(maps.Keys(sizes)) {
		// It takes no per-route settings, so there is one of each size, asleep but
		// for the default.
		f := filter(routing.BodyFilter(size), &bodyv3.BodySizeLimit{MaxRequestBytes: wrapperspb.UInt64(uint64(size))})
		f.Disabled = size != config.DefaultMaxBody
		out = append(out, f)
	}
	// It is always there, asleep: a first gRPC upstream must not drain clients.
	trailers := filter(routing.TrailerFilter, &headerv3.HeaderMutation{Mutations: &headerv3.Mutations{RequestTrailersMutations: b.trailerStrips()}})
	trailers.Disabled = true
	out = append(out, trailers)
	if prefixes {
		out = append(out, filter(routing.HeaderMutationFilter, &headerv3.HeaderMutation{}))
	}
	return append(out, filter(routerFilter, &routerv3.Router{}))
}

// guards stand before all else; those of hosts sleep until a virtual host wakes
// them.
func guards() []*hcmv3.HttpFilter {
	names, lines := filter(guard.NamesFilter, guard.Names()), filter(guard.LinesFilter, guard.Lines())
	names.Disabled, lines.Disabled = true, true
	return []*hcmv3.HttpFilter{filter(guard.Filter, guard.Every()), names, lines}
}

// trailerStrips are the names that nobody may say in trailers either.
func (b *builder) trailerStrips() []*mutationv3.HeaderMutation {
	out := guard.Strip(false)
	for _, name := range routing.CredentialHeaders(b.gw) {
		out = append(out, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Remove{Remove: name}})
	}
	return out
}

func filter(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: field.Any(m)}}
}

// flood gives each client address its own bucket. The shared one is there
// because the filter asks for it, and is as large as it may be.
func flood(f *config.Flood) *floodv3.LocalRateLimit {
	bucket := func(tokens uint32, per time.Duration) *typev3.TokenBucket {
		return &typev3.TokenBucket{MaxTokens: tokens, TokensPerFill: field.Uint(tokens), FillInterval: field.Duration(per)}
	}
	return &floodv3.LocalRateLimit{
		StatPrefix:    "flood",
		TokenBucket:   bucket(4_000_000_000, time.Second),
		FilterEnabled: field.RuntimePercent(100), FilterEnforced: field.RuntimePercent(100),
		MaxDynamicDescriptors:  field.Uint(floodAddresses),
		EnableRetryAfterHeader: true,
		RateLimits: []*routev3.RateLimit{{Actions: []*routev3.RateLimit_Action{{
			// A customer of IPv6 holds a /64 and walks it freely.
			ActionSpecifier: &routev3.RateLimit_Action_MaskedRemoteAddress_{MaskedRemoteAddress: &routev3.RateLimit_Action_MaskedRemoteAddress{
				V4PrefixMaskLen: field.Uint(32), V6PrefixMaskLen: field.Uint(64),
			}},
		}}}},
		Descriptors: []*ratelimitv3.LocalRateLimitDescriptor{{
			Entries:     []*ratelimitv3.RateLimitDescriptor_Entry{{Key: "masked_remote_address"}},
			TokenBucket: bucket(f.Limit, f.Per),
		}},
	}
}

// extAuthz fails closed. It may change only the headers that carry identity,
// and sees all others: rules may ask for any of them.
func (b *builder) extAuthz(form *shard.Form) *authzfilterv3.ExtAuthz {
	// A try outlasts the 300 ms that a token may wait for its issuer's new key; a
	// second one still fits when the first met a server that hangs.
	call := field.Call{Cluster: extAuthzCluster, Timeout: 700 * time.Millisecond, Retries: 2, PerTry: 350 * time.Millisecond}
	out := &authzfilterv3.ExtAuthz{
		TransportApiVersion:        corev3.ApiVersion_V3,
		Services:                   &authzfilterv3.ExtAuthz_GrpcService{GrpcService: call.GRPCService()},
		StatusOnError:              &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		ValidateMutations:          true,
		EncodeRawHeaders:           true,
		IncludePeerCertificate:     true,
		EmitFilterStateStats:       true,
		MaxDeniedResponseBodyBytes: 4096,
		DenyAtDisable:              &corev3.RuntimeFeatureFlag{DefaultValue: field.Bool(true), RuntimeKey: "tollgate.extauthz.deny_at_disable"},
		DecoderHeaderMutationRules: &mutationv3.HeaderMutationRules{
			DisallowAll:     field.Bool(true),
			AllowExpression: field.Regex("^(x-auth-.*|x-envoy-upstream-stream-duration-ms|authorization|" + regexp.QuoteMeta(keyHeader(b.gw)) + ")$"),
		},
	}
	if form != nil { // what rules see is what upstreams see
		out.DisallowedHeaders = &matcherv3.ListStringMatcher{Patterns: []*matcherv3.StringMatcher{field.Exact(contract.HeaderScope)}}
	}
	return out
}

// How long a route waits for its limits. A limiter answers within its own, much
// shorter budget; one that is gone refuses the connection at once. What is late
// then is the machine: with 600 connections on two busy cores an answer takes
// hundreds of milliseconds from socket to filter. A proxy that gives up earlier
// admits what was refused, or refuses what was counted (4,200 and 580 of a limit
// of 1,000 reached the upstream with 50 ms). A limiter that hangs costs a try;
// the next one asks another.
const (
	limitTimeout = 1500 * time.Millisecond
	limitTry     = time.Second
)

// rateLimit is one of the two filters: what a route's limits want when no
// limiter answers decides which of them the route feeds.
func rateLimit(prefix string, deny bool) *limitfilterv3.RateLimit {
	call := field.Call{Cluster: rateLimitCluster, Retries: 1, PerTry: limitTry}
	return &limitfilterv3.RateLimit{
		Domain: contract.LimitDomain, StatPrefix: prefix,
		Timeout:                        field.Duration(limitTimeout),
		FailureModeDeny:                deny,
		StatusOnError:                  &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		EnableXRatelimitHeaders:        limitfilterv3.RateLimit_DRAFT_VERSION_03,
		EnableRetryAfterHeader:         true,
		RateLimitedAsResourceExhausted: true,
		RateLimitService: &limitservicev3.RateLimitServiceConfig{
			TransportApiVersion: corev3.ApiVersion_V3, GrpcService: call.GRPCService(),
		},
	}
}
