package ledger

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

const maxWords = 200

// redact cuts a refusal before anything in it that may be a secret or a dump
// of config, and to a length that a terminal shows.
func redact(why string) string {
	why = strings.Join(strings.Fields(why), " ")
	if cut := secretAt(why); cut >= 0 {
		why = why[:cut] + "…"
	}
	if len(why) > maxWords {
		why = strings.ToValidUTF8(why[:maxWords], "") + "…"
	}
	return printable(why)
}

// secretAt is where keys, or Envoy's textual dumps (they begin with a random
// one of three markers), begin; -1 when there are none.
func secretAt(why string) int {
	loc := regexp.MustCompile(`-----BEGIN|goo\.gle/debug|debug(proto|str|only)|private_key|inline_(bytes|string)`).FindStringIndex(why)
	if loc == nil {
		return -1
	}
	return loc[0]
}

// printable writes out whatever would move a terminal's cursor or hide text.
func printable(s string) string {
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// hidden also finds bytes that are no UTF-8: they read as U+FFFD.
func hidden(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }
