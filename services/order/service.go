package order

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"tollgate/services/kit/auth"
	"tollgate/services/kit/fault"
	"tollgate/services/kit/page"
)

// maxAmount keeps sums of orders far from the end of an int64.
const maxAmount = 1_000_000_000_000

// Order is an order as clients see it.
type Order struct {
	ID          string `json:"id"`
	Tenant      string `json:"tenant"`
	UserID      string `json:"user_id"`
	Item        string `json:"item"`
	AmountCents int64  `json:"amount_cents"`
	Created     string `json:"created"`
}

// NewOrder is what a client says of an order to be created.
type NewOrder struct {
	UserID      string `json:"user_id"`
	Item        string `json:"item"`
	AmountCents int64  `json:"amount_cents"`
}

// userChecker knows whether the caller's tenant has a user.
type userChecker interface {
	check(ctx context.Context, id string) error
}

// service is what both doors offer. The tenant is always the caller's.
type service struct {
	store store
	users userChecker
}

// create stores an order. Under a key that was used before it returns the order
// of that time, so a proxy or client may repeat a call that it lost.
func (s *service) create(ctx context.Context, n NewOrder, idempotencyKey string) (Order, error) {
	if err := n.check(); err != nil {
		return Order{}, err
	}
	if len(idempotencyKey) > 255 {
		return Order{}, fault.Invalid("Idempotency-Key: must be at most 255 characters")
	}
	if err := s.users.check(ctx, n.UserID); err != nil {
		return Order{}, err
	}
	o := Order{
		ID: "ord_" + uuid.NewString(), Tenant: auth.From(ctx).Tenant, UserID: n.UserID, Item: n.Item,
		AmountCents: n.AmountCents, Created: time.Now().UTC().Format(time.RFC3339Nano),
	}
	err := s.store.insert(ctx, o, idempotencyKey)
	if !errors.Is(err, errKeyUsed) {
		return o, err
	}
	before, err := s.store.byKey(ctx, o.Tenant, idempotencyKey)
	if err != nil {
		return Order{}, err
	}
	if before.UserID != n.UserID || before.Item != n.Item || before.AmountCents != n.AmountCents {
		return Order{}, fault.Conflict("idempotency_key_reused", "This Idempotency-Key was used for another order")
	}
	return before, nil
}

func (s *service) get(ctx context.Context, id string) (Order, error) {
	return s.store.get(ctx, auth.From(ctx).Tenant, id)
}

func (s *service) remove(ctx context.Context, id string) error {
	return s.store.remove(ctx, auth.From(ctx).Tenant, id)
}

func (s *service) list(ctx context.Context, size int, token string) ([]Order, string, error) {
	p, err := page.Parse(size, token)
	if err != nil {
		return nil, "", err
	}
	return s.store.list(ctx, auth.From(ctx).Tenant, p)
}

func (n NewOrder) check() error {
	switch {
	case n.UserID == "" || len(n.UserID) > 64:
		return fault.Invalid("user_id: must be the id of a user")
	case n.Item == "" || utf8.RuneCountInString(n.Item) > 200 || strings.ContainsFunc(n.Item, unicode.IsControl):
		return fault.Invalid("item: must be 1 to 200 printable characters")
	case n.AmountCents < 1 || n.AmountCents > maxAmount:
		return fault.Invalid("amount_cents: must be between 1 and 1000000000000")
	}
	return nil
}
