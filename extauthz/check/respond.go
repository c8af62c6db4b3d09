package check

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// streamDuration is read by Envoy's router, which then does not pass it on
// (seen on 1.40); what a client sends under this name is stripped before.
const streamDuration = "x-envoy-upstream-stream-duration-ms"

type header struct{ name, value string }

// answer is all that a response can say. Its zero value refuses.
type answer struct {
	allow    bool
	status   int      // of a refusal; anything that is not a refusal becomes 503
	set      []header // on the request if allowed, on the response if not
	remove   []string // from the request; what is also set is not removed
	body     string
	metadata []header
}

// respond builds every response of this server. Envoy admits on an empty
// message, on a refusal without status.code, and drops a header that is both
// set and removed; none of them can come out of here.
func respond(a *answer) *authv3.CheckResponse {
	out := &authv3.CheckResponse{DynamicMetadata: texts(a.metadata)}
	if a.allow {
		ok := &authv3.OkHttpResponse{Headers: overwrite(a.set)}
		for _, name := range a.remove {
			if !sets(a.set, name) {
				ok.HeadersToRemove = append(ok.HeadersToRemove, name)
			}
		}
		out.Status = &status.Status{Code: int32(codes.OK)}
		out.HttpResponse = &authv3.CheckResponse_OkResponse{OkResponse: ok}
		return out
	}
	code, grpc := refusal(a.status)
	out.Status = &status.Status{Code: int32(grpc)}
	out.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: code}, Headers: overwrite(a.set), Body: a.body,
	}}
	return out
}

// refusal maps every status that does not refuse to 503.
func refusal(code int) (typev3.StatusCode, codes.Code) {
	switch code {
	case http.StatusBadRequest:
		return typev3.StatusCode_BadRequest, codes.InvalidArgument
	case http.StatusUnauthorized:
		return typev3.StatusCode_Unauthorized, codes.Unauthenticated
	case http.StatusTooManyRequests:
		return typev3.StatusCode_TooManyRequests, codes.ResourceExhausted
	case http.StatusForbidden:
		return typev3.StatusCode_Forbidden, codes.PermissionDenied
	}
	return typev3.StatusCode_ServiceUnavailable, codes.Unavailable
}

// endingIn is an admission whose request Envoy ends after a time. The response
// itself is shared and stays as it is.
func endingIn(ready *authv3.CheckResponse, left time.Duration) *authv3.CheckResponse {
	milliseconds := max(1, left.Milliseconds()) // 0 would be no bound
	ok := ready.GetOkResponse()
	headers := append(slices.Clone(ok.GetHeaders()), overwrite([]header{{streamDuration, strconv.FormatInt(milliseconds, 10)}})...)
	return &authv3.CheckResponse{
		Status: ready.GetStatus(), DynamicMetadata: ready.GetDynamicMetadata(),
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{Headers: headers, HeadersToRemove: ok.GetHeadersToRemove()}},
	}
}

func sets(headers []header, name string) bool {
	for _, h := range headers {
		if strings.EqualFold(h.name, name) {
			return true
		}
	}
	return false
}

func overwrite(headers []header) []*corev3.HeaderValueOption {
	out := make([]*corev3.HeaderValueOption, 0, len(headers))
	for _, h := range headers {
		out = append(out, &corev3.HeaderValueOption{
			Header: &corev3.HeaderValue{Key: h.name, Value: visible(h.value)},
			Append: wrapperspb.Bool(false), //nolint:staticcheck // the only field that ext_authz obeys: append_action is ignored on requests
		})
	}
	return out
}

func texts(pairs []header) *structpb.Struct {
	out := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(pairs))}
	for _, p := range pairs {
		out.Fields[p.name] = structpb.NewStringValue(strings.ToValidUTF8(p.value, "\uFFFD"))
	}
	return out
}

// visible escapes what a header cannot carry: a claim may hold any text, and
// Envoy answers 500 to a header with a line break in it. It escapes its own mark
// too, so that no two users have one header.
func visible(value string) string {
	plain := true
	for i := range len(value) {
		plain = plain && value[i] >= 0x20 && value[i] < 0x7f && value[i] != '%'
	}
	if plain {
		return value
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(value) {
		if c := value[i]; c >= 0x20 && c < 0x7f && c != '%' {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}
