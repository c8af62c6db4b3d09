package credential_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/types/known/durationpb"

	authzv1 "tollgate/api/authz/v1"
	"tollgate/extauthz/credential"
	"tollgate/extauthz/policy"
	"tollgate/internal/jwks"
)

var start = time.Unix(1_800_000_000, 0)

func platform() *authzv1.Issuer {
	return &authzv1.Issuer{
		Name: "platform", Issuer: "https://issuer.test", Audiences: []string{"api"}, Typ: []string{"at+jwt", "JWT"},
		TenantClaim: []string{"realm", "tenant"}, UserClaim: []string{"sub"}, PermissionsClaim: []string{"permissions"},
		MaxLifetime: durationpb.New(24 * time.Hour),
	}
}

func claims(change jwt.MapClaims) jwt.MapClaims {
	out := jwt.MapClaims{
		"iss": "https://issuer.test", "aud": []string{"api", "other"}, "sub": "ann", "realm": map[string]any{"tenant": "acme"},
		"permissions": []string{"clerk", "users:read"}, "scope": "openid mail", "exp": start.Unix() + 60, "iat": start.Unix(),
	}
	for k, v := range change {
		out[k] = v
		if v == nil {
			delete(out, k)
		}
	}
	return out
}

func sign(t *testing.T, key ed25519.PrivateKey, header map[string]any, c jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	for k, v := range header {
		token.Header[k] = v
	}
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// mutable is a source whose set is as new as since, the zero time being now.
type mutable struct {
	set    jwks.Set
	since  time.Time
	absent bool
	comes  jwks.Set // what waiting brings
	fresh  bool     // and whether it brings anything
}

func (m *mutable) Keys(now time.Time) (jwks.Set, time.Time, bool) {
	if m.since.IsZero() {
		return m.set, now, !m.absent
	}
	return m.set, m.since, !m.absent
}

func (m *mutable) Await(context.Context, credential.Wanted) bool {
	if m.fresh {
		m.set, m.absent = m.comes, false
	}
	return m.fresh
}

func TestToken(t *testing.T) {
	public, key, _ := ed25519.GenerateKey(rand.Reader)
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	source := &mutable{set: jwks.NewSet(jwks.Key{ID: "k", Alg: jwks.EdDSA, Public: public})}
	v := credential.NewVerifier(map[string]*credential.Issuer{"platform": credential.NewIssuer(platform(), policy.Roles{"clerk": {"orders:*"}}, source)}, nil, credential.NewBulkhead(1))
	kid := map[string]any{"kid": "k"}
	good := sign(t, key, kid, claims(nil))
	hmac, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, claims(nil)).SignedString([]byte(public))
	nothing, _ := jwt.NewWithClaims(jwt.SigningMethodNone, claims(nil)).SignedString(jwt.UnsafeAllowNoneSignatureType)
	for name, c := range map[string]struct {
		token  string
		after  time.Duration
		reason policy.Reason
	}{
		"good":               {token: good},
		"good again":         {token: good},
		"last second":        {token: good, after: 59 * time.Second},
		"exp exactly now":    {token: good, after: 60 * time.Second, reason: policy.ExpiredToken},
		"application/at+jwt": {token: sign(t, key, map[string]any{"kid": "k", "typ": "application/at+jwt"}, claims(nil))},
		"application/other":  {token: sign(t, key, map[string]any{"kid": "k", "typ": "application/refresh+jwt"}, claims(nil)), reason: policy.InvalidToken},
		"no typ":             {token: sign(t, key, map[string]any{"kid": "k", "typ": ""}, claims(nil)), reason: policy.InvalidToken},
		"a whole day":        {token: sign(t, key, kid, claims(jwt.MapClaims{"exp": start.Unix() + 86400}))},
		"over a day":         {token: sign(t, key, kid, claims(jwt.MapClaims{"exp": start.Unix() + 86401})), reason: policy.InvalidToken},
		"a day, no iat":      {token: sign(t, key, kid, claims(jwt.MapClaims{"exp": start.Unix() + 86400, "iat": nil}))},
		"a century, no iat":  {token: sign(t, key, kid, claims(jwt.MapClaims{"exp": start.Unix() + 3153600000, "iat": nil})), reason: policy.InvalidToken},
		"old, long lived":    {token: sign(t, key, kid, claims(jwt.MapClaims{"exp": start.Unix() + 10, "iat": start.Unix() - 86400})), reason: policy.InvalidToken},
		"at+jwt":             {token: sign(t, key, map[string]any{"kid": "k", "typ": "AT+JWT"}, claims(nil))},
		"no kid, one key":    {token: sign(t, key, nil, claims(nil))},
		"aud as text":        {token: sign(t, key, kid, claims(jwt.MapClaims{"aud": "api"}))},
		"iat within leeway":  {token: sign(t, key, kid, claims(jwt.MapClaims{"iat": start.Unix() + 30}))},
		"iat in the future":  {token: sign(t, key, kid, claims(jwt.MapClaims{"iat": start.Unix() + 31})), reason: policy.InvalidToken},
		"nbf in the future":  {token: sign(t, key, kid, claims(jwt.MapClaims{"nbf": start.Unix() + 31})), reason: policy.InvalidToken},
		"nbf as text":        {token: sign(t, key, kid, claims(jwt.MapClaims{"nbf": "0"})), reason: policy.InvalidToken},
		"no exp":             {token: sign(t, key, kid, claims(jwt.MapClaims{"exp": nil})), reason: policy.InvalidToken},
		"exp as text":        {token: sign(t, key, kid, claims(jwt.MapClaims{"exp": "9999999999"})), reason: policy.InvalidToken},
		"exp huge":           {token: sign(t, key, kid, claims(jwt.MapClaims{"exp": 1e300})), reason: policy.InvalidToken},
		"another issuer":     {token: sign(t, key, kid, claims(jwt.MapClaims{"iss": "https://evil.test"})), reason: policy.InvalidToken},
		"no issuer":          {token: sign(t, key, kid, claims(jwt.MapClaims{"iss": nil})), reason: policy.InvalidToken},
		"another audience":   {token: sign(t, key, kid, claims(jwt.MapClaims{"aud": "billing"})), reason: policy.InvalidToken},
		"mixed audience":     {token: sign(t, key, kid, claims(jwt.MapClaims{"aud": []any{"api", 1}})), reason: policy.InvalidToken},
		"no audience":        {token: sign(t, key, kid, claims(jwt.MapClaims{"aud": nil})), reason: policy.InvalidToken},
		"no user":            {token: sign(t, key, kid, claims(jwt.MapClaims{"sub": nil})), reason: policy.InvalidToken},
		"refresh token":      {token: sign(t, key, map[string]any{"kid": "k", "typ": "refresh+jwt"}, claims(nil)), reason: policy.InvalidToken},
		"crit":               {token: sign(t, key, map[string]any{"kid": "k", "crit": []string{"x"}}, claims(nil)), reason: policy.InvalidToken},
		"unknown kid":        {token: sign(t, key, map[string]any{"kid": "../k"}, claims(nil)), reason: policy.InvalidToken},
		"another key":        {token: sign(t, stranger, kid, claims(nil)), reason: policy.InvalidToken},
		"own jwk":            {token: sign(t, stranger, map[string]any{"kid": "k", "jku": "http://evil", "jwk": map[string]any{}}, claims(nil)), reason: policy.InvalidToken},
		"HS256 by our key":   {token: hmac, reason: policy.InvalidToken},
		"none":               {token: nothing, reason: policy.InvalidToken},
		"cut":                {token: good[:len(good)-4], reason: policy.InvalidToken},
		"not a token":        {token: "-", reason: policy.InvalidToken},
		"too long":           {token: good + strings.Repeat("A", 9000), reason: policy.InvalidToken},
	} {
		caller, reason := v.Token(t.Context(), []string{"platform"}, c.token, start.Add(c.after))
		if reason != c.reason || (caller == nil) != (reason != "") {
			t.Errorf("%s: %v, %q; want %q", name, caller, reason, c.reason)
		}
		if caller != nil && (caller.Tenant != "acme" || caller.User != "ann" || !caller.Grants.Can("orders:write") || !caller.Grants.Can("users:read") || caller.Grants.Can("users:write") || len(caller.Scopes) != 2 || caller.Credential == "") {
			t.Errorf("%s: %+v", name, caller)
		}
	}
	if _, reason := v.Token(t.Context(), []string{"gone"}, good, start); reason != policy.PolicyNotReady {
		t.Error(reason)
	}
	// The key is withdrawn: what was verified with it, a moment ago, no longer counts.
	if caller, reason := v.Token(t.Context(), []string{"platform"}, good, start); caller == nil {
		t.Fatal(reason)
	}
	replaced, _, _ := ed25519.GenerateKey(rand.Reader)
	source.set = jwks.NewSet(jwks.Key{ID: "k", Alg: jwks.EdDSA, Public: replaced})
	if caller, reason := v.Token(t.Context(), []string{"platform"}, good, start); reason != policy.InvalidToken {
		t.Error(caller, reason)
	}
	source.set = jwks.NewSet(jwks.Key{ID: "k", Alg: jwks.EdDSA, Public: public})
	if caller, reason := v.Token(t.Context(), []string{"platform"}, good, start); caller == nil {
		t.Fatal(reason)
	}
	source.set = jwks.NewSet(jwks.Key{ID: "another", Alg: jwks.EdDSA, Public: public})
	if caller, reason := v.Token(t.Context(), []string{"platform"}, good, start); reason != policy.InvalidToken {
		t.Error("its key is gone:", caller, reason)
	}
	source.absent, source.set = true, jwks.Set{}
	if _, reason := v.Token(t.Context(), []string{"platform"}, good, start); reason != policy.IssuerUnavailable {
		t.Errorf("without keys nobody can say that a token is bad: %q", reason)
	}
}

