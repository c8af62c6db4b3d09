package settings

import (
	"errors"
	"fmt"
	"io/fs"
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
	dir := s.Text(DataDir)
	if list := s.List(File); dir == "" && len(list) > 0 {
		beside := list[0]
		if info, err := os.Stat(beside); err != nil || !info.IsDir() {
			beside = filepath.Dir(beside)
		}
		dir = filepath.Join(beside, ".tollgate")
	}
	if dir == "" {
		dir = ".tollgate"
	}
	path := filepath.Join(dir, adminToken)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", -1, nil
	}
	if err != nil {
		return "", -1, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", -1, err
	}
	owner = os.Geteuid()
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = int(stat.Uid)
	}
	return strings.TrimSpace(string(data)), owner, nil
}
