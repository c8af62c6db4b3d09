package e2e_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tollgate/e2e/compose"
	"tollgate/e2e/harness"
	"tollgate/e2e/traffic"
)

// startCompose runs docker-compose.yml as it is shipped.
func startCompose(t *testing.T, env ...string) *compose.Project {
	t.Helper()
	redis, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal(err)
	}
	cli, err := exec.LookPath("redis-cli")
	if err != nil {
		t.Fatal(err)
	}
	envoy, err := filepath.EvalSymlinks(harness.EnvoyPath(t))
	if err != nil {
		t.Fatal(err)
	}
	p := compose.Load(t, filepath.Join(harness.Root(t), "docker-compose.yml"), map[string]string{
		"/usr/local/bin/tollgate": harness.Tollgate(t), "/usr/local/bin/envoy": envoy,
		"/usr/local/bin/redis-server": redis, "/usr/local/bin/redis-cli": cli,
	})
	p.Up(3*time.Minute, env...)
	return p
}

// documented is the line of a page that begins so; what it says is what runs.
func documented(t *testing.T, file, begin string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(harness.Root(t), file))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^[ #]*` + regexp.QuoteMeta(begin) + `(.*)$`).FindSubmatch(data)
	if line == nil {
		t.Fatalf("%s does not say %q", file, begin)
	}
	return strings.Fields(strings.ReplaceAll(begin+string(line[1]), "'", ""))
}

// TestCompose: docker-compose.yml as it is shipped gives a first 200 with a key
// made as documented, loses nothing when one of anything stops or dies while
// every certificate is renewed each few seconds, finishes what was accepted when
// all stop, and shows no service what is not its own.
func TestCompose(t *testing.T) {
	t.Parallel() // others wait, mostly
	if !compose.Isolated(t) {
		return
	}
	// Half the life of a certificate is 12 s here: all are renewed while this runs.
	p := startCompose(t, "TOLLGATE_CERTIFICATE_TTL=24s")
	words := documented(t, "docker-compose.yml", "docker compose exec xds-1 ")
	out, err := p.Service(words[3]).Exec(t.Context(), words[4:]...)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	key := strings.TrimSpace(out)
	url := func(proxy, path string) string {
		return fmt.Sprintf("http://%s:8080%s", p.Service(proxy).Address, path)
	}
	for _, proxy := range []string{"envoy-1", "envoy-2"} {
		harness.Eventually(t, time.Minute, "a first 200 from "+proxy, func() error {
			return gives(url(proxy, "/api/orders"), withKey(key), http.StatusOK)
		})
		// Each authorization server reads the key for itself, within a second.
		harness.Eventually(t, 10*time.Second, "every authorization server knows the key", func() error {
			for range 6 {
				if err := gives(url(proxy, "/api/orders"), withKey(key), http.StatusOK); err != nil {
					return err
				}
			}
			return nil
		})
		if err := gives(url(proxy, "/api/orders"), nil, http.StatusUnauthorized); err != nil {
			t.Error(err)
		}
		if err := gives(url(proxy, "/healthz"), nil, http.StatusOK); err != nil {
			t.Error(err)
		}
	}
	time.Sleep(1100 * time.Millisecond) // the other authorization server reads the key file within a second
	// A tool of this test looks at the volumes; a container sees no more of them.
	ownSecrets(t, p)

	path := "/api/orders/_whoami"
	during := func(name string, proxy string, do func()) {
		load := traffic.Start(traffic.Load{
			Request: traffic.Request{URL: url(proxy, path), Header: withKey(key)}, Rate: 8, Duration: time.Minute, Timeout: 10 * time.Second,
		})
		time.Sleep(300 * time.Millisecond)
		do()
		time.Sleep(time.Second)
		clean(t, name, load.Stop(), okOnly)
	}
	for _, name := range []string{"xds-1", "extauthz-1", "ratelimit-1", "order-1", "user-1"} {
		during(name+" stopped and started", "envoy-1", func() {
			p.Stop(name)
			p.Start(name, "TOLLGATE_CERTIFICATE_TTL=24s")
			time.Sleep(time.Second)
		})
	}
	for _, name := range []string{"xds-2", "extauthz-2", "ratelimit-2", "order-2", "user-2", "envoy-2", "redis"} {
		path = "/api/orders/_whoami"
		if name == "user-2" {
			path = "/api/users/_whoami"
		}
		during(name+" killed", "envoy-1", func() { p.Service(name).Kill() })
		during(name+" back", "envoy-1", func() { p.Start(name, "TOLLGATE_CERTIFICATE_TTL=24s") })
	}
	for name, path := range map[string]string{"order-2": "/api/orders/_whoami", "user-2": "/api/users/_whoami"} {
		harness.Eventually(t, time.Minute, name+" is asked again", func() error {
			a := traffic.Request{URL: url("envoy-1", path), Header: withKey(key)}.Do(t, nil)
			time.Sleep(100 * time.Millisecond)
			if by := a.Header.Get("x-served-by"); a.Status != http.StatusOK || by != name {
				return fmt.Errorf("%d by %q", a.Status, by)
			}
			return nil
		})
	}
	harness.Eventually(t, time.Minute, "the proxy that was killed serves again", func() error {
		return gives(url("envoy-2", "/api/orders"), withKey(key), http.StatusOK)
	})
	path = "/api/orders/_whoami"
	during("the other proxy stopped", "envoy-1", func() { p.Stop("envoy-2"); p.Start("envoy-2") })
	harness.Eventually(t, time.Minute, "the other proxy serves again", func() error {
		return gives(url("envoy-2", "/api/orders"), withKey(key), http.StatusOK)
	})
	if n := strings.Count(p.Service("envoy-1").Log(), "certificate in use"); n < 2 {
		t.Errorf("envoy-1 has had %d certificates", n)
	}

	accepted := make(chan error, 16)
	for i := range cap(accepted) {
		go func() {
			accepted <- slowPost(t.Context(), url([]string{"envoy-1", "envoy-2"}[i%2], "/api/orders"), key)
		}()
	}
	time.Sleep(500 * time.Millisecond)
	p.Down()
	for range cap(accepted) {
		if err := <-accepted; err != nil {
			t.Errorf("a request that was accepted before all stopped: %v", err)
		}
	}
}

