package e2e_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tollgate/e2e/harness"
)

// stranger is a user of the machine who is nobody to us.
const stranger = 4711

// attempt is what an intruder tries.
type attempt struct {
	Do     string // read, list, write, remove, create, connect, listen, kill, or a method of HTTP
	Target string // path, address, URL or process id
	Body   string
	Header map[string]string
	Host   string
}

// gained is what came of it.
type gained struct {
	Err    string // why it was not even let in
	Status int    // of an answer
	Got    string // what was read
}

// intrude is all that this binary does when another user runs it.
func intrude(plan io.Reader, out io.Writer) error {
	var attempts []attempt
	if err := json.NewDecoder(plan).Decode(&attempts); err != nil {
		return err
	}
	results := make([]gained, len(attempts))
	for i, a := range attempts {
		var err error
		results[i], err = a.try()
		if err != nil {
			results[i].Err = err.Error()
		}
	}
	return json.NewEncoder(out).Encode(results)
}

func (a attempt) try() (gained, error) {
	switch a.Do {
	case "read":
		data, err := os.ReadFile(a.Target)
		return gained{Got: string(data)}, err
	case "list":
		entries, err := os.ReadDir(a.Target)
		return gained{Got: fmt.Sprint(entries)}, err
	case "write":
		f, err := os.OpenFile(a.Target, os.O_WRONLY, 0)
		if err == nil {
			_ = f.Close()
		}
		return gained{}, err
	case "remove":
		return gained{}, os.Rename(a.Target, a.Target+".stolen")
	case "create":
		return gained{}, os.WriteFile(filepath.Join(a.Target, "planted"), nil, 0o600)
	case "connect":
		return knock("unix", a.Target, a.Body)
	case "listen":
		return overhear(a.Target)
	case "kill":
		pid, err := strconv.Atoi(a.Target)
		if err != nil {
			return gained{}, err
		}
		return gained{}, syscall.Kill(pid, syscall.SIGTERM)
	default:
		return a.ask()
	}
}

// knock speaks first and tells what it hears.
func knock(network, address, body string) (gained, error) {
	c, err := net.DialTimeout(network, address, 3*time.Second)
	if err != nil {
		return gained{}, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	_, _ = io.WriteString(c, body)
	data := make([]byte, 64<<10)
	n, err := c.Read(data)
	return gained{Got: string(data[:n])}, err
}

// overhear takes a port and tells what it is told there, until it is told to end.
func overhear(address string) (gained, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return gained{}, err
	}
	defer l.Close()
	all := ""
	for !strings.Contains(all, "END") {
		c, err := l.Accept()
		if err != nil {
			return gained{Got: all}, err
		}
		_ = c.SetDeadline(time.Now().Add(3 * time.Second))
		data := make([]byte, 64<<10)
		n, _ := c.Read(data)
		all += string(data[:n])
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
		_ = c.Close()
	}
	return gained{Got: all}, nil
}

func (a attempt) ask() (gained, error) {
	request, err := http.NewRequest(a.Do, a.Target, strings.NewReader(a.Body))
	if err != nil {
		return gained{}, err
	}
	request.Host = a.Host
	for name, value := range a.Header {
		request.Header.Set(name, value)
	}
	response, err := (&http.Client{Transport: elsewhere(nil), Timeout: 5 * time.Second}).Do(request)
	if err != nil {
		return gained{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return gained{Status: response.StatusCode, Got: string(body)}, err
}

// callers counts those who came from elsewhere.
var callers atomic.Uint32

// elsewhere asks from an address of loopback that nobody asked from lately: of one
// address ten refusals a second are in the log.
func elsewhere(config *tls.Config) *http.Transport {
	n := callers.Add(1)
	from := &net.TCPAddr{IP: net.IPv4(127, 1, byte(n/250), byte(1+n%250))}
	return &http.Transport{DisableKeepAlives: true, TLSClientConfig: config, DialContext: (&net.Dialer{LocalAddr: from}).DialContext}
}

// asStranger lets another user try; its process is as real as he is.
func asStranger(t *testing.T, attempts []attempt) []gained {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test becomes another user: run it as root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The folder in which `go test` builds is closed to him.
	dir := harness.TempDir(t)
	copied := filepath.Join(dir, "intruder")
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	plan, err := json.Marshal(attempts)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), copied)
	cmd.Dir, cmd.Env = "/", []string{intruder + "=1"}
	cmd.Stdin = bytes.NewReader(plan)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}, Pdeathsig: syscall.SIGKILL}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("intruder: %v\n%s", err, errs.String())
	}
	var results []gained
	if err := json.Unmarshal(out.Bytes(), &results); err != nil || len(results) != len(attempts) {
		t.Fatalf("intruder: %v\n%s%s", err, out.String(), errs.String())
	}
	return results
}

// intruder is the variable by which TestMain knows that it is one.
const intruder = "TOLLGATE_E2E_INTRUDER"

// listening are the ports of TCP that processes listen on.
func listening(t *testing.T, pids ...int) []string {
	t.Helper()
	inodes := map[string]bool{}
	for _, pid := range pids {
		folder := fmt.Sprintf("/proc/%d/fd", pid)
		fds, err := os.ReadDir(folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if to, err := os.Readlink(filepath.Join(folder, fd.Name())); err == nil && strings.HasPrefix(to, "socket:[") {
				inodes[strings.Trim(to, "socket:[]")] = true
			}
		}
	}
	var ports []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			const local, state, inode = 1, 3, 9
			f := strings.Fields(line)
			if len(f) <= inode || f[state] != "0A" || !inodes[f[inode]] {
				continue
			}
			_, port, _ := strings.Cut(f[local], ":")
			n, err := strconv.ParseUint(port, 16, 16)
			if err != nil {
				t.Fatal(err)
			}
			ports = append(ports, strconv.FormatUint(n, 10))
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}
