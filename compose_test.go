package tollgate_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	composetypes "github.com/compose-spec/compose-go/v2/types"
)

// TestComposeFile loads docker-compose.yml as the engine would, since not every
// machine has an engine: two proxies, two replicas of every role, Redis; every
// build target exists; every mounted file exists.
func TestComposeFile(t *testing.T) {
	project, err := loader.LoadWithContext(context.Background(), composetypes.ConfigDetails{
		WorkingDir:  ".",
		ConfigFiles: []composetypes.ConfigFile{{Filename: "docker-compose.yml"}},
	}, func(o *loader.Options) { o.SetProjectName("tollgate", true) })
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"envoy-1", "envoy-2", "xds-1", "xds-2", "extauthz-1", "extauthz-2", "ratelimit-1", "ratelimit-2", "user-1", "user-2", "order-1", "order-2", "redis"} {
		if _, err := project.GetService(name); err != nil {
			t.Errorf("docker-compose.yml: %v", err)
		}
	}
	dockerfile, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for name, service := range project.Services {
		if service.Build != nil && !strings.Contains(string(dockerfile), " AS "+service.Build.Target+"\n") {
			t.Errorf("service %s builds target %q, which Dockerfile does not have", name, service.Build.Target)
		}
		for _, volume := range service.Volumes {
			if volume.Type != composetypes.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(volume.Source); err != nil {
				t.Errorf("service %s mounts %s: %v", name, volume.Source, err)
			}
		}
	}
}