func gives(url string, header map[string]string, want int) error {
	request, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	for name, value := range header {
		request.Header.Set(name, value)
	}
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if response.StatusCode != want {
		return fmt.Errorf("%s: %d %s, want %d", url, response.StatusCode, body, want)
	}
	return nil
}

// slowPost sends an order whose last bytes come a second and a half late.
func slowPost(ctx context.Context, url, key string) error {
	r, w := io.Pipe()
	go func() {
		w.Write([]byte(`{"user_id":"nobody","item":"tea",`))
		time.Sleep(1500 * time.Millisecond)
		w.Write([]byte(`"amount_cents":100}`))
		w.Close()
	}()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, r)
	if err != nil {
		return err
	}
	request.Header.Set("X-Api-Key", key)
	request.Header.Set("Content-Type", "application/json")
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	// Nobody is not a user; the answer is the service's own.
	if response.StatusCode >= http.StatusInternalServerError || response.StatusCode == http.StatusUnauthorized {
		return fmt.Errorf("%d %s", response.StatusCode, body)
	}
	return nil
}

// ownSecrets: the CA's key and the tokens' are the control planes', the signing
// key the authorization servers', the keys' hashes both's, a member's key its own.
func ownSecrets(t *testing.T, p *compose.Project) {
	t.Helper()
	owners := map[string][]string{
		"ca/1.pem": {"xds", "tokens"}, "join.key": {"xds", "tokens"}, "registry.token": {"xds", "tokens"}, "admin.token": {"xds", "tokens", "extauthz", "ratelimit", "envoy"},
		"identity.key": {"extauthz"}, "keys.yaml": {"xds", "extauthz"}, "identity.pem": nil,
	}
	seen := map[string]bool{}
	for _, name := range p.Named() {
		kind := strings.TrimRight(name, "-0123456789")
		for _, volume := range p.Service(name).Volumes() {
			err := filepath.WalkDir(p.Volume(volume), func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				for secret, who := range owners {
					if !strings.HasSuffix(path, "/"+secret) {
						continue
					}
					seen[secret] = true
					own := secret == "identity.pem" && (strings.HasPrefix(volume, kind) || volume == name || (kind == "envoy" && strings.HasPrefix(volume, "edge")) || kind == "tokens")
					if !own && !slices.Contains(who, kind) {
						t.Errorf("%s sees %s of volume %s", name, secret, volume)
					}
				}
				return nil
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		}
	}
	for _, secret := range []string{"ca/1.pem", "join.key", "identity.key", "keys.yaml", "identity.pem"} {
		if !seen[secret] {
			t.Errorf("nobody has %s: the test looks in the wrong place", secret)
		}
	}
}

// TestControlPlanesTogether: two control planes that start at once on one folder
// have one CA, from their first handshake on.
func TestControlPlanesTogether(t *testing.T) {
	for range 5 {
		dir := harness.TempDir(t)
		file := filepath.Join(dir, "gateway.yaml")
		if err := os.WriteFile(file, []byte("version: 1\nlisteners: [{name: http, address: \"127.0.0.1:1\"}]\nroutes: [{name: ok, match: {path: {prefix: /}}, auth: public, respond: {status: 200}}]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var planes []*harness.Process
		for range 2 {
			planes = append(planes, harness.Start(t, harness.Command{Name: "xds", Path: harness.Tollgate(t), Args: []string{
				"xds", "--json", "-f", file, "--data-dir", filepath.Join(dir, "state"), "--xds-address", "0.0.0.0:0", "--admin-address", "127.0.0.1:0",
			}}))
		}
		var roots [][]byte
		for _, p := range planes {
			p.AwaitReady(t, 20*time.Second)
			_, port, err := net.SplitHostPort(p.Ready.Address)
			if err != nil {
				t.Fatal(err)
			}
			c, err := tls.Dial("tcp", "127.0.0.1:"+port, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
			if err != nil {
				t.Fatal(err)
			}
			shown := c.ConnectionState().PeerCertificates
			roots = append(roots, shown[len(shown)-1].Raw)
			c.Close()
		}
		if !bytes.Equal(roots[0], roots[1]) {
			t.Fatal("two control planes of one folder have two CAs")
		}
		for _, p := range planes {
			p.Kill()
		}
	}
}
