package syntax

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tollgate/api/contract"
	"tollgate/internal/strictyaml"
)

const (
	none       = "none"
	maxName    = 128
	maxPattern = 1024
)

var (
	nameForm       = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	headerForm     = regexp.MustCompile("^[a-z0-9!#$%&'*+.^_`|~-]+$")
	labelForm      = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?$`)
	permissionForm = regexp.MustCompile(`^(\*|([A-Za-z0-9._/-]+|\*):([A-Za-z0-9._/-]+|\*))$`)
)

// Name is what a thing is called elsewhere in the file: letters, digits, dots,
// dashes and underscores, at most 128.
type Name string

// UnmarshalText checks the form.
func (n *Name) UnmarshalText(text []byte) error {
	if len(text) > maxName || !nameForm.Match(text) {
		return fmt.Errorf("must be a name of letters, digits, '.', '-' and '_', at most %d, not %q", maxName, strictyaml.Clip(text))
	}
	*n = Name(text)
	return nil
}

// TenantName is a customer's name as tokens and keys carry it, or "*".
type TenantName string

// UnmarshalText checks the form.
func (n *TenantName) UnmarshalText(text []byte) error {
	if len(text) == 0 || len(text) > maxName || strings.ContainsFunc(string(text), func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return fmt.Errorf("must be 1 to %d characters without spaces, not %q", maxName, strictyaml.Clip(text))
	}
	*n = TenantName(text)
	return nil
}

// HeaderName is the name of a header that a file may speak of, in lower case.
type HeaderName string

// UnmarshalText refuses what Envoy or the gateway itself owns.
func (h *HeaderName) UnmarshalText(text []byte) error {
	name := strings.ToLower(string(text))
	switch {
	case strings.HasPrefix(name, ":"), name == "host":
		return fmt.Errorf("%q cannot be named here: hosts, paths and methods have words of their own (match, rewrite)", strictyaml.Clip(text))
	case len(name) > maxName, !headerForm.MatchString(name):
		return fmt.Errorf("%q is not the name of a header", strictyaml.Clip(text))
	case strings.HasPrefix(name, contract.PrefixIdentity), strings.HasPrefix(name, contract.PrefixProxy):
		return fmt.Errorf("%q belongs to the gateway: x-auth-* and x-envoy-* are dropped from requests and set by it alone", strictyaml.Clip(text))
	case slices.Contains([]string{"connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer"}, name):
		return fmt.Errorf("%q belongs to the connection and cannot be named here", strictyaml.Clip(text))
	}
	*h = HeaderName(name)
	return nil
}

// HeaderPattern is the name of a header, or a prefix such as x-internal-*.
type HeaderPattern string

// UnmarshalText checks the name or the prefix.
func (h *HeaderPattern) UnmarshalText(text []byte) error {
	prefix, wild := strings.CutSuffix(string(text), "*")
	if wild && prefix == "" {
		return errors.New("\"*\" would remove every header: name a prefix such as x-internal-*")
	}
	var name HeaderName
	if err := name.UnmarshalText([]byte(prefix)); err != nil {
		return err
	}
	*h = HeaderPattern(name)
	if wild {
		*h += "*"
	}
	return nil
}

// HeaderValue is what a header is set to.
type HeaderValue string

// UnmarshalText refuses line breaks.
func (h *HeaderValue) UnmarshalText(text []byte) error {
	if strings.ContainsFunc(string(text), func(r rune) bool { return (r < ' ' && r != '\t') || r == 0x7f }) {
		return errors.New("a header's value has no line breaks and no control characters")
	}
	*h = HeaderValue(strings.TrimSpace(string(text)))
	return nil
}

// Hostname is a host without a port, or *.example.com for every host below.
type Hostname string

// UnmarshalText checks the form and folds the case.
func (h *Hostname) UnmarshalText(text []byte) error {
	name := strings.ToLower(string(text))
	bare, isWild := strings.CutPrefix(name, "*.")
	bracketless := strings.TrimSuffix(strings.TrimPrefix(bare, "["), "]")
	if ip, err := netip.ParseAddr(bracketless); err == nil && !isWild && ip.Zone() == "" {
		*h = Hostname(name)
		if ip.Is6() {
			*h = Hostname("[" + ip.String() + "]")
		}
		return nil
	}
	if strings.Contains(bare, ":") {
		return fmt.Errorf("%q: a host is written without a port and without a scheme", strictyaml.Clip(text))
	}
	if !isHost(bare) {
		return fmt.Errorf("%q is not a host such as api.example.com or *.example.com", strictyaml.Clip(text))
	}
	*h = Hostname(name)
	return nil
}

func isHost(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.ToLower(name), ".") {
		if len(label) > 63 || !labelForm.MatchString(label) {
			return false
		}
	}
	return true
}

// HostPort is host:port.
type HostPort string

// UnmarshalText checks both.
func (h *HostPort) UnmarshalText(text []byte) error {
	s := string(text)
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || !isPort(s[i+1:]) {
		return fmt.Errorf("must be host:port, not %q", strictyaml.Clip(text))
	}
	if _, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s[:i], "["), "]")); err != nil && !isHost(s[:i]) {
		return fmt.Errorf("must be host:port, not %q", strictyaml.Clip(text))
	}
	*h = HostPort(s)
	return nil
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// Address is an IP address with a port; localhost is 127.0.0.1.
type Address netip.AddrPort

// UnmarshalText reads the address.
func (a *Address) UnmarshalText(text []byte) error {
	s := string(text)
	if port, ok := strings.CutPrefix(s, "localhost:"); ok {
		s = "127.0.0.1:" + port
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Addr().Zone() != "" {
		return fmt.Errorf("must be an IP address with a port, such as 127.0.0.1:8080 or [::1]:8080, not %q", strictyaml.Clip(text))
	}
	*a = Address(ap)
	return nil
}

// EndpointAddress is an Address where names are found by discovery instead.
type EndpointAddress Address

// UnmarshalText reads the address.
func (a *EndpointAddress) UnmarshalText(text []byte) error {
	err := (*Address)(a).UnmarshalText(text)
	var named HostPort
	switch {
	case err == nil:
		return nil
	case strings.Contains(string(text), "://"):
		return fmt.Errorf("%q is a URL: write IP:port, or for a name discovery: {dns: HOST:PORT} instead of endpoints; https is tls: {} beside them", strictyaml.Clip(text))
	case named.UnmarshalText(text) == nil:
		return fmt.Errorf("%q is a name, and endpoints are IP addresses: write discovery: {dns: %q} instead", strictyaml.Clip(text), strictyaml.Clip(text))
	}
	return err
}

// Network is a CIDR such as 10.0.0.0/8, or one address.
type Network netip.Prefix

// UnmarshalText reads the network.
func (n *Network) UnmarshalText(text []byte) error {
	if ip, err := netip.ParseAddr(string(text)); err == nil && ip.Zone() == "" && !ip.Is4In6() {
		*n = Network(netip.PrefixFrom(ip, ip.BitLen()))
		return nil
	}
	p, err := netip.ParsePrefix(string(text))
	if err != nil {
		return fmt.Errorf("must be a network such as 10.0.0.0/8, not %q", strictyaml.Clip(text))
	}
	if p.Addr().Is4In6() {
		// Addresses are compared unmapped, so it would hold none.
		return fmt.Errorf("%s is a network of IPv4 in the form of IPv6: write it as 10.0.0.0/8 is", p)
	}
	if p != p.Masked() {
		return fmt.Errorf("%s has bits behind its mask: write %s", p, p.Masked())
	}
	*n = Network(p)
	return nil
}

// Method is an HTTP method, in upper case.
type Method string

// UnmarshalText knows the methods.
func (m *Method) UnmarshalText(text []byte) error {
	name := strings.ToUpper(string(text))
	if !slices.Contains(contract.Methods(), name) {
		return fmt.Errorf("%q is not one of %s", strictyaml.Clip(text), strings.Join(contract.Methods(), ", "))
	}
	*m = Method(name)
	return nil
}

// Permission is resource:action, with "*" for either part, or "*" for all.
type Permission string

// UnmarshalText checks the form.
func (p *Permission) UnmarshalText(text []byte) error {
	if len(text) > maxName || !permissionForm.Match(text) {
		return fmt.Errorf("%q is not a permission: write resource:action such as \"orders:read\", \"orders:*\", or \"*\"", strictyaml.Clip(text))
	}
	*p = Permission(text)
	return nil
}

// Pattern is a regular expression of RE2 that must match the whole text.
type Pattern string

// UnmarshalText compiles it.
func (p *Pattern) UnmarshalText(text []byte) error {
	if len(text) == 0 || len(text) > maxPattern {
		return fmt.Errorf("a regex has 1 to %d characters", maxPattern)
	}
	if _, err := regexp.Compile(string(text)); err != nil {
		return fmt.Errorf("not a regex of RE2: %w", err)
	}
	*p = Pattern(text)
	return nil
}

// JWKSURL is where a key set is fetched: https, http only from this machine.
type JWKSURL string

// UnmarshalText checks the scheme and the host.
func (u *JWKSURL) UnmarshalText(text []byte) error {
	parsed, err := url.Parse(string(text))
	if err != nil || parsed.Hostname() == "" || parsed.User != nil {
		return errors.New("must be a URL such as https://auth.example.com/.well-known/jwks.json, without a user in it")
	}
	ip, _ := netip.ParseAddr(parsed.Hostname())
	local := parsed.Hostname() == "localhost" || ip.IsLoopback()
	if parsed.Scheme != "https" && (parsed.Scheme != "http" || !local) {
		return fmt.Errorf("%q must be https: whoever can change the answer can make tokens (http is only for loopback)", strictyaml.Clip(text))
	}
	*u = JWKSURL(text)
	return nil
}
