// Package syntax is the shape of a gateway file: every key, what may be written
// there, and how inner levels inherit from outer ones. The JSON Schema and the
// reference page are made from these types and their comments. Invariant: what
// decodes has valid words; whether the words fit together is for package config.
package syntax

import (
	"fmt"

	"tollgate/internal/strictyaml"
)

type (
	// Text is any words, with their place.
	Text = strictyaml.Value[string]
	// Flag is true or false.
	Flag = strictyaml.Value[bool]
	// Number is a whole number.
	Number = strictyaml.Value[int64]
	// Duration is a time span above zero.
	Duration = strictyaml.Value[Span]
	// Percentage is a share of a hundred.
	Percentage = strictyaml.Value[Share]
	// Identifier is what a thing is called elsewhere in the file.
	Identifier = strictyaml.Value[Name]
)

// Block is a block that the word `none` turns off.
type Block struct {
	strictyaml.Pos
	Off bool
}

// Shorthand takes the word none.
func (b *Block) Shorthand(s strictyaml.Scalar) error {
	if s.Written != none {
		return fmt.Errorf("must be a mapping or `none`, not %q", strictyaml.Clip([]byte(s.Written)))
	}
	b.Off = true
	return nil
}

// Replaces reports whether outer levels are forgotten.
func (b *Block) Replaces() bool { return b.Off }

// File is a gateway file. Several files make one gateway.
type File struct {
	strictyaml.Pos
	// Version of this language: 1.
	Version Number `yaml:"version,required" range:"1..1"`
	// Listeners are the addresses that Envoy serves.
	Listeners []Listener `yaml:"listeners" example:"[{name: http, address: 127.0.0.1:8080}]"`
	// Identity says whose credentials count.
	Identity *Identity `yaml:"identity" example:"{api_keys: {store: file:keys.yaml}}"`
	// Tenants are the customers. A caller of any other tenant is refused, unless one is named "*".
	Tenants []Tenant `yaml:"tenants" example:"[{name: acme}]"`
	// Plans hold the limits of the tenants on them.
	Plans []Plan `yaml:"plans" example:"[{name: pro, rate_limit: [{limit: 600, per: minute}]}]"`
	// RateLimit holds the limits over all routes.
	RateLimit strictyaml.List[Limit] `yaml:"rate_limit" example:"[{limit: 100, per: minute}]"`
	// Defaults are inherited by every route and upstream.
	Defaults *Defaults `yaml:"defaults" example:"{timeout: 10s}"`
	// Upstreams are the services behind the gateway.
	Upstreams []Upstream `yaml:"upstreams" example:"[{name: orders, endpoints: [127.0.0.1:9201]}]"`
	// Routes say which request goes where. The most specific match wins, wherever it stands.
	Routes []Route `yaml:"routes,nest" example:"[{name: all, auth: public, upstream: orders}]"`
	// AccessLog is Envoy's log of requests: JSON on standard error unless a path is written; `none` for no log.
	AccessLog *AccessLog `yaml:"access_log" example:"{path: access.log}"`
	// Tracing sends spans to a collector.
	Tracing *Tracing `yaml:"tracing" example:"{otlp: 127.0.0.1:4317}"`

	Revocation strictyaml.Later `yaml:"revocation"`
	Rollout    strictyaml.Later `yaml:"rollout"`
	Envoy      strictyaml.Later `yaml:"envoy"`
}

// Listener is one address that Envoy serves.
type Listener struct {
	strictyaml.Pos
	// Name of the listener, for `listeners:` of a route.
	Name Identifier `yaml:"name,required"`
	// Address is IP:port; port 0 is any free port.
	Address strictyaml.Value[Address] `yaml:"address,required"`
	// TLS makes it HTTPS.
	TLS *ListenerTLS `yaml:"tls" example:"{certs: [{cert: file:edge.crt, key: file:edge.key}]}"`
	// Flood is the guard per client address and proxy, in Envoy itself, before anything else. Off unless set.
	Flood *Flood `yaml:"flood" example:"{limit: 200, per: second}"`
	// TrustedProxies are those whose X-Forwarded-For counts; anyone else's is dropped.
	TrustedProxies *TrustedProxies `yaml:"trusted_proxies" example:"{from: [10.0.0.0/8]}"`
	// Redirect sends every request to https instead of serving it.
	Redirect Text `yaml:"redirect" oneof:"https"`
	// Plaintext admits that credentials cross the network unencrypted here.
	Plaintext Flag `yaml:"plaintext"`
}

