package oneview

import "strings"

const (
	// HostPattern is RE2 for a host as Envoy holds it, which has taken one port and
	// one final dot away: labels with one dot between them, or an IPv6 address in
	// brackets. What still has a port, a dot or a lone bracket is one host to Envoy
	// and another to who cuts at the first colon.
	HostPattern = namePattern + `|` + addressPattern
	// AuthorityPattern is RE2 for a host as a client sends it. Envoy leaves that of
	// CONNECT as it is.
	AuthorityPattern = `(?:` + namePattern + `\.?|` + addressPattern + `)(?::[0-9]+)?`

	namePattern    = `[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*`
	addressPattern = `\[(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{0,4}|[0-9]{1,3}(?:\.[0-9]{1,3}){3})\]`
)

// Host reports whether HostPattern matches.
func Host(host string) bool {
	if inner, open := strings.CutPrefix(host, "["); open {
		inner, closed := strings.CutSuffix(inner, "]")
		return closed && address(inner)
	}
	for label := range strings.SplitSeq(host, ".") {
		if !consists(label, 1, len(label), func(c byte) bool { return c == '-' || alphanumeric(c) }) {
			return false
		}
	}
	return true
}

func address(s string) bool {
	groups := strings.Split(s, ":")
	last := groups[len(groups)-1]
	groups = groups[:len(groups)-1]
	if len(groups) < 2 || len(groups) > 7 {
		return false
	}
	for _, g := range groups {
		if !hextet(g) {
			return false
		}
	}
	return hextet(last) || quad(last)
}

func hextet(s string) bool {
	return consists(s, 0, 4, func(c byte) bool { _, ok := hex(c); return ok })
}

func quad(s string) bool {
	parts := strings.Split(s, ".")
	for _, p := range parts {
		if !consists(p, 1, 3, func(c byte) bool { return c >= '0' && c <= '9' }) {
			return false
		}
	}
	return len(parts) == 4
}

// consists reports whether s is shortest to longest bytes that fit.
func consists(s string, shortest, longest int, fits func(byte) bool) bool {
	for i := range len(s) {
		if !fits(s[i]) {
			return false
		}
	}
	return len(s) >= shortest && len(s) <= longest
}
