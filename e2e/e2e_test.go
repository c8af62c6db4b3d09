// Package e2e_test proves from outside, with the real Envoy and the real Redis,
// what the project claims. One file per claim; TestProof01 … TestProof11 are
// the acceptance list. Invariant: a test looks only at what a client, an
// upstream or an operator can see.
package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

func TestMain(m *testing.M) {
	if os.Getenv(intruder) != "" {
		if err := intrude(os.Stdin, os.Stdout); err != nil {
			panic(err)
		}
		return
	}
	dir, err := os.MkdirTemp("", "tollgate-bin-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := harness.Build(context.Background(), dir); err != nil {
		panic(err)
	}
	m.Run()
}

// head is how most gateway files of these tests begin.
const head = `version: 1
listeners:
  - {name: http, address: "${http}"}
identity:
  issuers:
    - {name: platform, issuer: "https://auth.e2e.test", audiences: [api], jwks: {file: jwks.json}, claims: {tenant: tenant, user: sub, permissions: permissions}}
  api_keys: {header: x-api-key, store: file:keys.yaml}
  roles: {admin: ["*"]}
tenants:
  - {name: acme}
  - {name: globex}
`

// either is the credential of protected routes: a JWT or an API key.
const either = `{any_of: [{jwt: platform}, api_key]}`

// get sends a GET through the stack's plain listener.
func get(t *testing.T, s *harness.Stack, path string, header map[string]string) traffic.Answer {
	t.Helper()
	return traffic.Request{URL: s.URL(path), Header: header}.Do(t, nil)
}

func withKey(secret string) map[string]string { return map[string]string{"x-api-key": secret} }

func withToken(token string) map[string]string {
	return map[string]string{"authorization": "Bearer " + token}
}

// awaitStatus polls until a GET answers with a status. No answer on the way may
// be 5xx, unless that is what is waited for.
func awaitStatus(t *testing.T, s *harness.Stack, path string, header map[string]string, status int, within time.Duration) time.Duration {
	t.Helper()
	client := traffic.NewClient(1)
	defer client.CloseIdleConnections()
	return harness.Eventually(t, within, fmt.Sprintf("%s answers %d", path, status), func() error {
		answer := traffic.Request{URL: s.URL(path), Header: header}.Do(t, client)
		if answer.Status >= 500 && status < 500 {
			t.Fatalf("%s answered %d on the way to %d: %s", path, answer.Status, status, answer.Body)
		}
		if answer.Status != status {
			return fmt.Errorf("it answers %d %s", answer.Status, answer.Body)
		}
		return nil
	})
}

// envelope is the error body that every refusal has.
type envelope struct {
	Error struct {
		Code    string `json:"code"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
		Details []any  `json:"details"`
	} `json:"error"`
	Meta struct {
		Timestamp string  `json:"timestamp"`
		RequestID *string `json:"request_id"`
	} `json:"meta"`
}

// wantEnvelope checks a refusal's status, its form and its reason.
func wantEnvelope(t *testing.T, a traffic.Answer, status int, code, reason string) {
	t.Helper()
	if a.Status != status {
		t.Fatalf("status %d, want %d: %s", a.Status, status, a.Body)
	}
	if got := a.Header.Get("content-type"); !strings.HasPrefix(got, "application/json") {
		t.Errorf("content-type %q", got)
	}
	decoder := json.NewDecoder(strings.NewReader(a.Body))
	decoder.DisallowUnknownFields()
	var e envelope
	if err := decoder.Decode(&e); err != nil {
		t.Fatalf("not the envelope: %v in %q", err, a.Body)
	}
	if e.Error.Code != code || e.Error.Reason != reason || e.Error.Message == "" || e.Error.Details == nil {
		t.Errorf("envelope %s, want code %s, reason %s, a message and a list of details", a.Body, code, reason)
	}
	if at, err := time.Parse("2006-01-02T15:04:05.000Z", e.Meta.Timestamp); err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("timestamp %q: %v", e.Meta.Timestamp, err)
	}
	if e.Meta.RequestID != nil && *e.Meta.RequestID == "" {
		t.Errorf("request_id is empty; it is an id or null: %s", a.Body)
	}
}

// clean fails the test when a request of a load was not answered as wanted.
func clean(t *testing.T, what string, r *traffic.Result, statuses ...int) {
	t.Helper()
	if n := r.Not(statuses...); n != 0 || r.Sent == 0 {
		t.Errorf("%s: %d of %d requests were not answered %v: %s", what, n, r.Sent, statuses, r)
	}
	t.Logf("%s: %s", what, r)
}

// copyDemo copies the shipped gateway file and what it names to a folder of the
// test's own, so that nothing is written beside the shipped one.
func copyDemo(t *testing.T) string {
	t.Helper()
	dir := harness.TempDir(t)
	for _, name := range []string{"gateway.yaml", "jwks.json"} {
		data, err := os.ReadFile(filepath.Join(harness.Root(t), "configs", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "gateway.yaml")
}

// startRun starts the whole gateway in one process and waits for its ready line.
func startRun(t *testing.T, file string, more ...string) (*harness.Process, time.Duration) {
	t.Helper()
	args := append([]string{"run", "--json", "--free-ports", "-f", file, "--envoy-path", harness.EnvoyPath(t)}, more...)
	start := time.Now()
	p := harness.Start(t, harness.Command{Name: "run", Path: harness.Tollgate(t), Args: args, Dir: filepath.Dir(file)})
	p.AwaitReady(t, 30*time.Second)
	return p, time.Since(start)
}

// okOnly is what most loads must get.
const okOnly = http.StatusOK

// field returns a string field of a JSON object, at the top or in "data".
func field(t *testing.T, body, name string) string {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(body), &object); err != nil {
		t.Fatalf("not JSON: %v in %q", err, body)
	}
	if inner, ok := object["data"].(map[string]any); ok {
		object = inner
	}
	value, ok := object[name].(string)
	if !ok {
		t.Fatalf("no %q in %s", name, body)
	}
	return value
}

// writeGateway writes a gateway file, with the listener's port left open, to a
// folder of its own.
func writeGateway(t *testing.T, text string) string {
	t.Helper()
	dir := harness.TempDir(t)
	path := filepath.Join(dir, "gateway.yaml")
	text = strings.ReplaceAll(text, "${http}", "127.0.0.1:0")
	for name, content := range map[string]string{path: text, filepath.Join(dir, "jwks.json"): `{"keys": []}`} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func containsAll(text string, words ...string) bool {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return false
		}
	}
	return true
}
