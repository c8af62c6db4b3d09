package files

import (
	"os"
	"slices"
	"syscall"
	"time"

	"tollgate/xds/config"
)

// settled is how old a file's date must have been when the file was read, for an
// equal date to mean an equal file: clocks of file systems tick in milliseconds,
// some in two seconds.
const settled = 3 * time.Second

// stamp is what tells a file from what it was, without a read. The zero stamp is
// of a file that cannot be looked at.
type stamp struct {
	size              int64
	modified, changed int64 // ns
	inode             uint64
}

func stampOf(path string) stamp {
	var s syscall.Stat_t
	for {
		err := syscall.Stat(path, &s)
		if err == nil {
			return stamp{s.Size, s.Mtim.Nano(), s.Ctim.Nano(), s.Ino}
		}
		if err != syscall.EINTR {
			return stamp{}
		}
	}
}

// look is what the set's files were like at one moment.
type look struct {
	names      []name
	stamps     []stamp
	referenced []string
	theirs     []stamp
	err        error
}

// look looks at every file of the set and at what the last reading was asked for.
func (s *Set) look() *look {
	l := &look{referenced: s.referenced()}
	l.names, l.err = s.names()
	l.stamps, l.theirs = make([]stamp, len(l.names)), make([]stamp, len(l.referenced))
	for i := range l.names {
		l.stamps[i] = stampOf(l.names[i].path)
	}
	for i, path := range l.referenced {
		l.theirs[i] = stampOf(path)
	}
	return l
}

func (l *look) same(other *look) bool {
	if l.err != nil || other.err != nil {
		return l.err != nil && other.err != nil && l.err.Error() == other.err.Error()
	}
	return slices.Equal(l.names, other.names) && slices.Equal(l.stamps, other.stamps) &&
		slices.Equal(l.referenced, other.referenced) && slices.Equal(l.theirs, other.theirs)
}

// content is a file as it was read.
type content struct {
	stamp    stamp
	settled  bool // its date was old enough to trust
	data     []byte
	keyStore bool
}

// content reads a file, if it is not as it was when it was read last.
func (s *Set) content(path string, now stamp) (content, error) {
	known := s.known[path]
	if known.settled && known.stamp == now {
		return known, nil
	}
	data, err := readBounded(path, config.MaxSource+1)
	if err != nil {
		delete(s.known, path)
		return content{}, err
	}
	// A date from before the read: what is written while it lasts has another.
	fresh := content{stamp: now, settled: now != stamp{} && time.Since(time.Unix(0, max(now.modified, now.changed))) > settled, data: data, keyStore: keyStore(data)}
	s.known[path] = fresh
	return fresh, nil
}

// isFolder reports whether a path is a folder.
func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
