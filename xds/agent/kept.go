package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/renameio/v2"
	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"
)

const (
	suffix = ".accepted"
	// saveEvery bounds the writes of a proxy whose endpoints change all the time.
	saveEvery = time.Second
	sumSize   = 8
)

// kept is what one proxy accepted: in memory as it is, on disk at most
// saveEvery later, a file a type. A file is an xxh3 sum and a response with all
// resources of the type; the node stands in its control-plane identifier.
type kept struct {
	dir string

	mu     sync.Mutex
	node   string
	since  time.Time // of the last change
	types  map[string]map[string]*discoveryv3.Resource
	dirty  map[string]bool
	clear  bool  // no file that is there counts any more
	failed error // why it could not be written
	change chan struct{}
}

func newKept(dir string) *kept {
	return &kept{dir: dir, types: map[string]map[string]*discoveryv3.Resource{}, dirty: map[string]bool{}, change: make(chan struct{}, 1)}
}

// load reads all files. One that is damaged spoils the rest: half of a
// configuration names what is in the other half.
func (k *kept) load() error {
	names, err := filepath.Glob(filepath.Join(k.dir, "*"+suffix))
	if err != nil {
		return err
	}
	for _, name := range names {
		response, at, err := read(name)
		if err == nil && k.node != "" && k.node != response.GetControlPlane().GetIdentifier() {
			err = fmt.Errorf("it is of node %q, another file of %q", response.GetControlPlane().GetIdentifier(), k.node)
		}
		if err != nil {
			k.node, k.types, k.clear = "", map[string]map[string]*discoveryv3.Resource{}, true
			return fmt.Errorf("%s: %w", name, err)
		}
		k.node = response.GetControlPlane().GetIdentifier()
		if at.After(k.since) {
			k.since = at
		}
		held := map[string]*discoveryv3.Resource{}
		for _, one := range response.GetResources() {
			held[one.GetName()] = one
		}
		k.types[response.GetTypeUrl()] = held
	}
	return nil
}

func read(name string) (*discoveryv3.DeltaDiscoveryResponse, time.Time, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, time.Time{}, err
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, time.Time{}, err
	}
	if len(data) < sumSize || !bytes.Equal(data[:sumSize], sum(data[sumSize:])) {
		return nil, time.Time{}, errors.New("it is damaged")
	}
	response := &discoveryv3.DeltaDiscoveryResponse{}
	return response, info.ModTime(), proto.Unmarshal(data[sumSize:], response)
}

func sum(data []byte) []byte { return binary.BigEndian.AppendUint64(nil, xxh3.Hash(data)) }

// owner forgets what is kept of another node.
func (k *kept) owner(node string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.node == node {
		return
	}
	k.node, k.types, k.clear = node, map[string]map[string]*discoveryv3.Resource{}, true
	k.touch("")
}

// forget drops all: the proxy is not welcome any more.
func (k *kept) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.node, k.types, k.clear = "", map[string]map[string]*discoveryv3.Resource{}, true
	k.touch("")
}

// of returns all that is kept of a node and when it last changed.
func (k *kept) of(node string) ([]*discoveryv3.Resource, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.node != node {
		return nil, time.Time{}
	}
	var out []*discoveryv3.Resource
	for _, held := range k.types {
		for _, one := range held {
			out = append(out, one)
		}
	}
	return out, k.since
}

func (k *kept) has(url, name, version string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	one := k.types[url][name]
	return one != nil && one.GetVersion() == version
}

// accept keeps what a response changed.
func (k *kept) accept(response *discoveryv3.DeltaDiscoveryResponse) {
	k.mu.Lock()
	defer k.mu.Unlock()
	held := k.types[response.GetTypeUrl()]
	if held == nil {
		held = map[string]*discoveryv3.Resource{}
		k.types[response.GetTypeUrl()] = held
	}
	for _, one := range response.GetResources() {
		held[one.GetName()] = one
	}
	for _, name := range response.GetRemovedResources() {
		delete(held, name)
	}
	k.touch(response.GetTypeUrl())
}

// drop forgets what is not wanted any more.
func (k *kept) drop(url string, names []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, name := range names {
		if _, there := k.types[url][name]; there {
			delete(k.types[url], name)
			k.touch(url)
		}
	}
}

// only forgets all others.
func (k *kept) only(url string, names map[string]struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name := range k.types[url] {
		if _, there := names[name]; !there {
			delete(k.types[url], name)
			k.touch(url)
		}
	}
}

func (k *kept) touch(url string) {
	if k.since = time.Now(); url != "" {
		k.dirty[url] = true
	}
	select {
	case k.change <- struct{}{}:
	default:
	}
}

func (k *kept) fault() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failed
}

// keep writes changes until ctx ends, the last ones then.
func (k *kept) keep(ctx context.Context, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
		case <-k.change:
			select {
			case <-ctx.Done():
			case <-time.After(saveEvery):
			}
		}
		err := k.save()
		k.mu.Lock()
		news := (err == nil) != (k.failed == nil)
		k.failed = err
		k.mu.Unlock()
		if news && err != nil {
			log.Error("what the proxy accepted cannot be kept, a restart without a control plane would serve older words", "err", err)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			select {
			case k.change <- struct{}{}: // tried again
			default:
			}
		}
	}
}

// save replaces the files of what changed; each is on disk when it returns.
func (k *kept) save() error {
	if err := k.wipe(); err != nil {
		return err
	}
	for {
		url, data, err := k.next()
		if url == "" || err != nil {
			return err
		}
		path := filepath.Join(k.dir, url[strings.LastIndexByte(url, '/')+1:]+suffix)
		if err = os.MkdirAll(k.dir, 0o700); err == nil {
			if data == nil {
				if err = os.Remove(path); errors.Is(err, fs.ErrNotExist) {
					err = nil
				}
			} else {
				err = renameio.WriteFile(path, data, 0o600)
			}
		}
		if err != nil {
			k.mu.Lock()
			k.dirty[url] = true
			k.mu.Unlock()
			return fmt.Errorf("%s: %w", path, err)
		}
	}
}

// wipe removes all files, if none counts any more; what is in memory is written
// anew behind it.
func (k *kept) wipe() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.clear {
		return nil
	}
	names, err := filepath.Glob(filepath.Join(k.dir, "*"+suffix))
	for _, name := range names {
		if gone := os.Remove(name); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	if k.clear = err != nil; err == nil {
		for url := range k.types {
			k.dirty[url] = true
		}
	}
	return err
}

// next returns one type that must be written, and what; no data: it is gone.
func (k *kept) next() (url string, data []byte, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for url = range k.dirty {
		break
	}
	delete(k.dirty, url)
	if url == "" || len(k.types[url]) == 0 {
		return url, nil, nil
	}
	all := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, ControlPlane: &corev3.ControlPlane{Identifier: k.node}}
	for _, one := range k.types[url] {
		all.Resources = append(all.Resources, one)
	}
	slices.SortFunc(all.Resources, func(a, b *discoveryv3.Resource) int { return strings.Compare(a.GetName(), b.GetName()) })
	if data, err = proto.Marshal(all); err != nil {
		return url, nil, err
	}
	return url, append(sum(data), data...), nil
}