// ListenerTLS terminates TLS.
type ListenerTLS struct {
	strictyaml.Pos
	// Certs are the certificates; the client's server name chooses.
	Certs []Cert `yaml:"certs,required" example:"[{cert: file:edge.crt, key: file:edge.key}]"`
	// MinVersion of TLS. Default 1.2.
	MinVersion Text `yaml:"min_version" oneof:"1.2 1.3"`
	// ClientCA: clients must show a certificate of this authority.
	ClientCA *Content `yaml:"client_ca"`
	// HSTS is the max-age of Strict-Transport-Security. Off unless set.
	HSTS Duration `yaml:"hsts"`

	ACME strictyaml.Later `yaml:"acme"`
}

// Cert is a certificate chain and its key, PEM.
type Cert struct {
	strictyaml.Pos
	// Cert is the chain, the server's own certificate first.
	Cert Content `yaml:"cert,required"`
	// Key of the first certificate.
	Key Content `yaml:"key,required"`
}

// Flood bounds the requests of one client address through one proxy.
type Flood struct {
	strictyaml.Pos
	// Limit of requests.
	Limit Number `yaml:"limit,required" range:"1..4294967295"`
	// Per which time.
	Per strictyaml.Value[Window] `yaml:"per,required"`
}

// TrustedProxies are the proxies in front of this one.
type TrustedProxies struct {
	strictyaml.Pos
	// From are their networks.
	From []strictyaml.Value[Network] `yaml:"from,required" example:"[10.0.0.0/8]"`
	// Via is how they tell the client's address: xff, the X-Forwarded-For header.
	Via Text `yaml:"via" oneof:"xff" later:"proxy_protocol"`
}

// Identity says whose credentials count.
type Identity struct {
	strictyaml.Pos
	// Issuers of the JWTs that are accepted.
	Issuers []Issuer `yaml:"issuers" example:"[{name: idp, issuer: https://idp.example, audiences: [api], jwks: file:jwks.json}]"`
	// APIKeys says where keys are sent and stored.
	APIKeys *APIKeys `yaml:"api_keys" example:"{store: file:keys.yaml}"`
	// Roles are names for lists of permissions.
	Roles strictyaml.Map[[]strictyaml.Value[Permission]] `yaml:"roles" example:"{clerk: [\"orders:read\"]}"`

	Clients    strictyaml.Later `yaml:"clients"`
	Webhooks   strictyaml.Later `yaml:"webhooks"`
	Revocation strictyaml.Later `yaml:"revocation"`
}

// Issuer is a party whose JWTs are accepted.
type Issuer struct {
	strictyaml.Pos
	// Name of the issuer, for `{jwt: NAME}`.
	Name Identifier `yaml:"name,required"`
	// Issuer is the expected `iss`.
	Issuer Text `yaml:"issuer,required"`
	// Audiences: the token's `aud` must be one of these.
	Audiences []Text `yaml:"audiences,required" example:"[api]"`
	// Typ lists the accepted `typ` headers, with or without `application/`. Default [at+jwt, JWT].
	Typ []Text `yaml:"typ" example:"[JWT]"`
	// MaxLifetime is the longest that a token may live, from its iat to its exp, or `none`. Default 24h.
	MaxLifetime strictyaml.Value[SpanOrNone] `yaml:"max_lifetime"`
	// JWKS is the key set.
	JWKS *JWKS `yaml:"jwks,required" example:"{url: https://idp.example/jwks.json}"`
	// Claims say where a token carries what. Default {tenant: tenant, user: sub, permissions: permissions}.
	Claims *Claims `yaml:"claims" example:"{tenant: org}"`
}

// JWKS is where an issuer's keys are.
type JWKS struct {
	strictyaml.Pos
	// URL to fetch the keys from; https, http only on loopback.
	URL strictyaml.Value[JWKSURL] `yaml:"url" alt:"jwks!"`
	// File with the keys, relative to this file.
	File *ContentFile `yaml:"file" alt:"jwks!"`
}

// Shorthand takes file:PATH or env:NAME.
func (j *JWKS) Shorthand(s strictyaml.Scalar) error {
	j.File = &ContentFile{}
	j.File.Locate(j.Pos)
	return j.File.Content.Set(s)
}

