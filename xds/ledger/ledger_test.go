package ledger_test

import (
	"strings"
	"testing"
	"time"

	"tollgate/xds/ledger"
	"tollgate/xds/release"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time       { return c.t }
func (c *clock) pass(d time.Duration) { c.t = c.t.Add(d) }
func newLedger() (*ledger.Ledger, *clock) {
	c := &clock{t: time.Unix(1_800_000_000, 0)}
	return ledger.New(c.now), c
}

func only(t *testing.T, l *ledger.Ledger) ledger.Line {
	t.Helper()
	lines := l.Lines()
	if len(lines) != 1 {
		t.Fatalf("%d lines: %+v", len(lines), lines)
	}
	return lines[0]
}

func TestStates(t *testing.T) {
	l, c := newLedger()
	want := func(s ledger.State) {
		t.Helper()
		if got := only(t, l).State; got != s {
			t.Fatalf("state %s, want %s", got, s)
		}
	}
	l.Connected("edge-1", "")
	l.Sent("edge-1", release.TypeCluster, "v1", []string{"a"})
	want(ledger.Pending)
	c.pass(1100 * time.Millisecond)
	want(ledger.Warming)
	l.Acked("edge-1", release.TypeCluster)
	want(ledger.Synced)
	l.Sent("edge-1", release.TypeCluster, "v2", []string{"a"})
	l.Refused("edge-1", release.TypeCluster, []string{"a"}, "no")
	want(ledger.Refused)
	l.Sent("edge-1", release.TypeCluster, "v3", []string{"a"})
	l.Acked("edge-1", release.TypeCluster)
	want(ledger.Synced)
	l.Gone("edge-1")
	want(ledger.Gone)
	c.pass(11 * time.Minute)
	l.Connected("edge-2", "")
	l.Gone("edge-2")
	if lines := l.Lines(); len(lines) != 0 {
		t.Fatalf("kept beyond ten minutes: %+v", lines)
	}
}

func TestWordsAreCutAndFreeOfSecrets(t *testing.T) {
	for name, c := range map[string]struct{ why, want string }{
		"plain": {"missing ]: [a", "missing ]: [a"},
		"lines": {"a\n  b", "a b"},
		"pem":   {"bad key -----BEGIN PRIVATE KEY-----\nMIIsecret", "bad key …"},
		"dump":  {"Invalid duration: goo.gle/debugproto seconds: -1 secret", "Invalid duration: …"},
		"long":  {strings.Repeat("x", 500), strings.Repeat("x", 200) + "…"},
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := newLedger()
			l.Connected("n", "")
			l.Refused("n", release.TypeSecret, []string{"s"}, c.why)
			if got := only(t, l).Refusals[0].Why; got != c.want {
				t.Fatalf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestRefusalsAreBounded(t *testing.T) {
	l, _ := newLedger()
	for i := range 1000 {
		l.Refused("n", release.TypeCluster, []string{strings.Repeat("c", i+1)}, "no")
	}
	if n := len(only(t, l).Refusals); n > 20 {
		t.Fatalf("%d refusals kept", n)
	}
}

// TestRefusalIsHistory: what is in force or not wanted any more is no refusal.
func TestRefusalIsHistory(t *testing.T) {
	l, _ := newLedger()
	l.Settled("n", release.TypeCluster, []string{"a"}) // of nobody
	l.Connected("n", "")
	l.Sent("n", release.TypeCluster, "v1", []string{"a", "b"})
	l.Refused("n", release.TypeCluster, []string{"a", "b"}, "no")
	l.Settled("n", release.TypeCluster, []string{"b", "c"})
	if line := only(t, l); line.State != ledger.Refused || len(line.Refusals) != 1 || line.Refusals[0].Resource != "a" {
		t.Fatalf("got %+v", line)
	}
	l.Settled("n", release.TypeCluster, []string{"a"})
	if line := only(t, l); line.State != ledger.Synced || line.Refusals != nil {
		t.Fatalf("got %+v", line)
	}
}

// TestReconnect: answers to an earlier stream never come, refusals stay.
func TestReconnect(t *testing.T) {
	l, c := newLedger()
	l.Connected("n", "")
	l.Sent("n", release.TypeCluster, "v1", []string{"a"})
	l.Refused("n", release.TypeCluster, []string{"a"}, "no")
	l.Sent("n", release.TypeListener, "v1", nil)
	l.Gone("n")
	c.pass(time.Minute)
	l.Connected("n", "")
	lines := l.Lines()
	if len(lines) != 2 || lines[0].State != ledger.Refused || lines[1].State != ledger.Synced {
		t.Fatalf("got %+v", lines)
	}
	l.Acked("n", release.TypeListener) // one too many is no harm
	l.Sent("n", release.TypeListener, "v2", nil)
	if line := l.Lines()[1]; line.State != ledger.Pending || line.Config != "v2" {
		t.Fatalf("got %+v", line)
	}
}
