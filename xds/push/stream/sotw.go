package stream

import (
	"context"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/types/known/anypb"

	"tollgate/xds/ledger"
	"tollgate/xds/push/refusals"
	"tollgate/xds/push/view"
	"tollgate/xds/release"
)

// Whole is one client of state-of-the-world ADS. Every response holds all it
// asked for of a type; its version is a hash of those of its content.
type Whole struct {
	stream *Stream // identity, wake-ups and what is owed only
	types  map[string]*wholeType
	nonce  uint64
}

type wholeType struct {
	names    []string
	wildcard bool
	sent     string // version
	nonce    string
	content  []ledger.Refusal // what was sent, as it would be refused
	waits    time.Time        // since when there is no answer; zero when none is owed
	late     bool             // it is overdue, and that was said
}

// NewWhole returns a client of state-of-the-world ADS on a stream.
func NewWhole(st *Stream) *Whole {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.whole = map[string]*wholeType{}
	return &Whole{stream: st, types: st.whole}
}

// Request takes one message of the client: a wish, and an answer to a response.
func (w *Whole) Request(ctx context.Context, r *discoveryv3.DiscoveryRequest) error {
	st := w.stream
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.gone {
		return nil
	}
	if err := st.meet(ctx, r.GetNode()); err != nil {
		return err
	}
	kind, served := release.KindOf(r.GetTypeUrl())
	if !served {
		return nil // nothing of it is served
	}
	if err := st.site.Desk.May(ctx, st.client, st.id, kind.URL); err != nil {
		return err
	}
	t, known := w.types[r.GetTypeUrl()]
	if !known {
		t = &wholeType{}
		w.types[r.GetTypeUrl()] = t
	}
	if r.GetResponseNonce() != "" && r.GetResponseNonce() != t.nonce {
		return nil // it speaks of an older response; the newer one's answer follows
	}
	names := slices.Clone(r.GetResourceNames())
	slices.Sort(names)
	if !known || len(names) > 0 {
		t.wildcard = len(names) == 0 && kind.Listed
	}
	if slices.Contains(names, "*") {
		t.wildcard = true
	}
	if !slices.Equal(names, t.names) {
		t.names, t.sent = names, ""
	}
	if !known {
		t.sent = r.GetVersionInfo() // of an earlier stream; equal content has an equal version
		if t.sent != "" {
			st.carryOn()
		}
	}
	if r.GetResponseNonce() == "" {
		return nil
	}
	t.waits = time.Time{}
	st.account.Waits(r.GetTypeUrl(), t.waits)
	if detail := r.GetErrorDetail(); detail != nil {
		st.record.Add(r.GetTypeUrl(), "", t.sent, detail.GetMessage())
		st.site.Metrics.Answers.WithLabelValues(r.GetTypeUrl(), "nack").Inc()
		st.site.Log.Error("client refused its config and keeps the last good one", "node", st.id, "type_url", r.GetTypeUrl(), "err", refusals.Clip(detail.GetMessage()))
		st.account.Refused(r.GetTypeUrl(), detail.GetMessage(), t.content)
		return nil
	}
	st.site.Metrics.Answers.WithLabelValues(r.GetTypeUrl(), "ack").Inc()
	return nil
}

// Next returns what to send now.
func (w *Whole) Next(now time.Time) []*discoveryv3.DiscoveryResponse {
	st := w.stream
	st.mu.Lock()
	defer st.mu.Unlock()
	v := st.site.Current()
	if st.id == "" || v.Number == 0 {
		return nil
	}
	var responses []*discoveryv3.DiscoveryResponse
	for _, kind := range release.Kinds() {
		url := kind.URL
		t := w.types[url]
		if t == nil || !v.Known(url) {
			continue
		}
		response, content := w.compose(kind, t, v)
		if response == nil {
			continue
		}
		why, refused := st.record.Has(url, "", response.GetVersionInfo())
		switch {
		case refused:
			st.account.Refused(url, why, content)
			continue
		case response.GetVersionInfo() == t.sent:
			if t.waits.IsZero() {
				st.account.Reached(url, v.Revision(url))
			}
			continue
		}
		w.nonce++
		response.Nonce = strconv.FormatUint(w.nonce, 36)
		t.sent, t.nonce, t.content, t.waits = response.GetVersionInfo(), response.GetNonce(), content, now
		responses = append(responses, response)
		st.site.Metrics.Responses.WithLabelValues(url).Inc()
		st.account.Settled(url, namesOf(content))
		st.account.Waits(url, now)
	}
	return responses
}

// compose makes the response that says all there is of a type, or nil.
func (w *Whole) compose(kind release.Kind, t *wholeType, v *view.View) (*discoveryv3.DiscoveryResponse, []ledger.Refusal) {
	url, names := kind.URL, t.names
	if t.wildcard {
		names = slices.Sorted(maps.Keys(v.All(w.stream.audience, url)))
	}
	response, hash := &discoveryv3.DiscoveryResponse{TypeUrl: url}, xxh3.New()
	var content []ledger.Refusal
	for _, name := range names {
		one := v.Get(w.stream.audience, url, name)
		if one == nil {
			continue
		}
		content = append(content, refusalOf(one))
		_, _ = hash.WriteString(one.Name + "\n" + one.Version + "\n") // a hash takes everything
		response.Resources = append(response.Resources, &anypb.Any{TypeUrl: one.Body.GetTypeUrl(), Value: one.Body.GetValue()})
	}
	if len(content) == 0 && !kind.Complete {
		return nil, nil
	}
	sum := hash.Sum128().Bytes()
	response.VersionInfo = hex.EncodeToString(sum[:])
	return response, content
}

func namesOf(content []ledger.Refusal) []string {
	names := make([]string, 0, len(content))
	for _, r := range content {
		names = append(names, r.Resource)
	}
	return names
}
