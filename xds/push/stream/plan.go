package stream

import (
	"slices"
	"time"

	"tollgate/xds/ledger"
	"tollgate/xds/push/flight"
	"tollgate/xds/push/slot"
	"tollgate/xds/push/view"
	"tollgate/xds/push/wire"
	"tollgate/xds/release"
)

// maxBatch bounds one response in bytes of resources.
const maxBatch = 1 << 20

// plan is what one client is sent at one moment.
type plan struct {
	stream    *Stream
	view      *view.View
	now       time.Time
	listeners []string // listeners just sent: their routes follow
	responses []*wire.Response
}

// kind adds the responses of one type.
func (p *plan) kind(kind release.Kind) {
	if !p.view.Known(kind.URL) {
		return
	}
	if kind.URL == release.TypeRoute && len(p.listeners) > 0 {
		p.stream.subscription(kind)
	}
	sub := p.stream.subs[kind.URL]
	if sub == nil {
		return
	}
	room := sub.room()
	if room == 0 {
		return // what waits goes in its newest form
	}
	all := p.view.All(p.stream.audience, kind.URL)
	p.compare(sub, all, p.behind(sub, all, room), room)
	p.try(sub, all)
}

// room is how many responses may go now.
func (sub *subscription) room() int {
	if sub.Withheld {
		return max(maxWithheld-sub.flight.Len(), 0)
	}
	return sub.flight.Room()
}

// behind makes due what goes right behind what names it, as much as there is
// room for, and returns what of it goes though nobody asked.
func (p *plan) behind(sub *subscription, all map[string]*release.Resource, room int) set {
	var behind set
	if sub.URL == release.TypeRoute {
		for _, name := range p.listeners {
			behind.add(name)
		}
	}
	for len(sub.clusters) > 0 && len(behind) < room {
		name := sub.clusters[0][0].Name
		if sub.clusters[0] = sub.clusters[0][1:]; len(sub.clusters[0]) == 0 {
			sub.clusters = slices.Delete(sub.clusters, 0, 1)
		}
		if all[name] == nil {
			continue
		}
		behind.add(name)
		if sub.slots.Get(name).There() {
			sub.slots.Change(name).Back(slot.Prior{}) // a changed cluster warms until it gets them anew
		}
	}
	sub.todo.All(behind)
	return behind
}

// compare sends what differs from what is served, of the names that are due.
func (p *plan) compare(sub *subscription, all map[string]*release.Resource, behind set, room int) {
	var upserts []*release.Resource
	var removed, settled []string
	onTrial := sub.trial.Waits()
	sub.queue = sub.order(all)
	for len(sub.queue) > 0 && (!sub.Single || len(upserts) < room) {
		name := sub.queue[0]
		sub.queue = sub.queue[1:]
		one := all[name]
		if sub.URL == release.TypeSecret && one != nil && !p.shown(name) {
			one = nil
		}
		switch s := sub.slots.Get(name); {
		case one == nil:
			settled = append(settled, name)
			delete(sub.refusing, name)
			if p.absent(sub, name) {
				removed = append(removed, name)
			}
		case !sub.wildcard && !s.Asked && !behind.has(name) && !s.There():
		case s.At(one.Version):
			settled = append(settled, name)
			delete(sub.refusing, name)
			p.recognise(sub, one)
		case onTrial[name]:
		default:
			delete(sub.stale, name)
			if chosen := p.choose(sub, one); chosen != nil {
				upserts = append(upserts, chosen)
			} else if s.Phase == slot.Ghost {
				sub.lost(name)
				removed = append(removed, name)
			}
		}
		sub.slots.Settle(name)
	}
	if len(sub.queue) == 0 {
		sub.queue = nil
	}
	if len(settled) > 0 {
		p.stream.account.Settled(sub.URL, settled)
	}
	p.send(sub, upserts, removed)
}

// try sends the next group that is on trial.
func (p *plan) try(sub *subscription, all map[string]*release.Resource) {
	for names := sub.trial.Next(); names != nil; names = sub.trial.Next() {
		var group []*release.Resource
		for _, name := range names {
			if one := all[name]; one != nil && !sub.slots.Get(name).At(one.Version) {
				if chosen := p.choose(sub, one); chosen != nil {
					group = append(group, chosen)
				}
				sub.slots.Settle(name)
			}
		}
		if len(group) > 0 {
			sub.trying = p.respond(sub, group, nil)
			return
		}
		sub.trial.Unanswered()
	}
}

// order returns the names to compare with what is served, sorted.
func (sub *subscription) order(all map[string]*release.Resource) []string {
	if sub.rescan {
		if sub.wildcard && !sub.slots.Based() {
			for name := range all {
				sub.todo.Add(name)
			}
		}
		for name := range sub.slots.Own() {
			sub.todo.Add(name)
		}
		sub.rescan = false
	}
	if !sub.todo.Any() {
		return sub.queue
	}
	return sub.todo.Take(sub.queue)
}

// absent decides about a name that is not served: whether to say that it is
// gone, or that it never was.
func (p *plan) absent(sub *subscription, name string) bool {
	st, s := p.stream, sub.slots.Get(name)
	switch {
	case s.Phase == slot.Ghost || s.There() && sub.wildcard:
		if s.Claimed && s.Phase != slot.Ghost && !p.faded(sub, name) {
			sub.stale.add(name)
			return false
		}
		sub.told(name)
		return true
	case s.Asked && s.Phase != slot.Missing && (!s.There() || sub.URL == release.TypeListener):
		sub.told(name)
		return true
	case sub.URL == release.TypeRoute && !s.Asked:
		st.routes.Forget(name)
	}
	return false
}

