package discovery

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"tollgate/internal/secretfile"
)

// minToken is the shortest token that is taken, in characters.
const minToken = 32

// LoadOrCreateToken reads the token that instances register with, or makes one
// of 256 bits. Control planes that start at once on one folder share it.
func LoadOrCreateToken(path string) (string, error) {
	data, err := secretfile.LoadOrCreate(path, func() ([]byte, error) {
		raw := make([]byte, 32)
		_, err := rand.Read(raw)
		return []byte(hex.EncodeToString(raw) + "\n"), err
	})
	if err != nil {
		return "", fmt.Errorf("registry token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if len(token) < minToken {
		return "", fmt.Errorf("%s: the token is shorter than %d characters: remove the file and a new one is made", path, minToken)
	}
	return token, nil
}
