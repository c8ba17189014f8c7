package cli

import (
	"strings"
	"testing"

	"github.com/ward-authz/ward/pdp/audit"
)

// TestVerifiedSaysWhatItCannotKnow reads the words of a report.
func TestVerifiedSaysWhatItCannotKnow(t *testing.T) {
	for want, r := range map[string]audit.Report{
		notAnchored: {},
		"consistent with the outside checkpoint at 4; the 3 records after it are self-consistent, not anchored": {Records: 7, Anchored: true, AnchorSize: 4},
		"consistent with the outside checkpoint at 7":                                                           {Records: 7, Anchored: true, AnchorSize: 7},
	} {
		if s := verified(r); !strings.HasSuffix(s, want) {
			t.Errorf("%+v: %s", r, s)
		}
	}
}
