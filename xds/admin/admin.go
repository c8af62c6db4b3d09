// Package admin is the operator's HTTP API of a control plane: who runs what,
// and the registry of instances. Invariants: reading shows no secret, and is for
// whoever stands before it to allow; every change needs the token of the service
// that is changed.
package admin

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"tollgate/api/contract"
	"tollgate/internal/daemon"
	"tollgate/internal/envelope"
	"tollgate/xds/discovery"
	"tollgate/xds/ledger"
)

// maxBody bounds a registration.
const maxBody = 4 << 10

// Config is what the API shows and changes.
type Config struct {
	Ledger   *ledger.Ledger
	Registry *discovery.Registry
	Served   func() Served // nil: nobody says
	Proxy    string        // node id of the proxy that belongs to this control plane; "": none does
	Secret   string        // that the services' tokens are made from
	Log      *slog.Logger  // of refused registrations; sampled where callers may be strangers
	// Resend forgets what a node refused and sends it again; it returns to how many
	// streams. nil: nobody can.
	Resend func(node string) int
	// AllowShrink lets what waits because it takes away too much, by what it is, and
	// returns what waited; nil when nothing did.
	AllowShrink map[string]func() error
	// Owns says whether a request's connection proved to be a service: that needs
	// no token, and may register nothing else. nil: none does.
	Owns func(r *http.Request, service string) bool
	Now  func() time.Time
}

// New returns the handler of /v1/.
func New(cfg Config) http.Handler {
	a := &api{Config: cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", a.status)
	mux.HandleFunc("GET /v1/events", a.events)
	mux.HandleFunc("GET /v1/registry", a.list)
	mux.HandleFunc("PUT /v1/registry/{service}/{instance}", a.put)
	mux.HandleFunc("DELETE /v1/registry/{service}/{instance}", a.remove)
	mux.HandleFunc("POST /v1/resend", a.resend)
	mux.HandleFunc("POST /v1/allow-shrink/{what}", a.allowShrink)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.refuse(w, r, http.StatusNotFound, "not_found", "Not found")
	})
	return mux
}

type api struct{ Config }

func (a *api) status(w http.ResponseWriter, _ *http.Request) {
	status := Status{Time: a.Now().UTC(), Proxy: a.Proxy, Nodes: a.Ledger.Lines()}
	if a.Served != nil {
		served := a.Served()
		status.Served = &served
	}
	a.answer(w, status)
}

// events is what happened lately between us and a node.
func (a *api) events(w http.ResponseWriter, r *http.Request) {
	a.answer(w, map[string]any{"events": a.Ledger.Events(r.URL.Query().Get("node"))})
}

// allowShrink lets what waits because it takes away too much.
func (a *api) allowShrink(w http.ResponseWriter, r *http.Request) {
	let := a.AllowShrink[r.PathValue("what")]
	if let == nil {
		a.refuse(w, r, http.StatusNotFound, "not_found", "what can wait is: files, instances")
		return
	}
	said := ""
	if waited := let(); waited != nil {
		said = waited.Error()
	}
	a.answer(w, map[string]string{"waited": said})
}

// Resent is what POST /v1/resend answers.
type Resent struct {
	Streams int      `json:"streams"` // of the node
	Refused []string `json:"refused"` // type and name of what it had refused; empty: nothing
}

// resend sends a node again what it refused, after its cause was mended.
func (a *api) resend(w http.ResponseWriter, r *http.Request) {
	node, n := r.URL.Query().Get("node"), 0
	refused := append([]string{}, a.Ledger.Refusals(node)...)
	if a.Resend != nil {
		n = a.Resend(node)
	}
	if n == 0 {
		a.refuse(w, r, http.StatusNotFound, "not_found", "no such node is connected: `tollgate status` lists those that are")
		return
	}
	a.answer(w, Resent{Streams: n, Refused: refused})
}

func (a *api) list(w http.ResponseWriter, _ *http.Request) {
	type row struct {
		Service  string `json:"service"`
		Instance string `json:"instance"`
		Address  string `json:"address"`
		Weight   uint32 `json:"weight"`
		Zone     string `json:"zone,omitempty"`
		State    string `json:"state"`
	}
	rows := []row{}
	for service, instances := range a.Registry.Snapshot() {
		for _, i := range instances {
			state := contract.StateUp
			if i.Draining {
				state = contract.StateDraining
			}
			rows = append(rows, row{service, i.ID, i.Address.String(), i.Weight, i.Zone, state})
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Instance, b.Instance))
	})
	a.answer(w, map[string]any{"instances": rows})
}

func (a *api) put(w http.ResponseWriter, r *http.Request) {
	if !a.allowed(w, r) {
		return
	}
	var reg discovery.Registration
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&reg); err != nil {
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			a.refuse(w, r, http.StatusRequestEntityTooLarge, "payload_too_large", fmt.Sprintf("a registration is at most %d bytes", maxBody))
			return
		}
		a.refuse(w, r, http.StatusBadRequest, "bad_request", `the body must be {"address","weight","zone","state","ttl_s"}: `+err.Error())
		return
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		a.refuse(w, r, http.StatusBadRequest, "bad_request", "the body holds more than one value")
		return
	}
	err := a.Registry.Put(r.PathValue("service"), r.PathValue("instance"), reg)
	switch {
	case errors.Is(err, discovery.ErrFull):
		a.refuse(w, r, http.StatusServiceUnavailable, "registry_full", err.Error())
	case err != nil:
		a.Log.Warn("registration refused", "resource", r.PathValue("service")+"/"+r.PathValue("instance"), "address", r.RemoteAddr, "err", err)
		a.refuse(w, r, http.StatusBadRequest, "bad_request", err.Error())
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (a *api) remove(w http.ResponseWriter, r *http.Request) {
	if !a.allowed(w, r) {
		return
	}
	a.Registry.Delete(r.PathValue("service"), r.PathValue("instance"))
	w.WriteHeader(http.StatusNoContent)
}

// allowed takes the token of the service that is named, and no other's.
func (a *api) allowed(w http.ResponseWriter, r *http.Request) bool {
	if a.Owns != nil && a.Owns(r, r.PathValue("service")) {
		return true
	}
	if a.Secret != "" && daemon.Bearer(r, discovery.ServiceToken(a.Secret, r.PathValue("service"))) {
		return true
	}
	a.Log.Warn("registration refused: no token of this service", "method", r.Method, "resource", r.PathValue("service")+"/"+r.PathValue("instance"), "address", r.RemoteAddr)
	w.Header().Set("WWW-Authenticate", `Bearer realm="tollgate"`)
	a.refuse(w, r, http.StatusUnauthorized, "missing_credential", "the registry takes the token of the service as a bearer: `tollgate registry-token --service NAME` prints it")
	return false
}

func (a *api) refuse(w http.ResponseWriter, r *http.Request, status int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(envelope.JSON(status, reason, message, r.Header.Get("X-Request-Id"), a.Now()))
}

func (a *api) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
