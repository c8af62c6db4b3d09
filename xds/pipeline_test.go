package xds_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/renameio/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"tollgate/xds"
	"tollgate/xds/discovery"
	"tollgate/xds/files"
	"tollgate/xds/release"
	"tollgate/xds/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// published counts releases.
type published struct {
	mu   sync.Mutex
	list []*release.Release
}

func (p *published) Publish(r *release.Release) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, r)
}

func (p *published) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.list)
}

type nobody struct{ changed chan struct{} }

func (nobody) Snapshot() map[string][]discovery.Instance { return nil }
func (n nobody) Changed() <-chan struct{}                { return n.changed }

// bench is a folder of gateway files with a pipeline over it.
type bench struct {
	*testing.T
	dir, data string
	out       *published
	instances nobody
	metrics   *prometheus.Registry
	log       slog.Handler // nil: none
	pipeline  *xds.Pipeline
}

const (
	edge   = "version: 1\nlisteners: [{name: http, address: 127.0.0.1:8080}]\n"
	orders = "version: 1\nupstreams: [{name: orders, endpoints: [127.0.0.1:9]}]\nroutes: [{name: orders, match: {path: {prefix: /orders}}, auth: public, upstream: orders}]\n"
	users  = "version: 1\nupstreams: [{name: users, endpoints: [127.0.0.1:8]}]\nroutes: [{name: users, match: {path: {prefix: /users}}, auth: public, upstream: users}]\n"
)

func newBench(t *testing.T) *bench {
	b := &bench{T: t, dir: t.TempDir(), data: t.TempDir()}
	b.write("a-edge.yaml", edge)
	b.write("b-orders.yaml", orders)
	b.write("c-users.yaml", users)
	return b
}

func (b *bench) write(name, text string) {
	b.Helper()
	// Renamed over: a file that is cut and filled would be read empty now and then.
	if err := renameio.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) remove(name string) {
	b.Helper()
	if err := os.Remove(filepath.Join(b.dir, name)); err != nil {
		b.Fatal(err)
	}
}

// start makes a pipeline, as a process that starts does.
func (b *bench) start(strict bool, paths ...string) error {
	b.Helper()
	if len(paths) == 0 {
		paths = []string{b.dir}
	}
	set, err := files.New(paths)
	if err != nil {
		b.Fatal(err)
	}
	b.out, b.instances, b.metrics = &published{}, nobody{make(chan struct{})}, prometheus.NewRegistry()
	log := b.log
	if log == nil {
		log = slog.DiscardHandler
	}
	b.pipeline, err = xds.NewPipeline(xds.PipelineConfig{
		Source: set, LastGood: store.NewLastGood(b.data, set.Dir(), set.Paths()), StrictStart: strict, Publisher: b.out, Instances: b.instances,
		Metrics: b.metrics, Log: slog.New(log),
	})
	return err
}

// run runs the pipeline until the test ends.
func (b *bench) run() {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.pipeline.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
}

func (b *bench) routes() []string {
	var names []string
	for _, r := range b.pipeline.Gateway().Routes {
		names = append(names, r.Name)
	}
	return names
}

// held are the files that are not served as they are, without their folder.
func (b *bench) held() []string {
	var names []string
	for _, h := range b.pipeline.Served().Held {
		names = append(names, strings.TrimPrefix(h.File, b.dir+"/"))
	}
	return names
}

func (b *bench) until(what string, ok func() bool) {
	b.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("%s: not within 10 s; held %v, routes %v, faults %v", what, b.held(), b.routes(), b.pipeline.Faults())
		}
	}
}

func (b *bench) reloads(result string) float64 {
	families, err := b.metrics.Gather()
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "tollgate_reloads_total" && m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	return -1 // it is not there
}

var broken = strings.Replace(orders, "upstream: orders}", "upstream: order}", 1)

// TestOneBadFileIsHeldBackAlone: its last good text stands in, every other
// file's change lands, and it shows until it is mended.
func TestOneBadFileIsHeldBackAlone(t *testing.T) {
	b := newBench(t)
	if err := b.start(false); err != nil {
		t.Fatal(err)
	}
	b.run()
	if b.reloads("ok") != 0 || b.reloads("refused") != 0 {
		t.Error("a reload is not counted from zero")
	}
	first := b.pipeline.Served()
	if len(first.Files) != 3 || first.Revision == "" || len(first.Held) != 0 {
		t.Fatalf("%+v", first)
	}
	b.write("b-orders.yaml", broken)
	b.until("held", func() bool { return slices.Equal(b.held(), []string{"b-orders.yaml"}) })
	if f := b.pipeline.Faults(); len(f) != 1 || !strings.Contains(f[0], "b-orders.yaml:3:") {
		t.Errorf("faults %v", f)
	}
	if got := b.pipeline.Served(); got.Revision != first.Revision || !got.Since.Equal(first.Since) {
		t.Errorf("the served sources are the same, and their revision is not: %+v", got)
	}
	b.write("c-users.yaml", strings.ReplaceAll(users, "/users", "/people"))
	b.until("the other file's change", func() bool { return b.pipeline.Served().Revision != first.Revision })
	if got := b.routes(); !slices.Equal(got, []string{"orders", "users"}) || !slices.Equal(b.held(), []string{"b-orders.yaml"}) {
		t.Errorf("routes %v, held %v", got, b.held())
	}
	b.write("d-new.yaml", "version: 2\n")
	b.until("a new bad file is left out", func() bool { return slices.Equal(b.held(), []string{"b-orders.yaml", "d-new.yaml"}) })
	if got := b.routes(); !slices.Equal(got, []string{"orders", "users"}) {
		t.Errorf("routes %v", got)
	}
	if n := testutil.CollectAndCount(b.metrics, "tollgate_config_faults"); n != 1 {
		t.Errorf("%d gauges", n)
	}
	b.remove("d-new.yaml")
	b.write("b-orders.yaml", orders)
	b.until("mended", func() bool { return len(b.held()) == 0 && len(b.pipeline.Faults()) == 0 })
}

