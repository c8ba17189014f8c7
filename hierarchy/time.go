package hierarchy

import (
	"archive/zip"
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"math"
	"sync"
	"time"
)

// Instant is a moment in milliseconds since 1970-01-01T00:00:00Z.
type Instant int64

const (
	// Forever is the end of an interval without an end.
	Forever Instant = math.MaxInt64
	// Never is before every moment.
	Never Instant = math.MinInt64
)

// At returns the instant of t, cut to the millisecond.
func At(t time.Time) Instant { return Instant(t.UnixMilli()) }

// Time returns the instant as a time in UTC.
func (i Instant) Time() time.Time { return time.UnixMilli(int64(i)).UTC() }

// String returns RFC 3339 in UTC with milliseconds, "forever" or "never".
func (i Instant) String() string {
	switch i {
	case Forever:
		return "forever"
	case Never:
		return "never"
	}
	return i.Time().Format("2006-01-02T15:04:05.000Z07:00")
}

// Holds reports whether t lies in the half-open interval.
func (v Interval) Holds(t Instant) bool { return v.From <= t && t < v.To }

// Overlaps reports whether two intervals share an instant.
func (v Interval) Overlaps(w Interval) bool { return v.From < w.To && w.From < v.To }

// IsZero reports whether v is the zero Interval.
func (v Interval) IsZero() bool { return v == Interval{} }

// Always is the interval of all time.
var Always = Interval{Never, Forever}

// zoneinfo is the IANA time zone database as the Go 1.26.8 distribution ships
// it (lib/time/zoneinfo.zip), embedded so that a date means the same instant
// on every machine whatever its system files say.
//
//go:embed tzdata/zoneinfo.zip
var zoneinfo []byte

// TZData is the version of the embedded time zone database.
const TZData = "2025c"

var zones sync.Map // name -> *time.Location

// Zone returns a time zone of the embedded database, by its IANA name.
func Zone(name string) (*time.Location, error) {
	if l, ok := zones.Load(name); ok {
		return l.(*time.Location), nil
	}
	if name == "UTC" {
		return time.UTC, nil
	}
	r, err := zip.NewReader(bytes.NewReader(zoneinfo), int64(len(zoneinfo)))
	if err != nil {
		return nil, err
	}
	f, err := r.Open(name)
	if err != nil || name == "" {
		return nil, fmt.Errorf("unknown time zone %q", name)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("unknown time zone %q", name)
	}
	l, err := time.LoadLocationFromTZData(name, data)
	if err != nil {
		return nil, err
	}
	zones.Store(name, l)
	return l, nil
}

// DayStart returns the first instant of a calendar day in a zone. Where
// midnight does not exist that is the instant the clock jumps to; where it
// comes twice, the first one. A day that a zone left out begins as the next one.
func DayStart(year int, month time.Month, day int, zone *time.Location) Instant {
	midnight := time.Date(year, month, day, 0, 0, 0, 0, time.UTC) // as the zone's clock shows it
	// Offsets lie within 26 hours of UTC: walk the times of constant offset from there on.
	t := midnight.Add(-26 * time.Hour).In(zone)
	for {
		_, offset := t.Zone()
		_, end := t.ZoneBounds()
		if !end.IsZero() && !end.After(t) {
			// Where only a rule says when the clock changes, Go takes every year for
			// one of 365 days and gives the last day of a leap year an end before it.
			end = t.UTC().Truncate(24 * time.Hour).Add(24 * time.Hour).In(zone)
		}
		shown := midnight.Add(-time.Duration(offset) * time.Second)
		if shown.Before(t) {
			shown = t // skipped: the clock shows a later time from the change on
		}
		if end.IsZero() || shown.Before(end) {
			return At(shown)
		}
		t = end
	}
}

// ParseDate reads YYYY-MM-DD and returns the first instant of that day and of
// the day after it in a zone. As the start of an interval a date means the
// first, as its end (which includes the day) the second.
func ParseDate(s string, zone *time.Location) (first, after Instant, err error) {
	d, err := time.Parse("2006-01-02", s)
	if err != nil {
		return 0, 0, fmt.Errorf("not a date: want YYYY-MM-DD")
	}
	y, m, day := d.Date()
	return DayStart(y, m, day, zone), DayStart(y, m, day+1, zone), nil
}

// Majority returns the instant at which a person born on birthDate
// (YYYY-MM-DD) reaches an age in a zone: the first instant of the birthday.
// Who was born on 29 February has the birthday on 1 March in common years.
func Majority(birthDate string, age int, zone *time.Location) (Instant, error) {
	d, err := time.Parse("2006-01-02", birthDate)
	if err != nil {
		return 0, fmt.Errorf("not a birth date: want YYYY-MM-DD")
	}
	y, m, day := d.Date()
	return DayStart(y+age, m, day, zone), nil // time.Date turns 29 February into 1 March
}
