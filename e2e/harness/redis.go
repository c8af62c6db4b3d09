package harness

import (
	"net"
	"os"
	"os/exec"
	"time"
)

// Redis is a real redis-server with an empty store.
type Redis struct {
	*Process
	URL     string
	address string
}

// StartRedis starts TOLLGATE_REDIS_SERVER, else redis-server on PATH.
func StartRedis(t TB) *Redis {
	t.Helper()
	r := &Redis{address: FreeAddress(t)}
	r.URL = "redis://" + r.address + "/0"
	r.start(t)
	return r
}

// Restart starts the server again after Kill, on the same address, empty.
func (r *Redis) Restart(t TB) {
	t.Helper()
	r.Kill()
	r.start(t)
}

func (r *Redis) start(t TB) {
	t.Helper()
	path := os.Getenv("TOLLGATE_REDIS_SERVER")
	if path == "" {
		found, err := exec.LookPath("redis-server")
		if err != nil {
			t.Fatalf("no redis-server to test against: install it (scripts/tools) or set TOLLGATE_REDIS_SERVER")
		}
		path = found
	}
	host, port, _ := net.SplitHostPort(r.address)
	r.Process = Start(t, Command{Name: "redis", Path: path, Args: []string{"--bind", host, "--port", port, "--save", "", "--appendonly", "no", "--daemonize", "no"}})
	Eventually(t, 10*time.Second, "redis answers", func() error {
		c, err := net.DialTimeout("tcp", r.address, time.Second) //nolint:noctx // bounded by its timeout
		if err != nil {
			return err
		}
		return c.Close()
	})
}
