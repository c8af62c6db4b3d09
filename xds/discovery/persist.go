package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/google/renameio/v2"
)

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
func (r *Registry) Restore(path string) error {
	r.mu.Lock()
	r.path = path
	r.mu.Unlock()
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
		_ = r.Put(k.Service, k.Instance, k.Registration) // one that may not be there any more is no fault
	}
	return nil
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
