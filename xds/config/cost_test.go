package config_test

import (
	"testing"

	"tollgate/internal/cost"
	"tollgate/xds/config"
	"tollgate/xds/config/language"
)

// TestCost gates what a file of a thousand routes costs to parse.
func TestCost(t *testing.T) {
	source := config.Source{Name: "g", Data: []byte(many(1_000, "up%d"))}
	got := cost.Of(3, func() {
		if _, _, err := language.Parse([]config.Source{source}, nil); err != nil {
			t.Fatal(err)
		}
	})
	cost.AtMost(t, "parse of 1,000 routes", got, cost.Cost{Allocs: 266_000, Bytes: 23_900_000})
}
