package ledger

import "time"

// kept is how many events of a stream are remembered.
const kept = 64

// What happened.
const (
	Sent    = "sent"    // a response is handed to the connection
	Taken   = "taken"   // the client took one
	Denied  = "refused" // the client refused one
	Dropped = "dropped" // nothing was heard of one for too long, or it was passed over
)

// Event is one thing that happened between us and a client.
type Event struct {
	At        time.Time     `json:"at"`
	Stream    int           `json:"stream"` // of this node, from 1: the oldest that is remembered
	Type      string        `json:"type"`
	What      string        `json:"what"`
	Resources int           `json:"resources"`
	Resource  string        `json:"resource,omitempty"` // the first of them
	Removed   int           `json:"removed,omitempty"`
	Took      time.Duration `json:"took_ns,omitempty"` // from sent to answered; clusters are answered when all are warm
	Why       string        `json:"why,omitempty"`     // the client's words, cut and redacted
}

// ring is the newest events of one stream. It grows as it fills: most streams are
// short, or have little to tell.
type ring struct {
	events []Event
	n      int // that there ever were
}

func (r *ring) add(e Event) {
	if len(r.events) < kept {
		r.events = append(r.events, e)
	} else {
		r.events[r.n%kept] = e
	}
	r.n++
}

// all are the events, oldest first.
func (r *ring) all() []Event {
	var all []Event
	for i := max(r.n-kept, 0); i < r.n; i++ {
		all = append(all, r.events[i%kept])
	}
	return all
}

// Note notes an event; its time is now, and its words are made fit to be shown.
func (a *Account) Note(e Event) {
	if a == nil {
		return
	}
	if e.Why != "" {
		e.Why = redact(e.Why)
	}
	a.ledger.mu.Lock()
	defer a.ledger.mu.Unlock()
	e.At = a.ledger.now()
	a.events.add(e)
}

// Events are the last 64 of each stream of a node, oldest first, those of a
// stream that ended not long ago included; none are known of another node.
func (l *Ledger) Events(node string) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget()
	events, stream := []Event{}, 0
	for _, a := range l.accounts {
		if a.node != printable(node) {
			continue
		}
		stream++
		for _, e := range a.events.all() {
			e.Stream, e.Type, e.Resource = stream, short(e.Type), printable(e.Resource)
			events = append(events, e)
		}
	}
	return events
}
