package jwks

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// MaxToken bounds a compact token.
const MaxToken = 8 << 10

const maxDepth = 16

// Token is a compact JWS that is well formed; its claims count for nothing
// until Verify returned nil.
type Token struct {
	KeyID, Alg, Typ string
	Claims          map[string]any
	signed          string
	signature       []byte
}

// ParseToken reads a token without verifying it. Cheap refusals come first, so
// that only a well-formed forgery costs a signature. It refuses what readers
// could disagree on: bytes outside the alphabet, trailing bits, duplicate or
// case-variant names, critical extensions, encryption.
func ParseToken(token string) (*Token, error) {
	if len(token) > MaxToken {
		return nil, fmt.Errorf("token has %d bytes, at most %d are read", len(token), MaxToken)
	}
	dots := 0
	for i := range len(token) {
		c := token[i]
		switch {
		case c == '.':
			dots++
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return nil, errors.New("token has a byte outside base64url")
		}
	}
	if dots != 2 {
		return nil, errors.New("token does not have three parts")
	}
	last := strings.LastIndexByte(token, '.')
	head, payload, _ := strings.Cut(token[:last], ".")
	header, err := object(head)
	if err != nil {
		return nil, fmt.Errorf("token header: %w", err)
	}
	t := &Token{signed: token[:last]}
	if _, critical := header["crit"]; critical {
		return nil, errors.New("token header names critical extensions")
	}
	if b64, ok := header["b64"]; ok && b64 != true {
		return nil, errors.New("token header changes the encoding")
	}
	for name, into := range map[string]*string{"alg": &t.Alg, "kid": &t.KeyID, "typ": &t.Typ} {
		if v, present := header[name]; present {
			text, ok := v.(string)
			if !ok || len(text) > 256 {
				return nil, fmt.Errorf("token header %s is not a short string", name)
			}
			*into = text
		}
	}
	if t.Claims, err = object(payload); err != nil {
		return nil, fmt.Errorf("token claims: %w", err)
	}
	if t.signature, err = base64.RawURLEncoding.Strict().DecodeString(token[last+1:]); err != nil {
		return nil, errors.New("token signature is not base64url")
	}
	return t, nil
}

// Verify checks the signature with the key, under the key's own algorithm.
func (t *Token) Verify(key Key) error {
	if t.Alg != key.Alg {
		return errors.New("token is signed with another algorithm than its key's")
	}
	method := jwt.GetSigningMethod(key.Alg)
	if method == nil {
		return errors.New("token algorithm is not supported")
	}
	if err := method.Verify(t.signed, t.signature, key.Public); err != nil {
		return errors.New("token signature is wrong")
	}
	return nil
}

func object(part string) (map[string]any, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, errors.New("not base64url")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	v, err := value(d, 0)
	if err != nil {
		return nil, err
	}
	fields, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("not a JSON object")
	}
	if d.More() || d.InputOffset() != int64(len(bytes.TrimRight(data, " \t\r\n"))) {
		return nil, errors.New("something follows the JSON object")
	}
	return fields, nil
}

// value decodes like encoding/json, which would let the last of two members
// of one name win without a word.
func value(d *json.Decoder, depth int) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, errors.New("not JSON")
	}
	delim, nested := token.(json.Delim)
	if !nested {
		return token, nil
	}
	if depth == maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	if delim == '[' {
		list := []any{}
		for d.More() {
			v, err := value(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, end(d)
	}
	return members(d, depth)
}

func members(d *json.Decoder, depth int) (map[string]any, error) {
	fields := map[string]any{}
	folded := map[string]struct{}{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, errors.New("not JSON")
		}
		text, ok := name.(string)
		if !ok {
			return nil, errors.New("not JSON")
		}
		lower := strings.ToLower(text)
		if _, twice := folded[lower]; twice {
			return nil, errors.New("a name occurs twice, perhaps in another case")
		}
		folded[lower] = struct{}{}
		if fields[text], err = value(d, depth+1); err != nil {
			return nil, err
		}
	}
	return fields, end(d)
}

func end(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return errors.New("not JSON")
	}
	return nil
}
