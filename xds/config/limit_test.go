package config_test

import (
	"strings"
	"testing"

	"tollgate/xds/config"
	"tollgate/xds/config/language"
)

// TestRoundedRate: a bucket that refills by less than was written says so, with
// its line and with what it does.
func TestRoundedRate(t *testing.T) {
	for limit, want := range map[string]string{
		"limit: 1000, per: second, algorithm: gcra":               "",
		"limit: 9000000, per: second, algorithm: gcra":            "", // 112 ns: 0.8 % too slow
		"limit: 30000000, per: second, algorithm: gcra":           "30000000 in 1s come out as 29411764",
		"limit: 2000000000, per: second, algorithm: gcra":         "2000000000 in 1s come out as 1000000000",
		"limit: 1900000000, per: minute, algorithm: gcra":         "1900000000 in 1m0s come out as 1875000000",
		"limit: 2000000000, per: second":                          "",
		"limit: 3, per: week, algorithm: gcra":                    "",
		"limit: 30000000, per: second, algorithm: gcra, burst: 9": "30000000 in 1s come out as 29411764",
	} {
		text := "version: 1\nlisteners: [{name: http, address: 127.0.0.1:1}]\nrate_limit:\n  - {name: x, " + limit + "}\n"
		_, warnings, err := language.Parse([]config.Source{{Name: "g.yaml", Data: []byte(text)}}, nil)
		if err != nil {
			t.Fatalf("%s: %v", limit, err)
		}
		said := strings.Join(lines(warnings), "\n")
		if want == "" && said != "" || want != "" && !strings.HasPrefix(said, "warning: g.yaml:4:22: rate_limit[x].limit: "+want) {
			t.Errorf("%s: %q, want %q", limit, said, want)
		}
	}
}
