package panics

import (
	"log/slog"
	"strings"
	"testing"
)

func fall(v any) { panic(v) }

// A panic is named by its type and place, and not by what it says.
func TestLogNamesThePlaceAlone(t *testing.T) {
	var out strings.Builder
	func() {
		defer func() { Log(slog.New(slog.NewTextHandler(&out, nil)), "door", recover()) }()
		fall("canary")
	}()
	for _, want := range []string{"door: panic while answering", "type=string", "panics.fall:"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log lacks %q: %s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "canary") || strings.Contains(out.String(), "runtime.Callers") {
		t.Errorf("the log says too much: %s", out.String())
	}
}
