package store

import (
	"context"
	"crypto/rand"
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

//go:embed settle.lua
var settleScript string

//go:embed beat.lua
var beatScript string

// aliveFor is how long a limiter that is not heard of counts as one: a few
// beats.
const aliveFor = 5 * time.Second

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

// DefaultTimeout is the most that one trip to Redis takes. Callers do not wait
// for so long: see Failover.
const DefaultTimeout = time.Second

// dialTimeout outlives a request: a TLS handshake may take longer than it.
const dialTimeout = time.Second

// Redis counts in a Redis server that all limiters share. A trip is one script,
// tried once: a second try could count it twice.
type Redis struct {
	client redis.UniversalClient
	settle *redis.Script
	beat   *redis.Script
	name   string // of this limiter among those that share Redis
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
	return &Redis{
		client: redis.NewClient(options), settle: redis.NewScript(settleScript), beat: redis.NewScript(beatScript),
		name: rand.Text(), clock: cfg.Clock,
	}, nil
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
	settled, err := r.Settle(ctx, Trip{Requests: [][]engine.Cell{cells}})
	if err != nil {
		return nil, err
	}
	return settled.Readings[0], nil
}

// Settle decides a trip by Redis's clock.
func (r *Redis) Settle(ctx context.Context, trip Trip) (Settled, error) {
	w := packTrip(trip)
	now := ""
	if r.clock != nil {
		now = strconv.FormatInt(r.clock().UnixMicro(), 10)
	}
	answer, err := r.settle.Run(ctx, r.client, w.keys, now, w.counters, w.requests).Text()
	if err != nil {
		return Settled{}, fmt.Errorf("redis: %w", err)
	}
	return w.read(trip, answer)
}

// Beat tells Redis that this limiter lives.
func (r *Redis) Beat(ctx context.Context) (int, error) {
	n, err := r.beat.Run(ctx, r.client, []string{KeyPrefix + "limiters"}, r.name, aliveFor.Microseconds()).Int()
	if err != nil {
		return 0, fmt.Errorf("redis: %w", err)
	}
	return n, nil
}
