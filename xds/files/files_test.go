package files_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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
	reading, err := set.Read()
	if err != nil {
		t.Fatal(err)
	}
	if len(reading.Sources) != 1 || string(reading.Sources[0].Data) != gateway {
		t.Fatalf("got %d sources", len(reading.Sources))
	}
	for ref, want := range map[string]string{"env:TOLLGATE_TEST_ADDRESS": "127.0.0.1:0", "file:keys/jwks.json": "the keys"} {
		if got := reading.Resolve(config.Reference{Source: path, Ref: ref}); got.Err != nil || got.Text != want {
			t.Errorf("%s: %q %v", ref, got.Text, got.Err)
		}
	}
}

func TestReadCarriesWhatCannotBeRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, path, strings.ReplaceAll(gateway, "env:TOLLGATE_TEST_ADDRESS", "env:TOLLGATE_TEST_NOT_SET"))
	set, err := files.New([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	reading, err := set.Read()
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"env:TOLLGATE_TEST_NOT_SET", "file:keys/jwks.json"} {
		if reading.Resolve(config.Reference{Source: path, Ref: ref}).Err == nil {
			t.Errorf("%s: no error", ref)
		}
	}
}

// TestOneOfSeveralCannotBeRead: the others are still read, and the reading says which.
func TestOneOfSeveralCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	there, gone := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml")
	write(t, there, gateway)
	set, err := files.New([]string{there, gone})
	if err != nil {
		t.Fatal(err)
	}
	reading, err := set.Read()
	if err != nil || len(reading.Sources) != 1 || len(reading.Unread) != 1 || reading.Unread[0].Name != gone {
		t.Fatalf("%v %+v", err, reading)
	}
	if _, _, err := set.Parse(); err == nil || !strings.Contains(err.Error(), gone) {
		t.Errorf("a half set was parsed: %v", err)
	}
}

// TestFolderLeavesKeyStoresOut: `tollgate keys create` writes beside the gateway
// file; a file that is named by itself is never left out.
func TestFolderLeavesKeyStoresOut(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		out  bool
	}{
		"as written":        {"keys:\n    - id: key_1\n      hash: sha256:00\n", true},
		"empty":             {"keys: []\n", true},
		"with a comment":    {"# ours\n---\n\nkeys:\n- id: a\n  hash: x\n", true},
		"in one line":       {"{keys: []}\n", true},
		"windows lines":     {"keys:\r\n  - id: a\r\n", true},
		"a list over lines": {"keys: [\n  {id: a}\n]\n", true},
		"a gateway":         {"version: 1\n", false},
		"both":              {"keys: []\nversion: 1\n", false},
		"mistyped":          {"kyes: []\n", false},
		"nothing":           {"", false},
		"a longer word":     {"keysets: 1\n", false},
		"further in":        {"identity:\n  keys: []\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "gateway.yaml"), gateway)
			write(t, filepath.Join(dir, "keys.yaml"), c.text)
			for _, path := range []string{dir, filepath.Join(dir, "keys.yaml")} {
				set, err := files.New([]string{path})
				if err != nil {
					t.Fatal(err)
				}
				reading, err := set.Read()
				if err != nil {
					t.Fatal(err)
				}
				want := 2
				if c.out || path != dir {
					want = 1
				}
				if len(reading.Sources) != want {
					t.Errorf("%s: %d sources, want %d", path, len(reading.Sources), want)
				}
			}
		})
	}
}

// TestSameSaysWhetherAnythingIsNew, the referenced files included.
func TestSameSaysWhetherAnythingIsNew(t *testing.T) {
	dir := t.TempDir()
	path, jwks := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "keys", "jwks.json")
	write(t, path, gateway)
	write(t, jwks, "1")
	set, err := files.New([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	read := func() *files.Reading {
		t.Helper()
		r, err := set.Read()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	last := read()
	last.Resolve(config.Reference{Source: path, Ref: "file:keys/jwks.json"})
	steps := []struct {
		name string
		do   func()
		same bool
	}{
		{"nothing", func() {}, true},
		{"touched", func() { write(t, path, gateway) }, true},
		{"not referenced", func() { write(t, filepath.Join(dir, "other.txt"), "x") }, true},
		{"keys", func() { write(t, filepath.Join(dir, "keys.yaml"), "keys: []\n") }, true},
		{"content", func() { write(t, path, gateway+"#\n") }, false},
		{"referenced", func() { write(t, jwks, "2") }, false},
		{"referenced gone", func() { _ = os.Remove(jwks) }, false},
		{"still gone", func() {}, true},
		{"a file more", func() { write(t, filepath.Join(dir, "b.yaml"), "version: 1\n") }, false},
		{"a file less", func() { _ = os.Remove(filepath.Join(dir, "b.yaml")) }, false},
	}
	for _, step := range steps {
		step.do()
		now := read()
		if got := now.Same(last); got != step.same {
			t.Errorf("%s: same is %v", step.name, got)
		}
		last = now
	}
}

// TestWaitingReadsNothing: a second of waiting looks at dates. It once decoded
// the file twice a second, which was half a core at 10,000 routes.
func TestWaitingReadsNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "gateway.yaml")
	write(t, path, gateway+strings.Repeat("# a comment of some length, so that reading it shows\n", 200_000))
	set, err := files.New([]string{path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set.Read(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- set.Watch(ctx, changed, slog.New(slog.DiscardHandler)) }()
	<-changed
	before := bytesRead(t)
	select {
	case <-changed:
		t.Error("told a change that is none")
	case <-time.After(2200 * time.Millisecond): // two polls
	}
	if n := bytesRead(t) - before; n > 1<<20 {
		t.Errorf("read %d bytes while nothing changed", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// bytesRead is what this process has read so far.
func bytesRead(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscanf(string(data), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
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
		if _, err := set.Read(); err == nil || !strings.Contains(err.Error(), name) {
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
	<-changed // the watch is set up
	if reading, err := set.Read(); err != nil {
		t.Fatal(err)
	} else {
		reading.Resolve(config.Reference{Source: path, Ref: "file:keys/jwks.json"})
	}
	time.Sleep(50 * time.Millisecond) // what was asked for is watched from the next look on

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

// TestPipeIsNotRead: a pipe among the files is a fault of its own, and nobody
// waits for whoever might write to it.
func TestPipeIsNotRead(t *testing.T) {
	dir := t.TempDir()
	good, pipe := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml")
	write(t, good, gateway)
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := files.New([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		reading, err := set.Read()
		if err == nil && (len(reading.Sources) != 1 || len(reading.Unread) != 1 || !strings.Contains(reading.Unread[0].Err.Error(), "no regular file")) {
			err = fmt.Errorf("read %+v", reading)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it waits for a writer")
	}
}
