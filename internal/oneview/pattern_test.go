package oneview_test

import (
	"fmt"
	"testing"

	"tollgate/internal/oneview"
)

// TestPatternsReadWhatParseReads: byte by byte, bare and escaped in either case,
// alone and between letters, in a path and in a query. Envoy has the pattern; a
// target that it passes and Parse refuses would be a hole, one that it refuses
// and Parse reads a rule that never applies.
func TestPatternsReadWhatParseReads(t *testing.T) {
	for b := range 256 {
		for _, one := range []string{string([]byte{byte(b)}), fmt.Sprintf("%%%02x", b), fmt.Sprintf("%%%02X", b)} {
			for _, around := range []string{"/%s", "/a%sb", "/a/%s/b?c=d", "/a?%s", "/a?b%s=c", "/a?b=c%sd&e", "*%s"} {
				raw := fmt.Sprintf(around, one)
				_, err := oneview.Parse(raw)
				if admitted := target.MatchString(raw) && !tooMany.MatchString(raw); admitted != (err == nil) {
					t.Errorf("%q: the patterns admit it: %v; Parse says %v", raw, admitted, err)
				}
			}
		}
	}
}

// TestMethodsAndAuthorities: what passes is read alike by whoever comes after.
func TestMethodsAndAuthorities(t *testing.T) {
	for pattern, cases := range map[string]map[string]bool{
		oneview.MethodPattern: {
			"GET": true, "M-SEARCH": true, "PURGE": true, "": false, "get": false, "Get": false, "GET ": false, "GET\n": false, "G/T": false, "GÉT": false, "GET1": false,
		},
		oneview.HostPattern: {
			"a.test": true, "[::1]": true, "[2001:db8::1]": true, "[::ffff:127.0.0.1]": true, "A.TEST": true, "127.0.0.1": true, "a-b": true, "localhost": true, "xn--caf-dma.test": true, "-": true,
			"": false, "user@a.test": false, "a.test/x": false, "a.test?x": false, "a.test#x": false, "a_b.test": false, "a.test,b.test": false, "a test": false,
			"a.test\x00": false, "%61.test": false, "a.test\\@b.test": false, "é.test": false, "a;b": false,
			// One port and one dot are gone already: what remains has none.
			"a.test:": false, "a.test:80": false, "a.test:80:": false, "a.test.": false, "a.test..": false, "a.test.:80": false, "a..test": false, ".a.test": false, ".": false, ":80": false, "a.test:80a": false,
			// Brackets are for IPv6 addresses, whole ones.
			"[a.test]": false, "[de.ad]": false, "a.test]": false, "[a.test": false, "[::1": false, "::1": false, "[]": false, "[:]": false, "[::1]a.test": false, "a.test[::1]": false, "[[::1]]": false, "[::1]]": false,
			"[::1%25eth0]": false, "[::a.test]": false, "[12345::1]": false, "[1:2:3:4:5:6:7:8:9]": false, "[::1.2.3]": false, "[::1].": false, "[::1]:80": false, "[::1.2.3.4444]": false, "[1.2.3.4]": false,
		},
		oneview.AuthorityPattern: {
			"a.test": true, "a.test:8080": true, "[::1]": true, "[2001:db8::1]:443": true, "A.TEST": true, "127.0.0.1": true, "a-b": true, "a.test.": true, "a.test.:80": true,
			"": false, "user@a.test": false, "a.test/x": false, "a.test?x": false, "a.test#x": false, "a_b.test": false, "a.test,b.test": false, "a test": false,
			"a.test\x00": false, "%61.test": false, "a.test\\@b.test": false, "é.test": false, "a;b": false,
			"a.test:": false, "a.test:80:": false, "a.test:80:90": false, "a.test.:80:": false, "a.test..": false, "[a.test]:80": false, "a.test]": false, "[::1].": false, "a.test:80.": false,
		},
	} {
		whole := whole(pattern)
		for text, want := range cases {
			if got := whole.MatchString(text); got != want {
				t.Errorf("%s takes %q: %v, want %v", pattern, text, got, want)
			}
			if pattern == oneview.HostPattern && oneview.Host(text) != want {
				t.Errorf("Host takes %q: %v, want %v", text, !want, want)
			}
		}
	}
}

// TestBegins: a value begins with the prefix where it begins, and nowhere else.
func TestBegins(t *testing.T) {
	whole := whole(oneview.BeginsPattern("mode", "adm"))
	for raw, want := range map[string]bool{
		"/a?mode=adm": true, "/a?mode=admin": true, "/a?x=1&mode=admin&y": true, "/a?%6dode=%61dmin": true, "/a?mode=user&mode=admin": true,
		"/a?mode=xadm": false, "/a?mode=": false, "/a?mode": false, "/a?mode=ad": false, "/a?xmode=admin": false, "/a?modex=admin": false, "/a?mode=x&adm": false,
		"/mode=admin": false, "/a?mode=Admin": false,
	} {
		if got := whole.MatchString(raw); got != want {
			t.Errorf("%q: %v, want %v", raw, got, want)
		}
	}
}

// FuzzHost: the authorization server takes what Envoy takes.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{"a.test", "a.test.", "a.test:80", "[::1]", "[1:2::1.2.3.4]", "[a.test]", "a..b", "[0:1:2:3:4:5:6:7]", "[:::]", "[1::1.2.3.1234]"} {
		f.Add(seed)
	}
	whole := whole(oneview.HostPattern)
	f.Fuzz(func(t *testing.T, host string) {
		if want := whole.MatchString(host); oneview.Host(host) != want {
			t.Errorf("%q: the pattern says %v, Host %v", host, want, !want)
		}
	})
}
