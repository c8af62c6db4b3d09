package jwks_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"tollgate/internal/jwks"
)

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func rsaJWK(kid string, bits int, extra string) (string, *rsa.PrivateKey) {
	key, _ := rsa.GenerateKey(rand.Reader, bits)
	return fmt.Sprintf(`{"kty":"RSA","kid":%q,"n":%q,"e":%q%s}`, kid, b64(key.N.Bytes()), b64(big.NewInt(int64(key.E)).Bytes()), extra), key
}

func ecJWK(kid string) (string, *ecdsa.PrivateKey) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	point, _ := key.PublicKey.Bytes()
	return fmt.Sprintf(`{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}`, kid, b64(point[1:33]), b64(point[33:])), key
}

func edJWK(kid string) (string, ed25519.PrivateKey) {
	public, key, _ := ed25519.GenerateKey(rand.Reader)
	return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}`, kid, b64(public)), key
}

func TestVerify(t *testing.T) {
	rsaText, rsaKey := rsaJWK("r", 2048, "")
	ecText, ecKey := ecJWK("e")
	edText, edKey := edJWK("d")
	set, err := jwks.Parse([]byte(`{"keys":[` + strings.Join([]string{rsaText, ecText, edText}, ",") + `]}`))
	if err != nil || set.Len() != 3 {
		t.Fatal(set.Len(), err)
	}
	for kid, s := range map[string]struct {
		method jwt.SigningMethod
		key    any
	}{"r": {jwt.SigningMethodRS256, rsaKey}, "e": {jwt.SigningMethodES256, ecKey}, "d": {jwt.SigningMethodEdDSA, edKey}} {
		unsigned := jwt.NewWithClaims(s.method, jwt.MapClaims{"sub": "ann"})
		unsigned.Header["kid"] = kid
		signed, err := unsigned.SignedString(s.key)
		if err != nil {
			t.Fatal(err)
		}
		token, err := jwks.ParseToken(signed)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range []string{"r", "e", "d"} {
			key, _ := set.Lookup(other)
			if err := token.Verify(key); (err == nil) != (other == kid) {
				t.Errorf("token of %s under key %s: %v", kid, other, err)
			}
		}
		if token.Claims["sub"] != "ann" {
			t.Error(token.Claims)
		}
	}
	if _, ok := set.Lookup(""); ok {
		t.Error("a token without kid has a choice of three keys")
	}
}

func TestParseIsLenientPerKey(t *testing.T) {
	good, _ := edJWK("good")
	small, _ := func() (string, *rsa.PrivateKey) {
		t.Setenv("GODEBUG", "rsa1024min=0")
		return rsaJWK("small", 1024, "")
	}()
	enc, _ := rsaJWK("enc", 2048, `,"use":"enc"`)
	ps, _ := rsaJWK("ps", 2048, `,"alg":"PS256"`)
	twice1, _ := edJWK("twice")
	twice2, _ := edJWK("twice")
	bad := []string{
		small, enc, ps, twice1, twice2, `7`, `null`, `{}`, `{"kty":"oct","k":"AAAA","kid":"o"}`, `{"kty":"OKP","crv":"X25519","x":"AA"}`,
		`{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`, `{"kty":"EC","crv":"P-256","x":"` + b64(make([]byte, 32)) + `","y":"` + b64(make([]byte, 32)) + `"}`,
		`{"kty":"OKP","crv":"Ed25519","x":"AA"}`, `{"kty":"RSA","n":"!","e":"AQAB"}`, `{"kty":7}`,
	}
	set, err := jwks.Parse([]byte(`{"keys":[` + strings.Join(append(bad, good), ",") + `]}`))
	if err != nil || set.Len() != 1 {
		t.Fatal(set.Len(), err)
	}
	if _, ok := set.Lookup(""); !ok {
		t.Error("the only key serves a token without kid")
	}
	for _, broken := range []string{``, `{}`, `[]`, `{"keys":7}`, `{"keys":[` + strings.Repeat("{},", 32) + `{}]}`, `{"keys":[]}` + strings.Repeat(" ", jwks.MaxBytes)} {
		if _, err := jwks.Parse([]byte(broken)); err == nil {
			t.Errorf("%.40q was accepted", broken)
		}
	}
}

func TestMarshal(t *testing.T) {
	public, _, _ := ed25519.GenerateKey(rand.Reader)
	key := jwks.Key{ID: "k", Alg: jwks.EdDSA, Public: public}
	data, err := jwks.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	set, err := jwks.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := set.Lookup("k"); !ok || !got.Equal(key) {
		t.Error(string(data))
	}
}

func TestParseTokenRefuses(t *testing.T) {
	part := func(v string) string { return b64([]byte(v)) }
	head := part(`{"alg":"EdDSA"}`)
	claims := part(`{"sub":"a"}`)
	sig := b64(make([]byte, 64))
	deep, _ := json.Marshal(map[string]string{"a": strings.Repeat("[", 40)})
	for name, token := range map[string]string{
		"empty":           "",
		"two parts":       head + "." + claims,
		"four parts":      head + "." + claims + "." + sig + ".x",
		"dots":            strings.Repeat(".", 8000),
		"too long":        head + "." + claims + "." + strings.Repeat("A", jwks.MaxToken),
		"newline":         head + ".\n" + claims + "." + sig,
		"padding":         head + "=." + claims + "." + sig,
		"plus":            head + "." + claims + ".+A",
		"trailing bits":   head + "." + claims + ".AB",
		"null header":     part(`null`) + "." + claims + "." + sig,
		"array claims":    head + "." + part(`[]`) + "." + sig,
		"crit":            part(`{"alg":"EdDSA","crit":["exp"]}`) + "." + claims + "." + sig,
		"b64":             part(`{"alg":"EdDSA","b64":false}`) + "." + claims + "." + sig,
		"kid not string":  part(`{"alg":"EdDSA","kid":7}`) + "." + claims + "." + sig,
		"kid huge":        part(`{"alg":"EdDSA","kid":"`+strings.Repeat("k", 300)+`"}`) + "." + claims + "." + sig,
		"duplicate":       head + "." + part(`{"sub":"a","sub":"b"}`) + "." + sig,
		"case variant":    head + "." + part(`{"sub":"a","Sub":"b"}`) + "." + sig,
		"deep duplicate":  head + "." + part(`{"a":{"b":1,"b":2}}`) + "." + sig,
		"escaped twin":    head + "." + part(`{"a":1,"\u0061":2}`) + "." + sig,
		"trailing object": head + "." + part(`{"a":1}{"b":1}`) + "." + sig,
		"trailing junk":   head + "." + part(`{"a":1}]`) + "." + sig,
		"deep":            head + "." + part(`{"a":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`}`) + "." + sig,
		"exponent":        head + "." + part(`{"exp":1e999}`) + "." + sig,
		"cut":             head + "." + part(`{"a":`) + "." + sig,
	} {
		if _, err := jwks.ParseToken(token); err == nil {
			t.Errorf("%s was accepted", name)
		} else if token != "" && strings.Contains(err.Error(), claims) {
			t.Errorf("%s: the error shows the token", name)
		}
	}
	if _, err := jwks.ParseToken(head + "." + b64(deep) + "." + sig); err != nil {
		t.Errorf("brackets in a string are not depth: %v", err)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("")
	f.Add("a.b.c")
	f.Add(b64([]byte(`{"alg":"EdDSA","kid":"k"}`)) + "." + b64([]byte(`{"sub":"a","exp":1,"a":[{"b":null}]}`)) + ".AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := jwks.ParseToken(s)
		if err != nil {
			return
		}
		var claims map[string]any
		_, rest, _ := strings.Cut(s, ".")
		body, _, _ := strings.Cut(rest, ".")
		data, err := base64.RawURLEncoding.DecodeString(body)
		if err != nil || json.Unmarshal(data, &claims) != nil || len(claims) != len(token.Claims) {
			t.Fatalf("encoding/json reads other claims from %q", data)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"enc","kid":"1"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","kid":"1"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"` + strings.Repeat("_", 342) + `","e":"AQAB","alg":"RS256","kid":"a"},{"kty":"RSA","n":"` + strings.Repeat("_", 342) + `","e":"AQAB","kid":"a"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := jwks.Parse(data)
		if err != nil || set.Len() == 0 {
			return
		}
		if set.Len() > jwks.MaxKeys || !set.Covers(set) {
			t.Errorf("%d keys of %q", set.Len(), data)
		}
	})
}

