package settings

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"tollgate/internal/secretfile"
)

// adminToken is the file in the folder of state that holds the token of the
// admin API.
const adminToken = "admin.token"

// AdminToken reads the token of the admin API, or makes one. Processes that
// start at once on one folder share it.
func AdminToken(dataDir string) (string, error) {
	token, err := secretfile.Token(filepath.Join(dataDir, adminToken))
	if err != nil {
		return "", fmt.Errorf("admin token: %w", err)
	}
	return token, nil
}

// Bearer is the token with which this process asks an admin API:
// TOLLGATE_ADMIN_TOKEN, else that of the folder of state, the one beside the
// gateway file when -f names it; "" when there is none. owner is the user whose
// file it is; -1 where it came from no file.
func (s Settings) Bearer() (token string, owner int, err error) {
	if token := strings.TrimSpace(os.Getenv("TOLLGATE_ADMIN_TOKEN")); token != "" {
		return token, -1, nil
	}
	path := filepath.Join(s.stateOf(), adminToken)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", -1, nil
	}
	if err != nil {
		return "", -1, err
	}
	owner, err = ownerOf(path)
	return strings.TrimSpace(string(data)), owner, err
}

// stateOf is the folder of state of the process that a verb asks.
func (s Settings) stateOf() string {
	dir := s.Text(DataDir)
	if list := s.List(File); dir == "" && len(list) > 0 {
		beside := list[0]
		if info, err := os.Stat(beside); err != nil || !info.IsDir() {
			beside = filepath.Dir(beside)
		}
		return filepath.Join(beside, ".tollgate")
	}
	return cmp.Or(dir, ".tollgate")
}

func ownerOf(path string) (int, error) {
	info, err := os.Stat(path)
	if err != nil {
		return -1, err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid), nil
	}
	return os.Geteuid(), nil
}

// adminAddress is the file in the folder of state that says where its control
// plane answers operators.
const adminAddress = "admin.address"

// OpenAdmin returns the token of the admin API of a control plane, and notes in
// its folder where it answers operators, so that their verbs need no
// --admin-address. Of several that share the folder the last to start is found.
func OpenAdmin(dataDir string, address net.Addr) (token string, err error) {
	if token, err = AdminToken(dataDir); err != nil {
		return "", err
	}
	text := address.String()
	if tcp, ok := address.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		text = fmt.Sprintf("127.0.0.1:%d", tcp.Port)
	}
	if err := secretfile.Write(filepath.Join(dataDir, adminAddress), []byte(text+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("admin address: %w", err)
	}
	return token, nil
}

// Asked are the admin addresses that a verb asks: those of the flag, else that of
// the control plane of the folder whose token it shows, else the flag's default.
// A token that is not the folder's, of TOLLGATE_ADMIN_TOKEN, goes nowhere that a
// folder says.
func (s Settings) Asked() ([]string, error) {
	list := s.List(AdminAddress)
	token, owner, err := s.Bearer()
	if s.flags.Changed(AdminAddress) || err != nil || token == "" || owner < 0 {
		return list, nil //nolint:nilerr // who asks with the token says so
	}
	path := filepath.Join(s.stateOf(), adminAddress)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil
	}
	if err != nil {
		return nil, fmt.Errorf("where the control plane answers: %w: name it with --%s", err, AdminAddress)
	}
	address := strings.TrimSpace(string(data))
	if by, err := ownerOf(path); err != nil || by != owner && by != 0 && by != os.Geteuid() {
		return nil, fmt.Errorf("%s is not the file of who made the token beside it: name the control plane with --%s", path, AdminAddress)
	}
	if err := wellFormed(address); err != nil {
		return nil, fmt.Errorf("%s: %.50q: %w: name the control plane with --%s", path, address, err, AdminAddress)
	}
	return []string{address}, nil
}
