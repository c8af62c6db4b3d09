// Package discovery knows the instances that registered themselves: each says
// every few seconds where it is and whether it drains, and is dropped when it
// has been silent for its time to live. Invariants: what it hands out is sorted
// and complete, so that equal registrations give equal endpoints; no instance is
// where the gateway file does not let its service be, nor where another service
// is; a registration that is refused changes nothing.
package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"tollgate/api/contract"
)

// MaxTTL is how long an instance may ask to be believed.
const MaxTTL = 5 * time.Minute

const (
	maxServices  = 1000
	maxInstances = 10_000 // in all
	maxOfOne     = 2000   // of one service
	minTTL       = time.Second
	maxWeight    = 128
	sweepEvery   = 200 * time.Millisecond
	recheckEvery = 10 // sweeps
)

// Instance is one registered instance.
type Instance struct {
	ID       string
	Address  netip.AddrPort
	Weight   uint32
	Zone     string
	Draining bool
}

// Registration is what an instance says of itself.
type Registration = contract.Registration

// ErrFull is returned when no more instances are taken.
var ErrFull = errors.New("the registry is full")

type entry struct {
	Instance
	said    Registration
	heard   time.Time // zero: by an earlier process
	expires time.Time
}

// Registry is safe for concurrent use.
type Registry struct {
	now     func() time.Time
	changed chan struct{}

	mu       sync.Mutex
	services map[string]map[string]entry
	sorted   map[string][]Instance // as Snapshot gave them out, of services that did not change since
	count    int
	holders  map[netip.AddrPort]holder
	path     string // where it is kept; "" nowhere
	lock     *os.File
	dirty    bool  // changed since it was kept
	fault    error // why it could not be kept; nil when it was
	places   Places
	silence  silence
}

// holder is the service that is at an address, with how many instances: one that
// dies is often back under a new name before the old one has ended.
type holder struct {
	service   string
	instances int
}

// NewRegistry returns an empty registry; now is the clock.
func NewRegistry(now func() time.Time) *Registry {
	return &Registry{now: now, changed: make(chan struct{}, 1), services: map[string]map[string]entry{}, sorted: map[string][]Instance{}, holders: map[netip.AddrPort]holder{}, silence: silence{services: map[string]*heard{}}}
}

// Changed is signalled after the snapshot changed.
func (r *Registry) Changed() <-chan struct{} { return r.changed }

// Put registers an instance, or keeps it alive.
func (r *Registry) Put(service, id string, reg Registration) error {
	instance, ttl, err := check(service, id, reg)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.places.judge(service, instance.Address); err != nil {
		return err
	}
	if holder, taken := r.taken(service, instance.Address); taken {
		return fmt.Errorf("address %s is where the service %s is: a process that is both registers once, and both upstreams name it", instance.Address, holder)
	}
	instances := r.services[service]
	old, known := instances[id]
	if !known && r.full(service) {
		return ErrFull
	}
	if instances == nil {
		instances = map[string]entry{}
		r.services[service] = instances
	}
	if !known {
		r.count++
	}
	if known {
		r.release(old.Address)
	}
	r.holders[instance.Address] = holder{ServiceOf(service), r.holders[instance.Address].instances + 1}
	instances[id] = entry{Instance: instance, said: reg, heard: r.now(), expires: r.now().Add(ttl)}
	if !known || old.Instance != instance {
		delete(r.sorted, service)
		r.signal()
	}
	return nil
}

// Delete drops an instance; one that is not there is no error.
func (r *Registry) Delete(service, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drop(service, id) {
		r.silence.left(service)
		r.signal()
	}
}

// Leave drops the instances of a service that were not heard since a moment,
// those that speak gRPC included.
func (r *Registry) Leave(service string, since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	dropped := false
	for name, instances := range r.services {
		if ServiceOf(name) != ServiceOf(service) {
			continue
		}
		for id, e := range instances {
			if e.heard.Before(since) {
				dropped = r.drop(name, id) || dropped
				r.silence.left(name)
			}
		}
	}
	if dropped {
		r.signal()
	}
}

// Snapshot returns all instances by service, sorted by ID; the list of a service
// that was heard of and has none is empty. A list is never changed, and is
// the same one until the service is.
func (r *Registry) Snapshot() map[string][]Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string][]Instance, len(r.services))
	for service, instances := range r.services {
		if r.sorted[service] == nil {
			list := make([]Instance, 0, len(instances))
			for _, e := range instances {
				list = append(list, e.Instance)
			}
			slices.SortFunc(list, func(a, b Instance) int { return cmp.Compare(a.ID, b.ID) })
			r.sorted[service] = list
		}
		out[service] = r.sorted[service]
	}
	return out
}

// Run drops silent instances, and keeps the others on disk, until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for sweep := 1; ; sweep++ {
		select {
		case <-ctx.Done():
			return r.end()
		case <-ticker.C:
			r.expire()
			if sweep%recheckEvery == 0 {
				r.recheck()
			}
			_ = r.save() // Fault tells; a full disk must not end the control plane
		}
	}
}

