package join

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"tollgate/api/contract"
)

// Audience is that of a join token.
const Audience = "tollgate-join"

// Claims are what a join token says: a JWT (HS256) whose key only the control
// planes have, so that the joining side reads it and cannot change it.
type Claims struct {
	jwt.RegisteredClaims
	Role  string   `json:"role"`
	Name  string   `json:"name"`
	Roots []string `json:"roots"` // SHA-256 of the roots that the joining side may believe, hex
}

// Valid says whether a certificate may carry the role and the name.
func Valid(role, name string) error {
	if roles := []string{contract.RoleEdge, contract.RoleExtAuthz, contract.RoleRateLimit, contract.RoleService, contract.RoleClient}; !slices.Contains(roles, role) {
		return fmt.Errorf("role %q: write one of %s", role, strings.Join(roles, ", "))
	}
	if name == "" || len(name) > 63 || spiffeid.ValidatePathSegment(name) != nil {
		return fmt.Errorf("name %q: write up to 63 letters, digits, dots, dashes or underscores", name)
	}
	return nil
}

// ReadToken takes a token, or file:PATH of one.
func ReadToken(text string) (string, error) {
	path, file := strings.CutPrefix(text, "file:")
	if !file {
		return text, nil
	}
	data, err := os.ReadFile(path)
	return strings.TrimSpace(string(data)), err
}

// ParseToken reads what a token says to the joining side, which cannot verify
// it: the control plane does.
func ParseToken(token string) (Claims, error) {
	var c Claims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &c); err != nil {
		return Claims{}, errors.New("this is no join token: `tollgate join-token` makes one")
	}
	if len(c.Roots) == 0 {
		return Claims{}, errors.New("this join token names no root: `tollgate join-token` makes a new one")
	}
	return c, Valid(c.Role, c.Name)
}
