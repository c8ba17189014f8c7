package pdp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/policies"
)

// This file knows where facts came from, and counts what a feed ends.

// sourceName reports whether a feed's source may be called so.
func sourceName(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
	})
}

// origin is what the provenance of the feed's revisions begins with: its source
// and date, or nothing.
func (f *Feed) origin() string {
	switch {
	case f.Source == "":
		return ""
	case f.AsOf == 0:
		return f.Source
	}
	return f.Source + "@" + f.AsOf.String()
}

// originOf reads the source and date of a revision's feed.
func originOf(b hierarchy.BatchInfo) (source string, asOf hierarchy.Instant) {
	first, _, _ := strings.Cut(b.Provenance.Feed, " ")
	if strings.Contains(first, ":") && !strings.Contains(first, "@") {
		return "", 0 // the digest of a file of no source
	}
	source, at, dated := strings.Cut(first, "@")
	if dated {
		asOf, _ = ParseTime(at, "UTC", false)
	}
	return source, asOf
}

// inOrder refuses a feed that is dated before one of its source that is loaded.
func (im *importing) inOrder() error {
	f := im.feed
	if f.Source == "" || f.AsOf == 0 {
		return nil
	}
	g := im.p.graph
	for rev := g.Head().Revision; rev > 0; rev-- {
		b, ok := g.Batch(rev)
		if !ok || b.Import == nil || b.Import.Step != hierarchy.ImportClose || b.Import.Tenant != f.Tenant {
			continue
		}
		if source, asOf := originOf(b); source == f.Source && asOf > f.AsOf {
			return &hierarchy.Refusal{Code: FeedStale, Index: -1,
				Text: fmt.Sprintf("a feed of %s as of %s is loaded already: one as of %s says what was true before it", source, asOf, f.AsOf)}
		}
	}
	return nil
}

// kindName is the kind of fact of an event, as [Feed.Kinds] writes it.
func kindName(e *hierarchy.Event) string {
	switch {
	case e.Node != nil:
		return "node " + e.Node.ID.Type
	case e.Edge != nil:
		return "edge " + e.Edge.Child.Type + " " + e.Edge.Kind
	case e.Link != nil:
		return "link " + string(e.Link.Kind)
	case e.Assignment != nil:
		return "assignment"
	case e.Entitlement != nil:
		return "entitlement"
	case e.Grant != nil:
		return "grant"
	}
	return ""
}

// ours reports whether a fact that stands is an earlier feed's of the same
// source and tenant, of a kind that this one is the whole truth of.
func (im *importing) ours(e *hierarchy.Event, id hierarchy.FactID) bool {
	if im.kinds == nil {
		im.kinds = map[string]bool{}
		for _, k := range im.feed.Kinds {
			im.kinds[k] = true
		}
	}
	if !im.kinds[kindName(e)] || e.Node != nil && (e.Node.Principal || e.Node.ID.Type == hierarchy.PersonType || e.Node.ID.Type == hierarchy.TenantType) {
		return false
	}
	return im.bySource(id.Revision)
}

// bySource reports whether a revision is of an import of the same source and
// tenant.
func (im *importing) bySource(rev uint64) bool {
	if im.feed.Source == "" {
		return false
	}
	same, ok := im.sources[rev]
	if !ok {
		b, _ := im.p.graph.Batch(rev)
		source, _ := originOf(b)
		same = b.Import != nil && b.Import.Tenant == im.feed.Tenant && source == im.feed.Source
		im.sources[rev] = same
	}
	return same
}

// at is the instant at which what the feed changes is counted.
func (im *importing) at() hierarchy.Instant { return max(im.w.now, im.feed.AsOf) }

// stays is the valid times of a key as they are when the import closes.
func (k *wanted) stays() (list []hierarchy.Interval) {
	for _, h := range k.held() {
		list = append(list, h.valid)
	}
	return list
}

// planned is the valid times of a key as the rows would have them.
func (im *importing) planned(k *wanted) []hierarchy.Interval {
	im.ending = true
	defer func() { im.ending = false }()
	list, left, conflict := im.plan(k)
	if conflict >= 0 {
		return k.stays()
	}
	for _, c := range list {
		left = append(left, c.valid)
	}
	return left
}

