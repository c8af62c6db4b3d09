package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

const steadyGateway = head + `
upstreams:
  - {name: a, endpoints: ["${a}"]}
routes:
  - {name: main, match: {path: {prefix: /main}}, auth: ` + either + `, upstream: a}
`

// extra is a public route that a file adds at its end.
func extra(name, rest string) string {
	return fmt.Sprintf("  - {name: %s, match: {path: {prefix: /%s}}, auth: public, upstream: a%s}\n", name, name, rest)
}

// at is where a word first stands in a gateway file, as a fault says it.
func at(text, word string) string {
	before, _, found := strings.Cut(text, word)
	if !found {
		return "no " + word
	}
	return fmt.Sprintf("/gateway.yaml:%d:%d: ", strings.Count(before, "\n")+1, len(before)-strings.LastIndexByte(before, '\n'))
}

// readiness is the body of /readyz.
type readiness struct {
	Status string   `json:"status"`
	Faults []string `json:"faults"`
}

// tells says whether it is degraded by just these faults, in this order.
func (r readiness) tells(faults ...string) bool {
	return r.Status == "degraded" && slices.EqualFunc(r.Faults, faults, strings.Contains)
}

// ready asks the control plane, which stays ready whatever the file is like.
func ready(t *testing.T, s *harness.Stack) readiness {
	t.Helper()
	status, body := s.Readyz(t)
	var r readiness
	if err := json.Unmarshal([]byte(body), &r); err != nil || status != okOnly {
		t.Fatalf("/readyz: %d, %v in %q", status, err, body)
	}
	return r
}

// refusals are the faults that the control plane has logged.
func refusals(p *harness.Process) []string {
	var faults []string
	for line := range strings.Lines(p.Log()) {
		var record struct{ Level, Msg, Err string }
		if json.Unmarshal([]byte(line), &record) == nil && record.Level == "ERROR" && strings.HasPrefix(record.Msg, "gateway file refused") {
			faults = append(faults, record.Err)
		}
	}
	return faults
}

type badEdit struct {
	name, text string
	faults     []string
}

// badEdits are files that are refused, each with a good new route /bad before
// its faults, which must not be served either.
func badEdits() []badEdit {
	good := steadyGateway + extra("bad", "")
	unknown := good + extra("x", ", mirror: {upstream: b, percent: 100%}")
	open := strings.Replace(good, "auth: "+either+", ", "", 1)
	many := strings.Replace(good, "{name: globex}", "{name: globex, plan: gold}", 1) + extra("y", `, rate_limit: [{limit: -1, per: minute}]`)
	broken := good + "  : [oops"
	return []badEdit{
		{"a name that nothing has", unknown, []string{at(unknown, "b, percent") + `routes[x].mirror.upstream: no upstream is named "b"`}},
		{"a route without auth", open, []string{at(open, "{name: main") + "routes[main]: auth is missing"}},
		{"two faults, both told", many, []string{at(many, "gold") + "tenants[globex].plan: ", at(many, "-1, per") + "routes[y].rate_limit[0].limit: "}},
		{"no YAML", broken, []string{at(broken, ": [oops") + "not YAML: "}},
		{"empty", "", []string{"/gateway.yaml:1:1: the file is empty"}},
	}
}

// TestProof05BadEdit: a file that is refused changes nothing that is served,
// shows where an operator looks, and the next good one lands.
func TestProof05BadEdit(t *testing.T) {
	whole := t
	up := harness.NewUpstream(t, "a")
	s := harness.NewStack(t, harness.Options{
		Gateway: steadyGateway, ExtAuthz: 2, Vars: map[string]string{"a": up.Address},
		Keys: []harness.Key{{Name: "key", Tenant: "acme", Permissions: []string{"*"}}},
	})
	load := traffic.Start(traffic.Load{
		Request: traffic.Request{URL: s.URL("/main"), Header: withKey(s.Secrets["key"])}, Rate: 200, Duration: 2 * time.Minute,
	})
	awaitWell(t, s)
	accepted := answers(t, s, "ack")
	for i, edit := range badEdits() {
		t.Run(edit.name, func(t *testing.T) {
			seen := len(refusals(s.XDS))
			s.Save(t, edit.text)
			harness.Eventually(t, time.Second, "every fault shows in /readyz at its place", func() error {
				if r := ready(t, s); !r.tells(edit.faults...) {
					return fmt.Errorf("%+v, want %q", r, edit.faults)
				}
				return nil
			})
			harness.Eventually(t, time.Second, "every fault is in the log", func() error {
				if told := refusals(s.XDS)[seen:]; !slices.Equal(told, ready(t, s).Faults) {
					return fmt.Errorf("it says %q", told)
				}
				return nil
			})
			wantMetric(t, s, float64(len(edit.faults)), "tollgate_config_faults")
			wantMetric(t, s, float64(i+1), "tollgate_reloads_total", `result="refused"`)
			_, said, code := harness.Run(t, "validate", s.File)
			if code != 1 || strings.Count(said, "\n") != len(edit.faults) || !strings.Contains(said, edit.faults[0]) {
				t.Errorf("tollgate validate: exit %d, %s", code, said)
			}
			time.Sleep(300 * time.Millisecond)
			if a := get(t, s, "/bad", nil); a.Status != http.StatusNotFound {
				t.Errorf("the good part of a bad file is served: %d", a.Status)
			}
		})
	}
	if n := answers(t, s, "ack"); n != accepted {
		t.Errorf("bad files led to %v responses", n-accepted)
	}
	t.Run("who starts meanwhile gets the last good one", func(t *testing.T) {
		s.RestartExtAuthz(whole, 0)
		harness.Eventually(t, 3*time.Second, "it decides as the other does", func() error {
			if harness.Metric(t, s.Address(t, "extauthz-0-admin"), "tollgate_extauthz_decisions_total", `status="200"`) == 0 {
				return errors.New("no decision yet")
			}
			return nil
		})
	})
	t.Run("the next good one lands", func(t *testing.T) {
		s.Save(t, steadyGateway+extra("next", ""))
		awaitStatus(t, s, "/next", nil, okOnly, time.Second)
		awaitWell(t, s)
		wantMetric(t, s, 0, "tollgate_config_faults")
	})
	t.Run("a file that is named goes bad", func(t *testing.T) { badReference(t, s) })
	t.Run("what only Envoy can refuse", func(t *testing.T) { refusedByEnvoy(t, s) })
	clean(t, "load during bad edits", load.Stop(), okOnly)
}

