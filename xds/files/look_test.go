package files_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/xds/files"
)

// dated writes a file and gives it a date, as tools do that keep dates.
func dated(t *testing.T, path, text string, date time.Time) {
	t.Helper()
	write(t, path, text)
	if err := os.Chtimes(path, date, date); err != nil {
		t.Fatal(err)
	}
}

// TestReadsWhatChanged: of a folder, a file is read when it is new or may be
// another, and else only looked at.
func TestReadsWhatChanged(t *testing.T) {
	dir := t.TempDir()
	const size, n = 200_000, 20
	text := func(i int, edition string) string {
		return fmt.Sprintf("version: 1 # %02d %s ", i, edition) + strings.Repeat("x", size)
	}
	path := func(i int) string { return filepath.Join(dir, fmt.Sprintf("%02d.yaml", i)) }
	for i := range n {
		write(t, path(i), text(i, "a"))
	}
	time.Sleep(3100 * time.Millisecond) // until dates can be trusted
	set, err := files.New([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	want := make([]string, n)
	for i := range want {
		want[i] = "a"
	}
	date := time.Now().Add(-time.Hour)
	for _, step := range []struct {
		name  string
		do    func()
		files int // that may be read
	}{
		{"first", func() {}, n},
		{"nothing", func() {}, 0},
		{"one edited", func() { write(t, path(3), text(3, "b")); want[3] = "b" }, 1},
		{"again, at once, of the same size", func() { write(t, path(3), text(3, "c")); want[3] = "c" }, 1},
		{"renamed over", func() {
			dated(t, path(4)+".tmp", text(4, "d"), date)
			if err := os.Rename(path(4)+".tmp", path(4)); err != nil {
				t.Fatal(err)
			}
			want[4] = "d"
		}, 2}, // and the one before, whose date is young
		{"in place, with the date it had", func() { dated(t, path(5), text(5, "e"), date); want[5] = "e" }, 3},
		{"again so", func() { dated(t, path(5), text(5, "f"), date); want[5] = "f" }, 3},
	} {
		step.do()
		before := bytesRead(t)
		reading, err := set.Read()
		if err != nil {
			t.Fatal(err)
		}
		if read := bytesRead(t) - before; read > step.files*(size+1000)+20_000 {
			t.Errorf("%s: read %d bytes, as of %d files", step.name, read, read/size)
		}
		for i, s := range reading.Sources {
			if string(s.Data) != text(i, want[i]) {
				t.Errorf("%s: %s is read as %.30q", step.name, s.Name, s.Data)
			}
		}
	}
	if err := os.Remove(path(0)); err != nil {
		t.Fatal(err)
	}
	if reading, err := set.Read(); err != nil || len(reading.Sources) != n-1 {
		t.Errorf("a file less: %v", err)
	}
}