// Claims name the claims of a token; a list of names is a path into it.
type Claims struct {
	strictyaml.Pos
	// Tenant is the claim with the customer's name.
	Tenant Claim `yaml:"tenant"`
	// User is the claim with the caller's name.
	User Claim `yaml:"user"`
	// Permissions is the claim with a list of permissions or roles, or one string of them with spaces.
	Permissions Claim `yaml:"permissions"`
}

// Claim is the name of a claim, or the path to one.
type Claim struct {
	strictyaml.List[Text]
}

// Shorthand takes a single name.
func (c *Claim) Shorthand(s strictyaml.Scalar) error {
	name := Text{Pos: c.Pos}
	err := name.Set(s)
	c.Items = []Text{name}
	return err
}

// APIKeys says where keys are sent and stored.
type APIKeys struct {
	strictyaml.Pos
	// Header that carries the key. Default x-api-key.
	Header strictyaml.Value[HeaderName] `yaml:"header"`
	// Store is the file of the keys' hashes, file:PATH; `tollgate keys create` writes it.
	Store StorePath `yaml:"store,required"`
}

// Tenant is a customer.
type Tenant struct {
	strictyaml.Pos
	// Name as credentials carry it; "*" is every tenant without a line of its own.
	Name strictyaml.Value[TenantName] `yaml:"name,required"`
	// Plan whose limits apply. None unless set.
	Plan Identifier `yaml:"plan"`
}

// Plan holds the limits of the tenants on it.
type Plan struct {
	strictyaml.Pos
	// Name of the plan.
	Name Identifier `yaml:"name,required"`
	// RateLimit counts all requests of a tenant on this plan: each tenant by itself, unless `by` says otherwise.
	RateLimit strictyaml.List[Limit] `yaml:"rate_limit" example:"[{limit: 100, per: minute}]"`

	Priority strictyaml.Later `yaml:"priority"`
}

// Limit bounds how many requests are admitted.
type Limit struct {
	strictyaml.Pos
	// Name of the limit, unique where it stands; its index unless set. It is part of the counter's key.
	Name Identifier `yaml:"name"`
	// Limit of requests per window.
	Limit Number `yaml:"limit,required" range:"1..4294967295"`
	// Per is the window: second, minute, hour, day, week (from Monday), month (from the 1st), all of UTC, or a duration such as 10s. With gcra a month has 30 days.
	Per strictyaml.Value[Window] `yaml:"per,required"`
	// By lists what is counted apart: tenant, user, credential, ip, route, method, header:X, claim:X, query:X. Empty: one counter. Absent: [tenant] on a plan, elsewhere one counter.
	By []strictyaml.Value[By] `yaml:"by" example:"[tenant]"`
	// Algorithm: `fixed` windows, or `gcra`, which spreads the requests evenly. Default fixed.
	Algorithm Text `yaml:"algorithm" oneof:"fixed gcra" later:"sliding"`
	// Burst is how many may come at once with gcra. Default: the limit.
	Burst Number `yaml:"burst" range:"1..4294967295"`
	// Message for the refused client.
	Message Text `yaml:"message"`
	// OnError is what happens when the limiter's store fails: `local` counts in its memory, `open` admits, `closed` refuses. Default local.
	OnError Text `yaml:"on_error" oneof:"local open closed"`
	// Enforce: false decides, counts and reports, but never refuses.
	Enforce Flag `yaml:"enforce"`

	When strictyaml.Later `yaml:"when"`
	Cost strictyaml.Later `yaml:"cost"`
}

// Defaults are inherited by every route and every upstream.
type Defaults struct {
	strictyaml.Pos
	Settings `yaml:",inline"`
	// Upstream holds what upstreams inherit.
	Upstream *UpstreamSettings `yaml:"upstream"`
}

// AccessLog is Envoy's log of requests.
type AccessLog struct {
	Block
	// Path of a file that Envoy writes itself: every request, denials too, some 600 bytes each, so as fast as they are asked; rotate it by size and send SIGHUP, which opens it again. Default: standard error of the supervisor, where floods of denials are sampled.
	Path Text `yaml:"path"`
}

// Tracing sends spans over OTLP/gRPC.
type Tracing struct {
	Block
	// OTLP is host:port of the collector.
	OTLP strictyaml.Value[HostPort] `yaml:"otlp,required"`
	// Sampling is the share of requests that are traced. Default 100%.
	Sampling Percentage `yaml:"sampling"`
}
