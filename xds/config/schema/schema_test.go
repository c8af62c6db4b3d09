package schema_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"tollgate/xds/config/schema"
)

const root = "../../../"

func comments(t *testing.T) schema.Comments {
	t.Helper()
	c, err := schema.ReadComments(os.DirFS(root + "xds/config/syntax"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestDrift: what is committed is what the types and their comments say.
func TestDrift(t *testing.T) {
	c := comments(t)
	json, err := schema.JSON(c)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]byte{"configs/gateway.schema.json": json, "docs/config.md": schema.Markdown(c)} {
		got, err := os.ReadFile(root + path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the types say: go run ./xds/config/schemagen", path)
		}
	}
}

// TestEveryKeyIsExplained: a key without a comment would be an empty row.
func TestEveryKeyIsExplained(t *testing.T) {
	for line := range strings.Lines(string(schema.Markdown(comments(t)))) {
		if strings.HasSuffix(line, "|  |\n") {
			t.Errorf("no comment: %s", line)
		}
	}
}

// TestFiles: the schema takes every good file and every shipped one, and
// refuses what only the shape of a file can tell.
func TestFiles(t *testing.T) {
	compiled, err := jsonschema.NewCompiler().Compile(root + "configs/gateway.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	validate := func(path string) error {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var doc any
		if err := yaml.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		return compiled.Validate(doc)
	}
	good := slices.Concat(glob(t, "xds/config/testdata/*.good.yaml"), glob(t, "configs/gateway.yaml"), glob(t, "configs/examples/*.yaml"))
	if len(good) < 9 {
		t.Fatalf("only %d files", len(good))
	}
	for _, path := range good {
		if err := validate(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, bad := range []string{"unknown-key", "version-2", "wrong-kinds", "upstream-source", "later-words", "null-value", "limits", "version-missing"} {
		if err := validate(root + "xds/config/testdata/" + bad + ".bad.yaml"); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(root + pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}
