package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tollgate/api/contract"
	limitsv1 "tollgate/api/limits/v1"
	"tollgate/internal/adsclient"
	"tollgate/ratelimit/limits"
)

// TypeRuleSet is the resource that a limiter asks the control plane for.
const TypeRuleSet = contract.TypeRuleSet

const expireEvery = 5 * time.Second

// rules follows the control plane and publishes a table for every good update.
type rules struct {
	publish func(*limits.Table)
	metrics *metrics
	log     *slog.Logger

	mu      sync.Mutex
	keeper  *limits.Keeper
	applied bool
	fault   error // why the last update was refused; nil when it was not
}

func newRules(publish func(*limits.Table), m *metrics, log *slog.Logger) *rules {
	return &rules{publish: publish, metrics: m, log: log, keeper: limits.NewKeeper(contract.RemovedAfter)}
}

func (r *rules) ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.applied {
		return errors.New("rate limit: no rules yet: the control plane has not answered (--xds-servers)")
	}
	return nil
}

// refusal returns why the last update was refused, nil if it was not.
func (r *rules) refusal() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fault
}

// apply takes an update whole or not at all; its error goes back to the
// control plane.
func (r *rules) apply(now time.Time, u adsclient.Update) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	sets, err := decode(u)
	if err != nil {
		return r.refused(err)
	}
	table, err := r.keeper.Apply(now, sets, u.Removed)
	if err != nil {
		return r.refused(err)
	}
	r.applied, r.fault = true, nil
	r.metrics.updates.WithLabelValues("applied").Inc()
	r.show(table)
	r.log.Info("limit rules applied", "type_url", u.Type, "sets", len(sets), "removed", len(u.Removed), "rules", len(table.Rules()))
	return nil
}

func (r *rules) refused(err error) error {
	r.fault = err
	r.metrics.updates.WithLabelValues("refused").Inc()
	r.log.Warn("limit rules refused; the last good ones stay", "type_url", TypeRuleSet, "err", err)
	return err
}

func (r *rules) show(table *limits.Table) {
	r.publish(table)
	r.metrics.rules.Set(float64(len(table.Rules())))
}

// run forgets removed rules when their time is over.
func (r *rules) run(ctx context.Context) error {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			r.expire(now)
		}
	}
}

func (r *rules) expire(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if next, any := r.keeper.Next(); !any || next.After(now) {
		return
	}
	r.show(r.keeper.Expire(now))
}

func decode(u adsclient.Update) ([]*limitsv1.RuleSet, error) {
	if u.Type != TypeRuleSet {
		return nil, fmt.Errorf("resource type %q was not asked for: send %q", u.Type, TypeRuleSet)
	}
	sets := make([]*limitsv1.RuleSet, 0, len(u.Upserts))
	var faults []error
	for _, resource := range u.Upserts {
		set := &limitsv1.RuleSet{}
		if err := resource.Body.UnmarshalTo(set); err != nil {
			faults = append(faults, fmt.Errorf("resource %q: not a tollgate.limits.v1.RuleSet: %w", resource.Name, err))
			continue
		}
		if set.GetName() != resource.Name {
			faults = append(faults, fmt.Errorf("resource %q holds rule set %q: the names must agree", resource.Name, set.GetName()))
			continue
		}
		sets = append(sets, set)
	}
	return sets, errors.Join(faults...)
}