// TestTokenOfANewKey: a key set that may be out of date condemns nobody, one
// that is newer than the token does.
func TestTokenOfANewKey(t *testing.T) {
	public, key, _ := ed25519.GenerateKey(rand.Reader)
	other, _, _ := ed25519.GenerateKey(rand.Reader)
	old, both := jwks.NewSet(jwks.Key{ID: "old", Alg: jwks.EdDSA, Public: other}), jwks.NewSet(jwks.Key{ID: "new", Alg: jwks.EdDSA, Public: public})
	issued := func(iat any) jwt.MapClaims { return claims(jwt.MapClaims{"iat": iat}) }
	for name, c := range map[string]struct {
		source mutable
		claims jwt.MapClaims
		reason policy.Reason // after waiting
	}{
		"it comes":                     {mutable{set: old, since: start.Add(-time.Hour), fresh: true, comes: both}, issued(start.Unix()), ""},
		"there was none, it comes":     {mutable{absent: true, since: start, fresh: true, comes: both}, issued(start.Unix()), ""},
		"a fresh set lacks it":         {mutable{set: old, since: start.Add(-time.Hour), fresh: true, comes: old}, issued(start.Unix()), policy.InvalidToken},
		"none comes":                   {mutable{set: old, since: start.Add(-time.Hour)}, issued(start.Unix()), policy.IssuerUnavailable},
		"none comes, and none was":     {mutable{absent: true, since: start}, issued(start.Unix() - 3600), policy.IssuerUnavailable},
		"none comes, but it is older":  {mutable{set: old, since: start.Add(-time.Minute)}, issued(start.Unix() - 120), policy.InvalidToken},
		"none comes, of the same time": {mutable{set: old, since: start.Add(-time.Minute)}, issued(start.Unix() - 62), policy.IssuerUnavailable},
		"none comes, of no known time": {mutable{set: old, since: start.Add(-time.Minute)}, issued(nil), policy.IssuerUnavailable},
	} {
		source := c.source
		v := credential.NewVerifier(map[string]*credential.Issuer{"platform": credential.NewIssuer(platform(), nil, &source)}, nil, credential.NewBulkhead(1))
		token := sign(t, key, map[string]any{"kid": "new"}, c.claims)
		if caller, reason := v.Token(t.Context(), []string{"platform"}, token, start); reason != policy.IssuerUnavailable {
			t.Errorf("%s: at once %v, %q", name, caller, reason)
		}
		if reason := v.Await(t.Context(), []string{"platform"}, token, start); reason != c.reason {
			t.Errorf("%s: %q, want %q", name, reason, c.reason)
		}
		if caller, reason := v.Token(t.Context(), []string{"platform"}, token, start); (caller != nil) != (c.reason == "") {
			t.Errorf("%s: then %v, %q", name, caller, reason)
		}
	}
}

