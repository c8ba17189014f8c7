// Package pbm holds the shipped domain pack: the hierarchy of a pharmacy benefit
// manager, its clients, its network and a hospital, and the modules of three
// portals: the benefit manager's, claims analytics, and the patients' with its
// FHIR interface. It is read through policies.PBM.
//
// The base permits by what an action does (records.cedar) and forbids by what it
// is about (guards.cedar); an action says both by the groups that its module's
// schema puts it in. A module holds the policies that are special about it, and
// tests each of its actions, features and routes for somebody who may and for
// somebody who may not (tests/access.yaml).
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
