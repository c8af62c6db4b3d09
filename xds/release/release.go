// Package release holds what one state of the gateway file means for every
// client of the control plane: an immutable set of resources, each with a
// version made of its content. Invariant: equal content has equal versions, on
// every replica of one build, so a reconnect or a no-op edit re-sends nothing.
package release

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/api/contract"
	"tollgate/xds/config"
)

// The type URLs that we serve.
const (
	TypeListener  = contract.TypeListener
	TypeRoute     = contract.TypeRoute
	TypeScope     = contract.TypeScope
	TypeCluster   = contract.TypeCluster
	TypeEndpoint  = contract.TypeEndpoint
	TypeSecret    = contract.TypeSecret
	TypeRuntime   = contract.TypeRuntime
	TypePolicy    = contract.TypePolicy
	TypeIdentity  = contract.TypeIdentity
	TypeRuleSet   = contract.TypeRuleSet
	TypeRateLimit = contract.TypeRateLimit
)

// Audience is who a resource is for. A client says it by its node's cluster:
// "grpc" asks as a proxyless gRPC client, everyone else as an Envoy or one of
// our servers.
type Audience string

// The audiences.
const (
	Edge Audience = "edge"
	GRPC Audience = "grpc"
)

// Ref is how a resource names another one for the same audience. Who names a
// cluster names its endpoints, too.
type Ref struct {
	Type string // one of the type URLs above
	Name string
}

// Object is what compile makes of the file, before it has a version.
type Object struct {
	Audience Audience
	Type     string // one of the type URLs above
	Name     string
	Message  proto.Message
	Body     []byte // what Message would be encoded as, where that was done and checked already
	Pos      config.Pos
	Refs     []Ref // what Message names, in the order of first mention, each once
	Memo     *Memo // nil: it is made anew each time
}

// Memo keeps what became of an object, for the same one in a later release: who
// hands it in says that content and references are those of the first time. It
// is for one goroutine.
type Memo struct{ resource *Resource }

// Resource is one thing a client can be sent. All fields are read-only.
type Resource struct {
	Audience Audience
	Type     string
	Name     string
	Version  string // xxh3-128 of the content, hex
	Body     *anypb.Any
	Pos      config.Pos // where in the operator's file it comes from; zero if nowhere
	Refs     []Ref      // what Body names, in the order of first mention, each once
}
