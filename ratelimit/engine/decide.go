package engine

// OnError is what a limit does when its store fails.
type OnError uint8

// What a limit does when its store fails.
const (
	Local  OnError = iota // count in the limiter's own memory
	Open                  // admit
	Closed                // refuse
)

// Cell is one counter that a request touches. The cells of a request have
// distinct keys.
type Cell struct {
	Key     string
	Rule    string // names the limit that the key belongs to, for bounds on its keys
	Rate    Rate
	Cost    uint64 // 0 asks whether one hit would fit, and takes nothing
	Shadow  bool   // decided and counted, never refuses
	OnError OnError
}

// Decide settles one request at now (microseconds since the epoch). states and
// readings have the length of cells. It reports whether every enforced cell
// admits the request; only then do counters move, and a shadow that would have
// refused stays where it is, as it would if it were enforced.
func Decide(now int64, cells []Cell, states []State, readings []Reading) bool {
	admitted := true
	for i := range cells {
		c := &cells[i]
		states[i] = c.Rate.At(states[i], now)
		_, fits := c.Rate.take(states[i], now, c.Cost)
		readings[i].Allowed = fits
		admitted = admitted && (fits || c.Shadow)
	}
	for i := range cells {
		c := &cells[i]
		if admitted {
			states[i], _ = c.Rate.take(states[i], now, c.Cost)
		}
		readings[i] = c.Rate.Read(states[i], now, c.Cost, readings[i].Allowed)
	}
	return admitted
}

// Admitted reports whether readings admit their request.
func Admitted(cells []Cell, readings []Reading) bool {
	for i := range cells {
		if !readings[i].Allowed && !cells[i].Shadow {
			return false
		}
	}
	return true
}
