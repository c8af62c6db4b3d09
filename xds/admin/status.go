package admin

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"

	"tollgate/xds/ledger"
)

// Status is who runs what at one moment.
type Status struct {
	Time   time.Time     `json:"time"`
	Served *Served       `json:"served,omitempty"`
	Proxy  string        `json:"proxy,omitempty"` // node id of the control plane's own proxy; none in a fleet
	Nodes  []ledger.Line `json:"nodes"`
	// Faults are those of the whole process, by its /readyz; who asks adds them.
	Faults []string `json:"faults,omitempty"`
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
	return slices.ContainsFunc(s.Nodes, func(l ledger.Line) bool { return l.State == ledger.Refused })
}

// Late says whether any node owes an answer for too long.
func (s Status) Late() bool {
	return slices.ContainsFunc(s.Nodes, func(l ledger.Line) bool { return l.Late(s.Time) })
}

// Alone says whether the control plane's own proxy is not connected to it.
func (s Status) Alone() bool {
	return s.Proxy != "" && !slices.ContainsFunc(s.Nodes, func(l ledger.Line) bool { return l.Node == s.Proxy && l.State != ledger.Gone })
}

// Others are the faults that neither the nodes' lines nor the files held back show.
func (s Status) Others() []string {
	shown := ledger.Faults(s.Nodes, s.Time)
	if s.Served != nil {
		for _, h := range s.Served.Held {
			shown = append(shown, h.Faults...)
		}
	}
	return slices.DeleteFunc(slices.Clone(s.Faults), func(fault string) bool { return slices.Contains(shown, fault) })
}

// Encode writes JSON in which nothing moves a terminal's cursor: JSON itself
// escapes the control characters of ASCII only.
func Encode(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for _, r := range string(data) {
		if unicode.IsPrint(r) {
			out.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&out, "\\u%04x", unit)
		}
	}
	out.WriteByte('\n')
	_, err = w.Write(out.Bytes())
	return err
}

// Render writes the table that an operator reads, a line per node and type.
func (s Status) Render(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tTYPE\tREVISION\tSTATE\tSINCE")
	for _, line := range s.Nodes {
		node := visible(line.Node)
		if line.Streams > 1 {
			node = fmt.Sprintf("%s (%d of %d)", node, line.Stream, line.Streams)
		}
		fmt.Fprintf(table, "%s\t%s\t%.8s\t%s\t%s\n", node, visible(line.Type), visible(cmp.Or(line.Revision, "-")), visible(string(line.State)), s.Time.Sub(line.Since).Round(time.Second))
		for _, r := range line.Refusals {
			said := line.Type
			if r.Resource != "" {
				said = fmt.Sprintf("%s %q", said, r.Resource)
			}
			if r.Pos != "" {
				said = r.Pos + ": " + said
			}
			fmt.Fprintf(table, "  %s: %s\n", visible(said), visible(r.Why))
		}
	}
	return table.Flush()
}
