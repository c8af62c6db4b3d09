// Package limits holds the rules of the limiter as data and says which
// counters a request touches. Invariant: two requests share a counter exactly
// when the same rule applies to both and they agree in every value that the
// rule counts by, whatever bytes those values hold.
package limits

import (
	"errors"
	"fmt"
	"strings"
	"time"

	limitsv1 "tollgate/api/limits/v1"
	"tollgate/ratelimit/engine"
)

// Rule is one limit.
type Rule struct {
	ID      string
	Slot    string // value of a descriptor's "limit" entry
	Plan    string // only for limits of a plan
	Unit    string // "second" … "month"; "" for a plain duration
	By      []string
	Rate    engine.Rate
	OnError engine.OnError
	Shadow  bool
	Message string // for the refused client; "" for a default

	prefix string // of every counter's key
}

// unitWindow returns the length of a unit. A month has 30 days in name: fixed
// windows are the calendar's, and gcra spreads its requests over 30 days.
func unitWindow(unit string) (time.Duration, bool) {
	const day = 24 * time.Hour
	switch unit {
	case "second":
		return time.Second, true
	case "minute":
		return time.Minute, true
	case "hour":
		return time.Hour, true
	case "day":
		return day, true
	case "week":
		return 7 * day, true
	case "month":
		return 30 * day, true
	}
	return 0, false
}

// Rules returns the rules of a set, or every fault it has.
func Rules(set *limitsv1.RuleSet) ([]*Rule, error) {
	if set.GetName() == "" {
		return nil, errors.New("rule set without a name: the control plane that sent it must name it")
	}
	rules := make([]*Rule, 0, len(set.GetRules()))
	var faults []error
	for i, r := range set.GetRules() {
		rule, err := newRule(r)
		if err != nil {
			faults = append(faults, fmt.Errorf("rule set %q, rule %d (%q): %w", set.GetName(), i, r.GetId(), err))
			continue
		}
		rules = append(rules, rule)
	}
	return rules, errors.Join(faults...)
}

func newRule(r *limitsv1.Rule) (*Rule, error) {
	if r.GetId() == "" || r.GetSlot() == "" {
		return nil, errors.New("id or slot is empty: both are required")
	}
	onError, err := onError(r.GetOnError())
	if err != nil {
		return nil, err
	}
	window := r.GetWindow().AsDuration()
	if want, ok := unitWindow(r.GetUnit()); r.GetUnit() != "" && (!ok || want != window) {
		return nil, fmt.Errorf("unit %q and window %s disagree: send one of second, minute, hour, day, week, month with its length, or no unit", r.GetUnit(), window)
	}
	rate, err := newRate(r, window)
	if err != nil {
		return nil, err
	}
	rule := &Rule{
		ID: r.GetId(), Slot: r.GetSlot(), Plan: r.GetPlan(), Unit: r.GetUnit(), By: r.GetBy(),
		Rate: rate, OnError: onError, Shadow: r.GetShadow(), Message: r.GetMessage(),
	}
	rule.prefix = rule.keyPrefix()
	return rule, nil
}

func newRate(r *limitsv1.Rule, window time.Duration) (engine.Rate, error) {
	switch r.GetAlgorithm() {
	case limitsv1.Rule_FIXED:
		switch r.GetUnit() {
		case "week":
			return engine.NewCalendar(r.GetLimit(), engine.Week)
		case "month":
			return engine.NewCalendar(r.GetLimit(), engine.Month)
		}
		return engine.NewFixed(r.GetLimit(), window)
	case limitsv1.Rule_GCRA:
		return engine.NewGCRA(r.GetLimit(), window, r.GetBurst())
	}
	return engine.Rate{}, fmt.Errorf("algorithm %s is not known to this limiter: upgrade it before using the algorithm", r.GetAlgorithm())
}

func onError(o limitsv1.Rule_OnError) (engine.OnError, error) {
	switch o {
	case limitsv1.Rule_LOCAL:
		return engine.Local, nil
	case limitsv1.Rule_OPEN:
		return engine.Open, nil
	case limitsv1.Rule_CLOSED:
		return engine.Closed, nil
	}
	return 0, fmt.Errorf("on_error %s is not known to this limiter: upgrade it before using the word", o)
}

// keyPrefix names the rule and all that gives its counters their meaning but
// not its numbers: those may change and the count stays.
func (r *Rule) keyPrefix() string {
	var b strings.Builder
	writePart(&b, r.ID)
	switch {
	case r.Rate.Algorithm == engine.GCRA:
		b.WriteString("|gcra")
	case r.Rate.Calendar != engine.Epoch:
		b.WriteString("|" + r.Unit)
	default:
		fmt.Fprintf(&b, "|%s", r.Rate.Window)
	}
	fmt.Fprintf(&b, "|%d", len(r.By))
	for _, name := range r.By {
		b.WriteByte('|')
		writePart(&b, name)
	}
	return b.String()
}
