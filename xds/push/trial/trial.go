// Package trial finds out which resources of a refused batch a client can take,
// when its words name none. Invariants: one group is on trial at a time; a group
// that is refused is halved; a client that takes nothing at all is found out
// after at most about twice as many responses as the batch can be halved, and is
// sent no more of it.
package trial

import "slices"

// stubborn is how many resources a client refuses one by one, and takes none,
// before it is held to refuse everything.
const stubborn = 3

// Trial is that of one client and type. The zero value is ready.
type Trial struct {
	groups  [][]string // the last is next
	testing []string
	took    bool // something, since the batch was refused
	alone   int  // refused by themselves since
}

// Suspect puts names on trial that were refused together.
func (t *Trial) Suspect(names []string) {
	if t.Over() {
		t.took, t.alone = false, 0
	}
	t.halve(names)
}

func (t *Trial) halve(names []string) {
	half := len(names) / 2
	for _, group := range [][]string{names[half:], names[:half]} {
		if len(group) > 0 {
			t.groups = append(t.groups, group)
		}
	}
}

// Join adds names of which nothing is known to be wrong: they go together.
func (t *Trial) Join(names []string) {
	if len(names) > 0 {
		t.groups = append(t.groups, names)
	}
}

// Next returns the names to send now, together; nil while a group is being
// tried, or when none is left.
func (t *Trial) Next() []string {
	if t.testing != nil || len(t.groups) == 0 {
		return nil
	}
	last := len(t.groups) - 1
	// Who has taken nothing yet is asked about others than the neighbours of what
	// it refused last.
	if t.alone > 0 && !t.took && len(t.groups[0]) > 1 {
		far := len(t.groups[0]) - 1
		t.testing, t.groups[0] = t.groups[0][far:], t.groups[0][:far]
		return t.testing
	}
	if t.alone > 0 && !t.took {
		last = 0
	}
	t.testing = t.groups[last]
	t.groups = slices.Delete(t.groups, last, last+1)
	return t.testing
}

// Taken ends the try of a group that the client took.
func (t *Trial) Taken() { t.testing, t.took = nil, true }

// Unanswered ends the try of a group of which nothing is heard.
func (t *Trial) Unanswered() { t.testing = nil }

// Refused ends the try of a group that was refused; unclear are those in it
// whom no words blame. It returns the names that are not to be sent any more:
// all that are left, of a client that takes nothing.
func (t *Trial) Refused(unclear []string) (hopeless []string) {
	single := len(t.testing) == 1 || len(unclear) < len(t.testing)
	t.testing = nil
	if !single {
		t.halve(unclear)
		return nil
	}
	if t.alone++; t.took || t.alone < stubborn {
		t.Join(unclear)
		return nil
	}
	hopeless = unclear
	for _, group := range t.groups {
		hopeless = append(hopeless, group...)
	}
	t.groups = nil
	return hopeless
}

// Waits are the names that wait for their turn; nil when there are none.
func (t *Trial) Waits() map[string]bool {
	if len(t.groups) == 0 {
		return nil
	}
	waits := map[string]bool{}
	for _, group := range t.groups {
		for _, name := range group {
			waits[name] = true
		}
	}
	return waits
}

// Over says whether nothing is on trial.
func (t *Trial) Over() bool { return t.testing == nil && len(t.groups) == 0 }
