package instance

import (
	"net/http"
	"strings"

	"tollgate/api/contract"
	"tollgate/services/kit/auth"
	"tollgate/services/kit/httpx"
)

// view is a request as this instance saw it, for comparing with what the
// gateway decided on.
type view struct {
	Service     string              `json:"service"`
	Instance    string              `json:"instance"`
	Tenant      string              `json:"tenant"`
	User        string              `json:"user"`
	Kind        string              `json:"kind"`
	Permissions []string            `json:"permissions"`
	Host        string              `json:"host"`
	Path        string              `json:"path"`
	Method      string              `json:"method"`
	Headers     map[string][]string `json:"headers"`
}

// WhoAmI answers with the caller and the request as seen here. Values are shown
// only of headers that begin with x-, and never of those that carry credentials.
func (i *Instance) WhoAmI(w http.ResponseWriter, r *http.Request) error {
	caller := auth.From(r.Context())
	headers := map[string][]string{}
	for name, values := range r.Header {
		name = strings.ToLower(name)
		headers[name] = []string{}
		if strings.HasPrefix(name, "x-") && name != contract.HeaderKey && name != contract.HeaderToken {
			headers[name] = values
		}
	}
	return httpx.JSON(w, http.StatusOK, view{
		Service: i.cfg.Service, Instance: i.cfg.Instance,
		Tenant: caller.Tenant, User: caller.User, Kind: caller.Kind, Permissions: caller.Permissions,
		Host: r.Host, Path: r.URL.EscapedPath(), Method: r.Method, Headers: headers,
	})
}
