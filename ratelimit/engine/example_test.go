package engine_test

import (
	"fmt"
	"time"

	"tollgate/ratelimit/engine"
)

// A request that one limit refuses takes nothing from the others.
func ExampleDecide() {
	tenant, _ := engine.NewFixed(100, time.Hour)
	route, _ := engine.NewFixed(1, time.Hour)
	cells := []engine.Cell{{Key: "tenant", Rate: tenant, Cost: 1}, {Key: "route", Rate: route, Cost: 1}}
	states, readings := make([]engine.State, 2), make([]engine.Reading, 2)
	now := time.Date(2026, 11, 21, 12, 59, 0, 0, time.UTC).UnixMicro()
	for range 2 {
		admitted := engine.Decide(now, cells, states, readings)
		fmt.Println(admitted, readings[0].Remaining, readings[1].Remaining, readings[1].RetryAfter)
	}
	// Output:
	// true 99 0 0s
	// false 99 0 1m0s
}
