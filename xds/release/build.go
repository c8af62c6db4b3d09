package release

import (
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// format is part of every version: a change of how resources are encoded is a
// change of their version.
const format = "tollgate/1\n"

// Release is one state of everything. All of it is read-only.
type Release struct {
	// Revision names the sources that it was made from; empty when nobody said.
	Revision string

	byKind map[kind]map[string]*Resource
}

type kind struct {
	audience Audience
	url      string
}

// validator is what protoc-gen-validate gives Envoy's messages.
type validator interface{ ValidateAll() error }

// Of returns the same release under the name of the sources it was made from.
func (r *Release) Of(revision string) *Release { return &Release{Revision: revision, byKind: r.byKind} }

// New encodes and versions the objects. Its error joins every object that
// breaks a constraint of its proto and every name that occurs twice.
func New(objects []Object) (*Release, error) { return (&Release{}).Next(objects) }

// Next is New for what comes after a release: it shares with it what is the same.
func (r *Release) Next(objects []Object) (*Release, error) {
	next, err := build(objects)
	if err != nil {
		return nil, err
	}
	for k, resources := range next.byKind {
		before, same := r.byKind[k], 0
		for name, one := range resources {
			old := before[name]
			if old != nil && old != one && old.Version == one.Version && old.Pos == one.Pos {
				resources[name], one = old, old
			}
			if old == one {
				same++
			}
		}
		if same == len(resources) && same == len(before) {
			next.byKind[k] = before
		}
	}
	return next, nil
}

func build(objects []Object) (*Release, error) {
	r := &Release{byKind: map[kind]map[string]*Resource{}}
	var faults []error
	for i, e := range encode(objects) {
		o := objects[i]
		if err := errors.Join(e.invalid, e.unfit); err != nil {
			faults = append(faults, fmt.Errorf("%s %q: %w", o.Type, o.Name, err))
			continue
		}
		k := kind{o.Audience, o.Type}
		if r.byKind[k] == nil {
			r.byKind[k] = map[string]*Resource{}
		}
		if r.byKind[k][o.Name] != nil {
			faults = append(faults, fmt.Errorf("%s %q occurs twice for %s", o.Type, o.Name, o.Audience))
			continue
		}
		r.byKind[k][o.Name] = e.resource
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return r, nil
}

// With returns the release with some objects put in the place of those of the
// same name, or added. All else is shared with r, not made again; an object that
// says what r says already leaves its resource as it is.
func (r *Release) With(objects []Object) (*Release, error) {
	fresh, err := build(objects)
	if err != nil {
		return nil, err
	}
	out := &Release{Revision: r.Revision, byKind: maps.Clone(r.byKind)}
	for k, resources := range fresh.byKind {
		merged := maps.Clone(r.byKind[k])
		if merged == nil {
			merged = make(map[string]*Resource, len(resources))
		}
		changed := false
		for name, one := range resources {
			if old := merged[name]; old == nil || old.Version != one.Version {
				merged[name], changed = one, true
			}
		}
		if changed {
			out.byKind[k] = merged
		}
	}
	return out, nil
}

// Shares reports whether two releases hold the very same resources of a type,
// which is known without looking at them; false says nothing.
func (r *Release) Shares(other *Release, audience Audience, typeURL string) bool {
	k := kind{audience, typeURL}
	return reflect.ValueOf(r.byKind[k]).UnsafePointer() == reflect.ValueOf(other.byKind[k]).UnsafePointer()
}

// encoded is what becomes of one object.
type encoded struct {
	resource *Resource
	invalid  error // breaks a constraint
	unfit    error // cannot be encoded
}

// encode works on all cores. Checking and encoding an object are two pieces of
// work, because one route configuration may hold nearly all there is.
func encode(objects []Object) []encoded {
	out := make([]encoded, len(objects))
	var fresh []int
	for i := range objects {
		if out[i].resource = objects[i].known(); out[i].resource == nil {
			fresh = append(fresh, i)
		}
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), 2*len(fresh)) {
		workers.Go(func() {
			for {
				piece := int(next.Add(1)) - 1
				if piece >= 2*len(fresh) {
					return
				}
				o, e := &objects[fresh[piece/2]], &out[fresh[piece/2]]
				if piece%2 == 0 {
					e.resource, e.unfit = o.encode()
				} else if v, ok := o.Message.(validator); ok {
					e.invalid = v.ValidateAll()
				}
			}
		})
	}
	workers.Wait()
	for _, i := range fresh {
		if memo, e := objects[i].Memo, &out[i]; memo != nil && e.invalid == nil {
			memo.resource = e.resource
		}
	}
	return out
}

// known is what became of the object before, where it stands now; nil if nobody
// kept it.
func (o *Object) known() *Resource {
	if o.Memo == nil || o.Memo.resource == nil {
		return nil
	}
	if o.Memo.resource.Pos != o.Pos {
		moved := *o.Memo.resource
		moved.Pos = o.Pos
		o.Memo.resource = &moved
	}
	return o.Memo.resource
}

func (o *Object) encode() (*Resource, error) {
	data := o.Body
	switch {
	case o.Message == nil && data == nil:
		return nil, errors.New("has no content")
	case data == nil:
		var err error
		if data, err = (proto.MarshalOptions{Deterministic: true}).Marshal(o.Message); err != nil {
			return nil, err
		}
	}
	return &Resource{
		Audience: o.Audience, Type: o.Type, Name: o.Name, Version: version(o.Type, o.Name, data),
		Body: &anypb.Any{TypeUrl: o.Type, Value: data}, Pos: o.Pos, Refs: o.Refs,
	}, nil
}

func version(typeURL, name string, data []byte) string {
	h := xxh3.New()
	for _, part := range []string{format, typeURL, "\n", name, "\n"} {
		_, _ = h.WriteString(part) // a hash takes everything
	}
	_, _ = h.Write(data)
	sum := h.Sum128().Bytes()
	return hex.EncodeToString(sum[:])
}

// Get returns a resource, or nil.
func (r *Release) Get(audience Audience, typeURL, name string) *Resource {
	return r.byKind[kind{audience, typeURL}][name]
}

// Resources yields what there is of one type, in no order.
func (r *Release) Resources(audience Audience, typeURL string) iter.Seq[*Resource] {
	return maps.Values(r.byKind[kind{audience, typeURL}])
}

// Names returns the names of one type, sorted.
func (r *Release) Names(audience Audience, typeURL string) []string {
	return slices.Sorted(maps.Keys(r.byKind[kind{audience, typeURL}]))
}
