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
	"tollgate/xds/release"
)

// ghost is the held version of a cluster that was refused and must be taken back.
const ghost = "ghost"

// doubtful is the held version of what was in a refused batch: no version is
// known to be the one that the client runs, if it runs any.
const doubtful = "doubtful"

// answer takes what the client says of a response. What it passed over it has
// dropped; only the answers for clusters may wait for others of later.
func (st *Stream) answer(url string, sub *subscription, r *discoveryv3.DeltaDiscoveryRequest, now time.Time) {
	var b *flight.Batch
	var passed []*flight.Batch
	if url == release.TypeCluster {
		b = sub.flight.Take(r.GetResponseNonce(), now)
	} else {
		b, passed = sub.flight.Answer(r.GetResponseNonce(), now)
	}
	if b == nil {
		return
	}
	st.mute = false
	st.dropped(url, sub, passed, b)
	if r.GetErrorDetail() != nil {
		st.nack(url, sub, b, r.GetErrorDetail().GetMessage())
	} else {
		st.ack(url, sub, b)
	}
	st.account.Waits(url, sub.flight.Oldest())
}

// dropped notes that the client never took some responses: it does not hold
// what was in them, and gets it again if it asked for it. What but has is known
// better.
func (st *Stream) dropped(url string, sub *subscription, batches []*flight.Batch, but *flight.Batch) {
	for _, b := range slices.Backward(batches) {
		if b.Nonce == sub.trying {
			sub.trial.Unanswered()
			sub.trying = ""
		}
		for _, one := range b.Resources {
			if but.Has(one.Name) || sub.held[one.Name] != one.Version {
				continue
			}
			delete(sub.held, one.Name)
			if before, had := b.Before[one.Name]; had {
				sub.held[one.Name] = before
			}
			sub.todo[one.Name] = true
			if url == release.TypeRoute {
				st.stepBack(one.Name)
			}
		}
		for _, name := range b.Removed {
			switch {
			case sub.names[name]:
				delete(sub.missing, name)
			case sub.wildcard && sub.held[name] == "":
				sub.held[name] = ghost
			}
			sub.todo[name] = true
		}
	}
}

// stepBack forgets that a route configuration was sent after the one that runs.
func (st *Stream) stepBack(name string) {
	delete(st.sent, name)
	if st.running[name] != nil {
		st.sent[name] = st.running[name]
	}
}

func (st *Stream) ack(url string, sub *subscription, b *flight.Batch) {
	st.site.Metrics.Answers.WithLabelValues(url, "ack").Inc()
	if b.Nonce == sub.trying {
		sub.trial.Taken()
		sub.trying = ""
	}
	for _, one := range b.Resources {
		st.record.Trust(one)
		switch url {
		case release.TypeCluster:
			st.thaw(one.Name)
			sub.good[one.Name] = one
			sub.runs[one.Name] = true
		case release.TypeRoute:
			st.running[one.Name], st.left = one, time.Now()
			delete(st.blind, one.Name)
		}
	}
}

// nack handles a refusal. Of a batch nobody knows what was taken: what its words
// do not blame goes again, and what they may blame goes on trial; alone, or
// named by the refusal, it is not sent again. A refused cluster stays in Envoy as
// a ghost that silences CDS, so it is taken back at once.
func (st *Stream) nack(url string, sub *subscription, b *flight.Batch, why string) {
	st.site.Metrics.Answers.WithLabelValues(url, "nack").Inc()
	if len(b.Resources) > 0 {
		for _, name := range b.Removed {
			if sub.held[name] == "" {
				sub.held[name], sub.todo[name] = ghost, true // its removal may have been refused along with the rest
			}
		}
	}
	var culprits []ledger.Refusal
	var others []string
	for _, one := range b.Resources {
		sub.todo[one.Name] = true
		newest := sub.held[one.Name] == one.Version // no other was sent meanwhile
		if len(b.Resources) > 1 && !refusals.Blames(why, one.Name) {
			st.record.Doubt(one)
			if newest {
				sub.held[one.Name] = doubtful
				others = append(others, one.Name)
			}
			continue
		}
		culprits = append(culprits, refusalOf(one))
		st.record.Add(url, one.Name, one.Version, why)
		if newest {
			st.takeBack(url, sub, one.Name, one.Version, b)
		}
	}
	for _, name := range st.judge(sub, b, others, len(culprits) > 0) {
		sub.parked[name], sub.todo[name] = why, true
	}
	st.site.Log.Error("client refused its config and keeps the last good one", "node", st.id, "type_url", url, "resource", strings.Join(namesOf(culprits), " "), "err", refusals.Clip(why))
	st.account.Refused(url, why, culprits)
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
func (st *Stream) takeBack(url string, sub *subscription, name, refused string, b *flight.Batch) {
	old, had := b.Before[name]
	switch {
	case url == release.TypeCluster && sub.good[name] != nil && sub.good[name].Version != refused:
		sub.held[name] = ghost
		sub.revert[name] = sub.good[name]
	case had && (old != doubtful || url != release.TypeCluster || sub.runs[name]):
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
		st.stepBack(name)
	}
}

// thaw ends the wait of routes for a cluster.
func (st *Stream) thaw(name string) {
	if _, waits := st.warming[name]; waits {
		delete(st.warming, name)
		st.thawed = true
	}
}
