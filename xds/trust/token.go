package trust

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"tollgate/internal/join"
	"tollgate/internal/secretfile"
)

// ErrToken is that of a token that opens nothing.
var ErrToken = errors.New("join token refused")

const spentFolder = "join-spent"

// Tokens makes join tokens and takes them back, for all control planes of a data
// folder.
type Tokens struct {
	dir       string
	key       []byte
	authority *Authority
	now       func() time.Time
}

// OpenTokens reads the key that signs tokens, or makes it.
func OpenTokens(dir string, authority *Authority, now func() time.Time) (*Tokens, error) {
	key, err := secretfile.LoadOrCreate(filepath.Join(dir, "join.key"), func() ([]byte, error) {
		raw := make([]byte, 32)
		_, err := rand.Read(raw)
		return []byte(hex.EncodeToString(raw)), err
	})
	if err == nil && len(key) < 64 {
		err = errors.New("the key is too short: remove the file and a new one is made; tokens made so far end")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "join.key"), err)
	}
	return &Tokens{dir: filepath.Join(dir, spentFolder), key: key, authority: authority, now: now}, nil
}

// Make returns a token with which one key gets the certificate of role/name.
func (t *Tokens) Make(role, name string, ttl time.Duration) (string, error) {
	if err := join.Valid(role, name); err != nil {
		return "", err
	}
	// A name that nobody could remove again must not get in.
	if err := t.authority.members.meet(role, name); err != nil {
		return "", err
	}
	now := t.now()
	claims := join.Claims{
		RegisteredClaims: jwt.RegisteredClaims{
			ID: uuid.NewString(), Audience: jwt.ClaimStrings{join.Audience},
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
		},
		Role: role, Name: name,
	}
	for _, root := range t.authority.Roots() {
		claims.Roots = append(claims.Roots, join.Fingerprint(root))
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(t.key)
}

// Redeem returns whom a token speaks for. From then on it is good for this key
// alone, at every control plane of the folder.
func (t *Tokens) Redeem(token string, public crypto.PublicKey) (role, name string, err error) {
	var claims join.Claims
	_, err = jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithAudience(join.Audience), jwt.WithExpirationRequired(), jwt.WithTimeFunc(t.now),
	).ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return t.key, nil })
	if err != nil {
		return "", "", fmt.Errorf("%w: %w: `tollgate join-token` makes a new one", ErrToken, err)
	}
	id, err := uuid.Parse(claims.ID)
	if err != nil {
		return "", "", fmt.Errorf("%w: it has no id", ErrToken)
	}
	if err := join.Valid(claims.Role, claims.Name); err != nil {
		return "", "", fmt.Errorf("%w: %w", ErrToken, err)
	}
	if claims.IssuedAt == nil {
		return "", "", fmt.Errorf("%w: it does not say when it was made", ErrToken)
	}
	if err := t.authority.members.judge(claims.Role, claims.Name, claims.IssuedAt.Time, "token"); err != nil {
		return "", "", fmt.Errorf("%w: %w: `tollgate join-token` makes a new one", ErrToken, err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", ErrToken, err)
	}
	sum := sha256.Sum256(der)
	mine := claims.ExpiresAt.UTC().Format(time.RFC3339) + " " + hex.EncodeToString(sum[:])
	first, err := secretfile.LoadOrCreate(filepath.Join(t.dir, id.String()), func() ([]byte, error) { return []byte(mine), nil })
	if err != nil {
		return "", "", err
	}
	if string(first) != mine {
		return "", "", fmt.Errorf("%w: it was used already, by another process than this one: `tollgate join-token` makes a new one", ErrToken)
	}
	t.sweep()
	return claims.Role, claims.Name, nil
}

// sweep forgets spent tokens that have ended anyway.
func (t *Tokens) sweep() {
	spent, err := os.ReadDir(t.dir)
	if err != nil {
		return
	}
	for _, one := range spent {
		path := filepath.Join(t.dir, one.Name())
		data, err := os.ReadFile(path)
		if err != nil || len(data) < len(time.RFC3339) {
			continue
		}
		text := string(data)
		if at, err := time.Parse(time.RFC3339, text[:min(len(text), len("2006-01-02T15:04:05Z"))]); err == nil && t.now().After(at.Add(time.Hour)) {
			_ = os.Remove(path)
		}
	}
}
