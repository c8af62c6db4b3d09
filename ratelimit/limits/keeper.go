package limits

import (
	"fmt"
	"maps"
	"slices"
	"time"

	limitsv1 "tollgate/api/limits/v1"
)

// Keeper turns updates of rule sets into tables. A rule that goes away stays
// in the table for a while, because proxies may still ask for it with routes
// that they have not replaced yet. Not for concurrent use.
type Keeper struct {
	keep    time.Duration
	sets    map[string][]*Rule
	retired []retired // by the time they go
}

type retired struct {
	rule  *Rule
	until time.Time
}

// NewKeeper returns a keeper that keeps removed rules for so long.
func NewKeeper(keep time.Duration) *Keeper {
	return &Keeper{keep: keep, sets: map[string][]*Rule{}}
}

// Apply takes an update whole and returns the new table, or changes nothing
// and returns every fault of the update.
func (k *Keeper) Apply(now time.Time, upserts []*limitsv1.RuleSet, removed []string) (*Table, error) {
	sets := maps.Clone(k.sets)
	for _, name := range removed {
		delete(sets, name)
	}
	for _, set := range upserts {
		rules, err := Rules(set)
		if err != nil {
			return nil, err
		}
		sets[set.GetName()] = rules
	}
	rules := flatten(sets)
	table, err := NewTable(rules)
	if err != nil {
		return nil, fmt.Errorf("rule sets contradict each other: %w", err)
	}
	live := make(map[place]bool, len(rules))
	for _, r := range rules {
		live[placeOf(r)] = true
	}
	for _, old := range flatten(k.sets) {
		if !live[placeOf(old)] {
			k.retired = append(k.retired, retired{rule: old, until: now.Add(k.keep)})
		}
	}
	k.sets = sets
	k.drop(now, live)
	return k.extend(table), nil
}

// Expire forgets retired rules whose time is over and returns the table
// without them.
func (k *Keeper) Expire(now time.Time) *Table {
	rules := flatten(k.sets)
	live := make(map[place]bool, len(rules))
	for _, r := range rules {
		live[placeOf(r)] = true
	}
	k.drop(now, live)
	// The sets made a table before, so they do so again.
	table, _ := NewTable(rules)
	return k.extend(table)
}

// Next returns when Expire has something to do; false: never.
func (k *Keeper) Next() (time.Time, bool) {
	if len(k.retired) == 0 {
		return time.Time{}, false
	}
	return k.retired[0].until, true
}

// drop forgets retired rules that are over, back, or retired twice.
func (k *Keeper) drop(now time.Time, live map[place]bool) {
	newest := make(map[place]time.Time, len(k.retired))
	for _, r := range k.retired {
		newest[placeOf(r.rule)] = r.until
	}
	k.retired = slices.DeleteFunc(k.retired, func(r retired) bool {
		p := placeOf(r.rule)
		return live[p] || !r.until.After(now) || r.until.Before(newest[p])
	})
}

// extend adds the retired rules to a table; a live rule in their place wins.
func (k *Keeper) extend(t *Table) *Table {
	t.rules = slices.Clone(t.rules)
	for _, r := range k.retired {
		if t.add(r.rule) {
			t.rules = append(t.rules, r.rule)
		}
	}
	return t
}

// place is where a descriptor finds a rule.
type place struct{ slot, plan string }

func placeOf(r *Rule) place { return place{r.Slot, r.Plan} }

func flatten(sets map[string][]*Rule) []*Rule {
	var rules []*Rule
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		rules = append(rules, sets[name]...)
	}
	return rules
}
