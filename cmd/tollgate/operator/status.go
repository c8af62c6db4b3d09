package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"tollgate/cmd/tollgate/verb"
	"tollgate/internal/settings"
	"tollgate/xds/admin"
)

// Status is the verb that shows what runs.
func Status() *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "What is served and who runs it; exit 1 if anything is refused, held back, apart or at fault", Args: cobra.NoArgs,
		RunE: verb.Do(func(cmd *cobra.Command, _ []string) error {
			s, err := settings.Load(cmd)
			if err != nil {
				return err
			}
			for {
				addresses, err := s.Asked() // of a process that may have started again
				if err != nil {
					return err
				}
				fleet := askAll(cmd.Context(), s, addresses)
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
	cmd.Flags().StringSlice(settings.AdminAddress, []string{"127.0.0.1:9900"}, "admin `ADDRESSES` of the control planes, host:port; where there is a folder of state, that of its control plane, else")
	cmd.Flags().Bool(settings.JSON, false, "the same as JSON")
	cmd.Flags().Bool("watch", false, "again every 2 s, until Ctrl-C")
	settings.FileFlag(cmd.Flags())
	cmd.Flags().String(settings.DataDir, "", "`FOLDER` of state, for the admin token and address (default: .tollgate, beside the gateway file if -f names it)")
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
					status.Faults, err = faults(ctx, s, address)
					fleet.Planes[i].Status = &status
				}
			}
			if err != nil {
				fleet.Planes[i].Status, fleet.Planes[i].Error = nil, err.Error()
			}
		})
	}
	group.Wait()
	return fleet
}

// faults are those of /readyz: of all that runs in the process.
func faults(ctx context.Context, s settings.Settings, address string) ([]string, error) {
	status, body, err := request(ctx, s, http.MethodGet, address, "/readyz")
	if err != nil {
		return nil, err
	}
	var ready struct {
		Status string
		Faults []string
	}
	if err := json.Unmarshal(body, &ready); err != nil || ready.Status == "" {
		return nil, refusal(address, "/readyz", status, body)
	}
	if ready.Status != "ok" && len(ready.Faults) == 0 {
		return []string{"it is " + ready.Status}, nil
	}
	return ready.Faults, nil
}

// show prints one answer; one control plane's JSON is that of its API, with the
// faults of its process.
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

// Ready is the verb of health checks.
func Ready() *cobra.Command {
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
