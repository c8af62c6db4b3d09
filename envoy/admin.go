package envoy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// adminClient asks the proxy's own admin address. Every call has a deadline
// and a bound on what it reads.
type adminClient struct {
	base string
	http *http.Client
}

func newAdminClient(address string) *adminClient {
	return &adminClient{base: "http://" + address, http: &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
}

func (c *adminClient) do(ctx context.Context, method, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 8<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("envoy's %s answered %d: %.200s", path, response.StatusCode, strings.TrimSpace(string(body)))
	}
	return body, nil
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

// activeRequests is what clients of all listeners still wait for; 0 when the
// proxy does not say.
func (c *adminClient) activeRequests(ctx context.Context) int {
	body, err := c.do(ctx, http.MethodGet, "/stats?format=json&filter=downstream_rq_active")
	if err != nil {
		return 0
	}
	var answer struct {
		Stats []struct {
			Name  string `json:"name"`
			Value int    `json:"value"`
		} `json:"stats"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0
	}
	total := 0
	for _, s := range answer.Stats {
		if strings.HasPrefix(s.Name, "http.") && !strings.HasPrefix(s.Name, "http.admin.") {
			total += s.Value
		}
	}
	return total
}
