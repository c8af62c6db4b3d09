package peer

import (
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// ServedBy returns the users of this machine whose processes listen at, or hold,
// the other end of a connection over TCP, as Linux tells them (proc_net(5)); none
// where another machine is there, or nobody tells. A port belongs to whoever
// takes it first, so who is about to show it a secret asks.
func ServedBy(c net.Conn) []int {
	server, client := addressOf(c.RemoteAddr()), addressOf(c.LocalAddr())
	if !server.IsValid() || !server.Addr().IsLoopback() && server.Addr() != client.Addr() {
		return nil
	}
	var users []int
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			const local, remote, state, user = 1, 2, 3, 7
			f := strings.Fields(line)
			if len(f) <= user {
				continue
			}
			listens := f[state] == "0A" && (f[local] == inTable(server, len(f[local])) || isAny(f[local], server.Port()))
			holds := f[local] == inTable(server, len(f[local])) && f[remote] == inTable(client, len(f[remote]))
			if uid, err := strconv.Atoi(f[user]); err == nil && (listens || holds) && !slices.Contains(users, uid) {
				users = append(users, uid)
			}
		}
	}
	return users
}

func addressOf(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := tcp.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap().WithZone(""), at.Port())
}

// inTable writes an address as a table does whose fields are so long: words of 32
// bits in the machine's order, then the port.
func inTable(a netip.AddrPort, long int) string {
	raw := a.Addr().AsSlice()
	if long > len("00000000:0000") {
		all := a.Addr().As16()
		raw = all[:]
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	return strings.ToUpper(hex.EncodeToString(raw)) + portInTable(a.Port())
}

func portInTable(port uint16) string {
	return ":" + strings.ToUpper(hex.EncodeToString(binary.BigEndian.AppendUint16(nil, port)))
}

// isAny says whether a field is the port on every interface.
func isAny(field string, port uint16) bool {
	address, _, _ := strings.Cut(field, ":")
	return strings.Trim(address, "0") == "" && strings.HasSuffix(field, portInTable(port))
}
