package policies

import (
	"os"
	"testing"
)

func TestShippedPacksCompile(t *testing.T) {
	packs := map[string]map[string][]byte{"pbm": PBM()}
	for _, name := range []string{"certification", "permit-all"} {
		files, err := ReadPack(os.DirFS("../testdata/packs/" + name))
		if err != nil {
			t.Fatal(err)
		}
		packs[name] = files
	}
	for name, files := range packs {
		s, err := Compile(files)
		if err != nil {
			t.Errorf("%s:\n%v", name, err)
			continue
		}
		if s.Name() != name || len(s.Cases()) == 0 {
			t.Errorf("%s: name %q, %d cases", name, s.Name(), len(s.Cases()))
		}
	}
}
