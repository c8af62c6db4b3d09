// Package wire encodes what goes to clients. Invariant: equal content is encoded
// once, and the same bytes go to every stream; a stream's own are its nonce.
package wire

import (
	"slices"
	"sync"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"tollgate/xds/release"
)

// Numbers of fields in envoy/service/discovery/v3 and google/protobuf/any.proto.
const (
	deltaSystemVersion = 1
	deltaResources     = 2
	deltaTypeURL       = 4
	deltaNonce         = 5
	deltaRemoved       = 6

	resourceVersion = 1
	resourceBody    = 2
	resourceName    = 3

	anyTypeURL = 1
	anyValue   = 2
)

// Frame is a response without its nonce. It is read-only.
type Frame struct {
	URL       string // the type of the resources
	Resources []*release.Resource
	Removed   []string // names of what is not there any more
	data      []byte
}

// Response is a frame on its way to one stream.
type Response struct {
	Frame *Frame
	nonce []byte
}

// With returns the response of a stream.
func (f *Frame) With(nonce string) *Response {
	return &Response{f, field(make([]byte, 0, fieldSize(len(nonce))), deltaNonce, nonce)}
}

// buffers are what goes to the transport, which must not change them.
func (r *Response) buffers() mem.BufferSlice {
	return mem.BufferSlice{mem.SliceBuffer(r.Frame.data), mem.SliceBuffer(r.nonce)}
}

const (
	maxFrames = 4_096 // that are remembered, and
	maxBytes  = 16 << 20
)

// Frames makes frames and remembers the newest, for the other streams. The zero
// value is ready; it is safe for concurrent use.
type Frames struct {
	mu      sync.Mutex
	made    map[key]*Frame
	bytes   int
	encoded int
}

// key tells nearly all frames apart.
type key struct {
	url         string
	first, last *release.Resource
	n, removed  int
	gone        string
}

// Of returns the frame of some resources of a type and of the names of what is
// not there any more; neither may be changed afterwards.
func (f *Frames) Of(url string, resources []*release.Resource, removed []string) *Frame {
	k := key{url: url, n: len(resources), removed: len(removed)}
	if k.n > 0 {
		k.first, k.last = resources[0], resources[k.n-1]
	}
	if k.removed > 0 {
		k.gone = removed[0]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.made[k]; known != nil && slices.Equal(known.Resources, resources) && slices.Equal(known.Removed, removed) {
		return known
	}
	one := &Frame{Resources: resources, Removed: removed, URL: url}
	one.encode()
	f.encoded++
	if f.made == nil || len(f.made) >= maxFrames || f.bytes+len(one.data) > maxBytes {
		f.made, f.bytes = map[key]*Frame{}, 0
	}
	f.made[k] = one
	f.bytes += len(one.data)
	return one
}

// Encoded is how many frames were encoded.
func (f *Frames) Encoded() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.encoded
}

func (f *Frame) encode() {
	size := len(f.URL) + 16
	for _, one := range f.Resources {
		size += resourceSize(one) + 16
	}
	out := make([]byte, 0, size)
	if n := len(f.Resources); n > 0 {
		out = field(out, deltaSystemVersion, f.Resources[n-1].Version)
	}
	for _, one := range f.Resources {
		out = protowire.AppendVarint(protowire.AppendTag(out, deltaResources, protowire.BytesType), uint64(resourceSize(one)))
		out = field(out, resourceVersion, one.Version)
		out = protowire.AppendVarint(protowire.AppendTag(out, resourceBody, protowire.BytesType), uint64(bodySize(one)))
		out = field(out, anyTypeURL, one.Body.GetTypeUrl())
		out = field(out, anyValue, one.Body.GetValue())
		out = field(out, resourceName, one.Name)
	}
	out = field(out, deltaTypeURL, f.URL)
	for _, name := range f.Removed {
		out = protowire.AppendString(protowire.AppendTag(out, deltaRemoved, protowire.BytesType), name)
	}
	f.data = out
}

// field adds what is not empty.
func field[T string | []byte](out []byte, number protowire.Number, value T) []byte {
	if len(value) == 0 {
		return out
	}
	return append(protowire.AppendVarint(protowire.AppendTag(out, number, protowire.BytesType), uint64(len(value))), value...)
}

func fieldSize(length int) int {
	if length == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(length) // tags here take one byte
}

func bodySize(one *release.Resource) int {
	return fieldSize(len(one.Body.GetTypeUrl())) + fieldSize(len(one.Body.GetValue()))
}

func resourceSize(one *release.Resource) int {
	return fieldSize(len(one.Version)) + 1 + protowire.SizeBytes(bodySize(one)) + fieldSize(len(one.Name))
}
