package traffic

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// wireTimeout bounds one hostile exchange.
const wireTimeout = 3 * time.Second

// Wire is what a raw exchange ended with. Status 0 means that the connection
// or the stream was cut without an answer.
type Wire struct {
	Status int
	Header http.Header
	Body   string
}

// HTTP1 writes bytes to an address as they are and reads the first answer.
func HTTP1(address string, raw []byte) (Wire, error) {
	c, err := net.DialTimeout("tcp", address, wireTimeout) //nolint:noctx // bounded by its timeout
	if err != nil {
		return Wire{}, err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(wireTimeout)); err != nil {
		return Wire{}, err
	}
	// The gateway may answer and close before it has read everything.
	_, writeErr := c.Write(raw)
	method, _, _ := strings.Cut(string(raw[:min(len(raw), 16)]), " ")
	return readHTTP1(bufio.NewReader(c), method, writeErr)
}

func readHTTP1(r *bufio.Reader, method string, writeErr error) (Wire, error) {
	for {
		response, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || writeErr != nil || isReset(err) {
				return Wire{}, nil
			}
			return Wire{}, err
		}
		if response.StatusCode/100 == 1 && response.StatusCode != http.StatusSwitchingProtocols {
			_ = response.Body.Close()
			continue
		}
		if response.StatusCode == http.StatusSwitchingProtocols {
			_ = response.Body.Close()
			return Wire{Status: response.StatusCode, Header: response.Header}, nil
		}
		body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
		_ = response.Body.Close()
		if err != nil && !isReset(err) {
			return Wire{}, fmt.Errorf("body of a %d: %w", response.StatusCode, err)
		}
		return Wire{Status: response.StatusCode, Header: response.Header, Body: string(body)}, nil
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// Frame is a header field of a raw HTTP/2 request, or, when Name is empty, a
// DATA frame of Value.
type Frame struct{ Name, Value string }

// HTTP2 sends one request over HTTP/2 with prior knowledge, header fields in
// order and unchecked, and reads the answer.
func HTTP2(address string, fields []Frame) (Wire, error) {
	c, err := net.DialTimeout("tcp", address, wireTimeout) //nolint:noctx // bounded by its timeout
	if err != nil {
		return Wire{}, err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(wireTimeout)); err != nil {
		return Wire{}, err
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return Wire{}, err
	}
	framer := http2.NewFramer(c, c)
	framer.AllowIllegalWrites = true
	if err := framer.WriteSettings(); err != nil {
		return Wire{}, err
	}
	if err := writeRequest(framer, fields); err != nil {
		return Wire{}, err
	}
	return readStream(framer)
}

func writeRequest(framer *http2.Framer, fields []Frame) error {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	var data []string
	for _, f := range fields {
		if f.Name == "" {
			data = append(data, f.Value)
			continue
		}
		if err := encoder.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value}); err != nil {
			return err
		}
	}
	if err := writeHeaderBlock(framer, block.Bytes(), len(data) == 0); err != nil {
		return err
	}
	for i, d := range data {
		if err := framer.WriteData(1, i == len(data)-1, []byte(d)); err != nil {
			return err
		}
	}
	return nil
}

func writeHeaderBlock(framer *http2.Framer, block []byte, end bool) error {
	const frame = 16 << 10
	first := block[:min(len(block), frame)]
	block = block[len(first):]
	err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: end, EndHeaders: len(block) == 0})
	for err == nil && len(block) > 0 {
		part := block[:min(len(block), frame)]
		block = block[len(part):]
		err = framer.WriteContinuation(1, len(block) == 0, part)
	}
	return err
}

func readStream(framer *http2.Framer) (Wire, error) {
	wire := Wire{Header: http.Header{}}
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			var op *net.OpError
			if errors.As(err, &op) && op.Timeout() {
				return wire, err
			}
			return wire, nil // cut
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				if field.Name == ":status" {
					_, err = fmt.Sscan(field.Value, &wire.Status)
				} else {
					wire.Header.Add(field.Name, field.Value)
				}
			}
			if f.StreamEnded() {
				return wire, err
			}
		case *http2.DataFrame:
			wire.Body += string(f.Data())
			if f.StreamEnded() {
				return wire, nil
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return wire, nil
		}
		if err != nil {
			return wire, nil // the peer has closed
		}
	}
}
