package contract

// Registration is what an instance says of itself every few seconds, as the body
// of PUT /v1/registry/{service}/{instance}.
type Registration struct {
	Address string `json:"address"`
	Weight  uint32 `json:"weight"`
	Zone    string `json:"zone"`
	State   string `json:"state"` // StateUp (or empty), StateDraining
	TTL     int    `json:"ttl_s"`
}

// What an instance says of its state.
const (
	StateUp       = "up"
	StateDraining = "draining"
)
