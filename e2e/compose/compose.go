// Package compose runs a compose project without an engine: each service is a
// process in a network, mount and file-system namespace of its own, on one
// bridge, with a DNS server that answers service names. It takes commands,
// environment, volumes, dependencies, health checks and stop signals from the
// file. Invariants: it does nothing to the machine outside its own namespaces,
// and nothing it started outlives the test; what it cannot do is a failure,
// never left out.
package compose

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"tollgate/e2e/harness"
)

// inside marks the process that runs in the namespaces.
const inside = "E2E_INSIDE_NAMESPACES"

// Isolated runs the calling test again in namespaces of its own, where it
// returns true; outside it returns false when that has passed.
func Isolated(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
		os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: this test needs root, unshare (util-linux) and ip (iproute2)\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}

// Project is a compose file that runs.
type Project struct {
	t        *testing.T
	dir      string // of volumes and roots
	bin      map[string]string
	project  *types.Project
	services map[string]*Service
	started  []string

	mu   sync.Mutex
	runs map[string]*harness.Process // who answers to a name
}

// Service is one that was started.
type Service struct {
	*harness.Process
	Name    string
	Address netip.Addr
	spec    types.ServiceConfig
	image   image
	root    string
}

// Load reads the file at path; bin says which program stands for a program of
// the images, by its path there.
func Load(t *testing.T, path string, bin map[string]string) *Project {
	t.Helper()
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: filepath.Dir(path), ConfigFiles: []types.ConfigFile{{Filename: path}},
	}, func(o *loader.Options) { o.SetProjectName("tollgate", true) })
	if err != nil {
		t.Fatal(err)
	}
	p := &Project{t: t, dir: t.TempDir(), bin: bin, project: project, services: map[string]*Service{}, runs: map[string]*harness.Process{}}
	images, err := images(filepath.Join(filepath.Dir(path), "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	p.network()
	for i, name := range p.order() {
		spec := project.Services[name]
		s := &Service{Name: name, Address: netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 2)}), spec: spec, root: filepath.Join(p.dir, "root", name)}
		if spec.Build != nil {
			known := false
			if s.image, known = images[spec.Build.Target]; !known {
				t.Fatalf("service %s: Dockerfile has no target %q", name, spec.Build.Target)
			}
		}
		p.services[name] = s
		p.plug(s, i)
	}
	p.serveNames()
	return p
}

// order are the services, each behind those that it depends on.
func (p *Project) order() []string {
	var out []string
	var visit func(name string)
	visit = func(name string) {
		if slices.Contains(out, name) {
			return
		}
		on := p.project.Services[name].DependsOn
		for _, dependency := range sorted(on) {
			visit(dependency)
		}
		out = append(out, name)
	}
	for _, name := range sorted(p.project.Services) {
		visit(name)
	}
	return out
}

func sorted[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// Up starts all services, each when its dependencies are as it wants them, and
// waits until those with a health check are healthy.
func (p *Project) Up(within time.Duration, env ...string) {
	p.t.Helper()
	until := time.Now().Add(within)
	for _, name := range p.order() {
		for _, on := range sorted(p.services[name].spec.DependsOn) {
			p.await(name, on, p.services[name].spec.DependsOn[on].Condition, until)
		}
		p.Start(name, env...)
	}
	for _, name := range p.started {
		if p.services[name].spec.HealthCheck != nil {
			p.await("the test", name, types.ServiceConditionHealthy, until)
		}
	}
}

func (p *Project) await(who, on, condition string, until time.Time) {
	p.t.Helper()
	s := p.services[on]
	for {
		var err error
		switch condition {
		case types.ServiceConditionCompletedSuccessfully:
			if s.Alive() {
				err = fmt.Errorf("%s still runs", on)
			} else if code := s.ExitCode(); code != 0 {
				p.t.Fatalf("%s ended with %d\n%s", on, code, s.Log())
			}
		case types.ServiceConditionHealthy:
			err = s.healthy(p.t.Context())
		}
		if err == nil {
			return
		}
		if time.Now().After(until) || (condition == types.ServiceConditionHealthy && !s.Alive()) {
			p.t.Fatalf("%s waits for %s: %v\n%s", who, on, err, s.Log())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Service returns one by its name.
func (p *Project) Service(name string) *Service {
	p.t.Helper()
	s := p.services[name]
	if s == nil {
		p.t.Fatalf("the compose file has no service %q", name)
	}
	return s
}

// Named are the services that were started, in that order.
func (p *Project) Named() []string { return p.started }

// healthy runs the health check.
func (s *Service) healthy(ctx context.Context) error {
	test := s.spec.HealthCheck.Test
	if len(test) < 2 || test[0] != "CMD" {
		return fmt.Errorf("service %s: a health check of the form [CMD, …] is all this runs", s.Name)
	}
	out, err := s.Exec(ctx, test[1:]...)
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(out))
	}
	return nil
}

// Exec runs a program inside, as `docker compose exec` does, and returns what it
// wrote to standard output, or, when it fails, to both.
func (s *Service) Exec(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", fmt.Sprint(s.PID()), "--net", "--mount", "--root", "--wd=/", "--", "/bin/env"}, args...)...)
	cmd.Env = environment(s.spec)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String() + errs.String(), err
	}
	return out.String(), nil
}

// Stop ends a service as `docker compose stop` does; one that has to be killed
// fails the test.
func (p *Project) Stop(name string) {
	p.t.Helper()
	s := p.services[name]
	if !s.Alive() {
		return
	}
	grace := 10 * time.Second
	if s.spec.StopGracePeriod != nil {
		grace = time.Duration(*s.spec.StopGracePeriod)
	}
	if s.spec.StopSignal != "" && s.spec.StopSignal != "SIGTERM" {
		p.t.Fatalf("service %s: stop_signal %s", name, s.spec.StopSignal)
	}
	_ = s.cmdSignal(syscall.SIGTERM)
	if code := s.Wait(p.t, grace); code != 0 {
		p.t.Errorf("%s: exit %d after SIGTERM\n%s", name, code, s.Log())
	}
}

func (s *Service) cmdSignal(signal syscall.Signal) error { return syscall.Kill(s.PID(), signal) }

// Down stops all, dependents first; those that do not depend on each other at
// once.
func (p *Project) Down() {
	p.t.Helper()
	left := slices.Clone(p.started)
	for len(left) > 0 {
		var now, later []string
		for _, name := range left {
			needed := slices.ContainsFunc(left, func(other string) bool {
				_, on := p.services[other].spec.DependsOn[name]
				return on
			})
			if needed {
				later = append(later, name)
			} else {
				now = append(now, name)
			}
		}
		done := make(chan struct{})
		for _, name := range now {
			go func() { p.Stop(name); done <- struct{}{} }()
		}
		for range now {
			<-done
		}
		left = later
	}
}
