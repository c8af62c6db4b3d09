package adsclient_test

import (
	"testing"

	"go.uber.org/goleak"

	"tollgate/internal/adsclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]adsclient.Config{
		"no servers": {NodeID: "n"},
		"no node":    {Servers: []string{"x:1"}, Types: []string{"t"}, Apply: func(adsclient.Update) error { return nil }},
		"no types":   {Servers: []string{"x:1"}, NodeID: "n", Apply: func(adsclient.Update) error { return nil }},
	} {
		if _, err := adsclient.New(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
