package tollgate_test

import (
	"go/ast"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// proof is a test as a page names it: `TestX`, `TestX/of a part`, `pkg TestX` or
// `dir/pkg: TestX`.
var proof = regexp.MustCompile("`(?:([a-z][a-z0-9/]*):? )?((?:Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9]*)(?:/([^`]+))?`")

// named are the texts of a test file, by which tests call their parts.
func named(f file) map[string]bool {
	texts := map[string]bool{}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if text, err := strconv.Unquote(literal.Value); err == nil {
				texts[strings.ReplaceAll(text, " ", "_")] = true
			}
		}
		return true
	})
	return texts
}

// TestPagesNameRealTests: a page that names the test of a promise names one that
// is there, in the package that it says, with the part that it says.
func TestPagesNameRealTests(t *testing.T) {
	type place struct {
		dir   string
		parts map[string]bool
	}
	tests := map[string][]place{}
	for _, f := range load(t) {
		if !f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			if function, ok := d.(*ast.FuncDecl); ok && function.Recv == nil {
				tests[function.Name.Name] = append(tests[function.Name.Name], place{f.dir, named(f)})
			}
		}
	}
	pages, err := filepath.Glob("docs/*.md")
	if err != nil || len(pages) < 6 {
		t.Fatalf("%v, %v", pages, err)
	}
	adrs, err := filepath.Glob("docs/adr/*.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, page := range append(pages, append(adrs, "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")...) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for number, line := range strings.Split(string(text), "\n") {
			for _, m := range proof.FindAllStringSubmatch(line, -1) {
				seen[filepath.Base(page)]++
				found := false
				for _, p := range tests[m[2]] {
					in := m[1] == "" || p.dir == m[1] || path.Base(p.dir) == m[1]
					found = found || in && (m[3] == "" || p.parts[strings.ReplaceAll(m[3], " ", "_")])
				}
				if !found {
					t.Errorf("%s:%d names %s, which is not there", page, number+1, m[0])
				}
			}
		}
	}
	for page, least := range map[string]int{"security.md": 40, "one-view.md": 10} {
		if seen[page] < least {
			t.Errorf("%s names %d tests: this test does not find them, or the page lost its proofs", page, seen[page])
		}
	}
}

// TestSecurityLinesNameTheirTests: a promise of docs/security.md without a test is
// no promise.
func TestSecurityLinesNameTheirTests(t *testing.T) {
	text, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for number, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasSuffix(line, "| test |") {
			continue
		}
		rows++
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if !proof.MatchString(cells[len(cells)-1]) {
			t.Errorf("docs/security.md:%d names no test: %s", number+1, line)
		}
	}
	if rows < 40 {
		t.Errorf("%d rows were found", rows)
	}
}
