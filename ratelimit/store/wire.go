package store

import (
	"encoding/binary"
	"fmt"
	"math"

	"tollgate/ratelimit/engine"
)

// packed is a trip as the script reads it.
type packed struct {
	keys     []string
	cells    []counterOf // of each key
	counters []byte
	requests []byte
}

// counterOf is what stands behind a key of a trip.
type counterOf struct {
	key, rule string
	rate      engine.Rate
}

// The kinds of counters, as the script numbers them.
const (
	kindFixed = float64(iota)
	kindWeek
	kindMonth
	kindGCRA
)

func packTrip(trip Trip) packed {
	cells := len(trip.Debts)
	for _, request := range trip.Requests {
		cells += len(request)
	}
	w := packed{
		keys: make([]string, 0, cells), cells: make([]counterOf, 0, cells),
		counters: make([]byte, 0, cells*5*8), requests: make([]byte, 0, 8*(len(trip.Requests)+3*cells)),
	}
	place := make(map[string]int, cells)
	for _, d := range trip.Debts {
		w.counter(place, d.Key, "", &d.Rate, d)
	}
	for _, request := range trip.Requests {
		w.requests = number(w.requests, float64(len(request)))
		for i := range request {
			c := &request[i]
			n, known := place[c.Key]
			if !known {
				n = w.counter(place, c.Key, c.Rule, &c.Rate, Debt{})
			} else if w.cells[n-1].rule == "" {
				w.cells[n-1].rule = c.Rule
			}
			// A cost that no limit can hold needs no exact number, but a
			// float64 must hold it.
			w.requests = number(w.requests, float64(n))
			w.requests = number(w.requests, float64(min(c.Cost, engine.MaxLimit+1)))
			if c.Shadow {
				w.requests = number(w.requests, 1)
			} else {
				w.requests = number(w.requests, 0)
			}
		}
	}
	return w
}

// counter adds a key and returns its number, as Lua counts.
func (w *packed) counter(place map[string]int, key, rule string, rate *engine.Rate, d Debt) int {
	kind, x, y := kindFixed, float64(rate.Limit), float64(rate.Window.Microseconds())
	switch {
	case rate.Algorithm == engine.GCRA:
		kind, x, y = kindGCRA, float64(rate.Interval), float64(rate.Tolerance)
	case rate.Calendar == engine.Week:
		kind = kindWeek
	case rate.Calendar == engine.Month:
		kind = kindMonth
	}
	w.keys = append(w.keys, KeyPrefix+key)
	w.cells = append(w.cells, counterOf{key: key, rule: rule, rate: *rate})
	for _, n := range [...]float64{kind, x, y, float64(d.Hits), float64(d.Mark)} {
		w.counters = number(w.counters, n)
	}
	place[key] = len(w.keys)
	return len(w.keys)
}

func number(b []byte, n float64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(n))
}

// read returns what the script said.
func (w *packed) read(trip Trip, answer string) (Settled, error) {
	cells := (len(w.requests)/8 - len(trip.Requests)) / 3
	if want := 8 * (1 + 2*len(w.keys) + 3*cells); len(answer) != want {
		return Settled{}, fmt.Errorf("redis: %d bytes in an answer that has %d: is another version of the script in use?", len(answer), want)
	}
	next := func() float64 {
		n := math.Float64frombits(binary.LittleEndian.Uint64([]byte(answer[:8])))
		answer = answer[8:]
		return n
	}
	settled := Settled{Now: int64(next()), Readings: make([][]engine.Reading, len(trip.Requests)), Counters: make(map[string]Remembered, len(w.keys))}
	for _, c := range w.cells {
		settled.Counters[c.key] = Remembered{Rate: c.rate, Rule: c.rule, State: state(&c.rate, next(), next())}
	}
	room := make([]engine.Reading, cells)
	for i, request := range trip.Requests {
		settled.Readings[i], room = room[:len(request):len(request)], room[len(request):]
		for j := range request {
			c := &request[j]
			fits, a, b := next() == 1, next(), next()
			settled.Readings[i][j] = c.Rate.Read(state(&c.Rate, a, b), settled.Now, c.Cost, fits)
		}
	}
	return settled, nil
}

func state(r *engine.Rate, a, b float64) engine.State {
	if r.Algorithm == engine.GCRA {
		return engine.State{Mark: int64(a)*1000 + int64(b)}
	}
	return engine.State{Mark: int64(a), Used: uint64(b)}
}
