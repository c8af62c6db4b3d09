// Package tollgate_test holds the rules of the house (ARCHITECTURE.md): who may
// import whom, how large things may grow, and that every package says what it is.
package tollgate_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	maxPackage  = 1500
	maxFile     = 500
	maxFunction = 60
)

// file is one Go file of the module, generated ones left out.
type file struct {
	path    string // with slashes, from the root
	dir     string
	test    bool
	lines   int
	imports []string
	ast     *ast.File
	set     *token.FileSet
}

func load(t *testing.T) []file {
	t.Helper()
	var files []file
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != "." && (strings.HasPrefix(base, ".") || base == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		slash := filepath.ToSlash(name)
		if !strings.HasSuffix(slash, ".go") || strings.HasSuffix(slash, ".pb.go") {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, name, data, parser.ParseComments)
		if err != nil {
			return err
		}
		f := file{path: slash, dir: path.Dir(slash), test: strings.HasSuffix(slash, "_test.go"), lines: strings.Count(string(data), "\n"), ast: parsed, set: set}
		for _, i := range parsed.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, p)
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("found %d Go files: the walk is broken, or this is not the module's root", len(files))
	}
	return files
}

// TestPartsMeetOverTheWire: the four parts are separate programs that may one
// day be released apart; what they share is a contract in api/ or a tool in internal/.
func TestPartsMeetOverTheWire(t *testing.T) {
	parts := []string{"xds", "extauthz", "ratelimit", "services"}
	within := func(p, part string) bool {
		return p == "tollgate/"+part || strings.HasPrefix(p, "tollgate/"+part+"/")
	}
	free := []string{"cmd", "e2e", "bench"}
	for _, f := range load(t) {
		part, _, _ := strings.Cut(f.dir, "/")
		if slices.Contains(free, part) || f.dir == "." {
			continue
		}
		for _, imported := range f.imports {
			for _, other := range parts {
				if other != part && within(imported, other) {
					t.Errorf("%s imports %s: %s meets %s in api/ or over the wire, so that each can run and be tested alone", f.path, imported, part, other)
				}
			}
			if strings.HasPrefix(imported, "tollgate/cmd") || strings.HasPrefix(imported, "tollgate/e2e") || strings.HasPrefix(imported, "tollgate/bench") {
				t.Errorf("%s imports %s: wiring and tests stand above all else", f.path, imported)
			}
		}
	}
}

// TestPurePackages: same input, same output, so that goldens, properties and
// replicas can be trusted.
func TestPurePackages(t *testing.T) {
	pure := []string{"xds/config", "xds/compile", "xds/release", "xds/rollout", "extauthz/policy", "ratelimit/limits", "ratelimit/engine"}
	banned := map[string]string{
		"log/slog":               "a pure function reports by its results",
		"net":                    "addresses are net/netip values; nothing is dialled or resolved here",
		"net/http":               "nothing is served or fetched here",
		"os":                     "inputs arrive as values",
		"math/rand":              "randomness arrives as an argument",
		"math/rand/v2":           "randomness arrives as an argument",
		"crypto/rand":            "randomness arrives as an argument",
		"google.golang.org/grpc": "no server and no client lives here",
	}
	clock := []string{"Now", "Since", "Until", "Sleep", "After", "Tick", "NewTimer", "NewTicker", "AfterFunc"}
	for _, f := range load(t) {
		if f.test || !slices.ContainsFunc(pure, func(p string) bool { return f.dir == p || strings.HasPrefix(f.dir, p+"/") }) {
			continue
		}
		if f.ast.Name.Name == "main" {
			continue // a generator beside the package it reads
		}
		for _, i := range f.imports {
			if why, no := banned[i]; no {
				t.Errorf("%s imports %s: %s", f.path, i, why)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" && x.Obj == nil && slices.Contains(clock, s.Sel.Name) {
					t.Errorf("%s calls time.%s: time arrives as an argument", f.set.Position(s.Pos()), s.Sel.Name)
				}
			}
			return true
		})
	}
}

// TestSizes: what does not fit has a second idea in it that deserves a name.
func TestSizes(t *testing.T) {
	packages := map[string]int{}
	for _, f := range load(t) {
		if f.lines > maxFile {
			t.Errorf("%s has %d lines, at most %d: split it by what it is about", f.path, f.lines, maxFile)
		}
		if f.test {
			continue
		}
		packages[f.dir] += f.lines
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := f.set.Position(fn.End()).Line - f.set.Position(fn.Pos()).Line + 1; n > maxFunction {
				t.Errorf("%s: %s has %d lines, at most %d: name its steps", f.set.Position(fn.Pos()), fn.Name.Name, n, maxFunction)
			}
		}
	}
	for dir, lines := range packages {
		if lines > maxPackage {
			t.Errorf("package %s has %d lines, at most %d: it holds more than one noun", dir, lines, maxPackage)
		}
	}
}

// TestNames: a package is one noun that can be explained in a sentence.
func TestNames(t *testing.T) {
	vague := []string{"util", "utils", "common", "helper", "helpers", "manager", "base", "types", "models", "misc", "core", "shared"}
	for _, f := range load(t) {
		if base := path.Base(f.dir); slices.Contains(vague, base) {
			t.Errorf("package %s: %q says nothing; name what it is", f.dir, base)
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: init hides work from main; construct what is needed", f.set.Position(fn.Pos()))
			}
		}
	}
}

// TestPackageComments: a newcomer learns from the first line what a package
// is and what it promises.
func TestPackageComments(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range load(t) {
		if f.test {
			continue
		}
		doc := f.ast.Doc.Text()
		want := "Package " + f.ast.Name.Name + " "
		if f.ast.Name.Name == "main" {
			want = "Command "
		}
		documented[f.dir] = documented[f.dir] || strings.HasPrefix(doc, want)
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no comment that begins `Package %s …` (`Command …` for a program)", dir, path.Base(dir))
		}
	}
}

// TestContractOnce: what two parts must agree on is written once, in
// api/contract, so that neither can change alone. Words that mean other things
// too ("limit", "user") cannot be told apart here and are left out.
func TestContractOnce(t *testing.T) {
	facts, files := map[string]string{}, load(t)
	literals := func(f file, see func(text string, at token.Pos)) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if field, ok := n.(*ast.Field); ok && field.Tag != nil {
				return false // a tag is its type's own
			}
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			if text, err := strconv.Unquote(lit.Value); err == nil {
				see(text, lit.Pos())
			}
			return true
		})
	}
	for _, f := range files {
		if f.dir == "api/contract" && !f.test {
			literals(f, func(text string, at token.Pos) {
				if len(text) > 4 && strings.ContainsAny(text, "-_.(:") {
					facts[text] = f.set.Position(at).String()
				}
			})
		}
	}
	if len(facts) < 20 {
		t.Fatalf("found %d facts in api/contract: the walk is broken", len(facts))
	}
	for _, f := range files {
		if f.test || f.dir == "api/contract" || strings.HasPrefix(f.dir, "e2e") || strings.HasPrefix(f.dir, "bench") {
			continue
		}
		literals(f, func(text string, at token.Pos) {
			if from, known := facts[text]; known {
				t.Errorf("%s: %q stands in %s already: use that", f.set.Position(at), text, from)
			}
		})
	}
}
