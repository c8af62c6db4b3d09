package peer

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"tollgate/api/contract"
	"tollgate/internal/daemon"
)

// maxPath is what every Unix has room for in the name of a socket, in bytes
// (sockaddr_un: 104 on BSD and macOS, 108 on Linux, the end mark included).
const maxPath = 104

// Address is where something listens: host:port, or the path of a socket. The
// zero Address is none.
type Address struct {
	Host string // name or IP address, brackets removed; "" on every interface
	Port uint16
	Path string // absolute, of a Unix socket; then Host and Port are empty
}

// Parse reads `host:port` or `unix:PATH`; a relative path is made absolute.
func Parse(text string) (Address, error) {
	if path, ok := strings.CutPrefix(text, contract.SocketPrefix); ok {
		if path == "" || strings.ContainsRune(path, 0) {
			return Address{}, fmt.Errorf("%q: write the path of the socket behind `unix:`", text)
		}
		path, err := filepath.Abs(path)
		if err != nil {
			return Address{}, fmt.Errorf("%q: %w", text, err)
		}
		if len(path) > maxPath {
			return Address{}, fmt.Errorf("%s%s: the path has %d bytes, a socket's may have %d: choose a shorter --data-dir, or another path", contract.SocketPrefix, path, len(path), maxPath)
		}
		return Address{Path: path}, nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return Address{}, fmt.Errorf("%q is neither `host:port` nor `unix:PATH`", text)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return Address{}, fmt.Errorf("%q: the port is not a number up to 65535", text)
	}
	return Address{Host: host, Port: uint16(n)}, nil
}

// ParseAll reads a list; all faults come at once, each behind where, such as
// "--xds-servers". An empty list is a fault, too.
func ParseAll(where string, list []string) ([]Address, error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("%s names nobody: write `host:port` or `unix:PATH`", where)
	}
	var faults []error
	out := make([]Address, 0, len(list))
	for _, text := range list {
		a, err := Parse(text)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", where, err))
		}
		out = append(out, a)
	}
	return out, errors.Join(faults...)
}

// Socket says whether it is a Unix socket.
func (a Address) Socket() bool { return a.Path != "" }

// Local says whether only this machine can reach it.
func (a Address) Local() bool { return a.Socket() || daemon.Loopback(a.String()) }

// String is what Parse reads.
func (a Address) String() string {
	if a.Socket() {
		return contract.SocketPrefix + a.Path
	}
	return net.JoinHostPort(a.Host, strconv.FormatUint(uint64(a.Port), 10))
}
