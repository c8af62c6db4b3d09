package celenv

import (
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

func firstFault(issues *cel.Issues) *Error {
	errs := issues.Errors()
	if len(errs) == 0 {
		return &Error{1, 1, issues.Err().Error()}
	}
	first := slices.MinFunc(errs, func(a, b *common.Error) int {
		if d := a.Location.Line() - b.Location.Line(); d != 0 {
			return d
		}
		return a.Location.Column() - b.Location.Column()
	})
	fault := &Error{max(first.Location.Line(), 1), max(first.Location.Column(), 0) + 1, first.Message}
	name, undeclared := strings.CutPrefix(first.Message, "undeclared reference to '")
	if name, _, _ = strings.Cut(name, "'"); !undeclared {
		return fault
	}
	root, _, dotted := strings.Cut(name, ".")
	known := fieldsOf(root)
	if len(known) == 0 {
		return fault
	}
	if dotted {
		fault.Col = max(fault.Col-len(root), 1) // cel-go points at the dot
	}
	fault.Message = fmt.Sprintf("unknown field %q: %s has %s", name, root, strings.Join(known, ", "))
	return fault
}

func fieldsOf(root string) []string {
	var known []string
	for _, f := range fields() {
		if name, ok := strings.CutPrefix(f.name, root+"."); ok {
			known = append(known, name)
		}
	}
	return known
}

func warnings(checked *cel.Ast) []string {
	tests := ast.MatchDescendants(ast.NavigateAST(checked.NativeRep()), func(n ast.NavigableExpr) bool {
		if n.Kind() != ast.CallKind || n.AsCall().FunctionName() != operators.In {
			return false
		}
		list := n.AsCall().Args()[1]
		if list.Kind() == ast.IdentKind {
			return list.AsIdent() == "auth.permissions"
		}
		return list.Kind() == ast.SelectKind && list.AsSelect().FieldName() == "permissions" &&
			list.AsSelect().Operand().Kind() == ast.IdentKind && list.AsSelect().Operand().AsIdent() == "auth"
	})
	if len(tests) == 0 {
		return nil
	}
	return []string{`"in auth.permissions" does not know wildcards: write auth.can("resource:action")`}
}
