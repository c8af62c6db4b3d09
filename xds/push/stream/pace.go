package stream

import (
	"maps"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"tollgate/xds/ledger"
	"tollgate/xds/push/view"
	"tollgate/xds/release"
)

// staleAgain is how often it is looked whether routes that are not known here
// have left something that is not served any more.
const staleAgain = 100 * time.Millisecond

// cdsWait is how long a client may leave out its CDS request: an Envoy that
// reconnects while a cluster warms sends none, and waits for ever.
const cdsWait = time.Second

// maxOwed bounds, beyond two for every resource that is served of a type, how
// many responses a client may leave without an answer.
const maxOwed = 1_000

// Alarm is when the stream must look again without being asked.
func (st *Stream) Alarm(now time.Time) time.Duration {
	st.mu.Lock()
	defer st.mu.Unlock()
	next := time.Hour
	if len(st.warming) > 0 {
		next = min(next, max(st.site.Hold-now.Sub(st.longest), time.Millisecond))
	}
	if st.unasked() {
		next = min(next, max(cdsWait-now.Sub(st.opened), time.Millisecond))
	}
	for url, sub := range st.subs {
		if len(sub.stale) > 0 {
			next = min(next, max(st.fades(url).Sub(now), staleAgain))
		}
		if due, owed := sub.flight.Due(); owed && sub.presses(url) {
			next = min(next, max(due.Sub(now), time.Millisecond))
		}
	}
	return next
}

// presses says whether an answer that does not come is taken for a response
// that was dropped. Answers for clusters wait until all are warm; what nobody
// asked for yet is not waited for, but for the group that others wait behind.
func (sub *subscription) presses(url string) bool {
	return sub.trying != "" || sub.met && url != release.TypeCluster
}

func (st *Stream) unasked() bool {
	return st.subs[release.TypeCluster] == nil && st.subs[release.TypeListener] != nil && st.subs[release.TypeListener].wildcard
}

// Next returns what to send now, in order.
func (st *Stream) Next(v *view.View, now time.Time) []*discoveryv3.DeltaDiscoveryResponse {
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
	for url, sub := range st.subs {
		st.press(url, sub, v, now)
	}
	st.mark(v, now)
	p := &plan{stream: st, view: v, now: now}
	for _, url := range view.Kinds() {
		p.kind(url)
	}
	st.report(v)
	return p.responses
}

// press gives up answers that do not come.
func (st *Stream) press(url string, sub *subscription, v *view.View, now time.Time) {
	if old := sub.flight.Trim(maxOwed + 2*len(v.All(st.audience, url))); url != release.TypeCluster {
		st.dropped(url, sub, old, nil)
	}
	due, owed := sub.flight.Due()
	switch {
	case !owed || now.Before(due) || !sub.presses(url):
	case url != release.TypeCluster:
		st.dropped(url, sub, sub.flight.Late(now), nil)
	default:
		sub.trial.Unanswered() // it warms, perhaps: the next group need not wait
		sub.trying = ""
	}
}

// report tells the account how far the client is.
func (st *Stream) report(v *view.View) {
	for url, sub := range st.subs {
		st.account.Waits(url, sub.flight.Oldest())
		settled := sub.flight.Len() == 0 && sub.trial.Over() && len(sub.refusing) == 0 && (url != release.TypeRoute || len(st.waiting) == 0)
		if settled && sub.reached != v.Number && v.Known(url) {
			st.account.Reached(url, v.Revision(url))
			sub.reached = v.Number
		}
	}
}

// Handed notes when the responses of a plan had all left.
func (st *Stream) Handed(planned time.Time) {
	st.mu.Lock()
	defer st.mu.Unlock()
	now := time.Now()
	for _, sub := range st.subs {
		sub.flight.Handed(planned, now)
	}
}

// Overdue returns the types whose answers are overdue, and of which of them that
// is news.
func (st *Stream) Overdue(now time.Time) (late, news []string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for url, sub := range st.subs {
		was := sub.late
		oldest := sub.flight.Oldest()
		sub.late = !oldest.IsZero() && now.Sub(oldest) > ledger.Overdue
		if sub.late {
			late = append(late, url)
		}
		if sub.late && !was {
			news = append(news, url)
		}
	}
	return late, news
}

// expire ends the waits that took too long. While 10,000 clusters warm, that
// many endpoints are answered: they are not all looked at each time.
func (st *Stream) expire(now time.Time) {
	if len(st.warming) == 0 || now.Sub(st.longest) < st.site.Hold {
		return
	}
	st.longest = now
	for name, since := range st.warming {
		if now.Sub(since) >= st.site.Hold {
			st.thaw(name)
		} else if since.Before(st.longest) {
			st.longest = since
		}
	}
}

// mark notes what must be compared: what changed since the last time, and what
// waited for something else.
func (st *Stream) mark(v *view.View, now time.Time) {
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
func (st *Stream) fades(url string) time.Time {
	switch {
	case view.Deciding(url):
		return st.opened.Add(st.site.Retire)
	case url != release.TypeCluster:
		return st.opened
	case st.left.After(st.opened):
		return st.left.Add(st.site.Drain)
	}
	return st.opened.Add(st.site.Drain)
}
