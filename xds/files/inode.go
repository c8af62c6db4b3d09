package files

import (
	"os"
	"syscall"
)

// inode tells a file from another one that was renamed over it.
func inode(info os.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}
