package push

import (
	"context"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/xds/push/refusals"
	"tollgate/xds/push/view"
	"tollgate/xds/release"
)

// whole is one client of state-of-the-world ADS. Every response holds all it
// asked for of a type; its version is a hash of those of its content.
type whole struct {
	stream *stream // identity and wake-ups only
	types  map[string]*wholeType
	nonce  uint64
}

type wholeType struct {
	names    []string
	wildcard bool
	sent     string // version
	nonce    string
	refused  map[string]bool // versions
	sentAll  []string
}

// StreamAggregatedResources serves clients that do not speak delta: grpc-go and
// the reference rate-limit server.
func (s *Server) StreamAggregatedResources(grpcStream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	st := newStream(s)
	s.join(st)
	defer s.leave(st)
	w := &whole{stream: st, types: map[string]*wholeType{}}
	ctx := grpcStream.Context()
	requests, ended := receive(ctx, grpcStream.Recv)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return nil // whatever ended it, the client comes back
		case request := <-requests:
			if err := w.request(ctx, request); err != nil {
				return err
			}
		case <-st.wakeup:
		}
		for _, response := range w.next(s.current()) {
			if err := grpcStream.Send(response); err != nil {
				return err
			}
		}
	}
}

func (w *whole) request(ctx context.Context, r *discoveryv3.DiscoveryRequest) error {
	st := w.stream
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.meet(ctx, r.GetNode()); err != nil {
		return err
	}
	if !view.Served(r.GetTypeUrl()) {
		return nil // nothing of it is served
	}
	if err := st.may(r.GetTypeUrl()); err != nil {
		return err
	}
	t, known := w.types[r.GetTypeUrl()]
	if !known {
		t = &wholeType{refused: map[string]bool{}}
		w.types[r.GetTypeUrl()] = t
	}
	if r.GetResponseNonce() != "" && r.GetResponseNonce() != t.nonce {
		return nil // it speaks of an older response; the newer one's answer follows
	}
	names := slices.Clone(r.GetResourceNames())
	slices.Sort(names)
	if !known || len(names) > 0 {
		t.wildcard = len(names) == 0 && view.Listed(r.GetTypeUrl())
	}
	if slices.Contains(names, "*") {
		t.wildcard = true
	}
	if !slices.Equal(names, t.names) {
		t.names, t.sent = names, ""
	}
	if !known {
		t.sent = r.GetVersionInfo() // of an earlier stream; equal content has an equal version
	}
	if r.GetResponseNonce() == "" {
		return nil
	}
	if detail := r.GetErrorDetail(); detail != nil {
		t.refused[t.sent] = true
		st.srv.metrics.answers.WithLabelValues(r.GetTypeUrl(), "nack").Inc()
		st.srv.cfg.Log.Error("client refused its config and keeps the last good one", "node", st.id, "type_url", r.GetTypeUrl(), "err", refusals.Clip(detail.GetMessage()))
		if st.srv.cfg.Ledger != nil {
			st.srv.cfg.Ledger.Refused(st.id, r.GetTypeUrl(), t.sentAll, detail.GetMessage())
		}
		return nil
	}
	st.srv.metrics.answers.WithLabelValues(r.GetTypeUrl(), "ack").Inc()
	if st.srv.cfg.Ledger != nil {
		st.srv.cfg.Ledger.Acked(st.id, r.GetTypeUrl())
	}
	return nil
}

func (w *whole) next(v *view.View) []*discoveryv3.DiscoveryResponse {
	st := w.stream
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.id == "" || v.Number == 0 {
		return nil
	}
	var responses []*discoveryv3.DiscoveryResponse
	for _, url := range view.Kinds() {
		t := w.types[url]
		if t == nil {
			continue
		}
		names := t.names
		if t.wildcard {
			names = slices.Sorted(maps.Keys(v.All(st.audience, url)))
		}
		response := &discoveryv3.DiscoveryResponse{TypeUrl: url}
		hash := xxh3.New()
		var found []string
		for _, name := range names {
			one := v.Get(st.audience, url, name)
			if one == nil {
				continue
			}
			found = append(found, name)
			_, _ = hash.WriteString(one.Name + "\n" + one.Version + "\n") // a hash takes everything
			response.Resources = append(response.Resources, &anypb.Any{TypeUrl: one.Body.GetTypeUrl(), Value: one.Body.GetValue()})
		}
		complete := url == release.TypeListener || url == release.TypeCluster // absence means removal
		if len(found) == 0 && !complete {
			continue
		}
		sum := hash.Sum128().Bytes()
		response.VersionInfo = hex.EncodeToString(sum[:])
		if response.GetVersionInfo() == t.sent || t.refused[response.GetVersionInfo()] {
			continue
		}
		w.nonce++
		response.Nonce = strconv.FormatUint(w.nonce, 36)
		t.sent, t.nonce, t.sentAll = response.GetVersionInfo(), response.GetNonce(), found
		responses = append(responses, response)
		st.srv.metrics.responses.WithLabelValues(url).Inc()
		if st.srv.cfg.Ledger != nil {
			st.srv.cfg.Ledger.Sent(st.id, url, t.sent, found)
		}
	}
	return responses
}
