package contract

import (
	"strconv"
	"strings"
)

// LimitDomain is what proxies send with every descriptor.
const LimitDomain = "tollgate"

// SlotKey is the first entry of every descriptor; its value is the slot that
// the descriptor feeds.
const SlotKey = "limit"

// AddressKey is the entry that holds the address of the client.
const AddressKey = "remote_address"

// GatewaySet is the rule set of what is limited everywhere.
const GatewaySet = "gateway"

// PlanSet names the rule set of a plan.
func PlanSet(plan string) string { return "plan/" + plan }

// RouteSet names the rule set of a route.
func RouteSet(route string) string { return routeSets + route }

const routeSets = "route/"

// RouteSetOf returns the rule set of a route that a slot belongs to: the slots
// of a route's limits are the name of its set, "/" and the limit's own name.
func RouteSetOf(slot string) (set string, ok bool) {
	cut := strings.LastIndexByte(slot, '/')
	if !strings.HasPrefix(slot, routeSets) || cut <= len(routeSets) {
		return "", false
	}
	return slot[:cut], true
}

// PlanSlot names the slot that the place-th limits of all plans share when they
// count by the same words: a descriptor is made before the plan is known.
func PlanSlot(place int, by []string) string {
	return "plan/" + strconv.Itoa(place) + "/" + strings.Join(by, ",")
}
