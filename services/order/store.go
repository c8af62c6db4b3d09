package order

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
		`CREATE TABLE orders (
			seq          INTEGER PRIMARY KEY AUTOINCREMENT,
			id           TEXT NOT NULL UNIQUE,
			tenant       TEXT NOT NULL,
			user_id      TEXT NOT NULL,
			item         TEXT NOT NULL,
			amount_cents INTEGER NOT NULL,
			created      TEXT NOT NULL,
			idempotency  TEXT,
			UNIQUE (tenant, idempotency)
		) STRICT;
		CREATE INDEX orders_of_tenant ON orders (tenant, seq);`,
	}
}

// errKeyUsed says that an order was stored under this Idempotency-Key before.
var errKeyUsed = errors.New("idempotency key used")

// store keeps orders. Every statement names the tenant.
type store struct{ db *sql.DB }

func (s store) insert(ctx context.Context, o Order, idempotencyKey string) error {
	_, err := s.db.ExecContext(ctx,
		"INSERT INTO orders (id, tenant, user_id, item, amount_cents, created, idempotency) VALUES (?, ?, ?, ?, ?, ?, nullif(?, ''))",
		o.ID, o.Tenant, o.UserID, o.Item, o.AmountCents, o.Created, idempotencyKey)
	if sqlite.Duplicate(err) {
		return errKeyUsed
	}
	return err
}

func (s store) get(ctx context.Context, tenant, id string) (Order, error) {
	return s.one(ctx, "SELECT id, tenant, user_id, item, amount_cents, created FROM orders WHERE tenant = ? AND id = ?", tenant, id)
}

func (s store) byKey(ctx context.Context, tenant, idempotencyKey string) (Order, error) {
	return s.one(ctx, "SELECT id, tenant, user_id, item, amount_cents, created FROM orders WHERE tenant = ? AND idempotency = ?", tenant, idempotencyKey)
}

func (s store) one(ctx context.Context, query string, args ...any) (Order, error) {
	var o Order
	err := s.db.QueryRowContext(ctx, query, args...).Scan(&o.ID, &o.Tenant, &o.UserID, &o.Item, &o.AmountCents, &o.Created)
	if errors.Is(err, sql.ErrNoRows) {
		return Order{}, fault.NotFound("Order not found")
	}
	return o, err
}

func (s store) remove(ctx context.Context, tenant, id string) error {
	result, err := s.db.ExecContext(ctx, "DELETE FROM orders WHERE tenant = ? AND id = ?", tenant, id)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return fault.NotFound("Order not found")
}

// list returns a page and the token of the next one, "" at the end.
func (s store) list(ctx context.Context, tenant string, p page.Page) ([]Order, string, error) {
	// One row more than asked tells whether there is another page.
	rows, err := s.db.QueryContext(ctx,
		"SELECT seq, id, user_id, item, amount_cents, created FROM orders WHERE tenant = ? AND seq > ? ORDER BY seq LIMIT ?", tenant, p.After, p.Size+1)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = rows.Close() }()
	orders := []Order{}
	last := p.After
	for rows.Next() {
		if len(orders) == p.Size {
			return orders, page.Token(last), nil
		}
		o := Order{Tenant: tenant}
		if err := rows.Scan(&last, &o.ID, &o.UserID, &o.Item, &o.AmountCents, &o.Created); err != nil {
			return nil, "", err
		}
		orders = append(orders, o)
	}
	return orders, "", rows.Err()
}
