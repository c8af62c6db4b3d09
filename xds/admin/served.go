package admin

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
)

// Served is which files a control plane serves.
type Served struct {
	Revision string     `json:"revision"` // of the sources; equal where the files are
	Since    time.Time  `json:"since"`
	Files    []string   `json:"files"`
	Held     []HeldFile `json:"held,omitempty"`
}

// HeldFile is a file that is not served as it is on disk.
type HeldFile struct {
	File   string   `json:"file"` // "": the set as a whole
	Faults []string `json:"faults"`
}

// render writes the lines that stand above the table.
func (s *Served) render(w io.Writer, now time.Time) {
	fmt.Fprintf(w, "REVISION %s since %s (%s), of %s\n", visible(s.Revision), s.Since.UTC().Format(time.RFC3339), now.Sub(s.Since).Round(time.Second), visible(strings.Join(s.Files, ", ")))
	for _, h := range s.Held {
		if h.File == "" {
			fmt.Fprintln(w, "REFUSED the files as they are on disk; what was good before is served")
		} else {
			fmt.Fprintf(w, "HELD BACK %s; its last good text is served\n", visible(h.File))
		}
		for _, fault := range h.Faults {
			fmt.Fprintf(w, "  %s\n", visible(fault))
		}
	}
}

// visible shows what would move a terminal's cursor instead of moving it.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '�'
		}
		return r
	}, text)
}

// Plane is what one control plane answered.
type Plane struct {
	Address string  `json:"address"`
	Status  *Status `json:"status,omitempty"`
	Error   string  `json:"error,omitempty"` // why there is no status
}

// Fleet is what all control planes answered.
type Fleet struct {
	Planes []Plane `json:"control_planes"`
}

// Apart are the control planes that serve another revision than the first that
// answered; empty when all agree.
func (f Fleet) Apart() []string {
	first := ""
	var apart []string
	for _, p := range f.Planes {
		switch {
		case p.Status == nil || p.Status.Served == nil:
		case first == "":
			first = p.Status.Served.Revision
		case p.Status.Served.Revision != first:
			apart = append(apart, p.Address)
		}
	}
	return apart
}

// Unwell says in a line what an operator must look after; "" when nothing.
func (f Fleet) Unwell() string {
	var why []string
	for _, p := range f.Planes {
		at, before := "", len(why)
		if len(f.Planes) > 1 {
			at = visible(p.Address) + ": "
		}
		switch {
		case p.Status == nil:
			why = append(why, at+visible(p.Error))
			continue
		case p.Status.Refused():
			why = append(why, at+"a node refused what it was sent; it keeps serving its last good config")
		}
		if p.Status.Late() {
			why = append(why, at+"a node has not answered for what it was sent for over 5 s")
		}
		if p.Status.Alone() {
			why = append(why, fmt.Sprintf("%sits own proxy, %q, is not connected", at, p.Status.Proxy))
		}
		if s := p.Status.Served; s != nil && len(s.Held) > 0 {
			why = append(why, at+"a file on disk is not what is served")
		}
		if len(p.Status.Faults) > 0 && len(why) == before {
			why = append(why, at+"it serves on, with faults to mend")
		}
	}
	if apart := f.Apart(); len(apart) > 0 {
		why = append(why, "control planes serve different revisions: "+visible(strings.Join(apart, ", "))+" and the first")
	}
	return strings.Join(why, "\n")
}

// Render writes what an operator reads: of each control plane what it serves,
// then its nodes.
func (f Fleet) Render(w io.Writer) error {
	for i, p := range f.Planes {
		if len(f.Planes) > 1 {
			if i > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprintf(w, "CONTROL PLANE %s\n", visible(p.Address))
		}
		if p.Status == nil {
			fmt.Fprintf(w, "UNREACHABLE %s\n", visible(p.Error))
			continue
		}
		if p.Status.Served != nil {
			p.Status.Served.render(w, p.Status.Time)
		}
		for _, fault := range p.Status.Others() {
			fmt.Fprintf(w, "FAULT %s\n", visible(fault))
		}
		if err := p.Status.Render(w); err != nil {
			return err
		}
	}
	if apart := f.Apart(); len(apart) > 0 {
		fmt.Fprintf(w, "\nAPART %s: not the revision of the first\n", visible(strings.Join(apart, ", ")))
	}
	return nil
}
