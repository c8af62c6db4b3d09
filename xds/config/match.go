package config

import (
	"cmp"
	"slices"
	"strings"

	"tollgate/internal/strictyaml"
	"tollgate/xds/config/syntax"
)

func (b *builder) match(s *syntax.Match, path string) Match {
	if s == nil {
		return Match{}
	}
	m := Match{
		Hosts: strs(s.Hosts.Items), Methods: strs(s.Methods.Items),
		Headers: b.conditions(s.Headers, path+".headers", true),
		Query:   b.conditions(s.Query, path+".query", false),
		Cookies: b.conditions(s.Cookies, path+".cookies", false),
	}
	if s.Hosts.IsSet() && len(m.Hosts) == 0 && !s.Hosts.None {
		b.fault(s.Hosts.Pos, path+".hosts", "is empty: name hosts, or `none` for every host")
	}
	if s.Methods.IsSet() && len(m.Methods) == 0 && !s.Methods.None {
		b.fault(s.Methods.Pos, path+".methods", "is empty: name methods, or `none` for all")
	}
	m.Hosts, m.Methods = distinct(m.Hosts), distinct(m.Methods)
	if p := s.Path; p != nil {
		switch {
		case p.Exact.IsSet():
			m.Kind, m.Path = PathExact, string(p.Exact.V)
		case p.Template.IsSet():
			m.Kind, m.Path = PathTemplate, string(p.Template.V)
		case p.Regex.IsSet():
			m.Kind, m.Path = PathRegex, string(p.Regex.V)
		case p.Prefix.IsSet():
			m.Kind, m.Path = PathPrefix, string(p.Prefix.V)
			if len(m.Path) > 1 {
				m.Path = strings.TrimSuffix(m.Path, "/")
			}
		}
	}
	return m
}

// distinct keeps the first of each, in order.
func distinct(words []string) []string {
	var out []string
	for _, w := range words {
		if !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}

func (b *builder) conditions(written strictyaml.Map[syntax.Condition], path string, headers bool) []Condition {
	var out []Condition
	for i := range written.Items {
		key, s := written.Items[i].Key, &written.Items[i].Value
		c := Condition{Name: key.V}
		if headers {
			var name syntax.HeaderName
			if err := name.UnmarshalText([]byte(key.V)); err != nil {
				b.fault(key.Pos, path, "%v", err)
				continue
			}
			c.Name = string(name)
		} else if key.V == "" {
			b.fault(key.Pos, path, "a name is empty")
		}
		switch {
		case s.Exact.IsSet():
			c.Op, c.Value = Equals, s.Exact.V
		case s.Prefix.IsSet():
			c.Op, c.Value = HasPrefix, s.Prefix.V
			if c.Value == "" {
				b.fault(s.Prefix.Pos, path+"."+key.V, "an empty prefix: write present: true")
			}
		case s.Regex.IsSet():
			c.Op, c.Value = Matches, string(s.Regex.V)
		case s.Present.IsSet() && s.Present.V:
			c.Op = Present
		default:
			c.Op = Absent
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(x, y Condition) int { return cmp.Compare(x.Name, y.Name) })
	return out
}
