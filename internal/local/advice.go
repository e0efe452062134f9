package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// advised adds to an error of a data directory what can be done about it, where people can
// do something.
func advised(dir string, err error) error {
	const elsewhere = "or give another --dir"
	text := err.Error()
	switch {
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EEXIST):
		return fmt.Errorf("%w: %s is a file: move it away, %s", err, dir, elsewhere)
	case strings.Contains(text, "file is not a database"), strings.Contains(text, "database disk image is malformed"):
		return fmt.Errorf("%w: it is no file of garo's, or it is damaged: bring it back from a backup, move the directory away, %s", err, elsewhere)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), strings.Contains(text, "readonly database"), strings.Contains(text, "unable to open database file"):
		return fmt.Errorf("%w: it cannot be written to: let this user write to the directory and what is in it, %s", err, elsewhere)
	case errors.Is(err, syscall.ENOSPC), strings.Contains(text, "database or disk is full"):
		return fmt.Errorf("%w: make room on that disk, %s", err, elsewhere)
	}
	return err
}

// keysLost fails where there are records and no keys: new keys would open none of them.
func keysLost(dir string) error {
	records, err := os.Stat(filepath.Join(dir, StoreFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && records.Size() == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%s is not there, and %s is: its records can be used with the keys that they were made with alone: bring the file back, or give another --dir", filepath.Join(dir, keysFile), filepath.Join(dir, StoreFile))
}