// TestOneIssuerTwice: of two entries with the same iss, the one that knows the
// token says why it does not count, whichever comes first.
func TestOneIssuerTwice(t *testing.T) {
	public, key, _ := ed25519.GenerateKey(rand.Reader)
	set := credential.StaticKeys(jwks.NewSet(jwks.Key{ID: "k", Alg: jwks.EdDSA, Public: public}))
	partners := platform()
	partners.Name, partners.Audiences = "partners", []string{"partner-api"}
	v := credential.NewVerifier(map[string]*credential.Issuer{
		"platform": credential.NewIssuer(platform(), nil, set), "partners": credential.NewIssuer(partners, nil, set),
	}, nil, credential.NewBulkhead(1))
	late := sign(t, key, map[string]any{"kid": "k"}, claims(nil))
	forged := late[:len(late)-8] + "AAAAAAAA"
	for _, order := range [][]string{{"platform", "partners"}, {"partners", "platform"}} {
		if _, reason := v.Token(t.Context(), order, late, start.Add(time.Minute)); reason != policy.ExpiredToken {
			t.Errorf("%v: an expired token is %q", order, reason)
		}
		if _, reason := v.Token(t.Context(), order, forged, start.Add(time.Minute)); reason != policy.InvalidToken {
			t.Errorf("%v: a forged token is %q", order, reason)
		}
		if caller, reason := v.Token(t.Context(), order, late, start); caller == nil {
			t.Errorf("%v: a good token is %q", order, reason)
		}
	}
}

