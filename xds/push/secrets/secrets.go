// Package secrets knows which secrets a listener or a cluster names. Invariant:
// a secret that is not named is never said to be; what cannot be read names none.
package secrets

import (
	"bytes"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/xds/release"
)

// Named says whether a resource names a secret, wherever in it.
func Named(one *release.Resource, secret string) bool {
	// A name is in the encoded form letter by letter, at whatever depth: most
	// resources need not be decoded.
	if secret == "" || !bytes.Contains(one.Body.GetValue(), []byte(secret)) {
		return false
	}
	return within(one.Body, secret)
}

func within(m proto.Message, secret string) bool {
	switch m := m.(type) {
	case *tlsv3.SdsSecretConfig:
		return m.GetName() == secret
	case *anypb.Any:
		inner, err := m.UnmarshalNew()
		return err == nil && within(inner, secret)
	}
	found := false
	m.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		found = inField(field, value, secret)
		return !found
	})
	return found
}

func inField(field protoreflect.FieldDescriptor, value protoreflect.Value, secret string) bool {
	switch {
	case field.IsMap():
		found := false
		if field.MapValue().Message() != nil {
			value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				found = within(v.Message().Interface(), secret)
				return !found
			})
		}
		return found
	case field.Message() == nil:
		return false
	case field.IsList():
		for i := range value.List().Len() {
			if within(value.List().Get(i).Message().Interface(), secret) {
				return true
			}
		}
		return false
	}
	return within(value.Message().Interface(), secret)
}
