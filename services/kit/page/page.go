// Package page cuts listings: an opaque token says where the next page starts.
// Invariant: a token that we did not make is a clear fault, never a wrong page.
package page

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"

	"tollgate/services/kit/fault"
)

// Bounds of a page; Default is used for a size of 0.
const (
	Default = 20
	Max     = 100
)

// Page is a part of a listing: at most Size rows with a sequence above After.
type Page struct {
	Size  int
	After int64
}

// Parse checks a client's page size and token.
func Parse(size int, token string) (Page, error) {
	if size < 0 || size > Max {
		return Page{}, fault.Invalid(fmt.Sprintf("page_size: must be between 1 and %d, or 0 for %d", Max, Default))
	}
	if size == 0 {
		size = Default
	}
	if token == "" {
		return Page{Size: size}, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) != 8 || raw[0]&0x80 != 0 {
		return Page{}, fault.Invalid("page_token: not a token of this listing; use next_page_token as it was given, or none")
	}
	return Page{Size: size, After: int64(binary.BigEndian.Uint64(raw))}, nil
}

// Token returns the token of the page that begins behind a sequence.
func Token(after int64) string {
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, uint64(after)))
}
