// Package slot is what one client has of one name of a type, and of all names of
// a type together. Invariants: a name is in one state, and only the moves that are
// written here lead to another; what a client has in common with the view that it
// was compared with last costs it nothing, however many names that are.
package slot

import "tollgate/xds/release"

// Phase is where a client is with one name.
type Phase uint8

// The phases.
const (
	Nothing  Phase = iota // it has none of it
	Missing               // it asked, and was told that there is none
	Has                   // it has Version, or was sent it
	Doubtful              // it may run some version; none is known to be the one
	Ghost                 // it refused it, and must be told to drop it
)

// Slot is the state of one name. The zero value is that of a name of which
// nothing was ever said.
type Slot struct {
	Phase   Phase
	Asked   bool   // by name
	Claimed bool   // it brought it along, and that was not compared with a view yet
	Runs    bool   // it took some version
	Parked  bool   // it was on trial and is given up; Words are those of the refusal
	Version string // of Has
	Words   string

	Good   *release.Resource // the last that it took; of clusters only
	Revert *release.Resource // to be taken back, because the next was refused
}

// There says whether the client has, or had, anything of the name.
func (s Slot) There() bool { return s.Phase >= Has }

// At says whether the client has a version, or was sent it.
func (s Slot) At(version string) bool { return s.Phase == Has && s.Version == version }

// Prior is what a response takes the place of, for when it is refused.
type Prior struct {
	Phase   Phase
	Version string
}

// Prior is the part of the slot that sending changes.
func (s Slot) Prior() Prior { return Prior{s.Phase, s.Version} }

// Sent notes that a version is on its way.
func (s *Slot) Sent(version string) Prior {
	before := s.Prior()
	s.Phase, s.Version, s.Claimed, s.Revert = Has, version, false, nil
	return before
}

// Took notes that the client has taken a version of a cluster, the newest or not.
func (s *Slot) Took(one *release.Resource) { s.Good, s.Runs = one, true }

// Back notes that what was sent last did not get there.
func (s *Slot) Back(before Prior) {
	if before.Phase == Missing {
		before.Phase = Nothing
	}
	s.Phase, s.Version = before.Phase, before.Version
}

// Brought notes that the client says to have a version from an earlier stream; what
// it was sent on this one is newer.
func (s *Slot) Brought(version string) {
	if !s.There() && version != "" {
		s.Phase, s.Version, s.Claimed = Has, version, true
	}
}

// Doubt notes that what the client runs is not known.
func (s *Slot) Doubt() { s.Phase, s.Version = Doubtful, "" }

// Refused notes that it refused a version and has, or must be given, what is known
// to be good. A refused cluster stays in Envoy as a ghost until it is replaced.
func (s *Slot) Refused(version string, before Prior, ghosts bool) {
	switch {
	case ghosts && s.Good != nil && s.Good.Version != version:
		s.Haunt()
		s.Revert = s.Good
	case before.Phase >= Has && (before.Phase != Doubtful || !ghosts || s.Runs):
		s.Back(before)
	case ghosts:
		s.Haunt()
	default:
		s.Back(Prior{})
	}
}

// Haunt notes that it must be told to drop what it may have.
func (s *Slot) Haunt() { s.Phase, s.Version = Ghost, "" }

// Ask notes that it asked for the name; again when it has nothing of what it was
// sent before.
func (s *Slot) Ask(again bool) {
	if again && s.There() || s.Phase == Missing {
		s.Phase, s.Version = Nothing, ""
	}
	s.Asked = true
}

// Forget notes that it does not ask for the name any more; it keeps it if it wants all.
func (s *Slot) Forget(wantsAll bool) {
	s.Asked = false
	if s.Phase == Missing {
		s.Phase = Nothing
	}
	if !wantsAll {
		s.Lose()
	}
}

// Lose notes that it has nothing of the name any more.
func (s *Slot) Lose() {
	if s.Phase != Missing {
		s.Phase, s.Version = Nothing, ""
	}
	s.Claimed, s.Runs, s.Good = false, false, nil
}

// Told notes that it was told that there is none.
func (s *Slot) Told() {
	s.Lose()
	s.Phase = Missing
}

// Untold notes that it was not told, after all, that there is none.
func (s *Slot) Untold(wantsAll bool) {
	switch {
	case s.Asked && s.Phase == Missing:
		s.Phase = Nothing
	case !s.Asked && wantsAll && !s.There():
		s.Haunt()
	}
}
