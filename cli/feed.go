package cli

import "github.com/spf13/cobra"

// newImportCommand is `ward hierarchy import`.
func newImportCommand(*app) *cobra.Command { return nil }
