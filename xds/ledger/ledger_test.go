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
	a := l.Open("edge-1", "")
	a.Waits(release.TypeCluster, c.t)
	want(ledger.Pending)
	c.pass(1100 * time.Millisecond)
	want(ledger.Warming)
	a.Waits(release.TypeCluster, time.Time{})
	want(ledger.Synced)
	a.Refused(release.TypeCluster, "no", []ledger.Refusal{{Resource: "a"}})
	want(ledger.Refused)
	if got := l.Refusals("edge-1"); len(got) != 1 || got[0] != `cluster "a"` {
		t.Errorf("refused %q", got)
	}
	if got := l.Refusals("edge-2"); len(got) != 0 {
		t.Errorf("nobody refused %q", got)
	}
	a.Waits(release.TypeCluster, c.t)
	want(ledger.Refused)
	a.Settled(release.TypeCluster, []string{"a"})
	want(ledger.Pending)
	a.Waits(release.TypeCluster, time.Time{})
	want(ledger.Synced)
	a.Close()
	want(ledger.Gone)
	c.pass(61 * time.Second)
	if lines := l.Lines(); len(lines) != 0 {
		t.Fatalf("kept beyond a minute: %+v", lines)
	}
}

// TestOverdue: an answer that does not come is a fault after 5 s.
func TestOverdue(t *testing.T) {
	l, c := newLedger()
	a := l.Open("edge-1", "")
	a.Waits(release.TypeEndpoint, c.t)
	a.Waits(release.TypeCluster, c.t)
	c.pass(ledger.Overdue)
	if f := l.Faults(); len(f) != 0 {
		t.Fatalf("too early: %q", f)
	}
	c.pass(time.Millisecond)
	for _, line := range l.Lines() {
		if !line.Late(c.t) {
			t.Errorf("%+v", line)
		}
	}
	f := l.Faults()
	if len(f) != 2 || f[0] != "edge-1 has not answered for its cluster since 2027-01-15T08:00:00Z (WARMING)" || f[1] != "edge-1 has not answered for its clusterloadassignment since 2027-01-15T08:00:00Z (PENDING)" {
		t.Fatalf("got %q", f)
	}
	a.Close()
	if f := l.Faults(); len(f) != 0 {
		t.Fatalf("of who is gone: %q", f)
	}
}

// TestStreamsOfOneClient: two that call themselves alike are told apart, and one
// that leaves does not make the other look gone.
func TestStreamsOfOneClient(t *testing.T) {
	l, c := newLedger()
	first, second := l.Open("edge", "uid 0"), l.Open("edge", "uid 0")
	first.Reached(release.TypeCluster, "new")
	second.Refused(release.TypeCluster, "no", nil)
	lines := l.Lines()
	if len(lines) != 2 || lines[0].Stream != 1 || lines[0].Streams != 2 || lines[0].State != ledger.Synced || lines[1].Stream != 2 || lines[1].State != ledger.Refused {
		t.Fatalf("got %+v", lines)
	}
	second.Close()
	if line := only(t, l); line.State != ledger.Synced || line.Streams != 0 {
		t.Fatalf("one left: %+v", line)
	}
	third := l.Open("edge", "uid 0") // it comes back before the first is known to be gone
	third.Reached(release.TypeCluster, "new")
	first.Close()
	if line := only(t, l); line.State != ledger.Synced || line.Streams != 0 {
		t.Fatalf("a reconnect that overlaps: %+v", line)
	}
	third.Close()
	if line := only(t, l); line.State != ledger.Gone || line.Revision != "new" {
		t.Fatalf("all left: %+v", line)
	}
	c.pass(30 * time.Second)
	other := l.Open("edge", "somebody else")
	other.Reached(release.TypeCluster, "new")
	if lines := l.Lines(); len(lines) != 2 {
		t.Fatalf("another identity of that name: %+v", lines)
	}
}

func TestWordsAreCutAndFreeOfSecrets(t *testing.T) {
	for name, c := range map[string]struct{ why, want string }{
		"plain": {"missing ]: [a", "missing ]: [a"},
		"lines": {"a\n  b", "a b"},
		"pem":   {"bad key -----BEGIN PRIVATE KEY-----\nMIIsecret", "bad key …"},
		"dump":  {"Invalid duration: goo.gle/debugproto seconds: -1 secret", "Invalid duration: …"},
		"ansi":  {"\x1b[2Jgone\a", `\x1b[2Jgone\a`},
		"bidi":  {"a\u202eb", `a\u202eb`},
		"bytes": {"a\xffb", `a\ufffdb`},
		"long":  {strings.Repeat("x", 500), strings.Repeat("x", 200) + "…"},
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := newLedger()
			l.Open("n", "").Refused(release.TypeSecret, c.why, []ledger.Refusal{{Resource: "s"}})
			if got := only(t, l).Refusals[0].Why; got != c.want {
				t.Fatalf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestNamesArePrintable: a node may call itself anything.
func TestNamesArePrintable(t *testing.T) {
	l, _ := newLedger()
	l.Open("n\x1b[2J", "i\r").Refused(release.TypeCluster, "no", []ledger.Refusal{{Resource: "c\n", Pos: "f\t:1:1"}})
	line := only(t, l)
	if line.Node != `n\x1b[2J` || line.Identity != `i\r` || line.Refusals[0].Resource != `c\n` || line.Refusals[0].Pos != `f\t:1:1` {
		t.Fatalf("%+v", line)
	}
}

func TestRefusalsAreBounded(t *testing.T) {
	l, _ := newLedger()
	a := l.Open("n", "")
	for i := range 1000 {
		a.Refused(release.TypeCluster, "no", []ledger.Refusal{{Resource: strings.Repeat("c", i+1)}})
	}
	if n := len(only(t, l).Refusals); n > 20 {
		t.Fatalf("%d refusals kept", n)
	}
}

// TestRefusalIsHistory: what is in force or not wanted any more is no refusal.
func TestRefusalIsHistory(t *testing.T) {
	l, _ := newLedger()
	a := l.Open("n", "")
	a.Settled(release.TypeCluster, []string{"a"}) // of nothing
	a.Refused(release.TypeCluster, "no", []ledger.Refusal{{Resource: "a", Pos: "gateway.yaml:3:5"}, {Resource: "b"}})
	a.Settled(release.TypeCluster, []string{"b", "c"})
	if line := only(t, l); line.State != ledger.Refused || len(line.Refusals) != 1 || line.Refusals[0].Resource != "a" {
		t.Fatalf("got %+v", line)
	}
	if f := l.Faults(); len(f) != 1 || f[0] != `gateway.yaml:3:5: n refused cluster "a" and serves its last good one: no` {
		t.Fatalf("%q", f)
	}
	a.Settled(release.TypeCluster, []string{"a"})
	if line := only(t, l); line.State != ledger.Synced || line.Refusals != nil {
		t.Fatalf("got %+v", line)
	}
}

// TestNoLedger: without one, nothing is kept and nothing breaks.
func TestNoLedger(t *testing.T) {
	var l *ledger.Ledger
	a := l.Open("n", "")
	a.Refused("t", "no", nil)
	a.Settled("t", nil)
	a.Waits("t", time.Now())
	a.Reached("t", "r")
	a.Close()
}
