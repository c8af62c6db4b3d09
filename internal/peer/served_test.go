package peer_test

import (
	"net"
	"os"
	"slices"
	"testing"

	"tollgate/internal/peer"
)

// TestServedBy: whose process is behind a port is told, however it listens, also
// before it accepts and after it stopped listening.
func TestServedBy(t *testing.T) {
	for _, c := range []struct{ network, listen, dial string }{
		{"tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"tcp4", "127.9.8.7:0", "127.9.8.7"},
		{"tcp4", "0.0.0.0:0", "127.0.0.1"},
		{"tcp", "[::]:0", "127.0.0.1"},
		{"tcp6", "[::1]:0", "::1"},
		{"tcp", "[::]:0", "::1"},
	} {
		for _, user := range []int{os.Geteuid(), nobody} {
			var l net.Listener
			open := func() {
				var err error
				if l, err = net.Listen(c.network, c.listen); err != nil {
					t.Errorf("%s: %v", c.listen, err)
				}
			}
			if user == nobody {
				asNobody(t, open)
			} else {
				open()
			}
			if l == nil {
				continue
			}
			_, port, _ := net.SplitHostPort(l.Addr().String())
			client, err := net.Dial("tcp", net.JoinHostPort(c.dial, port))
			if err != nil {
				t.Fatal(err)
			}
			if got := peer.ServedBy(client); !slices.Equal(got, []int{user}) {
				t.Errorf("%s, not accepted: users %v, want %d", c.listen, got, user)
			}
			var server net.Conn
			accept := func() { server, err = l.Accept() }
			if user == nobody {
				asNobody(t, accept)
			} else {
				accept()
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = l.Close()
			if got := peer.ServedBy(client); !slices.Contains(got, user) {
				t.Errorf("%s, no more listening: users %v, want %d", c.listen, got, user)
			}
			_, _ = client.Close(), server.Close()
		}
	}
	one, two := net.Pipe()
	if got := peer.ServedBy(one); got != nil {
		t.Errorf("a pipe is served by %v", got)
	}
	_, _ = one.Close(), two.Close()
}
