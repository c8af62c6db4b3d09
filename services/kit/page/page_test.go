package page_test

import (
	"testing"

	"pgregory.net/rapid"

	"tollgate/services/kit/page"
)

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		after, size := rapid.Int64Min(0).Draw(t, "after"), rapid.IntRange(1, page.Max).Draw(t, "size")
		p, err := page.Parse(size, page.Token(after))
		if err != nil || p.After != after || p.Size != size {
			t.Fatalf("%+v, %v", p, err)
		}
	})
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name  string
		size  int
		token string
		ok    bool
	}{
		{"defaults", 0, "", true},
		{"largest", page.Max, "", true},
		{"too large", page.Max + 1, "", false},
		{"negative", -1, "", false},
		{"not base64", 1, "!!!", false},
		{"short", 1, "AAAA", false},
		{"negative sequence", 1, page.Token(-1), false},
		{"padded", 1, page.Token(1) + "=", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if p, err := page.Parse(tt.size, tt.token); (err == nil) != tt.ok {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
}