func TestKeys(t *testing.T) {
	plain, secret, err := credential.NewKey(credential.KeySpec{Tenant: "acme", Permissions: []string{"clerk"}, Lifetime: time.Hour}, start)
	if err != nil {
		t.Fatal(err)
	}
	revoked, revokedSecret, _ := credential.NewKey(credential.KeySpec{Tenant: "acme", Owner: "bob", Test: true}, start)
	revoked.Revoked = start.Add(time.Minute)
	index := credential.NewKeyIndex(policy.Roles{"clerk": {"orders:read"}}, []credential.Key{plain}, []credential.Key{revoked})
	v := credential.NewVerifier(nil, index, nil)
	if !strings.HasPrefix(secret, "tok_live_") || !strings.HasPrefix(revokedSecret, "tok_test_") || len(secret) != 60 {
		t.Error(len(secret))
	}
	for name, c := range map[string]struct {
		key    string
		after  time.Duration
		reason policy.Reason
		user   string
	}{
		"good":           {key: secret, user: "key:" + plain.ID},
		"expired":        {key: secret, after: time.Hour, reason: policy.ExpiredKey},
		"owner":          {key: revokedSecret, user: "bob"},
		"revoked":        {key: revokedSecret, after: time.Minute, reason: policy.RevokedKey},
		"typo":           {key: secret[:20] + "0" + secret[21:], reason: policy.UnknownKey},
		"another secret": {key: swapSecret(secret), reason: policy.UnknownKey},
		"short":          {key: "tok_live_", reason: policy.UnknownKey},
		"empty":          {key: "", reason: policy.UnknownKey},
		"live as test":   {key: strings.Replace(secret, "live", "test", 1), reason: policy.UnknownKey},
	} {
		caller, reason := v.Key(c.key, start.Add(c.after))
		if reason != c.reason {
			t.Errorf("%s: %q, want %q", name, reason, c.reason)
		}
		if caller != nil && (caller.User != c.user || caller.Kind != "api_key") {
			t.Errorf("%s: %+v", name, caller)
		}
	}
	if _, reason := credential.NewVerifier(nil, nil, nil).Key(secret, start); reason != policy.PolicyNotReady {
		t.Error("keys that were not read yet cannot be unknown:", reason)
	}
}

// swapSecret makes a well-formed key with the id of one and another secret.
func swapSecret(key string) string {
	const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	body := key[:22] + strings.Repeat("A", 32)
	sum := crc32.ChecksumIEEE([]byte(body))
	crc := make([]byte, 6)
	for i := range crc {
		crc[5-i] = base62[sum%62]
		sum /= 62
	}
	return body + string(crc)
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "keys.yaml")
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			if _, _, err := credential.CreateKey(path, credential.KeySpec{Tenant: "acme", Permissions: []string{"orders:read"}, Lifetime: time.Hour}, start); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := credential.ParseKeys("keys.yaml", data)
	if err != nil || len(keys) != 8 || !keys[0].Expires.Equal(start.Add(time.Hour)) || keys[0].Permissions[0] != "orders:read" {
		t.Fatalf("%v, %v\n%s", keys, err, data)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Error(info.Mode())
	}
	if strings.Contains(string(data), "tok_") {
		t.Error("a secret is in the file")
	}
	if _, err := credential.RevokeKey(path, keys[3].ID, start); err != nil {
		t.Error(err)
	}
	if again, err := credential.RevokeKey(path, keys[3].ID, start.Add(time.Hour)); err != nil || !again.Revoked.Equal(start) {
		t.Error("a second revocation moved the first:", again.Revoked, err)
	}
	if _, err := credential.RevokeKey(path, "nobody", start); err == nil {
		t.Error("a key that is not there was revoked")
	}
	data, _ = os.ReadFile(path)
	if keys, _ = credential.ParseKeys("keys.yaml", data); keys[3].Revoked.IsZero() || !keys[2].Revoked.IsZero() {
		t.Errorf("%s", data)
	}
}

