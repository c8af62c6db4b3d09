package clientrate

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Denials are logged in full up to these rates, so that floods cannot fill a
// disk: at some 600 bytes a line 100 lines are 60 kB/s.
const (
	PerClient  = 10  // denials of one client a second
	AllClients = 100 // denials of all clients a second
)

// Sampler chooses the denials that are logged: the first PerClient of each
// client in each second, and no more than AllClients together. The others are
// counted. Its zero value is ready. It is safe for concurrent use.
type Sampler struct {
	clients Counter
	left    atomic.Uint64

	mu      sync.Mutex
	second  int64
	written int
	summary Summary
}

// Summary tells of the denials of a second that were not logged.
type Summary struct {
	Left  int        // how many
	Worst netip.Addr // the client with the most
	Count int        // how many that client had in that second, logged ones included
}

// Take says whether to log one more denial of this client. The summary is that
// of the last second in which some were left out, once; its Left is else 0.
func (s *Sampler) Take(client netip.Addr, now time.Time) (bool, Summary) {
	count, known := s.clients.Add(client, now)
	s.mu.Lock()
	defer s.mu.Unlock()
	var past Summary
	if second := now.Unix(); passed(s.second, second) {
		past = s.summary
		s.second, s.written, s.summary = second, 0, Summary{}
	}
	if known && count <= PerClient && s.written < AllClients {
		s.written++
		return true, past
	}
	s.left.Add(1)
	s.summary.Left++
	if count > s.summary.Count {
		s.summary.Worst, s.summary.Count = client, count
	}
	return false, past
}

// Left is how many were not logged since the start.
func (s *Sampler) Left() uint64 { return s.left.Load() }
