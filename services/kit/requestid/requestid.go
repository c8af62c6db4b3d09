// Package requestid carries the id that ties a client's request to every log
// line, span and call made for it. Invariant: an id is short and printable,
// whatever the caller sent.
package requestid

import (
	"context"

	"github.com/google/uuid"

	"tollgate/api/contract"
)

// Header is the name in HTTP and, as metadata, in gRPC.
const Header = contract.HeaderRequestID

type key struct{}

// With returns a context that carries the caller's id, or a new one when the
// caller sent none that is fit for a log.
func With(ctx context.Context, sent string) context.Context {
	if !fit(sent) {
		sent = uuid.NewString()
	}
	return context.WithValue(ctx, key{}, sent)
}

// From returns the id in ctx, or "".
func From(ctx context.Context) string {
	id, _ := ctx.Value(key{}).(string)
	return id
}

func fit(id string) bool {
	for i := range len(id) {
		c := id[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return id != "" && len(id) <= 128
}
