package trust

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"tollgate/api/contract"
	"tollgate/internal/envelope"
	"tollgate/internal/join"
	"tollgate/internal/peer"
)

const maxRequest = 16 << 10

// Door is where members get certificates: POST /v1/join with a token, POST
// /v1/renew over a connection that shows the present certificate.
type Door struct {
	Authority *Authority
	Tokens    *Tokens
	Log       *slog.Logger
}

// Handler serves the two paths; all else is 404.
func (d *Door) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/join", d.join)
	mux.HandleFunc("POST /v1/renew", d.renew)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, http.StatusNotFound, "not_found", "Not found")
	})
	return mux
}

func (d *Door) join(w http.ResponseWriter, r *http.Request) {
	public, err := csr(w, r)
	if err != nil {
		refuse(w, r, http.StatusBadRequest, "bad_request", err.Error())
		return
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	role, name, err := d.Tokens.Redeem(token, public)
	if err != nil {
		d.Log.Warn("nobody joined", "address", r.RemoteAddr, "err", err)
		if errors.Is(err, ErrToken) {
			refuse(w, r, http.StatusUnauthorized, "invalid_token", err.Error())
			return
		}
		refuse(w, r, http.StatusServiceUnavailable, "unavailable", "the token could not be looked at")
		return
	}
	d.answer(w, r, public, role, name)
}

func (d *Door) renew(w http.ResponseWriter, r *http.Request) {
	who, ok := Member(r)
	if !ok || who.Role == contract.RoleXDS {
		d.Log.Warn("renewal refused: no certificate of a member", "address", r.RemoteAddr)
		refuse(w, r, http.StatusUnauthorized, "missing_credential", "a renewal is asked for over a connection that shows the present certificate")
		return
	}
	if err := d.Authority.members.Refuse(who); err != nil {
		d.Log.Warn("renewal refused", "name", who.Role+"/"+who.Name, "address", r.RemoteAddr, "err", err)
		refuse(w, r, http.StatusForbidden, "permission_denied", err.Error())
		return
	}
	public, err := csr(w, r)
	if err != nil {
		refuse(w, r, http.StatusBadRequest, "bad_request", err.Error())
		return
	}
	d.answer(w, r, public, who.Role, who.Name)
}

func (d *Door) answer(w http.ResponseWriter, r *http.Request, public *ecdsa.PublicKey, role, name string) {
	// One that joined before names were kept can be removed from its renewal on.
	err := d.Authority.Members().meet(role, name)
	var chain []*x509.Certificate
	if err == nil {
		chain, err = d.Authority.Issue(public, role, name)
	}
	if err != nil {
		d.Log.Error("certificate not made", "name", role+"/"+name, "err", err)
		refuse(w, r, http.StatusServiceUnavailable, "unavailable", "the certificate could not be made")
		return
	}
	d.Log.Info("certificate made", "name", role+"/"+name, "address", r.RemoteAddr, "until", chain[0].NotAfter)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(join.Answer{Certificate: string(peer.PEM(chain)), Roots: string(peer.PEM(d.Authority.Roots()))})
}

// Member is who shows a certificate on the connection of a request; the
// handshake verified it. Whether it was removed since, Members know.
func Member(r *http.Request) (peer.Identity, bool) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || r.TLS.Version < tls.VersionTLS13 {
		return peer.Identity{UID: peer.NoUID}, false
	}
	if leaf := r.TLS.PeerCertificates[0]; time.Now().After(leaf.NotAfter) {
		return peer.Identity{UID: peer.NoUID}, false
	}
	who, err := peer.IdentityOf(r.TLS.PeerCertificates[0])
	return who, err == nil
}

// csr takes the key of a request; the names in it are nobody's word.
func csr(w http.ResponseWriter, r *http.Request) (*ecdsa.PublicKey, error) {
	var body join.Request
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&body); err != nil {
		return nil, fmt.Errorf(`the body must be {"csr"}: %w`, err)
	}
	block, _ := pem.Decode([]byte(body.CSR))
	if block == nil {
		return nil, errors.New("csr is not PEM")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("csr: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("csr: %w", err)
	}
	public, ok := request.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("csr: the key must be ECDSA P-256")
	}
	return public, nil
}

func refuse(w http.ResponseWriter, r *http.Request, status int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(envelope.JSON(status, reason, message, r.Header.Get("X-Request-Id"), time.Now()))
}
