// Package celenv declares once what an `authorize` expression may say, so that
// the file's validator and the authorization server cannot disagree. Invariant:
// an expression that compiles is a bool over declared fields and its cost has
// an upper bound that is known before it ever runs.
package celenv

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

const (
	// MaxCost bounds an expression; a unit is about 10 ns.
	MaxCost = 100_000
	// MaxLength bounds its text, so that compiling is bounded too.
	MaxLength = 4096

	grantsName = "@grants" // not writable in the language: only auth.can reaches it
)

// Input is what an expression sees. Nothing in it is modified.
type Input struct {
	Request Request
	Auth    *Auth
	Route   string
}

// Request is the client's request. Headers and Query are asked only by
// expressions that look at them; several values of a name are joined by ",".
type Request struct {
	Method, Path, Host, ClientIP string
	Headers, Query               func() map[string]string
	Time                         time.Time
}

// Auth is the verified caller, roles expanded.
type Auth struct {
	Kind, Tenant, User, Plan, KeyID string
	Permissions, Scopes             []string
	Claims                          map[string]any
	Grants                          *Grants
}

// Error is the first fault of an expression; Line and Col count from 1 inside it.
type Error struct {
	Line, Col int
	Message   string
}

func (e *Error) Error() string { return fmt.Sprintf("%d:%d: %s", e.Line, e.Col, e.Message) }

// Env compiles expressions. It is safe for concurrent use.
type Env struct {
	cel *cel.Env
}

type field struct {
	name string
	typ  *cel.Type
}

func fields() []field {
	texts := cel.MapType(cel.StringType, cel.StringType)
	list := cel.ListType(cel.StringType)
	return []field{
		{"request.method", cel.StringType},
		{"request.path", cel.StringType},
		{"request.host", cel.StringType},
		{"request.headers", texts},
		{"request.query", texts},
		{"request.client_ip", cel.StringType},
		{"request.time", cel.TimestampType},
		{"auth.kind", cel.StringType},
		{"auth.tenant", cel.StringType},
		{"auth.user", cel.StringType},
		{"auth.plan", cel.StringType},
		{"auth.permissions", list},
		{"auth.scopes", list},
		{"auth.claims", cel.MapType(cel.StringType, cel.DynType)},
		{"auth.key_id", cel.StringType},
		{"route.name", cel.StringType},
	}
}

// New returns the environment of config version 1.
func New() (*Env, error) {
	grants := cel.OpaqueType("tollgate.grants")
	options := []cel.EnvOption{
		cel.CrossTypeNumericComparisons(true), // numbers in claims are doubles
		cel.ParserExpressionSizeLimit(MaxLength),
		cel.ParserRecursionLimit(64),
		cel.Variable(grantsName, grants),
		cel.Function("@can", cel.Overload("grants_can", []*cel.Type{grants, cel.StringType}, cel.BoolType,
			cel.BinaryBinding(func(set, permission ref.Val) ref.Val {
				g, ok := set.(grantsValue)
				p, isText := permission.(types.String)
				if !ok || !isText {
					return types.MaybeNoSuchOverloadErr(permission)
				}
				return types.Bool(g.Can(string(p)))
			}))),
		cel.Macros(cel.ReceiverMacro("can", 1, expandCan)),
	}
	for _, f := range fields() {
		options = append(options, cel.Variable(f.name, f.typ))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("declare the variables of authorize: %w", err)
	}
	return &Env{cel: env}, nil
}

// expandCan turns auth.can(x) into @can(@grants, x): a function cannot see the
// variables of an evaluation, a macro can name them.
func expandCan(f cel.MacroExprFactory, target ast.Expr, args []ast.Expr) (ast.Expr, *cel.Error) {
	if target.Kind() != ast.IdentKind || target.AsIdent() != "auth" {
		return nil, nil //nolint:nilnil // cel-go's way to say: not this macro, go on
	}
	return f.NewCall("@can", f.NewIdent(grantsName), args[0]), nil
}

// Program is a compiled expression, safe for concurrent use.
type Program struct {
	program  cel.Program
	warnings []string
}

// Compile checks types, fields and cost. Its errors are of type *Error.
func (e *Env) Compile(expr string) (*Program, error) {
	if len(expr) > MaxLength {
		return nil, &Error{1, 1, fmt.Sprintf("the expression has %d bytes, at most %d are allowed: split it into several rules", len(expr), MaxLength)}
	}
	checked, issues := e.cel.Compile(expr)
	if issues.Err() != nil {
		return nil, firstFault(issues)
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		return nil, &Error{1, 1, fmt.Sprintf("the expression is of type %s, must be bool: compare it with something", cel.FormatCELType(t))}
	}
	cost, err := e.cel.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, &Error{1, 1, "its cost cannot be bounded: " + err.Error()}
	}
	if cost.Max > MaxCost {
		return nil, &Error{1, 1, fmt.Sprintf("it may cost up to %d units, at most %d are allowed: avoid loops in loops and long regular expressions", cost.Max, MaxCost)}
	}
	program, err := e.cel.Program(checked, cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, &Error{1, 1, err.Error()}
	}
	return &Program{program: program, warnings: warnings(checked)}, nil
}

// Warnings lists what is legal but probably not meant.
func (p *Program) Warnings() []string { return slices.Clone(p.warnings) }

// Eval decides. An error means that the expression failed on this input, such
// as a look-up of a header that is not there; the caller must not admit on it.
func (p *Program) Eval(in *Input) (bool, error) {
	value, _, err := p.program.Eval(activation{in})
	if err != nil {
		return false, err
	}
	held, ok := value.(types.Bool)
	if !ok {
		return false, fmt.Errorf("the expression gave %s, not bool", value.Type())
	}
	return bool(held), nil
}

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
