package store

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"tollgate/ratelimit/engine"
)

// KeyPrefix begins every key in Redis. It is also the hash tag: in a cluster
// all counters live in one slot, which is what all-or-nothing over several of
// them takes.
const KeyPrefix = "{tollgate}:limit:"

//go:embed take.lua
var takeScript string

// RedisConfig is how to reach Redis.
type RedisConfig struct {
	URL string // redis://, rediss:// or unix://
	// Clock, when set, is used in place of Redis's own. All limiters that
	// share counters must then agree on the time, so it is for tests.
	Clock func() time.Time
	// OpTimeout bounds every read, write and wait for a connection; a call's
	// context may be shorter. 0 means DefaultTimeout.
	OpTimeout time.Duration
	// Log, when set, takes what the client library would write to stderr.
	Log *slog.Logger
}

// DefaultTimeout is the most that one decision waits for Redis. A caller's
// deadline makes it shorter: see Failover.
const DefaultTimeout = 200 * time.Millisecond

// dialTimeout outlives a request: a TLS handshake may take longer than it.
const dialTimeout = time.Second

// Redis counts in a Redis server that all limiters share. A request is one
// script, tried once: a second try could count it twice.
type Redis struct {
	client redis.UniversalClient
	script *redis.Script
	clock  func() time.Time
}

// NewRedis returns a store; it does not connect before the first request, so
// a Redis that is down does not keep a limiter from starting.
func NewRedis(cfg RedisConfig) (*Redis, error) {
	options, err := redis.ParseURL(cfg.URL)
	if err != nil {
		// The error of ParseURL may quote the URL, and the URL holds a password.
		return nil, errors.New("--redis-url: not the URL of a Redis server: write redis://[user:password@]host:port[/db], rediss://… for TLS, or unix:///path")
	}
	if cfg.OpTimeout == 0 {
		cfg.OpTimeout = DefaultTimeout
	}
	if cfg.Log != nil {
		redis.SetLogger(clientLog{cfg.Log})
	}
	options.MaxRetries = -1
	options.DialerRetries = 1
	options.DialTimeout = dialTimeout
	options.ReadTimeout = cfg.OpTimeout
	options.WriteTimeout = cfg.OpTimeout
	options.PoolTimeout = cfg.OpTimeout
	options.ContextTimeoutEnabled = true
	options.DisableIdentity = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return &Redis{client: redis.NewClient(options), script: redis.NewScript(takeScript), clock: cfg.Clock}, nil
}

// clientLog keeps the library's complaints out of stderr: every failure comes
// back as an error too, so they are for debugging.
type clientLog struct{ log *slog.Logger }

// Printf logs one complaint.
func (l clientLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "redis client", "err", fmt.Sprintf(format, v...))
}

// Close closes the connections.
func (r *Redis) Close() error { return r.client.Close() }

// Take decides one request by Redis's clock; now is not used.
func (r *Redis) Take(ctx context.Context, _ time.Time, cells []engine.Cell) ([]engine.Reading, error) {
	keys := make([]string, len(cells))
	args := make([]any, 1, 1+len(cells))
	args[0] = ""
	if r.clock != nil {
		args[0] = r.clock().UnixMicro()
	}
	for i := range cells {
		keys[i] = KeyPrefix + cells[i].Key
		args = append(args, words(&cells[i]))
	}
	answer, err := r.script.Run(ctx, r.client, keys, args...).Int64Slice()
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	if len(answer) != 1+3*len(cells) {
		return nil, fmt.Errorf("redis: %d numbers in the answer to %d cells: is another version of the script in use?", len(answer), len(cells))
	}
	return readAnswer(cells, answer), nil
}

// words is a cell as the script reads it.
func words(c *engine.Cell) string {
	algorithm, x, y := byte('f'), c.Rate.Limit, uint64(c.Rate.Window.Microseconds())
	if c.Rate.Algorithm == engine.GCRA {
		algorithm, x, y = 'g', uint64(c.Rate.Interval), uint64(c.Rate.Tolerance)
	}
	w := append(make([]byte, 0, 48), algorithm, ' ')
	// A cost that no limit can hold needs no exact number, but a float64 must
	// hold it.
	w = append(strconv.AppendUint(w, min(c.Cost, engine.MaxLimit+1), 10), ' ')
	w = append(strconv.AppendUint(w, x, 10), ' ')
	w = append(strconv.AppendUint(w, y, 10), ' ')
	if c.Shadow {
		return string(append(w, '1'))
	}
	return string(append(w, '0'))
}

func readAnswer(cells []engine.Cell, answer []int64) []engine.Reading {
	readings := make([]engine.Reading, len(cells))
	now := answer[0]
	for i := range cells {
		allowed, a, b := answer[1+3*i] == 1, answer[2+3*i], answer[3+3*i]
		state := engine.State{Mark: a, Used: uint64(b)}
		if cells[i].Rate.Algorithm == engine.GCRA {
			state = engine.State{Mark: a*1000 + b}
		}
		readings[i] = cells[i].Rate.Read(state, now, cells[i].Cost, allowed)
	}
	return readings
}
