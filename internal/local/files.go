package local

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/alphagov/github-actions-runner-orchestration/internal/keys"
	"github.com/alphagov/github-actions-runner-orchestration/internal/secret"
)

// lockDir makes sure that one process at a time uses a data directory: by the
// lock of an SQLite file, which every system has and which goes with the process,
// however that ends.
func lockDir(ctx context.Context, dir string) (unlock func() error, err error) {
	db, err := sql.Open("sqlite", filepath.Join(dir, "lock.db"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
		_ = db.Close()
		if strings.Contains(err.Error(), "locked") {
			return nil, errors.New("another garo uses this directory: stop it first, or give another --dir")
		}
		return nil, err
	}
	return db.Close, nil
}

// keysFile has the keys that everything in a data directory is made with.
const keysFile = "keys.json"

// keyFile is what DIR/keys.json holds.
type keyFile struct {
	ID      string            `json:"id"`
	Current string            `json:"current"`
	Keys    map[string]string `json:"keys"`
}

// secrets reads the keys and the operator's token of a data directory, and makes
// them at the first start. Both files are readable by their owner alone.
func secrets(dir string) (*keys.Ring, secret.Text, error) {
	fresh := keyFile{ID: rand.Text() + rand.Text(), Current: "k1", Keys: map[string]string{"k1": rand.Text() + rand.Text()}}
	made, err := json.MarshalIndent(fresh, "", "  ")
	if err != nil {
		return nil, secret.Text{}, err
	}
	keysPath, tokenPath := filepath.Join(dir, keysFile), filepath.Join(dir, TokenFile)
	if _, err := os.Stat(keysPath); errors.Is(err, fs.ErrNotExist) {
		if err := keysLost(dir); err != nil {
			return nil, secret.Text{}, err
		}
	}
	b, err := readOrMake(keysPath, string(made)+"\n")
	if err != nil {
		return nil, secret.Text{}, err
	}
	var f keyFile
	if json.Unmarshal([]byte(b), &f) != nil {
		return nil, secret.Text{}, fmt.Errorf("read %s: it is not as garo wrote it, and the records cannot be used without its keys: bring it back from a backup, or give another --dir", keysPath)
	}
	by := map[string]secret.Text{}
	for kid, k := range f.Keys {
		by[kid] = secret.New(k)
	}
	ring, err := keys.NewRing(secret.New(f.ID), f.Current, by)
	if err != nil {
		return nil, secret.Text{}, fmt.Errorf("read %s: %w", keysPath, err)
	}
	token, err := readOrMake(tokenPath, keys.OperatorPrefix+rand.Text()+"\n")
	if err != nil {
		return nil, secret.Text{}, err
	}
	token = strings.TrimSpace(token)
	if !strings.HasPrefix(token, keys.OperatorPrefix) {
		return nil, secret.Text{}, fmt.Errorf("read %s: want a token that begins %s; remove the file, and a new one is made", tokenPath, keys.OperatorPrefix)
	}
	return ring, secret.New(token), nil
}

// readOrMake returns the content of a file, which it first makes if there is none.
func readOrMake(path, content string) (string, error) {
	b, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return string(b), err
	}
	return content, writeFile(path, content)
}

// writeFile makes or replaces a file, with mode 0600 and in one step: anyone who
// reads it sees all of it or none.
func writeFile(path, content string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	_, err = tmp.WriteString(content)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(tmp.Name()))
	}
	return nil
}
