package daemon

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"tollgate/internal/clientrate"
)

// Bearer says whether a request carries a token. It compares hashes, so that
// neither content nor length of the token shows in the time it takes. No request
// carries the empty token.
func Bearer(r *http.Request, token string) bool {
	sent, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	got, want := sha256.Sum256([]byte(sent)), sha256.Sum256([]byte(token))
	return bearer && token != "" && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// guard stands before everything that an admin address serves: a page in the
// operator's browser must neither read nor write here, whatever name it makes
// lead to us.
type guard struct {
	token string
	hosts []string // names by which we are asked, in lower case
	local netip.AddrPort
	log   *clientrate.Log
}

// newGuard takes the bound address, and the names beside it.
func newGuard(cfg AdminConfig) guard {
	g := guard{token: cfg.Token, log: clientrate.NewLog(cfg.Log, "from")}
	if a, err := netip.ParseAddrPort(cfg.Listener.Addr().String()); err == nil {
		g.local = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	for _, name := range cfg.Hosts {
		g.hosts = append(g.hosts, strings.ToLower(name))
	}
	if name, err := os.Hostname(); err == nil {
		g.hosts = append(g.hosts, strings.ToLower(name))
	}
	return g
}

// meant says whether a Host is ours. A name that an attacker's DNS makes lead
// here is not; an address has no DNS.
func (g guard) meant(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if ip, err := netip.ParseAddr(host); err == nil {
		local := g.local.Addr()
		return !local.IsValid() || local.IsUnspecified() || ip.Unmap() == local
	}
	return host == "localhost" || slices.Contains(g.hosts, host)
}

// foreign says whether a request comes from a page that is not ours.
func foreign(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	from, err := url.Parse(origin)
	return err != nil || from.Host == "" || !strings.EqualFold(from.Host, r.Host)
}

// stranger refuses requests for other hosts and from other pages.
func (g guard) stranger(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case foreign(r):
			g.refuse(w, r, http.StatusForbidden, "a page of another origin may not ask here")
		case !g.meant(r.Host):
			g.refuse(w, r, http.StatusMisdirectedRequest, "this is no name of mine: ask by address, or name it with --admin-host")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// page refuses requests from other pages, by whatever name we are asked:
// instances know us by the name that their network gives us, and a page that made
// a name of its own lead here has none of their tokens.
func (g guard) page(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if foreign(r) {
			g.refuse(w, r, http.StatusForbidden, "a page of another origin may not ask here")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bearer lets those in who carry the token.
func (g guard) bearer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if Bearer(r, g.token) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="tollgate"`)
		g.refuse(w, r, http.StatusUnauthorized, "send the token of <data-dir>/admin.token as a bearer")
	})
}

func (g guard) refuse(w http.ResponseWriter, r *http.Request, status int, why string) {
	g.log.Warn("admin request refused", "status", status, "method", r.Method, "resource", r.URL.Path, "host", r.Host, "origin", r.Header.Get("Origin"), "from", r.RemoteAddr)
	http.Error(w, why, status)
}
