// Package paths is how a gateway file writes a path: as it is, as a template with
// variables, and as what a route matches. Invariant: what it takes can match a
// request, and nothing that other routers would take for a wildcard or a variable
// stands for its own characters: such a route would match nothing that anybody
// asks for, and leave the rest, silently, to another.
package paths

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"tollgate/internal/oneview"
	"tollgate/internal/strictyaml"
)

const maxLength = 1024

var (
	pathForm     = regexp.MustCompile(`^/([A-Za-z0-9/._~!$&'()*+,=:@-]|%[0-9A-Fa-f]{2})*$`)
	escaped      = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
	variableForm = regexp.MustCompile(`^\{[A-Za-z_][A-Za-z0-9_]*\}$`)
)

// Path is a literal path.
type Path string

// UnmarshalText refuses what no request can have after normalization.
func (p *Path) UnmarshalText(text []byte) error {
	s := string(text)
	switch {
	case strings.ContainsAny(s, "{}"):
		return fmt.Errorf("%q has braces: for variables write `template:`", strictyaml.Clip(text))
	case len(s) > maxLength || !pathForm.MatchString(s):
		return fmt.Errorf("%q is not a path: it begins with / and has no query and none of the characters ; \" < > \\ and space", strictyaml.Clip(text))
	}
	s, err := normal(s)
	*p = Path(s)
	return err
}

// normal refuses a path that Envoy would rewrite or the gateway refuse before it
// is matched, and writes escapes as rules see them, in upper case.
func normal(path string) (string, error) {
	for i, segment := range strings.Split(path[1:], "/") {
		last := i == strings.Count(path, "/")-1
		if segment == "." || segment == ".." || (segment == "" && !last) {
			return "", fmt.Errorf("%q can never match: requests have no //, /./ and /../ when they are matched", path)
		}
	}
	if !strings.Contains(path, "%") {
		return path, nil
	}
	_, err := oneview.Parse(strings.NewReplacer("{", "", "}", "").Replace(path))
	if err != nil {
		return "", fmt.Errorf("%q can never match: requests that escape %%, /, control characters or what may stand bare are refused", path)
	}
	return escaped.ReplaceAllStringFunc(path, strings.ToUpper), nil
}

// Template is a path in which whole segments may be variables: /v1/orders/{id}.
type Template string

// UnmarshalText checks every segment.
func (t *Template) UnmarshalText(text []byte) error {
	s := string(text)
	if !strings.HasPrefix(s, "/") || len(s) > maxLength {
		return fmt.Errorf("%q is not a template such as /v1/orders/{id}", strictyaml.Clip(text))
	}
	var seen []string
	for segment := range strings.SplitSeq(s[1:], "/") {
		switch {
		case variableForm.MatchString(segment):
			if slices.Contains(seen, segment) {
				return fmt.Errorf("%q names %s twice", strictyaml.Clip(text), segment)
			}
			seen = append(seen, segment)
		case strings.ContainsAny(segment, "{}"):
			return fmt.Errorf("%q: a variable is a whole segment such as {id}, not %q", strictyaml.Clip(text), segment)
		case !pathForm.MatchString("/" + segment):
			return fmt.Errorf("%q: %q is not a segment of a path", strictyaml.Clip(text), segment)
		}
	}
	s, err := normal(s)
	*t = Template(s)
	return err
}

// Variables lists the names in braces.
func (t Template) Variables() []string {
	text := string(t)
	var out []string
	for {
		_, rest, ok := strings.Cut(text, "{")
		if !ok {
			return out
		}
		name, after, ok := strings.Cut(rest, "}")
		if !ok {
			return append(out, rest)
		}
		out = append(out, name)
		text = after
	}
}
