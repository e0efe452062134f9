//go:build linux

package host

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/alphagov/github-actions-runner-orchestration/client/apitype"
	"github.com/alphagov/github-actions-runner-orchestration/internal/sleep"
)

const (
	// downloads is how often a download is tried or gone on with, with a pause of
	// one second after the first that doubles up to maxPause: about two minutes, as
	// long as GitHub's servers usually stumble.
	downloads = 8
	maxPause  = 30 * time.Second
	// stalled is how long a download may stand still.
	stalled = 20 * time.Second
	// maxProgram is far above the runner program, which has about 200 MB packed and
	// 600 MB unpacked: it bounds what is written to the disk.
	maxProgram = 2 << 30
	// maxRedirects is above what GitHub's releases need, which is one.
	maxRedirects = 5
)

// Install implements agent.Config.Install: it makes sure of the runner program, and of
// the outfit. It may be called again after an error, and continues with what is there of a
// download.
func (m *Machine) Install(ctx context.Context, p apitype.RunnerProgram, o apitype.Outfit) (did string, err error) {
	who, err := m.account()
	if err != nil {
		return "", err
	}
	m.outfit = o
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var program error
	wg.Go(func() { program = installProgram(ctx, m, who, p) })
	f := outfitter{m: m, who: who, o: o}
	return f.do(ctx, func() error { wg.Wait(); return program })
}

// installProgram sees to it that there is a runner program: the image's, whatever its
// version is, or else p, downloaded and verified.
func installProgram(ctx context.Context, m *Machine, who account, p apitype.RunnerProgram) error {
	if _, err := exec.LookPath(filepath.Join(m.cfg.Runner, "run.sh")); err == nil {
		m.log.Info("runner program of the image")
		return nil
	}
	if p.URL == "" {
		return errors.New("the image has none, and the control plane names none")
	}
	began := time.Now()
	packed := m.cfg.Runner + ".download" // not in memory, as Config.Dir is
	if err := m.download(ctx, p, packed); err != nil {
		return err
	}
	m.log.Info("runner program downloaded", slog.String("version", p.Version), slog.Duration("took", time.Since(began)))
	began = time.Now()
	fresh := m.cfg.Runner + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := unpack(ctx, packed, fresh, who); err != nil {
		return fmt.Errorf("unpack the runner program: %w", err)
	}
	for _, name := range []string{dotEnv, dotEnvImage, dotPath} { // an image may bring these alone
		if err := os.Rename(filepath.Join(m.cfg.Runner, name), filepath.Join(fresh, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.RemoveAll(m.cfg.Runner); err != nil {
		return err
	}
	if err := os.Rename(fresh, m.cfg.Runner); err != nil {
		return err
	}
	m.log.Info("runner program unpacked", slog.Duration("took", time.Since(began)))
	return os.Remove(packed)
}

// errFinal is wrapped by what no repetition fixes.
var errFinal = errors.New("given up")

// download fetches p into a file, and verifies it.
func (m *Machine) download(ctx context.Context, p apitype.RunnerProgram, name string) error {
	pause := time.Second
	for try := 1; ; try++ {
		err := fetch(ctx, p.URL, name)
		if err == nil {
			break
		}
		if errors.Is(err, errFinal) || try == downloads || ctx.Err() != nil {
			return fmt.Errorf("download the runner program: %w", err)
		}
		m.log.Warn("download interrupted", slog.Int("try", try), slog.Any("error", err))
		_ = sleep.For(ctx, pause)
		pause = min(2*pause, maxPause)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return err
	}
	if got := fmt.Sprintf("%x", hash.Sum(nil)); got != p.SHA256 {
		_ = os.Remove(name) // whatever it is, nothing continues with it
		return fmt.Errorf("the runner program %s is not the one that was promised: its SHA-256 is %s", p.Version, got)
	}
	return nil
}

// downloader follows redirects, since GitHub's releases are elsewhere than their
// URL says, but never from TLS to none. What it gets is verified afterwards.
var downloader = &http.Client{
	CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects || req.URL.Scheme != "https" && via[0].URL.Scheme == "https" {
			return fmt.Errorf("redirect to %s: %w", req.URL.Host, errFinal)
		}
		return nil
	},
}

// fetch makes one call, and adds what it gets to a file that may have the beginning.
func fetch(ctx context.Context, from, name string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	had := info.Size()
	watch := time.AfterFunc(stalled, func() { cancel(errors.New("it stands still")) })
	defer watch.Stop()
	res, err := request(ctx, from, had)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if whole, err := accept(f, res, had); whole || err != nil {
		return err
	}
	_, err = io.Copy(f, io.LimitReader(moving{res.Body, watch}, maxProgram))
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return errors.Join(err, f.Close())
}

// request asks for what comes behind the bytes that are there.
func request(ctx context.Context, from string, had int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFinal, err)
	}
	if had > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", had))
	}
	res, err := downloader.Do(req)
	if e, ok := errors.AsType[*url.Error](err); ok { // it repeats the URL, whose redirects carry signatures
		err = e.Err
	}
	return res, err
}

// accept makes the file ready for what an answer brings. whole reports that it has
// all of it already.
func accept(f *os.File, res *http.Response, had int64) (whole bool, err error) {
	status, part := res.StatusCode, res.Header.Get("Content-Range")
	switch {
	case status == http.StatusPartialContent && strings.HasPrefix(part, fmt.Sprintf("bytes %d-", had)):
		return false, nil
	case status == http.StatusOK:
		return false, f.Truncate(0)
	case status == http.StatusRequestedRangeNotSatisfiable && had > 0 && strings.HasSuffix(part, fmt.Sprintf("/%d", had)):
		return true, nil
	case status == http.StatusRequestedRangeNotSatisfiable, status == http.StatusPartialContent:
		return false, errors.Join(fmt.Errorf("status %d", status), f.Truncate(0))
	case status >= 400 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests:
		return false, fmt.Errorf("status %d: %w", status, errFinal)
	}
	return false, fmt.Errorf("status %d", status)
}

// moving puts a timer off with each read.
type moving struct {
	io.Reader
	watch *time.Timer
}

func (m moving) Read(b []byte) (int, error) {
	n, err := m.Reader.Read(b)
	m.watch.Reset(stalled)
	return n, err
}

// unpack makes a directory, owned by a user, of a .tar.gz. Nothing gets outside of it.
func unpack(ctx context.Context, packed, dir string, who account) error {
	f, err := os.Open(packed)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	t := tar.NewReader(io.LimitReader(z, maxProgram))
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = errors.Join(ctx.Err(), place(root, h, t, who))
		}
		if err != nil {
			return err
		}
	}
	return own(root, ".", 0o755, who)
}

// place makes one entry of an archive.
func place(root *os.Root, h *tar.Header, content io.Reader, who account) error {
	name, mode := filepath.Clean(h.Name), h.FileInfo().Mode().Perm()
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.MkdirAll(name, 0o755); err != nil {
			return err
		}
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return root.Lchown(name, int(who.UID), int(who.GID))
	case tar.TypeLink:
		return root.Link(filepath.Clean(h.Linkname), name)
	default:
		return fmt.Errorf("%s is neither a file nor a directory nor a link", h.Name)
	}
	return own(root, name, mode, who)
}

// own gives a file or directory its owner and its mode.
func own(root *os.Root, name string, mode fs.FileMode, who account) error {
	return errors.Join(root.Lchown(name, int(who.UID), int(who.GID)), root.Chmod(name, mode))
}
