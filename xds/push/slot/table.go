package slot

import (
	"iter"
	"maps"

	"tollgate/xds/release"
)

const (
	few    = 2  // names are not worth looking for what they have in common
	unused = 32 // and a map that held more is given back when most of it is gone
)

// Table is the state of all names of one type: that of a base, which many clients
// share, and what differs from it. The zero value is ready.
type Table struct {
	base  map[string]*release.Resource // the client has all of it; never changed
	asked bool                         // and asked for each by name
	took  bool                         // and took each; of clusters only

	own     map[string]*Slot
	peak    int // names in own at most since it was made
	touched int // changes since it was last looked for a better base
}

// Get returns the state of a name.
func (t *Table) Get(name string) Slot {
	if s := t.own[name]; s != nil {
		return *s
	}
	return t.common(t.base[name])
}

// common is the state of a name as the base has it.
func (t *Table) common(one *release.Resource) Slot {
	if one == nil {
		return Slot{}
	}
	s := Slot{Phase: Has, Version: one.Version, Asked: t.asked}
	if t.took {
		s.Runs, s.Good = true, one
	}
	return s
}

// Change returns the state of a name to be changed; Settle must follow.
func (t *Table) Change(name string) *Slot {
	t.touched++
	if s := t.own[name]; s != nil {
		return s
	}
	s := t.common(t.base[name])
	t.put(name, &s)
	return &s
}

func (t *Table) put(name string, s *Slot) {
	if t.own == nil {
		t.own = map[string]*Slot{}
	}
	t.own[name] = s
	t.peak = max(t.peak, len(t.own))
}

// Settle drops what is known of a name if it is as the base has it.
func (t *Table) Settle(name string) {
	s := t.own[name]
	if s == nil || !s.same(t.common(t.base[name])) {
		return
	}
	delete(t.own, name)
	if t.peak > unused && len(t.own)*4 < t.peak { // a map never shrinks
		own := make(map[string]*Slot, len(t.own))
		maps.Copy(own, t.own)
		t.own, t.peak = own, len(own)
	}
}

// same says whether two states are the same; equal versions are the same resource.
func (s *Slot) same(other Slot) bool {
	good, its := s.Good, other.Good
	if good != nil && its != nil && good.Version == its.Version {
		good, its = nil, nil
	}
	mine := *s
	mine.Good, other.Good = good, its
	return mine == other
}

// Own yields the names that differ from the base, and those that settle while it
// does.
func (t *Table) Own() iter.Seq[string] { return maps.Keys(t.own) }

// Exceptions is how many names differ from the base.
func (t *Table) Exceptions() int { return len(t.own) }

// Shares says whether a name is as the base has it, and the base has it.
func (t *Table) Shares(name string) bool { return t.base[name] != nil && t.own[name] == nil }

// Asked says whether the client asked for what Shares by name.
func (t *Table) Asked() bool { return t.asked }

// Based says whether there is a base.
func (t *Table) Based() bool { return t.base != nil }

// Adopt makes all the base of a table that is empty: the client has all of it.
func (t *Table) Adopt(all map[string]*release.Resource, asked, took bool) {
	t.base, t.asked, t.took = all, asked, took
}

// Move follows the view from one set of resources to the next: of what changed,
// the client is still where it was. Nil changes stand for not known ones.
func (t *Table) Move(next map[string]*release.Resource, changed []string) (moved []string) {
	if t.base == nil {
		return changed
	}
	if changed == nil {
		for name, one := range t.base {
			if now := next[name]; now == nil || now.Version != one.Version {
				changed = append(changed, name)
			}
		}
		for name := range next {
			if t.base[name] == nil {
				changed = append(changed, name)
			}
		}
	}
	for _, name := range changed {
		if t.own[name] == nil && (t.base[name] != nil || next[name] != nil) {
			s := t.common(t.base[name])
			t.put(name, &s)
		}
	}
	t.base = next
	return changed
}

// NoneUnasked forgets what the client has but did not ask for by name.
func (t *Table) NoneUnasked() {
	if !t.asked {
		t.base = nil
	}
	for name, s := range t.own {
		if !s.Asked {
			s.Lose()
		}
		t.Settle(name)
	}
}

// Weigh makes all the base if the client has come to have most of it. It is cheap
// where nothing has changed; idle says that nothing is on its way to the client.
func (t *Table) Weigh(all map[string]*release.Resource, idle bool) {
	n := len(t.own)
	rare := t.base == nil && 3*n < 2*len(all) || t.base != nil && 8*n < len(all)
	if n < few || rare || t.touched == 0 || t.touched < n/2 && (!idle || t.touched <= n/8) {
		return
	}
	t.touched = 0
	asked, took := 0, 0
	for name, s := range t.own {
		if one := all[name]; one != nil && s.At(one.Version) {
			asked += count(s.Asked)
			took += count(s.Good != nil)
		}
	}
	better := Table{base: all, asked: 2*asked > n, took: 2*took > n}
	for name, one := range all {
		if s := t.Get(name); !s.same(better.common(one)) {
			if better.put(name, &s); 2*len(better.own) > n {
				return
			}
		}
	}
	for name, s := range t.own {
		if all[name] == nil && *s != (Slot{}) {
			better.put(name, s)
		}
	}
	if 2*len(better.own) <= n {
		*t = better
	}
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}
