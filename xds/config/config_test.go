package config_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tollgate/xds/config"
	"tollgate/xds/config/language"
)

var update = flag.Bool("update", false, "rewrite what the tests expect; review the diff")

// parse reads references from testdata/files; env:SECRET is a password.
func parse(t testing.TB, sources ...config.Source) (*config.Gateway, []config.Fault, error) {
	t.Helper()
	return language.Parse(sources, references)
}

func references(ref config.Reference) config.Value {
	switch path, isFile := strings.CutPrefix(ref.Ref, "file:"); {
	case isFile:
		data, err := os.ReadFile(filepath.Join("testdata", "files", path))
		if err != nil {
			err = fmt.Errorf("no such file: %s", path)
		}
		return config.Value{Text: string(data), Err: err}
	case ref.Ref == "env:SECRET":
		return config.Value{Text: "hunter2"}
	}
	return config.Value{Err: errors.New("the environment variable is not set")}
}

func read(t testing.TB, path string) config.Source {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return config.Source{Name: "gateway.yaml", Data: data}
}

func files(t testing.TB, pattern string, atLeast int) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) < atLeast {
		t.Fatalf("%s: %d files, want at least %d (%v)", pattern, len(found), atLeast, err)
	}
	return found
}

// TestBadFiles: a bad file ends with the faults it must show, each on a line
// that begins with "# fault: ".
func TestBadFiles(t *testing.T) {
	const mark = "# fault: "
	for _, path := range files(t, "testdata/*.bad.yaml", 60) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			source := read(t, path)
			body, expected, _ := strings.Cut(string(source.Data), mark)
			_, _, err := parse(t, config.Source{Name: source.Name, Data: []byte(body)})
			var faults config.Faults
			if !errors.As(err, &faults) || len(faults) == 0 {
				t.Fatalf("no faults: %v", err)
			}
			got := mark + strings.Join(strings.Split(faults.Error(), "\n"), "\n"+mark) + "\n"
			if strings.Contains(got, "hunter2") && !strings.Contains(body, "hunter2") {
				t.Errorf("a secret is in a fault:\n%s", got)
			}
			if *update {
				if err := os.WriteFile(path, []byte(body+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := mark + expected; expected == "" || got != want {
				t.Errorf("faults (-want +got; -update rewrites them):\n%s", cmp.Diff(want, got))
			}
		})
	}
}

// TestGoodFiles: what a good file means, as JSON beside it.
func TestGoodFiles(t *testing.T) {
	for _, path := range files(t, "testdata/*.good.yaml", 8) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			gateway, warnings, err := parse(t, read(t, path))
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(struct {
				Warnings []string
				Gateway  *config.Gateway
			}{lines(warnings), gateway}, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(got), "PRIVATE KEY") {
				t.Error("a key is in the JSON form of the gateway")
			}
			golden := strings.TrimSuffix(path, ".yaml") + ".json"
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
				t.Errorf("gateway (-want +got; -update rewrites it):\n%s", diff)
			}
		})
	}
}

func lines(faults []config.Fault) []string {
	var out []string
	for _, f := range faults {
		out = append(out, f.String())
	}
	return out
}