// TestWhenTheMixIsNotValidNothingLands: a file that others need cannot be taken
// apart from them.
func TestWhenTheMixIsNotValidNothingLands(t *testing.T) {
	b := newBench(t)
	b.write("d-more.yaml", "version: 1\nroutes: [{name: more, match: {path: {prefix: /more}}, auth: public, upstream: users}]\n")
	if err := b.start(false); err != nil {
		t.Fatal(err)
	}
	b.run()
	first := b.pipeline.Served().Revision
	b.remove("c-users.yaml") // d-more.yaml, as good as ever, now names nothing
	b.until("refused", func() bool { return slices.Equal(b.held(), []string{"d-more.yaml"}) })
	if got := b.routes(); !slices.Equal(got, []string{"orders", "users", "more"}) || b.pipeline.Served().Revision != first {
		t.Errorf("routes %v", got)
	}
	b.write("c-users.yaml", users)
	b.until("mended", func() bool { return len(b.held()) == 0 })
}

func TestAllFilesGoneChangesNothing(t *testing.T) {
	b := newBench(t)
	if err := b.start(false); err != nil {
		t.Fatal(err)
	}
	b.run()
	for _, name := range []string{"a-edge.yaml", "b-orders.yaml", "c-users.yaml"} {
		b.remove(name)
	}
	b.until("refused", func() bool { return len(b.pipeline.Faults()) > 0 && slices.Contains(b.held(), "") })
	if got := b.routes(); len(got) != 2 {
		t.Errorf("routes %v", got)
	}
	b.write("a-edge.yaml", edge)
	b.write("b-orders.yaml", orders)
	b.until("mended", func() bool { return len(b.pipeline.Faults()) == 0 && len(b.routes()) == 1 })
}

// TestStartBesideABadFile: the last good set stands in, also for one of several;
// --strict-start refuses; without a last good set it is fatal.
func TestStartBesideABadFile(t *testing.T) {
	b := newBench(t)
	b.write("b-orders.yaml", broken)
	if err := b.start(false); err == nil || !strings.Contains(err.Error(), `did you mean "orders"?`) {
		t.Fatalf("a first start: %v", err)
	}
	b.write("b-orders.yaml", orders)
	if err := b.start(false); err != nil {
		t.Fatal(err)
	}
	good := b.pipeline.Served()
	b.write("b-orders.yaml", broken)
	b.write("c-users.yaml", strings.ReplaceAll(users, "/users", "/people"))
	if err := b.start(true); err == nil || !strings.Contains(err.Error(), "b-orders.yaml:3:") {
		t.Errorf("--strict-start: %v", err)
	}
	if err := b.start(false); err != nil {
		t.Fatal(err)
	}
	if got := b.pipeline.Served(); got.Revision == good.Revision || !slices.Equal(b.held(), []string{"b-orders.yaml"}) || len(b.pipeline.Faults()) != 1 || b.out.count() != 1 {
		t.Errorf("%+v, %d releases", got, b.out.count())
	}
	mixed := b.pipeline.Served()
	if err := b.start(false); err != nil {
		t.Fatal(err)
	}
	if got := b.pipeline.Served(); got.Revision != mixed.Revision || !got.Since.Equal(mixed.Since) {
		t.Errorf("after a restart it is %+v, it was %+v", got, mixed)
	}
	for _, name := range []string{"a-edge.yaml", "b-orders.yaml", "c-users.yaml"} {
		b.remove(name)
	}
	if err := b.start(false); err != nil || len(b.routes()) != 2 || !slices.Equal(b.held(), []string{""}) {
		t.Errorf("without any file: %v, held %v", err, b.held())
	}
}

