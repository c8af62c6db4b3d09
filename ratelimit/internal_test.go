package ratelimit

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	limitsv1 "tollgate/api/limits/v1"
	"tollgate/internal/adsclient"
	"tollgate/ratelimit/limits"
)

func newTestMetrics(t *testing.T) *metrics {
	t.Helper()
	m, err := newMetrics(prometheus.NewRegistry(), func() int { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestRemovedRulesLastAMinute, by a clock that the test owns.
func TestRemovedRulesLastAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var table atomic.Pointer[limits.Table]
		r := newRules(table.Store, newTestMetrics(t), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- r.run(ctx) }()
		body, err := anypb.New(&limitsv1.RuleSet{Name: "gateway", Rules: []*limitsv1.Rule{{
			Id: "a", Slot: "a", Limit: 1, Window: durationpb.New(time.Second), Algorithm: limitsv1.Rule_FIXED, OnError: limitsv1.Rule_OPEN,
		}}})
		if err != nil {
			t.Fatal(err)
		}
		updates := []adsclient.Update{
			{Type: TypeRuleSet, Upserts: []adsclient.Resource{{Name: "gateway", Body: body}}},
			{Type: TypeRuleSet, Removed: []string{"gateway"}},
		}
		for _, u := range updates {
			if err := r.apply(time.Now(), u); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if n := len(table.Load().Rules()); n != 1 {
			t.Errorf("%d rules after 59 s, want the removed one", n)
		}
		time.Sleep(7 * time.Second)
		synctest.Wait()
		if n := len(table.Load().Rules()); n != 0 {
			t.Errorf("%d rules after 66 s", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestUpdatesAreRefusedWhole(t *testing.T) {
	named, err := anypb.New(&limitsv1.RuleSet{Name: "other"})
	if err != nil {
		t.Fatal(err)
	}
	for name, u := range map[string]adsclient.Update{
		"another type":  {Type: "type.googleapis.com/x"},
		"no body":       {Type: TypeRuleSet, Upserts: []adsclient.Resource{{Name: "gateway"}}},
		"another proto": {Type: TypeRuleSet, Upserts: []adsclient.Resource{{Name: "gateway", Body: &anypb.Any{TypeUrl: "type.googleapis.com/google.protobuf.Duration"}}}},
		"broken bytes":  {Type: TypeRuleSet, Upserts: []adsclient.Resource{{Name: "gateway", Body: &anypb.Any{TypeUrl: TypeRuleSet, Value: []byte{0xff}}}}},
		"another name":  {Type: TypeRuleSet, Upserts: []adsclient.Resource{{Name: "gateway", Body: named}}},
	} {
		r := newRules(func(*limits.Table) { t.Errorf("%s: published", name) }, newTestMetrics(t), slog.New(slog.DiscardHandler))
		if r.apply(time.Now(), u) == nil || r.ready() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestShadowsAreCountedApart: what a shadow would have refused was not refused.
func TestShadowsAreCountedApart(t *testing.T) {
	m := newTestMetrics(t)
	m.Refusals("a", true).Inc()
	for mode, want := range map[string]float64{"shadow": 1, "enforced": 0} {
		if got := testutil.ToFloat64(m.refused.WithLabelValues("a", mode)); got != want {
			t.Errorf("%s: %v refusals, want %v", mode, got, want)
		}
	}
}

// TestRuleLabelsAreBounded: an operator with very many rules gets "other".
func TestRuleLabelsAreBounded(t *testing.T) {
	m := newTestMetrics(t)
	for i := range 5 * maxRuleLabels {
		m.Refusals(fmt.Sprint("rule", i), i%2 == 0).Inc()
	}
	if n := testutil.CollectAndCount(m.refused); n < maxRuleLabels || n > 2*maxRuleLabels+2 {
		t.Errorf("%d series", n)
	}
	if len(m.series) > 2*maxRuleLabels+2 {
		t.Errorf("%d series held", len(m.series))
	}
}
