package engine

import "time"

// Calendar is what fixed windows are aligned to, in UTC.
type Calendar uint8

// The calendars.
const (
	Epoch Calendar = iota // multiples of the window's length since the Unix epoch
	Week                  // from Monday to Monday
	Month                 // from the first to the first
)

const (
	day  = 24 * time.Hour
	week = 7 * day

	dayMicros  = int64(day / time.Microsecond)
	weekMicros = int64(week / time.Microsecond)
	// firstMonday is 1970-01-05: the epoch began on a Thursday.
	firstMonday = 4 * dayMicros
)

// window returns the start of the fixed window of an instant and that of the
// next one, all in microseconds since the epoch.
func (r Rate) window(at int64) (start, end int64) {
	switch r.Calendar {
	case Month:
		first := firstOfMonth(at / dayMicros)
		// The first and 31 days is the 1st to the 4th of the next month.
		return first * dayMicros, firstOfMonth(first+31) * dayMicros
	case Week:
		start = at - (at-firstMonday)%weekMicros
		return start, start + weekMicros
	case Epoch:
	}
	length := r.Window.Microseconds()
	start = at - at%length
	return start, start + length
}

// firstOfMonth returns the day on which the month of a day begins, both counted
// from the epoch. It is the day of the month of the proleptic Gregorian calendar
// by Hinnant's days-to-civil arithmetic (years that begin in March, so that the
// leap day is the last), which a Redis script computes the same way.
func firstOfMonth(at int64) int64 {
	const toMarchOfYear0, era = 719_468, 146_097
	ofEra := (at + toMarchOfYear0) % era
	year := (ofEra - ofEra/1460 + ofEra/36_524 - ofEra/146_096) / 365
	ofYear := ofEra - (365*year + year/4 - year/100)
	month := (5*ofYear + 2) / 153
	return at - (ofYear - (153*month+2)/5)
}
