package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
)

// maxShared is how many control planes may share a folder.
const maxShared = 8

// kept is one instance on disk.
type kept struct {
	Service      string       `json:"service"`
	Instance     string       `json:"instance"`
	Registration Registration `json:"registration"`
}

// Restore takes the instances that an earlier process kept in a file, and
// keeps its own there from now on. Each gets its whole time to live anew: a
// control plane that comes back must not take endpoints from proxies that they
// serve, and one that is really gone is dropped in time. A missing file is empty.
//
// Of control planes that share a folder each keeps a file of its own: the second
// registry-2.json, and so on. One that has just started, and knows half, would
// else write over what the other needs when it comes back.
func (r *Registry) Restore(path string) error {
	path, lock, err := claim(path)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.path, r.lock = path, lock
	r.mu.Unlock()
	if err := r.read(path); err != nil {
		if lock != nil {
			err = errors.Join(err, lock.Close())
		}
		return err
	}
	return nil
}

func (r *Registry) read(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("registered instances: %w", err)
	}
	var list []kept
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("registered instances: %s is damaged (%w): remove it, instances register again within seconds", path, err)
	}
	for _, k := range list {
		if _, _, err := check(k.Service, k.Instance, k.Registration); err != nil {
			return fmt.Errorf("registered instances: %s: %w: remove it, instances register again within seconds", path, err)
		}
		if r.Put(k.Service, k.Instance, k.Registration) == nil { // one that may not be there any more is no fault
			r.restored(k.Service, k.Instance)
		}
	}
	return nil
}

// restored marks an instance as one that this process has not heard itself.
func (r *Registry) restored(service, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.services[service][id]
	e.heard = time.Time{}
	r.services[service][id] = e
}

// claim takes the first file that no other process keeps its instances in, until
// the lock is closed or the process ends. A folder that is not there has no
// other process, and no lock.
func claim(path string) (own string, lock *os.File, err error) {
	for i := range maxShared {
		own = path
		if i > 0 {
			ext := filepath.Ext(path)
			own = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(path, ext), i+1, ext)
		}
		lock, err = os.OpenFile(own+".lock", os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, os.ErrNotExist) {
			return own, nil, nil
		}
		if err != nil {
			return "", nil, fmt.Errorf("registered instances: %w", err)
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			return own, lock, nil
		}
		_ = lock.Close()
	}
	return "", nil, fmt.Errorf("registered instances: %d control planes keep theirs in %s already: give this one a --data-dir of its own", maxShared, filepath.Dir(path))
}

// end keeps what is registered, and leaves the file to the next process.
func (r *Registry) end() error {
	err := r.save()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lock != nil {
		err = errors.Join(err, r.lock.Close())
		r.lock = nil
	}
	return err
}

// save writes what is registered now, if it changed since the last time.
func (r *Registry) save() error {
	r.mu.Lock()
	if r.path == "" || !r.dirty {
		r.mu.Unlock()
		return nil
	}
	path, list := r.path, []kept{}
	for service, instances := range r.services {
		for id, e := range instances {
			list = append(list, kept{service, id, e.said})
		}
	}
	r.dirty = false
	r.mu.Unlock()
	data, err := json.Marshal(list)
	if err == nil {
		err = renameio.WriteFile(path, data, 0o600)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty = r.dirty || err != nil
	if r.fault = err; err != nil {
		r.fault = fmt.Errorf("registered instances cannot be kept over a restart: %w", err)
	}
	return r.fault
}

// Fault says why the instances could not be kept on disk; nil when they were.
func (r *Registry) Fault() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fault
}
