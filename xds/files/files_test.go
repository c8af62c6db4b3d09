package files_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tollgate/xds/config"
	"tollgate/xds/files"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const gateway = `version: 1
listeners:
  - {name: http, address: env:TOLLGATE_TEST_ADDRESS}
identity:
  issuers:
    - {name: p, issuer: https://a.example, audiences: [api], jwks: {file: keys/jwks.json}, claims: {tenant: t, user: sub, permissions: p}}
`

func TestReadResolvesReferencesBesideTheirFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "gateway.yaml")
	write(t, path, gateway)
	write(t, filepath.Join(dir, "keys", "jwks.json"), "the keys")
	t.Setenv("TOLLGATE_TEST_ADDRESS", "127.0.0.1:0")
	set, err := files.New([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	sources, values, err := set.Read()
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) != 1 || string(sources[0].Data) != gateway {
		t.Fatalf("got %d sources", len(sources))
	}
	got := map[string]string{}
	for ref, value := range values {
		if value.Err != nil {
			t.Errorf("%s: %v", ref.Ref, value.Err)
		}
		got[ref.Ref] = value.Text
	}
	if got["env:TOLLGATE_TEST_ADDRESS"] != "127.0.0.1:0" || got["file:keys/jwks.json"] != "the keys" {
		t.Errorf("got %v", got)
	}
	if want := []string{filepath.Join(dir, "keys", "jwks.json")}; len(files.Referenced(sources)) != 1 || files.Referenced(sources)[0] != want[0] {
		t.Errorf("got %v, want %v", files.Referenced(sources), want)
	}
}

func TestReadCarriesWhatCannotBeRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, path, strings.ReplaceAll(gateway, "env:TOLLGATE_TEST_ADDRESS", "env:TOLLGATE_TEST_NOT_SET"))
	set, err := files.New([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	_, values, err := set.Read()
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"env:TOLLGATE_TEST_NOT_SET", "file:keys/jwks.json"} {
		if values[config.Reference{Source: path, Ref: ref}].Err == nil {
			t.Errorf("%s: no error", ref)
		}
	}
}

func TestSourcesThatAreNotThere(t *testing.T) {
	if _, err := files.New(nil); err == nil {
		t.Error("no paths: no error")
	}
	for name, path := range map[string]string{"no *.yaml": t.TempDir(), "no such file": filepath.Join(t.TempDir(), "x.yaml")} {
		set, err := files.New([]string{path})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := set.Read(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

// TestWatchSeesEveryWayToSave: editors write in place, rename over, replace a
// link; a folder gains and loses files; a referenced file changes.
func TestWatchSeesEveryWayToSave(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "gateway.yaml")
	jwks := filepath.Join(dir, "keys", "jwks.json")
	write(t, path, gateway)
	write(t, jwks, "1")
	set, err := files.New([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- set.Watch(ctx, changed, slog.New(slog.DiscardHandler)) }()
	time.Sleep(50 * time.Millisecond) // the watch is set up; a change before it would be missed by design

	steps := []struct {
		name string
		do   func()
	}{
		{"written in place", func() { write(t, path, gateway+"# 1\n") }},
		{"renamed over", func() {
			write(t, path+".tmp", gateway+"# 22\n")
			if err := os.Rename(path+".tmp", path); err != nil {
				t.Fatal(err)
			}
		}},
		{"a file more", func() { write(t, filepath.Join(dir, "more.yaml"), "version: 1\n") }},
		{"a file less", func() {
			if err := os.Remove(filepath.Join(dir, "more.yaml")); err != nil {
				t.Fatal(err)
			}
		}},
		{"a referenced file", func() { write(t, jwks, "22") }},
		{"a link replaced", func() {
			write(t, filepath.Join(dir, "v2"), gateway+"# 333\n")
			if err := os.Symlink("v2", path+".link"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".link", path); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, step := range steps {
		step.do()
		select {
		case <-changed:
		case <-time.After(5 * time.Second):
			t.Errorf("%s: not seen", step.name)
		}
		drained := false
		for !drained { // a save in several steps may be told twice
			select {
			case <-changed:
			case <-time.After(100 * time.Millisecond):
				drained = true
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
