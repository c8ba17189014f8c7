package cli

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"

	"github.com/ward-authz/ward/pdp"
)

// TestWhatSomebodySentIsNoLine: an id forges no line of a table, steers no
// terminal, and is no formula.
func TestWhatSomebodySentIsNoLine(t *testing.T) {
	for _, id := range []string{"x\na-9\tallow", "x\r\ny", "\x1b[31m", "\u009b31m", "\u202eevil", "\x00"} {
		var out bytes.Buffer
		writeLine(&out, pdp.Line{Record: "a-1", Items: []pdp.LineItem{{Subject: "user:" + id, Resource: "lab:" + id}}})
		line := strings.TrimSuffix(out.String(), "\n")
		if strings.Count(line, "\t") != 4 || strings.ContainsAny(line, "\n\r\x1b\x00\u009b\u202e") {
			t.Errorf("%q gives %q", id, line)
		}
	}
	for _, cell := range []string{"=1", "+1", "-1", "@x", "\tx", "\rx"} {
		var out bytes.Buffer
		if err := writeCSV(&out, []pdp.Line{{Record: "a-1", Items: []pdp.LineItem{{Subject: cell, Grant: cell}}}}); err != nil {
			t.Fatal(err)
		}
		got, err := csv.NewReader(&out).ReadAll()
		if err != nil || got[1][4] != "'"+cell || got[1][11] != "'"+cell {
			t.Errorf("%q gives %q %v", cell, got, err)
		}
	}
}
