package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// settled is when a proxy that started with nothing has all that it asks for.
// What is kept and not its own by then is gone.
const settled = 30 * time.Second

// unknown is a version that no resource has: who brings it is sent the resource.
const unknown = "unknown"

var errSilent = errors.New("it said nothing to a proxy that holds nothing")

// relay is one stream of the proxy, handed on to one control plane.
type relay struct {
	kept    *kept
	down    discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	first   *discoveryv3.DeltaDiscoveryRequest
	silence time.Duration
	heard   func() // the control plane said something

	mu      sync.Mutex
	types   map[string]*held
	pending map[string]*discoveryv3.DeltaDiscoveryResponse // by nonce, not answered yet
}

// held is what the proxy has of one type: names that are kept as it has them.
type held struct {
	names    map[string]struct{}
	wildcard bool
}

func newRelay(k *kept, down discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer, first *discoveryv3.DeltaDiscoveryRequest, silence time.Duration, heard func()) *relay {
	return &relay{kept: k, down: down, first: first, silence: silence, heard: heard, types: map[string]*held{}, pending: map[string]*discoveryv3.DeltaDiscoveryResponse{}}
}

// run ends when either side does; heard says whether the control plane said
// anything.
func (r *relay) run(at *plane) (heard bool, err error) {
	ctx, cancel := context.WithCancelCause(r.down.Context())
	defer cancel(nil)
	up, err := discoveryv3.NewAggregatedDiscoveryServiceClient(at.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return false, err
	}
	r.kept.owner(r.first.GetNode().GetId())
	silent := time.AfterFunc(r.silence, func() { cancel(errSilent) })
	defer silent.Stop()
	if len(r.first.GetInitialResourceVersions()) > 0 {
		silent.Stop() // nothing may be the right answer
	}
	clean := time.AfterFunc(settled, r.settle)
	defer clean.Stop()
	go func() { cancel(r.ask(up)) }()
	for {
		response, err := up.Recv()
		if err != nil {
			if cause := context.Cause(ctx); !heard && errors.Is(cause, errSilent) {
				err = cause
			}
			return heard, err
		}
		if silent.Stop(); !heard {
			heard = true
			r.heard()
		}
		r.note(response)
		if err := r.down.Send(response); err != nil {
			return heard, err
		}
	}
}

// ask hands on what the proxy says.
func (r *relay) ask(up discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) error {
	request := r.first
	for {
		r.hear(request)
		if err := up.Send(request); err != nil {
			return err
		}
		var err error
		if request, err = r.down.Recv(); err != nil {
			return err
		}
	}
}

func (r *relay) note(response *discoveryv3.DeltaDiscoveryResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending[response.GetNonce()] = response
}

// hear learns from a request what the proxy has. What it brings from an earlier
// stream and is not kept is asked for again.
func (r *relay) hear(request *discoveryv3.DeltaDiscoveryRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	url := request.GetTypeUrl()
	h := r.types[url]
	if h == nil {
		h = &held{names: map[string]struct{}{}, wildcard: len(request.GetResourceNamesSubscribe()) == 0}
		r.types[url] = h
		for name, version := range request.GetInitialResourceVersions() {
			if r.kept.has(url, name, version) {
				h.names[name] = struct{}{}
			} else {
				request.InitialResourceVersions[name] = unknown
			}
		}
	}
	h.wildcard = h.wildcard || slices.Contains(request.GetResourceNamesSubscribe(), "*")
	if response := r.pending[request.GetResponseNonce()]; response != nil {
		delete(r.pending, request.GetResponseNonce())
		if request.GetErrorDetail() == nil {
			h.accept(response)
			r.kept.accept(response)
		}
	}
	if !h.wildcard {
		for _, name := range request.GetResourceNamesUnsubscribe() {
			delete(h.names, name)
		}
		r.kept.drop(url, request.GetResourceNamesUnsubscribe())
	}
}

func (h *held) accept(response *discoveryv3.DeltaDiscoveryResponse) {
	for _, one := range response.GetResources() {
		h.names[one.GetName()] = struct{}{}
	}
	for _, name := range response.GetRemovedResources() {
		delete(h.names, name)
	}
}

// settle drops what is kept from before and was never asked for again.
func (r *relay) settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for url, h := range r.types {
		r.kept.only(url, h.names)
	}
}
