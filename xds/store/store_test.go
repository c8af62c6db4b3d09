package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tollgate/xds/config"
	"tollgate/xds/store"
)

func set(base string) store.Set {
	sources := []config.Source{{Name: filepath.Join(base, "a.yaml"), Data: []byte("version: 1\n")}, {Name: filepath.Join(base, "b.yaml"), Data: []byte("routes: []\n")}}
	return store.Set{Revision: store.Revision(base, sources), Since: time.Unix(1_800_000_000, 0).UTC(), Sources: sources}
}

func TestWhatIsSavedIsLoaded(t *testing.T) {
	data := t.TempDir()
	kept := store.NewLastGood(data, "/etc/gw", []string{"/etc/gw"})
	if got, err := kept.Load(); got != nil || err != nil {
		t.Fatalf("from nothing: %v %v", got, err)
	}
	want := set("/etc/gw")
	if err := kept.Save(want); err != nil {
		t.Fatal(err)
	}
	got, err := kept.Load()
	if err != nil || cmp.Diff(&want, got) != "" {
		t.Fatalf("%v\n%s", err, cmp.Diff(&want, got))
	}
	if info, err := os.Stat(filepath.Join(data, "last-good", "sources.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	moved := set("/srv/gw")
	if got, err := store.NewLastGood(data, "/srv/gw", []string{"/srv/gw"}).Load(); err != nil || cmp.Diff(&moved, got) != "" {
		t.Errorf("after the folder moved: %v\n%s", err, cmp.Diff(&moved, got))
	}
}

// TestAnotherGatewaysSetIsNotServed: two files beside each other share a data
// folder, and what one was must never stand in for the other.
func TestAnotherGatewaysSetIsNotServed(t *testing.T) {
	data := t.TempDir()
	if err := store.NewLastGood(data, "/etc/gw", []string{"/etc/gw/a.yaml"}).Save(set("/etc/gw")); err != nil {
		t.Fatal(err)
	}
	for _, paths := range [][]string{{"/etc/gw/b.yaml"}, {"/etc/gw"}, {"/etc/gw/a.yaml", "/etc/gw/b.yaml"}} {
		if got, err := store.NewLastGood(data, "/etc/gw", paths).Load(); got != nil || err != nil {
			t.Errorf("%v: %v %v", paths, got, err)
		}
	}
}

func TestWhatIsBrokenOnDiskIsAnError(t *testing.T) {
	data := t.TempDir()
	kept := store.NewLastGood(data, "/etc/gw", []string{"/etc/gw"})
	if err := kept.Save(set("/etc/gw")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(data, "last-good", "sources.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cut":        string(good[:len(good)/2]),
		"edited":     strings.Replace(string(good), "routes", "rout3s", 1),
		"of a later": strings.Replace(string(good), `"revision"`, `"etag":"x","revision"`, 1),
		"empty":      "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := kept.Load(); err == nil || got != nil {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
}

// TestRevisionIsOfTheContent: equal files have it wherever they lie; where one
// ends and the next begins is part of it.
func TestRevisionIsOfTheContent(t *testing.T) {
	of := func(base string, files ...string) string {
		var sources []config.Source
		for i := 0; i < len(files); i += 2 {
			sources = append(sources, config.Source{Name: filepath.Join(base, files[i]), Data: []byte(files[i+1])})
		}
		return store.Revision(base, sources)
	}
	one := of("/a", "x.yaml", "1", "y.yaml", "2")
	if one != of("/b/c", "x.yaml", "1", "y.yaml", "2") {
		t.Error("the folder is part of it")
	}
	for _, other := range []string{of("/a", "x.yaml", "1", "y.yaml", "3"), of("/a", "x.yaml", "12"), of("/a", "x.yaml", "1", "z.yaml", "2"), of("/a", "y.yaml", "2", "x.yaml", "1"), of("/a")} {
		if other == one {
			t.Error("different sources have one revision")
		}
	}
}
