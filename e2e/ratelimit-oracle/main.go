// Command ratelimit-oracle is envoyproxy/ratelimit, the reference rate-limit
// server, built from a pinned version. An e2e test runs it against our control
// plane and compares its decisions with those of our own limiter. It is a
// module of its own so that its dependencies, grpc-go 1.74 among them, never
// meet those of the gateway.
//
// It is configured by environment variables alone; README.md lists those that
// the test sets.
package main

import (
	"github.com/envoyproxy/ratelimit/src/service_cmd/runner"
	"github.com/envoyproxy/ratelimit/src/settings"
)

func main() {
	oracle := runner.NewRunner(settings.NewSettings())
	oracle.Run()
}
