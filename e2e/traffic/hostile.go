package traffic

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// Target is where a hostile request goes, and the address of this machine that
// it comes from ("": any). With a SNI it goes over TLS, under that name and
// without a look at the certificate.
type Target struct{ Address, SNI, From string }

func (to Target) dial(protocol string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: wireTimeout}
	if to.From != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(to.From)}
	}
	var c net.Conn
	var err error
	if to.SNI == "" {
		c, err = dialer.Dial("tcp", to.Address)
	} else {
		c, err = tls.DialWithDialer(dialer, "tcp", to.Address, &tls.Config{ //nolint:noctx // bounded by its timeout
			ServerName: to.SNI, NextProtos: []string{protocol}, InsecureSkipVerify: true, //nolint:gosec // whom we talk to is not what is proven
		})
	}
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(wireTimeout)); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Answers writes bytes over HTTP/1 as they are and reads the first answer, and
// what else comes until the connection has been silent for linger: a request
// hidden behind the first shows by its answer.
func (to Target) Answers(raw []byte, linger time.Duration) ([]Wire, error) {
	c, err := to.dial("http/1.1")
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	// The gateway may answer and close before it has read everything.
	_, writeErr := c.Write(raw)
	method, _, _ := strings.Cut(string(raw[:min(len(raw), 16)]), " ")
	reader := bufio.NewReader(c)
	first, err := readHTTP1(reader, method, writeErr)
	answers := []Wire{first}
	for err == nil && linger > 0 && answers[len(answers)-1].Status != 0 {
		if err := c.SetReadDeadline(time.Now().Add(linger)); err != nil {
			break
		}
		next, late := readHTTP1(reader, "GET", nil)
		if late != nil || next.Status == 0 {
			break
		}
		answers = append(answers, next)
	}
	return answers, err
}

// Stream sends one request over HTTP/2 with header fields in order and
// unchecked, and reads the answer.
func (to Target) Stream(fields []Frame) (Wire, error) {
	c, err := to.dial("h2")
	if err != nil {
		return Wire{}, err
	}
	defer func() { _ = c.Close() }()
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
