package ledger

import (
	"fmt"
	"maps"
	"slices"
)

// Connected says whether any stream of a node is open that has asked for
// anything.
func (l *Ledger) Connected(node string) bool {
	return slices.ContainsFunc(l.Lines(), func(line Line) bool { return line.Node == printable(node) && line.State != Gone })
}

// Follows returns nil once a node, on a stream that is open, has said of the
// listeners and routes of these sources what it makes of them: took them, or
// refused them. Routes that wait for a cluster that warms, or that was refused,
// are not waited for: their neighbours are in force. The error says what is
// missing.
func (l *Ledger) Follows(node, revision string) error {
	streams := map[int]map[string]Line{}
	for _, line := range l.Lines() {
		if line.Node != printable(node) || line.State == Gone {
			continue
		}
		if streams[line.Stream] == nil {
			streams[line.Stream] = map[string]Line{}
		}
		streams[line.Stream][line.Type] = line
	}
	err := fmt.Errorf("the proxy %q is not connected to this control plane", node)
	for _, n := range slices.Sorted(maps.Keys(streams)) {
		if err = follows(streams[n], node, revision); err == nil {
			return nil
		}
	}
	return err
}

func follows(lines map[string]Line, node, revision string) error {
	listeners, routes := lines["listener"], lines["routeconfiguration"]
	if listeners.State == Refused {
		return nil // and asks for no routes, perhaps
	}
	if !listeners.settled(revision) {
		return fmt.Errorf("the proxy %q has not answered for its listeners", node)
	}
	held := lines["cluster"].State == Warming || lines["cluster"].State == Refused
	if routes.settled(revision) || routes.State == Synced && held {
		return nil
	}
	return fmt.Errorf("the proxy %q has not answered for its routes", node)
}

func (l Line) settled(revision string) bool {
	return l.State == Refused || l.State == Synced && l.Revision == revision
}
