package refusals_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"tollgate/xds/push/refusals"
)

func TestBlames(t *testing.T) {
	for _, c := range []struct {
		why, name string
		want      bool
	}{
		{"Error adding/updating cluster(s) bad: ring hash: minimum_ring_size (10) > maximum_ring_size (5)", "bad", true},
		{"Error adding/updating cluster(s) bad: Invalid path: /nope.pem, worse: The table size of maglev must be prime number", "worse", true},
		{"Error adding/updating cluster(s) bad: The table size of maglev must be prime number", "maglev", false},
		{"Error adding/updating listener(s) http: cannot bind '127.0.0.1:21000': Address already in use", "http", true},
		{"missing ]: [a", "a", false},
		{"Invalid duration: Expected positive duration: goo.gle/debugproto seconds: -1", "duration", false},
		{"", "a", false},
	} {
		if got := refusals.Blames(c.why, c.name); got != c.want {
			t.Errorf("%q blames %q: %v", c.why, c.name, got)
		}
	}
}

func TestClip(t *testing.T) {
	if got := refusals.Clip(strings.Repeat("ü", 1000)); len(got) > 310 || !utf8.ValidString(got) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	if got := refusals.Clip("short"); got != "short" {
		t.Error(got)
	}
}