func (r *Registry) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, tallies, dropped := r.now(), make(map[string]tally, len(r.services)), false
	for service, instances := range r.services {
		t := tally{}
		for _, e := range instances {
			if now.After(e.expires) {
				t.silent++
			} else {
				t.speak++
			}
		}
		tallies[service] = t
	}
	r.silence.judge(now, tallies)
	for service, t := range tallies {
		if t.silent > 0 && !r.silence.services[service].held {
			dropped = r.dropSilent(service, now, func(Instance) bool { return true }) || dropped
		}
	}
	if dropped {
		r.signal()
	}
}

// drop removes an instance; the caller holds the lock. Its service stays known:
// having none is not the same as never having been heard of.
func (r *Registry) drop(service, id string) bool {
	instances := r.services[service]
	e, known := instances[id]
	if !known {
		return false
	}
	delete(instances, id)
	delete(r.sorted, service)
	r.release(e.Address)
	r.count--
	return true
}

// dropSilent drops the silent instances of a service that are picked; the caller
// holds the lock.
func (r *Registry) dropSilent(service string, now time.Time, pick func(Instance) bool) bool {
	dropped := false
	for id, e := range r.services[service] {
		if now.After(e.expires) && pick(e.Instance) {
			dropped = r.drop(service, id) || dropped
		}
	}
	return dropped
}

// taken says which other service is at an address; silent instances that were
// kept there give way. The caller holds the lock.
func (r *Registry) taken(service string, address netip.AddrPort) (string, bool) {
	other := func() (string, bool) {
		h := r.holders[address]
		return h.service, h.instances > 0 && h.service != ServiceOf(service)
	}
	holder, taken := other()
	if !taken {
		return "", false
	}
	for name := range r.services {
		if ServiceOf(name) == holder && r.dropSilent(name, r.now(), func(i Instance) bool { return i.Address == address }) {
			r.signal()
		}
	}
	return other()
}

// full says whether there is no place for another instance of a service; silent
// ones of its own that were kept give way. The caller holds the lock.
func (r *Registry) full(service string) bool {
	none := func() bool { return r.count >= maxInstances || len(r.services[service]) >= maxOfOne }
	if none() && r.dropSilent(service, r.now(), func(Instance) bool { return true }) {
		r.signal()
	}
	return none() || r.services[service] == nil && len(r.services) >= maxServices && !r.forget()
}

// forget drops a service that has no instances; the caller holds the lock.
func (r *Registry) forget() bool {
	for service, instances := range r.services {
		if len(instances) == 0 {
			delete(r.services, service)
			delete(r.silence.services, service)
			return true
		}
	}
	return false
}

// release takes an instance from its address; the caller holds the lock.
func (r *Registry) release(at netip.AddrPort) {
	h := r.holders[at]
	if h.instances--; h.instances > 0 {
		r.holders[at] = h
		return
	}
	delete(r.holders, at)
}

// signal tells of a change; the caller holds the lock.
func (r *Registry) signal() {
	r.dirty = true
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func check(service, id string, reg Registration) (Instance, time.Duration, error) {
	if !isName(service) || !isName(id) {
		return Instance{}, 0, fmt.Errorf("service %.80q, instance %.80q: names are letters, digits, `.`, `_` and `-`, at most 128", service, id)
	}
	address, err := netip.ParseAddrPort(reg.Address)
	// A zone of IPv6 means something on one machine only, and Envoy refuses it.
	if err != nil || address.Port() == 0 || address.Addr().Zone() != "" || !address.Addr().IsValid() {
		return Instance{}, 0, fmt.Errorf("address %.80q: write the IP address and port at which proxies reach the instance", reg.Address)
	}
	if reg.State != "" && reg.State != contract.StateUp && reg.State != contract.StateDraining {
		return Instance{}, 0, fmt.Errorf("state %.80q: write up or draining", reg.State)
	}
	if reg.Weight > maxWeight {
		return Instance{}, 0, fmt.Errorf("weight %d: at most %d", reg.Weight, maxWeight)
	}
	if len(reg.Zone) > 128 || !utf8.ValidString(reg.Zone) {
		return Instance{}, 0, errors.New("zone: at most 128 bytes of UTF-8")
	}
	ttl := time.Duration(reg.TTL) * time.Second
	if reg.TTL == 0 {
		ttl = 10 * time.Second
	}
	if ttl < minTTL || ttl > MaxTTL {
		return Instance{}, 0, fmt.Errorf("ttl_s %d: from 1 to 300", reg.TTL)
	}
	address = netip.AddrPortFrom(address.Addr().Unmap(), address.Port())
	return Instance{ID: id, Address: address, Weight: max(reg.Weight, 1), Zone: reg.Zone, Draining: reg.State == contract.StateDraining}, ttl, nil
}

// isName says whether a name is letters, digits and, inside, `.`, `_` and `-`.
func isName(name string) bool {
	if name == "" || len(name) > 128 {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("._-", c) >= 0 && i > 0 && i < len(name)-1:
		default:
			return false
		}
	}
	return true
}
