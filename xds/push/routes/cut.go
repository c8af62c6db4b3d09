package routes

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// Numbers of fields in envoy/config/route/v3.
const (
	configHosts    = 2  // RouteConfiguration.virtual_hosts
	hostDomains    = 2  // VirtualHost.domains
	hostRoutes     = 3  // VirtualHost.routes
	routeAction    = 2  // Route.route
	routeName      = 14 // Route.name
	actionCluster  = 1  // RouteAction.cluster
	actionWeighted = 3  // RouteAction.weighted_clusters
	actionMirrors  = 30 // RouteAction.request_mirror_policies
	splitClusters  = 1  // WeightedCluster.clusters
	splitName      = 1  // WeightedCluster.ClusterWeight.name
	mirrorCluster  = 1  // RouteAction.RequestMirrorPolicy.cluster
)

// config is a route configuration whose routes stay encoded; all in it are parts
// of its bytes.
type config struct {
	rest  []byte // its other fields
	hosts []host
}

type host struct {
	rest    []byte // its other fields, domains among them
	domains []string
	routes  []route
}

type route struct {
	name     string
	clusters []string // that it may send a request to
	data     []byte
}

// cut returns nil for what is no message.
func cut(data []byte) *config {
	c := &config{}
	ok := each(data, func(number protowire.Number, value, field []byte) bool {
		if number != configHosts {
			c.rest = append(c.rest, field...)
			return true
		}
		h, ok := cutHost(value)
		c.hosts = append(c.hosts, h)
		return ok
	})
	if !ok {
		return nil
	}
	return c
}

func cutHost(data []byte) (h host, ok bool) {
	ok = each(data, func(number protowire.Number, value, field []byte) bool {
		if number == hostRoutes {
			r := route{data: value}
			whole := r.read()
			h.routes = append(h.routes, r)
			return whole
		}
		if number == hostDomains {
			h.domains = append(h.domains, string(value))
		}
		h.rest = append(h.rest, field...)
		return true
	})
	return h, ok
}

// read learns the name and the clusters of a route.
func (r *route) read() bool {
	named := func(wanted protowire.Number) func(protowire.Number, []byte, []byte) bool {
		return func(number protowire.Number, value, _ []byte) bool {
			if number == wanted {
				r.clusters = append(r.clusters, string(value))
			}
			return true
		}
	}
	return each(r.data, func(number protowire.Number, value, _ []byte) bool {
		switch number {
		case routeName:
			r.name = string(value)
		case routeAction:
			return each(value, func(number protowire.Number, value, _ []byte) bool {
				switch number {
				case actionCluster:
					r.clusters = append(r.clusters, string(value))
				case actionWeighted:
					return each(value, func(number protowire.Number, value, _ []byte) bool {
						return number != splitClusters || each(value, named(splitName))
					})
				case actionMirrors:
					return each(value, named(mirrorCluster))
				}
				return true
			})
		}
		return true
	})
}

// each calls take with every field of a message: its value, if it is of bytes,
// and the whole of it. It returns false for what is no message, or when take does.
func each(data []byte, take func(number protowire.Number, value, field []byte) bool) bool {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return false
		}
		length := protowire.ConsumeFieldValue(number, kind, data[n:])
		if length < 0 {
			return false
		}
		var value []byte
		if kind == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(data[n:])
		}
		if !take(number, value, data[:n+length]) {
			return false
		}
		data = data[n+length:]
	}
	return true
}

// encode puts a configuration together again.
func (c *config) encode() []byte {
	size := len(c.rest)
	for _, h := range c.hosts {
		size += 12 + h.size()
	}
	out := append(make([]byte, 0, size), c.rest...)
	for _, h := range c.hosts {
		out = protowire.AppendVarint(protowire.AppendTag(out, configHosts, protowire.BytesType), uint64(h.size()))
		out = append(out, h.rest...)
		for _, r := range h.routes {
			out = protowire.AppendBytes(protowire.AppendTag(out, hostRoutes, protowire.BytesType), r.data)
		}
	}
	return out
}

func (h host) size() int {
	size := len(h.rest)
	for _, r := range h.routes {
		size += protowire.SizeTag(hostRoutes) + protowire.SizeBytes(len(r.data))
	}
	return size
}
