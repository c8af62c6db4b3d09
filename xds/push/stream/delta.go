package stream

import (
	"context"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/xds/push/view"
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
	url := r.GetTypeUrl()
	if !view.Served(url) {
		return nil // nothing of it is served, and it is never waited for
	}
	if err := st.may(url); err != nil {
		return err
	}
	sub := st.subs[url]
	if sub == nil {
		sub = newSubscription()
		st.subs[url] = sub
	}
	if len(sub.names)+len(r.GetResourceNamesSubscribe())+len(r.GetInitialResourceVersions()) > maxNames {
		return status.Errorf(codes.ResourceExhausted, "more than %d names of %s", maxNames, url)
	}
	first := !sub.met && r.GetResponseNonce() == ""
	sub.met = true
	if r.GetResponseNonce() != "" {
		st.answer(url, sub, r, time.Now())
	}
	if first {
		st.resume(url, sub, r)
	}
	sub.subscribe(r.GetResourceNamesSubscribe(), first)
	for _, name := range r.GetResourceNamesUnsubscribe() {
		st.unsubscribe(url, sub, name)
	}
	return nil
}

// resume takes what a client brings from an earlier stream. What it was sent
// on this one already is newer.
func (st *Stream) resume(url string, sub *subscription, r *discoveryv3.DeltaDiscoveryRequest) {
	sub.rescan = true
	sub.wildcard = sub.wildcard || view.Listed(url) && len(r.GetResourceNamesSubscribe()) == 0
	if len(r.GetInitialResourceVersions()) > 0 {
		st.carryOn()
	}
	for name, version := range r.GetInitialResourceVersions() {
		sub.answered = true
		sub.runs[name] = true
		if sub.held[name] != "" {
			continue
		}
		sub.held[name], sub.claimed[name] = version, true
		if url == release.TypeRoute {
			st.blind[name] = true
		}
	}
	sub.doubt(st.record.Doubts(url))
}

// doubt notes names of which it is not known what the client runs, but for what
// it was sent on this stream.
func (sub *subscription) doubt(names []string) {
	for _, name := range names {
		if sub.held[name] == "" || sub.claimed[name] {
			sub.held[name], sub.claimed[name], sub.todo[name] = doubtful, true, true
		}
	}
}

func (sub *subscription) subscribe(names []string, first bool) {
	fresh := map[string]bool{}
	for _, name := range names {
		if name == "*" {
			sub.wildcard, sub.rescan = true, true
			continue
		}
		if sub.names[name] && !first {
			delete(sub.held, name) // asked for again: it has lost it
		} else {
			fresh[name] = true
		}
		sub.names[name], sub.todo[name] = true, true
		delete(sub.missing, name)
	}
	// Envoy drops, and never answers, what comes before it asked for anything of
	// the type: the answer to an empty response shows whether it did.
	sub.probe = sub.probe || sub.flight.Carries(fresh)
}

func (st *Stream) unsubscribe(url string, sub *subscription, name string) {
	if name == "*" {
		sub.wildcard = false
		for held := range sub.held {
			if !sub.names[held] {
				sub.lost(held)
			}
		}
		return
	}
	delete(sub.names, name)
	delete(sub.missing, name)
	if sub.wildcard {
		sub.todo[name] = true // it stays wanted as one of all
		return
	}
	sub.lost(name)
	if url == release.TypeRoute {
		delete(st.sent, name)
		delete(st.running, name)
		delete(st.blind, name)
	}
}
