package limits

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// None is the value of an entry that a request does not have.
const None = "(none)"

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
		size += 1 + min(len(value(entries, name)), maxValue)
	}
	var b strings.Builder
	b.Grow(size)
	b.WriteString(r.prefix)
	for _, name := range r.By {
		b.WriteByte('|')
		writeValue(&b, value(entries, name))
	}
	return b.String()
}

func value(entries []Entry, name string) string {
	for i := range entries {
		if entries[i].Key == name {
			return entries[i].Value
		}
	}
	return None
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
