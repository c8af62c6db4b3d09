package e2e_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"tollgate/e2e/harness"
)

// tokenAttacks is group 5. A hostile token is no credential: it goes alone, and
// again beside tenant A's key, where two kinds at once are refused. A good one
// that looks odd is the credential itself.
func tokenAttacks(t *testing.T, good, partner *harness.Issuer) []attack {
	t.Helper()
	claims := harness.Claims("acme", "bob", "orders:read")
	edDSA := map[string]any{"kid": "ed", "typ": "at+jwt"}
	header := func(changes jwt.MapClaims) map[string]any { return harness.With(edDSA, changes) }
	changed := func(changes jwt.MapClaims) string { return good.Token(t, harness.With(claims, changes)) }
	headed := func(changes jwt.MapClaims) string {
		return good.Sign(t, jwt.SigningMethodEdDSA, good.EdDSA, header(changes), claims)
	}
	payload := encoded(t, claims)
	token := good.Token(t, claims)
	parts := strings.Split(token, ".")
	now := time.Now()

	var all []attack
	bad := func(name, token string, status ...int) {
		a := attack{name: name, group: 5, lines: []string{"Authorization: Bearer " + token}, want: refused(401), bare: 401}
		if len(status) == 1 {
			a.bare = status[0]
			if status[0] != 403 {
				a.want = refused(status[0])
			}
		}
		all = append(all, a)
	}
	fine := func(name, token string) {
		all = append(all, attack{name: name, group: 5, with: []string{"Authorization: Bearer " + token}, want: same("orders", "/orders/1").by("bob")})
	}

	// Algorithms and keys.
	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		bad("alg "+alg+" without a signature", b64(`{"alg":"`+alg+`","typ":"at+jwt","kid":"ed"}`)+"."+b64(payload)+".")
	}
	bad("alg none with a signature", good.Raw(`{"alg":"none","typ":"at+jwt","kid":"ed"}`, payload))
	bad("no alg", good.Raw(`{"typ":"at+jwt","kid":"ed"}`, payload))
	bad("alg as a number", good.Raw(`{"alg":1,"typ":"at+jwt","kid":"ed"}`, payload))
	bad("alg in lower case", good.Raw(`{"alg":"eddsa","typ":"at+jwt","kid":"ed"}`, payload))
	for name, secret := range map[string][]byte{
		"public key": good.EdDSA.Public().(ed25519.PublicKey), "public modulus": good.RSA.N.Bytes(), "key set": good.JWKS(), "empty text": {},
	} {
		bad("HS256 with the "+name, hs256(`{"alg":"HS256","typ":"at+jwt","kid":"ed"}`, payload, secret))
	}
	bad("PS256 with the key of RS256", good.Sign(t, jwt.SigningMethodPS256, good.RSA, header(jwt.MapClaims{"kid": "rsa"}), claims))
	bad("RS384 with the key of RS256", good.Sign(t, jwt.SigningMethodRS384, good.RSA, header(jwt.MapClaims{"kid": "rsa"}), claims))
	bad("EdDSA under the kid of RSA", headed(jwt.MapClaims{"kid": "rsa"}))
	bad("RS256 under the kid of EdDSA", good.Sign(t, jwt.SigningMethodRS256, good.RSA, edDSA, claims))
	bad("key of another issuer under our kid", partner.Token(t, claims))
	bad("token of another issuer under our kid", partner.Token(t, harness.With(claims, jwt.MapClaims{"iss": "https://partner.e2e.test"})))
	fine("RS256", good.Sign(t, jwt.SigningMethodRS256, good.RSA, header(jwt.MapClaims{"kid": "rsa"}), claims))
	es256 := good.Sign(t, jwt.SigningMethodES256, good.ECDSA, header(jwt.MapClaims{"kid": "ec"}), claims)
	fine("ES256", es256)
	fine("ES256 with the other root", otherRoot(t, good, es256))
	bad("ES256 as DER", derSigned(t, good, es256))
	bad("ES256 of zeros", es256[:strings.LastIndexByte(es256, '.')+1]+b64(string(make([]byte, 64))))

	// Headers.
	for name, kid := range map[string]string{
		"a path": "../../../../dev/null", "SQL": "ed' OR '1'='1", "a URL": "http://127.0.0.1:1/keys.json", "a shell": "ed|/usr/bin/id", "another case": "ED", "a tail": "ed\x00", "empty": "", "unknown": "old",
	} {
		bad("kid is "+name, headed(jwt.MapClaims{"kid": kid}))
	}
	bad("kid is missing among three keys", headed(jwt.MapClaims{"kid": nil}))
	bad("kid of 1 MiB", headed(jwt.MapClaims{"kid": strings.Repeat("k", 1<<20)}), 431)
	bad("kid of 16 KiB", headed(jwt.MapClaims{"kid": strings.Repeat("k", 16<<10)}))
	bad("kid as a list", good.Raw(`{"alg":"EdDSA","typ":"at+jwt","kid":["ed"]}`, payload))
	bad("kid twice", good.Raw(`{"alg":"EdDSA","typ":"at+jwt","kid":"rsa","kid":"ed"}`, payload))
	bad("kid twice in two cases", good.Raw(`{"alg":"EdDSA","typ":"at+jwt","kid":"ed","KID":"rsa"}`, payload))
	fine("jku and x5u of an attacker, our key", headed(jwt.MapClaims{"jku": "http://127.0.0.1:1/k", "x5u": "http://127.0.0.1:1/c"}))
	foreign := func(changes jwt.MapClaims) string {
		return partner.Sign(t, jwt.SigningMethodEdDSA, partner.EdDSA, header(changes), claims)
	}
	bad("jku of an attacker", foreign(jwt.MapClaims{"jku": "http://127.0.0.1:1/k"}))
	bad("x5u of an attacker", foreign(jwt.MapClaims{"x5u": "http://127.0.0.1:1/c"}))
	bad("jwk of an attacker", foreign(jwt.MapClaims{"jwk": map[string]any{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(partner.EdDSA.Public().(ed25519.PublicKey))}}))
	bad("crit", headed(jwt.MapClaims{"crit": []string{"exp"}, "exp": 1}))
	bad("empty crit", headed(jwt.MapClaims{"crit": []string{}}))
	bad("payload that is not encoded", headed(jwt.MapClaims{"b64": false}))
	bad("refresh token", headed(jwt.MapClaims{"typ": "refresh+jwt"}))
	bad("identity token", headed(jwt.MapClaims{"typ": "id+jwt"}))
	bad("no typ", good.Raw(`{"alg":"EdDSA","kid":"ed"}`, payload))
	fine("typ JWT", headed(jwt.MapClaims{"typ": "JWT"}))

	// Encodings.
	bad("two parts", parts[0]+"."+parts[1])
	bad("one part", parts[0])
	bad("four parts", token+".")
	bad("five parts, as of JWE", b64(`{"alg":"dir","enc":"A256GCM","kid":"ed"}`)+"..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA")
	bad("nested token", good.Raw(`{"alg":"EdDSA","typ":"at+jwt","cty":"JWT","kid":"ed"}`, `"`+token+`"`))
	bad("7,000 dots", strings.Repeat(".", 7000))
	bad("50,000 dots", strings.Repeat(".", 50_000))
	bad("100,000 dots", strings.Repeat(".", 100_000), 431)
	bad("only dots", "..")
	bad("no signature", parts[0]+"."+parts[1]+".")
	bad("signature of another token", parts[0]+"."+parts[1]+"."+strings.Split(changed(jwt.MapClaims{"sub": "eve"}), ".")[2])
	bad("changed payload", parts[0]+"."+b64(strings.Replace(payload, "acme", "globex", 1))+"."+parts[2])
	bad("cut signature", token[:len(token)-2])
	bad("padded", token+"==")
	bad("trailing bits", trailingBits(token))
	bad("plain base64 alphabet", strings.NewReplacer("-", "+", "_", "/").Replace(parts[0]+"."+parts[1])+"."+strings.Repeat("/+", 43))
	bad("escaped dots", strings.ReplaceAll(token, ".", "%2e"))
	bad("space within", parts[0]+". "+parts[1]+"."+parts[2])
	bad("continued within", parts[0]+".\r\n "+parts[1]+"."+parts[2])
	bad("high byte within", token+"\xff")
	bad("JSON of a general JWS", `{"payload":"`+parts[1]+`"}`)
	return append(all, claimAttacks(t, good, claims, now)...)
}

