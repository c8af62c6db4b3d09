package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

// connections are kept alive for the whole run.
const connections = 32

// gateway has a route for each thing that can stand in a request's path.
const gateway = `version: 1
listeners:
  - {name: https, address: "${https}", tls: {certs: [{cert: file:edge.crt, key: file:edge.key}]}}
access_log: ${log}
identity:
  issuers:
    - {name: platform, issuer: "https://auth.e2e.test", audiences: [api], jwks: {file: jwks.json}, claims: {tenant: tenant, user: sub, permissions: permissions}}
  api_keys: {header: x-api-key, store: file:keys.yaml}
tenants: [{name: acme}]
upstreams: [{name: up, endpoints: ["${up}"]}]
routes:
  - {name: public, match: {path: {prefix: /public}}, auth: public, upstream: up}
  - {name: key, match: {path: {prefix: /key}}, auth: api_key, upstream: up}
  - {name: jwt, match: {path: {prefix: /jwt}}, auth: {jwt: platform}, authorize: [{allow: 'auth.can("orders:read") && request.method == "GET"'}], upstream: up}
  - {name: limit, match: {path: {prefix: /limit}}, auth: public, upstream: up, rate_limit: [{limit: 100000000, per: hour, by: [ip]}]}
  - {name: whole, match: {path: {prefix: /whole}}, auth: api_key, upstream: up, rate_limit: [{limit: 100000000, per: hour, by: [tenant]}]}
`

// bed holds what a run started. It stands in for a test, for the harness.
type bed struct {
	out      io.Writer
	cleanups []func()
}

// fatal ends a run from inside the harness.
type fatal string

func (b *bed) Helper()                           {}
func (b *bed) Cleanup(f func())                  { b.cleanups = append(b.cleanups, f) }
func (b *bed) Logf(string, ...any)               {}
func (b *bed) Fatalf(format string, args ...any) { panic(fatal(fmt.Sprintf(format, args...))) }

func (b *bed) clean() {
	for _, f := range slices.Backward(b.cleanups) {
		f()
	}
}

// variant is one thing measured.
type variant struct {
	name   string
	url    string
	header map[string]string
	pids   map[string]int
	client *http.Client
}

// result is what one variant cost, medians of its rounds.
type result struct {
	name string
	rps  float64
	cpu  map[string]float64 // process → µs a request
}

func (r result) total() float64 {
	sum := 0.0
	for _, v := range r.cpu {
		sum += v
	}
	return sum
}

// measure runs all variants in turns, so that whatever else the machine does
// falls on all of them.
func (b *bed) measure(rounds, count int, ladder bool) ([]result, error) {
	variants := b.variants(ladder)
	samples := make([][]result, len(variants))
	for round := -1; round < rounds; round++ {
		for i, v := range variants {
			one, err := v.once(count)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", v.name, err)
			}
			if round >= 0 { // the one before warms up
				samples[i] = append(samples[i], one)
			}
		}
	}
	results := make([]result, len(variants))
	for i, v := range variants {
		results[i] = result{name: v.name, rps: median(samples[i], func(r result) float64 { return r.rps }), cpu: map[string]float64{}}
		for process := range v.pids {
			results[i].cpu[process] = median(samples[i], func(r result) float64 { return r.cpu[process] })
		}
	}
	return results, nil
}

