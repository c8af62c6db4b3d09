package celenv

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

var wordForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*`)

func firstFault(expr string, issues *cel.Issues) *Error {
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
	before, after := around(expr, fault)
	if hint := operator(before, after); hint != "" && strings.HasPrefix(first.Message, "Syntax error") {
		fault.Message = hint
		return fault
	}
	if strings.HasPrefix(first.Message, "found no matching overload for '@in'") {
		fault.Message = `on the right of "in" there is a list, such as ["a", "b"], or a map`
		return fault
	}
	name, undeclared := strings.CutPrefix(first.Message, "undeclared reference to '")
	if name, _, _ = strings.Cut(name, "'"); !undeclared {
		return fault
	}
	root, _, dotted := strings.Cut(name, ".")
	known := fieldsOf(root)
	if dotted && len(known) > 0 {
		fault.Col = max(fault.Col-len(root), 1) // cel-go points at the dot
	}
	if rest, more := strings.CutPrefix(after, root+"."); more && !dotted && len(known) > 0 {
		name = root + "." + wordForm.FindString(rest)
	}
	switch whole := qualified(name); {
	case len(known) > 0:
		fault.Message = fmt.Sprintf("unknown field %q: %s has %s", name, root, strings.Join(known, ", "))
	case whole != "":
		fault.Message = fmt.Sprintf("unknown word %q: write %s", name, whole)
	case strings.HasPrefix(after, name): // else it is a function
		fault.Message = fmt.Sprintf("unknown word %q: expressions see request, auth and route; a text stands in quotes", name)
	}
	return fault
}

// around cuts the line of an expression where a fault is.
func around(expr string, at *Error) (before, after string) {
	lines := strings.Split(expr, "\n")
	if at.Line > len(lines) {
		return "", ""
	}
	line := []rune(lines[at.Line-1])
	col := min(at.Col-1, len(line))
	return string(line[:col]), string(line[col:])
}

// operator knows the operators of other languages; a fault stands at them, or
// right behind them.
func operator(before, after string) string {
	if strings.HasSuffix(before, "==") && strings.HasPrefix(after, "=") {
		return `"===" is no operator: write ==`
	}
	last := before[strings.LastIndexByte(strings.TrimRight(before, " "), ' ')+1:]
	for _, o := range []struct{ other, ours string }{{"=", "=="}, {"&", "&&"}, {"|", "||"}, {"and", "&&"}, {"or", "||"}, {"AND", "&&"}, {"OR", "||"}} {
		if wordForm.FindString(after) == o.other || wordForm.FindString(o.other) == "" && strings.HasPrefix(after, o.other) {
			return fmt.Sprintf("%q is no operator: write %s", o.other, o.ours)
		}
	}
	switch {
	case strings.HasSuffix(before, "<") && strings.HasPrefix(after, ">"):
		return `"<>" is no operator: write !=`
	case strings.TrimSpace(last) == "not" || strings.TrimSpace(last) == "NOT":
		return `"not" is no operator: write !`
	}
	return ""
}

// qualified is the whole name of a field; "" for none.
func qualified(name string) string {
	for _, f := range fields() {
		if _, last, _ := strings.Cut(f.name, "."); last == name {
			return f.name
		}
	}
	return ""
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
