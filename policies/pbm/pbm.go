// Package pbm holds the shipped domain pack: a pharmacy benefit manager's
// hierarchy, claims, eligibility and the patient portal's labs. It is read
// through policies.PBM.
package pbm

import (
	"embed"
	"io/fs"
)

//go:embed all:pack
var pack embed.FS

// Files returns the pack's folder.
func Files() fs.FS {
	sub, err := fs.Sub(pack, "pack")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}
