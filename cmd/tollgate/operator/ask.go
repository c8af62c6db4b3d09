// Package operator is the verbs that ask a running process, over its admin
// address. Invariant: the admin token goes to nobody but the address that was
// named, and there only to the user whose file it is, root or the caller.
package operator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/envelope"
	"tollgate/internal/peer"
	"tollgate/internal/settings"
)

// ask makes one request of an admin address; an answer other than 200 is an error.
func ask(ctx context.Context, s settings.Settings, method, address, path string) ([]byte, error) {
	status, body, err := request(ctx, s, method, address, path)
	if err == nil && status != http.StatusOK {
		err = refusal(address, path, status, body)
	}
	return body, err
}

// refusal is the error of an answer that is none: the message of its envelope, or
// where it has none all of it.
func refusal(address, path string, status int, body []byte) error {
	var said envelope.Body
	switch {
	case status == http.StatusUnauthorized:
		return fmt.Errorf("%s%s wants the admin token: name the folder of state with --%s, or its gateway file with -f, or set TOLLGATE_ADMIN_TOKEN", address, path, settings.DataDir)
	case json.Unmarshal(body, &said) == nil && said.Error.Message != "":
		return fmt.Errorf("%s: %.500s", address, verb.Printable(said.Error.Message))
	}
	return fmt.Errorf("%s%s answered %d: %.500q", address, path, status, bytes.TrimSpace(body))
}

// request is one question to an admin address.
func request(ctx context.Context, s settings.Settings, method, address, path string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	asked, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, http.NoBody)
	if err != nil {
		return 0, nil, fmt.Errorf("--%s: %w", settings.AdminAddress, err)
	}
	token, owner, err := s.Bearer()
	if err != nil {
		return 0, nil, fmt.Errorf("admin token: %w", err)
	}
	if token != "" {
		asked.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DialContext: known(token, owner)},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is for who was named
	}
	response, err := client.Do(asked)
	var impostor *impostorError
	if errors.As(err, &impostor) {
		return 0, nil, impostor
	}
	if err != nil {
		return 0, nil, fmt.Errorf("nobody answers at --%s %s: is tollgate running there? (%w)", settings.AdminAddress, address, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(response.Body, 64<<20))
	return response.StatusCode, body, err
}

// impostorError is that of a port that somebody else has taken.
type impostorError struct {
	address string
	user    int
}

func (e *impostorError) Error() string {
	return fmt.Sprintf("%s is served by a process of user %d, whose the admin token is not: it was not sent: stop that process, or say with TOLLGATE_ADMIN_TOKEN that it may have it", e.address, e.user)
}

// known dials for who asks with a token that is from a file: a port of this
// machine belongs to whoever took it first, and that must be the file's owner,
// root or we.
func known(token string, owner int) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil || token == "" || owner < 0 {
			return c, err
		}
		for _, user := range peer.ServedBy(c) {
			if user != owner && user != 0 && user != os.Geteuid() {
				return nil, errors.Join(&impostorError{address, user}, c.Close())
			}
		}
		return c, nil
	}
}
