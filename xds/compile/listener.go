package compile

import (
	"fmt"
	"net/netip"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	xffv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/original_ip_detection/xff/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tollgate/api/contract"
	"tollgate/xds/compile/field"
	"tollgate/xds/compile/guard"
	"tollgate/xds/compile/refusal"
	"tollgate/xds/compile/routing"
	"tollgate/xds/compile/shard"
	"tollgate/xds/config"
)

// What one client may make us hold, from Envoy's guide for edges: by default a
// connection may hold 24 MiB of body for a slow upstream, and 105 of them are
// 2 GiB.
const (
	connectionBuffer = 32 << 10 // bytes
	streamWindow     = 64 << 10 // bytes
	connectionWindow = 1 << 20  // bytes
)

func (b *builder) listener(l *config.Listener, form *shard.Form) *listenerv3.Listener {
	out := &listenerv3.Listener{
		Name: l.Name, Address: field.Address(b.address(l)), PerConnectionBufferLimitBytes: field.Uint(connectionBuffer),
	}
	socket := downstreamTLS(l)
	chain := func(name string, trusted bool) *listenerv3.FilterChain {
		return &listenerv3.FilterChain{
			Name: name, TransportSocket: socket, TransportSocketConnectTimeout: field.Duration(10 * time.Second),
			Filters: []*listenerv3.Filter{{
				Name:       "envoy.filters.network.http_connection_manager",
				ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: field.Any(b.routed(l, form, trusted))},
			}},
		}
	}
	// Who is a trusted proxy is decided by the connection, before any header is
	// believed.
	if len(l.TrustedProxies) > 0 {
		proxies := chain("trusted-proxies", true)
		proxies.FilterChainMatch = &listenerv3.FilterChainMatch{SourcePrefixRanges: field.Prefixes(l.TrustedProxies)}
		out.FilterChains = append(out.FilterChains, proxies)
	}
	out.FilterChains = append(out.FilterChains, chain("clients", false))
	return out
}

func (b *builder) address(l *config.Listener) netip.AddrPort {
	if a, ok := b.scope.Listeners[l.Name]; ok {
		return a
	}
	return l.Address
}

// routed is a connection manager that finds its routes in one place or in parts.
func (b *builder) routed(l *config.Listener, form *shard.Form, trusted bool) *hcmv3.HttpConnectionManager {
	out := b.connectionManager(l, trusted)
	out.HttpFilters = b.filters(l, form)
	if form != nil {
		inParts(out, l, *form)
	}
	return out
}

func (b *builder) connectionManager(l *config.Listener, trusted bool) *hcmv3.HttpConnectionManager {
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix: l.Name,
		CodecType:  hcmv3.HttpConnectionManager_AUTO,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			// Without a limit a listener that waits for its routes keeps the old
			// one serving; with one it would answer 404.
			RouteConfigName: l.Name, ConfigSource: field.ADS(0),
		}},
		LocalReplyConfig: refusal.LocalReplies(),
		AccessLog:        b.accessLog(),
		Tracing:          b.tracing(),
		ServerName:       "tollgate",

		NormalizePath:                field.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_REJECT_REQUEST,
		StripPortMode:                &hcmv3.HttpConnectionManager_StripAnyHostPort{StripAnyHostPort: true},
		StripTrailingHostDot:         true,
		UseRemoteAddress:             field.Bool(true),
		GenerateRequestId:            field.Bool(true),
		AlwaysSetRequestIdInResponse: true,
		// Nobody is internal: a private address is no credential.
		// Nobody is internal. An empty list would mean the private ranges (seen on
		// 1.40: x-envoy-internal for a loopback client), so it names what cannot call.
		InternalAddressConfig: &hcmv3.HttpConnectionManager_InternalAddressConfig{
			CidrRanges: []*corev3.CidrRange{{AddressPrefix: "255.255.255.255", PrefixLen: wrapperspb.UInt32(32)}},
		},
		StreamIdleTimeout:     field.Duration(routing.StreamIdle),
		RequestHeadersTimeout: field.Duration(10 * time.Second),
		// A route's timeout starts when the request is complete, so an unfinished
		// one would wait for ever. 5 min is the number of Envoy's guide for edges: 10
		// MiB at 280 kbit/s. It is disarmed when the response begins, so that streams
		// which answer live on.
		RequestTimeout:      field.Duration(5 * time.Minute),
		MaxRequestHeadersKb: field.Uint(60),
		DelayedCloseTimeout: field.Duration(time.Second),
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{
			field.Extension("envoy.http.early_header_mutation.header_mutation", &earlyv3.HeaderMutation{Mutations: guard.Strip(trusted)}),
		},
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST, MaxHeadersCount: field.Uint(100), IdleTimeout: field.Duration(300 * time.Second),
		},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			MaxConcurrentStreams: field.Uint(100), OverrideStreamErrorOnInvalidHttpMessage: field.Bool(true),
			InitialStreamWindowSize: field.Uint(streamWindow), InitialConnectionWindowSize: field.Uint(connectionWindow),
		},
	}
	if trusted {
		// The extension excludes use_remote_address; it walks back over as many
		// proxies of ours as there are, which a count of hops cannot.
		hcm.UseRemoteAddress = field.Bool(false)
		hcm.OriginalIpDetectionExtensions = []*corev3.TypedExtensionConfig{field.Extension("envoy.http.original_ip_detection.xff", &xffv3.XffConfig{
			XffTrustedCidrs: &xffv3.XffTrustedCidrs{Cidrs: field.Prefixes(l.TrustedProxies)}, SkipXffAppend: field.Bool(false),
		})}
	}
	return hcm
}

