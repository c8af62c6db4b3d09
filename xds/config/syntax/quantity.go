package syntax

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	day     = 24 * time.Hour
	maxSpan = 3650 * day
)

// Span is a duration: 250ms, 5s, 1h, 365d.
type Span time.Duration

// UnmarshalText reads a duration above zero.
func (s *Span) UnmarshalText(text []byte) error {
	d, err := duration(string(text))
	if err != nil {
		return err
	}
	if d <= 0 || d > maxSpan {
		return fmt.Errorf("must be above 0 and at most 3650d, not %q", text)
	}
	*s = Span(d)
	return nil
}

// D is the duration.
func (s Span) D() time.Duration { return time.Duration(s) }

func duration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * day, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || text == "0" {
		return 0, fmt.Errorf("must be a duration such as 250ms, 5s, 1h or 365d, not %q", text)
	}
	return d, nil
}

// SpanOrNone is a duration, or none.
type SpanOrNone time.Duration

// UnmarshalText reads a duration or none, which is 0.
func (s *SpanOrNone) UnmarshalText(text []byte) error {
	if string(text) == none {
		*s = 0
		return nil
	}
	return (*Span)(s).UnmarshalText(text)
}

// Window is the time that a limit counts over: second, minute, hour, day, week,
// month, or a duration. The length of a month is 30 days in name only.
type Window struct {
	Unit   string // "" for a duration
	Length time.Duration
}

// UnmarshalText reads a unit or a duration of at least a second.
func (w *Window) UnmarshalText(text []byte) error {
	w.Unit = string(text)
	switch w.Unit {
	case "second":
		w.Length = time.Second
	case "minute":
		w.Length = time.Minute
	case "hour":
		w.Length = time.Hour
	case "day":
		w.Length = day
	case "week":
		w.Length = 7 * day
	case "month":
		w.Length = 30 * day
	default:
		w.Unit = ""
		var s Span
		if err := s.UnmarshalText(text); err != nil || s.D() < time.Second || s.D() > 366*day || s.D()%time.Second != 0 {
			return fmt.Errorf("must be second, minute, hour, day, week, month, or whole seconds such as 10s up to 366d, not %q", text)
		}
		w.Length = s.D()
	}
	return nil
}

// Bytes is a size: 512B, 64KiB, 10MiB, 1GiB, or none, which is 0.
type Bytes int64

// UnmarshalText reads a size above zero, or none.
func (b *Bytes) UnmarshalText(text []byte) error {
	if string(text) == none {
		*b = 0
		return nil
	}
	number, unit := string(text), int64(0)
	for _, u := range []struct {
		suffix string
		factor int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}} {
		if head, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = head, u.factor
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || unit == 0 || n <= 0 {
		return fmt.Errorf("must be a size such as 512B, 64KiB or 10MiB, or none, not %q", text)
	}
	if n > (1<<32-1)/unit {
		return fmt.Errorf("must be below 4GiB, not %q", text)
	}
	*b = Bytes(n * unit)
	return nil
}

// Share is a percentage: 20%, 0.5%.
type Share float64

// UnmarshalText reads a percentage from 0 to 100.
func (s *Share) UnmarshalText(text []byte) error {
	number, ok := strings.CutSuffix(string(text), "%")
	f, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(f >= 0 && f <= 100) {
		return fmt.Errorf("must be a percentage from 0%% to 100%%, such as 20%%, not %q", text)
	}
	*s = Share(f)
	return nil
}
