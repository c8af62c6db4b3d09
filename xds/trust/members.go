package trust

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"tollgate/internal/join"
	"tollgate/internal/peer"
	"tollgate/internal/secretfile"
)

// ErrRemoved is that of a member that an operator took out of the fleet.
var ErrRemoved = errors.New("removed from the fleet")

// Members are those that were ever given a token, and of them those that an
// operator took out again, for all control planes of a data folder. What was
// made for a member before it was removed, certificate or token, counts nowhere;
// a token made after that lets the name in again. Removals are on disk before
// they are acknowledged, and never forgotten.
type Members struct {
	known, removed string // folders
	now            func() time.Time

	mu    sync.Mutex
	read  time.Time
	since map[string]time.Time // role.name → what was made before that does not count
	fault error
}

// OpenMembers reads who was removed. A folder that cannot be read is an error:
// nobody could be kept out.
func OpenMembers(dir string, now func() time.Time) (*Members, error) {
	m := &Members{known: filepath.Join(dir, "fleet", "known"), removed: filepath.Join(dir, "fleet", "removed"), now: now}
	if err := m.load(); err != nil {
		return nil, fmt.Errorf("removed members: %w", err)
	}
	return m, nil
}

// fileOf names the file of a member; a role has no dot.
func fileOf(role, name string) string { return role + "." + name }

// meet keeps the name of a member that is given a token or a certificate.
func (m *Members) meet(role, name string) error {
	_, err := secretfile.LoadOrCreate(filepath.Join(m.known, fileOf(role, name)), func() ([]byte, error) {
		return []byte(m.now().UTC().Format(time.RFC3339) + "\n"), nil
	})
	return err
}

// Remove takes a member out of the fleet. It returns the moment, up to three
// seconds ahead, from which on a new token lets the name in again. A name that was never
// given a token is an error, unless the fleet has certificates of its own, whose
// names nobody here knows.
func (m *Members) Remove(role, name string, anyName bool) (time.Time, error) {
	if err := join.Valid(role, name); err != nil {
		return time.Time{}, err
	}
	if _, err := os.Stat(filepath.Join(m.known, fileOf(role, name))); err != nil && !anyName {
		return time.Time{}, fmt.Errorf("nobody was ever let in as %s/%s: %s has %s", role, name, filepath.Dir(m.known), cmp.Or(strings.Join(m.Known(), ", "), "no members"))
	}
	// Certificates and tokens count in seconds, and a control plane that has not
	// looked at the disk yet makes them for another one.
	since := m.now().UTC().Truncate(time.Second).Add(3 * time.Second)
	if err := os.MkdirAll(m.removed, 0o700); err != nil {
		return time.Time{}, err
	}
	if err := renameio.WriteFile(filepath.Join(m.removed, fileOf(role, name)), []byte(since.Format(time.RFC3339)+"\n"), 0o600); err != nil {
		return time.Time{}, err
	}
	return since, m.load()
}

// Known are the members that were given a token, ROLE/NAME, sorted.
func (m *Members) Known() []string {
	files, err := os.ReadDir(m.known)
	if err != nil {
		return nil // there is no folder before the first
	}
	var out []string
	for _, f := range files {
		if role, name, ok := strings.Cut(f.Name(), "."); ok && role != "" {
			out = append(out, role+"/"+name)
		}
	}
	return out
}

// Removed are the members that were removed, ROLE/NAME, with the moment.
func (m *Members) Removed() map[string]time.Time {
	m.refresh()
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]time.Time{}
	for file, since := range m.since {
		role, name, _ := strings.Cut(file, ".")
		out[role+"/"+name] = since
	}
	return out
}

// Refuse says why a certificate does not count any more; nil when it does. It
// reads the disk once a second at most.
func (m *Members) Refuse(who peer.Identity) error {
	return m.judge(who.Role, who.Name, who.NotBefore, "certificate")
}

func (m *Members) judge(role, name string, made time.Time, what string) error {
	if since := m.sinceOf(role, name); made.Before(since) {
		return fmt.Errorf("%s/%s was %w after its %s was made", role, name, ErrRemoved, what)
	}
	return nil
}

// sinceOf is when a member was removed; zero when it was not.
func (m *Members) sinceOf(role, name string) time.Time {
	m.refresh()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.since[fileOf(role, name)]
}

// Fault says why the removals cannot be read as they are on disk; those that
// were read last count.
func (m *Members) Fault() error {
	m.refresh()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fault
}

func (m *Members) refresh() {
	m.mu.Lock()
	now := m.now()
	due := now.Sub(m.read) >= time.Second || now.Before(m.read)
	if due {
		m.read = now // one of those who ask at once reads
	}
	m.mu.Unlock()
	if due {
		_ = m.load() // Fault tells
	}
}

// load reads the folder; its error is that of the folder. A file whose content is
// not understood keeps its member out, whatever it has, and is a fault; so is a
// folder that cannot be read any more, and what was read before still counts.
func (m *Members) load() error {
	files, err := os.ReadDir(m.removed)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	read, fault := map[string]time.Time{}, err
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") {
			continue // half a file of somebody who writes
		}
		data, failed := os.ReadFile(filepath.Join(m.removed, f.Name()))
		since, bad := time.Parse(time.RFC3339, strings.TrimSpace(string(data)))
		if failed = errors.Join(failed, bad); failed != nil {
			since = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) // for ever
			fault = errors.Join(fault, fmt.Errorf("%s: %w: write the time (RFC 3339) from which on a new token counts; its member is kept out", filepath.Join(m.removed, f.Name()), failed))
		}
		read[f.Name()] = since
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.read = m.now()
	if m.fault = fault; err == nil {
		m.since = read
	} else {
		m.fault = fmt.Errorf("removed members: %w", fault)
	}
	return err
}
