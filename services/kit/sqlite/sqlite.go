// Package sqlite opens the one database file that all instances of a service
// share. Invariant: whoever opens a file sees it migrated to this program's
// schema or gets an error; instances that start at the same time migrate once.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"time"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// busyTimeout is how long a writer waits for the writers before it.
const busyTimeout = 5 * time.Second

// Open opens or creates the file and runs the migrations that it lacks, in
// order. The file remembers how many it has: append to the list, never edit it.
func Open(ctx context.Context, path string, migrations []string) (*sql.DB, error) {
	pragmas := url.Values{
		"_pragma": {
			fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
			"journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)",
		},
		// A transaction that reads first and writes later would fail at once
		// instead of waiting when another writer came between.
		"_txlock": {"immediate"},
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: pragmas.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(4)
	if err := migrateUntilFree(ctx, db, migrations); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return db, nil
}

// migrateUntilFree tries again while the file is busy: turning WAL on takes
// the whole file and does not wait as other statements do.
func migrateUntilFree(ctx context.Context, db *sql.DB, migrations []string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*busyTimeout)
	defer cancel()
	for {
		err := migrate(ctx, db, migrations)
		if err == nil || !busy(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func migrate(ctx context.Context, db *sql.DB, migrations []string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("schema version is %d, this program knows %d: run a newer program, or move the file away", version, len(migrations))
	}
	for i, m := range migrations[version:] {
		if _, err := tx.ExecContext(ctx, m); err != nil {
			return fmt.Errorf("migration %d: %w", version+i+1, err)
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", len(migrations))); err != nil {
		return err
	}
	return tx.Commit()
}

// Duplicate reports whether a statement failed because a row with the same
// unique value exists.
func Duplicate(err error) bool { return code(err) == lib.SQLITE_CONSTRAINT_UNIQUE }

func busy(err error) bool {
	primary := code(err) & 0xff
	return primary == lib.SQLITE_BUSY || primary == lib.SQLITE_LOCKED
}

func code(err error) int {
	if e, ok := errors.AsType[*driver.Error](err); ok {
		return e.Code()
	}
	return 0
}
