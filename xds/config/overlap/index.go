package overlap

import (
	"slices"
	"strings"
)

// maxCompared bounds how many routes of one rank are compared with each other.
const maxCompared = 64

// Claim is a route of an Index.
type Claim struct {
	Route
	Policy  string // equal for equal ones
	literal string // of a regex: what every match begins with
}

// Index says of routes that come and go whether Find or Parted could have
// anything to say of them. What it costs to add or remove one does not depend on
// how many there are. The zero value is of no routes.
type Index struct {
	ties, parted table
}

// Add takes a route in.
func (x *Index) Add(c *Claim) {
	if c.Kind == Regex {
		c.literal = literal(c.Path)
	}
	x.ties.touch(c, rankOf(c), tie, true)
	x.parted.touch(c, pathOf(c), parts, true)
}

// Remove takes a route out that was added.
func (x *Index) Remove(c *Claim) {
	x.ties.touch(c, rankOf(c), tie, false)
	x.parted.touch(c, pathOf(c), parts, false)
}

// Tied is false if Find would return nothing.
func (x *Index) Tied() bool { return x.ties.bad > 0 }

// Parted is false if Parted would return nothing.
func (x *Index) Parted() bool { return x.parted.bad > 0 }

func rankOf(c *Claim) rank {
	return rank{kind: c.Kind, path: shape(c.Route), priority: c.Priority, conditions: c.Conditions}
}

func pathOf(c *Claim) rank {
	if c.Kind == Template {
		return rank{kind: c.Kind, path: shape(c.Route)}
	}
	return rank{kind: c.Kind, path: c.Path}
}

// tie reports whether two routes of one rank could both match a request.
func tie(a, b *Claim) bool {
	return a.Methods&b.Methods != 0 &&
		(a.Kind != Regex || strings.HasPrefix(a.literal, b.literal) || strings.HasPrefix(b.literal, a.literal))
}

// parts reports whether only conditions are between two routes of different
// policies.
func parts(a, b *Claim) bool {
	return a.Methods&b.Methods != 0 && a.Conditions != b.Conditions && a.Policy != b.Policy
}

// table keeps claims by what they are compared under.
type table struct {
	buckets map[rank]bucket
	bad     int // buckets
}

type bucket struct {
	claims []*Claim
	bad    bool // two of them meet, or there are too many to tell
}

func (t *table) touch(c *Claim, key rank, meet func(a, b *Claim) bool, add bool) {
	if t.buckets == nil {
		t.buckets = map[rank]bucket{}
	}
	for _, key.listener = range c.Listeners {
		for _, key.host = range c.Hosts {
			b := t.buckets[key]
			if b.bad {
				t.bad--
			}
			if add {
				b.claims = append(b.claims, c)
			} else if i := slices.Index(b.claims, c); i >= 0 {
				b.claims = slices.Delete(b.claims, i, i+1)
			}
			if b.bad = b.meets(meet); b.bad {
				t.bad++
			}
			if len(b.claims) == 0 {
				delete(t.buckets, key)
				continue
			}
			t.buckets[key] = b
		}
	}
}

func (b *bucket) meets(meet func(a, b *Claim) bool) bool {
	if len(b.claims) > maxCompared {
		return true
	}
	for i, c := range b.claims {
		for _, other := range b.claims[:i] {
			if c != other && meet(c, other) {
				return true
			}
		}
	}
	return false
}
