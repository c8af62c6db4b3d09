// Package registry announces an instance to the control planes. Invariant: a
// control plane hears from one goroutine for each service, in order, so a late
// "up" can never follow a "draining".
package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"tollgate/api/contract"
)

// Timing of the contract.
const (
	interval     = 3 * time.Second
	ttl          = 10 * time.Second
	retryFirst   = 100 * time.Millisecond
	drainDelay   = time.Second // for proxies to hear of it before anything closes
	beatTimeout  = 500 * time.Millisecond
	leaveTimeout = 300 * time.Millisecond
)

// Config says where to announce what.
type Config struct {
	URLs      []string          // admin addresses of the control planes; may be empty
	TLS       *tls.Config       // says who we are, so that no token is sent; nil: the token does
	TokenFile string            // read before every request, so it may come later or change
	Instance  string            // unique within a service
	Zone      string            // may be empty
	Weight    uint32            // 0 means 1
	Services  map[string]string // service name → host:port of this instance
	Log       *slog.Logger
}

// Client announces one instance.
type Client struct {
	cfg  Config
	http *http.Client
}

// New checks the addresses.
func New(cfg Config) (*Client, error) {
	for _, u := range cfg.URLs {
		parsed, err := url.Parse(u)
		if err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
			return nil, fmt.Errorf("registry %q: write the control plane's admin address as http://host:port", u)
		}
	}
	if cfg.Weight == 0 {
		cfg.Weight = 1
	}
	return &Client{cfg: cfg, http: &http.Client{
		Transport: &http.Transport{TLSClientConfig: cfg.TLS, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second},
		// The token is for this address alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Run announces the instance until ctx ends; then it says "draining", gives
// the proxies a second, leaves and returns.
func (c *Client) Run(ctx context.Context) error {
	defer c.http.CloseIdleConnections()
	var wg sync.WaitGroup
	for _, base := range c.cfg.URLs {
		for service, address := range c.cfg.Services {
			target := strings.TrimSuffix(base, "/") + "/v1/registry/" + url.PathEscape(service) + "/" + url.PathEscape(c.cfg.Instance)
			wg.Go(func() { c.announce(ctx, target, address) })
		}
	}
	<-ctx.Done()
	delay := time.NewTimer(drainDelay)
	defer delay.Stop()
	<-delay.C
	wg.Wait()
	return nil
}

func (c *Client) announce(ctx context.Context, target, address string) {
	failing := false
	retry := retryFirst
	for ctx.Err() == nil {
		wait := interval
		// Not cancelled by ctx: an "up" cut short could be handled after the
		// "draining" that follows it.
		err := c.put(context.WithoutCancel(ctx), target, address, contract.StateUp, beatTimeout)
		switch {
		case err != nil:
			if !failing {
				c.cfg.Log.Warn("registration refused", "resource", target, "err", err)
			}
			failing, wait = true, retry
			retry = min(2*retry, interval)
		case failing:
			c.cfg.Log.Info("registration restored", "resource", target)
			failing, retry = false, retryFirst
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	c.leave(context.WithoutCancel(ctx), target, address)
}

func (c *Client) leave(ctx context.Context, target, address string) {
	left := time.After(drainDelay)
	if err := c.put(ctx, target, address, contract.StateDraining, leaveTimeout); err != nil {
		c.cfg.Log.Debug("draining not told", "resource", target, "err", err)
	}
	<-left
	if err := c.send(ctx, http.MethodDelete, target, nil, leaveTimeout); err != nil {
		c.cfg.Log.Debug("leaving not told", "resource", target, "err", err)
	}
}

func (c *Client) put(ctx context.Context, target, address, state string, timeout time.Duration) error {
	body, err := json.Marshal(contract.Registration{
		Address: address, Weight: c.cfg.Weight, Zone: c.cfg.Zone, State: state, TTL: int(ttl / time.Second),
	})
	if err != nil {
		return err
	}
	return c.send(ctx, http.MethodPut, target, body, timeout)
}

func (c *Client) send(ctx context.Context, method, target string, body []byte, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if c.cfg.TokenFile != "" && c.cfg.TLS == nil {
		token, err := os.ReadFile(c.cfg.TokenFile)
		if err != nil {
			return fmt.Errorf("registry token: %w: the control plane writes it into its data directory at start", err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 512))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return errors.New(resp.Status + ": " + strings.TrimSpace(string(text)))
	}
	return nil
}
