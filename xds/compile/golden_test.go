package compile_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"tollgate/internal/golden"
	"tollgate/xds/release"
)

// TestGolden: a change of what proxies are sent is a change of these files,
// and is reviewed as such.
func TestGolden(t *testing.T) {
	p := newPEMs(t)
	for _, path := range cases(t) {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			objects, warnings := everything(parseFile(t, p, path), scope(), instances())
			if _, err := release.New(objects); err != nil {
				t.Fatal(err)
			}
			files := map[string][]json.RawMessage{}
			for _, o := range objects {
				if o.Type == release.TypeSecret {
					continue // made anew by every run
				}
				name := goldenName(o)
				files[name] = append(files[name], readable(t, p, o.Message))
			}
			want := map[string]bool{"in.yaml": true}
			for name, messages := range files {
				want[name] = true
				golden.Equal(t, filepath.Join(dir, name), indent(t, messages))
			}
			if len(warnings) > 0 {
				want["warnings.txt"] = true
				golden.Equal(t, filepath.Join(dir, "warnings.txt"), []byte(strings.Join(warnings, "\n")+"\n"))
			}
			removeStale(t, dir, want)
		})
	}
}

func goldenName(o release.Object) string {
	name := o.Type[strings.LastIndexByte(o.Type, '.')+1:] + ".json"
	if o.Audience == release.GRPC {
		name = "grpc." + name
	}
	return name
}

// removeStale keeps goldens of things that are no longer made from looking alive.
func removeStale(t *testing.T, dir string, want map[string]bool) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if want[e.Name()] {
			continue
		}
		if !golden.Update() {
			t.Errorf("%s/%s is made no more; -update removes it", dir, e.Name())
		} else if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			t.Error(err)
		}
	}
}

func readable(t *testing.T, p pems, m proto.Message) json.RawMessage {
	t.Helper()
	data, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	quoted, _ := json.Marshal(p.cert)
	return bytes.ReplaceAll(data, quoted, []byte(`"(PEM)"`))
}

func indent(t *testing.T, messages []json.RawMessage) []byte {
	t.Helper()
	data, err := json.Marshal(messages)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", " "); err != nil {
		t.Fatal(err)
	}
	return append(out.Bytes(), '\n')
}

// TestDeterministic: replicas must agree on every byte, or a reconnect to
// another one re-sends everything.
func TestDeterministic(t *testing.T) {
	p := newPEMs(t)
	for _, path := range cases(t) {
		gw := parseFile(t, p, path)
		first, _ := everything(gw, scope(), instances())
		second, _ := everything(gw, scope(), instances())
		if len(first) != len(second) {
			t.Fatalf("%s: %d objects, then %d", path, len(first), len(second))
		}
		for i := range first {
			a, _ := proto.MarshalOptions{Deterministic: true}.Marshal(first[i].Message)
			b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(second[i].Message)
			if first[i].Name != second[i].Name || !bytes.Equal(a, b) {
				t.Errorf("%s: %s %q differs between two compilations", path, first[i].Type, first[i].Name)
			}
		}
	}
}
