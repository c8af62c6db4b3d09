package syntax

import (
	"errors"
	"fmt"
	"strings"

	"tollgate/internal/strictyaml"
)

// Content is a text that never stands in the file itself: env:NAME or file:PATH.
type Content struct {
	strictyaml.Pos
	Ref, Text string
}

// Set reads what the reference stands for.
func (c *Content) Set(s strictyaml.Scalar) error {
	if !strictyaml.IsReference(s.Written) {
		return errors.New("must be env:NAME or file:PATH: keys, certificates and passwords are not written in the file")
	}
	c.Ref = s.Written
	text, err := s.Resolve(s.Written)
	if err == nil && strings.TrimSpace(text) == "" {
		err = fmt.Errorf("%s is empty", s.Written)
	}
	c.Text = text
	return err
}

// ContentFile is a text in a file whose path is written with or without file:.
type ContentFile struct {
	Content
}

// Set reads the file.
func (c *ContentFile) Set(s strictyaml.Scalar) error {
	if !strictyaml.IsReference(s.Written) {
		s.Written = "file:" + s.Written
	}
	return c.Content.Set(s)
}

// StorePath is file:PATH, kept as a path: the file is read elsewhere.
type StorePath struct {
	strictyaml.Pos
	Path string
}

// Set takes the path.
func (p *StorePath) Set(s strictyaml.Scalar) error {
	path, ok := strings.CutPrefix(s.Written, "file:")
	if !ok || path == "" {
		return fmt.Errorf("must be file:PATH, not %q", strictyaml.Clip([]byte(s.Written)))
	}
	p.Path = path
	return nil
}

// By is one thing that a limit counts by.
type By string

// UnmarshalText knows the words.
func (b *By) UnmarshalText(text []byte) error {
	words := []string{"tenant", "user", "credential", "ip", "route", "method"}
	for _, w := range words {
		if string(text) == w {
			*b = By(text)
			return nil
		}
	}
	kind, name, ok := strings.Cut(string(text), ":")
	if ok && name != "" && len(name) <= maxName {
		switch kind {
		case "header":
			var h HeaderName
			if err := h.UnmarshalText([]byte(name)); err != nil {
				return err
			}
			*b = By("header:" + string(h))
			return nil
		case "claim", "query":
			*b = By(text)
			return nil
		}
	}
	return fmt.Errorf("%q is not one of %s, header:X, claim:X, query:X%s", strictyaml.Clip(text), strings.Join(words, ", "), strictyaml.Suggest(string(text), words))
}

// HashOn is what a ring hash or maglev hashes: header:X, cookie:X or ip.
type HashOn string

// UnmarshalText knows the words.
func (h *HashOn) UnmarshalText(text []byte) error {
	kind, name, _ := strings.Cut(string(text), ":")
	switch {
	case string(text) == "ip":
		*h = "ip"
		return nil
	case kind == "header":
		var header HeaderName
		if err := header.UnmarshalText([]byte(name)); err != nil {
			return err
		}
		*h = HashOn("header:" + string(header))
		return nil
	case kind == "cookie" && nameForm.MatchString(name):
		*h = HashOn(text)
		return nil
	}
	return fmt.Errorf("%q is not one of header:X, cookie:X, ip", strictyaml.Clip(text))
}
