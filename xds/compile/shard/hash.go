package shard

import (
	"fmt"
	"strings"
)

// sets are letters and digits, one set for each bit of a hash. They were found
// by search: with them sequential names ("t17.example.com", "r0042") spread as
// evenly as random numbers do.
var sets = [...]string{ //nolint:gochecknoglobals // a constant; Go has no constant arrays
	"abhijklmnopqrstyz36789", "cdejklmno023", "abcefghijklmnopqrsvwxyz034567", "bnopqr0156", "abcdefgmnopqtuvwxyz0123478",
	"ghijklmr2789", "ghijklmstuvw078", "fghirst0178", "abcdefgjopqrstuvwxyz0567",
}

// Every second bit counts the characters that are in its set, the others count
// how often one that is not follows one that is, so that order matters, too. A
// bit is 1 where the number is even.
const (
	counts = 0x155
	ends   = 0x0aa
	all    = counts | ends
)

// hash has a bit for each of sets. Letters in upper and lower case are one.
func hash(s string) int {
	out, before := all, 0
	for i := range len(s) {
		in := members[s[i]]
		out ^= in&counts | before&^in&ends
		before = in
	}
	return out
}

// members has a bit for each set that a character is in.
var members = func() (out [256]int) { //nolint:gochecknoglobals // a constant that is computed
	for i, set := range sets {
		for _, c := range []byte(set + strings.ToUpper(set)) {
			out[c] |= 1 << i
		}
	}
	return out
}()

// hostPattern is RE2 for hosts whose hash has a bit, up to a port. Envoy takes
// away a port that is one before it looks for a part, and one that is none when
// it looks for the host. The pattern is small, because Envoy takes no large one
// in CEL (100 instructions).
func hostPattern(bit int) string { return "^" + even(bit, ":") + "(?::|$)" }

// segmentPattern is RE2 for paths whose depth-th segment has a bit in its hash;
// paths without such a segment have none.
func segmentPattern(bit, depth int) string {
	return "^/" + strings.Repeat(`[\x01-.0-\x7f]*/`, depth-1) + even(bit, "/") + "(?:/|$)"
}

// even is RE2 for texts that have the bit, and none of the other characters.
func even(bit int, without string) string {
	in, out := class(bit, true, without), class(bit, false, without)
	if counts>>bit&1 == 1 {
		return "(?:" + out + "|" + in + out + "*" + in + ")*"
	}
	return out + "*(?:" + in + "+" + out + "+" + in + "+" + out + "+)*" + in + "*"
}

// class is RE2 for a character of ASCII that is in a set, or is not, and is none
// of without.
func class(bit int, in bool, without string) string {
	var b strings.Builder
	b.WriteByte('[')
	for c := 1; c < 128; c++ {
		first := c
		for c < 128 && (members[c]>>bit&1 == 1) == in && !strings.Contains(without, string(rune(c))) {
			c++
		}
		switch c - first {
		case 0:
		case 1:
			b.WriteString(character(first))
		default:
			b.WriteString(character(first) + "-" + character(c-1))
		}
	}
	b.WriteByte(']')
	return b.String()
}

// character is RE2 for a character within a class.
func character(c int) string {
	if '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' {
		return string(rune(c))
	}
	return fmt.Sprintf(`\x%02x`, c)
}
