package config_test

import (
	"strings"
	"testing"

	"tollgate/xds/config"
	"tollgate/xds/config/language"
)

// TestIssuerWithoutTenants: the first hour of everybody who brings an identity
// provider: each request is 403 unknown_tenant, and the file was called valid.
func TestIssuerWithoutTenants(t *testing.T) {
	for name, c := range map[string]struct {
		claims, tenants string
		warned          bool
	}{
		"nothing said":             {"", "", true},
		"tenants, no claim":        {"", "tenants: [{name: acme}]\n", false}, // the claim may well be called tenant
		"a claim, no tenants":      {", claims: {tenant: org}", "", true},
		"another claim, tenants":   {", claims: {user: sub}", "tenants: [{name: acme}]\n", false},
		"another claim alone":      {", claims: {user: sub}", "", true},
		"a claim and tenants":      {", claims: {tenant: org}", "tenants: [{name: acme}]\n", false},
		"a path to one, tenants":   {", claims: {tenant: [a, org]}", "tenants: [{name: acme}]\n", false},
		"everybody":                {"", "tenants: [{name: \"*\"}]\n", false},
		"everybody beside a named": {"", "tenants: [{name: acme}, {name: \"*\"}]\n", false},
	} {
		text := "version: 1\nlisteners: [{name: http, address: 127.0.0.1:1}]\n" + c.tenants +
			"identity: {issuers: [{name: idp, issuer: https://a.example, audiences: [api], jwks: {url: https://a.example/jwks}" + c.claims + "}]}\n"
		_, warnings, err := language.Parse([]config.Source{{Name: "g.yaml", Data: []byte(text)}}, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		said := strings.Join(lines(warnings), "\n")
		if strings.Contains(said, `identity.issuers[idp]: a token whose tenant is not in the file`) != c.warned {
			t.Errorf("%s: warned: %q, want %v", name, said, c.warned)
		}
	}
}