// claimAttacks are tokens with a good signature that say what none should.
func claimAttacks(t *testing.T, good *harness.Issuer, claims jwt.MapClaims, now time.Time) []attack {
	t.Helper()
	const header = `{"alg":"EdDSA","typ":"at+jwt","kid":"ed"}`
	payload := encoded(t, claims)
	var all []attack
	add := func(name, token string, bare int) {
		all = append(all, attack{name: name, group: 5, lines: []string{"Authorization: Bearer " + token}, want: refused(401), bare: bare})
	}
	changed := func(changes jwt.MapClaims) string { return good.Token(t, harness.With(claims, changes)) }
	bad := func(name string, changes jwt.MapClaims) { add(name, changed(changes), 401) }
	raw := func(name, payload string) { add(name, good.Raw(header, payload), 401) }
	forbidden := func(name string, changes jwt.MapClaims) { add(name, changed(changes), 403) }
	fine := func(name string, changes jwt.MapClaims) {
		all = append(all, attack{name: name, group: 5, with: []string{"Authorization: Bearer " + changed(changes)}, want: same("orders", "/orders/1").by("bob")})
	}

	bad("no exp", jwt.MapClaims{"exp": nil})
	bad("exp just now", jwt.MapClaims{"exp": now.Unix()})
	bad("exp long ago", jwt.MapClaims{"exp": 1})
	bad("exp within a leeway", jwt.MapClaims{"exp": now.Add(-5 * time.Second).Unix()})
	bad("exp as text", jwt.MapClaims{"exp": "99999999999"})
	bad("exp null", jwt.MapClaims{"exp": json.RawMessage("null")})
	bad("exp negative", jwt.MapClaims{"exp": -1})
	raw("exp 1e300", strings.Replace(payload, `"exp":`, `"exp":1e300,"xexp":`, 1))
	raw("exp beyond a number", strings.Replace(payload, `"exp":`, `"exp":1e999,"xexp":`, 1))
	fine("exp as a fraction", jwt.MapClaims{"exp": float64(now.Unix()) + 600.5})
	bad("nbf beyond the leeway", jwt.MapClaims{"nbf": now.Add(60 * time.Second).Unix()})
	fine("nbf within the leeway", jwt.MapClaims{"nbf": now.Add(25 * time.Second).Unix()})
	bad("iat beyond the leeway", jwt.MapClaims{"iat": now.Add(60 * time.Second).Unix()})
	fine("iat within the leeway", jwt.MapClaims{"iat": now.Add(25 * time.Second).Unix()})
	fine("no iat", jwt.MapClaims{"iat": nil})
	bad("iat as text", jwt.MapClaims{"iat": "now"})
	bad("nbf as a list", jwt.MapClaims{"nbf": []int{1}})

	bad("no iss", jwt.MapClaims{"iss": nil})
	bad("another iss", jwt.MapClaims{"iss": "https://evil.e2e.test"})
	bad("iss with a slash", jwt.MapClaims{"iss": harness.IssuerURL + "/"})
	bad("iss as a list", jwt.MapClaims{"iss": []string{harness.IssuerURL}})
	bad("no aud", jwt.MapClaims{"aud": nil})
	bad("another aud", jwt.MapClaims{"aud": "billing"})
	bad("empty aud", jwt.MapClaims{"aud": []string{}})
	bad("aud of mixed kinds", jwt.MapClaims{"aud": []any{"api", 1}})
	bad("aud as an object", jwt.MapClaims{"aud": map[string]string{"api": "api"}})
	bad("aud in upper case", jwt.MapClaims{"aud": "API"})
	fine("aud among others", jwt.MapClaims{"aud": []string{"billing", "api"}})
	bad("no sub", jwt.MapClaims{"sub": nil})
	bad("sub as a number", jwt.MapClaims{"sub": 7})
	bad("empty sub", jwt.MapClaims{"sub": ""})

	forbidden("no tenant", jwt.MapClaims{"tenant": nil})
	forbidden("empty tenant", jwt.MapClaims{"tenant": ""})
	forbidden("star as tenant", jwt.MapClaims{"tenant": "*"})
	forbidden("none as tenant", jwt.MapClaims{"tenant": "(none)"})
	forbidden("tenant in upper case", jwt.MapClaims{"tenant": "ACME"})
	forbidden("tenant with a space", jwt.MapClaims{"tenant": "acme "})
	forbidden("tenant with NUL", jwt.MapClaims{"tenant": "acme\x00"})
	forbidden("tenant as a list", jwt.MapClaims{"tenant": []string{"acme"}})
	forbidden("tenant as an object", jwt.MapClaims{"tenant": map[string]string{"acme": "acme"}})
	forbidden("permissions as an object", jwt.MapClaims{"permissions": map[string]bool{"orders:read": true}})
	forbidden("permissions in a list of lists", jwt.MapClaims{"permissions": [][]string{{"orders:read"}}})
	forbidden("permissions by a comma", jwt.MapClaims{"permissions": "orders:read,orders:write"})
	forbidden("permissions in another claim", jwt.MapClaims{"permissions": nil, "scope": "orders:read", "roles": []string{"admin"}})
	forbidden("permission in upper case", jwt.MapClaims{"permissions": []string{"ORDERS:READ"}})
	fine("permissions as text", jwt.MapClaims{"permissions": "users:read orders:read"})

	raw("tenant twice", strings.Replace(payload, `"tenant":`, `"tenant":"globex","tenant":`, 1))
	raw("tenant twice in two cases", strings.Replace(payload, `"tenant":`, `"Tenant":"globex","tenant":`, 1))
	raw("permissions twice in two cases", strings.Replace(payload, `"permissions":`, `"PERMISSIONS":["*"],"permissions":`, 1))
	raw("sub twice by an escape", strings.Replace(payload, `"sub":`, `"s\u0075b":"root","sub":`, 1))
	raw("payload null", "null")
	raw("payload a list", "["+payload+"]")
	raw("payload empty", "")
	raw("payload and more", payload+payload)
	raw("payload in a byte order mark", "\xef\xbb\xbf"+payload)
	raw("payload nested 1,000 deep", strings.Replace(payload, `"sub":`, `"x":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+`,"sub":`, 1))
	all = append(all, attack{
		name: "user who breaks lines", group: 5, with: []string{"Authorization: Bearer " + changed(jwt.MapClaims{"sub": "a\r\nx-auth-tenant: globex"})},
		want: outcome{status: 200, route: "orders", path: "/orders/1", host: "api.e2e.test", kind: "jwt", user: "a\r\nx-auth-tenant: globex", written: "a%0D%0Ax-auth-tenant: globex"},
	})
	return all
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func encoded(t *testing.T, claims jwt.MapClaims) string {
	t.Helper()
	data, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func hs256(header, payload string, secret []byte) string {
	input := b64(header) + "." + b64(payload)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(input))
	return input + "." + b64(string(mac.Sum(nil)))
}

// otherRoot replaces (r, s) of an ECDSA signature by (r, n-s), which is as good.
func otherRoot(t *testing.T, issuer *harness.Issuer, token string) string {
	t.Helper()
	at := strings.LastIndexByte(token, '.') + 1
	signature, err := base64.RawURLEncoding.DecodeString(token[at:])
	if err != nil {
		t.Fatal(err)
	}
	s := new(big.Int).Sub(issuer.ECDSA.Params().N, new(big.Int).SetBytes(signature[32:]))
	s.FillBytes(signature[32:])
	return token[:at] + b64(string(signature))
}

func derSigned(t *testing.T, issuer *harness.Issuer, token string) string {
	t.Helper()
	at := strings.LastIndexByte(token, '.')
	sum := sha256.Sum256([]byte(token[:at]))
	der, err := issuer.ECDSA.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return token[:at+1] + b64(string(der))
}

// trailingBits changes the last character in the bits that carry nothing.
func trailingBits(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + string(alphabet[last^1])
}
