package limits

import (
	"errors"
	"fmt"
	"strings"

	"tollgate/api/contract"
)

// The keys of the entries that route a descriptor to its rule.
const (
	slotKey = contract.SlotKey
	planKey = contract.KeyPlan
)

// addressKey is the entry that holds the client's address.
const addressKey = contract.AddressKey

// Entry is one entry of a descriptor.
type Entry struct{ Key, Value string }

// Cell is one counter that a descriptor touches.
type Cell struct {
	Rule *Rule
	Key  string
}

// The errors of Match.
var (
	// ErrUnknownLimit: the proxy asks for a limit that this limiter was never
	// sent. The route's own failure mode must decide.
	ErrUnknownLimit = errors.New("unknown limit")
	// ErrBadDescriptor: not a descriptor that our routes send.
	ErrBadDescriptor = errors.New("bad descriptor")
)

// Table finds the rule of a descriptor. It is immutable.
type Table struct {
	slots map[string]slot
	rules []*Rule
}

// slot is what one value of the "limit" entry leads to: one rule, or one rule
// of each plan.
type slot struct {
	rule  *Rule
	plans map[string]*Rule
}

// NewTable returns a table of rules, or what contradicts itself in them.
func NewTable(rules []*Rule) (*Table, error) {
	t := &Table{slots: make(map[string]slot, len(rules)), rules: rules}
	ids := make(map[string]bool, len(rules))
	var faults []error
	for _, r := range rules {
		if ids[r.ID] {
			faults = append(faults, fmt.Errorf("two rules have the id %q: ids must differ", r.ID))
			continue
		}
		ids[r.ID] = true
		if !t.add(r) {
			faults = append(faults, fmt.Errorf("rule %q: slot %q, plan %q is taken by another rule: every rule needs its own", r.ID, r.Slot, r.Plan))
		}
	}
	return t, errors.Join(faults...)
}

// add reports false if the rule's place is taken.
func (t *Table) add(r *Rule) bool {
	s, known := t.slots[r.Slot]
	switch {
	case r.Plan == "" && known, r.Plan != "" && s.rule != nil, r.Plan != "" && s.plans[r.Plan] != nil:
		return false
	case r.Plan == "":
		t.slots[r.Slot] = slot{rule: r}
	case known:
		s.plans[r.Plan] = r
	default:
		t.slots[r.Slot] = slot{plans: map[string]*Rule{r.Plan: r}}
	}
	return true
}

// Rules returns the rules; not to be changed.
func (t *Table) Rules() []*Rule { return t.rules }

// Match returns the counter of a descriptor. There is none, without an error,
// when the descriptor is that of a plan limit and the plan has no such limit.
func (t *Table) Match(entries []Entry) (Cell, bool, error) {
	if len(entries) == 0 || entries[0].Key != slotKey {
		return Cell{}, false, fmt.Errorf("%w: its first entry must be %q", ErrBadDescriptor, slotKey)
	}
	s, known := t.slots[entries[0].Value]
	if !known {
		return Cell{}, false, fmt.Errorf("%w %q: this limiter has no such rule yet", ErrUnknownLimit, clip(entries[0].Value))
	}
	rule, values := s.rule, entries[1:]
	if s.plans != nil {
		if len(values) == 0 || values[0].Key != planKey {
			return Cell{}, false, fmt.Errorf("%w: the second entry of limit %q must be %q", ErrBadDescriptor, clip(entries[0].Value), planKey)
		}
		if rule = s.plans[values[0].Value]; rule == nil {
			return Cell{}, false, nil
		}
	}
	return Cell{Rule: rule, Key: rule.key(values)}, true, nil
}

// clip bounds what of a stranger's text reaches an error.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
