package slot_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tollgate/xds/push/slot"
	"tollgate/xds/release"
)

var named = []string{"a", "b", "c", "d", "e", "f"}

// served draws what there is: some names, each in one of two versions.
func served(t *rapid.T, before map[string]*release.Resource) map[string]*release.Resource {
	all := map[string]*release.Resource{}
	for _, name := range named {
		version := rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "version of "+name)
		switch old := before[name]; {
		case version == "":
		case old != nil && old.Version == version:
			all[name] = old
		default:
			all[name] = &release.Resource{Name: name, Version: version}
		}
	}
	return all
}

// shown is a state but for which of two equal resources was taken.
func shown(s slot.Slot) string { return show(s) + fmt.Sprint(s.Parked, s.Words) }

// TestTableIsPlain: whatever is shared with a base, and whenever that is chosen,
// every name is in the state in which it would be in a plain map.
func TestTableIsPlain(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var table slot.Table
		plain := map[string]*slot.Slot{}
		all := served(rt, nil)
		get := func(name string) *slot.Slot {
			if plain[name] == nil {
				plain[name] = &slot.Slot{}
			}
			return plain[name]
		}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"all sent", "all taken", "all asked", "move", "adopt", "weigh", "none unasked", "change", "change", "take"}).Draw(rt, "step") {
			case "all sent":
				for name, one := range all {
					get(name).Sent(one.Version)
					table.Change(name).Sent(one.Version)
				}
			case "all taken":
				for name, one := range all {
					get(name).Took(one)
					table.Change(name).Took(one)
				}
			case "all asked":
				for _, name := range named {
					get(name).Ask(false)
					table.Change(name).Ask(false)
				}
			case "take":
				if name := rapid.SampledFrom(named).Draw(rt, "name"); all[name] != nil {
					get(name).Took(all[name])
					table.Change(name).Took(all[name])
				}
			case "change":
				name, m := rapid.SampledFrom(named).Draw(rt, "name"), moves[rapid.IntRange(0, len(moves)-1).Draw(rt, "move")]
				m.move(get(name))
				m.move(table.Change(name))
				table.Settle(name)
			case "none unasked":
				for _, s := range plain {
					if !s.Asked {
						s.Lose()
					}
				}
				table.NoneUnasked()
			case "weigh":
				table.Weigh(all, rapid.Bool().Draw(rt, "idle"))
			case "adopt":
				if table.Based() || table.Exceptions() > 0 {
					continue
				}
				asked, took := rapid.Bool().Draw(rt, "asked"), rapid.Bool().Draw(rt, "took")
				table.Adopt(all, asked, took)
				clear(plain)
				for name, one := range all {
					s := get(name)
					s.Sent(one.Version)
					s.Asked = asked
					if took {
						s.Took(one)
					}
				}
			case "move":
				next := served(rt, all)
				changed := []string{}
				for _, name := range named {
					if all[name] != next[name] {
						changed = append(changed, name)
					}
				}
				if rapid.Bool().Draw(rt, "unknown") {
					changed = nil
				}
				table.Move(next, changed)
				all = next
			}
			if rapid.Bool().Draw(rt, "settle") {
				for _, name := range named {
					table.Settle(name)
				}
			}
			for _, name := range named {
				if got, want := shown(table.Get(name)), shown(*get(name)); got != want {
					rt.Fatalf("%s: %s, want %s", name, got, want)
				}
				if table.Shares(name) && slices.Contains(slices.Collect(table.Own()), name) {
					rt.Fatalf("%s is shared and its own", name)
				}
			}
		}
	})
}

// TestCommonCostsNothing: of 10,000 names a client that came to have all keeps
// none of its own, however it came, and one change makes one.
func TestCommonCostsNothing(t *testing.T) {
	all := map[string]*release.Resource{}
	for i := range 10_000 {
		name := fmt.Sprint(i)
		all[name] = &release.Resource{Name: name, Version: "1"}
	}
	var cold, back slot.Table
	for name := range all {
		cold.Change(name).Ask(false)
	}
	for name, one := range all {
		cold.Change(name).Sent(one.Version)
		cold.Settle(name)
		cold.Weigh(all, false)
	}
	for name, one := range all {
		cold.Change(name).Took(one)
		cold.Settle(name)
		cold.Weigh(all, false)
	}
	cold.Weigh(all, true)
	back.Adopt(all, true, true)
	next := maps.Clone(all)
	next["7"] = &release.Resource{Name: "7", Version: "2"}
	for how, table := range map[string]*slot.Table{"cold": &cold, "back": &back} {
		if n := table.Exceptions(); n != 0 {
			t.Fatalf("%s: %d names of its own", how, n)
		}
		table.Move(next, []string{"7"})
		if s := table.Get("7"); table.Exceptions() != 1 || !s.At("1") {
			t.Fatalf("%s: %d names of its own, 7 is %+v", how, table.Exceptions(), s)
		}
		table.Change("7").Sent("2")
		table.Change("7").Took(next["7"])
		if table.Settle("7"); table.Exceptions() != 0 {
			t.Fatalf("%s: %d names of its own", how, table.Exceptions())
		}
	}
}
