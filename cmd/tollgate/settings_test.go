package main

import (
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tollgate/internal/settings"
)

// leaves are the commands that do something.
func leaves(cmd *cobra.Command) []*cobra.Command {
	if !cmd.HasSubCommands() {
		return []*cobra.Command{cmd}
	}
	var out []*cobra.Command
	for _, child := range cmd.Commands() {
		out = append(out, leaves(child)...)
	}
	return out
}

// sample is a value that no flag has by itself.
func sample(f *pflag.Flag) (yaml, variable string, want []string) {
	switch {
	case f.Value.Type() == "bool":
		return "true", "true", []string{"true"}
	case f.Value.Type() == "int":
		return "7", "7", []string{"7"}
	case f.Value.Type() == "duration":
		return "7s", "7s", []string{"7s"}
	case f.Name == settings.AllowUID:
		return "[1001, 1002]", "1001,1002", []string{"1001", "1002"}
	case f.Value.Type() == "stringSlice":
		return "[10.9.8.7:1, 10.9.8.7:2]", "10.9.8.7:1,10.9.8.7:2", []string{"10.9.8.7:1", "10.9.8.7:2"}
	case strings.HasSuffix(f.Name, "-address"):
		return `"127.9.8.7:1"`, "127.9.8.7:1", []string{"127.9.8.7:1"}
	}
	return "told", "told", []string{"told"}
}

// loaded runs one verb with everything but its doing and returns what it was told.
func loaded(t *testing.T, path []string, args ...string) settings.Settings {
	t.Helper()
	root := rootCommand()
	cmd, _, err := root.Find(path)
	if err != nil {
		t.Fatal(err)
	}
	var got settings.Settings
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		got, err = settings.Load(cmd)
		return err
	}
	root.SetArgs(append(slices.Clone(path), args...))
	root.SetOut(io.Discard)
	root.SetErr(io.Discard)
	if err := root.Execute(); err != nil {
		t.Fatalf("%v: %v", path, err)
	}
	return got
}

// TestEveryFlagInFileAndEnvironment: of every verb, every flag is a key of
// --settings and a variable; a flag wins over both, a variable over the file.
func TestEveryFlagInFileAndEnvironment(t *testing.T) {
	flags := 0
	for _, cmd := range leaves(rootCommand()) {
		path := strings.Fields(cmd.CommandPath())[1:]
		cmd.InheritedFlags() // merges those of the root
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" || f.Name == settings.SettingsFile {
				return
			}
			flags++
			t.Run(strings.Join(append(slices.Clone(path), f.Name), "/"), func(t *testing.T) {
				yaml, variable, want := sample(f)
				check := func(how string, s settings.Settings, want []string) {
					t.Helper()
					got := []string{s.Text(f.Name)}
					if f.Value.Type() == "stringSlice" {
						got = s.List(f.Name)
					}
					if !slices.Equal(got, want) {
						t.Errorf("%s: %q, want %q", how, got, want)
					}
				}
				s := file(t, "settings.yaml", f.Name+": "+yaml+"\n")
				check("--settings", loaded(t, path, "--settings", s), want)
				if f.Value.Type() != "bool" {
					other := file(t, "settings.yaml", f.Name+": "+strings.ReplaceAll(yaml, "7", "8")+"\n")
					check("flag over file", loaded(t, path, "--settings", other, "--"+f.Name, variable), want)
					t.Setenv("TOLLGATE_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")), variable)
					check("variable over file", loaded(t, path, "--settings", other), want)
				}
				t.Setenv("TOLLGATE_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")), variable)
				check("variable", loaded(t, path), want)
				t.Setenv("TOLLGATE_SETTINGS", s)
				check("file named by a variable", loaded(t, path), want)
			})
		})
	}
	if flags < 80 {
		t.Errorf("saw %d flags of all verbs: the walk is broken", flags)
	}
}

