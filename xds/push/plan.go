package push

import (
	"maps"
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"tollgate/xds/release"
)

// maxBatch bounds one response in bytes of resources.
const maxBatch = 1 << 20

// plan is what one client is sent at one moment.
type plan struct {
	stream    *stream
	view      *view
	now       time.Time
	behind    []string // clusters just sent: their endpoints follow
	listeners []string // listeners just sent: their routes follow
	responses []*discoveryv3.DeltaDiscoveryResponse
}

// kind adds the responses of one type.
func (p *plan) kind(url string) {
	if !p.view.full && !deciding(url) {
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
	all := p.view.all(p.stream.audience, url)
	want := map[string]bool{}
	if sub.wildcard {
		for name := range all {
			want[name] = true
		}
	}
	maps.Copy(want, sub.names)
	for _, name := range follow {
		want[name] = true
		if url == release.TypeEndpoint {
			delete(sub.held, name) // a changed cluster warms until it gets them anew
		}
	}
	var upserts []*release.Resource
	var removed []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		one := all[name]
		if one == nil {
			if sub.names[name] && !sub.missing[name] && (sub.held[name] == "" || url == release.TypeListener) {
				sub.missing[name] = true
				removed = append(removed, name)
			}
			continue
		}
		if one = p.choose(url, sub, one); one != nil {
			upserts = append(upserts, one)
		}
	}
	replaced := map[string]bool{}
	for _, one := range upserts {
		replaced[one.Name] = true
	}
	for name, version := range sub.held {
		if replaced[name] {
			continue
		}
		if (sub.wildcard && all[name] == nil) || version == ghost {
			removed = append(removed, name)
			delete(sub.held, name)
			delete(sub.runs, name)
			delete(sub.good, name)
		}
	}
	slices.Sort(removed)
	p.send(url, sub, upserts, removed)
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
	if sub.held[one.Name] == one.Version {
		return nil
	}
	if st.refused(one) {
		good := sub.revert[one.Name]
		delete(sub.revert, one.Name)
		return good
	}
	if url != release.TypeRoute || len(st.warming) == 0 {
		return one
	}
	warming := map[string]bool{}
	for _, m := range st.srv.refs.of(one) {
		for name := range st.warming {
			if m == (key{one.Audience, release.TypeCluster, name}).mention() {
				warming[name] = true
			}
		}
	}
	if len(warming) == 0 {
		return one
	}
	held := interim(st.sent[one.Name], one, warming)
	if held == nil || sub.held[one.Name] == held.Version || st.refused(held) {
		return nil
	}
	return held
}

// send adds responses: one resource each where Envoy would apply an
// unpredictable part of a refused batch, few large ones elsewhere.
func (p *plan) send(url string, sub *subscription, upserts []*release.Resource, removed []string) {
	if len(upserts) == 0 && len(removed) == 0 {
		if sub.wildcard && !sub.answered {
			sub.answered = true
			p.respond(url, sub, &batch{})
		}
		return
	}
	sub.answered = true
	single := url == release.TypeRoute || url == release.TypeEndpoint || url == release.TypeSecret || url == release.TypeRateLimit
	b, size := &batch{removed: removed}, 0
	for _, one := range upserts {
		if single || sub.alone[one.Name] {
			p.respond(url, sub, &batch{resources: []*release.Resource{one}})
			continue
		}
		if size+len(one.Body.GetValue()) > maxBatch && len(b.resources) > 0 {
			p.respond(url, sub, b)
			b, size = &batch{}, 0
		}
		b.resources = append(b.resources, one)
		size += len(one.Body.GetValue())
	}
	if len(b.resources) > 0 || len(b.removed) > 0 {
		p.respond(url, sub, b)
	}
}

func (p *plan) respond(url string, sub *subscription, b *batch) {
	st := p.stream
	response := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, Nonce: st.nextNonce(), RemovedResources: b.removed}
	b.again = map[string]string{}
	names := make([]string, 0, len(b.resources))
	for _, one := range b.resources {
		old, had := sub.held[one.Name]
		if had {
			b.again[one.Name] = old
		}
		sub.held[one.Name] = one.Version
		delete(sub.missing, one.Name)
		names = append(names, one.Name)
		response.Resources = append(response.Resources, &discoveryv3.Resource{Name: one.Name, Version: one.Version, Resource: one.Body})
		response.SystemVersionInfo = one.Version
		switch url {
		case release.TypeCluster:
			p.cluster(one, had || sub.runs[one.Name])
		case release.TypeListener:
			if p.view.get(st.audience, release.TypeRoute, one.Name) != nil {
				p.listeners = append(p.listeners, one.Name)
			}
		case release.TypeRoute:
			st.sent[one.Name] = one
		}
	}
	sub.pending[response.GetNonce()] = b
	p.responses = append(p.responses, response)
	st.srv.metrics.responses.WithLabelValues(url).Inc()
	if st.srv.cfg.Ledger != nil {
		st.srv.cfg.Ledger.Sent(st.id, url, response.GetSystemVersionInfo(), names)
	}
}

// cluster notes that a cluster is on its way: its endpoints follow, and routes
// to one that is new wait for it.
func (p *plan) cluster(one *release.Resource, known bool) {
	if p.view.get(p.stream.audience, release.TypeEndpoint, one.Name) != nil {
		p.behind = append(p.behind, one.Name)
	}
	if !known {
		p.stream.warming[one.Name] = p.now
	}
}
