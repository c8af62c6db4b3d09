package slot_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tollgate/internal/golden"
	"tollgate/xds/push/slot"
	"tollgate/xds/release"
)

// moves are all that can happen to a name.
var moves = []struct {
	name string
	move func(*slot.Slot)
}{
	{"sent 2", func(s *slot.Slot) { s.Sent("2") }},
	{"took 2", func(s *slot.Slot) { s.Took(&release.Resource{Version: "2"}) }},
	{"back to nothing", func(s *slot.Slot) { s.Back(slot.Prior{}) }},
	{"back to missing", func(s *slot.Slot) { s.Back(slot.Prior{Phase: slot.Missing}) }},
	{"back to 1", func(s *slot.Slot) { s.Back(slot.Prior{Phase: slot.Has, Version: "1"}) }},
	{"brought 1", func(s *slot.Slot) { s.Brought("1") }},
	{"brought no version", func(s *slot.Slot) { s.Brought("") }},
	{"doubt", func(s *slot.Slot) { s.Doubt() }},
	{"refused 2 for 1", func(s *slot.Slot) { s.Refused("2", slot.Prior{Phase: slot.Has, Version: "1"}, false) }},
	{"refused 2 for nothing", func(s *slot.Slot) { s.Refused("2", slot.Prior{}, false) }},
	{"refused cluster 2 for 1", func(s *slot.Slot) { s.Refused("2", slot.Prior{Phase: slot.Has, Version: "1"}, true) }},
	{"refused cluster 2 for doubtful", func(s *slot.Slot) { s.Refused("2", slot.Prior{Phase: slot.Doubtful}, true) }},
	{"refused cluster 2 for nothing", func(s *slot.Slot) { s.Refused("2", slot.Prior{}, true) }},
	{"haunt", func(s *slot.Slot) { s.Haunt() }},
	{"ask", func(s *slot.Slot) { s.Ask(false) }},
	{"ask again", func(s *slot.Slot) { s.Ask(true) }},
	{"forget", func(s *slot.Slot) { s.Forget(false) }},
	{"forget, wants all", func(s *slot.Slot) { s.Forget(true) }},
	{"lose", func(s *slot.Slot) { s.Lose() }},
	{"told", func(s *slot.Slot) { s.Told() }},
	{"untold", func(s *slot.Slot) { s.Untold(false) }},
	{"untold, wants all", func(s *slot.Slot) { s.Untold(true) }},
}

var phases = []string{"nothing", "missing", "has", "doubtful", "ghost"}

// states are all in which a name can be, but for the words of a refusal.
func states() []slot.Slot {
	var all []slot.Slot
	bools := []bool{false, true}
	for phase := range slot.Phase(len(phases)) {
		versions := []string{""}
		if phase == slot.Has {
			versions = []string{"1", "2"}
		}
		for _, version := range versions {
			for _, asked := range bools {
				for _, claimed := range bools {
					for _, good := range []string{"", "1", "2"} {
						s := slot.Slot{Phase: phase, Version: version, Asked: asked, Claimed: claimed}
						if good != "" {
							s.Good, s.Runs = &release.Resource{Version: good}, true
						}
						all = append(all, s)
					}
				}
			}
		}
	}
	return all
}

func show(s slot.Slot) string {
	words := []string{phases[s.Phase]}
	if s.Version != "" {
		words[0] += " " + s.Version
	}
	for word, is := range map[string]bool{"asked": s.Asked, "claimed": s.Claimed, "runs": s.Runs} {
		if is {
			words = append(words, word)
		}
	}
	for word, one := range map[string]*release.Resource{"good": s.Good, "revert": s.Revert} {
		if one != nil {
			words = append(words, word+" "+one.Version)
		}
	}
	slices.Sort(words[1:])
	return strings.Join(words, ", ")
}

// TestMoves is the table of all moves from all states.
func TestMoves(t *testing.T) {
	var table strings.Builder
	for _, m := range moves {
		fmt.Fprintf(&table, "%s:\n", m.name)
		for _, from := range states() {
			to := from
			if m.move(&to); to == from {
				continue
			}
			fmt.Fprintf(&table, "  %s -> %s\n", show(from), show(to))
		}
	}
	golden.Equal(t, "testdata/moves.txt", []byte(table.String()))
}

// TestAlways: what holds after every move from every state.
func TestAlways(t *testing.T) {
	for _, m := range moves {
		for _, from := range states() {
			to := from
			m.move(&to)
			bad := func(why string) { t.Errorf("%s: %s -> %s: %s", m.name, show(from), show(to), why) }
			if (to.Phase == slot.Has) != (to.Version != "") {
				bad("a version belongs to what it has, and only to that")
			}
			if strings.HasPrefix(m.name, "refused") && (to.At("2") || !strings.Contains(m.name, "cluster") && to.Phase == slot.Ghost) {
				bad("it is not held to have what it refused, and only clusters haunt")
			}
			if to.Revert != nil && (to.Phase != slot.Ghost || to.Revert != from.Good) {
				bad("only what was good is taken back, and only over a ghost")
			}
			if to.Asked != from.Asked && !strings.HasPrefix(m.name, "ask") && !strings.HasPrefix(m.name, "forget") {
				bad("only the client says what it asks for")
			}
			if to.Good != nil && !to.Runs {
				bad("what it took it runs")
			}
			if to.Phase == slot.Missing && from.Phase != slot.Missing && m.name != "told" {
				bad("it was told nothing")
			}
		}
	}
}
