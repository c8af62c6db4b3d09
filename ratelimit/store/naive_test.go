package store_test

import (
	"context"
	"math/big"
	"time"

	"pgregory.net/rapid"

	"tollgate/ratelimit/engine"
	"tollgate/ratelimit/store"
)

// The oracle of limits: what the manual says, written down in the plainest way
// and sharing nothing with the engine. A window is found with the time package,
// a bucket holds a rational number of tokens.

// wanted is a limit as its author wrote it.
type wanted struct {
	limit    uint64
	window   time.Duration
	calendar engine.Calendar // of a fixed window: Week and Month are not of window's length
	burst    uint64          // 0: fixed windows
}

// rate is what is tested.
func (w wanted) rate(t fataler) engine.Rate {
	t.Helper()
	var r engine.Rate
	var err error
	switch {
	case w.burst > 0:
		r, err = engine.NewGCRA(w.limit, w.window, w.burst)
	case w.calendar != engine.Epoch:
		r, err = engine.NewCalendar(w.limit, w.calendar)
	default:
		r, err = engine.NewFixed(w.limit, w.window)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

type fataler interface {
	Helper()
	Fatal(args ...any)
}

// windowOf returns where the window of an instant begins and ends.
func (w wanted) windowOf(at time.Time) (begins, ends time.Time) {
	at = at.UTC()
	midnight := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC)
	switch w.calendar {
	case engine.Month:
		begins = midnight.AddDate(0, 0, 1-at.Day())
		return begins, begins.AddDate(0, 1, 0)
	case engine.Week:
		for begins = midnight; begins.Weekday() != time.Monday; begins = begins.AddDate(0, 0, -1) {
		}
		return begins, begins.AddDate(0, 0, 7)
	case engine.Epoch:
	}
	epoch := time.Unix(0, 0).UTC()
	begins = epoch.Add(at.Sub(epoch) / w.window * w.window)
	return begins, begins.Add(w.window)
}

// price is what one request costs in time, in whole nanoseconds, for the benefit
// of the upstream.
func (w wanted) price() int64 {
	price := int64(w.window) / int64(w.limit)
	if int64(w.window)%int64(w.limit) > 0 {
		price++
	}
	return price
}

// book is one counter of the oracle.
type book struct {
	begins time.Time // fixed: the window that used was counted in
	used   int64
	tokens *big.Rat // gcra: what the bucket held at
	at     time.Time
}

// naive is the oracle: a counter a key.
type naive struct {
	wants map[string]wanted
	books map[string]*book
}

func newNaive(wants map[string]wanted) *naive { return &naive{wants, map[string]*book{}} }

// bucket returns what a bucket holds at an instant if nothing is taken, more
// than fits included.
func (n *naive) bucket(key string, at time.Time) *big.Rat {
	w := n.wants[key]
	b := n.books[key]
	if b == nil { // full since ever
		b = &book{tokens: new(big.Rat).SetUint64(w.burst), at: time.Unix(0, 0)}
	}
	gained := big.NewRat(int64(at.Sub(b.at)), w.price())
	return gained.Add(gained, b.tokens)
}

func between(low, x, high *big.Rat) *big.Rat {
	switch {
	case x.Cmp(low) < 0:
		return new(big.Rat).Set(low)
	case x.Cmp(high) > 0:
		return new(big.Rat).Set(high)
	}
	return x
}

// look returns a counter as it stands at an instant. A clock that stepped back
// by so much that it stands more than a window before its counters writes them
// down anew, so that they refuse for a window and not until it has come so far
// again.
func (n *naive) look(key string, at time.Time) book {
	w, b := n.wants[key], n.books[key]
	if w.burst > 0 {
		full := new(big.Rat).SetUint64(w.burst)
		holds := n.bucket(key, at)
		now := book{tokens: between(new(big.Rat), holds, full), at: at}
		if holds.Sign() < 0 {
			n.books[key] = &now
		}
		return now
	}
	begins, ends := w.windowOf(at)
	switch {
	case b == nil || b.begins.Before(begins):
		return book{begins: begins}
	case b.begins.After(ends):
		n.books[key] = &book{begins: begins, used: b.used}
		return *n.books[key]
	}
	return *b
}

// fits reports whether a counter has room; to ask for nothing is to ask whether
// there is room for one.
func (n *naive) fits(key string, b book, cost uint64) bool {
	asked := new(big.Rat).SetUint64(max(cost, 1))
	if w := n.wants[key]; w.burst == 0 {
		left := new(big.Rat).SetUint64(w.limit)
		return asked.Cmp(left.Sub(left, big.NewRat(b.used, 1))) <= 0
	}
	return asked.Cmp(b.tokens) <= 0
}

// take decides a request: all of its counters admit it, or none moves.
func (n *naive) take(at time.Time, cells []engine.Cell) (readings []engine.Reading, admitted bool) {
	admitted = true
	books, fits := make([]book, len(cells)), make([]bool, len(cells))
	for i, c := range cells {
		books[i] = n.look(c.Key, at)
		fits[i] = n.fits(c.Key, books[i], c.Cost)
		admitted = admitted && (fits[i] || c.Shadow)
	}
	for i, c := range cells {
		if b := &books[i]; admitted && fits[i] && c.Cost > 0 {
			if b.used += int64(c.Cost); b.tokens != nil {
				b.tokens = new(big.Rat).Sub(b.tokens, new(big.Rat).SetUint64(c.Cost))
			}
			n.books[c.Key] = b
		}
		readings = append(readings, n.reading(c, books[i], at, fits[i]))
	}
	return readings, admitted
}

// reading is what a client is told.
func (n *naive) reading(c engine.Cell, b book, at time.Time, fits bool) engine.Reading {
	w := n.wants[c.Key]
	r := engine.Reading{Known: true, Allowed: fits}
	if w.burst == 0 {
		_, ends := w.windowOf(b.begins)
		r.Remaining, r.Reset = uint64(max(int64(w.limit)-b.used, 0)), ends.Sub(at)
		if !fits {
			r.RetryAfter = r.Reset
		}
		return r
	}
	after := func(tokens *big.Rat) time.Duration { // how long they take to come
		ns := new(big.Rat).Mul(tokens, big.NewRat(w.price(), 1))
		return time.Duration(ns.Num().Int64()) // price nanoseconds a token: a whole number
	}
	whole := new(big.Int).Quo(b.tokens.Num(), b.tokens.Denom())
	full := new(big.Rat).SetUint64(w.burst)
	r.Remaining, r.Reset = whole.Uint64(), after(new(big.Rat).Sub(full, b.tokens))
	if asked := max(c.Cost, 1); !fits && asked > w.burst {
		r.RetryAfter = after(full) // never fits
	} else if !fits {
		r.RetryAfter = after(new(big.Rat).Sub(new(big.Rat).SetUint64(asked), b.tokens))
	}
	return r
}

// pay books a debt: hits that were counted elsewhere, whatever the limit says.
func (n *naive) pay(at time.Time, d store.Debt) {
	w, b := n.wants[d.Key], n.look(d.Key, at)
	mark := time.UnixMicro(d.Mark).UTC()
	if w.burst == 0 {
		if b.begins.Equal(mark) {
			b.used = max(b.used+d.Hits, 0)
			n.books[d.Key] = &b
		}
		return
	}
	holds := n.bucket(d.Key, at)
	holds.Sub(holds, big.NewRat(d.Hits, 1))
	if until := big.NewRat(int64(mark.Sub(at)), w.price()); d.Hits > 0 {
		most := until.Sub(new(big.Rat).SetUint64(w.burst), until)
		if holds.Cmp(most) > 0 {
			holds = most
		}
	}
	b.tokens = between(new(big.Rat), holds, new(big.Rat).SetUint64(w.burst))
	n.books[d.Key] = &b
}

// drawWants is any mix of limits.
func drawWants(t *rapid.T) map[string]wanted {
	wants := map[string]wanted{}
	windows := rapid.SampledFrom([]time.Duration{100 * time.Millisecond, time.Second, 7 * time.Second, time.Minute, 24 * time.Hour})
	for _, key := range []string{"a", "b", "c", "d", "e"}[:rapid.IntRange(1, 5).Draw(t, "keys")] {
		w := wanted{limit: rapid.Uint64Range(1, 12).Draw(t, "limit"), window: windows.Draw(t, "window")}
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			w.calendar = engine.Week
		case 1:
			w.calendar = engine.Month
		case 2, 3:
			w.burst = rapid.Uint64Range(1, 12).Draw(t, "burst")
		}
		wants[key] = w
	}
	return wants
}

