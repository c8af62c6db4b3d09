// Package celenv declares once what an `authorize` expression may say, so that
// the file's validator and the authorization server cannot disagree. Invariant:
// an expression that compiles is a bool over declared fields and its cost has
// an upper bound that is known before it ever runs.
package celenv

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"tollgate/internal/oneview"
)

const (
	// MaxCost bounds an expression, and all those of a route together; a unit is
	// about 10 ns of CPU.
	MaxCost = 400_000
	// MaxLength bounds its text, so that compiling is bounded too.
	MaxLength = 4096
	// MaxEntries is how many entries a map or list of a request may have, MaxText
	// how many bytes a text: the bound assumes it, and whoever fills Request holds
	// it to that as far as Looks says that expressions look at it.
	MaxEntries = oneview.MaxParameters
	// MaxText is in bytes.
	MaxText = 8192

	grantsName = "@grants" // not writable in the language: only auth.can reaches it
	// loopFactor is how much dearer than elsewhere a unit is in a loop, where it is
	// also counted (measured: 80 ns).
	loopFactor = 8
	// interruptEvery is how many turns of a loop go by between two looks at the
	// deadline.
	interruptEvery = 64
)

// Input is what an expression sees. Nothing in it is modified.
type Input struct {
	Request Request
	Auth    *Auth
	Route   string
}

// Request is the client's request, read in one way (package oneview). Path is
// as it goes upstream, escapes in upper case; Segments, and the names and values
// of Query, are decoded. Headers and Query are asked only by expressions that
// look at them, and hold at least the names that Looks tells.
type Request struct {
	Method, Path, Host, ClientIP string
	Segments                     []string
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

type variable struct {
	name string
	typ  *cel.Type
}

func fields() []variable {
	texts := cel.MapType(cel.StringType, cel.StringType)
	list := cel.ListType(cel.StringType)
	return []variable{
		{"request.method", cel.StringType},
		{"request.path", cel.StringType},
		{"request.segments", list},
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
		cel.Function("@bound", cel.Overload("bound_text", []*cel.Type{cel.StringType, cel.IntType}, cel.StringType, cel.BinaryBinding(bound))),
		cel.Macros(cel.ReceiverMacro("can", 1, expandCan), cel.ReceiverMacro("matches", 1, expandMatches), cel.GlobalMacro("matches", 2, expandMatches)),
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
	loops    bool
	cost     uint64
	looks    Looks
	warnings []string
}

// Compile checks types, fields and cost. Its errors are of type *Error.
func (e *Env) Compile(expr string) (*Program, error) {
	if len(expr) > MaxLength {
		return nil, &Error{1, 1, fmt.Sprintf("the expression has %d bytes, at most %d are allowed: split it into several rules", len(expr), MaxLength)}
	}
	checked, issues := e.cel.Compile(expr)
	if issues.Err() != nil {
		return nil, firstFault(expr, issues)
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		return nil, &Error{1, 1, fmt.Sprintf("the expression is of type %s, must be bool: compare it with something", cel.FormatCELType(t))}
	}
	cost, err := e.cel.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, &Error{1, 1, "its cost cannot be bounded: " + err.Error()}
	}
	out := &Program{loops: loops(checked), cost: cost.Max, looks: looks(checked), warnings: warnings(checked)}
	if out.loops {
		out.cost = min(cost.Max, math.MaxUint32) * loopFactor
	}
	if out.cost > MaxCost {
		return nil, &Error{1, 1, fmt.Sprintf("it may cost up to %d units, at most %d are allowed: avoid loops in loops and long regular expressions", out.cost, MaxCost)}
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if out.loops {
		// Lists in tokens have no bound of their own, so a loop is counted as it runs;
		// anything else would only become slower by that.
		options = append(options, cel.CostLimit(MaxCost/loopFactor), cel.InterruptCheckFrequency(interruptEvery))
	}
	if out.program, err = e.cel.Program(checked, options...); err != nil {
		return nil, &Error{1, 1, err.Error()}
	}
	return out, nil
}

// Cost is an upper bound in units of about 10 ns.
func (p *Program) Cost() uint64 { return p.cost }

// Looks tells which headers and query parameters the expression looks at.
func (p *Program) Looks() Looks { return p.looks }

// Warnings lists what is legal but probably not meant.
func (p *Program) Warnings() []string { return slices.Clone(p.warnings) }

// Eval decides. An error means that the expression failed on this input, such
// as a look-up of a header that is not there, or that ctx ended; the caller must
// not admit on it.
func (p *Program) Eval(ctx context.Context, in *Input) (bool, error) {
	var value ref.Val
	var err error
	if p.loops {
		value, _, err = p.program.ContextEval(ctx, activation{in})
	} else {
		value, _, err = p.program.Eval(activation{in})
	}
	if err != nil {
		return false, err
	}
	held, ok := value.(types.Bool)
	if !ok {
		return false, fmt.Errorf("the expression gave %s, not bool", value.Type())
	}
	return bool(held), nil
}
