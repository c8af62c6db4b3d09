package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"text/template"

	"tollgate/cmd/tollgate/demo"
	"tollgate/internal/daemon"
)

// readiness is the line that `tollgate run --json` prints when all is ready.
type readiness struct {
	Ready      bool              `json:"ready"`
	Listeners  map[string]string `json:"listeners"`
	XDS        string            `json:"xds"`
	ExtAuthz   string            `json:"extauthz"`
	RateLimit  string            `json:"ratelimit"`
	Admin      string            `json:"admin"`
	EnvoyAdmin string            `json:"envoy_admin,omitempty"`
	PIDs       map[string]int    `json:"pids"`
	Instances  []demo.Instance   `json:"instances"`
	Demo       *demo.Access      `json:"demo,omitempty"`
}

// roleReady is the line of a role that runs alone.
type roleReady struct {
	Ready   bool   `json:"ready"`
	Role    string `json:"role"`
	Address string `json:"address"`
	Admin   string `json:"admin"`
	PID     int    `json:"pid"`
}

func sayRole(w io.Writer, asJSON bool, role, address, admin string) error {
	if asJSON {
		return json.NewEncoder(w).Encode(roleReady{Ready: true, Role: role, Address: address, Admin: admin, PID: os.Getpid()})
	}
	_, err := fmt.Fprintf(w, "tollgate %s is ready on %s; admin http://%s\n", role, address, admin)
	return err
}

const welcome = `
{{.Bold}}Tollgate is ready.{{.Plain}}
{{range $name, $url := .Listeners}}
  {{$name}}	{{$url}}{{end}}
  admin	{{.Admin}}
{{- if .EnvoyAdmin}}
  envoy	{{.EnvoyAdmin}}{{end}}
{{- with .Demo}}

  export KEY={{.APIKey}}
  export JWT={{.JWT}}

{{$.Bold}}Try it:{{$.Plain}}
  curl -i {{$.URL}}/healthz                                   {{$.Dim}}# 200 from Envoy itself{{$.Plain}}
  curl -i -H "x-api-key: $KEY" {{$.URL}}/api/orders           {{$.Dim}}# 200 through the order service{{$.Plain}}
  curl -i -H "authorization: Bearer $JWT" {{$.URL}}/api/users {{$.Dim}}# 200 through the user service{{$.Plain}}
  curl -i {{$.URL}}/api/orders                                {{$.Dim}}# 401 missing_credential{{$.Plain}}
  curl -i -X DELETE -H "x-api-key: $KEY" {{$.URL}}/api/orders/1 {{$.Dim}}# 403 a key may not delete{{$.Plain}}
  curl -Z --no-progress-meter -o /dev/null -w '%{http_code}\n' -H "x-api-key: $KEY" '{{$.URL}}/api/orders?n=[1-200]' | sort | uniq -c   {{$.Dim}}# 429 after the burst{{$.Plain}}

Then change {{$.Files}} and save: the gateway follows. Ctrl-C stops it without cutting a request.
{{- end}}
`

// say prints the ready line, for a program or for a person, who may edit these files.
func (r readiness) say(w io.Writer, asJSON bool, files []string) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	page := struct {
		readiness
		URL, Files, Bold, Dim, Plain string
	}{readiness: r, Files: strings.Join(files, " or ")}
	for _, name := range slices.Sorted(maps.Keys(r.Listeners)) {
		page.URL = r.Listeners[name]
		break
	}
	if daemon.Terminal(w) {
		page.Bold, page.Dim, page.Plain = "\x1b[1m", "\x1b[2m", "\x1b[0m"
	}
	return template.Must(template.New("").Parse(welcome)).Execute(w, page)
}

// readyFlag is set once all is ready.
type readyFlag struct{ ready atomic.Bool }

func (r *readyFlag) set() { r.ready.Store(true) }

func (r *readyFlag) err() error {
	if !r.ready.Load() {
		return errors.New("not all parts are ready yet")
	}
	return nil
}

// readiness tells where everything is.
func (t *stack) readiness() readiness {
	r := readiness{
		Ready: true, Listeners: map[string]string{},
		XDS: t.control.Address().String(), ExtAuthz: t.listeners.authz.Addr().String(), RateLimit: t.listeners.limits.Addr().String(),
		Admin: "http://" + t.listeners.admin.Addr().String(), PIDs: map[string]int{"tollgate": os.Getpid()}, Instances: []demo.Instance{},
	}
	gateway := t.control.Gateway()
	for name, address := range t.control.Listeners() {
		scheme := "http"
		for _, l := range gateway.Listeners {
			if l.Name == name && l.TLS != nil {
				scheme = "https"
			}
		}
		r.Listeners[name] = scheme + "://" + address.String()
	}
	if t.envoy != nil {
		r.EnvoyAdmin, r.PIDs["envoy"] = t.envoy.Admin().String(), t.envoy.PID()
		if !t.envoy.Admin().Socket() {
			r.EnvoyAdmin = "http://" + r.EnvoyAdmin
		}
	}
	if t.demo != nil {
		r.Instances, r.Demo = t.demo.Instances, &t.demo.Access
	}
	return r
}
