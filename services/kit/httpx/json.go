package httpx

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"tollgate/internal/envelope"
	"tollgate/services/kit/fault"
	"tollgate/services/kit/requestid"
)

// maxDepth is far above what any request of ours needs.
const maxDepth = 16

// Meta goes beside the data of every answer.
type Meta struct {
	Timestamp string `json:"timestamp"`
	RequestID string `json:"request_id"`
	// NextPageToken is set while a listing has more.
	NextPageToken string `json:"next_page_token,omitempty"`
}

// Reply answers {"data": …, "meta": …}.
func Reply(w http.ResponseWriter, r *http.Request, status int, data any, nextPage string) error {
	return JSON(w, status, struct {
		Data any  `json:"data"`
		Meta Meta `json:"meta"`
	}{data, Meta{
		Timestamp: time.Now().UTC().Format(envelope.TimeFormat), RequestID: requestid.From(r.Context()), NextPageToken: nextPage,
	}})
}

// JSON answers v as it is.
func JSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that left is not our error
	return nil
}

// ReadJSON reads a request's body into a T, strictly.
func ReadJSON[T any](r *http.Request) (T, error) {
	var none T
	body, err := io.ReadAll(r.Body)
	if tooBig, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return none, fault.TooLarge(fmt.Sprintf("The body is over %d bytes", tooBig.Limit))
	}
	if err != nil {
		return none, fault.Invalid("The body ended early")
	}
	return DecodeJSON[T](body)
}

// DecodeJSON reads exactly one JSON object into the struct T. Unknown,
// misspelt (case counts) and repeated keys, text after the object, invalid
// UTF-8 and deep nesting are faults: two readers of the same bytes must never
// see two requests.
func DecodeJSON[T any](body []byte) (T, error) {
	var v, none T
	if !utf8.Valid(body) {
		return none, fault.Invalid("The body is not UTF-8")
	}
	if err := checkKeys(body, fields(reflect.TypeFor[T]())); err != nil {
		return none, fault.Invalid("The body is not a JSON object as expected: " + err.Error())
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&v); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return none, fault.Invalid(fmt.Sprintf("%s: must be %s, not a JSON %s", wrong.Field, kind(wrong.Type), wrong.Value))
		}
		return none, fault.Invalid("The body is not a JSON object as expected: " + strings.TrimPrefix(err.Error(), "json: "))
	}
	return v, nil
}

// checkKeys walks the one object in body.
func checkKeys(body []byte, known []string) error {
	decoder := json.NewDecoder(bytes.NewReader(body))
	first, err := decoder.Token()
	if err == io.EOF {
		return errors.New("it is empty")
	}
	if err != nil {
		return syntax(err)
	}
	if first != json.Delim('{') {
		return errors.New("it does not begin with {")
	}
	open := []map[string]bool{{}} // nil for an array; the keys seen so far of an object
	isKey := true
	for len(open) > 0 {
		token, err := decoder.Token()
		if err != nil {
			return syntax(err)
		}
		top := open[len(open)-1]
		switch t := token.(type) {
		case json.Delim:
			open = nest(open, t)
			if len(open) > maxDepth {
				return fmt.Errorf("it is nested deeper than %d", maxDepth)
			}
			isKey = true
		case string:
			if top != nil && isKey {
				if err := admit(t, top, known, len(open) == 1); err != nil {
					return err
				}
				isKey = false
				continue
			}
			isKey = true
		default:
			isKey = true
		}
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("something follows the object")
	}
	return nil
}

func nest(open []map[string]bool, t json.Delim) []map[string]bool {
	switch t {
	case '{':
		return append(open, map[string]bool{})
	case '[':
		return append(open, nil)
	}
	return open[:len(open)-1]
}

func admit(key string, seen map[string]bool, known []string, top bool) error {
	if seen[key] {
		return fmt.Errorf("key %q is there twice", cut(key))
	}
	if top && !slices.Contains(known, key) {
		return fmt.Errorf("key %q is unknown; known: %s", cut(key), strings.Join(known, ", "))
	}
	seen[key] = true
	return nil
}

func syntax(err error) error {
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("%s at byte %d", s.Error(), s.Offset)
	}
	return errors.New("it ends early")
}

func fields(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

func kind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Int64:
		return "a whole number"
	}
	return "of another type"
}

func cut(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

// PageQuery reads page_size and page_token of a listing's URL.
func PageQuery(r *http.Request) (size int, token string, err error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return 0, "", fault.Invalid("The query of the URL is malformed")
	}
	if raw := query.Get("page_size"); raw != "" {
		if size, err = strconv.Atoi(raw); err != nil {
			return 0, "", fault.Invalid("page_size: must be a whole number")
		}
	}
	return size, query.Get("page_token"), nil
}
