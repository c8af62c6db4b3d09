package settings

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"tollgate/api/contract"
	"tollgate/internal/peer"
)

// DataFolder makes the folder of state and returns it: --data-dir, else
// .tollgate beside the gateway file.
func (s Settings) DataFolder(beside string) (string, error) {
	dir := s.Text(DataDir)
	if dir == "" {
		dir = filepath.Join(beside, ".tollgate")
	}
	if err := s.sockets(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("--%s: %w", DataDir, err)
	}
	return dir, nil
}

// OwnFolder makes a folder of state for a process that serves, and refuses one in
// which another user could put a key or a token of his own before it starts.
func (s Settings) OwnFolder(dir string) error {
	if err := s.sockets(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("--%s: %w", DataDir, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("--%s: %w", DataDir, err)
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("--%s %s: every user of this machine may write there, and so give us keys and tokens of his own: chmod 700 it", DataDir, dir)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && !s.Sockets(nil).Allows(int(stat.Uid)) {
		return fmt.Errorf("--%s %s is user %d's, who could give us keys and tokens of his own: chown it, or trust that user with --%s", DataDir, dir, stat.Uid, AllowUID)
	}
	return nil
}

// sockets refuses a folder whose sockets would have names too long, before
// anything is made of it.
func (s Settings) sockets(dir string) error {
	for _, flag := range []string{XDSAddress, AuthzAddress, LimitAddress, XDSServers, EnvoyAdmin} {
		if s.flags.Lookup(flag) == nil || s.flags.Changed(flag) || flag == EnvoyAdmin && s.On(NoEnvoy) {
			continue
		}
		if _, err := peer.Parse(contract.SocketPrefix + filepath.Join(dir, "run", socketOf(flag))); err != nil {
			return UsageError{fmt.Errorf("--%s: %w", flag, err)}
		}
	}
	return nil
}