// TestCovers: news is what a set says, not that it leaves the names out.
func TestCovers(t *testing.T) {
	one, _, _ := ed25519.GenerateKey(rand.Reader)
	two, _, _ := ed25519.GenerateKey(rand.Reader)
	key := func(id string, public ed25519.PublicKey) jwks.Key {
		return jwks.Key{ID: id, Alg: jwks.EdDSA, Public: public}
	}
	for name, c := range map[string]struct {
		held, other jwks.Set
		want        bool
	}{
		"the same":             {jwks.NewSet(key("a", one)), jwks.NewSet(key("a", one)), true},
		"the same, unnamed":    {jwks.NewSet(key("", one)), jwks.NewSet(key("", one)), true},
		"one less":             {jwks.NewSet(key("a", one), key("b", two)), jwks.NewSet(key("b", two)), true},
		"one more":             {jwks.NewSet(key("a", one)), jwks.NewSet(key("a", one), key("b", two)), false},
		"another key":          {jwks.NewSet(key("a", one)), jwks.NewSet(key("a", two)), false},
		"another key, unnamed": {jwks.NewSet(key("", one)), jwks.NewSet(key("", two)), false},
		"another name":         {jwks.NewSet(key("a", one)), jwks.NewSet(key("b", one)), false},
		"a name, now none":     {jwks.NewSet(key("a", one)), jwks.NewSet(key("", one)), false},
		"nothing":              {jwks.NewSet(key("a", one)), jwks.Set{}, true},
	} {
		if got := c.held.Covers(c.other); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
