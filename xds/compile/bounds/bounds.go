// Package bounds says how long a request may go on and how large it may be.
// Invariant: a request that may outlive its credential has no bound of its body,
// and every other one has.
package bounds

import (
	"time"

	"tollgate/xds/config"
)

// longRequest is the timeout from which a route is one of streams: shorter ones
// end before it matters that a credential did.
const longRequest = time.Minute

// Streams reports whether requests of a route may go on for so long that the
// credential which opened them can end before they do.
func Streams(r *config.Route, upstreams map[string]*config.Upstream) bool {
	if r.Upstream == "" {
		return false
	}
	if r.WebSocket || long(r.Timeout.Default) {
		return true
	}
	for _, t := range r.Timeout.ByMethod {
		if long(t) {
			return true
		}
	}
	// A call of gRPC may send for ever, and its timeout starts when it is done.
	u := upstreams[r.Upstream]
	if len(u.Split) == 0 {
		return u.Protocol == config.GRPC
	}
	for _, m := range u.Split {
		if upstreams[m.Upstream].Protocol == config.GRPC {
			return true
		}
	}
	return false
}

// MaxBody is the bound of a route's request bodies in bytes, 0 for none.
func MaxBody(r *config.Route, upstreams map[string]*config.Upstream) int64 {
	switch {
	case r.MaxBody != config.BodyNotWritten:
		return r.MaxBody
	case Streams(r, upstreams):
		return 0
	}
	return config.DefaultMaxBody
}

func long(timeout time.Duration) bool { return timeout == 0 || timeout > longRequest }
