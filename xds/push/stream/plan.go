package stream

import (
	"maps"
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"tollgate/xds/ledger"
	"tollgate/xds/push/flight"
	"tollgate/xds/push/view"
	"tollgate/xds/release"
)

// maxBatch bounds one response in bytes of resources.
const maxBatch = 1 << 20

// plan is what one client is sent at one moment.
type plan struct {
	stream    *Stream
	view      *view.View
	now       time.Time
	behind    []string // clusters just sent: their endpoints follow
	listeners []string // listeners just sent: their routes follow
	responses []*discoveryv3.DeltaDiscoveryResponse
}

// kind adds the responses of one type.
func (p *plan) kind(url string) {
	if !p.view.Known(url) {
		return
	}
	sub := p.stream.subs[url]
	follow := p.followers(url)
	if sub == nil {
		if len(follow) == 0 {
			return
		}
		sub = newSubscription()
		p.stream.subs[url] = sub
	}
	behind := map[string]bool{}
	for _, name := range follow {
		behind[name], sub.todo[name] = true, true
		if url == release.TypeEndpoint {
			delete(sub.held, name) // a changed cluster warms until it gets them anew
		}
	}
	all := p.view.All(p.stream.audience, url)
	var upserts []*release.Resource
	var removed, settled []string
	due, onTrial := sub.due(all), sub.trial.Waits()
	for _, name := range due {
		one := all[name]
		if url == release.TypeSecret && one != nil && !p.shown(name) {
			one = nil
		}
		switch {
		case one == nil:
			settled = append(settled, name)
			delete(sub.refusing, name)
			if p.absent(url, sub, name) {
				removed = append(removed, name)
			}
			continue
		case !sub.wildcard && !sub.names[name] && !behind[name] && sub.held[name] == "":
			continue
		case sub.held[name] == one.Version:
			settled = append(settled, name)
			delete(sub.refusing, name)
			p.recognise(url, sub, one)
			continue
		case onTrial[name]:
			continue
		}
		delete(sub.stale, name)
		if chosen := p.choose(url, sub, one); chosen != nil {
			upserts = append(upserts, chosen)
		} else if sub.held[name] == ghost {
			sub.lost(name)
			removed = append(removed, name)
		}
	}
	p.stream.account.Settled(url, settled)
	p.send(url, sub, upserts, removed)
	p.try(url, sub, all)
}

// try sends the next group that is on trial.
func (p *plan) try(url string, sub *subscription, all map[string]*release.Resource) {
	for names := sub.trial.Next(); names != nil; names = sub.trial.Next() {
		b := &flight.Batch{}
		for _, name := range names {
			if one := all[name]; one != nil && sub.held[name] != one.Version {
				if chosen := p.choose(url, sub, one); chosen != nil {
					b.Resources = append(b.Resources, chosen)
				}
			}
		}
		if len(b.Resources) > 0 {
			p.respond(url, sub, b)
			sub.trying = b.Nonce
			return
		}
		sub.trial.Unanswered()
	}
}

// due returns the names to compare with what is served, sorted.
func (sub *subscription) due(all map[string]*release.Resource) []string {
	if sub.rescan {
		if sub.wildcard {
			for name := range all {
				sub.todo[name] = true
			}
		}
		maps.Copy(sub.todo, sub.names)
		for name := range sub.held {
			sub.todo[name] = true
		}
	}
	names := slices.Sorted(maps.Keys(sub.todo))
	clear(sub.todo)
	sub.rescan = false
	return names
}

// absent decides about a name that is not served: whether to say that it is
// gone, or that it never was.
func (p *plan) absent(url string, sub *subscription, name string) bool {
	st := p.stream
	held := sub.held[name]
	switch {
	case held == ghost || held != "" && sub.wildcard:
		if sub.claimed[name] && held != ghost && !p.faded(url, name) {
			sub.stale[name] = true
			return false
		}
		sub.lost(name)
		return true
	case sub.names[name] && !sub.missing[name] && (held == "" || url == release.TypeListener):
		sub.lost(name)
		sub.missing[name] = true
		return true
	case url == release.TypeRoute && !sub.names[name]:
		delete(st.sent, name)
		delete(st.running, name)
		delete(st.blind, name)
	}
	return false
}

// faded says whether nothing needs what a client brought along any more.
func (p *plan) faded(url, name string) bool {
	st := p.stream
	if p.now.Before(st.fades(url)) {
		return false
	}
	if url != release.TypeCluster {
		return true
	}
	for _, configs := range []map[string]*release.Resource{st.sent, st.running} {
		for _, one := range configs {
			if slices.Contains(one.Refs, release.Ref{Type: release.TypeCluster, Name: name}) {
				return false
			}
		}
	}
	return len(st.blind) == 0
}

// recognise learns what a client runs from a version that it brought along.
func (p *plan) recognise(url string, sub *subscription, one *release.Resource) {
	st := p.stream
	if !sub.claimed[one.Name] {
		return
	}
	delete(sub.claimed, one.Name)
	p.secretsAgain(url)
	switch url {
	case release.TypeCluster:
		sub.good[one.Name] = one
	case release.TypeRoute:
		st.sent[one.Name], st.running[one.Name] = one, one
		delete(st.blind, one.Name)
	}
}

