package push

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tollgate/xds/push/refusals"
	"tollgate/xds/push/view"
	"tollgate/xds/release"
)

// DeltaAggregatedResources serves one client until it leaves.
func (s *Server) DeltaAggregatedResources(grpcStream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	st := newStream(s)
	s.join(st)
	defer s.leave(st)
	ctx := grpcStream.Context()
	requests, ended := receive(ctx, grpcStream.Recv)
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for {
		alarm.Reset(st.alarm(time.Now()))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return nil // whatever ended it, the client comes back
		case request := <-requests:
			if err := st.request(ctx, request); err != nil {
				return err
			}
		case <-st.wakeup:
		case <-alarm.C:
		}
		for _, response := range st.next(s.current(), time.Now()) {
			if err := grpcStream.Send(response); err != nil {
				return err
			}
		}
	}
}

// maxNames bounds what one client may ask for of one type.
const maxNames = 100_000

// request takes one message of the client: a wish, and an answer to a response.
func (st *stream) request(ctx context.Context, r *discoveryv3.DeltaDiscoveryRequest) error {
	st.mu.Lock()
	defer st.mu.Unlock()
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
	if first {
		st.resume(url, sub, r)
	}
	sub.subscribe(r.GetResourceNamesSubscribe(), first)
	for _, name := range r.GetResourceNamesUnsubscribe() {
		st.unsubscribe(url, sub, name)
	}
	if b := sub.pending[r.GetResponseNonce()]; b != nil {
		delete(sub.pending, r.GetResponseNonce())
		if r.GetErrorDetail() != nil {
			st.nack(url, sub, b, r.GetErrorDetail().GetMessage())
		} else {
			st.ack(url, b)
		}
	}
	return nil
}

// resume takes what a client brings from an earlier stream. What it was sent
// on this one already is newer.
func (st *stream) resume(url string, sub *subscription, r *discoveryv3.DeltaDiscoveryRequest) {
	sub.rescan = true
	sub.wildcard = sub.wildcard || view.Listed(url) && len(r.GetResourceNamesSubscribe()) == 0
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
	for _, name := range st.srv.refused.Doubts(st.remembered, url) {
		if sub.held[name] == "" || sub.claimed[name] {
			sub.held[name], sub.claimed[name] = doubtful, true
		}
	}
}

func (sub *subscription) subscribe(names []string, first bool) {
	for _, name := range names {
		if name == "*" {
			sub.wildcard, sub.rescan = true, true
			continue
		}
		if sub.names[name] && !first {
			delete(sub.held, name) // asked for again: it has lost it
		}
		sub.names[name], sub.todo[name] = true, true
		delete(sub.missing, name)
	}
}

