package check

import "slices"

// What is asked for beside names of things.
const (
	whole   = "whole upstream"
	split   = "split"
	apiKeys = "api keys"
)

// Use is something that a part of the file relied on when it was found to be
// right: that there is a thing of some kind and name.
type Use struct{ what, name string }

// Uses makes the checker tell what the parts that it checks rely on; nil ends
// that.
func (c *Checker) Uses(used func(Use)) { c.used = used }

// Holds reports whether what was relied on is still so.
func (c *Checker) Holds(u Use) bool {
	switch u.what {
	case whole:
		isSplit, known := c.splits[u.name]
		return known && !isSplit
	case apiKeys:
		return len(c.names[apiKeys]) > 0
	}
	_, known := c.places[u.what][u.name]
	return known
}

// Alike reports whether whatever holds for c holds for another checker.
func (c *Checker) Alike(other *Checker) bool {
	for _, what := range []string{"upstream", split, "listener", "issuer", "plan", apiKeys} {
		if !slices.Equal(c.names[what], other.names[what]) {
			return false
		}
	}
	return true
}

// has reports whether something holds, and that it was relied on.
func (c *Checker) has(u Use) bool {
	if !c.Holds(u) {
		return false
	}
	if c.used != nil {
		c.used(u)
	}
	return true
}
