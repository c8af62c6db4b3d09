package paths

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"tollgate/internal/strictyaml"
)

// colonForm is how other routers write a variable.
var colonForm = regexp.MustCompile(`^:[A-Za-z_]`)

// ExactPath is the one path that a route matches.
type ExactPath string

// UnmarshalText refuses what other routers would take for more than one path.
func (p *ExactPath) UnmarshalText(text []byte) error {
	s := string(text)
	if stem, below := strings.CutSuffix(s, "/*"); below && !strings.Contains(stem, "*") {
		return fmt.Errorf("%q: an exact path has no wildcards: write prefix: %s for all below it%s", strictyaml.Clip(text), orRoot(stem), literally(s))
	}
	if strings.Contains(s, "*") {
		return fmt.Errorf("%q: an exact path has no wildcards: write a prefix, a template or a regex%s", strictyaml.Clip(text), literally(s))
	}
	if template, foreign := variables(s); foreign || strings.ContainsAny(s, "{}") {
		return fmt.Errorf("%q: an exact path has no variables: write template: %q", strictyaml.Clip(text), strictyaml.Clip([]byte(template)))
	}
	return (*Path)(p).UnmarshalText(text)
}

// PathPrefix is a path that a route matches together with all below it.
type PathPrefix string

// UnmarshalText refuses what other routers would take for wildcards or variables.
func (p *PathPrefix) UnmarshalText(text []byte) error {
	s := string(text)
	stem, below := strings.CutSuffix(strings.TrimRight(s, "*"), "/")
	if below && strings.HasSuffix(s, "*") && !strings.Contains(stem, "*") {
		return fmt.Errorf("%q: a prefix takes all below it: write %s%s", strictyaml.Clip(text), orRoot(stem), literally(s))
	}
	if strings.Contains(s, "*") {
		return fmt.Errorf("%q: a prefix has no wildcards, it takes whole segments and all below them: write a regex%s", strictyaml.Clip(text), literally(s))
	}
	if template, foreign := variables(s); foreign || strings.ContainsAny(s, "{}") {
		return fmt.Errorf("%q: a prefix has no variables: write template: %q for that path alone, or a regex with [^/]+ for each of them and (/.*)? at the end",
			strictyaml.Clip(text), strictyaml.Clip([]byte(template)))
	}
	return (*Path)(p).UnmarshalText(text)
}

// PathTemplate is a template that a route matches.
type PathTemplate string

// UnmarshalText refuses the wildcards and variables of other routers.
func (t *PathTemplate) UnmarshalText(text []byte) error {
	s := string(text)
	if stem, below := strings.CutSuffix(s, "/*"); below && !strings.ContainsAny(stem, "*{:") {
		return fmt.Errorf("%q: a template has no wildcards: write {name} for one segment, or prefix: %s for all below it%s", strictyaml.Clip(text), orRoot(stem), literally(s))
	}
	if strings.Contains(s, "*") {
		return fmt.Errorf("%q: a template has no wildcards: write {name} for one segment, or a regex for more", strictyaml.Clip(text))
	}
	if template, foreign := variables(s); foreign {
		return fmt.Errorf("%q: a variable is written in braces: write %q%s", strictyaml.Clip(text), strictyaml.Clip([]byte(template)), literally(s))
	}
	return (*Template)(t).UnmarshalText(text)
}

// Variables lists the names in braces.
func (t PathTemplate) Variables() []string { return Template(t).Variables() }

// variables gives the template that a path with segments such as :id means, and
// whether it has any.
func variables(path string) (template string, foreign bool) {
	if !strings.Contains(path, "/:") {
		return path, false
	}
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		if !colonForm.MatchString(segment) {
			continue
		}
		foreign = true
		segments[i] = "{" + segment[1:] + "}"
	}
	return strings.Join(segments, "/"), foreign
}

// literally says how the characters of a path are written that look like more.
func literally(path string) string {
	if strings.ContainsAny(path, "{}") || len(path) > 80 {
		return ""
	}
	return "; if the characters themselves are meant, regex: " + strconv.Quote(regexp.QuoteMeta(path))
}

func orRoot(path string) string {
	if path == "" {
		return "/"
	}
	return path
}
