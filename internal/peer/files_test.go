package peer_test

import (
	"crypto/x509"
	"testing"
	"time"

	"tollgate/internal/peer"
)

// TestEndsSoon: a week before its end, or in the last third of a short life.
func TestEndsSoon(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		life, left time.Duration
		soon       bool
	}{
		{365 * day, 8 * day, false},
		{365 * day, 7 * day, false},
		{365 * day, 7*day - time.Second, true},
		{365 * day, -time.Second, true},
		{6 * day, 3 * day, false},
		{6 * day, 2*day - time.Second, true},
		{time.Minute, 30 * time.Second, false},
		{time.Minute, 0, true},
	} {
		leaf := &x509.Certificate{NotAfter: now.Add(c.left), NotBefore: now.Add(c.left - c.life)}
		if err := peer.EndsSoon("it", leaf, now); (err != nil) != c.soon {
			t.Errorf("%s of %s left: %v", c.left, c.life, err)
		}
	}
}
