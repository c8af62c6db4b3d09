package discovery_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"tollgate/xds/discovery"
)

func networks(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range list {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// TestPlaces: where a service may say that it is, whatever it is written as.
func TestPlaces(t *testing.T) {
	fleet := discovery.Places{
		Default: discovery.Private,
		Allowed: func(service string) []netip.Prefix {
			switch discovery.ServiceOf(service) {
			case "edge-of-town":
				return networks("203.0.113.0/24", "2001:db8::/32")
			case "anywhere": // a file may say so; some places are still nobody's
				return networks("0.0.0.0/0", "::/0")
			}
			return nil
		},
		Parts: func() []netip.AddrPort {
			return []netip.AddrPort{
				netip.MustParseAddrPort("10.0.0.5:9001"), netip.MustParseAddrPort("[::ffff:10.0.0.6]:8081"),
				netip.MustParseAddrPort("0.0.0.0:8080"), netip.MustParseAddrPort("[::]:8443"), netip.MustParseAddrPort("127.0.0.1:9900"),
			}
		},
	}
	box := fleet
	box.Default = discovery.Machine
	for _, c := range []struct {
		places           discovery.Places
		service, address string
		says             string // "": taken
	}{
		{fleet, "order", "10.1.2.3:80", ""},
		{fleet, "order", "172.31.255.255:80", ""},
		{fleet, "order", "192.168.0.1:80", ""},
		{fleet, "order", "[fd12::1]:80", ""},
		{fleet, "order", "[::ffff:10.1.2.3]:80", ""},
		{fleet, "order", "172.32.0.1:80", "no network where order may be"},
		{fleet, "order", "127.0.0.1:80", "no network"},
		{fleet, "order", "[::ffff:127.0.0.1]:80", "no network"},
		{fleet, "order", "[::1]:80", "no network"},
		{fleet, "order", "8.8.8.8:80", "no network"},
		{fleet, "order", "203.0.113.9:80", "no network"},
		{fleet, "edge-of-town", "203.0.113.9:80", ""},
		{fleet, "edge-of-town-grpc", "203.0.113.9:80", ""},
		{fleet, "edge-of-town", "[2001:db8::9]:80", ""},
		{fleet, "edge-of-town", "203.0.114.9:80", "discovery.allow"},
		{fleet, "edge-of-town", "10.1.2.3:80", "no network"}, // what is written replaces the default
		{box, "order", "127.0.0.1:80", ""},
		{box, "order", "[::1]:80", ""},
		{box, "order", "10.255.255.254:80", "no network"},
		// Nobody's, also where the file allows everything.
		{fleet, "anywhere", "169.254.169.254:80", "link-local"},
		{fleet, "anywhere", "[::ffff:169.254.169.254]:80", "link-local"},
		{fleet, "anywhere", "[fe80::1]:80", "link-local"},
		{fleet, "anywhere", "0.0.0.0:80", "unspecified"},
		{fleet, "anywhere", "0.1.2.3:80", "unspecified"},
		{fleet, "anywhere", "[::]:80", "unspecified"},
		{fleet, "anywhere", "[::ffff:0.0.0.0]:80", "unspecified"},
		{fleet, "anywhere", "255.255.255.255:80", "broadcast"},
		{fleet, "anywhere", "240.0.0.1:80", "broadcast or reserved"},
		{fleet, "anywhere", "239.1.1.1:80", "multicast"},
		{fleet, "anywhere", "[ff02::1]:80", "multicast"},
		{fleet, "anywhere", "100.100.100.200:80", "secrets"},
		{fleet, "anywhere", "168.63.129.16:80", "secrets"},
		{fleet, "anywhere", "192.0.0.192:80", "secrets"},
		{fleet, "order", "[fd00:ec2::254]:80", "secrets"},
		{fleet, "order", "[fd20:ce::254]:80", "secrets"},
		{fleet, "anywhere", "[64:ff9b::a9fe:a9fe]:80", "clothes of IPv6"},
		{fleet, "anywhere", "[64:ff9b:1::a9fe:a9fe]:80", "clothes of IPv6"},
		{fleet, "anywhere", "[2002:a9fe:a9fe::1]:80", "clothes of IPv6"},
		{fleet, "anywhere", "[::169.254.169.254]:80", "clothes of IPv6"},
		{fleet, "anywhere", "[::1]:80", ""},
		// Our own parts.
		{fleet, "order", "10.0.0.5:9001", "gateway itself"},
		{fleet, "order", "[::ffff:10.0.0.5]:9001", "gateway itself"},
		{fleet, "order", "10.0.0.6:8081", "gateway itself"},
		{fleet, "order", "10.0.0.5:9002", ""},
		{box, "order", "127.0.0.1:9900", "gateway itself"},
		{box, "order", "127.0.0.1:8080", "gateway itself"},
		{box, "order", "127.0.0.2:8080", "gateway itself"},
		{box, "order", "[::1]:8443", "gateway itself"},
		{fleet, "anywhere", "203.0.113.1:8080", ""}, // another machine's port of the same number
		// What is no address of one process.
		{fleet, "anywhere", "metadata.google.internal:80", "IP address and port"},
		{fleet, "anywhere", "127.1:80", "IP address and port"},
		{fleet, "anywhere", "0x7f000001:80", "IP address and port"},
		{fleet, "anywhere", "010.0.0.1:80", "IP address and port"},
		{fleet, "anywhere", "10.0.0.1:00", "IP address and port"},
		{fleet, "anywhere", "10.0.0.1", "IP address and port"},
		{fleet, "anywhere", "unix:/run/docker.sock", "IP address and port"},
		{fleet, "anywhere", "[fe80::1%1]:80", "IP address and port"},
	} {
		r := discovery.NewRegistry(time.Now)
		r.Judge(c.places)
		err := r.Put(c.service, "1", discovery.Registration{Address: c.address})
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s at %s: %v, want %q", c.service, c.address, err, c.says)
		}
		if n := len(r.Snapshot()); (n == 0) == (err == nil) {
			t.Errorf("%s at %s: %d services are kept beside %v", c.service, c.address, n, err)
		}
	}
}

// TestPlacesChange: an address that a new gateway file takes from a service, or
// that one of our listeners moves to, takes its instances along.
func TestPlacesChange(t *testing.T) {
	r := discovery.NewRegistry(time.Now)
	r.Judge(discovery.Places{Default: discovery.Private})
	for id, address := range map[string]string{"a": "10.0.0.1:80", "b": "10.0.0.2:80", "c": "192.168.0.1:80"} {
		if err := r.Put("order", id, discovery.Registration{Address: address}); err != nil {
			t.Fatal(err)
		}
	}
	<-r.Changed()
	r.Judge(discovery.Places{
		Allowed: func(string) []netip.Prefix { return networks("10.0.0.0/8") },
		Parts:   func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:80")} },
	})
	if got := r.Snapshot()["order"]; len(got) != 1 || got[0].ID != "a" {
		t.Errorf("%+v are left, want a", got)
	}
	select {
	case <-r.Changed():
	default:
		t.Error("nobody is told")
	}
}

// TestAnothersAddress: a service cannot put itself before another, by whatever
// name; who really moved, died or left is in nobody's way.
func TestAnothersAddress(t *testing.T) {
	r := discovery.NewRegistry(time.Now)
	put := func(service, id, address string, taken bool) {
		t.Helper()
		err := r.Put(service, id, discovery.Registration{Address: address})
		if (err == nil) != taken {
			t.Errorf("%s/%s at %s: %v", service, id, address, err)
		}
		if err != nil && !strings.Contains(err.Error(), "where the service order is") {
			t.Error(err)
		}
	}
	put("order", "1", "10.0.0.1:80", true)
	put("evil", "1", "10.0.0.1:80", false)
	put("evil", "1", "[::ffff:10.0.0.1]:80", false)
	put("evil-grpc", "1", "10.0.0.1:80", false)
	put("evil", "1", "10.0.0.9:80", true)
	put("evil", "1", "10.0.0.1:80", false) // by moving there
	if at := r.Snapshot()["evil"][0].Address.String(); at != "10.0.0.9:80" {
		t.Errorf("a move that was refused moved it to %s", at)
	}
	put("order-grpc", "1", "10.0.0.1:80", true)
	put("order", "2", "10.0.0.1:80", true) // the same process under a new name
	put("order", "1", "10.0.0.1:80", true)
	r.Delete("order", "1")
	r.Delete("order", "1")
	put("evil", "1", "10.0.0.1:80", false)
	put("order", "2", "10.0.0.2:80", true)
	put("evil", "1", "10.0.0.1:80", false)
	r.Delete("order-grpc", "1")
	put("evil", "1", "10.0.0.1:80", true) // nobody is there any more
	put("evil", "1", "10.0.0.2:80", false)
}

// TestLeave: a service that leaves takes its half that speaks gRPC along, and
// nobody else's.
func TestLeave(t *testing.T) {
	r := discovery.NewRegistry(time.Now)
	for i, service := range []string{"order", "order-grpc", "order2", "user"} {
		if err := r.Put(service, "1", discovery.Registration{Address: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(80+i)).String(), TTL: 300}); err != nil {
			t.Fatal(err)
		}
	}
	<-r.Changed()
	r.Leave("order", time.Now())
	r.Leave("nobody", time.Now())
	r.Leave("user", time.Now().Add(-time.Minute)) // it was heard since
	left := r.Snapshot()
	if len(left["order"])+len(left["order-grpc"]) != 0 || len(left["order2"]) != 1 || len(left["user"]) != 1 {
		t.Errorf("%v are left", left)
	}
	select {
	case <-r.Changed():
	default:
		t.Error("nobody is told")
	}
	if err := r.Put("user", "2", discovery.Registration{Address: "10.0.0.1:80"}); err != nil {
		t.Errorf("its address is not free: %v", err)
	}
}