// variants are the floors first, then what is ours: report.go knows them by name.
func (b *bed) variants(ladder bool) []variant {
	up := harness.NewUpstream(b, "up")
	up.Handle(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	cert, key := harness.Certificate(b, "localhost")
	services, empty := b.startEmpty()
	floor := func(name, services string, pids map[string]int) variant {
		listen := harness.FreeAddress(b)
		pids["envoy"] = b.proxy(name, listen, bare(listen, up.Address, services, cert, key))
		return variant{name, "https://" + listen + "/", nil, pids, client()}
	}
	out := []variant{
		floor(floorBare, "", map[string]int{}),
		floor(floorEmpty, services, map[string]int{"empty": empty}),
		b.asking(up.Address, services, empty, cert, key),
	}
	out = append(out, b.ours(up.Address, cert, key)...)
	if ladder {
		out = append(out, b.ladder(up.Address, cert, key)...)
	}
	return out
}

// ours are the gateway's own ways, each part a process of its own.
func (b *bed) ours(upstream, cert, key string) []variant {
	redis := harness.StartRedis(b)
	memory, shared := b.stack(upstream, "", cert, key), b.stack(upstream, redis.URL, cert, key)
	token := memory.Issuer.Token(b, harness.Claims("acme", "ann", "orders:read"))
	pids := func(s *harness.Stack, names ...string) map[string]int {
		all := map[string]int{"envoy": s.Envoy.PID(), "extauthz": s.ExtAuthz[0].PID(), "ratelimit": s.RateLimit[0].PID(), "redis": redis.PID()}
		out := map[string]int{}
		for _, name := range names {
			out[name] = all[name]
		}
		return out
	}
	base := func(s *harness.Stack) string { return "https://" + s.Address(b, "https") }
	credential := map[string]string{"x-api-key": memory.Secrets["ann"]}
	return []variant{
		{ourPublic, base(memory) + "/public", nil, pids(memory, "envoy"), client()},
		{"+ ext_authz, API key", base(memory) + "/key", credential, pids(memory, "envoy", "extauthz"), client()},
		{"+ ext_authz, cached JWT + CEL", base(memory) + "/jwt", map[string]string{"authorization": "Bearer " + token}, pids(memory, "envoy", "extauthz"), client()},
		{"+ limiter, memory", base(memory) + "/limit", nil, pids(memory, "envoy", "ratelimit"), client()},
		{"+ limiter, Redis", base(shared) + "/limit", nil, pids(shared, "envoy", "ratelimit", "redis"), client()},
		{ourWhole, base(memory) + "/whole", credential, pids(memory, "envoy", "extauthz", "ratelimit"), client()},
	}
}

func (b *bed) stack(upstream, redisURL, cert, key string) *harness.Stack {
	return harness.NewStack(b, harness.Options{
		Gateway: gateway, Vars: map[string]string{"up": upstream, "log": "{path: /dev/null}"}, RedisURL: redisURL, Workers: 1,
		Files: map[string]string{"edge.crt": cert, "edge.key": key},
		Keys:  []harness.Key{{Name: "ann", Tenant: "acme", Owner: "ann", Permissions: []string{"*"}}},
	})
}

// expand replaces "${name}" as the harness does.
func expand(text string, vars map[string]string) string {
	for name, value := range vars {
		text = strings.ReplaceAll(text, "${"+name+"}", value)
	}
	return text
}

// client trusts whatever certificate the run made.
func client() *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections,
	}}
}

// once sends count requests and returns what they cost.
func (v variant) once(count int) (result, error) {
	before := map[string]time.Duration{}
	for name, pid := range v.pids {
		used, err := harness.CPU(pid)
		if err != nil {
			return result{}, err
		}
		before[name] = used
	}
	load := traffic.Run(traffic.Load{
		Request: traffic.Request{URL: v.url, Header: v.header},
		Workers: connections, Count: count, Client: v.client,
	})
	if load.Failed() > 0 || load.Sent != count {
		return result{}, fmt.Errorf("not all of %d requests were answered: %s", count, load)
	}
	r := result{rps: float64(count) / load.Elapsed.Seconds(), cpu: map[string]float64{}}
	for name, pid := range v.pids {
		used, err := harness.CPU(pid)
		if err != nil {
			return result{}, err
		}
		r.cpu[name] = float64((used - before[name]).Microseconds()) / float64(count)
	}
	return r, nil
}

func median(samples []result, of func(result) float64) float64 {
	values := make([]float64, 0, len(samples))
	for _, s := range samples {
		values = append(values, of(s))
	}
	slices.Sort(values)
	return values[len(values)/2]
}
