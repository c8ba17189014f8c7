// Package panics logs a panic below a door by its place, never by its value,
// which may name a person. Every HTTP door needs the same.
package panics

import (
	"fmt"
	"log/slog"
	"runtime"
	"strings"
)

// Log logs what a deferred function of a door has recovered: its type, and the
// functions and lines that it came through, without arguments.
func Log(log *slog.Logger, door string, recovered any) {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	var b strings.Builder
	for {
		f, more := frames.Next()
		fmt.Fprintf(&b, "%s:%d ", f.Function, f.Line)
		if !more {
			break
		}
	}
	log.Error(door+": panic while answering", "type", fmt.Sprintf("%T", recovered), "at", strings.TrimSpace(b.String()))
}
