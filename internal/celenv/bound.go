package celenv

import (
	"regexp/syntax"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

const (
	// matchCost bounds one regular expression on one text, in units of about 10 ns.
	matchCost = 50_000
	// stepCost is what one instruction of its program costs on one byte: Go's
	// engine takes up to 20 ns for it (measured on ambiguous patterns).
	stepCost = 2
	// requestSize is how large Envoy lets the head of a request be, in bytes.
	requestSize = 60 << 10
	// leastText is how long a text every pattern must be able to read.
	leastText = 256
)

// expandMatches turns text.matches("pattern") into
// @bound(text, n).matches("pattern"), n being how much text the pattern may read
// for matchCost. A pattern from the request could cost anything.
func expandMatches(f cel.MacroExprFactory, target ast.Expr, args []ast.Expr) (ast.Expr, *cel.Error) {
	text, pattern := target, args[0]
	if len(args) == 2 {
		text, pattern = args[0], args[1]
	}
	written, ok := literal(pattern)
	if !ok {
		return nil, f.NewError(pattern.ID(), "the regular expression must be written out")
	}
	most := readable(written)
	if most < leastText {
		return nil, f.NewError(pattern.ID(), "the regular expression is too large: avoid counts such as {1,200}, or write several")
	}
	return f.NewMemberCall("matches", f.NewCall("@bound", text, f.NewLiteral(types.Int(most))), pattern), nil
}

// readable is how many bytes a pattern may read; what is no pattern is for the
// compiler to say.
func readable(pattern string) int {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return MaxText
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return MaxText
	}
	return min(MaxText, matchCost/stepCost/max(len(program.Inst), 1))
}

// bound fails on a text that is longer than the pattern behind it may read.
func bound(text, most ref.Val) ref.Val {
	s, isText := text.(types.String)
	n, isInt := most.(types.Int)
	if !isText || !isInt {
		return types.MaybeNoSuchOverloadErr(text)
	}
	if len(s) > int(n) {
		return types.NewErr("a text of %d bytes is too long for its regular expression, which may read %d", len(s), int(n))
	}
	return s
}

// sizes tells the cost estimate how large inputs can be.
type sizes struct{}

func (sizes) EstimateSize(element cost.AstNode) *cost.SizeEstimate {
	path := strings.Join(element.Path(), ".")
	largest := uint64(256)
	switch {
	case path == "request.headers", path == "request.query", path == "request.segments", path == "auth.permissions", path == "auth.scopes":
		largest = MaxEntries
	case path == "request.path":
		largest = MaxText
	case strings.HasPrefix(path, "request.headers."), strings.HasPrefix(path, "request.query."), strings.HasPrefix(path, "request.segments."):
		// One may be MaxText long, but all of them together are one request: what a
		// loop reads is this on average.
		largest = requestSize / MaxEntries
	}
	return &cost.SizeEstimate{Min: 0, Max: largest}
}

func (sizes) EstimateCallCost(function, _ string, _ *cost.AstNode, _ []cost.AstNode) *cost.CallEstimate {
	if function != "matches" {
		return nil
	}
	return cost.NewCallEstimate(cost.Estimate{Min: 1, Max: matchCost}, nil)
}
