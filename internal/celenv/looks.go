package celenv

import (
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// Looks tells which headers and query parameters are looked at: these must be
// there at most once, or a decoder could take another one than we did.
type Looks struct {
	Headers, Query       []string // sorted; headers in lower case
	AllHeaders, AllQuery bool     // names are computed, so it may be any
	Path                 bool     // or its segments
}

// Join adds what others look at.
func (l Looks) Join(others ...Looks) Looks {
	for _, o := range others {
		l.Headers, l.Query = slices.Concat(l.Headers, o.Headers), slices.Concat(l.Query, o.Query)
		l.AllHeaders, l.AllQuery = l.AllHeaders || o.AllHeaders, l.AllQuery || o.AllQuery
		l.Path = l.Path || o.Path
	}
	slices.Sort(l.Headers)
	slices.Sort(l.Query)
	l.Headers, l.Query = slices.Compact(l.Headers), slices.Compact(l.Query)
	return l
}

func looks(checked *cel.Ast) Looks {
	var out Looks
	ast.MatchDescendants(ast.NavigateAST(checked.NativeRep()), func(n ast.NavigableExpr) bool {
		var names *[]string
		var all *bool
		switch field(n) {
		case "request.headers":
			names, all = &out.Headers, &out.AllHeaders
		case "request.query":
			names, all = &out.Query, &out.AllQuery
		case "request.path", "request.segments":
			out.Path = true
			return false
		default:
			return false
		}
		if name, ok := lookedUp(n); ok {
			*names = append(*names, name)
		} else {
			*all = true
		}
		return false
	})
	for i := range out.Headers {
		out.Headers[i] = strings.ToLower(out.Headers[i])
	}
	return out.Join()
}

// lookedUp is the name that is looked up in the map n: n["x"], n.x, "x" in n.
func lookedUp(n ast.NavigableExpr) (string, bool) {
	parent, ok := n.Parent()
	if !ok {
		return "", false
	}
	switch parent.Kind() {
	case ast.SelectKind:
		return parent.AsSelect().FieldName(), true
	case ast.CallKind:
		args := parent.AsCall().Args()
		switch parent.AsCall().FunctionName() {
		case operators.Index:
			if args[0].ID() == n.ID() {
				return literal(args[1])
			}
		case operators.In:
			if args[1].ID() == n.ID() {
				return literal(args[0])
			}
		}
	}
	return "", false
}

// field is the dotted name of a variable, "" for any other expression.
func field(n ast.Expr) string {
	if n.Kind() == ast.IdentKind {
		return n.AsIdent()
	}
	if n.Kind() != ast.SelectKind || n.AsSelect().IsTestOnly() || n.AsSelect().Operand().Kind() != ast.IdentKind {
		return ""
	}
	return n.AsSelect().Operand().AsIdent() + "." + n.AsSelect().FieldName()
}

func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	text, ok := e.AsLiteral().(types.String)
	return string(text), ok
}

// loops reports whether an expression walks over something.
func loops(checked *cel.Ast) bool {
	return len(ast.MatchDescendants(ast.NavigateAST(checked.NativeRep()), ast.KindMatcher(ast.ComprehensionKind))) > 0
}
