package credential

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"slices"
	"strings"
	"time"

	"tollgate/extauthz/policy"
	"tollgate/internal/celenv"
)

// An API key reads tok_<live|test>_<id><_><secret><crc>: the id makes the
// look-up one step and logs useful, the checksum refuses typos before any
// look-up and lets scanners find leaked keys.
const (
	keyPrefix    = "tok_"
	idLength     = 12
	secretLength = 32
	crcLength    = 6
	base62       = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// Key is what is stored of an API key: never its secret.
type Key struct {
	ID                        string
	Hash                      [sha256.Size]byte // of the whole key as sent
	Tenant, Owner             string
	Permissions               []string
	Created, Expires, Revoked time.Time // zero: never
}

// KeySpec is what a new key is for.
type KeySpec struct {
	Tenant, Owner string
	Permissions   []string
	Lifetime      time.Duration // 0: no end
	Test          bool          // tok_test_… instead of tok_live_…
}

// NewKey makes a key. The secret is returned once and stored nowhere.
func NewKey(spec KeySpec, now time.Time) (Key, string, error) {
	if spec.Tenant == "" {
		return Key{}, "", errors.New("a key needs a tenant: name one of the file's tenants")
	}
	mode := "live"
	if spec.Test {
		mode = "test"
	}
	id, secret := randomText(idLength), randomText(secretLength)
	body := keyPrefix + mode + "_" + id + "_" + secret
	whole := body + checksum(body)
	key := Key{
		ID: id, Hash: sha256.Sum256([]byte(whole)), Tenant: spec.Tenant, Owner: spec.Owner,
		Permissions: spec.Permissions, Created: now.UTC().Truncate(time.Second),
	}
	if spec.Lifetime > 0 {
		key.Expires = key.Created.Add(spec.Lifetime)
	}
	return key, whole, nil
}

// randomText draws letters of base62 without bias.
func randomText(n int) string {
	out := make([]byte, 0, n)
	var draw [1]byte
	for len(out) < n {
		_, _ = rand.Read(draw[:]) // never fails: crypto/rand ends the process instead
		if draw[0] < 248 {        // 4 × 62
			out = append(out, base62[draw[0]%62])
		}
	}
	return string(out)
}

func checksum(body string) string {
	sum := crc32.ChecksumIEEE([]byte(body))
	var out [crcLength]byte
	for i := range out {
		out[crcLength-1-i] = base62[sum%62]
		sum /= 62
	}
	return string(out[:])
}

// keyID takes the public id out of a key that is well formed.
func keyID(key string) (string, bool) {
	const length = len(keyPrefix) + 5 + idLength + 1 + secretLength + crcLength
	if len(key) != length {
		return "", false
	}
	rest, ok := strings.CutPrefix(key, keyPrefix)
	if !ok || rest[:5] != "live_" && rest[:5] != "test_" || rest[5+idLength] != '_' {
		return "", false
	}
	body := key[:length-crcLength]
	if checksum(body) != key[length-crcLength:] {
		return "", false
	}
	return rest[5 : 5+idLength], true
}

// Masked is a text without the secrets of the keys in it, also of those that are
// cut short or mistyped; their ids stay.
func Masked(text string) string {
	return regexp.MustCompile(keyPrefix+`(live|test)_([0-9A-Za-z]{0,12})[0-9A-Za-z_-]*`).ReplaceAllString(text, keyPrefix+"${1}_${2}_…")
}

// KeyIndex finds keys by id. It is immutable.
type KeyIndex struct {
	entries map[string]*keyEntry
}

type keyEntry struct {
	key    Key
	caller *policy.Caller
}

// NewKeyIndex indexes keys under the roles of one configuration. Of two keys
// of one id the later counts.
func NewKeyIndex(roles policy.Roles, lists ...[]Key) *KeyIndex {
	return (&KeyIndex{}).Next(roles, lists...)
}

// Next indexes the keys of another configuration. A key of which nothing is
// different keeps its caller, and so what was made ready for it.
func (x *KeyIndex) Next(roles policy.Roles, lists ...[]Key) *KeyIndex {
	index := &KeyIndex{entries: map[string]*keyEntry{}}
	for _, keys := range lists {
		for _, k := range keys {
			permissions := roles.Expand(k.Permissions)
			if old := x.entries[k.ID]; old != nil && old.key.same(&k) && slices.Equal(old.caller.Permissions, permissions) {
				index.entries[k.ID] = old
				continue
			}
			user := k.Owner
			if user == "" {
				user = "key:" + k.ID
			}
			index.entries[k.ID] = &keyEntry{key: k, caller: &policy.Caller{
				Kind: policy.KindAPIKey, Tenant: k.Tenant, User: user, Credential: k.ID, KeyID: k.ID,
				Permissions: permissions, Grants: celenv.NewGrants(permissions), Expires: k.end(),
			}}
		}
	}
	return index
}

func (k *Key) same(o *Key) bool {
	return k.Hash == o.Hash && k.Tenant == o.Tenant && k.Owner == o.Owner && k.Expires.Equal(o.Expires) && k.Revoked.Equal(o.Revoked)
}

// end is when a key stops working, as far as is known; zero: never.
func (k *Key) end() time.Time {
	if k.Revoked.IsZero() || !k.Expires.IsZero() && k.Expires.Before(k.Revoked) {
		return k.Expires
	}
	return k.Revoked
}

// verify compares in constant time; an unknown id costs the same comparison,
// so that time does not tell which ids exist.
func (x *KeyIndex) verify(key string, now time.Time) (*policy.Caller, policy.Reason) {
	id, ok := keyID(key)
	if !ok {
		return nil, policy.UnknownKey
	}
	sum := digest(key)
	entry, known := x.entries[id]
	var want [sha256.Size]byte
	if known {
		want = entry.key.Hash
	}
	if subtle.ConstantTimeCompare(sum[:], want[:]) != 1 || !known {
		return nil, policy.UnknownKey
	}
	switch entry.key.State(now) {
	case Revoked:
		return nil, policy.RevokedKey
	case Expired:
		return nil, policy.ExpiredKey
	}
	return entry.caller, ""
}

// The states of a key.
const (
	Live    = "live"
	Expired = "expired"
	Revoked = "revoked"
)

// State is what a key is worth at a time.
func (k *Key) State(now time.Time) string {
	switch {
	case !k.Revoked.IsZero() && !now.Before(k.Revoked):
		return Revoked
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return Expired
	}
	return Live
}

// check returns which field is wrong, and why.
func (k *Key) check() (string, error) {
	switch {
	case len(k.ID) == 0 || len(k.ID) > 64 || strings.Trim(k.ID, base62+"-_") != "":
		return "id", fmt.Errorf("id %q is not letters and digits", k.ID)
	case k.Tenant == "":
		return "tenant", fmt.Errorf("key %s has no tenant", k.ID)
	}
	return "", nil
}
