package clientrate

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
)

// longest is how many bytes of a value a line about a caller may have.
const longest = 128

// Log is a logger for lines that callers cause: they are sampled by the
// caller's address (see Sampler), and values are printable and cut, so that
// nobody fills a disk by being refused. What is left out is counted and told.
type Log struct {
	*slog.Logger
	sampler *Sampler
}

// NewLog returns a logger onto log. Lines name the caller by the attribute key,
// an address with or without its port; those that do not are one caller's.
func NewLog(log *slog.Logger, key string) *Log {
	h := &handler{inner: log.Handler(), key: key, sampler: &Sampler{}}
	return &Log{Logger: slog.New(h), sampler: h.sampler}
}

// Register counts what is left out, of one part of the process; nil: nowhere.
func (l *Log) Register(r prometheus.Registerer, part string) error {
	if r == nil {
		return nil
	}
	return r.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "tollgate_refusals_not_logged_total", Help: "Refused callers that are not in the log, being beyond what a caller or all of them may fill.",
		ConstLabels: prometheus.Labels{"part": part},
	}, func() float64 { return float64(l.sampler.Left()) }))
}

type handler struct {
	inner   slog.Handler
	key     string
	sampler *Sampler
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.inner.Enabled(ctx, level)
}

// Handle hands a line on, or leaves it out.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	var caller netip.Addr
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == h.key {
			caller = addressOf(a.Value.String())
		}
		return a.Key != h.key
	})
	take, past := h.sampler.Take(caller, r.Time)
	if past.Left > 0 {
		told := slog.NewRecord(r.Time, slog.LevelInfo, "callers that were refused are not in the log", r.PC)
		told.AddAttrs(slog.Int("count", past.Left), slog.String("worst_client", past.Worst.String()), slog.Int("worst_count", past.Count))
		if err := h.inner.Handle(ctx, told); err != nil {
			return err
		}
	}
	if !take {
		return nil
	}
	short := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		short.AddAttrs(slog.Attr{Key: a.Key, Value: cut(a.Value)})
		return true
	})
	return h.inner.Handle(ctx, short)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := *h
	out.inner = h.inner.WithAttrs(attrs)
	return &out
}

func (h *handler) WithGroup(name string) slog.Handler {
	out := *h
	out.inner = h.inner.WithGroup(name)
	return &out
}

func addressOf(text string) netip.Addr {
	if at, err := netip.ParseAddrPort(text); err == nil {
		text = at.Addr().String()
	}
	return Client(text)
}

// cut makes text of everything that is not a number.
func cut(v slog.Value) slog.Value {
	switch v = v.Resolve(); v.Kind() {
	case slog.KindString, slog.KindAny:
		return slog.StringValue(printable(v.String()))
	default:
		return v
	}
}

func printable(text string) string {
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != '"' && r != '\\' {
			return r
		}
		return '?'
	}, text)
}
