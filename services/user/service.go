package user

import (
	"context"
	"net/mail"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"tollgate/services/kit/auth"
	"tollgate/services/kit/fault"
	"tollgate/services/kit/page"
)

// User is a user as clients see it.
type User struct {
	ID      string `json:"id"`
	Tenant  string `json:"tenant"`
	Name    string `json:"name"`
	Email   string `json:"email"`
	Created string `json:"created"`
}

// NewUser is what a client says of a user to be created.
type NewUser struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

// service is what both doors offer. The tenant is always the caller's.
type service struct{ store store }

func (s *service) create(ctx context.Context, n NewUser) (User, error) {
	if err := n.check(); err != nil {
		return User{}, err
	}
	u := User{
		ID: "usr_" + uuid.NewString(), Tenant: auth.From(ctx).Tenant, Name: n.Name, Email: strings.ToLower(n.Email),
		Created: time.Now().UTC().Format(time.RFC3339Nano),
	}
	return u, s.store.insert(ctx, u)
}

func (s *service) get(ctx context.Context, id string) (User, error) {
	return s.store.get(ctx, auth.From(ctx).Tenant, id)
}

func (s *service) list(ctx context.Context, size int, token string) ([]User, string, error) {
	p, err := page.Parse(size, token)
	if err != nil {
		return nil, "", err
	}
	return s.store.list(ctx, auth.From(ctx).Tenant, p)
}

func (n NewUser) check() error {
	if n.Name == "" || utf8.RuneCountInString(n.Name) > 200 || strings.ContainsFunc(n.Name, unicode.IsControl) {
		return fault.Invalid("name: must be 1 to 200 printable characters")
	}
	address, err := mail.ParseAddress(n.Email)
	if err != nil || address.Address != n.Email || len(n.Email) > 254 {
		return fault.Invalid("email: must be an address like ada@example.com")
	}
	return nil
}
