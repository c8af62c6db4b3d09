package compile_test

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/xds/compile"
	"tollgate/xds/config"
	"tollgate/xds/config/language"
	"tollgate/xds/discovery"
	"tollgate/xds/endpoint"
	"tollgate/xds/release"
)

// pems are what the references of the test files stand for, made anew by
// every run so that no key is kept in the repository.
type pems struct{ cert, key string }

func newPEMs(t testing.TB) pems {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pems{
		cert: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		key:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})),
	}
}

// parse reads a gateway from YAML; file: references become p's by their name.
func parse(t testing.TB, p pems, name string, data []byte) *config.Gateway {
	t.Helper()
	sources := []config.Source{{Name: name, Data: data}}
	gw, _, err := language.Parse(sources, p.resolve)
	if err != nil {
		t.Fatal(err)
	}
	return gw
}

func (p pems) resolve(r config.Reference) config.Value {
	switch {
	case strings.HasSuffix(r.Ref, ".key"):
		return config.Value{Text: p.key}
	case strings.HasSuffix(r.Ref, ".json"):
		return config.Value{Text: `{"keys":[]}`}
	}
	return config.Value{Text: p.cert}
}

func parseFile(t testing.TB, p pems, path string) *config.Gateway {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, p, path, data)
}

// cases are the folders of testdata that hold a gateway.
func cases(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*/in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 5 {
		t.Fatalf("found %d cases: run the test in its own folder", len(files))
	}
	return files
}

func scope() compile.Scope {
	return compile.Scope{
		Parts:    true,
		ExtAuthz: []string{"127.0.0.1:9001", "127.0.0.1:9002"}, RateLimit: []string{"limiter.internal:8081"},
	}
}

// everything is what proxies and servers are sent, endpoints included.
func everything(gw *config.Gateway, scope compile.Scope, known endpoint.Instances) (objects []release.Object, warnings []string) {
	objects, warnings = compile.Compile(gw, scope)
	heard := endpoint.Instances{}
	maps.Copy(heard, known)
	for i := range gw.Upstreams { // all were heard of
		if service := gw.Upstreams[i].Registry; heard[service] == nil {
			heard[service] = []discovery.Instance{}
		}
	}
	objects = append(objects, endpoint.Objects(gw.Upstreams, heard)...)
	slices.SortStableFunc(objects, func(a, b release.Object) int {
		return cmp.Or(cmp.Compare(a.Audience, b.Audience), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
	})
	return objects, warnings
}

func instances() endpoint.Instances {
	return endpoint.Instances{
		"order-service": {
			{ID: "a", Address: netip.MustParseAddrPort("127.0.0.1:9201"), Weight: 1},
			{ID: "b", Address: netip.MustParseAddrPort("127.0.0.1:9202"), Weight: 1, Draining: true},
			{ID: "c", Address: netip.MustParseAddrPort("[::1]:9203"), Weight: 2, Zone: "eu-1"},
		},
	}
}
