package ledger_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"tollgate/xds/ledger"
	"tollgate/xds/release"
)

// TestFewEventsCostLittle: a stream of which little is known holds little.
func TestFewEventsCostLittle(t *testing.T) {
	l := ledger.New(time.Now)
	var before, after runtime.MemStats
	const streams = 1_000
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range streams {
		l.Open(fmt.Sprint(i), "").Note(ledger.Event{What: ledger.Sent})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / streams; each > 2_000 {
		t.Errorf("%d bytes a stream", each)
	}
	runtime.KeepAlive(l)
}

// TestEvents: the last 64 of each stream are kept, in order, and nothing in them
// is a secret or moves a cursor.
func TestEvents(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	l := ledger.New(func() time.Time { now = now.Add(time.Second); return now })
	one, other := l.Open("edge", ""), l.Open("edge", "")
	l.Open("elsewhere", "").Note(ledger.Event{What: ledger.Sent})
	for i := range 100 {
		one.Note(ledger.Event{Type: release.TypeCluster, What: ledger.Sent, Resource: fmt.Sprint(i), Resources: 1})
	}
	other.Note(ledger.Event{
		Type: release.TypeRoute, What: ledger.Denied, Resource: "a\x1b[2J", Took: time.Millisecond, Why: "no \x1b[2J -----BEGIN PRIVATE KEY-----",
	})
	events := l.Events("edge")
	if len(events) != 65 {
		t.Fatalf("%d events", len(events))
	}
	for i, e := range events[:64] {
		if e.Resource != fmt.Sprint(36+i) || e.Type != "cluster" || e.Stream != 1 || i > 0 && !e.At.After(events[i-1].At) {
			t.Fatalf("event %d: %+v", i, e)
		}
	}
	last := events[64]
	if last.Stream != 2 || last.Type != "routeconfiguration" || last.Took != time.Millisecond || strings.ContainsAny(last.Why+last.Resource, "\x1b") || strings.Contains(last.Why, "KEY") {
		t.Fatalf("%+v", last)
	}
	if got := l.Events("nobody"); len(got) != 0 {
		t.Fatalf("of nobody: %v", got)
	}
	var none *ledger.Account
	none.Note(ledger.Event{})
}