// followers are the resources that go right behind what names them, without
// waiting to be asked.
func (p *plan) followers(url string) []string {
	switch url {
	case release.TypeEndpoint:
		return p.behind
	case release.TypeRoute:
		return p.listeners
	}
	return nil
}

// choose returns the form of a resource that the client should be sent now,
// or nil.
func (p *plan) choose(url string, sub *subscription, one *release.Resource) *release.Resource {
	st := p.stream
	if why, parked := sub.parked[one.Name]; parked {
		delete(sub.parked, one.Name)
		st.record.Add(url, one.Name, one.Version, why)
	}
	if why, refused := st.record.Has(url, one.Name, one.Version); refused {
		sub.refusing[one.Name] = true
		st.account.Refused(url, why, []ledger.Refusal{refusalOf(one)})
		good := sub.revert[one.Name]
		delete(sub.revert, one.Name)
		return good
	}
	if url != release.TypeRoute {
		return one
	}
	delete(st.waiting, one.Name)
	warming := p.warming(one)
	if len(warming) == 0 {
		return one
	}
	st.waiting[one.Name] = true
	held := st.site.Interims.Of(st.sent[one.Name], one, warming)
	if held == nil || sub.held[one.Name] == held.Version {
		return nil
	}
	if _, refused := st.record.Has(url, held.Name, held.Version); refused {
		return nil
	}
	return held
}

// warming are the clusters that a route configuration must wait for, sorted.
func (p *plan) warming(one *release.Resource) []string {
	if len(p.stream.warming) == 0 {
		return nil
	}
	var names []string
	for _, ref := range one.Refs {
		if _, waits := p.stream.warming[ref.Name]; waits && ref.Type == release.TypeCluster {
			names = append(names, ref.Name)
		}
	}
	slices.Sort(names)
	return names
}

// send adds responses: one resource each where Envoy would apply an
// unpredictable part of a refused batch, few large ones elsewhere.
func (p *plan) send(url string, sub *subscription, upserts []*release.Resource, removed []string) {
	probe := sub.probe && sub.flight.Len() > 0 && url != release.TypeCluster
	sub.probe = false
	if len(upserts) == 0 && len(removed) == 0 {
		if probe || sub.wildcard && !sub.answered {
			sub.answered = true
			p.respond(url, sub, &flight.Batch{})
		}
		return
	}
	sub.answered = true
	single := url == release.TypeRoute || url == release.TypeEndpoint || url == release.TypeSecret || url == release.TypeRateLimit
	b, size := &flight.Batch{Removed: removed}, 0
	for _, one := range upserts {
		if single {
			p.respond(url, sub, &flight.Batch{Resources: []*release.Resource{one}})
			continue
		}
		if size+len(one.Body.GetValue()) > maxBatch && len(b.Resources) > 0 {
			p.respond(url, sub, b)
			b, size = &flight.Batch{}, 0
		}
		b.Resources = append(b.Resources, one)
		size += len(one.Body.GetValue())
	}
	if len(b.Resources) > 0 || len(b.Removed) > 0 {
		p.respond(url, sub, b)
	}
}

func (p *plan) respond(url string, sub *subscription, b *flight.Batch) {
	st := p.stream
	b.Nonce, b.Before = st.nextNonce(), map[string]string{}
	response := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, Nonce: b.Nonce, RemovedResources: b.Removed}
	p.secretsAgain(url)
	names := make([]string, 0, len(b.Resources))
	for _, one := range b.Resources {
		old, had := sub.held[one.Name]
		if had {
			b.Before[one.Name] = old
		}
		sub.held[one.Name] = one.Version
		delete(sub.missing, one.Name)
		delete(sub.claimed, one.Name)
		delete(sub.revert, one.Name)
		if sub.good[one.Name] != one || one == p.view.Get(st.audience, url, one.Name) {
			names = append(names, one.Name) // what is taken back stays refused
			delete(sub.refusing, one.Name)
		}
		response.Resources = append(response.Resources, &discoveryv3.Resource{Name: one.Name, Version: one.Version, Resource: one.Body})
		response.SystemVersionInfo = one.Version
		switch url {
		case release.TypeCluster:
			p.cluster(one, had || sub.runs[one.Name])
		case release.TypeListener:
			// Who has the listener has its routes, or is about to say so.
			if !had && p.view.Get(st.audience, release.TypeRoute, one.Name) != nil {
				p.listeners = append(p.listeners, one.Name)
			}
		case release.TypeRoute:
			st.sent[one.Name] = one
		}
	}
	sub.flight.Add(b, p.now)
	p.responses = append(p.responses, response)
	st.site.Metrics.Responses.WithLabelValues(url).Inc()
	st.account.Settled(url, names)
}

// cluster notes that a cluster is on its way: its endpoints follow, and routes
// to one that is new wait for it.
func (p *plan) cluster(one *release.Resource, known bool) {
	if p.view.Get(p.stream.audience, release.TypeEndpoint, one.Name) != nil {
		p.behind = append(p.behind, one.Name)
	}
	// An Envoy that reconnects while something warms brings no versions of
	// clusters, but asks for the endpoints of those it has.
	if eds := p.stream.subs[release.TypeEndpoint]; eds != nil && eds.names[one.Name] {
		known = true
	}
	if !known {
		if len(p.stream.warming) == 0 {
			p.stream.longest = p.now
		}
		p.stream.warming[one.Name] = p.now
	}
}
