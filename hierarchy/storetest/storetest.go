// Package storetest is the suite that every [hierarchy.Store] passes, and a
// store in memory for the tests of others.
package storetest

import (
	"testing"

	"github.com/ward-authz/ward/hierarchy"
)

// Run runs the suite.
func Run(t *testing.T, open func(t *testing.T) hierarchy.Store, reopen func(t *testing.T, s hierarchy.Store) hierarchy.Store) {
	t.Fatal("not built yet")
}
