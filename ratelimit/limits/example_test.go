package limits_test

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	limitsv1 "tollgate/api/limits/v1"
	"tollgate/ratelimit/limits"
)

// Two callers whose names are made to collide keep a counter each.
func ExampleTable_Match() {
	rules, _ := limits.Rules(&limitsv1.RuleSet{Name: "gateway", Rules: []*limitsv1.Rule{{
		Id: "gateway/each", Slot: "gateway/each", Limit: 10, Window: durationpb.New(time.Minute), By: []string{"tenant", "user"},
		Algorithm: limitsv1.Rule_FIXED, OnError: limitsv1.Rule_LOCAL,
	}}})
	table, _ := limits.NewTable(rules)
	for _, caller := range [][2]string{{"a|b", "c"}, {"a", "b|c"}} {
		cell, _, _ := table.Match([]limits.Entry{{"limit", "gateway/each"}, {"tenant", caller[0]}, {"user", caller[1]}})
		fmt.Println(cell.Key)
	}
	// Output:
	// gateway/each|1m0s|2|tenant|user|a\|b|c
	// gateway/each|1m0s|2|tenant|user|a|b\|c
}
