package sqlite_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"tollgate/services/kit/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func schema() []string {
	return []string{"CREATE TABLE t (v TEXT UNIQUE)", "INSERT INTO t VALUES ('first'); CREATE INDEX i ON t (v)"}
}

// Eight instances start on a file that does not exist, and write.
func TestConcurrentStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?#%.db")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			db, err := sqlite.Open(t.Context(), path, schema())
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = db.Close() }()
			for j := range 10 {
				if _, err := db.ExecContext(t.Context(), "INSERT INTO t VALUES (?)", fmt.Sprint(i, j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	db, err := sqlite.Open(t.Context(), path, schema())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var rows int
	var mode string
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM t").Scan(&rows); err != nil || rows != 81 {
		t.Errorf("%d rows, %v", rows, err)
	}
	if err := db.QueryRowContext(t.Context(), "PRAGMA journal_mode").Scan(&mode); err != nil || mode != "wal" {
		t.Errorf("journal %q, %v", mode, err)
	}
	_, err = db.ExecContext(t.Context(), "INSERT INTO t VALUES ('first')")
	if !sqlite.Duplicate(err) {
		t.Errorf("not told as a duplicate: %v", err)
	}
	if sqlite.Duplicate(nil) {
		t.Error("nil is a duplicate")
	}
}

func TestOpenRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := sqlite.Open(t.Context(), path, schema())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		path       string
		migrations []string
		want       string
	}{
		"a newer schema": {path, schema()[:1], "run a newer program"},
		"a bad step":     {path, append(schema(), "CREATE TABLE t (v TEXT)"), "migration 3"},
		"no folder":      {filepath.Join(path, "y.db"), schema(), path},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := sqlite.Open(t.Context(), tt.path, tt.migrations)
			if err == nil {
				_ = db.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
