package push

import (
	"slices"
	"strconv"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"tollgate/xds/release"
)

// DeltaAggregatedResources serves one client until it leaves.
func (s *Server) DeltaAggregatedResources(grpcStream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	st := newStream(s)
	s.join(st)
	defer s.leave(st)
	ctx := grpcStream.Context()
	requests := make(chan *discoveryv3.DeltaDiscoveryRequest)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			request, err := grpcStream.Recv()
			if err != nil {
				return
			}
			select {
			case requests <- request:
			case <-ctx.Done():
				return
			}
		}
	}()
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
			st.request(request)
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

// request takes one message of the client: a wish, and an answer to a response.
func (st *stream) request(r *discoveryv3.DeltaDiscoveryRequest) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.meet(r.GetNode())
	sub, known := st.subs[r.GetTypeUrl()]
	if !known {
		sub = newSubscription()
		st.subs[r.GetTypeUrl()] = sub
	}
	first := !sub.answered && len(sub.names) == 0 && !sub.wildcard && r.GetResponseNonce() == ""
	if first {
		sub.wildcard = len(r.GetResourceNamesSubscribe()) == 0
		for name, version := range r.GetInitialResourceVersions() {
			sub.held[name] = version
			sub.runs[name] = true
			sub.answered = true
			st.blind = st.blind || r.GetTypeUrl() == release.TypeRoute
		}
	}
	for _, name := range r.GetResourceNamesSubscribe() {
		if name == "*" {
			sub.wildcard = true
			continue
		}
		if sub.names[name] && !first {
			delete(sub.held, name) // asked for again: it has lost it
		}
		sub.names[name] = true
		delete(sub.missing, name)
	}
	for _, name := range r.GetResourceNamesUnsubscribe() {
		if name == "*" {
			sub.wildcard = false
		}
		delete(sub.names, name)
		delete(sub.held, name)
	}
	if b := sub.pending[r.GetResponseNonce()]; b != nil {
		delete(sub.pending, r.GetResponseNonce())
		if r.GetErrorDetail() != nil {
			st.nack(r.GetTypeUrl(), sub, b, r.GetErrorDetail().GetMessage())
		} else {
			st.ack(r.GetTypeUrl(), b)
		}
	}
}

func (st *stream) ack(url string, b *batch) {
	st.srv.metrics.answers.WithLabelValues(url, "ack").Inc()
	for _, one := range b.resources {
		switch url {
		case release.TypeCluster:
			delete(st.warming, one.Name)
			st.subs[url].good[one.Name] = one
			st.subs[url].runs[one.Name] = true
		case release.TypeRoute:
			st.running[one.Name], st.blind = one, false
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
			sub.held[name] = ghost // its removal may have been refused along with the rest
		}
	}
	for _, one := range b.resources {
		if len(b.resources) > 1 && !named(why, one.Name) {
			delete(sub.held, one.Name)
			sub.alone[one.Name] = true
			continue
		}
		culprits = append(culprits, one.Name)
		st.srv.refuse(st.id, one)
		delete(sub.alone, one.Name)
		delete(st.warming, one.Name)
		st.takeBack(url, sub, one.Name, b)
		if url == release.TypeRoute {
			st.sent[one.Name] = st.running[one.Name]
			if st.sent[one.Name] == nil {
				delete(st.sent, one.Name)
			}
		}
	}
	st.srv.cfg.Log.Error("client refused its config and keeps the last good one", "node", st.id, "type_url", url, "resource", strings.Join(culprits, " "), "err", clip(why))
	if st.srv.cfg.Ledger != nil {
		st.srv.cfg.Ledger.Refused(st.id, url, culprits, why)
	}
}

// takeBack notes what the client still has of a refused resource.
func (st *stream) takeBack(url string, sub *subscription, name string, b *batch) {
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
}

// ghost is the held version of a cluster that was refused and must be taken back.
const ghost = "ghost"

// named says whether a refusal speaks of a resource.
func named(why, name string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(why, func(r rune) bool {
		return strings.ContainsRune(" ,:;'\"()\n", r)
	}), func(word string) bool { return word == name })
}

// maxWords bounds what is shown of a refusal: Envoy may dump a whole resource.
const maxWords = 300

func clip(why string) string {
	if len(why) > maxWords {
		return why[:maxWords] + "…"
	}
	return why
}

// alarm is when the stream must look again without being asked.
func (st *stream) alarm(now time.Time) time.Duration {
	st.mu.Lock()
	defer st.mu.Unlock()
	next := time.Hour
	for _, since := range st.warming {
		next = min(next, max(st.srv.cfg.Hold-now.Sub(since), time.Millisecond))
	}
	if st.subs[release.TypeCluster] == nil && st.subs[release.TypeListener] != nil {
		next = min(next, max(cdsWait-now.Sub(st.opened), time.Millisecond))
	}
	return next
}

// cdsWait is how long a client may leave out its CDS request: an Envoy that
// reconnects while a cluster warms sends none, and waits for ever.
const cdsWait = time.Second

// next returns what to send now, in order.
func (st *stream) next(v *view, now time.Time) []*discoveryv3.DeltaDiscoveryResponse {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.id == "" || len(v.resources) == 0 {
		return nil
	}
	if st.subs[release.TypeCluster] == nil && st.subs[release.TypeListener] != nil && now.Sub(st.opened) >= cdsWait {
		sub := newSubscription()
		sub.wildcard, sub.answered = true, true
		st.subs[release.TypeCluster] = sub
	}
	for name, since := range st.warming {
		if now.Sub(since) >= st.srv.cfg.Hold {
			delete(st.warming, name)
		}
	}
	p := &plan{stream: st, view: v, now: now}
	for _, url := range kinds {
		p.kind(url)
	}
	return p.responses
}

func (st *stream) nextNonce() string {
	st.nonce++
	return strconv.FormatUint(st.nonce, 36)
}
