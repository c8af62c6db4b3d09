package refusals_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"tollgate/xds/push/refusals"
	"tollgate/xds/release"
)

func TestRecord(t *testing.T) {
	var r refusals.Record
	r.Add(release.TypeRoute, "http", "1", "no")
	for name, other := range map[string][3]string{
		"another version": {release.TypeRoute, "http", "2"},
		"another name":    {release.TypeRoute, "https", "1"},
		"another type":    {release.TypeListener, "http", "1"},
	} {
		if _, refused := r.Has(other[0], other[1], other[2]); refused {
			t.Error(name)
		}
	}
	if why, refused := r.Has(release.TypeRoute, "http", "1"); !refused || why != "no" {
		t.Fatalf("%q %v", why, refused)
	}
	r.Forget()
	if _, refused := r.Has(release.TypeRoute, "http", "1"); refused {
		t.Fatal("not forgotten")
	}
}

// TestRecordIsBounded: one that refuses everything fills no memory.
func TestRecordIsBounded(t *testing.T) {
	var r refusals.Record
	for i := range 100_001 {
		r.Add(release.TypeRoute, "http", fmt.Sprint(i), "no")
		r.Doubt(&release.Resource{Type: release.TypeRoute, Name: fmt.Sprint(i)})
	}
	n := 0
	for i := range 100_001 {
		if _, refused := r.Has(release.TypeRoute, "http", fmt.Sprint(i)); refused {
			n++
		}
	}
	if n > 100_000 || len(r.Doubts(release.TypeRoute)) > 100_000 {
		t.Fatalf("%d refusals and %d doubts are kept", n, len(r.Doubts(release.TypeRoute)))
	}
	if _, refused := r.Has(release.TypeRoute, "http", "100000"); !refused {
		t.Fatal("the newest is not among them")
	}
}

// TestArchive: a record goes to one later stream of the same client, within its
// time.
func TestArchive(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	made := func() (r refusals.Record) {
		r.Add(release.TypeRoute, "http", "1", "no")
		return r
	}
	has := func(r refusals.Record) bool {
		_, refused := r.Has(release.TypeRoute, "http", "1")
		return refused
	}
	var a refusals.Archive
	if has(a.Take("edge-1", start)) {
		t.Fatal("of nobody")
	}
	a.Keep("edge-1", made(), start)
	if has(a.Take("edge-2", start)) {
		t.Fatal("of another")
	}
	if !has(a.Take("edge-1", start.Add(10*time.Minute))) || has(a.Take("edge-1", start)) {
		t.Fatal("not once")
	}
	a.Keep("edge-1", made(), start)
	if has(a.Take("edge-1", start.Add(10*time.Minute+time.Second))) {
		t.Fatal("never forgotten")
	}
	a.Keep("edge-1", made(), start)
	a.Keep("edge-1", refusals.Record{}, start)
	if has(a.Take("edge-1", start)) {
		t.Fatal("the newer stream refused nothing")
	}
	a.Keep("edge-1", made(), start)
	a.Drop("edge-1")
	if has(a.Take("edge-1", start)) {
		t.Fatal("dropped and still there")
	}
	for i := range 20_000 {
		a.Keep(fmt.Sprint(i), made(), start)
	}
	if a.Len() > 10_000 {
		t.Fatalf("%d clients are kept", a.Len())
	}
	a.Forget(start.Add(11 * time.Minute))
	if a.Len() != 0 {
		t.Fatalf("%d clients are kept for ever", a.Len())
	}
}

func TestDoubt(t *testing.T) {
	var r refusals.Record
	a, b := &release.Resource{Type: release.TypeCluster, Name: "a", Version: "1"}, &release.Resource{Type: release.TypeCluster, Name: "b"}
	other := &release.Resource{Type: release.TypeListener, Name: "l"}
	r.Doubt(a)
	r.Doubt(b)
	r.Doubt(other)
	names := r.Doubts(release.TypeCluster)
	if slices.Sort(names); !slices.Equal(names, []string{"a", "b"}) {
		t.Fatalf("doubts %v", names)
	}
	r.Trust(&release.Resource{Type: release.TypeCluster, Name: "a", Version: "2"}) // whatever its version
	if got := r.Doubts(release.TypeCluster); !slices.Equal(got, []string{"b"}) {
		t.Fatalf("doubts %v", got)
	}
}
