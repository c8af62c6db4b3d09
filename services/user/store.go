package user

import (
	"context"
	"database/sql"
	"errors"

	"tollgate/services/kit/fault"
	"tollgate/services/kit/page"
	"tollgate/services/kit/sqlite"
)

// migrations is append-only.
func migrations() []string {
	return []string{
		`CREATE TABLE users (
			seq     INTEGER PRIMARY KEY AUTOINCREMENT,
			id      TEXT NOT NULL UNIQUE,
			tenant  TEXT NOT NULL,
			name    TEXT NOT NULL,
			email   TEXT NOT NULL,
			created TEXT NOT NULL,
			UNIQUE (tenant, email)
		) STRICT;
		CREATE INDEX users_of_tenant ON users (tenant, seq);`,
	}
}

// store keeps users. Every statement names the tenant.
type store struct{ db *sql.DB }

func (s store) insert(ctx context.Context, u User) error {
	_, err := s.db.ExecContext(ctx, "INSERT INTO users (id, tenant, name, email, created) VALUES (?, ?, ?, ?, ?)",
		u.ID, u.Tenant, u.Name, u.Email, u.Created)
	if sqlite.Duplicate(err) {
		return fault.Conflict("already_exists", "A user with this email exists")
	}
	return err
}

func (s store) get(ctx context.Context, tenant, id string) (User, error) {
	u := User{ID: id, Tenant: tenant}
	err := s.db.QueryRowContext(ctx, "SELECT name, email, created FROM users WHERE tenant = ? AND id = ?", tenant, id).
		Scan(&u.Name, &u.Email, &u.Created)
	if errors.Is(err, sql.ErrNoRows) {
		return User{}, fault.NotFound("User not found")
	}
	return u, err
}

// list returns a page and the token of the next one, "" at the end.
func (s store) list(ctx context.Context, tenant string, p page.Page) ([]User, string, error) {
	// One row more than asked tells whether there is another page.
	rows, err := s.db.QueryContext(ctx,
		"SELECT seq, id, name, email, created FROM users WHERE tenant = ? AND seq > ? ORDER BY seq LIMIT ?", tenant, p.After, p.Size+1)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = rows.Close() }()
	users := []User{}
	last := p.After
	for rows.Next() {
		if len(users) == p.Size {
			return users, page.Token(last), nil
		}
		u := User{Tenant: tenant}
		if err := rows.Scan(&last, &u.ID, &u.Name, &u.Email, &u.Created); err != nil {
			return nil, "", err
		}
		users = append(users, u)
	}
	return users, "", rows.Err()
}
