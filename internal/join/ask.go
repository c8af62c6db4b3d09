package join

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"tollgate/api/contract"
	"tollgate/internal/peer"
)

const (
	askWithin = 5 * time.Second
	maxAnswer = 64 << 10
)

// Request is the body of POST /v1/join (with the token as bearer) and /v1/renew
// (over a connection with the present certificate).
type Request struct {
	CSR string `json:"csr"` // PEM; only its key counts
}

// Answer is that of a control plane, all PEM.
type Answer struct {
	Certificate string `json:"certificate"` // the chain, leaf first
	Roots       string `json:"roots"`
}

// refusal is a control plane's no: asking again changes nothing.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// ask tries the control planes in turn.
func (m *Member) ask(ctx context.Context, path, token string, key *ecdsa.PrivateKey, config *tls.Config) (Answer, error) {
	if len(m.cfg.Servers) == 0 {
		return Answer{}, errors.New("no control plane: write --xds-servers host:port,…")
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return Answer{}, err
	}
	body, err := json.Marshal(Request{CSR: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))})
	if err != nil {
		return Answer{}, err
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	client := &http.Client{Timeout: askWithin, Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var faults []error
	for _, server := range m.cfg.Servers {
		answer, err := post(ctx, client, "https://"+server+path, token, body)
		if err == nil {
			return answer, nil
		}
		faults = append(faults, fmt.Errorf("%s: %w", server, err))
	}
	return Answer{}, errors.Join(faults...)
}

func post(ctx context.Context, client *http.Client, url, token string, body []byte) (Answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return Answer{}, err
	}
	if response.StatusCode != http.StatusOK {
		err := fmt.Errorf("%s: %.300s", response.Status, strings.TrimSpace(string(text)))
		if response.StatusCode < http.StatusInternalServerError {
			return Answer{}, refusal{err}
		}
		return Answer{}, err
	}
	var answer Answer
	return answer, json.Unmarshal(text, &answer)
}

// pinned believes a control plane by a root that it shows itself and that the
// token names.
func pinned(roots []string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"},
		InsecureSkipVerify: true, // VerifyConnection does it, by fingerprint and role
		VerifyConnection: func(state tls.ConnectionState) error {
			shown := state.PeerCertificates
			at := slices.IndexFunc(shown, func(c *x509.Certificate) bool { return slices.Contains(roots, Fingerprint(c)) })
			if at < 1 {
				return errors.New("the server shows no root that the token names: it is another fleet's, or its CA has changed and `tollgate join-token` must make a new one")
			}
			who, err := peer.IdentityOf(shown[0])
			if err != nil {
				return err
			}
			if who.Role != contract.RoleXDS {
				return fmt.Errorf("the server's certificate is that of %s/%s, not of a control plane", who.Role, who.Name)
			}
			id, err := x509svid.IDFromCert(shown[0])
			if err != nil {
				return err
			}
			_, _, err = x509svid.Verify(shown, x509bundle.FromX509Authorities(id.TrustDomain(), []*x509.Certificate{shown[at]}))
			return err
		},
	}
}
