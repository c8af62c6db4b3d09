package compose

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"golang.org/x/net/dns/dnsmessage"

	"tollgate/e2e/harness"
)

// gateway is the bridge's address, where names are served.
const gateway = "10.77.0.1"

// libraries are what programs of the images need of this machine.
func libraries() []string { return []string{"/lib", "/lib64", "/usr/lib"} }

// image is what a target of the Dockerfile says of its process.
type image struct{ entrypoint []string }

// images reads the targets of a Dockerfile.
func images(path string) (map[string]image, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	out, target := map[string]image{}, ""
	from := regexp.MustCompile(`^FROM \S+ AS (\S+)$`)
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if m := from.FindStringSubmatch(line); m != nil {
			target = m[1]
		}
		if words, ok := strings.CutPrefix(line, "USER "); ok {
			return nil, fmt.Errorf("%s: USER %s is not run here", path, words)
		}
		if words, ok := strings.CutPrefix(line, "ENTRYPOINT "); ok {
			var i image
			if err := json.Unmarshal([]byte(words), &i.entrypoint); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", path, line, err)
			}
			out[target] = i
		}
	}
	return out, nil
}

func (p *Project) ip(args ...string) {
	p.t.Helper()
	if out, err := exec.CommandContext(p.t.Context(), "ip", args...).CombinedOutput(); err != nil {
		p.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// network makes the bridge, in our own namespaces.
func (p *Project) network() {
	p.t.Helper()
	if out, err := exec.CommandContext(p.t.Context(), "mount", "-t", "tmpfs", "tmpfs", "/run").CombinedOutput(); err != nil {
		p.t.Fatalf("mount /run: %v\n%s", err, out)
	}
	p.ip("link", "set", "lo", "up")
	p.ip("link", "add", "mesh", "type", "bridge")
	p.ip("addr", "add", gateway+"/16", "dev", "mesh")
	p.ip("link", "set", "mesh", "up")
}

// plug makes the namespace of a service and connects it.
func (p *Project) plug(s *Service, i int) {
	p.t.Helper()
	cable := fmt.Sprintf("v%d", i)
	p.ip("netns", "add", s.Name)
	p.ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", s.Name)
	p.ip("link", "set", cable, "master", "mesh", "up")
	p.ip("-n", s.Name, "addr", "add", s.Address.String()+"/16", "dev", "eth0")
	p.ip("-n", s.Name, "link", "set", "eth0", "up")
	p.ip("-n", s.Name, "link", "set", "lo", "up")
}

func environment(spec types.ServiceConfig) []string {
	env := []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/"}
	for name, value := range spec.Environment {
		if value != nil {
			env = append(env, name+"="+*value)
		}
	}
	slices.Sort(env)
	return env
}

// Start starts a service, again too, with its own root: its programs, what they
// link, its volumes, and nothing else of this machine.
func (p *Project) Start(name string, env ...string) {
	p.t.Helper()
	s := p.services[name]
	var setup strings.Builder
	setup.WriteString("set -e\nmount --make-rprivate /\n")
	line := func(format string, args ...any) { fmt.Fprintf(&setup, format+"\n", args...) }
	line("mkdir -p %s; mount -t tmpfs tmpfs %s; cd %s", s.root, s.root, s.root)
	line("mkdir -p tmp proc dev etc usr/lib usr/bin bin; mount -t proc proc proc; mount --bind /dev dev")
	for _, folder := range libraries() {
		line("if [ -d %s ]; then mkdir -p .%s; mount --bind %s .%s; mount -o remount,bind,ro .%s; fi", folder, folder, folder, folder, folder)
	}
	line("touch bin/env; mount --bind %s bin/env", p.program("/bin/env"))
	for _, at := range sorted(p.bin) {
		line("mkdir -p .%s; touch .%s; mount --bind %s .%s", filepath.Dir(at), at, p.bin[at], at)
	}
	line("printf 'nameserver %s\\noptions ndots:0\\n' > etc/resolv.conf; printf '127.0.0.1 localhost\\n%s %s\\n' > etc/hosts", gateway, s.Address, name)
	for _, v := range s.spec.Volumes {
		source := v.Source
		if v.Type == types.VolumeTypeVolume {
			source = filepath.Join(p.dir, "volumes", v.Source)
			if err := os.MkdirAll(source, 0o755); err != nil {
				p.t.Fatal(err)
			}
		}
		line("mkdir -p .%s; mount --bind %s .%s", v.Target, source, v.Target)
		if v.ReadOnly {
			line("mount -o remount,bind,ro .%s", v.Target)
		}
	}
	line("hostname %s", name)
	line("exec chroot . /bin/env -i \"$@\"")
	script := filepath.Join(p.dir, name+".sh")
	if err := os.WriteFile(script, []byte(setup.String()), 0o600); err != nil {
		p.t.Fatal(err)
	}
	args := []string{"netns", "exec", name, "unshare", "--mount", "--uts", "sh", script}
	args = append(append(append(args, environment(s.spec)...), env...), s.image.entrypoint...)
	if len(s.spec.Entrypoint) > 0 {
		p.t.Fatalf("service %s: entrypoint is not run here", name)
	}
	s.Process = harness.Start(p.t, harness.Command{Name: name, Path: p.program("/sbin/ip"), Args: append(args, s.spec.Command...)})
	p.mu.Lock()
	p.runs[name] = s.Process
	p.mu.Unlock()
	if !slices.Contains(p.started, name) {
		p.started = append(p.started, name)
	}
}

func (p *Project) program(path string) string {
	p.t.Helper()
	found, err := exec.LookPath(filepath.Base(path))
	if err != nil {
		p.t.Fatal(err)
	}
	return found
}

// Volume is where the files of a named volume are.
func (p *Project) Volume(name string) string { return filepath.Join(p.dir, "volumes", name) }

// Volumes are the named volumes that a service sees.
func (s *Service) Volumes() []string {
	var out []string
	for _, v := range s.spec.Volumes {
		if v.Type == types.VolumeTypeVolume {
			out = append(out, v.Source)
		}
	}
	return out
}

// serveNames answers the names of services with their addresses, over UDP.
func (p *Project) serveNames() {
	p.t.Helper()
	conn, err := (&net.ListenConfig{}).ListenPacket(p.t.Context(), "udp", gateway+":53")
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			if answer, err := p.answer(buffer[:n]); err == nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
}

func (p *Project) answer(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil, fmt.Errorf("no question: %w", err)
	}
	asked := m.Questions[0]
	m.Response, m.Authoritative, m.RecursionAvailable, m.Additionals = true, true, true, nil
	name := strings.TrimSuffix(asked.Name.String(), ".")
	p.mu.Lock()
	process := p.runs[name]
	p.mu.Unlock()
	switch {
	case process == nil || !process.Alive(): // an engine forgets who does not run
		m.RCode = dnsmessage.RCodeNameError
	case asked.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: asked.Name, Class: dnsmessage.ClassINET, TTL: 600},
			Body:   &dnsmessage.AResource{A: p.services[name].Address.As4()},
		}}
	}
	return m.Pack()
}
