package credential

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"go.yaml.in/yaml/v4"
)

const maxKeyFile = 64 << 20

type keyDocument struct {
	Keys []keyRecord `yaml:"keys"`
}

type keyRecord struct {
	ID          string    `yaml:"id"`
	Hash        string    `yaml:"hash"`
	Tenant      string    `yaml:"tenant"`
	Owner       string    `yaml:"owner,omitempty"`
	Permissions []string  `yaml:"permissions,flow"`
	Created     time.Time `yaml:"created,omitempty"`
	Expires     time.Time `yaml:"expires,omitempty"`
	Revoked     time.Time `yaml:"revoked,omitempty"`
}

// ParseKeys reads the text of a key file. One bad key refuses the file: who
// mistyped a revocation must not believe that it counts.
func ParseKeys(data []byte) ([]Key, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("key file has %d bytes, at most %d are read", len(data), maxKeyFile)
	}
	var document keyDocument
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("key file: %w", err)
	}
	keys := make([]Key, 0, len(document.Keys))
	seen := make(map[string]struct{}, len(document.Keys))
	for i, r := range document.Keys {
		key := Key{
			ID: r.ID, Tenant: r.Tenant, Owner: r.Owner, Permissions: r.Permissions,
			Created: r.Created, Expires: r.Expires, Revoked: r.Revoked,
		}
		if err := key.check(); err != nil {
			return nil, fmt.Errorf("key file: keys[%d]: %w", i, err)
		}
		digits, _ := strings.CutPrefix(r.Hash, "sha256:")
		sum, err := hex.DecodeString(digits)
		if err != nil || len(sum) != sha256.Size || len(digits) == len(r.Hash) {
			return nil, fmt.Errorf("key file: keys[%d]: hash of %s is not sha256: and 64 hex digits", i, r.ID)
		}
		if _, twice := seen[r.ID]; twice {
			return nil, fmt.Errorf("key file: keys[%d]: id %s occurs twice", i, r.ID)
		}
		seen[r.ID] = struct{}{}
		copy(key.Hash[:], sum)
		keys = append(keys, key)
	}
	return keys, nil
}

// FormatKeys is the text of a key file.
func FormatKeys(keys []Key) ([]byte, error) {
	document := keyDocument{Keys: []keyRecord{}}
	for _, k := range keys {
		document.Keys = append(document.Keys, keyRecord{
			ID: k.ID, Hash: "sha256:" + hex.EncodeToString(k.Hash[:]), Tenant: k.Tenant, Owner: k.Owner,
			Permissions: k.Permissions, Created: k.Created, Expires: k.Expires, Revoked: k.Revoked,
		})
	}
	return yaml.Marshal(document)
}

// CreateKey adds a new key to the file at path and returns its secret, which is
// nowhere else. Several of these at once lose nothing: a lock beside the file
// orders them, and readers only ever see a whole file.
func CreateKey(path string, spec KeySpec, now time.Time) (Key, string, error) {
	key, secret, err := NewKey(spec, now)
	if err != nil {
		return Key{}, "", err
	}
	err = editKeys(path, func(keys []Key) ([]Key, error) { return append(keys, key), nil })
	if err != nil {
		return Key{}, "", err
	}
	return key, secret, nil
}

// RevokeKey marks a key of the file as revoked from now on.
func RevokeKey(path, id string, now time.Time) error {
	return editKeys(path, func(keys []Key) ([]Key, error) {
		for i := range keys {
			if keys[i].ID == id {
				keys[i].Revoked = now.UTC().Truncate(time.Second)
				return keys, nil
			}
		}
		return nil, fmt.Errorf("no key has the id %s in %s: look at its ids", id, path)
	})
}

func editKeys(path string, edit func([]Key) ([]Key, error)) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock the key file: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }() // releases the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock the key file: %w", err)
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("key file: %w", err)
	}
	keys, err := ParseKeys(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if keys, err = edit(keys); err != nil {
		return err
	}
	text, err := FormatKeys(keys)
	if err != nil {
		return fmt.Errorf("encode the key file: %w", err)
	}
	if err := renameio.WriteFile(path, text, 0o600, renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("write the key file: %w", err)
	}
	return nil
}
