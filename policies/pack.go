package policies

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ward-authz/ward/policies/pbm"
)

// Limits of a pack, checked before anything is parsed.
const (
	// MaxFileSize is the size of the largest file of a pack, in bytes.
	MaxFileSize = 1 << 20
	// MaxFiles is how many files a pack may have.
	MaxFiles = 512
	// MaxPackSize is the size of all files together, in bytes.
	MaxPackSize = 16 << 20
	// MaxNesting is how deep brackets, and ifs, may nest in Cedar text.
	MaxNesting = 64
	// MaxSetLiteral is how many elements a set literal may have.
	MaxSetLiteral = 1024
	// MaxPolicyTokens is how many tokens one policy may have. It bounds the
	// depth of operator chains, which need no brackets.
	MaxPolicyTokens = 8192
)

const archiveFormat = 1

// PBM returns the files of the shipped domain pack.
func PBM() map[string][]byte {
	files, err := ReadPack(pbm.Files())
	if err != nil {
		panic(fmt.Sprintf("policies: the shipped pack does not read: %v", err)) // a test compiles it
	}
	return files
}

// ReadPack reads a pack's folder. Files and folders whose names start with a
// dot are skipped; any other name that does not belong to a pack is an error,
// and so is what exceeds a limit: a *[Diagnostics] with every finding, or the
// error of fsys.
func ReadPack(fsys fs.FS) (map[string][]byte, error) {
	return readFolder(fsys, "a pack", inPack)
}

// readFolder reads the files of a folder that belong there.
func readFolder(fsys fs.FS, what string, belongs func(name string) bool) (map[string][]byte, error) {
	files := map[string][]byte{}
	var diags Diagnostics
	total := 0
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := path.Base(name); name != "." && strings.HasPrefix(base, ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			if strings.Count(name, "/") > 3 {
				diags.add(name, 1, 1, CodeFileUnknown, "%s has no folder here", what)
				return fs.SkipDir
			}
			return nil
		}
		if !belongs(name) {
			diags.add(name, 1, 1, CodeFileUnknown, "%s has no file of this name", what)
			if len(diags.Findings) > MaxFiles {
				return fs.SkipAll
			}
			return nil
		}
		if len(files) == MaxFiles {
			diags.add(name, 1, 1, CodeTooManyFiles, "%s has at most %d files", what, MaxFiles)
			return fs.SkipAll
		}
		content, err := readLimited(fsys, name)
		if errors.Is(err, errTooLarge) {
			diags.add(name, 1, 1, CodeFileTooLarge, "the file is larger than %d bytes", MaxFileSize)
			return nil
		}
		if err != nil {
			return err
		}
		if total += len(content); total > MaxPackSize {
			diags.add(name, 1, 1, CodeFileTooLarge, "%s is at most %d bytes large", what, MaxPackSize)
			return fs.SkipAll
		}
		files[name] = content
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := diags.err(); err != nil {
		return nil, err
	}
	return files, nil
}

var errTooLarge = errors.New("too large")

func readLimited(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(content) > MaxFileSize {
		return nil, errTooLarge
	}
	return content, nil
}

type fileKind int

const (
	kindNone fileKind = iota
	kindSchema
	kindCatalogue
	kindPolicies
	kindRoles
	kindCases
)

// kindOf says what a file of a pack holds, by its name alone.
func kindOf(name string) fileKind {
	if !fs.ValidPath(name) || len(name) > 256 {
		return kindNone
	}
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	if strings.HasPrefix(base, ".") {
		return kindNone
	}
	module := ""
	if rest, ok := strings.CutPrefix(dir, "modules/"); ok {
		module, dir, _ = strings.Cut(rest, "/")
		if !isName(module) {
			return kindNone
		}
	}
	switch {
	case dir == "tests" && isNamed(base, ".yaml"):
		return kindCases
	case dir != "":
		return kindNone
	case base == "schema.cedarschema":
		return kindSchema
	case base == "catalogue.yaml":
		return kindCatalogue
	case base == "roles.yaml" && module == "":
		return kindRoles
	case isNamed(base, ".cedar"):
		return kindPolicies
	}
	return kindNone
}

