package clientrate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tollgate/internal/clientrate"
)

// TestLogOfAFlood: a thousand callers with the longest and most quoted words
// that they can send write less than 200 kB in a second; what is left out is
// counted and told, and a line that comes alone is whole.
func TestLogOfAFlood(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	l := clientrate.NewLog(slog.New(slog.NewJSONHandler(&out, nil)), "from")
	metrics := prometheus.NewRegistry()
	if err := errors.Join(l.Register(metrics, "test"), l.Register(nil, "test")); err != nil {
		t.Fatal(err)
	}
	log := l.With("component", "test")
	at := time.Unix(1_800_000_000, 0)
	refused := func(at time.Time, from, word string) {
		r := slog.NewRecord(at, slog.LevelWarn, "refused", 0)
		r.AddAttrs(slog.String("from", from), slog.String("resource", word), slog.String("host", word), slog.String("origin", word), slog.String("method", word), slog.Any("err", errors.New(word)), slog.Int("status", 401))
		if err := log.Handler().Handle(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	for _, word := range []string{strings.Repeat("\x00", 9000), strings.Repeat(`"`, 9000), strings.Repeat("é\u202e", 9000), strings.Repeat(`\`, 9000)} {
		out.Reset()
		for i := range 5000 {
			refused(at, fmt.Sprintf("10.0.%d.%d:%d", i%4, i%250, i), word)
		}
		if n := out.Len(); n > 100_000 || n < 10_000 {
			t.Errorf("%.4q…: %d bytes in a second", word, n)
		}
		at = at.Add(time.Second)
	}
	out.Reset()
	refused(at, "[2001:db8::1]:80", "/v1/status")
	told, line, _ := strings.Cut(strings.TrimSpace(out.String()), "\n")
	var words struct {
		Component, From, Resource, Err string
		Status                         int
	}
	if err := json.Unmarshal([]byte(line), &words); err != nil || words.Resource != "/v1/status" || words.Err != "/v1/status" || words.From != "[2001:db8::1]:80" || words.Status != 401 || words.Component != "test" {
		t.Errorf("%v: %s", err, line)
	}
	if !strings.Contains(told, `"count":4900`) {
		t.Errorf("what was left out is told as %s", told)
	}
	want := "# HELP tollgate_refusals_not_logged_total Refused callers that are not in the log, being beyond what a caller or all of them may fill.\n" +
		"# TYPE tollgate_refusals_not_logged_total counter\ntollgate_refusals_not_logged_total{part=\"test\"} 19600\n"
	if err := testutil.GatherAndCompare(metrics, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

// TestLogTellsCallersApart: one that floods leaves room for another; who has no
// address is one caller.
func TestLogTellsCallersApart(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	log := clientrate.NewLog(slog.New(slog.NewTextHandler(&out, nil)), "address")
	for range 50 {
		log.Warn("refused", "address", "10.0.0.1:1")
		log.Warn("refused", "address", "@")
		log.Warn("refused", "from", "10.0.0.9:1")
	}
	log.Warn("refused", "address", "10.0.0.2:1")
	// The second may turn once.
	if n := strings.Count(out.String(), "10.0.0.1:1"); n < clientrate.PerClient || n > 2*clientrate.PerClient {
		t.Errorf("%d lines of the one that floods", n)
	}
	if n := strings.Count(out.String(), "@") + strings.Count(out.String(), "10.0.0.9"); n < clientrate.PerClient || n > 2*clientrate.PerClient {
		t.Errorf("%d lines of nobody", n)
	}
	if !strings.Contains(out.String(), "10.0.0.2:1") {
		t.Error("the other one is not there")
	}
}