// badReference breaks a file that the gateway file names, then takes it away,
// then mends it.
func badReference(t *testing.T, s *harness.Stack) {
	place := at(steadyGateway, "jwks.json")
	for _, change := range []struct {
		fault string
		do    func()
	}{
		{"not a JSON Web Key Set", func() { s.SaveFile(t, "jwks.json", "nonsense") }},
		{"cannot be read", func() { s.RemoveFile(t, "jwks.json") }},
	} {
		change.do()
		harness.Eventually(t, 2*time.Second, "the fault shows in /readyz", func() error {
			if r := ready(t, s); !r.tells(place+"identity.issuers[platform].jwks") || !strings.Contains(r.Faults[0], change.fault) {
				return fmt.Errorf("%+v, want %q at %s", r, change.fault, place)
			}
			return nil
		})
		if a := get(t, s, "/main", withToken(s.Issuer.Token(t, harness.Claims("acme", "ann")))); a.Status != okOnly {
			t.Errorf("a token of the last good keys: %d %s", a.Status, a.Body)
		}
	}
	s.SaveFile(t, "jwks.json", string(s.Issuer.JWKS()))
	awaitWell(t, s)
}

// refusedByEnvoy asks for a listener on a port that another process has: the
// file is good, the proxy cannot do it. What else the file says lands.
func refusedByEnvoy(t *testing.T, s *harness.Stack) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	s.Save(t, strings.Replace(steadyGateway, "listeners:", fmt.Sprintf("listeners:\n  - {name: second, address: %q}", taken.Addr()), 1)+extra("beside", ""))
	awaitStatus(t, s, "/beside", nil, okOnly, time.Second)
	harness.Eventually(t, 3*time.Second, "the refusal shows", func() error {
		if said := s.Status(t); !containsAll(said, "edge-1", "REFUSED", `listener "second"`) {
			return fmt.Errorf("tollgate status: %s", said)
		}
		return nil
	})
	if answers(t, s, "nack") == 0 || !containsAll(s.XDS.Log(), "client refused its config", `"resource":"second"`) {
		t.Error("the refusal is not counted or not logged")
	}
	s.Save(t, steadyGateway+extra("after", ""))
	awaitStatus(t, s, "/after", nil, okOnly, time.Second)
	harness.Eventually(t, 3*time.Second, "nothing is refused any more", func() error {
		if said := s.Status(t); strings.Contains(said, "REFUSED") {
			return fmt.Errorf("tollgate status: %s", said)
		}
		return nil
	})
	awaitWell(t, s)
}

func awaitWell(t *testing.T, s *harness.Stack) {
	t.Helper()
	harness.Eventually(t, 3*time.Second, "/readyz is well", func() error {
		if r := ready(t, s); r.Status != "ok" || len(r.Faults) != 0 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}

// answers counts what clients said to the control plane's responses.
func answers(t *testing.T, s *harness.Stack, answer string) float64 {
	t.Helper()
	return harness.Metric(t, s.Address(t, "admin"), "tollgate_xds_answers_total", `answer="`+answer+`"`)
}

func wantMetric(t *testing.T, s *harness.Stack, want float64, words ...string) {
	t.Helper()
	if got := harness.Metric(t, s.Address(t, "admin"), words...); got != want {
		t.Errorf("%q is %v, want %v", words, got, want)
	}
}
