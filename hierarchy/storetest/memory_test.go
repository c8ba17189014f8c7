package storetest

import (
	"testing"

	"github.com/ward-authz/ward/hierarchy"
)

func TestMemory(t *testing.T) {
	open := func(*testing.T) hierarchy.Store { return NewMemory() }
	Run(t, open, nil)
	t.Run("copy", func(t *testing.T) {
		RunCopy(t, open, func(t *testing.T, copied []byte) hierarchy.Store {
			s, err := openCopy(copied)
			if err != nil {
				t.Fatalf("open the copy: %v", err)
			}
			return s
		})
	})
}