// mass counts the coverages that the import ends, and refuses too many.
func (im *importing) mass(after func(*wanted) []hierarchy.Interval) error {
	if im.feed.History || !im.endsAny(after) {
		return nil
	}
	c := im.coverages(after)
	if c.Ends == 0 {
		im.report.Coverages = nil
		return nil
	}
	im.report.Coverages = &c
	if im.feed.MassEnd || im.feed.DryRun || !c.TooMany() {
		return nil
	}
	return &hierarchy.Refusal{Code: FeedEndsTooMany, Index: -1, Text: fmt.Sprintf(
		"the feed would end %d of the tenant's %d live coverages (%.1f %%), more than %d %%", c.Ends, c.Live, c.Share(), MaxEndPercent)}
}

// Share is how many of the live coverages end, in percent.
func (c *Coverages) Share() float64 { return float64(c.Ends) * 100 / float64(max(1, c.Live)) }

// TooMany reports whether more end than a feed may end by itself.
func (c *Coverages) TooMany() bool { return c.Ends*100 > c.Live*MaxEndPercent }

func holds(list []hierarchy.Interval, at hierarchy.Instant) bool {
	return slices.ContainsFunc(list, func(v hierarchy.Interval) bool { return v.Holds(at) })
}

// endsAny reports whether any node or edge that holds does so no longer.
func (im *importing) endsAny(after func(*wanted) []hierarchy.Interval) bool {
	for _, k := range im.keys.all() {
		if k.lived && !holds(after(k), im.at()) {
			return true
		}
	}
	return false
}

// coverages counts the live coverages of the tenant, and those of them that are
// not live after the import.
func (im *importing) coverages(after func(*wanted) []hierarchy.Interval) Coverages {
	at, cat := im.at(), im.w.set.Catalogue()
	view := im.p.View(at, 0)
	types := recordTypes(cat)
	is := func(id hierarchy.ID) bool { return id.Tenant == im.feed.Tenant && types[id.Type] }
	confers := func(kind string) bool { return cat.Edges[kind] != nil && cat.Edges[kind].Confers }
	stays := map[hierarchy.ID]bool{} // parents
	exists := func(id hierarchy.ID) bool {
		there, ok := stays[id]
		if !ok {
			if ki, known := im.known(&hierarchy.Event{Kind: hierarchy.KindNode, Node: &hierarchy.Node{ID: id}}); known {
				there = holds(after(im.key(ki)), at)
			} else {
				_, _, there = view.Node(id)
			}
			if !is(id) {
				stays[id] = there
			}
		}
		return there
	}
	live := map[int32]bool{} // coverages that the import leaves under something
	for _, k := range im.keys.all() {
		if k.key.kind == hierarchy.KindEdge && is(im.id(k.key.a)) && confers(im.id(k.key.name).Key) &&
			holds(after(k), at) && exists(im.id(k.key.b)) {
			live[k.key.a] = true
		}
	}
	var c Coverages
	for f := range view.Facts(hierarchy.KindNode) {
		id := f.Event.Node.ID
		if !is(id) || !f.Valid.Holds(at) {
			continue
		}
		number, _, known := im.numbers.find(id)
		was, stays := false, known && live[number]
		for _, e := range view.Parents(id) {
			if _, _, ok := view.Node(e.Parent); !ok || !confers(e.Kind) {
				continue
			}
			was = true
			if _, known := im.known(&hierarchy.Event{Kind: hierarchy.KindEdge, Edge: &e.Edge}); !known {
				stays = stays || exists(e.Parent)
			}
		}
		if was {
			c.Live++
			if !stays || !exists(id) {
				c.Ends++
			}
		}
	}
	return c
}

// recordTypes returns the types of nodes that records hang from and that say
// whose a record is: a coverage, a patient's record.
func recordTypes(cat *policies.Catalogue) map[string]bool {
	types := map[string]bool{}
	for _, r := range cat.Resources {
		for _, a := range r.Anchors {
			if r.Owner != "" && a.Property == r.Owner && a.Type != hierarchy.PersonType {
				types[a.Type] = true
			}
		}
	}
	return types
}
