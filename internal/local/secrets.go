package local

import (
	"crypto/rand"
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
	b, err := readOrMake(filepath.Join(dir, "keys.json"), string(made)+"\n")
	if err != nil {
		return nil, secret.Text{}, err
	}
	var f keyFile
	if err := json.Unmarshal([]byte(b), &f); err != nil {
		return nil, secret.Text{}, fmt.Errorf("read %s: it is not JSON as garo writes it", filepath.Join(dir, "keys.json"))
	}
	by := map[string]secret.Text{}
	for kid, k := range f.Keys {
		by[kid] = secret.New(k)
	}
	ring, err := keys.NewRing(secret.New(f.ID), f.Current, by)
	if err != nil {
		return nil, secret.Text{}, fmt.Errorf("read %s: %w", filepath.Join(dir, "keys.json"), err)
	}
	token, err := readOrMake(filepath.Join(dir, "token"), keys.OperatorPrefix+rand.Text()+"\n")
	if err != nil {
		return nil, secret.Text{}, err
	}
	return ring, secret.New(strings.TrimSpace(token)), nil
}

// readOrMake returns the content of a file, which it first makes, with mode 0600
// and in one step, if there is none.
func readOrMake(path, content string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return string(b), err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return "", err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(content)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	b, err = os.ReadFile(path)
	return string(b), err
}