// drawCells is one request: some of the limits, each at its own cost.
func drawCells(t *rapid.T, wants map[string]wanted, name string, shadow string) []engine.Cell {
	var cells []engine.Cell
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		if w, ok := wants[key]; ok && rapid.IntRange(0, 3).Draw(t, "use") > 0 {
			cost := rapid.SampledFrom([]uint64{0, 1, 1, 1, 2, 3, 13, 1 << 53, 1 << 63}).Draw(t, "cost")
			cells = append(cells, engine.Cell{Key: name + key, Rule: key, Rate: w.rate(t), Cost: cost, Shadow: key == shadow})
		}
	}
	return cells
}

// drawStep is how far the clock goes until the next request, back as well.
func drawStep(t *rapid.T) time.Duration {
	long := []time.Duration{time.Millisecond, time.Second, time.Minute, time.Hour, 24 * time.Hour, 40 * 24 * time.Hour}
	far := int64(rapid.SampledFrom(long[:rapid.IntRange(1, len(long)).Draw(t, "reach")]).Draw(t, "about") / time.Microsecond)
	step := rapid.Int64Range(0, far).Draw(t, "step")
	if rapid.IntRange(0, 7).Draw(t, "back") == 0 {
		step = -step
	}
	return time.Duration(step) * time.Microsecond
}

// named are the same limits under names that no other run uses.
func named(wants map[string]wanted, name string) map[string]wanted {
	out := map[string]wanted{}
	for key, w := range wants {
		out[name+key] = w
	}
	return out
}

// agree fails unless a store and the oracle say the same of every counter.
func agree(t *rapid.T, who string, at time.Time, cells []engine.Cell, want, got []engine.Reading) {
	t.Helper()
	for i := range cells {
		if want[i] != got[i] {
			t.Fatalf("%s at %s, cell %d of %+v:\nnaive %+v\ngot   %+v", who, at.UTC(), i, cells, want[i], got[i])
		}
	}
}

// askBoth has a store and the oracle decide the same request.
func askBoth(t *rapid.T, who string, s store.Store, oracle *naive, at time.Time, cells []engine.Cell) {
	t.Helper()
	got, err := s.Take(context.Background(), at, cells)
	if err != nil {
		t.Fatal(err)
	}
	want, admitted := oracle.take(at, cells)
	agree(t, who, at, cells, want, got)
	if engine.Admitted(cells, got) != admitted {
		t.Fatalf("%s at %s: admitted %v, naive says %v", who, at, !admitted, admitted)
	}
}
