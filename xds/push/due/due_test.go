package due_test

import (
	"fmt"
	"slices"
	"testing"

	"tollgate/xds/push/due"
)

func TestNames(t *testing.T) {
	var d due.Names
	if d.Any() {
		t.Fatal("something is due")
	}
	d.Add("c")
	d.All(map[string]struct{}{"a": {}, "c": {}})
	if got := d.Take([]string{"b", "c"}); d.Any() || !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Fatalf("took %v", got)
	}
	if got := d.Take(nil); len(got) != 0 {
		t.Fatalf("took %v again", got)
	}
}

// TestBounded: who takes nothing for long, while the same changes, keeps little.
func TestBounded(t *testing.T) {
	var d due.Names
	for i := range 100_000 {
		d.Add(fmt.Sprint(i % 10))
	}
	if got := d.Take(nil); len(got) != 10 || cap(got) > 1_000 {
		t.Fatalf("%d names in %d", len(got), cap(got))
	}
}
