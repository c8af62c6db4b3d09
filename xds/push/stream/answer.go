package stream

import (
	"fmt"
	"slices"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"tollgate/xds/ledger"
	"tollgate/xds/push/flight"
	"tollgate/xds/push/refusals"
	"tollgate/xds/push/slot"
	"tollgate/xds/push/wire"
	"tollgate/xds/release"
)

// answer takes what the client says of a response. What it passed over it has
// dropped; only the answers for clusters may wait for others of later.
func (st *Stream) answer(sub *subscription, r *discoveryv3.DeltaDiscoveryRequest, now time.Time) {
	var b *flight.Batch
	var passed []*flight.Batch
	if sub.Withheld {
		b = sub.flight.Take(r.GetResponseNonce(), now)
	} else {
		b, passed = sub.flight.Answer(r.GetResponseNonce(), now)
	}
	if b == nil {
		return
	}
	st.mute = false
	st.dropped(sub, passed, b)
	if r.GetErrorDetail() != nil {
		st.note(sub, ledger.Event{What: ledger.Denied, Took: b.Took(now), Why: r.GetErrorDetail().GetMessage()}, b)
		st.nack(sub, b, r.GetErrorDetail().GetMessage())
	} else {
		st.note(sub, ledger.Event{What: ledger.Taken, Took: b.Took(now)}, b)
		st.ack(sub, b)
	}
	st.owes(sub)
}

// note puts what the client said of a response, or did not, into the account.
func (st *Stream) note(sub *subscription, e ledger.Event, b *flight.Batch) {
	st.account.Note(about(e, sub.URL, b.Resources, b.Removed))
}

// about fills in what a response holds.
func about(e ledger.Event, url string, resources []*release.Resource, removed []string) ledger.Event {
	e.Type, e.Resources, e.Removed = url, len(resources), len(removed)
	if len(resources) > 0 {
		e.Resource = resources[0].Name
	}
	return e
}

// Leaves notes that a response of Next is handed to the connection.
func (st *Stream) Leaves(r *wire.Response) {
	f := r.Frame
	st.account.Note(about(ledger.Event{What: ledger.Sent}, f.URL, f.Resources, f.Removed))
}

// owes tells the account since when the client owes an answer.
func (st *Stream) owes(sub *subscription) {
	if oldest := sub.flight.Oldest(); !oldest.Equal(sub.owed) {
		sub.owed = oldest
		st.account.Waits(sub.URL, oldest)
	}
}

// dropped notes that the client never took some responses: it does not hold
// what was in them, and gets it again if it asked for it. What but has is known
// better.
func (st *Stream) dropped(sub *subscription, batches []*flight.Batch, but *flight.Batch) {
	for _, b := range slices.Backward(batches) {
		st.note(sub, ledger.Event{What: ledger.Dropped}, b)
		if b.Nonce == sub.trying {
			sub.trial.Unanswered()
			sub.trying = ""
		}
		for i, one := range b.Resources {
			if but.Has(one.Name) || !sub.slots.Get(one.Name).At(one.Version) {
				continue
			}
			sub.slots.Change(one.Name).Back(b.Before(i))
			sub.todo.Add(one.Name)
			if sub.URL == release.TypeRoute {
				st.routes.Back(one.Name)
			}
		}
		for _, name := range b.Removed {
			sub.slots.Change(name).Untold(sub.wildcard)
			sub.todo.Add(name)
		}
	}
}

func (st *Stream) ack(sub *subscription, b *flight.Batch) {
	st.site.Metrics.Answers.WithLabelValues(sub.URL, "ack").Inc()
	if b.Nonce == sub.trying {
		sub.trial.Taken()
		sub.trying = ""
	}
	leaving := sub.flight.Removes()
	for _, one := range b.Resources {
		st.record.Trust(one)
		switch sub.URL {
		case release.TypeCluster:
			if leaving[one.Name] {
				break // and if it is back, that is not warm for this
			}
			st.warming.End(one.Name)
			if sub.slots.Get(one.Name).There() {
				sub.slots.Change(one.Name).Took(one)
			}
		case release.TypeRoute:
			st.routes.Took(one, time.Now())
		}
		sub.slots.Settle(one.Name)
	}
	for _, name := range b.Removed {
		sub.slots.Settle(name)
	}
}

// nack handles a refusal. Of a batch nobody knows what was taken: what its words
// do not blame goes again, and what they may blame goes on trial; alone, or
// named by the refusal, it is not sent again. A refused cluster stays in Envoy as
// a ghost that silences CDS, so it is taken back at once.
func (st *Stream) nack(sub *subscription, b *flight.Batch, why string) {
	st.site.Metrics.Answers.WithLabelValues(sub.URL, "nack").Inc()
	if len(b.Resources) > 0 {
		for _, name := range b.Removed {
			if !sub.slots.Get(name).There() {
				sub.slots.Change(name).Haunt() // its removal may have been refused along with the rest
				sub.todo.Add(name)
			}
		}
	}
	var culprits []ledger.Refusal
	var others []string
	for i, one := range b.Resources {
		sub.todo.Add(one.Name)
		newest := sub.slots.Get(one.Name).At(one.Version) // no other was sent meanwhile
		if len(b.Resources) > 1 && !refusals.Blames(why, one.Name) {
			st.record.Doubt(one)
			if newest {
				sub.slots.Change(one.Name).Doubt()
				others = append(others, one.Name)
			}
			continue
		}
		culprits = append(culprits, refusalOf(one))
		st.record.Add(sub.URL, one.Name, one.Version, why)
		if newest {
			st.takeBack(sub, one.Name, one.Version, b.Before(i))
		}
	}
	for _, name := range st.judge(sub, b, others, len(culprits) > 0) {
		s := sub.slots.Change(name)
		s.Parked, s.Words = true, why
		sub.todo.Add(name)
	}
	st.site.Log.Error("client refused its config and keeps the last good one", "node", st.id, "type_url", sub.URL, "resource", strings.Join(namesOf(culprits), " "), "err", refusals.Clip(why))
	st.account.Refused(sub.URL, why, culprits)
}

// judge puts what was refused along with others on trial; it returns what is
// not worth trying.
func (st *Stream) judge(sub *subscription, b *flight.Batch, others []string, blamed bool) []string {
	tried := b.Nonce == sub.trying
	if tried {
		sub.trying = ""
	}
	switch {
	case tried:
		return sub.trial.Refused(others)
	case blamed:
		sub.trial.Join(others)
	case len(others) > 0:
		sub.trial.Suspect(others)
	}
	return nil
}

func refusalOf(one *release.Resource) ledger.Refusal {
	r := ledger.Refusal{Resource: one.Name}
	if p := one.Pos; p.File != "" {
		r.Pos = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
	}
	return r
}

// takeBack notes what the client still has of a refused resource.
func (st *Stream) takeBack(sub *subscription, name, refused string, before slot.Prior) {
	sub.slots.Change(name).Refused(refused, before, sub.URL == release.TypeCluster)
	switch sub.URL {
	case release.TypeCluster:
		st.warming.End(name)
	case release.TypeRoute:
		st.routes.Back(name)
	}
}
