package stream

import (
	"context"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/xds/push/slot"
	"tollgate/xds/release"
)

// maxNames bounds what one client may ask for of one type.
const maxNames = 100_000

// Request takes one message of the client: a wish, and an answer to a response.
func (st *Stream) Request(ctx context.Context, r *discoveryv3.DeltaDiscoveryRequest) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.gone {
		return nil
	}
	if err := st.meet(ctx, r.GetNode()); err != nil {
		return err
	}
	kind, served := release.KindOf(r.GetTypeUrl())
	if !served {
		return nil // nothing of it is served, and it is never waited for
	}
	if err := st.site.Desk.May(ctx, st.client, st.id, kind.URL); err != nil {
		return err
	}
	sub := st.subscription(kind)
	if sub.asked+len(r.GetResourceNamesSubscribe())+len(r.GetInitialResourceVersions()) > maxNames {
		return status.Errorf(codes.ResourceExhausted, "more than %d names of %s", maxNames, kind.URL)
	}
	first := !sub.met && r.GetResponseNonce() == ""
	sub.met = true
	if r.GetResponseNonce() != "" {
		st.answer(sub, r, time.Now())
	}
	if first {
		st.resume(sub, r)
	}
	sub.subscribe(r.GetResourceNamesSubscribe(), r.GetInitialResourceVersions(), first)
	for _, name := range r.GetResourceNamesUnsubscribe() {
		st.unsubscribe(sub, name)
	}
	return nil
}

// resume takes what a client brings from an earlier stream. What it was sent
// on this one already is newer.
func (st *Stream) resume(sub *subscription, r *discoveryv3.DeltaDiscoveryRequest) {
	names, versions := r.GetResourceNamesSubscribe(), r.GetInitialResourceVersions()
	sub.rescan = true
	sub.wildcard = sub.wildcard || sub.Listed && len(names) == 0
	if len(versions) > 0 {
		st.carryOn()
		sub.answered = true
		st.secretsAgain(sub.URL)
	}
	doubts := st.record.Doubts(sub.URL)
	if v := st.site.Current(); v.Known(sub.URL) && len(doubts) == 0 {
		sub.recognise(v.All(st.audience, sub.URL), names, versions)
	}
	for name, version := range versions {
		if sub.slots.Shares(name) && sub.slots.Get(name).Version == version {
			continue
		}
		name, version = strings.Clone(name), strings.Clone(version) // of a large message
		s := sub.slots.Change(name)
		s.Runs = s.Runs || sub.URL == release.TypeCluster
		brought := !s.There()
		s.Brought(version)
		if brought && sub.URL == release.TypeRoute {
			st.routes.Brought(name)
		}
	}
	sub.doubtful(doubts)
}

// recognise makes what is served the base of a client that brings most of it, so
// that what it has in common with others costs nothing.
func (sub *subscription) recognise(all map[string]*release.Resource, names []string, versions map[string]string) {
	same := 0
	for name, version := range versions {
		if one := all[name]; one != nil && one.Version == version {
			same++
		}
	}
	// Routes are few, and each must be known.
	if sub.URL == release.TypeRoute || sub.slots.Based() || sub.slots.Exceptions() > 0 || len(all) < commonly || same < len(all)/2 {
		return
	}
	asked := 2*len(names) > len(all)
	sub.slots.Adopt(all, asked, sub.URL == release.TypeCluster)
	var named set
	if asked {
		sub.asked = len(all)
		named = make(set, len(names))
		for _, name := range names {
			named.add(name)
		}
	}
	for name, one := range all {
		if version, has := versions[name]; !has || version != one.Version || asked && !named.has(name) {
			if s := sub.slots.Change(name); s.Asked {
				sub.asked--
			}
			*sub.slots.Change(name) = slot.Slot{}
		}
	}
}

// commonly is how many resources a type must have for what clients have in
// common to be worth knowing.
const commonly = 2

// doubtful notes names of which it is not known what the client runs, but for
// what it was sent on this stream.
func (sub *subscription) doubtful(names []string) {
	for _, name := range names {
		if s := sub.slots.Get(name); !s.There() || s.Claimed {
			sub.doubt(name)
		}
	}
}

// doubt notes that no version of a name is known to be the one that it runs.
func (sub *subscription) doubt(name string) {
	s := sub.slots.Change(name)
	s.Doubt()
	s.Claimed = true
	sub.todo.Add(name)
}

// subscribe notes what the client asks for; of brought it says that it has it.
func (sub *subscription) subscribe(names []string, brought map[string]string, first bool) {
	var unasked set
	for _, name := range names {
		if name == "*" {
			sub.wildcard, sub.rescan = true, true
			continue
		}
		if first && sub.slots.Asked() && sub.slots.Shares(name) {
			continue // recognised
		}
		s := sub.slots.Change(name)
		if !s.Asked {
			sub.asked++
			if s.There() && !sub.wildcard {
				unasked.add(name)
			}
		}
		s.Ask(s.Asked && !first)
		sub.todo.Add(name)
	}
	// Envoy drops what comes before it asked for it. Of a type of which it asked for
	// something it answers for it all the same; of another it never does, and the
	// answer to an empty response shows that.
	carried := sub.flight.Carries(unasked)
	sub.probe = sub.probe || len(carried) > 0
	for name := range unasked {
		if brought[name] == "" && !carried[name] {
			sub.slots.Change(name).Ask(true)
		}
	}
}

func (st *Stream) unsubscribe(sub *subscription, name string) {
	if name == "*" {
		sub.wildcard = false
		sub.slots.NoneUnasked()
		for held := range sub.stale {
			if !sub.slots.Get(held).There() {
				delete(sub.stale, held)
			}
		}
		return
	}
	s := sub.slots.Change(name)
	if s.Asked {
		sub.asked--
	}
	s.Forget(sub.wildcard)
	sub.slots.Settle(name)
	if sub.wildcard {
		sub.todo.Add(name) // it stays wanted as one of all
		return
	}
	delete(sub.stale, name)
	if sub.URL == release.TypeRoute {
		st.routes.Forget(name)
	}
}
