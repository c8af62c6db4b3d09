package ledger_test

import (
	"strings"
	"testing"
	"time"

	"tollgate/xds/ledger"
	"tollgate/xds/release"
)

// TestFollows: a proxy follows when it answered on a stream that is open, for
// both listeners and routes, and for these sources.
func TestFollows(t *testing.T) {
	at := func(a *ledger.Account, url, revision string) {
		a.Waits(url, time.Time{})
		if revision != "" {
			a.Reached(url, revision)
		}
	}
	cases := []struct {
		name string
		do   func(l *ledger.Ledger, c *clock)
		want string // "": it follows
	}{
		{"nobody came", func(*ledger.Ledger, *clock) {}, "not connected"},
		{"another node", func(l *ledger.Ledger, _ *clock) {
			a := l.Open("edge-2", "")
			at(a, release.TypeListener, "r1")
			at(a, release.TypeRoute, "r1")
		}, "not connected"},
		{"it left", func(l *ledger.Ledger, _ *clock) {
			a := l.Open("edge", "")
			at(a, release.TypeListener, "r1")
			at(a, release.TypeRoute, "r1")
			a.Close()
		}, "not connected"},
		{"it asked for clusters only", func(l *ledger.Ledger, _ *clock) { at(l.Open("edge", ""), release.TypeCluster, "r1") }, "listeners"},
		{"listeners are on their way", func(l *ledger.Ledger, c *clock) {
			a := l.Open("edge", "")
			a.Waits(release.TypeListener, c.t)
			at(a, release.TypeRoute, "r1")
		}, "listeners"},
		{"routes were not asked for", func(l *ledger.Ledger, _ *clock) { at(l.Open("edge", ""), release.TypeListener, "r1") }, "routes"},
		{"routes are on their way", func(l *ledger.Ledger, c *clock) {
			a := l.Open("edge", "")
			at(a, release.TypeListener, "r1")
			a.Waits(release.TypeRoute, c.t)
		}, "routes"},
		{"routes of older sources", func(l *ledger.Ledger, _ *clock) {
			a := l.Open("edge", "")
			at(a, release.TypeListener, "r1")
			at(a, release.TypeRoute, "r0")
		}, "routes"},
		{"both", func(l *ledger.Ledger, _ *clock) {
			a := l.Open("edge", "")
			at(a, release.TypeListener, "r1")
			at(a, release.TypeRoute, "r1")
		}, ""},
		{"both, beside a stream that lags", func(l *ledger.Ledger, c *clock) {
			l.Open("edge", "").Waits(release.TypeListener, c.t)
			a := l.Open("edge", "")
			at(a, release.TypeListener, "r1")
			at(a, release.TypeRoute, "r1")
		}, ""},
		{"routes refused", func(l *ledger.Ledger, _ *clock) {
			a := l.Open("edge", "")
			at(a, release.TypeListener, "r1")
			a.Refused(release.TypeRoute, "no", nil)
		}, ""},
		{"listeners refused", func(l *ledger.Ledger, _ *clock) { l.Open("edge", "").Refused(release.TypeListener, "no", nil) }, ""},
		{"a route waits for a cluster that warms", func(l *ledger.Ledger, c *clock) {
			a := l.Open("edge", "")
			at(a, release.TypeListener, "r1")
			at(a, release.TypeRoute, "")
			a.Waits(release.TypeCluster, c.t.Add(-2*time.Second))
		}, ""},
		{"a route waits for an authorization server", func(l *ledger.Ledger, _ *clock) {
			a := l.Open("edge", "")
			at(a, release.TypeListener, "r1")
			at(a, release.TypeRoute, "")
			at(a, release.TypeCluster, "r1")
		}, "routes"},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			l, c := newLedger()
			test.do(l, c)
			err := l.Follows("edge", "r1")
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if got, want := l.Connected("edge"), test.want != "not connected"; got != want {
				t.Errorf("connected: %v", got)
			}
		})
	}
}
