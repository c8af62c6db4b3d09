// Package flight keeps the responses of one type that a client has not answered
// yet. Invariants: a client answers in the order in which it was sent to, so what
// it passed over it has dropped; a client that says nothing for as long as its
// patience is taken to have dropped everything; what is kept is bounded.
package flight

import (
	"slices"
	"time"

	"tollgate/xds/push/slot"
	"tollgate/xds/release"
)

const (
	// Patience is how long a response may stay without an answer, and the client
	// silent about its type, before it counts as dropped. It doubles with every
	// time that it was for nothing, to at most longest.
	Patience = 2 * time.Second
	longest  = 30 * time.Second

	// initial is how many responses may be on their way to a client of which nothing
	// is known. Each answer makes it one more, up to most: as many as one that is
	// far away can take in the time of an answer. One that says nothing starts again.
	initial = 64
	most    = 2_048
)

// Batch is one response on its way. Its fields are read-only once it is sent.
type Batch struct {
	Nonce     string
	Resources []*release.Resource
	Removed   []string
	// before is what the resources take the place of, in their order; nil when it
	// is nothing, as for all of a client that starts.
	before []slot.Prior

	at time.Time
}

// Took is how long the answer has taken by now.
func (b *Batch) Took(now time.Time) time.Duration { return now.Sub(b.at) }

// Note notes what the i-th resource takes the place of, for when it is refused.
func (b *Batch) Note(i int, before slot.Prior) {
	if b.before == nil && before != (slot.Prior{}) {
		b.before = make([]slot.Prior, len(b.Resources))
	}
	if b.before != nil {
		b.before[i] = before
	}
}

// Before is what the i-th resource took the place of.
func (b *Batch) Before(i int) slot.Prior {
	if b.before == nil {
		return slot.Prior{}
	}
	return b.before[i]
}

// Has says whether a resource of that name is in it.
func (b *Batch) Has(name string) bool {
	return b != nil && slices.ContainsFunc(b.Resources, func(one *release.Resource) bool { return one.Name == name })
}

// Flight is what is on its way, oldest first. The zero value is ready.
type Flight struct {
	batches  []*Batch
	heard    time.Time // when the client last answered
	patience time.Duration
	answers  int // since it last said nothing for too long, as far as they count
}

// Room is how many responses may be added.
func (f *Flight) Room() int { return max(initial+f.answers-len(f.batches), 0) }

func (f *Flight) hear(now time.Time) {
	f.heard, f.patience, f.answers = now, Patience, min(f.answers+1, most-initial)
}

// Add notes a response that is being sent.
func (f *Flight) Add(b *Batch, now time.Time) {
	b.at = now
	f.batches = append(f.batches, b)
}

// Handed notes that all that was added since an earlier time has left only now:
// a client that reads slowly is not late with its answers.
func (f *Flight) Handed(since, now time.Time) {
	for _, b := range slices.Backward(f.batches) {
		if b.at.Before(since) {
			return
		}
		b.at = now
	}
}

// Answer takes what the client said of a nonce out of the flight, with all that
// it passed over; b is nil when nothing of that nonce is on its way.
func (f *Flight) Answer(nonce string, now time.Time) (b *Batch, passed []*Batch) {
	i := slices.IndexFunc(f.batches, func(b *Batch) bool { return b.Nonce == nonce })
	if i < 0 {
		return nil, nil
	}
	f.hear(now)
	taken := f.first(i + 1)
	return taken[i], taken[:i]
}

// Take is Answer for a type whose answers a client may withhold, so that what it
// passed over is still on its way.
func (f *Flight) Take(nonce string, now time.Time) *Batch {
	i := slices.IndexFunc(f.batches, func(b *Batch) bool { return b.Nonce == nonce })
	if i < 0 {
		return nil
	}
	f.hear(now)
	b := f.batches[i]
	if f.batches = slices.Delete(f.batches, i, i+1); len(f.batches) == 0 {
		f.batches = nil
	}
	return b
}

// Late takes out what counts as dropped because nothing was heard of it.
func (f *Flight) Late(now time.Time) []*Batch {
	if due, any := f.Due(); !any || now.Before(due) {
		return nil
	}
	f.patience, f.answers = min(2*f.wait(), longest), 0
	n := 0
	for n < len(f.batches) && now.Sub(f.batches[n].at) >= Patience {
		n++
	}
	return f.first(n)
}

// Due is when Late is going to have something; any is false when nothing is on
// its way.
func (f *Flight) Due() (due time.Time, any bool) {
	if len(f.batches) == 0 {
		return time.Time{}, false
	}
	from := f.batches[0].at
	if f.heard.After(from) {
		from = f.heard
	}
	return from.Add(f.wait()), true
}

func (f *Flight) wait() time.Duration { return max(f.patience, Patience) }

// Trim takes out the oldest beyond limit.
func (f *Flight) Trim(limit int) []*Batch {
	return f.first(max(len(f.batches)-limit, 0))
}

// first takes out the n oldest, so that nothing keeps them.
func (f *Flight) first(n int) []*Batch {
	if n == 0 {
		return nil
	}
	taken := slices.Clone(f.batches[:n])
	clear(f.batches[:n])
	if f.batches = f.batches[n:]; len(f.batches) == 0 {
		f.batches = nil
	}
	return taken
}

// Carries returns which of some names are in a response on its way.
func (f *Flight) Carries(names map[string]struct{}) map[string]bool {
	if len(names) == 0 {
		return nil
	}
	carried := map[string]bool{}
	for _, b := range f.batches {
		for _, one := range b.Resources {
			if _, asked := names[one.Name]; asked {
				carried[one.Name] = true
			}
		}
	}
	return carried
}

// Removes are the names whose removal is on its way; nil when there are none.
func (f *Flight) Removes() map[string]bool {
	var names map[string]bool
	for _, b := range f.batches {
		for _, name := range b.Removed {
			if names == nil {
				names = map[string]bool{}
			}
			names[name] = true
		}
	}
	return names
}

// All are the responses on their way, oldest first; they must not be changed.
func (f *Flight) All() []*Batch { return f.batches }

// Len is how many responses are on their way.
func (f *Flight) Len() int { return len(f.batches) }

// Oldest is when the first of them was sent; the zero time when there is none.
func (f *Flight) Oldest() time.Time {
	if len(f.batches) == 0 {
		return time.Time{}
	}
	return f.batches[0].at
}
