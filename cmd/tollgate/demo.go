package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"tollgate/extauthz/credential"
	"tollgate/internal/daemon"
)

// stopServices is what a demo service gets to finish what it has accepted.
const stopServices = 2 * time.Second

// demo is what --demo adds: services as child processes, and one key and one
// JWT of the first issuer for the first named tenant, in memory only.
type demo struct {
	log       *slog.Logger
	dataDir   string
	keys      []credential.Key
	jwks      map[string][]byte
	access    demoAccess
	children  []*daemon.Child
	instances []instance
}

func newDemo(c *control, log *slog.Logger) (*demo, error) {
	d := &demo{log: log, dataDir: c.dataDir}
	gateway := c.plane.Gateway()
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
	d.keys, d.access.APIKey = []credential.Key{key}, secret
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
	d.jwks = map[string][]byte{issuer.Name: data}
	claims := jwt.MapClaims{"iss": issuer.Issuer, "aud": issuer.Audiences, "iat": now.Unix(), "exp": now.Add(24 * time.Hour).Unix(), "jti": uuid.NewString()}
	put(claims, issuer.TenantClaim, tenant)
	put(claims, issuer.UserClaim, "demo")
	put(claims, issuer.PermissionsClaim, []string{"*"})
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	token.Header["kid"], token.Header["typ"] = "demo", issuer.Typ[0]
	d.access.JWT, err = token.SignedString(private)
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

// start runs two instances of each service; those of order know all of user.
func (d *demo) start(ctx context.Context, registry string) error {
	var peers []string
	for _, service := range []string{"user", "user", "order", "order"} {
		args := []string{
			"service", service, "--http=127.0.0.1:0", "--grpc=127.0.0.1:0", "--data-dir=" + d.dataDir, "--registry=" + registry,
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
		var one instance
		if err := child.Ready(ctx, &one); err != nil {
			return fmt.Errorf("demo service %s: %w", service, err)
		}
		d.instances = append(d.instances, one)
		if service == "user" {
			peers = append(peers, one.GRPC)
		}
	}
	return nil
}

func (d *demo) stop() {
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
