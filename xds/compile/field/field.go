// Package field builds the small values that many Envoy messages share: typed
// extensions, addresses, matchers, header edits. Invariant: every function is
// pure, and equal arguments give messages of equal bytes.
package field

import (
	"net/netip"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Any packs a message. Marshalling fails only for text that is not UTF-8,
// which a parsed file cannot hold.
func Any(m proto.Message) *anypb.Any {
	value, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: value}
}

// Extension names a typed extension.
func Extension(name string, m proto.Message) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{Name: name, TypedConfig: Any(m)}
}

// Duration is d on the wire.
func Duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// Uint wraps n, so that 0 differs from unset.
func Uint(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(n) }

// Bool wraps b, so that false differs from unset.
func Bool(b bool) *wrapperspb.BoolValue { return wrapperspb.Bool(b) }

// ADS asks for a resource on the stream that brought the asking one. A timeout
// of 0 waits for ever.
func ADS(initialFetch time.Duration) *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   Duration(initialFetch),
	}
}

// Address is a TCP address.
func Address(a netip.AddrPort) *corev3.Address {
	return SocketAddress(a.Addr().String(), uint32(a.Port()))
}

// Pipe is the address of a Unix socket.
func Pipe(path string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}}
}

// SocketAddress is a TCP address whose host may be a name.
func SocketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

// Prefixes are address ranges.
func Prefixes(prefixes []netip.Prefix) []*corev3.CidrRange {
	out := make([]*corev3.CidrRange, 0, len(prefixes))
	for _, p := range prefixes {
		out = append(out, &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: Uint(uint32(max(p.Bits(), 0)))})
	}
	return out
}

// Inline is text inside a message.
func Inline(text string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}}
}

// Struct is a JSON object; v holds what structpb.NewValue takes.
func Struct(v map[string]any) *structpb.Struct {
	s, _ := structpb.NewStruct(v)
	return s
}

// Regex is an RE2 expression.
func Regex(expr string) *matcherv3.RegexMatcher { return &matcherv3.RegexMatcher{Regex: expr} }

// Exact matches a whole string.
func Exact(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

// Prefix matches the beginning of a string.
func Prefix(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: s}}
}

// Pattern matches a whole string by an RE2 expression.
func Pattern(expr string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: Regex(expr)}}
}

// Header matches a header by its value.
func Header(name string, m *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: m}}
}

// HeaderPresent matches by whether a header is there.
func HeaderPresent(name string, present bool) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name: name, InvertMatch: !present,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
	}
}

// SetHeader overwrites a header with a literal value.
func SetHeader(name, value string) *corev3.HeaderValueOption {
	return headerOption(name, value, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
}

// AddHeader adds one more line of a header, with a literal value.
func AddHeader(name, value string) *corev3.HeaderValueOption {
	return headerOption(name, value, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
}

// headerOption doubles "%", because Envoy reads values as format strings.
func headerOption(name, value string, action corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:         &corev3.HeaderValue{Key: name, Value: strings.ReplaceAll(value, "%", "%%")},
		AppendAction:   action,
		KeepEmptyValue: true,
	}
}

// Percent is a share of requests, in units of a millionth.
func Percent(percent float64) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{Numerator: uint32(percent*10_000 + 0.5), Denominator: typev3.FractionalPercent_MILLION}
}

// RuntimePercent is a share of requests that Envoy's runtime could override.
func RuntimePercent(percent float64) *corev3.RuntimeFractionalPercent {
	return &corev3.RuntimeFractionalPercent{DefaultValue: Percent(percent)}
}

// Call is one of our servers as Envoy's gRPC client sees it.
type Call struct {
	Cluster string
	Timeout time.Duration // of all tries; 0: set by the filter
	Retries uint32
	PerTry  time.Duration
}

// GRPCService retries on another host after 2 ms: Envoy's default back-off is
// longer than these calls may take, so it would never retry. The longest
// back-off is also the bound of one try (observed on 1.40).
func (c Call) GRPCService() *corev3.GrpcService {
	s := &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: c.Cluster}}}
	if c.Timeout > 0 {
		s.Timeout = Duration(c.Timeout)
	}
	s.RetryPolicy = &corev3.RetryPolicy{
		NumRetries:   Uint(c.Retries),
		RetryOn:      "unavailable,connect-failure,reset,refused-stream,cancelled",
		RetryBackOff: &corev3.BackoffStrategy{BaseInterval: Duration(2 * time.Millisecond), MaxInterval: Duration(c.PerTry)},
		RetryHostPredicate: []*corev3.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &corev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: Any(&previousv3.PreviousHostsPredicate{})},
		}},
	}
	return s
}
