package admin

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"tollgate/xds/ledger"
)

// Status is who runs what at one moment.
type Status struct {
	Time   time.Time     `json:"time"`
	Served *Served       `json:"served,omitempty"`
	Nodes  []ledger.Line `json:"nodes"`
}

// DecodeStatus reads what GET /v1/status answers.
func DecodeStatus(body []byte) (Status, error) {
	var s Status
	if err := json.Unmarshal(body, &s); err != nil {
		return Status{}, fmt.Errorf("the answer is not a status of tollgate: %w", err)
	}
	return s, nil
}

// Refused says whether any node refused anything.
func (s Status) Refused() bool {
	for _, line := range s.Nodes {
		if line.State == ledger.Refused {
			return true
		}
	}
	return false
}

// Render writes the table that an operator reads, a line per node and type.
func (s Status) Render(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tTYPE\tCONFIG\tSTATE\tSINCE")
	for _, line := range s.Nodes {
		fmt.Fprintf(table, "%s\t%s\t%.8s\t%s\t%s\n", line.Node, line.Type, line.Config, line.State, s.Time.Sub(line.Since).Round(time.Second))
		for _, r := range line.Refusals {
			if r.Resource == "" {
				fmt.Fprintf(table, "  %s: %s\n", line.Type, r.Why)
				continue
			}
			fmt.Fprintf(table, "  %s %q: %s\n", line.Type, r.Resource, r.Why)
		}
	}
	return table.Flush()
}
