package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Bug is a small mistake, as somebody could make it.
type Bug struct {
	Name   string
	Breaks string // what is wrong with it there
	Edits  []Edit
}

// Edit replaces Old, which File has exactly once, with New. File is relative to
// the root of the repository.
type Edit struct{ File, Old, New string }

func plant(name, breaks string, edits ...Edit) Bug { return Bug{name, breaks, edits} }

func edit(file, old, to string) Edit { return Edit{file, old, to} }

// all returns every bug.
func all() []Bug {
	return slices.Concat(storeBugs, partBugs, bootBugs, confirmBugs, realBugs, reaperBugs, standingBugs, limitBugs, scopeBugs, doorBugs, optionBugs, plainBugs, outfitBugs, leaseBugs, credentialBugs, machineBugs, checkBugs, costBugs, metricBugs)
}

// Where names the files that the bug is in.
func (b Bug) Where() string {
	var files []string
	for _, e := range b.Edits {
		if !slices.Contains(files, e.File) {
			files = append(files, e.File)
		}
	}
	return strings.Join(files, ", ")
}

// Planted returns the files that the bug changes, as they are with it, by their
// names relative to root.
func (b Bug) Planted(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, e := range b.Edits {
		was, ok := files[e.File]
		if !ok {
			var err error
			if was, err = os.ReadFile(filepath.Join(root, filepath.FromSlash(e.File))); err != nil {
				return nil, fmt.Errorf("plant %s: %w", b.Name, err)
			}
		}
		if n := strings.Count(string(was), e.Old); n != 1 {
			return nil, fmt.Errorf("plant %s: %s has %q %d times, want once: bring the bug up to date", b.Name, e.File, e.Old, n)
		}
		files[e.File] = []byte(strings.Replace(string(was), e.Old, e.New, 1))
	}
	return files, nil
}

// Overlay writes what the bug changes into dir, and returns the file that tells
// the go command to use that in place of what is in root (go help build, -overlay).
func (b Bug) Overlay(root, dir string) (string, error) {
	files, err := b.Planted(root)
	if err != nil {
		return "", err
	}
	root, err = filepath.Abs(root)
	if err != nil {
		return "", fmt.Errorf("plant %s: %w", b.Name, err)
	}
	replace := map[string]string{}
	for name, text := range files {
		at := filepath.Join(dir, b.Name+"-"+strings.ReplaceAll(name, "/", "-"))
		if err := os.WriteFile(at, text, 0o600); err != nil {
			return "", fmt.Errorf("plant %s: %w", b.Name, err)
		}
		replace[filepath.Join(root, filepath.FromSlash(name))] = at
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", fmt.Errorf("plant %s: %w", b.Name, err)
	}
	overlay := filepath.Join(dir, b.Name+".json")
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		return "", fmt.Errorf("plant %s: %w", b.Name, err)
	}
	return overlay, nil
}