// TestRotateKey: the successor is for the same caller and as long a life; the
// old key ends after the overlap, never later than it would have.
func TestRotateKey(t *testing.T) {
	for name, c := range map[string]struct {
		life, overlap    time.Duration
		expires, revoked time.Duration // of the old key, from now; 0: never
	}{
		"endless":                  {overlap: time.Hour, expires: time.Hour},
		"ends after the overlap":   {life: 3 * time.Hour, overlap: time.Hour, expires: time.Hour},
		"ends before the overlap":  {life: time.Hour, overlap: 24 * time.Hour, expires: time.Hour},
		"no overlap":               {overlap: 0, revoked: -1},
		"no overlap, ends anyhow":  {life: time.Hour, overlap: 0, revoked: -1, expires: time.Hour},
		"overlap of a millisecond": {overlap: time.Millisecond, expires: time.Millisecond},
	} {
		path := filepath.Join(t.TempDir(), "keys.yaml")
		first, oldSecret, err := credential.CreateKey(path, credential.KeySpec{Tenant: "acme", Owner: "bob", Permissions: []string{"a:b"}, Lifetime: c.life}, start)
		if err != nil {
			t.Fatal(err)
		}
		old, next, secret, err := credential.RotateKey(path, first.ID, c.overlap, start)
		if err != nil {
			t.Fatal(err)
		}
		if next.ID == old.ID || secret == oldSecret || next.Tenant != "acme" || next.Owner != "bob" || next.Permissions[0] != "a:b" || !next.Revoked.IsZero() {
			t.Errorf("%s: %+v", name, next)
		}
		if c.life > 0 && !next.Expires.Equal(start.Add(c.life)) || c.life == 0 && !next.Expires.IsZero() {
			t.Errorf("%s: the new one ends %v", name, next.Expires)
		}
		if c.expires > 0 && !old.Expires.Equal(start.Add(c.expires)) || c.expires == 0 && !old.Expires.IsZero() || (c.revoked != 0) != old.Revoked.Equal(start) {
			t.Errorf("%s: the old one expires %v, revoked %v", name, old.Expires, old.Revoked)
		}
		keys, err := credential.ReadKeys(path)
		if err != nil || len(keys) != 2 {
			t.Fatal(keys, err)
		}
		v := credential.NewVerifier(nil, credential.NewKeyIndex(nil, keys), nil)
		if _, reason := v.Key(secret, start.Add(time.Millisecond)); reason != "" {
			t.Errorf("%s: the new one: %s", name, reason)
		}
		if _, reason := v.Key(oldSecret, start.Add(2*24*time.Hour)); reason == "" {
			t.Errorf("%s: the old one lives on", name)
		}
	}
	path := filepath.Join(t.TempDir(), "keys.yaml")
	key, _, _ := credential.CreateKey(path, credential.KeySpec{Tenant: "acme", Lifetime: time.Hour}, start)
	if _, _, _, err := credential.RotateKey(path, key.ID, time.Hour, start.Add(time.Hour)); err == nil {
		t.Error("an expired key was brought back")
	}
	if _, _, _, err := credential.RotateKey(path, "nobody", time.Hour, start); err == nil {
		t.Error("a key that is not there was rotated")
	}
	if _, err := credential.RevokeKey(path, key.ID, start); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := credential.RotateKey(path, key.ID, time.Hour, start); err == nil {
		t.Error("a revoked key was brought back")
	}
}