// inPack and inOverlay report whether a file of this name belongs there.
func inPack(name string) bool { return kindOf(name) != kindNone }

func inOverlay(name string) bool {
	return kindOf(name) == kindPolicies && !strings.Contains(name, "/")
}

func isNamed(base, suffix string) bool {
	stem, ok := strings.CutSuffix(base, suffix)
	return ok && stem != ""
}

// moduleOf returns the module that a file belongs to, or "" for the base.
func moduleOf(name string) string {
	rest, ok := strings.CutPrefix(name, "modules/")
	if !ok {
		return ""
	}
	module, _, _ := strings.Cut(rest, "/")
	return module
}

// isName reports whether s can name something in a pack: a letter, then
// letters, digits, '.', '-' and '_', at most 64 bytes.
func isName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || !(c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_')) {
			return false
		}
	}
	return true
}

// checkFiles applies the limits to files that did not come from a folder.
func checkFiles(files map[string][]byte, what string, belongs func(name string) bool, diags *Diagnostics) {
	if len(files) > MaxFiles {
		diags.add("pack", 1, 1, CodeTooManyFiles, "%s has at most %d files", what, MaxFiles)
		return
	}
	total := 0
	for name, content := range files {
		total += len(content)
		switch {
		case !belongs(name):
			diags.add(shown(name), 1, 1, CodeFileUnknown, "%s has no file of this name", what)
		case len(content) > MaxFileSize:
			diags.add(name, 1, 1, CodeFileTooLarge, "the file is larger than %d bytes", MaxFileSize)
		case !utf8.Valid(content):
			diags.add(name, 1, 1, CodeNotUTF8, "the file is not UTF-8")
		}
	}
	if total > MaxPackSize {
		diags.add("pack", 1, 1, CodeFileTooLarge, "%s is at most %d bytes large", what, MaxPackSize)
	}
}

// shown makes a name safe to print.
func shown(name string) string {
	if len(name) > 256 {
		name = name[:256]
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, name)
}

// encodeArchive writes {"files":{path:content},"format":1} with sorted keys.
func encodeArchive(files map[string][]byte) []byte {
	names := make([]string, 0, len(files))
	size := 64
	for name, content := range files {
		names = append(names, name)
		size += len(name) + len(content) + len(content)/8 + 8
	}
	slices.Sort(names)
	b := make([]byte, 0, size)
	b = append(b, `{"files":{`...)
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, name)
		b = append(b, ':')
		b = appendString(b, string(files[name]))
	}
	return append(b, `},"format":1}`...)
}

// decodeArchive reads what encodeArchive writes, byte for byte, and nothing
// else: an archive has one form, so that a digest names one pack.
func decodeArchive(archive []byte, diags *Diagnostics) map[string][]byte {
	const file = "archive"
	if len(archive) > 2*MaxPackSize {
		diags.add(file, 1, 1, CodeFileTooLarge, "the archive is larger than %d bytes", 2*MaxPackSize)
		return nil
	}
	var doc struct {
		Format int               `json:"format"`
		Files  map[string]string `json:"files"`
	}
	if err := json.Unmarshal(archive, &doc); err != nil {
		diags.add(file, 1, 1, CodeArchiveInvalid, "not an archive of a pack")
		return nil
	}
	if doc.Format != archiveFormat {
		diags.add(file, 1, 1, CodeArchiveInvalid, "archive format %d is not known; this version reads format %d", doc.Format, archiveFormat)
		return nil
	}
	files := make(map[string][]byte, len(doc.Files))
	for name, content := range doc.Files {
		files[name] = []byte(content)
	}
	if string(encodeArchive(files)) != string(archive) {
		diags.add(file, 1, 1, CodeArchiveInvalid, "the archive is not in its canonical form (sorted, no extra or repeated keys, no spaces)")
		return nil
	}
	return files
}
