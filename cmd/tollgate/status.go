package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/settings"
	"tollgate/xds/admin"
)

func statusVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Who runs what: a line per node and type; exit 1 if anything is refused", Args: cobra.NoArgs,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			body, err := ask(cmd.Context(), s.Text(settings.AdminAddress), "/v1/status")
			if err != nil {
				return err
			}
			status, err := admin.DecodeStatus(body)
			if err != nil {
				return err
			}
			if s.On(settings.JSON) {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", bytes.TrimSpace(body))
			} else {
				err = status.Render(cmd.OutOrStdout())
			}
			if err == nil && status.Refused() {
				err = errors.New("a node refused what it was sent; it keeps serving its last good config")
			}
			return err
		}),
	}
	cmd.Flags().String(settings.AdminAddress, "127.0.0.1:9900", "admin `ADDRESS` of the control plane")
	cmd.Flags().Bool(settings.JSON, false, "the same as JSON")
	return cmd
}

func readyVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ready", Short: "Exit 0 when a role is ready (for health checks of containers)", Args: cobra.NoArgs, Hidden: true,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			_, err = ask(cmd.Context(), s.Text(settings.AdminAddress), "/readyz")
			return err
		}),
	}
	cmd.Flags().String(settings.AdminAddress, "127.0.0.1:9900", "admin `ADDRESS` of the role")
	return cmd
}

// ask gets one page of an admin address.
func ask(ctx context.Context, address, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", settings.AdminAddress, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("nobody answers at --%s %s: is tollgate running there? (%w)", settings.AdminAddress, address, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s%s answered %d: %.500s", address, path, response.StatusCode, bytes.TrimSpace(body))
	}
	return body, nil
}