func (st *stream) unsubscribe(url string, sub *subscription, name string) {
	if name == "*" {
		sub.wildcard = false
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

func (st *stream) ack(url string, b *batch) {
	st.srv.metrics.answers.WithLabelValues(url, "ack").Inc()
	for _, one := range b.resources {
		st.srv.refused.Trust(st.remembered, one)
		switch url {
		case release.TypeCluster:
			st.thaw(one.Name)
			st.subs[url].good[one.Name] = one
			st.subs[url].runs[one.Name] = true
		case release.TypeRoute:
			st.running[one.Name], st.left = one, time.Now()
			delete(st.blind, one.Name)
		}
	}
	if st.srv.cfg.Ledger != nil {
		st.srv.cfg.Ledger.Acked(st.id, url)
	}
}

// nack handles a refusal. Of a batch nobody knows what was taken: everything
// in it goes again, one per response; alone, or named by the refusal, it is not
// sent again. A refused cluster stays in Envoy as a ghost that silences CDS, so it
// is taken back at once.
func (st *stream) nack(url string, sub *subscription, b *batch, why string) {
	st.srv.metrics.answers.WithLabelValues(url, "nack").Inc()
	var culprits []string
	if len(b.resources) > 0 {
		for _, name := range b.removed {
			if sub.held[name] == "" {
				sub.held[name], sub.todo[name] = ghost, true // its removal may have been refused along with the rest
			}
		}
	}
	for _, one := range b.resources {
		sub.todo[one.Name] = true
		newest := sub.held[one.Name] == one.Version // no other was sent meanwhile
		if len(b.resources) > 1 && !refusals.Blames(why, one.Name) {
			st.srv.refused.Doubt(st.remembered, one, time.Now())
			if newest {
				delete(sub.held, one.Name)
				sub.alone[one.Name] = true
			}
			continue
		}
		culprits = append(culprits, one.Name)
		st.srv.refused.Add(st.remembered, one, time.Now())
		if newest {
			st.takeBack(url, sub, one.Name, b)
		}
	}
	st.srv.cfg.Log.Error("client refused its config and keeps the last good one", "node", st.id, "type_url", url, "resource", strings.Join(culprits, " "), "err", refusals.Clip(why))
	if st.srv.cfg.Ledger != nil {
		st.srv.cfg.Ledger.Refused(st.id, url, culprits, why)
	}
}

// doubt notes what was on its way in batches when the stream ended: an answer
// may have been lost with it.
func (st *stream) doubt(now time.Time) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, sub := range st.subs {
		for _, b := range sub.pending {
			for _, one := range b.resources {
				if len(b.resources) > 1 {
					st.srv.refused.Doubt(st.remembered, one, now)
				}
			}
		}
	}
}

// takeBack notes what the client still has of a refused resource.
func (st *stream) takeBack(url string, sub *subscription, name string, b *batch) {
	delete(sub.alone, name)
	old, had := b.again[name]
	switch {
	case had && url == release.TypeCluster && sub.good[name] != nil:
		delete(sub.held, name)
		sub.revert[name] = sub.good[name]
	case had:
		sub.held[name] = old
	case url == release.TypeCluster:
		sub.held[name] = ghost
	default:
		delete(sub.held, name)
	}
	switch url {
	case release.TypeCluster:
		st.thaw(name)
	case release.TypeRoute:
		delete(st.sent, name)
		if st.running[name] != nil {
			st.sent[name] = st.running[name]
		}
	}
}

// thaw ends the wait of routes for a cluster.
func (st *stream) thaw(name string) {
	if _, waits := st.warming[name]; waits {
		delete(st.warming, name)
		st.thawed = true
	}
}

// ghost is the held version of a cluster that was refused and must be taken back.
const ghost = "ghost"

// doubtful is the held version of what was in a refused batch before the
// client reconnected: no version is known to be the one that it runs.
const doubtful = "doubtful"

// alarm is when the stream must look again without being asked.
func (st *stream) alarm(now time.Time) time.Duration {
	st.mu.Lock()
	defer st.mu.Unlock()
	next := time.Hour
	if len(st.warming) > 0 {
		next = min(next, max(st.srv.cfg.Hold-now.Sub(st.longest), time.Millisecond))
	}
	if st.unasked() {
		next = min(next, max(cdsWait-now.Sub(st.opened), time.Millisecond))
	}
	for url, sub := range st.subs {
		if len(sub.stale) > 0 {
			next = min(next, max(st.fades(url).Sub(now), staleAgain))
		}
	}
	return next
}

// staleAgain is how often it is looked whether routes that are not known here
// have left something that is not served any more.
const staleAgain = 100 * time.Millisecond

// cdsWait is how long a client may leave out its CDS request: an Envoy that
// reconnects while a cluster warms sends none, and waits for ever.
const cdsWait = time.Second

func (st *stream) unasked() bool {
	return st.subs[release.TypeCluster] == nil && st.subs[release.TypeListener] != nil && st.subs[release.TypeListener].wildcard
}

// next returns what to send now, in order.
func (st *stream) next(v *view.View, now time.Time) []*discoveryv3.DeltaDiscoveryResponse {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.id == "" || v.Number == 0 {
		return nil
	}
	if st.unasked() && now.Sub(st.opened) >= cdsWait {
		sub := newSubscription()
		sub.wildcard, sub.answered, sub.rescan = true, true, true
		st.subs[release.TypeCluster] = sub
	}
	st.expire(now)
	st.mark(v, now)
	p := &plan{stream: st, view: v, now: now}
	for _, url := range view.Kinds() {
		p.kind(url)
	}
	return p.responses
}

// expire ends the waits that took too long. While 10,000 clusters warm, that
// many endpoints are answered: they are not all looked at each time.
func (st *stream) expire(now time.Time) {
	if len(st.warming) == 0 || now.Sub(st.longest) < st.srv.cfg.Hold {
		return
	}
	st.longest = now
	for name, since := range st.warming {
		if now.Sub(since) >= st.srv.cfg.Hold {
			st.thaw(name)
		} else if since.Before(st.longest) {
			st.longest = since
		}
	}
}

// mark notes what must be compared: what changed since the last time, and what
// waited for something else.
func (st *stream) mark(v *view.View, now time.Time) {
	for url, sub := range st.subs {
		if v.Number != st.planned {
			names, ok := v.Since(st.planned, view.Section{Audience: st.audience, URL: url})
			sub.rescan = sub.rescan || !ok
			for _, name := range names {
				sub.todo[name] = true
			}
		}
		if len(sub.stale) > 0 && !now.Before(st.fades(url)) {
			maps.Copy(sub.todo, sub.stale)
		}
	}
	st.planned = v.Number
	if sub := st.subs[release.TypeRoute]; st.thawed && sub != nil {
		st.thawed = false
		maps.Copy(sub.todo, st.waiting)
	}
}

// fades is when a client may lose what it brought from an earlier stream and
// what is not served any more: routes of others may still name it, and its own
// do until it has taken new ones.
func (st *stream) fades(url string) time.Time {
	switch {
	case view.Deciding(url):
		return st.opened.Add(st.srv.cfg.Retire)
	case url != release.TypeCluster:
		return st.opened
	case st.left.After(st.opened):
		return st.left.Add(st.srv.cfg.Drain)
	}
	return st.opened.Add(st.srv.cfg.Drain)
}

func (st *stream) nextNonce() string {
	st.nonce++
	return strconv.FormatUint(st.nonce, 36)
}
