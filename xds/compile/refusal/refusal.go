// Package refusal builds the answers that Envoy makes itself. Invariant: each of
// them is the envelope of every other refusal, and none is written over a body
// that already is what the client shall see.
package refusal

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"tollgate/internal/envelope"
	"tollgate/xds/compile/field"
)

// Refusal is an answer that Envoy itself makes.
type Refusal struct {
	Status          int
	Reason, Message string
}

// Body is the envelope with Envoy's own time and request id; the id is null
// where Envoy refused before it had parsed the request.
func (r Refusal) Body() *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{
		ContentType: "application/json",
		Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: field.Struct(map[string]any{
			"error": map[string]any{"code": envelope.Code(r.Status), "reason": r.Reason, "message": r.Message, "details": []any{}},
			"meta":  map[string]any{"timestamp": "%START_TIME%", "request_id": "%STREAM_ID%"},
		})},
	}
}

// finished is the condition for bodies that already are what the client shall
// see: those of routes, and the envelopes of our own servers. Envoy would
// otherwise write its own over them.
const finished = `response.code_details == 'direct_response' || ` +
	`((response.code_details == 'ext_authz_denied' || response.code_details == 'ext_authz_error' || response.code_details == 'request_rate_limited') && ` +
	`'content-type' in response.headers && response.headers['content-type'].startsWith('application/json'))`

// limited is the condition for refusals of our limiter. It does not see the
// request's id, so it says its message as metadata and Envoy writes the envelope;
// another limiter's body passes as it is.
const limited = `response.code_details == 'request_rate_limited' && 'envoy.filters.http.ratelimit' in metadata.filter_metadata && ` +
	`'message' in metadata.filter_metadata['envoy.filters.http.ratelimit']`

// guarded is the condition for refusals of package guard, most of whose filters
// can only say 403; it stands first, because the others go by status.
const guarded = `(response.code_details.startsWith('rbac_access_denied_matched_policy[guard') || response.code_details == 'lua_response')`

// grpcCall is the condition for calls of gRPC: the message of their status is
// text.
const grpcCall = `'content-type' in request.headers && request.headers['content-type'].startsWith('application/grpc')`

// guards gives the refusals of package guard their status and envelope.
func guards() []*hcmv3.ResponseMapper {
	refused := Refusal{400, "bad_request", "The host, the method, the path or the query of the request is malformed or can be read in several ways"}
	status := field.Uint(uint32(refused.Status))
	text := &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
		TextFormatSource: field.Inline(refused.Reason + ": " + refused.Message),
	}}
	return []*hcmv3.ResponseMapper{
		{Filter: expression(guarded + " && " + grpcCall), StatusCode: status, BodyFormatOverride: text},
		{Filter: expression(guarded), StatusCode: status, BodyFormatOverride: refused.Body()},
	}
}

// LocalReplies gives every refusal of Envoy our envelope. The first mapper
// that applies wins.
func LocalReplies() *hcmv3.LocalReplyConfig {
	asIs := func(contentType string) *corev3.SubstitutionFormatString {
		return &corev3.SubstitutionFormatString{ContentType: contentType, Format: &corev3.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: field.Inline("%LOCAL_REPLY_BODY%"),
		}}
	}
	grpc := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{HeaderFilter: &accesslogv3.HeaderFilter{
		Header: field.Header("content-type", field.Prefix("application/grpc")),
	}}}
	mappers := append(guards(), []*hcmv3.ResponseMapper{
		// The message of a gRPC status is text.
		{Filter: grpc, BodyFormatOverride: asIs("")},
		{Filter: expression(limited), BodyFormatOverride: Refusal{429, "over_limit", "%DYNAMIC_METADATA(envoy.filters.http.ratelimit:message)%"}.Body()},
		{Filter: expression(finished), BodyFormatOverride: asIs("")},
		{Filter: expression(`response.code_details == 'ext_authz_error'`), BodyFormatOverride: Refusal{503, "authz_unavailable", "Authorization is not available; try again"}.Body()},
		// Envoy's word for an upgrade that no route asks for; its 403 says nothing of the caller.
		{Filter: expression(`response.code_details == 'upgrade_failed'`), BodyFormatOverride: Refusal{403, "upgrade_not_allowed", "This route takes no upgrade of the protocol"}.Body()},
		{Filter: expression(`response.code_details == 'rate_limiter_error'`), BodyFormatOverride: Refusal{503, "limiter_unavailable", "Rate limiting is not available; try again"}.Body()},
	}...)
	for _, r := range []Refusal{
		{401, "missing_credential", "Authentication required"},
		{403, "permission_denied", "Forbidden"},
		{404, "no_route", "Not found"},
		{405, "method_not_allowed", "Method not allowed"},
		{413, "payload_too_large", "The request body is too large"},
		{429, "over_limit", "Too many requests"},
		{500, "internal", "Internal error"},
		{504, "upstream_timeout", "The upstream did not answer in time"},
	} {
		mappers = append(mappers, &hcmv3.ResponseMapper{Filter: status(accesslogv3.ComparisonFilter_EQ, r.Status), BodyFormatOverride: r.Body()})
	}
	unavailable := Refusal{503, "upstream_unavailable", "The upstream is not available; try again"}
	mappers = append(mappers, &hcmv3.ResponseMapper{Filter: status(accesslogv3.ComparisonFilter_GE, 500), BodyFormatOverride: unavailable.Body()})
	return &hcmv3.LocalReplyConfig{Mappers: mappers, BodyFormat: Refusal{400, "bad_request", "The request is malformed"}.Body()}
}

func expression(text string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{ExtensionFilter: &accesslogv3.ExtensionFilter{
		Name: "cel", ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: field.Any(&celv3.ExpressionFilter{Expression: text})},
	}}}
}

func status(op accesslogv3.ComparisonFilter_Op, code int) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{StatusCodeFilter: &accesslogv3.StatusCodeFilter{
		Comparison: &accesslogv3.ComparisonFilter{Op: op, Value: &corev3.RuntimeUInt32{DefaultValue: uint32(code), RuntimeKey: "tollgate.local_reply.status"}},
	}}}
}
