package oneview_test

import (
	"testing"

	"tollgate/internal/oneview"
)

// TestCookieAliases: what some parser takes for the cookie is seen, and nothing
// else.
func TestCookieAliases(t *testing.T) {
	for line, want := range map[string]bool{
		"m_x=1": true, "m.x=1": true, "m x=1": true, "m[x=1": true, "m_x[]=1": true, "m_x[a]=1": true, "[m_x]=1": true, "m%5Fx=1": true, "%6d_x=1": true, "M_X=1": true, " m_x=1": true, "m_x =1": true, "+m_x=1": true, "m+x=1": true,
		"a=1; m.x=1": true, "a=1;m.x=1": true, "a=1,m_x=1": true, "a=1, m.x=1": true, "a=1 m_x=1": true, "a=1\tm.x=1": true, "m_x": true, "a; m.x": true, "m_x; a=1": true, "a=1; m_x ;b": true, "m.x=1; a=2": true, `a="; m_x=1; b="`: true,
		"m-x=1": false, "mm_x=1": false, "m_xx=1": false, "a=m_x": false, "a=b m_x; c=1": false, "a=b m_x": false, "m[x]=1": false, "a=1m_x=1": false, "mx=1": false, "$m_x=1": false, "": false,
	} {
		if got := whole(oneview.CookieAliasPattern("m_x")).MatchString(line); got != want {
			t.Errorf("%q: an alias of m_x: %v", line, got)
		}
		if got := whole(oneview.CookieTwicePattern("m_x")).MatchString("m_x=1; b=2; " + line); want && !got {
			t.Errorf("%q: unseen as the second m_x", line)
		}
		if got := whole(oneview.CookieTwicePattern("m_x")).MatchString(line + "; b; m_x=1"); want && !got {
			t.Errorf("%q: m_x unseen as the second", line)
		}
		if whole(oneview.CookieTwicePattern("m_x")).MatchString(line) {
			t.Errorf("%q: twice", line)
		}
	}
	for line, want := range map[string]bool{"m_x=1": true, "a=1; m_x=": true, "a=1;m_x=1;b": true, "m.x=1": false, "a=1,m_x=1": false, "m_x": false, "M_x=1": false, "am_x=1": false} {
		if got := whole(oneview.CookiePattern("m_x")).MatchString(line); got != want {
			t.Errorf("%q: the cookie itself: %v", line, got)
		}
	}
}
