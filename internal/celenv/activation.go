package celenv

import (
	"fmt"
	"reflect"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// activation reads variables straight from the input: no map is built for an
// evaluation that looks at two fields.
type activation struct{ in *Input }

func (a activation) Parent() cel.Activation { return nil }

func (a activation) ResolveName(name string) (any, bool) {
	switch r := &a.in.Request; name {
	case "request.method":
		return types.String(r.Method), true
	case "request.path":
		return types.String(r.Path), true
	case "request.segments":
		return r.Segments, true
	case "request.host":
		return types.String(r.Host), true
	case "request.headers":
		return texts(r.Headers), true
	case "request.query":
		return texts(r.Query), true
	case "request.client_ip":
		return types.String(r.ClientIP), true
	case "request.time":
		return types.Timestamp{Time: r.Time}, true
	case "route.name":
		return types.String(a.in.Route), true
	}
	return a.in.Auth.resolve(name)
}

func (c *Auth) resolve(name string) (any, bool) {
	switch name {
	case "auth.kind":
		return types.String(c.Kind), true
	case "auth.tenant":
		return types.String(c.Tenant), true
	case "auth.user":
		return types.String(c.User), true
	case "auth.plan":
		return types.String(c.Plan), true
	case "auth.key_id":
		return types.String(c.KeyID), true
	case "auth.permissions":
		return c.Permissions, true
	case "auth.scopes":
		return c.Scopes, true
	case "auth.claims":
		return c.Claims, true
	case grantsName:
		return grantsValue{c.Grants}, true
	}
	return nil, false
}

func texts(of func() map[string]string) map[string]string {
	if of == nil {
		return nil
	}
	return of()
}

// grantsValue lets a set of permissions travel through an evaluation.
type grantsValue struct{ *Grants }

func (g grantsValue) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("permissions cannot become %v", t)
}

func (g grantsValue) ConvertToType(ref.Type) ref.Val {
	return types.NewErr("permissions cannot be converted")
}

func (g grantsValue) Equal(other ref.Val) ref.Val {
	o, ok := other.(grantsValue)
	return types.Bool(ok && o.Grants == g.Grants)
}

func (g grantsValue) Type() ref.Type { return cel.OpaqueType("tollgate.grants") }

func (g grantsValue) Value() any { return g.Grants }
