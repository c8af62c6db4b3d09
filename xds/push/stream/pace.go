package stream

import (
	"time"

	"tollgate/xds/ledger"
	"tollgate/xds/push/view"
	"tollgate/xds/push/wire"
	"tollgate/xds/release"
)

// staleAgain is how often it is looked whether routes that are not known here
// have left something that is not served any more.
const staleAgain = 100 * time.Millisecond

// cdsWait is how long a client may leave out its CDS request: an Envoy that
// reconnects while a cluster warms sends none, and waits for ever.
const cdsWait = time.Second

// maxWithheld is how many responses a client may leave without an answer where it
// may withhold them until all is warm, which it does for at most withheld.
// Elsewhere the flight says how many go at a time.
const (
	maxWithheld = 16
	withheld    = 20 * time.Second
)

// Alarm is when the stream must look again without being asked.
func (st *Stream) Alarm(now time.Time) time.Duration {
	st.mu.Lock()
	defer st.mu.Unlock()
	next := time.Hour
	if due, any := st.warming.Due(st.site.Hold); any {
		next = min(next, max(due.Sub(now), time.Millisecond))
	}
	if sub := st.subs[release.TypeCluster]; sub != nil && sub.todo.Any() && sub.room() == 0 {
		next = min(next, max(withheld-now.Sub(sub.flight.Oldest()), time.Second))
	}
	if st.unasked() {
		next = min(next, max(cdsWait-now.Sub(st.opened), time.Millisecond))
	}
	for _, sub := range st.subs {
		if len(sub.stale) > 0 {
			next = min(next, max(st.fades(sub).Sub(now), staleAgain))
		}
		if due, owed := sub.flight.Due(); owed && sub.presses() {
			next = min(next, max(due.Sub(now), time.Millisecond))
		}
	}
	return next
}

// presses says whether an answer that does not come is taken for a response
// that was dropped. Answers for clusters wait until all are warm; what nobody
// asked for yet is not waited for, but for the group that others wait behind.
func (sub *subscription) presses() bool { return sub.trying != "" || sub.met && !sub.Withheld }

func (st *Stream) unasked() bool {
	return st.subs[release.TypeCluster] == nil && st.subs[release.TypeListener] != nil && st.subs[release.TypeListener].wildcard
}

// Next returns what to send now, in order.
func (st *Stream) Next(now time.Time) []*wire.Response {
	st.mu.Lock()
	defer st.mu.Unlock()
	v := st.site.Current()
	if st.id == "" || v.Number == 0 {
		return nil
	}
	if st.unasked() && now.Sub(st.opened) >= cdsWait {
		kind, _ := release.KindOf(release.TypeCluster)
		sub := st.subscription(kind)
		sub.wildcard, sub.answered, sub.rescan = true, true, true
	}
	st.warming.Expire(st.site.Hold, now)
	for _, sub := range st.subs {
		st.press(sub, now)
	}
	st.mark(v, now)
	p := &plan{stream: st, view: v, now: now}
	for _, kind := range release.Kinds() {
		p.kind(kind)
	}
	st.report(v)
	return p.responses
}

// Follow notes what changed and what is over for a client that does not read, so
// that it keeps no old view.
func (st *Stream) Follow(now time.Time) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.warming.Expire(st.site.Hold, now)
	if v := st.site.Current(); st.id != "" && v.Number > st.planned+maxBehind {
		st.mark(v, now)
	}
}

// maxBehind is how many views a client may lag before its account is moved on
// without it.
const maxBehind = 8

// press gives up answers that do not come.
func (st *Stream) press(sub *subscription, now time.Time) {
	if sub.Withheld && sub.flight.Len() >= maxWithheld && now.Sub(sub.flight.Oldest()) > withheld {
		sub.flight.Trim(maxWithheld - 1)
	}
	due, owed := sub.flight.Due()
	switch {
	case !owed || now.Before(due) || !sub.presses():
	case !sub.Withheld:
		st.dropped(sub, sub.flight.Late(now), nil)
	default:
		sub.trial.Unanswered() // it warms, perhaps: the next group need not wait
		sub.trying = ""
	}
}

// report tells the account how far the client is.
func (st *Stream) report(v *view.View) {
	for url, sub := range st.subs {
		st.owes(sub)
		idle := sub.flight.Len() == 0 && len(sub.queue)+len(sub.clusters) == 0 && sub.trial.Over()
		if v.Known(url) {
			sub.slots.Weigh(v.All(st.audience, url), idle)
		}
		settled := idle && len(sub.refusing) == 0 && (url != release.TypeRoute || len(st.waiting) == 0)
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

// Overdue returns whether the client owes any answer, the types whose answers are
// overdue, and of which of them that is news.
func (st *Stream) Overdue(now time.Time) (owes bool, late, news []string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	look := func(url string, since time.Time, said *bool) {
		was := *said
		*said = !since.IsZero() && now.Sub(since) > ledger.Overdue
		owes = owes || !since.IsZero()
		if *said {
			late = append(late, url)
		}
		if *said && !was {
			news = append(news, url)
		}
	}
	for url, sub := range st.subs {
		look(url, sub.flight.Oldest(), &sub.late)
	}
	for url, t := range st.whole {
		look(url, t.waits, &t.late)
	}
	return owes, late, news
}

// mark notes what must be compared: what changed since the last time, and what
// waited for something else.
func (st *Stream) mark(v *view.View, now time.Time) {
	for url, sub := range st.subs {
		if v.Number != st.planned {
			names, ok := v.Since(st.planned, view.Section{Audience: st.audience, URL: url})
			if !ok {
				names, sub.rescan = nil, true
			} else if names == nil {
				names = []string{}
			}
			for _, name := range sub.slots.Move(v.All(st.audience, url), names) {
				sub.todo.Add(name)
			}
		}
		if len(sub.stale) > 0 && !now.Before(st.fades(sub)) {
			sub.todo.All(sub.stale)
		}
	}
	st.planned = v.Number
	if sub := st.subs[release.TypeRoute]; sub != nil && st.warming.Ended() {
		sub.todo.All(st.waiting)
	}
}

// fades is when a client may lose what it brought from an earlier stream and
// what is not served any more: routes of others may still name it, and its own
// do until it has taken new ones.
func (st *Stream) fades(sub *subscription) time.Time {
	switch {
	case sub.Deciding:
		return st.opened.Add(st.site.Retire)
	case sub.URL != release.TypeCluster:
		return st.opened
	case st.routes.Left().After(st.opened):
		return st.routes.Left().Add(st.site.Drain)
	}
	return st.opened.Add(st.site.Drain)
}
