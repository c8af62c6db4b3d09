// Package envelope builds the error body that every client of the gateway
// sees, whoever refused: Envoy, the authorization server, the limiter or a
// service. Invariant: a body is valid JSON of one shape, whatever the reason
// and message contain.
package envelope

import (
	"encoding/json"
	"net/http"
	"time"
)

// Body is the envelope, ready for encoding/json.
type Body struct {
	Error Error `json:"error"`
	Meta  Meta  `json:"meta"`
}

// Error is what went wrong, for a program (Code, Reason) and a person (Message).
type Error struct {
	Code    string   `json:"code"`
	Reason  string   `json:"reason"`
	Message string   `json:"message"`
	Details []string `json:"details"`
}

// Meta says which request it was. RequestID is null when there was none.
type Meta struct {
	Timestamp string  `json:"timestamp"`
	RequestID *string `json:"request_id"`
}

// TimeFormat is RFC 3339 with milliseconds, always UTC.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// Code returns the word for an HTTP status.
func Code(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "UNAUTHORIZED"
	case http.StatusForbidden:
		return "FORBIDDEN"
	case http.StatusNotFound:
		return "NOT_FOUND"
	case http.StatusMethodNotAllowed:
		return "METHOD_NOT_ALLOWED"
	case http.StatusRequestEntityTooLarge:
		return "PAYLOAD_TOO_LARGE"
	case http.StatusTooManyRequests:
		return "RATE_LIMITED"
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return "UNAVAILABLE"
	case http.StatusGatewayTimeout:
		return "UPSTREAM_TIMEOUT"
	}
	if status >= 500 {
		return "INTERNAL"
	}
	return "BAD_REQUEST"
}

// JSON returns the envelope for a refusal, ending in a newline. An empty
// requestID becomes null. The error of encoding cannot occur: Body holds only
// strings.
func JSON(status int, reason, message, requestID string, now time.Time) []byte {
	body := Body{
		Error: Error{Code: Code(status), Reason: reason, Message: message, Details: []string{}},
		Meta:  Meta{Timestamp: now.UTC().Format(TimeFormat)},
	}
	if requestID != "" {
		body.Meta.RequestID = &requestID
	}
	data, _ := json.Marshal(body)
	return append(data, '\n')
}
