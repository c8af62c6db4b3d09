package oneview

import (
	"strings"
	"unicode/utf8"
)

// barePath may stand bare in a path and nowhere else; escapedPath must be
// escaped there.
func barePath(c byte) bool {
	return alphanumeric(c) || strings.IndexByte("/._~!$&'()*+,=:@-", c) >= 0
}

func escapedPath(c byte) bool { return strings.IndexByte(" \"#<>?[]^`{|}", c) >= 0 }

// bareQuery is every visible character but those that end a query, begin an
// escape, or end a parameter for some decoders.
func bareQuery(c byte) bool { return c > 0x20 && c < 0x7f && c != '#' && c != '%' && c != ';' }

func escapedQuery(byte) bool { return true }

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// plain reports whether s has one reading: every byte bare or escaped as it may
// be, and what is beyond ASCII well-formed UTF-8.
func plain(s string, bare, escaped func(byte) bool) bool {
	for i := 0; i < len(s); {
		if s[i] != '%' {
			if !bare(s[i]) {
				return false
			}
			i++
			continue
		}
		first, ok := escape(s[i:])
		switch {
		case !ok || first < utf8.RuneSelf && !escaped(first):
			return false
		case first < utf8.RuneSelf:
			i += 3
			continue
		}
		n := runeAt(s[i:])
		if n == 0 {
			return false
		}
		i += 3 * n
	}
	return true
}

// runeAt is how many escapes at the beginning of s are one character; 0 for none.
func runeAt(s string) int {
	var buf [utf8.UTFMax]byte
	n := 0
	for n < len(buf) {
		b, ok := escape(s[3*n:])
		if !ok {
			break
		}
		buf[n] = b
		n++
		if utf8.FullRune(buf[:n]) {
			break
		}
	}
	if r, size := utf8.DecodeRune(buf[:n]); r == utf8.RuneError && size <= 1 {
		return 0
	}
	return n
}

func decode(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if b, ok := escape(s[i:]); ok {
			out = append(out, b)
			i += 2
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

// upperEscapes gives one text to escapes that differ in case.
func upperEscapes(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	out := []byte(s)
	for i := 0; i+2 < len(out); i++ {
		if out[i] == '%' {
			out[i+1], out[i+2] = upper(out[i+1]), upper(out[i+2])
			i += 2
		}
	}
	return string(out)
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}

func escape(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	high, ok1 := hex(s[1])
	low, ok2 := hex(s[2])
	return high<<4 | low, ok1 && ok2
}

func hex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
