// Package oneview is the one reading of a request's method, host, path, query and
// cookies that Envoy, the authorization server and every upstream share.
// Invariant: what Parse accepts is exactly what TargetPattern matches, and a
// decoder that knows RFC 3986 (and form decoding in the query) makes the same
// segments and parameters of it, so that no other spelling of a path walks
// around a rule. Everything else is to be refused, never repaired.
package oneview

import (
	"errors"
	"strings"
)

const (
	// MaxParameters is how many parameters a query may have: Go stops reading at
	// 10,000, PHP, Django and Node at 1,000, and rules are costed for 128.
	MaxParameters = 128

	// MethodPattern is RE2 for every method: HTTP/2 would carry "delete" too, which
	// frameworks raise to DELETE.
	MethodPattern = `[A-Z-]+`
	// TooManyPattern is RE2 for targets of more than MaxParameters parameters.
	TooManyPattern = `[^?]*\?(?:[ -%'-~]*&){128}.*`
	// TargetPattern is RE2 for a path with or without a query, as Envoy holds it
	// after normalization. In a path every character has one spelling: bare where
	// it may stand bare, escaped where it must be; in a query any escape of UTF-8.
	// "*" is that of OPTIONS.
	TargetPattern = `\*|/(?:[A-Za-z0-9/._~!$&'()*+,=:@-]|%(?:2[023]|3[CcEeFf]|5[BbDdEe]|60|7[BbCcDd])|` + multibyte + `)*` +
		`(?:\?(?:[!"$&-:<-~]|%[0-7]` + digit + `|` + multibyte + `)*)?`

	digit = `[0-9A-Fa-f]`
	tail  = `%[89ABab]` + digit
	// multibyte is a character beyond ASCII: no overlong form, no surrogate.
	multibyte = `%(?:[Cc][2-9A-Fa-f]|[Dd]` + digit + `|[Ee]0%[ABab]` + digit + `|[Ee][1-9A-Ca-cEeFf]` + tail + `|[Ee][Dd]%[89]` + digit +
		`|[Ff]0%[9ABab]` + digit + tail + `|[Ff][1-3]` + tail + tail + `|[Ff]4%8` + digit + tail + `)` + tail
)

// Faults of a target; their text is for the client.
var (
	ErrPath       = errors.New("the path can be read in several ways")
	ErrQuery      = errors.New("the query can be read in several ways")
	ErrParameters = errors.New("the query has more than 128 parameters")
)

// Target is a path and a query, read once.
type Target struct {
	// Path is the path as it goes upstream, its escapes in upper case, so that one
	// path is one text.
	Path string
	// Segments are the decoded parts between slashes: none of "/", one empty one
	// at the end of "/a/".
	Segments   []string
	Parameters []Parameter // in order
}

// Parameter is a decoded pair of a query; a name without "=" has the value "".
type Parameter struct{ Name, Value string }

// Parse reads a target as Envoy holds it. Its errors are those above.
func Parse(target string) (Target, error) {
	path, query, asked := strings.Cut(target, "?")
	out := Target{Path: path}
	if path != "*" {
		if !strings.HasPrefix(path, "/") || !plain(path, barePath, escapedPath) {
			return Target{}, ErrPath
		}
		out.Path = upperEscapes(path)
		out.Segments = segments(path)
	} else if asked {
		return Target{}, ErrPath
	}
	if query == "" {
		return out, nil
	}
	if strings.Count(query, "&") >= MaxParameters {
		return Target{}, ErrParameters
	}
	if !plain(query, bareQuery, escapedQuery) {
		return Target{}, ErrQuery
	}
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		out.Parameters = append(out.Parameters, Parameter{Name: form(name), Value: form(value)})
	}
	return out, nil
}

func segments(path string) []string {
	if path == "/" {
		return nil
	}
	out := strings.Split(path[1:], "/")
	for i := range out {
		out[i] = decode(out[i])
	}
	return out
}

func form(s string) string { return decode(strings.ReplaceAll(s, "+", " ")) }
