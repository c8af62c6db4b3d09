package discovery

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"tollgate/internal/secretfile"
)

// LoadOrCreateSecret reads the secret that the services' tokens are made from,
// or makes one of 256 bits. Control planes that start at once on one folder
// share it.
func LoadOrCreateSecret(path string) (string, error) {
	secret, err := secretfile.Token(path)
	if err != nil {
		return "", fmt.Errorf("registry secret: %w", err)
	}
	return secret, nil
}

// ServiceToken is the token of one service: who holds it can register that
// service and learns nothing about another's.
func ServiceToken(secret, service string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("registry/" + ServiceOf(service)))
	return hex.EncodeToString(mac.Sum(nil))
}
