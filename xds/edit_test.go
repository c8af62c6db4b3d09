package xds_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cpu is what this process has used, in milliseconds.
func cpu(b *testing.B) float64 {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return float64(time.Duration(used.Utime.Nano()+used.Stime.Nano()).Microseconds()) / 1e3
}

// BenchmarkEdit saves a gateway with one of its routes edited, all of them in one
// file or each in its own, until the release is published.
func BenchmarkEdit(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		for _, folder := range []bool{false, true} {
			name := map[bool]string{false: "file", true: "folder"}[folder]
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				path, edit := large(b, n, folder)
				out := follow(b, path, nobody{make(chan struct{})})
				for range 3 {
					edit()
					out.next(b)
				}
				b.ReportAllocs()
				used := cpu(b)
				for b.Loop() {
					edit()
					out.next(b)
				}
				b.ReportMetric((cpu(b)-used)/float64(b.N), "cpu-ms/op")
			})
		}
	}
}

// large writes a gateway of n routes and returns how to edit one of them.
func large(t testing.TB, n int, folder bool) (set string, edit func()) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "gateway.yaml")
	text := head() + "routes:\n"
	if folder {
		save(t, filepath.Join(dir, "a.yaml"), head())
		for i := range n {
			save(t, filepath.Join(dir, fmt.Sprintf("r%05d.yaml", i)), "version: 1\nroutes:\n"+routes(i, 1, "a"))
		}
		path = filepath.Join(dir, fmt.Sprintf("r%05d.yaml", n/2))
		text = "version: 1\nroutes:\n" + routes(n/2, 1, "a")
	} else {
		text += routes(0, n, "a")
		save(t, path, text)
	}
	edition := 0
	edit = func() {
		edition++
		edited := strings.Replace(text, fmt.Sprintf("r%d:a", n/2), fmt.Sprintf("r%d:b%d", n/2, edition), 1)
		save(t, path+".tmp", edited)
		if err := os.Rename(path+".tmp", path); err != nil {
			t.Fatal(err)
		}
	}
	if folder {
		return dir, edit
	}
	return path, edit
}