func TestKeyFileFaults(t *testing.T) {
	hash := "sha256:" + strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		"keys: [{id: a, hash: \"" + hash + "\", tenant: t, revokd: 2026-01-01T00:00:00Z}]":                  "keys.yaml:1:",
		"keys:\n- id: a\n  hash: \"" + hash + "\"\n  tenant: t\n  revokd: 2026-01-01T00:00:00Z\n":           "keys.yaml:5:3: ",
		"keys:\n- id: a\n  hash: abc\n  tenant: t":                                                          "keys.yaml:3:9: keys[0]: hash of a",
		"keys:\n- {id: a, hash: \"" + strings.Repeat("ab", 32) + "\", tenant: t}":                           "keys.yaml:2:17: keys[0]: hash of a",
		"keys:\n- {id: a, hash: \"" + hash + "\"}":                                                          "keys.yaml:2:3: keys[0]: key a has no tenant",
		"keys: [{hash: \"" + hash + "\", tenant: t}]":                                                       "keys.yaml:1:8: keys[0]: id",
		"keys:\n- {id: a, hash: \"" + hash + "\", tenant: t}\n- {id: a, hash: \"" + hash + "\", tenant: t}": "keys.yaml:3:8: keys[1]: id a occurs twice",
		"keys:\n- id: a\n  hash: 1\n  tenant: t\n- id: b\n  hash: \"" + hash + "\"":                         "keys.yaml:3:9: keys[0]: hash of a is not sha256: and 64 hex digits\nkeys.yaml:5:3: keys[1]: key b has no tenant",
		"keys: [{tenat: acme}]":             `keys.yaml:1:9: unknown key "tenat"; did you mean "tenant"?`,
		"keyz: []":                          `keys.yaml:1:1: unknown key "keyz"; did you mean "keys"?`,
		"keys: [{colour: red}]":             `keys.yaml:1:9: unknown key "colour"`,
		"keys: some":                        "keys.yaml:1:7: a list of keys is wanted here, not one word",
		"keys: [some]":                      "keys.yaml:1:8: a key (id, hash, tenant, permissions) is wanted here, not one word",
		"- id: a":                           "keys.yaml:1:1: `keys:` and a list of keys is wanted here, not a list",
		"keys: [{tenant: {a: b}}]":          "keys.yaml:1:17: a text is wanted here, not keys and values",
		"keys: [{permissions: a}]":          `keys.yaml:1:22: a list such as ["orders:read"] is wanted here, not one word`,
		"keys: [{id: a, expires: someday}]": "keys.yaml:1:25: a time is wanted here, such as 2026-11-21T04:00:00Z",
		"keys: {":                           "keys.yaml:2:1: ", // where the end was found
		"\tkeys: 7":                         "keys.yaml:1:",
		"keys:\n- id: a\n  hash: \"" + hash + "\"\n  tenant: t\n  expires: soon": "keys.yaml:5:12: ",
	} {
		_, err := credential.ParseKeys("keys.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n%v, want %s", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "credential.") {
			t.Errorf("%s:\n%v names our types", text, err)
		}
	}
	for _, empty := range []string{"", "keys:\n", "keys: []\n"} {
		if keys, err := credential.ParseKeys("keys.yaml", []byte(empty)); err != nil || len(keys) != 0 {
			t.Errorf("%q: %v", empty, err)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := credential.NewCache[int, int](1000)
	c.Put(-1, 7)
	for i := range 100_000 {
		c.Put(i, i)
		if i%10 == 0 {
			if v, ok := c.Get(-1); !ok || v != 7 {
				t.Fatalf("a scan pushed out what is in use, at %d", i)
			}
		}
	}
	if c.Len() > 1100 {
		t.Error(c.Len())
	}
	c.Delete(-1)
	if _, ok := c.Get(-1); ok {
		t.Error("deleted, yet there")
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte("keys: [{id: a, hash: \"sha256:" + strings.Repeat("ab", 32) + "\", tenant: t, permissions: [\"a:b\"], expires: 2027-01-01T00:00:00Z}]"))
	f.Add([]byte("keys: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := credential.ParseKeys("keys.yaml", data)
		if err != nil {
			return
		}
		text, err := credential.FormatKeys(keys)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := credential.ParseKeys("keys.yaml", text); err != nil || len(again) != len(keys) {
			t.Fatalf("%v from %s", err, text)
		}
	})
}

func FuzzKey(f *testing.F) {
	key, secret, _ := credential.NewKey(credential.KeySpec{Tenant: "t"}, start)
	v := credential.NewVerifier(nil, credential.NewKeyIndex(nil, []credential.Key{key}), nil)
	f.Add(secret[:59])
	f.Add("tok_live_000000000000_0")
	f.Fuzz(func(t *testing.T, s string) {
		if _, reason := v.Key(s, start); (reason == "") != (s == secret) {
			t.Fatalf("%q: %q", s, reason)
		}
	})
}
