// Package fault is the one error type of the services: what went wrong, told
// once, in words fit for a client, and shown as an HTTP status or a gRPC code.
// Invariant: Cause is for the log and never reaches a client; everything else
// may.
package fault

import (
	"context"
	"errors"
	"net/http"

	"google.golang.org/grpc/codes"
)

// Fault is an error that may be shown to a client.
type Fault struct {
	Status  int        // HTTP
	Code    codes.Code // gRPC
	Reason  string     // one word for programs
	Message string     // one sentence for people
	Cause   error      // for the log alone; may be nil
}

// Error joins the message and the cause, for the log.
func (f *Fault) Error() string {
	if f.Cause == nil {
		return f.Reason + ": " + f.Message
	}
	return f.Reason + ": " + f.Message + ": " + f.Cause.Error()
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Cause }

// Invalid is a request that can never succeed as it is.
func Invalid(message string) *Fault {
	return &Fault{Status: http.StatusBadRequest, Code: codes.InvalidArgument, Reason: "bad_request", Message: message}
}

// TooLarge is a body over the limit.
func TooLarge(message string) *Fault {
	return &Fault{Status: http.StatusRequestEntityTooLarge, Code: codes.ResourceExhausted, Reason: "payload_too_large", Message: message}
}

// Unauthenticated is a call without a caller we can name.
func Unauthenticated(reason, message string, cause error) *Fault {
	return &Fault{Status: http.StatusUnauthorized, Code: codes.Unauthenticated, Reason: reason, Message: message, Cause: cause}
}

// Forbidden is a call by a known caller who may not make it.
func Forbidden(reason, message string) *Fault {
	return &Fault{Status: http.StatusForbidden, Code: codes.PermissionDenied, Reason: reason, Message: message}
}

// NotFound says that there is no such thing for this caller.
func NotFound(message string) *Fault {
	return &Fault{Status: http.StatusNotFound, Code: codes.NotFound, Reason: "not_found", Message: message}
}

// MethodNotAllowed is a known path under a method that it does not have.
func MethodNotAllowed() *Fault {
	return &Fault{Status: http.StatusMethodNotAllowed, Code: codes.Unimplemented, Reason: "method_not_allowed", Message: "Method not allowed"}
}

// Conflict is a request at odds with what is stored.
func Conflict(reason, message string) *Fault {
	return &Fault{Status: http.StatusConflict, Code: codes.AlreadyExists, Reason: reason, Message: message}
}

// Unavailable says that trying again later may help.
func Unavailable(message string, cause error) *Fault {
	return &Fault{Status: http.StatusServiceUnavailable, Code: codes.Unavailable, Reason: "upstream_unavailable", Message: message, Cause: cause}
}

// Timeout says that somebody we asked did not answer in time.
func Timeout(message string, cause error) *Fault {
	return &Fault{Status: http.StatusGatewayTimeout, Code: codes.DeadlineExceeded, Reason: "upstream_timeout", Message: message, Cause: cause}
}

// Of returns the fault in err. Anything that is none is our own fault: the
// client learns only that.
func Of(err error) *Fault {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Timeout("The request took too long", err)
	}
	return &Fault{Status: http.StatusInternalServerError, Code: codes.Internal, Reason: "internal", Message: "Internal error", Cause: err}
}
