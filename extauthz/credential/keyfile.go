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
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	"go.yaml.in/yaml/v4"

	"tollgate/extauthz/credential/slip"
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

// shapes are what these types are called in the file.
func shapes() slip.Shapes {
	return slip.Shapes{
		reflect.TypeFor[keyDocument](): "`keys:` and a list of keys",
		reflect.TypeFor[[]keyRecord](): "a list of keys",
		reflect.TypeFor[keyRecord]():   "a key (id, hash, tenant, permissions)",
		reflect.TypeFor[[]string]():    `a list such as ["orders:read"]`,
		reflect.TypeFor[string]():      "a text",
	}
}

// ParseKeys reads the text of the key file of a name. One bad key refuses the
// file: who mistyped a revocation must not believe that it counts. The error
// has a line for each of the first ten faults, which begins with name:line:col.
func ParseKeys(name string, data []byte) ([]Key, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("%s:1:1: key file has %d bytes, at most %d are read", name, len(data), maxKeyFile)
	}
	var document keyDocument
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return nil, shapes().Located(name, err)
	}
	bad := func(i int, field, format string, args ...any) error {
		line, col := slip.Place(data, "keys", i, field)
		return fmt.Errorf("%s:%d:%d: keys[%d]: %s", name, line, col, i, fmt.Sprintf(format, args...))
	}
	keys := make([]Key, 0, len(document.Keys))
	seen := make(map[string]struct{}, len(document.Keys))
	var faults []error
	for i, r := range document.Keys {
		if len(faults) == slip.Max {
			break
		}
		key := Key{
			ID: r.ID, Tenant: r.Tenant, Owner: r.Owner, Permissions: r.Permissions,
			Created: r.Created, Expires: r.Expires, Revoked: r.Revoked,
		}
		if field, err := key.check(); err != nil {
			faults = append(faults, bad(i, field, "%v", err))
			continue
		}
		digits, _ := strings.CutPrefix(r.Hash, "sha256:")
		sum, err := hex.DecodeString(digits)
		if err != nil || len(sum) != sha256.Size || len(digits) == len(r.Hash) {
			faults = append(faults, bad(i, "hash", "hash of %s is not sha256: and 64 hex digits", r.ID))
			continue
		}
		if _, twice := seen[r.ID]; twice {
			faults = append(faults, bad(i, "id", "id %s occurs twice", r.ID))
			continue
		}
		seen[r.ID] = struct{}{}
		copy(key.Hash[:], sum)
		keys = append(keys, key)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
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

// RevokeKey marks a key of the file as revoked from now on, and returns it. One
// that was revoked before stays so from then. The key is named by its id, or by
// itself as a caller sends it.
func RevokeKey(path, id string, now time.Time) (revoked Key, err error) {
	err = editKeys(path, func(keys []Key) ([]Key, error) {
		i, err := find(keys, path, id)
		if err != nil {
			return nil, err
		}
		if at := now.UTC().Truncate(time.Second); keys[i].Revoked.IsZero() || at.Before(keys[i].Revoked) {
			keys[i].Revoked = at
		}
		revoked = keys[i]
		return keys, nil
	})
	return revoked, err
}

// RotateKey adds a successor of a key, for the same caller and as long a life,
// and ends the old one after the overlap, which it returns as it is then. The
// secret of the new one is nowhere else. The key is named as for RevokeKey.
func RotateKey(path, id string, overlap time.Duration, now time.Time) (old, successor Key, secret string, err error) {
	err = editKeys(path, func(keys []Key) ([]Key, error) {
		i, err := find(keys, path, id)
		if err != nil {
			return nil, err
		}
		if state := keys[i].State(now); state != Live {
			return nil, fmt.Errorf("key %s is %s, so nobody can be using it: make a new one with `tollgate keys create`", keys[i].ID, state)
		}
		spec := KeySpec{Tenant: keys[i].Tenant, Owner: keys[i].Owner, Permissions: keys[i].Permissions}
		if !keys[i].Expires.IsZero() {
			spec.Lifetime = max(keys[i].Expires.Sub(keys[i].Created), keys[i].Expires.Sub(now))
			if keys[i].Created.IsZero() {
				spec.Lifetime = keys[i].Expires.Sub(now)
			}
		}
		if successor, secret, err = NewKey(spec, now); err != nil {
			return nil, err
		}
		end := now.UTC().Truncate(time.Second).Add(overlap)
		switch {
		case overlap == 0:
			keys[i].Revoked = end
		case keys[i].Expires.IsZero() || end.Before(keys[i].Expires):
			keys[i].Expires = end
		}
		old = keys[i]
		return append(keys, successor), nil
	})
	if err != nil {
		return Key{}, Key{}, "", err
	}
	return old, successor, secret, nil
}

// find takes an id, or a whole key: who found one in public has nothing else to
// name it by. Of what it does not find it repeats nothing but an id.
func find(keys []Key, path, named string) (int, error) {
	named = strings.TrimSpace(named)
	id, whole := keyID(named)
	if !whole {
		id = named
	}
	for i := range keys {
		if keys[i].ID == id || keys[i].Hash == sha256.Sum256([]byte(named)) {
			return i, nil
		}
	}
	what := "no key has this id"
	switch {
	case whole:
		what = "the key " + id + " is not there, and no other has its id"
	case len(id) <= idLength && strings.Trim(id, base62+"-_") == "":
		what = fmt.Sprintf("no key has the id %q", id)
	case strings.HasPrefix(id, keyPrefix):
		what = "no key reads like this, which is part of one or mistyped: the id is what follows " + keyPrefix + "live_"
	}
	return 0, fmt.Errorf("%s, in %s: `tollgate keys list` shows them", what, path)
}

// ReadKeys reads a key file; one that is missing holds no keys.
func ReadKeys(path string) ([]Key, error) {
	keys, err := readKeys(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return keys, err
}

// readKeys reads a key file of a sane size; its error says where.
func readKeys(path string) ([]Key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if info.Size() > maxKeyFile || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s:1:1: the key file is not a regular file of at most %d bytes", path, maxKeyFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	return ParseKeys(path, data)
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
	keys, err := ReadKeys(path)
	if err != nil {
		return err
	}
	if keys, err = edit(keys); err != nil {
		return err
	}
	text, err := FormatKeys(keys)
	if err != nil {
		return fmt.Errorf("encode the key file: %w", err)
	}
	if err := replaceKeys(path, text); err != nil {
		return fmt.Errorf("write the key file: %w", err)
	}
	return nil
}

// replaceKeys writes the file anew, for the owner of the old one: what root
// revokes must be readable for the server, which is not root.
func replaceKeys(path string, text []byte) (err error) {
	file, err := renameio.NewPendingFile(path, renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Cleanup()) }()
	if info, statErr := os.Stat(path); statErr == nil {
		if old, ok := info.Sys().(*syscall.Stat_t); ok && int(old.Uid) != os.Geteuid() {
			if err := file.Chown(int(old.Uid), int(old.Gid)); err != nil {
				return err
			}
		}
	}
	if _, err := file.Write(text); err != nil {
		return err
	}
	return file.CloseAtomicallyReplace()
}
