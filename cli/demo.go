package cli

import "github.com/spf13/cobra"

// newDemoCommand is `ward demo`.
func newDemoCommand(*app) *cobra.Command { return nil }
