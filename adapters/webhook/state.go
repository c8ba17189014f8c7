package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// state is what is remembered: up to when all marks were looked at, and which of
// them are owed still.
type state struct {
	Version int       `json:"version"`
	Through time.Time `json:"through"`
	Owed    []owing   `json:"owed"`
}

// owing is an event that was not delivered.
type owing struct {
	Grant string `json:"grant"`
	Mark  int    `json:"mark"`
}

const stateVersion = 1

// openState reads a state file, or makes one that owes nothing.
func openState(path string, now time.Time) (state, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		s := state{Through: now}
		return s, s.write(path)
	}
	if err != nil {
		return state{}, err
	}
	var s state
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil || s.Version != stateVersion || s.Through.IsZero() {
		return state{}, ErrState
	}
	if _, err := d.Token(); err != io.EOF {
		return state{}, ErrState
	}
	return s, nil
}

// ErrState: the state file is not as a webhook wrote it.
var ErrState = errors.New("webhook: the file of what is owed is damaged, or of another version")

// write replaces the file in one step: after a crash it is the old or the new.
func (s state) write(path string) (err error) {
	s.Version = stateVersion
	if s.Owed == nil {
		s.Owed = []owing{}
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // for this user alone
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
