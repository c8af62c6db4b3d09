package compile

import (
	"strconv"

	"tollgate/api/contract"
	"tollgate/xds/config"
)

// Names that Envoy, the bootstrap and our servers agree on.
const (
	extAuthzCluster  = "tollgate-extauthz"
	rateLimitCluster = "tollgate-ratelimit"
	otlpCluster      = "tollgate-otlp"

	floodFilter  = "envoy.filters.http.local_ratelimit"
	routerFilter = "envoy.filters.http.router"
)

// certSecret names the i-th certificate of a listener.
func certSecret(listener string, i int) string { return "listener/" + listener + "/" + strconv.Itoa(i) }

// clientCASecret names what verifies the client certificates of a listener.
func clientCASecret(listener string) string { return "listener/" + listener + "/client_ca" }

// keyHeader is where API keys are sent.
func keyHeader(gw *config.Gateway) string {
	if gw.Identity.APIKeys != nil {
		return gw.Identity.APIKeys.Header
	}
	return contract.HeaderKey
}
