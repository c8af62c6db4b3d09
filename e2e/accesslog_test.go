package e2e_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

// TestAccessLogFields: a line says who asked for what, by which rule and limit
// it went, and where; a denial says why, in Envoy's line and in the record.
func TestAccessLogFields(t *testing.T) {
	l := startLogged(t, harness.FreeAddress(t), "ann")
	lines := make(chan map[string]any, 10_000)
	go func() {
		in := bufio.NewScanner(l.stderr)
		for in.Scan() {
			line := map[string]any{}
			if json.Unmarshal(in.Bytes(), &line) == nil {
				lines <- line
			}
		}
	}()
	id := func(a traffic.Answer) string { return a.Header.Get("x-request-id") }
	client := traffic.NewClient(1)
	send := func(method, path string, header map[string]string) string {
		header["user-agent"] = "probe/1.0"
		return id(traffic.Request{Method: method, URL: l.url + path, Header: header, Body: "four"}.Do(t, client))
	}
	key := l.keys["ann"]
	first, second := send(http.MethodGet, "/once/x?secret=1", withKey(key)), send(http.MethodGet, "/once/x", withKey(key))
	denied, unknown := send(http.MethodPost, "/once/x", withKey(key)), send(http.MethodGet, "/keyed", withKey("nobody"))
	credential := strings.SplitN(key, "_", 3)[2][:12]
	want := map[string]map[string]any{
		first: {
			"method": "GET", "path": "/once/x", "host": strings.Split(strings.TrimPrefix(l.url, "http://"), ":")[0], "client": "127.0.0.1",
			"user_agent": "probe/1.0", "status": 200.0, "route": "once", "rule": "authorize[0]", "tenant": "acme", "user": "ann",
			"credential": credential, "decision": "ok", "bytes_received": 4.0, "upstream_cluster": "up",
		},
		second:  {"status": 429.0, "limit": "route/once/one", "decision": "over_limit", "user": "ann"},
		denied:  {"status": 403.0, "reason": "permission_denied", "user": "ann", "upstream": nil},
		unknown: {"status": 401.0, "reason": "unknown_key", "user": "(none)"},
	}
	records := map[string]map[string]any{
		denied:  {"reason": "permission_denied", "user": "ann", "client": "127.0.0.1", "cause": "none of these holds: "},
		unknown: {"reason": "unknown_key", "client": "127.0.0.1", "method": "GET"},
	}
	deadline := time.After(10 * time.Second)
	for len(want)+len(records) > 0 {
		select {
		case <-deadline:
			t.Fatalf("not in the log: %v %v", want, records)
		case line := <-lines:
			request, _ := line["request_id"].(string)
			expected, all := want[request], want
			if line["msg"] == "request refused" {
				expected, all = records[request], records
			}
			for name, value := range expected {
				if line[name] != value {
					t.Errorf("%s of %s is %v, want %v: %v", name, request, line[name], value, line)
				}
			}
			if _, ok := line["upstream_ms"].(float64); request == first && !ok {
				t.Errorf("no upstream_ms: %v", line)
			}
			delete(all, request)
		}
	}
}