// told notes that the client is told that there is none of a name.
func (sub *subscription) told(name string) {
	s := sub.slots.Change(name)
	if s.Asked {
		s.Told()
	} else {
		s.Lose()
	}
	delete(sub.stale, name)
}

// faded says whether nothing needs what a client brought along any more.
func (p *plan) faded(sub *subscription, name string) bool {
	st := p.stream
	if p.now.Before(st.fades(sub)) {
		return false
	}
	return sub.URL != release.TypeCluster || !st.routes.MayName(name)
}

// recognise learns what a client runs from a version that it brought along.
func (p *plan) recognise(sub *subscription, one *release.Resource) {
	st := p.stream
	if !sub.slots.Get(one.Name).Claimed {
		return
	}
	s := sub.slots.Change(one.Name)
	s.Claimed = false
	st.secretsAgain(sub.URL)
	switch sub.URL {
	case release.TypeCluster:
		s.Good = one
	case release.TypeRoute:
		st.routes.Recognised(one)
	}
}

// choose returns the form of a resource that the client should be sent now,
// or nil.
func (p *plan) choose(sub *subscription, one *release.Resource) *release.Resource {
	st, s := p.stream, sub.slots.Get(one.Name)
	if s.Parked {
		st.record.Add(sub.URL, one.Name, one.Version, s.Words)
		change := sub.slots.Change(one.Name)
		change.Parked, change.Words = false, ""
	}
	if why, refused := st.record.Has(sub.URL, one.Name, one.Version); refused {
		sub.refusing.add(one.Name)
		st.account.Refused(sub.URL, why, []ledger.Refusal{refusalOf(one)})
		if s.Revert != nil {
			sub.slots.Change(one.Name).Revert = nil
		}
		return s.Revert
	}
	if sub.URL != release.TypeRoute {
		return one
	}
	delete(st.waiting, one.Name)
	warming := st.warming.Of(one)
	if len(warming) == 0 {
		return one
	}
	st.waiting.add(one.Name)
	held := st.site.Interims.Of(st.routes.Last(one.Name), one, warming)
	if held == nil || s.At(held.Version) {
		return nil
	}
	if _, refused := st.record.Has(sub.URL, held.Name, held.Version); refused {
		return nil
	}
	return held
}

// send adds responses: one resource each where Envoy would apply an
// unpredictable part of a refused batch, few large ones elsewhere.
func (p *plan) send(sub *subscription, upserts []*release.Resource, removed []string) {
	probe := sub.probe && sub.flight.Len() > 0 && !sub.Withheld
	sub.probe = false
	if len(upserts) == 0 && len(removed) == 0 {
		if probe || sub.wildcard && !sub.answered {
			sub.answered = true
			p.respond(sub, nil, nil)
		}
		return
	}
	sub.answered = true
	if sub.Single {
		for i := range upserts {
			p.respond(sub, upserts[i:i+1:i+1], nil)
		}
		upserts = nil
	}
	from, size := 0, 0
	for i, one := range upserts {
		if size+len(one.Body.GetValue()) > maxBatch && i > from {
			p.respond(sub, upserts[from:i:i], removed)
			from, size, removed = i, 0, nil
		}
		size += len(one.Body.GetValue())
	}
	if len(upserts) > from || len(removed) > 0 {
		p.respond(sub, upserts[from:], removed)
	}
}

// respond adds a response and returns its nonce.
func (p *plan) respond(sub *subscription, resources []*release.Resource, removed []string) string {
	st := p.stream
	frame := st.site.Frames.Of(sub.URL, resources, removed)
	b := &flight.Batch{Nonce: st.nextNonce(), Resources: frame.Resources, Removed: removed}
	st.secretsAgain(sub.URL)
	var names []string
	follow := false
	for i, one := range b.Resources {
		s := sub.slots.Change(one.Name)
		had := s.There()
		if s.Good != one || one == p.view.Get(st.audience, sub.URL, one.Name) {
			names = append(names, one.Name) // what is taken back stays refused
			delete(sub.refusing, one.Name)
		}
		b.Note(i, s.Sent(one.Version))
		switch sub.URL {
		case release.TypeCluster:
			follow = p.cluster(one, had || s.Runs) || follow
		case release.TypeListener:
			// Who has the listener has its routes, or is about to say so.
			if !had && p.view.Get(st.audience, release.TypeRoute, one.Name) != nil {
				p.listeners = append(p.listeners, one.Name)
			}
		case release.TypeRoute:
			st.routes.Sent(one)
		}
		sub.slots.Settle(one.Name)
	}
	if follow {
		kind, _ := release.KindOf(release.TypeEndpoint)
		eds := st.subscription(kind)
		eds.clusters = append(eds.clusters, b.Resources)
	}
	sub.flight.Add(b, p.now)
	p.responses = append(p.responses, frame.With(b.Nonce))
	st.site.Metrics.Responses.WithLabelValues(sub.URL).Inc()
	if len(names) > 0 {
		st.account.Settled(sub.URL, names)
	}
	return b.Nonce
}

// cluster notes that a cluster is on its way: routes to one that is new wait for
// it. It returns whether endpoints follow.
func (p *plan) cluster(one *release.Resource, known bool) bool {
	// An Envoy that reconnects while something warms brings no versions of
	// clusters, but asks for the endpoints of those it has.
	if eds := p.stream.subs[release.TypeEndpoint]; eds != nil && eds.slots.Get(one.Name).Asked {
		known = true
	}
	if !known {
		p.stream.warming.Sent(one.Name, p.now)
	}
	return p.view.Get(p.stream.audience, release.TypeEndpoint, one.Name) != nil
}
