package check_test

import (
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

func BenchmarkCheck(b *testing.B) {
	g := newGate(b, discard{})
	for name, r := range map[string]*authv3.CheckRequest{
		"api_key":        request("orders@1", "GET", "/api/orders/7?x=1", "x-api-key", g.key),
		"cached_jwt_cel": request("ruled@1", "GET", "/api/orders/7?x=1", "authorization", "Bearer "+g.token(b, nil)),
		"deny":           request("ruled@1", "POST", "/api/orders/7?x=1", "x-api-key", g.key),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.Check(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
