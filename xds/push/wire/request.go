package wire

import (
	"errors"
	"unicode/utf8"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// deltaVersions is DeltaDiscoveryRequest.initial_resource_versions: a client that
// comes back names all that it has, 10,000 clusters and as many endpoints.
const deltaVersions = 5

var errRequest = errors.New("not a DeltaDiscoveryRequest")

// decode is proto.Unmarshal for a request; the versions, which take nearly all of
// its time by reflection, are read here. Their names are parts of one string: who
// keeps one should keep a copy.
func decode(data []byte, r *discoveryv3.DeltaDiscoveryRequest) error {
	rest := make([]byte, 0, min(len(data), 64<<10))
	all := ""
	versions := map[string]string{}
	for at := 0; at < len(data); {
		number, kind, n := protowire.ConsumeTag(data[at:])
		if n < 0 {
			return errRequest
		}
		length := protowire.ConsumeFieldValue(number, kind, data[at+n:])
		if length < 0 {
			return errRequest
		}
		end := at + n + length
		if number != deltaVersions || kind != protowire.BytesType {
			rest = append(rest, data[at:end]...)
			at = end
			continue
		}
		if all == "" {
			all = string(data)
			versions = make(map[string]string, len(data)/(end-at))
		}
		_, prefix := protowire.ConsumeVarint(data[at+n:])
		name, version, ok := entry(all[at+n+prefix : end])
		if !ok {
			return errRequest
		}
		versions[name] = version
		at = end
	}
	if err := proto.Unmarshal(rest, r); err != nil {
		return err
	}
	if len(versions) > 0 {
		r.InitialResourceVersions = versions
	}
	return nil
}

// entry reads one of a map of strings. The last of a field that occurs twice
// counts.
func entry(data string) (key, value string, ok bool) {
	for len(data) > 0 {
		// A tag that is none of the two that are expected is left to its own kind.
		number, kind, n := protowire.ConsumeTag([]byte(data[:min(len(data), 10)]))
		if n < 0 {
			return "", "", false
		}
		if kind != protowire.BytesType || number > 2 {
			length := protowire.ConsumeFieldValue(number, kind, []byte(data[n:]))
			if length < 0 {
				return "", "", false
			}
			data = data[n+length:]
			continue
		}
		size, prefix := protowire.ConsumeVarint([]byte(data[n:min(len(data), n+10)]))
		if prefix < 0 || size > uint64(len(data)-n-prefix) {
			return "", "", false
		}
		from := n + prefix
		word := data[from : from+int(size)]
		if !utf8.ValidString(word) {
			return "", "", false
		}
		if number == 1 {
			key = word
		} else {
			value = word
		}
		data = data[from+int(size):]
	}
	return key, value, true
}
