//go:build linux

package host

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Files beside the runner program.
const (
	dotEnv      = ".env"
	dotEnvImage = ".env.image" // the image's .env, if ours has less
	dotPath     = ".path"
	// dotEnvMark is the first line of a .env of ours. The program sets nothing by a
	// line without "=".
	dotEnvMark = "# Some lines are taken out on this machine. The whole file is beside it: .env.image"
)

// imageDotEnv returns the image's .env. An image that was made of a machine of ours
// has it under another name.
func (m *Machine) imageDotEnv() []byte {
	b, err := os.ReadFile(filepath.Join(m.cfg.Runner, dotEnv))
	if err != nil {
		return nil
	}
	if bytes.HasPrefix(b, []byte(dotEnvMark+"\n")) {
		if whole, err := os.ReadFile(filepath.Join(m.cfg.Runner, dotEnvImage)); err == nil {
			return whole
		}
	}
	return b
}

// line is a line of .env, and the variable that it sets; no name: none.
type line struct{ text, name, value string }

// lines reads .env as the runner program does
// (https://github.com/actions/runner, 2.336.0, src/Runner.Listener/Program.cs).
func (i image) lines() []line {
	text := strings.TrimPrefix(string(i.DotEnv), "\ufeff")
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	var out []line
	for l := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		name, value, ok := strings.Cut(l, "=")
		if !ok {
			name = ""
		}
		out = append(out, line{l, name, value})
	}
	return out
}

// setDotEnv makes .env beside the runner program the image's, without the lines that
// would change what we or the registration say. What a job left there is gone.
func (m *Machine) setDotEnv(who account, i image, ours, registered map[string]string) error {
	name := filepath.Join(m.cfg.Runner, dotEnv)
	info, err := os.Lstat(name)
	there := err == nil
	if i.DotEnv == nil {
		if there {
			return os.RemoveAll(name)
		}
		return nil
	}
	want, whole := []string{dotEnvMark}, true
	for _, l := range i.lines() {
		if l.name != "" && taken(l.name, ours, registered) {
			whole = false
			continue
		}
		want = append(want, l.text)
	}
	text := []byte(strings.Join(want, "\n") + "\n")
	if whole {
		text = i.DotEnv
	}
	// Nothing but a plain file is read: it may be a job's.
	if there && info.Mode().IsRegular() && info.Size() == int64(len(text)) {
		if b, err := os.ReadFile(name); err == nil && bytes.Equal(b, text) {
			return nil
		}
	}
	if !whole {
		if err := m.replace(dotEnvImage, i.DotEnv, who); err != nil {
			return err
		}
	}
	return m.replace(dotEnv, text, who)
}

// replace makes a file beside the runner program, which its user may read. That
// user owns the directory: no name in it is followed.
func (m *Machine) replace(name string, b []byte, who account) error {
	f, err := os.CreateTemp(m.cfg.Runner, trashPrefix) // cleaned away if this is as far as it gets
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(b)
	if err := errors.Join(err, f.Chown(-1, int(who.GID)), f.Chmod(0o640), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	name = filepath.Join(m.cfg.Runner, name)
	if info, err := os.Lstat(name); err == nil && info.IsDir() {
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	}
	return os.Rename(f.Name(), name)
}
