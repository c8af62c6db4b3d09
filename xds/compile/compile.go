package compile

import (
	"tollgate/xds/config"
	"tollgate/xds/release"
)

// Compile turns a valid gateway into everything that proxies, gRPC clients,
// authorization servers and limiters are sent, sorted by audience, type and
// name. Warnings name what only the reference rate-limit server would miss.
func Compile(gw *config.Gateway, scope Scope) (objects []release.Object, warnings []string) {
	return nil, nil
}
