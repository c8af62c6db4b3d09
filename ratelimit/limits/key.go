package limits

import (
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"strings"

	"tollgate/api/contract"
)

// None is how a proxy says that a request has no such value, in entries that no
// client writes. A client's own entry is missing then.
const None = contract.None

// maxValue bounds what one value adds to a key; a longer one stands in it as
// its SHA-256, which a client cannot make collide.
const maxValue = 128

// key returns the counter's key: parts joined by "|", a "|" or "\" inside a
// part preceded by "\". A rule has a fixed number of parts, so different parts
// make different keys. "\h" cannot come from escaping, so a hash never equals
// a value written out.
func (r *Rule) key(entries []Entry) string {
	if len(r.By) == 0 {
		return r.prefix
	}
	size := len(r.prefix)
	for _, name := range r.By {
		v, _ := value(entries, name)
		size += 2 + min(len(v), maxValue)
	}
	var b strings.Builder
	b.Grow(size)
	b.WriteString(r.prefix)
	for _, name := range r.By {
		b.WriteByte('|')
		if v, ok := value(entries, name); ok {
			writeValue(&b, v)
		} else {
			b.WriteString(missing)
		}
	}
	return b.String()
}

// missing stands in a key for a value that a request does not have. It cannot
// come from escaping, so no value equals it.
const missing = `\-`

// value reports false for what a request does not have.
func value(entries []Entry, name string) (string, bool) {
	for i := range entries {
		if entries[i].Key != name {
			continue
		}
		v := entries[i].Value
		switch {
		case name == addressKey:
			v = address(v)
		case v == None && !strings.HasPrefix(name, "header:") && !strings.HasPrefix(name, "query:"):
			return "", false
		}
		return v, true
	}
	return "", false
}

// address returns the counter of a client's address: the IPv4 address, also of
// an IPv6 one that maps it, or the /64 of an IPv6 one, for whoever has one has
// all 2^64 of it.
func address(text string) string {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return text
	}
	if a = a.Unmap().WithZone(""); a.Is4() {
		return a.String()
	}
	network, _ := a.Prefix(64) // 64 bits are valid for every IPv6 address
	return network.String()
}

func writeValue(b *strings.Builder, v string) {
	if len(v) <= maxValue {
		writePart(b, v)
		return
	}
	sum := sha256.Sum256([]byte(v))
	b.WriteString(`\h`)
	b.WriteString(base64.RawURLEncoding.EncodeToString(sum[:]))
}

func writePart(b *strings.Builder, part string) {
	if strings.IndexByte(part, '|') < 0 && strings.IndexByte(part, '\\') < 0 {
		b.WriteString(part)
		return
	}
	for i := range len(part) {
		if part[i] == '|' || part[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(part[i])
	}
}