// TestRolesTakeTheirSettingsFile runs each role as shipped: what stops it is the
// level that only the file names, so the file was read and its other keys taken.
func TestRolesTakeTheirSettingsFile(t *testing.T) {
	all := "log-level: loud\nenvoy-path: /bin/true\nxds-servers: [127.0.0.1:1]\nredis-url: redis://127.0.0.1:1\nadmin-address: 127.0.0.1:0\n" +
		"tls-cert: a\nzone: b\nexpires: 90d\nfile: [" + file(t, "gateway.yaml", good) + "]\n"
	for _, args := range [][]string{{"run"}, {"xds"}, {"extauthz"}, {"ratelimit"}, {"service", "user"}, {"service", "order"}} {
		code, _, stderr := tollgate(t, append(args, "--settings", file(t, "s.yaml", all))...)
		if code != exitUsage || !strings.Contains(stderr, `--log-level "loud"`) || strings.Contains(stderr, "no setting") {
			t.Errorf("%v: exit %d\n%s", args, code, stderr)
		}
	}
}

func TestWrongVariables(t *testing.T) {
	valid := file(t, "gateway.yaml", strings.ReplaceAll(good, "auth: api_key,", `auth: api_key, authorize: [{allow: '"a:b" in auth.permissions'}],`))
	tests := []struct {
		name, variable, value string
		args                  []string
		code                  int
		says                  string
	}{
		{"mistyped", "TOLLGATE_XDS_ADDRSES", "127.0.0.1:1", []string{"run"}, exitUsage, `TOLLGATE_XDS_ADDRSES is no setting; did you mean "TOLLGATE_XDS_ADDRESS"?`},
		{"mistyped, at a role", "TOLLGATE_REDIS_ULR", "x", []string{"ratelimit"}, exitUsage, `did you mean "TOLLGATE_REDIS_URL"?`},
		{"mistyped, at one that only looks", "TOLLGATE_STRCIT", "1", []string{"validate", valid}, exitUsage, `did you mean "TOLLGATE_STRICT"?`},
		{"near nothing", "TOLLGATE_SOMETHING_ELSE", "x", []string{"validate", valid}, exitUsage, "TOLLGATE_SOMETHING_ELSE is no setting\n"},
		{"a switch that is neither", "TOLLGATE_INSECURE", "yess", []string{"xds"}, exitUsage, "TOLLGATE_INSECURE: "},
		{"a count that is none", "TOLLGATE_ENVOY_CONCURRENCY", "many", []string{"run"}, exitUsage, "TOLLGATE_ENVOY_CONCURRENCY: "},
		{"strict", "TOLLGATE_STRICT", "true", []string{"validate", valid}, exitFailed, "--strict"},
		{"another verb's", "TOLLGATE_REDIS_URL", "x", []string{"validate", valid}, exitDone, ""},
		{"the tests' own", "TOLLGATE_REDIS_SERVER", "x", []string{"validate", valid}, exitDone, ""},
		{"what an orchestrator says", "TOLLGATE_PORT_8080_TCP_ADDR", "10.0.0.1", []string{"validate", valid}, exitDone, ""},
		{"what an orchestrator says, too", "TOLLGATE_PORT", "tcp://10.0.0.1:8080", []string{"validate", valid}, exitDone, ""},
		{"empty", "TOLLGATE_XDS_SERVERS", "", []string{"validate", valid}, exitDone, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv(test.variable, test.value)
			code, _, stderr := tollgate(t, test.args...)
			if code != test.code || !strings.Contains(stderr, test.says) {
				t.Errorf("exit %d, want %d and %q\n%s", code, test.code, test.says, stderr)
			}
		})
	}
}

func TestEnvoyByItsShortVariable(t *testing.T) {
	t.Setenv("TOLLGATE_ENVOY", "/opt/envoy")
	if got := loaded(t, []string{"envoy", "version"}).Text(settings.EnvoyPath); got != "/opt/envoy" {
		t.Errorf("got %q", got)
	}
	t.Setenv("TOLLGATE_ENVOY_PATH", "/opt/other")
	if got := loaded(t, []string{"envoy", "version"}).Text(settings.EnvoyPath); got != "/opt/other" {
		t.Errorf("got %q: the flag's own variable wins", got)
	}
}

// TestMain keeps what the machine's own environment says out of the tables.
func TestMain(m *testing.M) {
	for _, name := range []string{"TOLLGATE_ENVOY", "TOLLGATE_SETTINGS"} {
		os.Unsetenv(name)
	}
	m.Run()
}
