package main

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"tollgate/xds/admin"
	"tollgate/xds/discovery"
	"tollgate/xds/ledger"
	"tollgate/xds/release"
)

// TestResendSaysWhatItDid: what was refused is named, what was not is not
// claimed, and a refusal is a sentence.
func TestResendSaysWhatItDid(t *testing.T) {
	plane := func(connected ...string) string {
		book := ledger.New(time.Now)
		for _, node := range connected {
			account := book.Open(node, "")
			if node == "bad" {
				account.Refused(release.TypeListener, "no", []ledger.Refusal{{Resource: "http\x1b[2J"}})
				account.Refused(release.TypeCluster, "no", []ledger.Refusal{{}})
			} else {
				account.Waits(release.TypeListener, time.Time{})
			}
		}
		server := httptest.NewServer(admin.New(admin.Config{Ledger: book, Registry: discovery.NewRegistry(time.Now), Now: time.Now, Resend: func(node string) (n int) {
			for _, one := range connected {
				if one == node {
					n++
				}
			}
			return n
		}}))
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "http://")
	}
	a, b := plane("bad", "good"), plane("good")
	const nobody = ": no such node is connected: `tollgate status` lists those that are\n"
	for name, c := range map[string]struct {
		node, at string
		code     int
		says     string
	}{
		"it refused":             {"bad", a, exitDone, a + `: "bad" is sent again cluster, listener "http` + `\\x1b[2J"` + ": `tollgate status` says what it makes of it\n"},
		"it refused nothing":     {"good", a, exitDone, a + `: "good" had refused nothing: it is sent again only what it has not answered for` + "\n"},
		"nobody knows it":        {"none", a, exitFailed, a + nobody},
		"one of two knows it":    {"bad", b + "," + a, exitDone, a + `: "bad" is sent again cluster, `},
		"none of two knows it":   {"none", b + "," + a, exitFailed, b + nobody + a + nobody},
		"what is no node at all": {"\x1b[2J", a, exitFailed, a + nobody},
	} {
		code, stdout, stderr := tollgate(t, "resend", c.node, "--admin-address", c.at, "--data-dir", t.TempDir())
		if code != c.code || stdout != "" || !strings.HasPrefix(stderr, c.says) || strings.ContainsAny(stderr, "\x1b{") {
			t.Errorf("%s: exit %d\n%q, want\n%q", name, code, stderr, c.says)
		}
	}
}
