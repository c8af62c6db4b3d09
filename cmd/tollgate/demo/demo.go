// Package demo is what `tollgate run --demo` adds: services as child processes,
// and one key and one JWT of the first issuer for the first named tenant.
// Invariant: the credentials live in memory only; nothing is written to the
// operator's folder.
package demo

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/renameio/v2"
	"github.com/google/uuid"

	"tollgate/extauthz/credential"
	"tollgate/internal/daemon"
	"tollgate/xds/config"
	"tollgate/xds/discovery"
)

// stopServices is what a demo service gets to finish what it has accepted.
const stopServices = 2 * time.Second

// Instance is one running demo service.
type Instance struct {
	Service string `json:"service"`
	PID     int    `json:"pid"`
	HTTP    string `json:"http"`
	GRPC    string `json:"grpc"`
}

// Access is what gets in.
type Access struct {
	APIKey string `json:"api_key"`
	JWT    string `json:"jwt"`
}

// Demo is a set of running services with the credentials to call them.
type Demo struct {
	Keys      []credential.Key
	JWKS      map[string][]byte // by issuer
	Access    Access
	Instances []Instance

	log      *slog.Logger
	dataDir  string
	children []*daemon.Child
}

// New makes the credentials; no service runs yet.
func New(gateway *config.Gateway, dataDir string, log *slog.Logger) (*Demo, error) {
	d := &Demo{log: log, dataDir: dataDir}
	tenant := ""
	for _, t := range gateway.Tenants {
		if t.Name != "*" {
			tenant = t.Name
			break
		}
	}
	if tenant == "" || len(gateway.Identity.Issuers) == 0 {
		return nil, errors.New("--demo makes credentials of the first issuer for the first named tenant: the gateway file needs one of each")
	}
	now := time.Now()
	key, secret, err := credential.NewKey(credential.KeySpec{Tenant: tenant, Owner: "demo", Permissions: []string{"*"}}, now)
	if err != nil {
		return nil, err
	}
	d.Keys, d.Access.APIKey = []credential.Key{key}, secret
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	issuer := gateway.Identity.Issuers[0]
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: "demo", Algorithm: "EdDSA", Use: "sig"}}}
	data, err := json.Marshal(set)
	if err != nil {
		return nil, err
	}
	d.JWKS = map[string][]byte{issuer.Name: data}
	life := 24 * time.Hour
	if issuer.MaxLifetime > 0 {
		life = min(life, issuer.MaxLifetime)
	}
	claims := jwt.MapClaims{"iss": issuer.Issuer, "aud": issuer.Audiences, "iat": now.Unix(), "exp": now.Unix() + int64(life/time.Second), "jti": uuid.NewString()}
	put(claims, issuer.TenantClaim, tenant)
	put(claims, issuer.UserClaim, "demo")
	put(claims, issuer.PermissionsClaim, []string{"*"})
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	token.Header["kid"], token.Header["typ"] = "demo", issuer.Typ[0]
	d.Access.JWT, err = token.SignedString(private)
	return d, err
}

// put sets a claim at a path of names.
func put(claims map[string]any, path []string, value any) {
	for _, name := range path[:max(len(path)-1, 0)] {
		inner, ok := claims[name].(map[string]any)
		if !ok {
			inner = map[string]any{}
			claims[name] = inner
		}
		claims = inner
	}
	if len(path) > 0 {
		claims[path[len(path)-1]] = value
	}
}

// Start runs two instances of each service; those of order know all of user.
func (d *Demo) Start(ctx context.Context, registry string) error {
	var peers []string
	for _, service := range []string{"user", "user", "order", "order"} {
		folder, err := d.folder(service)
		if err != nil {
			return err
		}
		args := []string{
			"service", service, "--http=127.0.0.1:0", "--grpc=127.0.0.1:0", "--data-dir=" + folder, "--registry=" + registry,
			"--identity-jwks=" + filepath.Join(d.dataDir, "identity.jwks"),
			"--instance=" + fmt.Sprintf("%s-%d", service, len(d.children)%2+1), "--audience=orders,users,order,user",
		}
		if service == "order" {
			args = append(args, "--user-grpc="+strings.Join(peers, ","))
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		child, err := daemon.StartChild(os.Stderr, self, args...)
		if err != nil {
			return err
		}
		d.children = append(d.children, child)
		var one Instance
		if err := child.Ready(ctx, &one); err != nil {
			return fmt.Errorf("demo service %s: %w", service, err)
		}
		d.Instances = append(d.Instances, one)
		if service == "user" {
			peers = append(peers, one.GRPC)
		}
	}
	return nil
}

// folder makes a service's own, with the token that registers it and nothing
// of ours.
func (d *Demo) folder(service string) (string, error) {
	folder := filepath.Join(d.dataDir, "services", service)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	secret, err := discovery.LoadOrCreateSecret(filepath.Join(d.dataDir, "registry.token"))
	if err != nil {
		return "", err
	}
	return folder, renameio.WriteFile(filepath.Join(folder, "registry.token"), []byte(discovery.ServiceToken(secret, service)+"\n"), 0o600)
}

// Stop ends the services; what they have accepted gets its time.
func (d *Demo) Stop() {
	done := make(chan error, len(d.children))
	for _, child := range d.children {
		go func() { done <- child.Stop(stopServices) }()
	}
	for range d.children {
		if err := <-done; err != nil {
			d.log.Warn("demo service", "err", err)
		}
	}
}
