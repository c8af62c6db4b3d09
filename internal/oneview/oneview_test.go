package oneview_test

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tollgate/internal/oneview"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		target, path string
		segments     []string
		parameters   []oneview.Parameter
	}{
		{"/", "/", nil, nil},
		{"*", "*", nil, nil},
		{"/a/b", "/a/b", []string{"a", "b"}, nil},
		{"/a/", "/a/", []string{"a", ""}, nil},
		{"/caf%c3%a9/a%20b", "/caf%C3%A9/a%20b", []string{"café", "a b"}, nil},
		{"/v1/things:purge/@me/!$&'()*+,=", "/v1/things:purge/@me/!$&'()*+,=", []string{"v1", "things:purge", "@me", "!$&'()*+,="}, nil},
		{"/a%23%3f%5b%5D%7c", "/a%23%3F%5B%5D%7C", []string{"a#?[]|"}, nil},
		{"/a?", "/a", []string{"a"}, nil},
		{"/a?&&", "/a", []string{"a"}, nil},
		{"/a?x=1&y=2&x=3", "/a", []string{"a"}, []oneview.Parameter{{"x", "1"}, {"y", "2"}, {"x", "3"}}},
		{"/a?%61dmin=%31&b+c=d%2be", "/a", []string{"a"}, []oneview.Parameter{{"admin", "1"}, {"b c", "d+e"}}},
		{"/a?x=1=2&flag&=v&%3D=%26", "/a", []string{"a"}, []oneview.Parameter{{"x", "1=2"}, {"flag", ""}, {"", "v"}, {"=", "&"}}},
		{`/a?f[n]={"a":1}|^<>\` + "`", "/a", []string{"a"}, []oneview.Parameter{{"f[n]", `{"a":1}|^<>\` + "`"}}},
		{"/a?x=%00%0D%0a", "/a", []string{"a"}, []oneview.Parameter{{"x", "\x00\r\n"}}},
		{"/a?x=%F0%9f%98%80", "/a", []string{"a"}, []oneview.Parameter{{"x", "😀"}}},
		{"/a?" + strings.Repeat("&", 127), "/a", []string{"a"}, nil},
	} {
		got, err := oneview.Parse(test.target)
		if err != nil || got.Path != test.path || !slices.Equal(got.Segments, test.segments) || !slices.Equal(got.Parameters, test.parameters) {
			t.Errorf("%.80q: %+v, %v; want %q %q %q", test.target, got, err, test.path, test.segments, test.parameters)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for want, targets := range map[error][]string{
		oneview.ErrPath: {
			"", "a", "?a", "*?a=1", "/a;b", "/%25", "/%2f", "/%2F", "/%5c", "/%00", "/%1f", "/%7f", "/%zz", "/%4", "/%", "/%u002e", "/a\x7f", "/a b", "/a\\b", "/a#b",
			// What may stand bare must.
			"/%21", "/%24", "/%26", "/%27", "/%28", "/%29", "/%2a", "/%2A", "/%2b", "/%2B", "/%2c", "/%2C", "/%3a", "/%3A", "/%3b", "/%3d", "/%40",
			"/%41", "/%7e", "/%2e", "/%2D", "/%5F", "/%30",
			// What must be escaped must not stand bare.
			"/[", "/]", "/|", "/^", "/{", "/}", "/\"", "/<", "/>", "/`",
			// UTF-8: overlong, surrogates, beyond the last, cut, alone.
			"/%c0%af", "/%C1%bf", "/%e0%80%af", "/%f0%80%80%af", "/%ed%a0%80", "/%f4%90%80%80", "/%f5%80%80%80", "/%c3", "/%c3a", "/%c3%41", "/%e2%82", "/%80", "/%ff", "/\xc3\xa9",
		},
		oneview.ErrQuery: {
			"/a?x;y", "/a?;", "/a?%", "/a?%4", "/a?%zz", "/a?x=%ff", "/a?%c0%ae=1", "/a?x=%ed%a0%80", "/a?x=%e2%82", "/a?x#y", "/a?x y", "/a?x\x7f", "/a?\xc3\xa9",
		},
		oneview.ErrParameters: {"/a?" + strings.Repeat("&", 128), "/a?mode=admin" + strings.Repeat("&", 12_000), "/a?" + strings.Repeat("a=%zz&", 200)},
	} {
		for _, target := range targets {
			if got, err := oneview.Parse(target); !errors.Is(err, want) {
				t.Errorf("%.80q: %+v, %v; want %v", target, got, err, want)
			}
		}
	}
}

var (
	target  = regexp.MustCompile(`^(?:` + oneview.TargetPattern + `)$`)
	tooMany = regexp.MustCompile(`^(?:` + oneview.TooManyPattern + `)$`)
)

// FuzzParse: Envoy, which has the patterns, admits what Parse reads, and
// net/url, the strictest decoder there is for it, reads the same.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"/", "*", "/a/b?x=1", "/v1/things%3Apurge", "/a?%61dmin=1&admin=0", "/caf%c3%a9", "/%e0%80%af", "/%ed%a0%80?x", "/%f4%8f%bf%bf", "/a;b?c;d", "/a?" + strings.Repeat("&", 128), "/a?b+c=%2b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := oneview.Parse(raw)
		if admitted := target.MatchString(raw) && !tooMany.MatchString(raw); admitted != (err == nil) {
			t.Fatalf("%q: the patterns admit it: %v; Parse says %v", raw, admitted, err)
		}
		if err != nil || raw == "*" {
			return
		}
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			t.Fatalf("%q: net/url says %v", raw, err)
		}
		if want := "/" + strings.Join(got.Segments, "/"); u.Path != want {
			t.Fatalf("%q: net/url reads the path %q, segments %q", raw, u.Path, got.Segments)
		}
		values, err := url.ParseQuery(u.RawQuery)
		if err != nil {
			t.Fatalf("%q: net/url says %v", raw, err)
		}
		read := url.Values{}
		for _, p := range got.Parameters {
			read.Add(p.Name, p.Value)
		}
		if read.Encode() != values.Encode() {
			t.Fatalf("%q: net/url reads %v, Parse %v", raw, values, read)
		}
		again, err := oneview.Parse(got.Path)
		if err != nil || again.Path != got.Path || !slices.Equal(again.Segments, got.Segments) {
			t.Fatalf("%q: the path %q reads %v, %v", raw, got.Path, again, err)
		}
	})
}
