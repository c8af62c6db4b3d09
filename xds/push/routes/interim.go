// Package routes makes the form of a route configuration that names nothing a
// proxy has not got yet. Invariants: what a running route may send a request to
// is always among what the form is said to name, so nothing is taken away under
// a route; a form is made once, whoever waits in it, out of routes that stay
// encoded; what is remembered is of what is served, and bounded in bytes.
package routes

import (
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/xds/release"
)

// Interims makes forms and remembers them, because every answer of every proxy
// that waits asks for them again. The zero value is ready; it is safe for
// concurrent use.
type Interims struct {
	mu     sync.Mutex
	made   map[wait]*release.Resource
	origin map[*release.Resource]*release.Resource // form → what ran before it
	size   int                                     // of what is made
	cut    map[*release.Resource]*config
	parts  int // the size of what is cut
}

// wait is why a form is needed.
type wait struct {
	old, next *release.Resource
	warming   string
}

const (
	maxMade = 16 << 20 // bytes of forms that are remembered, and
	maxCut  = 16 << 20 // of configurations in their routes, but for the two at hand
	entry   = 256      // bytes that each takes at least
	oneRef  = 32       // bytes: two strings
)

// Serve forgets what was made of what is not served any more: nobody is going to
// be sent it. Who was sent such a form runs it like any other configuration.
func (w *Interims) Serve(served func(*release.Resource) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, form := range w.made {
		if !served(k.next) {
			w.size -= weight(k, form)
			delete(w.made, k)
			delete(w.origin, form)
		}
	}
	for one := range w.cut {
		if !served(one) {
			w.parts -= bulk(one)
			delete(w.cut, one)
		}
	}
}

// weight is about what remembering a form takes; the form may be nil.
func weight(k wait, form *release.Resource) int {
	size := entry + len(k.warming)
	if form != nil {
		size += len(form.Body.GetValue()) + len(form.Refs)*oneRef
	}
	return size
}

// bulk is about what the routes of a configuration take, and itself.
func bulk(one *release.Resource) int { return entry + 2*len(one.Body.GetValue()) }

// Of is a route configuration in which every route to a cluster that is still
// warming keeps its old form, or is left out when it had none; all other routes
// are new already. It returns nil when the whole must wait, because what the
// client runs is not known: old is nil. The names are sorted. All forms of a
// configuration come from the same proxies' last whole one.
func (w *Interims) Of(old, next *release.Resource, warming []string) *release.Resource {
	if old == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if before, isForm := w.origin[old]; isForm {
		old = before // it was sent; what it was made of counts
	}
	k := wait{old, next, strings.Join(warming, "\n")}
	made, known := w.made[k]
	if known {
		return made
	}
	made = interim(w.read(old), w.read(next), old, next, warming)
	size := weight(k, made)
	if w.made == nil || w.size+size > maxMade {
		w.made, w.origin, w.size = map[wait]*release.Resource{}, map[*release.Resource]*release.Resource{}, 0
	}
	w.made[k] = made
	w.size += size
	if made != nil {
		w.origin[made] = old
	}
	return made
}

// read cuts a configuration into its routes, once.
func (w *Interims) read(one *release.Resource) *config {
	if known, ok := w.cut[one]; ok {
		return known
	}
	if w.cut == nil || len(w.cut) > 1 && w.parts+bulk(one) > maxCut {
		w.cut, w.parts = map[*release.Resource]*config{}, 0
	}
	c := cut(one.Body.GetValue())
	w.cut[one] = c
	w.parts += bulk(one)
	return c
}

func interim(before, after *config, old, next *release.Resource, warming []string) *release.Resource {
	if before == nil || after == nil {
		return nil
	}
	waits := func(r route) bool {
		return slices.ContainsFunc(r.clusters, func(c string) bool {
			_, found := slices.BinarySearch(warming, c)
			return found
		})
	}
	held := make([]map[string]bool, len(after.hosts))
	wanted := map[string]bool{}
	for i, h := range after.hosts {
		held[i] = h.waiting(waits)
		maps.Copy(wanted, held[i])
	}
	kept := remember(before, wanted)
	hosts := make([]host, 0, len(after.hosts))
	for i, h := range after.hosts {
		hosts = append(hosts, host{rest: h.rest, routes: hold(h, held[i], kept, waits)})
	}
	data := (&config{rest: after.rest, hosts: hosts}).encode()
	sum := xxh3.Hash(data) // what is kept differs from client to client
	part := hex.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return &release.Resource{
		Audience: next.Audience, Type: next.Type, Name: next.Name, Version: next.Version + "-" + part,
		Body: &anypb.Any{TypeUrl: next.Type, Value: data}, Pos: next.Pos, Refs: both(old.Refs, next.Refs),
	}
}

// waiting are the names of routes that wait; nil when none does.
func (h host) waiting(waits func(route) bool) map[string]bool {
	var held map[string]bool
	for _, r := range h.routes {
		if waits(r) {
			if held == nil {
				held = map[string]bool{}
			}
			held[r.name] = true
		}
	}
	return held
}

// hold are the routes of a host, those that wait in their old form.
func hold(h host, held map[string]bool, kept earlier, waits func(route) bool) []route {
	if len(held) == 0 {
		return h.routes
	}
	routes, done := make([]route, 0, len(h.routes)), map[string]bool{}
	for _, r := range h.routes {
		switch {
		case !held[r.name]:
			routes = append(routes, r)
		case !done[r.name]:
			done[r.name] = true
			routes = append(routes, slices.DeleteFunc(slices.Clone(kept.of(h, r.name)), waits)...)
		}
	}
	return routes
}

// both is everything that either names.
func both(a, b []release.Ref) []release.Ref {
	seen, all := make(map[release.Ref]bool, len(a)+len(b)), make([]release.Ref, 0, len(a)+len(b))
	for _, ref := range slices.Concat(a, b) {
		if !seen[ref] {
			seen[ref] = true
			all = append(all, ref)
		}
	}
	return all
}

// earlier finds the routes that a client runs, by domain and name: virtual
// hosts are regrouped from release to release, what a domain serves is not.
type earlier map[[2]string][]route

// remember keeps a name's routes together, because it may stand for several.
func remember(c *config, wanted map[string]bool) earlier {
	e := earlier{}
	for _, h := range c.hosts {
		for _, r := range h.routes {
			if !wanted[r.name] {
				continue
			}
			for _, domain := range h.domains {
				k := [2]string{domain, r.name}
				e[k] = append(e[k], r)
			}
		}
	}
	return e
}

func (e earlier) of(h host, route string) []route {
	for _, domain := range h.domains {
		if found := e[[2]string{domain, route}]; len(found) > 0 {
			return found
		}
	}
	return nil
}