// accessLog leaves the query out: it may hold credentials. The path is the
// client's, not the rewritten one.
func (b *builder) accessLog() []*accesslogv3.AccessLog {
	if b.gw.AccessLog.Off {
		return nil
	}
	authz := func(key string) string { return fmt.Sprintf("%%DYNAMIC_METADATA(%s:%s)%%", routing.AuthzFilter, key) }
	limit := func(key string) string { return "%DYNAMIC_METADATA(envoy.filters.http.ratelimit:" + key + ")%" }
	format := &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: field.Struct(map[string]any{
		// What a client writes is cut: a flood of long paths must not be a flood of log.
		"time": "%START_TIME%", "method": "%REQ(:METHOD):32%", "host": "%REQ(:AUTHORITY):256%", "path": "%PATH(NQ:ORIG_OR_PATH):1024%",
		"client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "user_agent": "%REQ(USER-AGENT):256%",
		"status": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%", "route": "%ROUTE_NAME%",
		"bytes_received": "%BYTES_RECEIVED%", "bytes_sent": "%BYTES_SENT%", "duration_ms": "%DURATION%",
		"policy": authz(contract.KeyPolicy), "rule": authz(contract.KeyRule), "reason": authz(contract.KeyReason),
		"tenant": authz(contract.KeyTenant), "user": authz(contract.KeyUser), "credential": authz(contract.KeyCredential),
		"decision": limit("decision"), "limit": limit("limit"),
		"upstream": "%UPSTREAM_HOST%", "upstream_cluster": "%UPSTREAM_CLUSTER%", "upstream_ms": "%COMMON_DURATION(US_TX_BEG:US_RX_END:ms)%",
		"request_id": "%STREAM_ID%", "trace": "%TRACE_ID%",
	})}}
	if path := b.gw.AccessLog.Path; path != "" {
		return []*accesslogv3.AccessLog{{Name: "envoy.access_loggers.file", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: field.Any(
			&filelogv3.FileAccessLog{Path: path, AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: format}},
		)}}}
	}
	return []*accesslogv3.AccessLog{{Name: "envoy.access_loggers.stderr", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: field.Any(
		&streamlogv3.StderrAccessLog{AccessLogFormat: &streamlogv3.StderrAccessLog_LogFormat{LogFormat: format}},
	)}}}
}

func (b *builder) tracing() *hcmv3.HttpConnectionManager_Tracing {
	t := b.gw.Tracing
	if t == nil {
		return nil
	}
	all := &typev3.Percent{Value: 100}
	return &hcmv3.HttpConnectionManager_Tracing{
		ClientSampling: all, RandomSampling: &typev3.Percent{Value: t.Sampling}, OverallSampling: all,
		Provider: &tracev3.Tracing_Http{Name: "envoy.tracers.opentelemetry", ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: field.Any(&tracev3.OpenTelemetryConfig{
			ServiceName: "tollgate-edge",
			GrpcService: &corev3.GrpcService{
				TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: otlpCluster}},
				Timeout:         field.Duration(time.Second),
			},
		})}},
	}
}

// httpsPort is that of the first listener with TLS.
func (b *builder) httpsPort() uint16 {
	for i := range b.gw.Listeners {
		if l := &b.gw.Listeners[i]; l.TLS != nil {
			return b.address(l).Port()
		}
	}
	return 443
}
