package secretfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"tollgate/internal/secretfile"
)

// TestManyStartAtOnce: whoever comes second, at whatever moment, has the
// first's secret: a process with one of its own is refused by all others for
// its whole life.
func TestManyStartAtOnce(t *testing.T) {
	for round := range 20 {
		path := filepath.Join(t.TempDir(), "made", "secret")
		const processes = 16
		got := make([][]byte, processes)
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for i := range processes {
			wg.Go(func() {
				<-begin
				var err error
				got[i], err = secretfile.LoadOrCreate(path, func() ([]byte, error) { return fmt.Appendf(nil, "secret of %d", i), nil })
				if err != nil {
					t.Error(err)
				}
			})
		}
		close(begin)
		wg.Wait()
		for i := range got {
			if !bytes.Equal(got[i], got[0]) || len(got[i]) == 0 {
				t.Fatalf("round %d: %q and %q", round, got[0], got[i])
			}
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%v %v", info.Mode(), err)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) != 0 {
			t.Fatalf("left behind: %v", left)
		}
	}
}

func TestWhatIsThereStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := secretfile.LoadOrCreate(path, func() ([]byte, error) { return nil, errors.New("not asked for") })
	if err != nil || string(got) != "mine" {
		t.Fatalf("%q %v", got, err)
	}
}

func TestWhatCannotBeMadeIsAnError(t *testing.T) {
	folder := t.TempDir()
	if _, err := secretfile.LoadOrCreate(filepath.Join(folder, "a"), func() ([]byte, error) { return nil, errors.New("no luck") }); err == nil {
		t.Error("no error")
	}
	if left, _ := os.ReadDir(folder); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := secretfile.LoadOrCreate(folder, nil); err == nil {
		t.Error("a folder is no secret")
	}
}

// TestWrite: what stands there already is left alone, so that a full disk keeps
// nobody from starting; anything else is replaced whole.
func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	inode := func() os.FileInfo {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	for _, c := range []struct {
		data string
		mode os.FileMode
		same bool
	}{{"a", 0o600, false}, {"a", 0o600, true}, {"b", 0o600, false}, {"b", 0o600, true}} {
		var before os.FileInfo
		if _, err := os.Stat(path); err == nil {
			before = inode()
		}
		if err := secretfile.Write(path, []byte(c.data), c.mode); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != c.data || inode().Mode().Perm() != c.mode {
			t.Errorf("%v: %q %v %v", c, got, inode().Mode(), err)
		}
		if before != nil && os.SameFile(before, inode()) != c.same {
			t.Errorf("%v: left alone: %t", c, !c.same)
		}
	}
}
