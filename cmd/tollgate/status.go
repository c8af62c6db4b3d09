package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/peer"
	"tollgate/internal/settings"
	"tollgate/xds/admin"
)

func statusVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "What is served and who runs it; exit 1 if anything is refused, held back or apart", Args: cobra.NoArgs,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			for {
				fleet := askAll(cmd.Context(), s, s.List(settings.AdminAddress))
				if err := show(cmd.OutOrStdout(), fleet, s.On(settings.JSON), s.On("watch")); err != nil {
					return err
				}
				if !s.On("watch") {
					if why := fleet.Unwell(); why != "" {
						return errors.New(why)
					}
					return nil
				}
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(watchEvery):
				}
			}
		}),
	}
	cmd.Flags().StringSlice(settings.AdminAddress, []string{"127.0.0.1:9900"}, "admin addresses of the control planes, `host:port,…`")
	cmd.Flags().Bool(settings.JSON, false, "the same as JSON")
	cmd.Flags().Bool("watch", false, "again every 2 s, until Ctrl-C")
	settings.FileFlag(cmd.Flags())
	cmd.Flags().String(settings.DataDir, "", "`FOLDER` of state, for the admin token (default: .tollgate, beside the gateway file if -f names it)")
	return cmd
}

// watchEvery is how often --watch asks.
const watchEvery = 2 * time.Second

// askAll asks every control plane at once.
func askAll(ctx context.Context, s settings.Settings, addresses []string) admin.Fleet {
	fleet := admin.Fleet{Planes: make([]admin.Plane, len(addresses))}
	var group sync.WaitGroup
	for i, address := range addresses {
		group.Go(func() {
			fleet.Planes[i] = admin.Plane{Address: address}
			body, err := ask(ctx, s, http.MethodGet, address, "/v1/status")
			if err == nil {
				var status admin.Status
				if status, err = admin.DecodeStatus(body); err == nil {
					fleet.Planes[i].Status = &status
				}
			}
			if err != nil {
				fleet.Planes[i].Error = err.Error()
			}
		})
	}
	group.Wait()
	return fleet
}

// show prints one answer; one control plane's JSON is that of its API.
func show(w io.Writer, fleet admin.Fleet, asJSON, again bool) error {
	switch {
	case asJSON && len(fleet.Planes) == 1 && fleet.Planes[0].Status != nil:
		return admin.Encode(w, fleet.Planes[0].Status)
	case asJSON:
		return admin.Encode(w, fleet)
	case len(fleet.Planes) == 1 && fleet.Planes[0].Status == nil && !again:
		return nil // its error says it all
	}
	if f, ok := w.(*os.File); ok && again && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(w, "\x1b[H\x1b[2J")
	}
	return fleet.Render(w)
}

func readyVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ready", Short: "Exit 0 when a role is ready (for health checks of containers)", Args: cobra.NoArgs, Hidden: true,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			_, err = ask(cmd.Context(), s, http.MethodGet, s.Text(settings.AdminAddress), "/readyz")
			return err
		}),
	}
	cmd.Flags().String(settings.AdminAddress, "127.0.0.1:9900", "admin `ADDRESS` of the role")
	return cmd
}

// ask makes one request of an admin address.
func ask(ctx context.Context, s settings.Settings, method, address, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", settings.AdminAddress, err)
	}
	token, owner, err := s.Bearer()
	if err != nil {
		return nil, fmt.Errorf("admin token: %w", err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DialContext: known(token, owner)},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is for who was named
	}
	response, err := client.Do(request)
	var impostor *impostorError
	if errors.As(err, &impostor) {
		return nil, impostor
	}
	if err != nil {
		return nil, fmt.Errorf("nobody answers at --%s %s: is tollgate running there? (%w)", settings.AdminAddress, address, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusUnauthorized {
		return nil, fmt.Errorf("%s%s wants the admin token: name the folder of state with --%s, or its gateway file with -f, or set TOLLGATE_ADMIN_TOKEN", address, path, settings.DataDir)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s%s answered %d: %.500q", address, path, response.StatusCode, bytes.TrimSpace(body))
	}
	return body, nil
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