func TestStartBesideABadSingleFile(t *testing.T) {
	b := newBench(t)
	path := filepath.Join(b.dir, "one.yaml")
	b.write("one.yaml", edge+strings.TrimPrefix(orders, "version: 1\n"))
	if err := b.start(false, path); err != nil {
		t.Fatal(err)
	}
	b.write("one.yaml", "version: 1\nlisteners: [\n")
	if err := b.start(false, path); err != nil || !slices.Equal(b.held(), []string{"one.yaml"}) || len(b.routes()) != 1 {
		t.Fatalf("%v, held %v", err, b.held())
	}
	b.remove("one.yaml")
	if err := b.start(false, path); err != nil || len(b.routes()) != 1 || len(b.pipeline.Faults()) != 1 {
		t.Fatalf("%v, faults %v", err, b.pipeline.Faults())
	}
	other := filepath.Join(b.dir, "other.yaml")
	b.write("other.yaml", "version: 1\nlisteners: [\n")
	if err := b.start(false, other); err == nil {
		t.Error("another file was given the last good set of one.yaml")
	}
}

// TestLastGoodHoldsNoSecret: what a reference stands for is not in it.
func TestLastGoodHoldsNoSecret(t *testing.T) {
	b := newBench(t)
	t.Setenv("TOLLGATE_TEST_SECRET", "hunter2-hunter2")
	b.write("d.yaml", "version: 1\nroutes: [{name: s, match: {path: {exact: /s}}, auth: public, respond: {status: 200, body: \"env:TOLLGATE_TEST_SECRET\"}}]\n")
	if err := b.start(false); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(b.data, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), "hunter2") || !strings.Contains(string(data), "env:TOLLGATE_TEST_SECRET") {
			t.Errorf("%s:\n%s", path, data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestADiskThatTakesNothing: serving goes on, and it shows until the set is kept.
func TestADiskThatTakesNothing(t *testing.T) {
	b := newBench(t)
	blocked := filepath.Join(b.data, "last-good")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil { // no folder can be made here, not even by root
		t.Fatal(err)
	}
	if err := b.start(false); err != nil {
		t.Fatal(err)
	}
	b.run()
	if f := b.pipeline.Faults(); len(f) != 1 || !strings.Contains(f[0], "last good set cannot be kept") || b.out.count() != 1 {
		t.Errorf("faults %v, %d releases", f, b.out.count())
	}
	if err := os.Remove(blocked); err != nil {
		t.Fatal(err)
	}
	b.write("c-users.yaml", strings.ReplaceAll(users, "/users", "/people"))
	b.until("kept", func() bool { return len(b.pipeline.Faults()) == 0 })
}

// TestNotesAreOneLine: what the reference rate-limit server cannot count is for
// `tollgate validate`; the log of a start says that there is something.
func TestNotesAreOneLine(t *testing.T) {
	b := newBench(t)
	b.write("d-limits.yaml", "version: 1\nrate_limit: [{limit: 1, per: week}, {limit: 1, per: month}, {limit: 1, per: second, algorithm: gcra}]\n")
	var log bytes.Buffer
	b.log = slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo})
	if err := b.start(false); err != nil {
		t.Fatal(err)
	}
	if said := log.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "`tollgate validate`") || !strings.Contains(said, "notes=3") || strings.Contains(said, "err=") {
		t.Errorf("the log says\n%s", said)
	}
}

// TestNothingChangedIsNothingDone: a touched file, a key store, a file that
// nobody names: no decode and no release. SIGHUP reads all the same.
func TestNothingChangedIsNothingDone(t *testing.T) {
	b := newBench(t)
	if err := b.start(false); err != nil {
		t.Fatal(err)
	}
	b.run()
	for i := range 3 {
		b.write("b-orders.yaml", orders)
		b.write("keys.yaml", fmt.Sprintf("keys: [] # %d\n", i))
		b.write("notes.txt", fmt.Sprint(i))
		time.Sleep(100 * time.Millisecond)
	}
	if ok, refused := b.reloads("ok"), b.reloads("refused"); ok != 0 || refused != 0 || b.out.count() != 1 {
		t.Errorf("%v good and %v bad reads, %d releases", ok, refused, b.out.count())
	}
	b.pipeline.Reload()
	b.until("read again", func() bool { return b.reloads("ok") == 1 })
	b.write("b-orders.yaml", strings.ReplaceAll(orders, "/orders", "/o"))
	b.until("one save is one read", func() bool { return b.out.count() == 3 })
	time.Sleep(100 * time.Millisecond)
	if ok := b.reloads("ok"); ok != 2 {
		t.Errorf("%v reads for one save", ok-1)
	}
}

// TestSeenFromOutsideWhileItReloads is for the race detector.
func TestSeenFromOutsideWhileItReloads(t *testing.T) {
	b := newBench(t)
	if err := b.start(false); err != nil {
		t.Fatal(err)
	}
	b.run()
	for i := range 20 {
		b.write("c-users.yaml", strings.ReplaceAll(users, "/users", fmt.Sprintf("/users-%d", i)))
		b.pipeline.Reload()
		b.instances.changed <- struct{}{}
		if len(b.routes()) != 2 || len(slices.Collect(maps.Keys(b.pipeline.Listeners()))) != 0 || len(b.pipeline.Faults()) != 0 || b.pipeline.Served().Revision == "" {
			t.Fatal("half a gateway")
		}
	}
}
