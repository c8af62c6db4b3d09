package envoy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"tollgate/internal/peer"
)

// adminClient asks the proxy's own admin address. Every call has a deadline
// and a bound on what it reads.
type adminClient struct{ http *http.Client }

const (
	adminTimeout = time.Second
	// A scrape of 2,500 clusters takes half a second of the proxy's main thread
	// (measured on 1.40).
	scrapeTimeout = 10 * time.Second
	maxAnswer     = 8 << 20
	maxScrape     = 64 << 20
)

func newAdminClient(address peer.Address) *adminClient {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return peer.Sockets{}.Dial(ctx, address.String())
	}
	return &adminClient{http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true, DisableCompression: true}}}
}

func (c *adminClient) do(ctx context.Context, method, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	response, err := c.open(ctx, method, path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	return io.ReadAll(io.LimitReader(response.Body, maxAnswer))
}

// open asks; an answer that is not 200 is an error.
func (c *adminClient) open(ctx context.Context, method, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer func() { _ = response.Body.Close() }()
		said, err := io.ReadAll(io.LimitReader(response.Body, 200))
		return nil, errors.Join(fmt.Errorf("envoy's %s answered %d: %q", path, response.StatusCode, strings.TrimSpace(string(said))), err)
	}
	return response, nil
}

// Metrics serves the proxy's own, which nobody else can ask for over its socket.
func (s *Supervisor) Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), scrapeTimeout)
		defer cancel()
		response, err := s.admin.open(ctx, http.MethodGet, "/stats/prometheus")
		if err != nil {
			http.Error(w, "envoy does not answer", http.StatusServiceUnavailable)
			s.cfg.Log.Warn("envoy's metrics could not be read", "err", err)
			return
		}
		defer func() { _ = response.Body.Close() }()
		w.Header().Set("Content-Type", response.Header.Get("Content-Type"))
		_, _ = io.Copy(w, io.LimitReader(response.Body, maxScrape)) // who asked is gone, or sees a cut
	})
}

func (c *adminClient) live(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodGet, "/ready")
	return err
}

func (c *adminClient) listeners(ctx context.Context) (int, error) {
	body, err := c.do(ctx, http.MethodGet, "/listeners?format=json")
	if err != nil {
		return 0, err
	}
	var answer struct {
		Listeners []json.RawMessage `json:"listener_statuses"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, fmt.Errorf("envoy's /listeners: %w", err)
	}
	return len(answer.Listeners), nil
}

// hosts counts the hosts of each cluster that take requests.
func (c *adminClient) hosts(ctx context.Context) (map[string]int, error) {
	body, err := c.do(ctx, http.MethodGet, "/clusters?format=json")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Clusters []struct {
			Name  string `json:"name"`
			Hosts []struct {
				Health struct {
					EDS        string `json:"eds_health_status"`
					FailedHC   bool   `json:"failed_active_health_check"`
					FirstCheck bool   `json:"pending_active_hc"`
				} `json:"health_status"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("envoy's /clusters: %w", err)
	}
	counts := map[string]int{}
	for _, cluster := range answer.Clusters {
		for _, host := range cluster.Hosts {
			if host.Health.EDS == "HEALTHY" && !host.Health.FailedHC && !host.Health.FirstCheck {
				counts[cluster.Name]++
			}
		}
	}
	return counts, nil
}

func (c *adminClient) drain(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodPost, "/drain_listeners?graceful")
	return err
}

func (c *adminClient) reopenLogs(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodPost, "/reopen_logs")
	return err
}

// stopListening closes the sockets on which clients connect; who is connected stays.
func (c *adminClient) stopListening(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodPost, "/drain_listeners")
	return err
}

// load is what clients of all listeners make the proxy hold.
type load struct{ Connections, Connected, Requests int }

// load counts open connections, those ever opened, and requests without an answer.
func (c *adminClient) load(ctx context.Context) (load, error) {
	body, err := c.do(ctx, http.MethodGet, "/stats?format=json&filter=%5Ehttp%5C..*%5C.downstream_%28rq_active%7Ccx_active%7Ccx_total%29%24")
	if err != nil {
		return load{}, err
	}
	var answer struct {
		Stats []struct {
			Name  string `json:"name"`
			Value int    `json:"value"`
		} `json:"stats"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return load{}, fmt.Errorf("envoy's /stats: %w", err)
	}
	var l load
	for _, s := range answer.Stats {
		if strings.HasPrefix(s.Name, "http.admin.") {
			continue
		}
		switch {
		case strings.HasSuffix(s.Name, ".downstream_cx_active"):
			l.Connections += s.Value
		case strings.HasSuffix(s.Name, ".downstream_cx_total"):
			l.Connected += s.Value
		case strings.HasSuffix(s.Name, ".downstream_rq_active"):
			l.Requests += s.Value
		}
	}
	return l, nil
}
