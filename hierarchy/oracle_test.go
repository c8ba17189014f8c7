package hierarchy

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"strings"
	"testing"
)

// The oracle answers the same questions as a View by brute force: it replays
// the whole history from its first batch for every question and scans lists.
// It shares nothing with the graph but the types of events.

type oracle struct {
	facts []oracleFact
	at    Instant
}

type oracleFact struct {
	id    FactID
	kind  Kind
	valid Interval
	event Event
	added uint64
}

// recall replays history up to a revision.
func recall(history []*Batch, rev uint64, at Instant) *oracle {
	abandoned := map[int]bool{} // batches of history imports that were not closed
	for i, b := range history {
		if b.Import == nil || !b.Import.History || b.Import.Step != ImportOpen {
			continue
		}
		var mine []int
		closed := false
		for j := i; j < len(history) && (j == i || history[j].Import == nil || history[j].Import.Step != ImportOpen); j++ {
			if m := history[j].Import; m != nil && m.ID == b.Import.ID {
				mine = append(mine, j)
				if m.Step == ImportClose || m.Step == ImportAbandon {
					closed = m.Step == ImportClose
					break
				}
			}
		}
		for _, j := range mine {
			abandoned[j] = !closed
		}
	}
	o := &oracle{at: at}
	waiting := map[string][]*Batch{}
	do := func(b *Batch, rev uint64) {
		for i, e := range b.Events {
			if e.Op == Assert {
				o.facts = append(o.facts, oracleFact{FactID{b.Revision, uint32(i)}, e.Kind, e.Valid, e, rev})
				continue
			}
			k := slices.IndexFunc(o.facts, func(f oracleFact) bool { return f.id == e.Fact })
			if e.Op == Void {
				o.facts = slices.Delete(o.facts, k, k+1)
			} else {
				o.facts[k].valid.To = e.At
				o.facts[k].added = rev
			}
		}
	}
	for i, b := range history[:rev] {
		m := b.Import
		switch {
		case abandoned[i]:
		case m == nil || m.History:
			do(b, b.Revision)
		case m.Step == ImportAbandon:
			delete(waiting, m.ID)
		default:
			waiting[m.ID] = append(waiting[m.ID], b)
			if m.Step == ImportClose {
				for _, w := range waiting[m.ID] {
					do(w, b.Revision)
				}
				delete(waiting, m.ID)
			}
		}
	}
	return o
}

func (o *oracle) live(kind Kind) (out []oracleFact) {
	for _, f := range o.facts {
		if f.kind == kind && f.valid.From <= o.at && o.at < f.valid.To {
			out = append(out, f)
		}
	}
	return out
}

func (o *oracle) node(id ID) *Node {
	for _, f := range o.live(KindNode) {
		if f.event.Node.ID == id {
			return f.event.Node
		}
	}
	return nil
}

// begun: the node exists or has existed, and is not voided.
func (o *oracle) begun(id ID) bool {
	return slices.ContainsFunc(o.facts, func(f oracleFact) bool {
		return f.kind == KindNode && f.event.Node.ID == id && f.valid.From <= o.at
	})
}

func (o *oracle) closure(confer string, from ...ID) []string {
	in := map[string]ID{}
	for _, id := range from {
		in[id.String()] = id
	}
	for grew := true; grew; {
		grew = false
		add := func(id ID) {
			if _, ok := in[id.String()]; !ok {
				in[id.String()] = id
				grew = true
			}
		}
		for _, id := range in {
			if id.Tenant != "" {
				add(TenantID(id.Tenant))
			}
		}
		for _, f := range o.live(KindEdge) {
			e := f.event.Edge
			if _, ok := in[e.Child.String()]; ok && e.Kind == confer && o.node(e.Parent) != nil {
				add(e.Parent)
			}
		}
	}
	var out []string
	for s := range in {
		out = append(out, s)
	}
	sort.Strings(out)
	return out
}

func (o *oracle) tied(kind LinkKind, both bool, of map[string]bool) map[string]bool {
	out := map[string]bool{}
	for _, f := range o.live(KindLink) {
		l := f.event.Link
		if l.Kind != kind {
			continue
		}
		if of[l.From.String()] {
			out[l.To.String()] = true
		}
		if both && of[l.To.String()] {
			out[l.From.String()] = true
		}
	}
	return out
}

func (o *oracle) merged(persons ...string) map[string]bool {
	out := map[string]bool{}
	for _, p := range persons {
		out[p] = true
	}
	for {
		n := len(out)
		for p := range o.tied(LinkMerge, true, out) {
			out[p] = true
		}
		if len(out) == n {
			return out
		}
	}
}

func keys(m map[string]bool) []string {
	out := []string{}
	for k, ok := range m {
		if ok {
			out = append(out, k)
		}
	}
	sort.Strings(out)
	return out
}

func (o *oracle) family(persons ...string) []string {
	self := o.merged(persons...)
	out := o.merged(keys(o.tied(LinkFamily, true, self))...)
	for p := range self {
		delete(out, p)
	}
	return keys(out)
}

func (o *oracle) owners(node string) []string {
	out := map[string]bool{}
	for _, f := range o.live(KindLink) {
		if l := f.event.Link; l.Kind == LinkOwns && l.To.String() == node {
			out[l.From.String()] = true
		}
	}
	return keys(o.merged(keys(out)...))
}

func (o *oracle) assignments(u ID, ended bool) (out []string) {
	for _, f := range o.facts {
		if f.kind != KindAssignment || f.event.Assignment.Principal != u {
			continue
		}
		a := f.event.Assignment
		if ended && f.valid.To <= o.at || !ended && f.valid.Holds(o.at) && o.node(u) != nil && o.begun(a.Node) {
			out = append(out, fmt.Sprint(f.id, f.valid, a.Role, a.Node))
		}
	}
	sort.Strings(out)
	return out
}

func (o *oracle) assignmentsAt(n ID, ahead bool) (out []string) {
	for _, f := range o.facts {
		if f.kind != KindAssignment || f.event.Assignment.Node != n {
			continue
		}
		a := f.event.Assignment
		if ahead && f.valid.To > o.at || !ahead && f.valid.Holds(o.at) && o.node(a.Principal) != nil && o.begun(n) {
			out = append(out, fmt.Sprint(f.id, f.valid, a.Role, a.Node))
		}
	}
	sort.Strings(out)
	return out
}

func (o *oracle) assignmentsAheadOf(u ID) (out []string) {
	for _, f := range o.facts {
		if f.kind == KindAssignment && f.event.Assignment.Principal == u && f.valid.To > o.at {
			out = append(out, fmt.Sprint(f.id, f.valid, f.event.Assignment.Role, f.event.Assignment.Node))
		}
	}
	sort.Strings(out)
	return out
}

func (o *oracle) identities(u ID) (out []string) {
	for _, f := range o.live(KindLink) {
		if l := f.event.Link; l.Kind == LinkIdentity && l.To == u {
			out = append(out, fmt.Sprint(f.id, f.valid, l.Issuer, l.Sub))
		}
	}
	sort.Strings(out)
	return out
}

// grantsAbout lists grant ids: when they are live is compared by grantee.
func (o *oracle) grantsAbout(subject ID, ahead bool) (out []string) {
	for i, f := range o.facts {
		if f.kind != KindGrant || f.event.Grant.Subject != subject {
			continue
		}
		v, _, ok := o.effective(&o.facts[i])
		if ahead && f.valid.To > o.at || !ahead && ok && v.Holds(o.at) {
			out = append(out, f.event.Grant.ID)
		}
	}
	sort.Strings(out)
	return out
}

func (o *oracle) caps(role string) []string {
	out, seen := map[string]bool{}, map[string]bool{}
	var visit func(string)
	visit = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		for _, f := range o.live(KindRole) {
			if r := f.event.Role; r.Name == name {
				for _, c := range r.Capabilities {
					out[c] = true
				}
				for _, i := range r.Includes {
					visit(i)
				}
			}
		}
	}
	visit(role)
	return keys(out)
}

func (o *oracle) grantBy(id string) *oracleFact {
	for i, f := range o.facts {
		if f.kind == KindGrant && f.event.Grant.ID == id {
			return &o.facts[i]
		}
	}
	return nil
}

// signatures returns the valid times of what meets a need of a grant.
func (o *oracle) signatures(grant string, n Need) (out []Interval) {
	for _, f := range o.facts {
		if f.kind != KindSignature {
			continue
		}
		s := f.event.Signature
		if s.Grant == grant && s.As == n.As && (n.By == ID{} || s.By == n.By) {
			out = append(out, f.valid)
		}
	}
	return out
}

// alive tells whether a grant is live, by what the word means.
func (o *oracle) alive(id string) bool {
	f := o.grantBy(id)
	if f == nil || !f.valid.Holds(o.at) {
		return false
	}
	g := f.event.Grant
	for _, n := range g.Needs {
		if !slices.ContainsFunc(o.signatures(id, n), func(v Interval) bool { return v.Holds(o.at) }) {
			return false
		}
	}
	ends := g.EndsAtMajority
	for up := g; up.Parent != ""; {
		p := o.grantBy(up.Parent)
		if p == nil || !o.alive(up.Parent) {
			return false
		}
		up = p.event.Grant
		ends = ends || up.EndsAtMajority
	}
	if !ends {
		return true
	}
	known := false
	for p := range o.merged(g.Subject.String()) {
		if n := o.node(mustID(p)); n != nil && n.Person != nil && n.Person.Majority != nil {
			if known = true; *n.Person.Majority <= o.at {
				return false
			}
		}
	}
	return known
}

// effective tells when a grant is live; ok is false when it never is or was.
func (o *oracle) effective(f *oracleFact) (v Interval, byMajority, ok bool) {
	v = Interval{Never, Forever}
	majority := false
	for up := f; ; {
		v = Interval{max(v.From, up.valid.From), min(v.To, up.valid.To)}
		for _, n := range up.event.Grant.Needs {
			// Of several the one that holds, the last that ended, the first to come.
			rank := func(s Interval) (int, Instant) {
				switch {
				case s.Holds(o.at):
					return 3, 0
				case s.To <= o.at:
					return 2, s.To
				}
				return 1, -s.From
			}
			signed := o.signatures(up.event.Grant.ID, n)
			if len(signed) == 0 {
				return v, false, false
			}
			best := slices.MaxFunc(signed, func(a, b Interval) int {
				x, i := rank(a)
				y, j := rank(b)
				return cmp.Or(cmp.Compare(x, y), cmp.Compare(i, j))
			})
			v = Interval{max(v.From, best.From), min(v.To, best.To)}
		}
		majority = majority || up.event.Grant.EndsAtMajority
		if up.event.Grant.Parent == "" {
			break
		}
		if up = o.grantBy(up.event.Grant.Parent); up == nil {
			return v, false, false
		}
	}
	if !majority {
		return v, false, true
	}
	var at *Instant
	for p := range o.merged(f.event.Grant.Subject.String()) {
		if n := o.node(mustID(p)); n != nil && n.Person != nil && n.Person.Majority != nil && (at == nil || *n.Person.Majority < *at) {
			at = n.Person.Majority
		}
	}
	if at == nil {
		return v, false, false
	}
	if *at < v.To {
		return Interval{v.From, *at}, true, true
	}
	return v, false, true
}

func (o *oracle) grants(grantee ID, ended bool) (out []string) {
	for i, f := range o.facts {
		if f.kind != KindGrant || f.event.Grant.Grantee != grantee {
			continue
		}
		v, by, ok := o.effective(&o.facts[i])
		if ok && (ended && v.To <= o.at || !ended && v.Holds(o.at)) {
			out = append(out, fmt.Sprint(f.event.Grant.ID, f.id, f.valid, v, by))
		}
	}
	sort.Strings(out)
	return out
}

func (o *oracle) blocks(p string) (out []string) {
	of := o.merged(p)
	for _, f := range o.live(KindBlock) {
		if of[f.event.Block.Person.String()] {
			out = append(out, fmt.Sprint(f.id, f.event.Block.Principal))
		}
	}
	sort.Strings(out)
	return out
}

func (o *oracle) emergencies(of func(*Emergency) ID, id string) (out []string) {
	for _, f := range o.facts {
		if f.kind != KindEmergency || of(f.event.Emergency).String() != id || f.valid.From > o.at {
			continue
		}
		outcome := "waits"
		for _, r := range o.live(KindReview) {
			if r.event.Review.Emergency == f.event.Emergency.ID {
				outcome = r.event.Review.Outcome
			}
		}
		out = append(out, fmt.Sprint(f.id, f.valid, f.event.Emergency.ID, outcome))
	}
	sort.Strings(out)
	return out
}

// question is something to ask of a graph's view and of the oracle.
type question struct {
	name   string
	view   func(View) any
	oracle func(*oracle) any
}

func emergencyTexts(v View, list []EmergencyFact) []string {
	out := []string{}
	for _, e := range list {
		outcome := "waits"
		if e.Review != nil {
			outcome = e.Review.Outcome
		}
		if same, ok := v.Emergency(e.ID); !ok || fmt.Sprint(same) != fmt.Sprint(e) {
			outcome = "Emergency says otherwise"
		}
		out = append(out, fmt.Sprint(e.Fact, e.Valid, e.ID, outcome))
	}
	sort.Strings(out)
	return out
}

func texts(list []ID) []string {
	out := []string{}
	for _, id := range list {
		out = append(out, id.String())
	}
	return out
}

// sure turns nil into the empty list, so that both print alike.
func sure(list []string) []string { return append([]string{}, list...) }

func grantTexts(list []GrantFact) (out []string) {
	for _, f := range list {
		out = append(out, fmt.Sprint(f.ID, f.Fact, f.Valid, f.Effective, f.ByMajority))
	}
	sort.Strings(out)
	return sure(out)
}

func grantIDs(list []GrantFact) (out []string) {
	for _, f := range list {
		out = append(out, f.ID)
	}
	return sure(out)
}

func assignmentTexts(list []AssignmentFact) (out []string) {
	for _, f := range list {
		out = append(out, fmt.Sprint(f.Fact, f.Valid, f.Role, f.Node))
	}
	sort.Strings(out)
	return sure(out)
}

// ask makes up a question about the little world of randomHistory.
func ask(rng *rand.Rand) question {
	n, m := pick(rng, worldNodes), pick(rng, worldNodes)
	p, u := pick(rng, worldPersons), pick(rng, worldUsers)
	role, kind := pick(rng, worldRoles), pick(rng, []Kind{KindNode, KindEdge, KindLink, KindRole, KindAssignment, KindEntitlement, KindGrant, KindBlock,
		KindSetting, KindEmergency, KindSignature, KindReview})
	id := fmt.Sprint("g", 1+rng.IntN(24))
	tenant, name := pick(rng, []string{"a", "b"}), pick(rng, worldSettings)
	q := []question{
		{"closure " + n + " " + m, func(v View) any { return texts(v.Closure(mustID(n), mustID(m))) },
			func(o *oracle) any { return o.closure("in", mustID(n), mustID(m)) }},
		{"reaches " + n + " " + m, func(v View) any { return v.Reaches(mustID(n), mustID(m)) },
			func(o *oracle) any { return slices.Contains(o.closure("in", mustID(n)), m) }},
		{"path " + n + " " + m, func(v View) any {
			path, ok := v.Path(mustID(n), mustID(m))
			at := mustID(n)
			for _, e := range path {
				switch {
				case e.Child != at, e.Fact.IsZero() != (e.Kind == "tenant"), !e.Valid.Holds(v.Instant()):
					return fmt.Sprint("broken at ", e)
				}
				at = e.Parent
			}
			if ok && at != mustID(m) {
				return "ends elsewhere"
			}
			return fmt.Sprint(ok, len(path))
		}, func(o *oracle) any {
			far := map[string]int{n: 0}
			for d := 0; ; d++ {
				if _, ok := far[m]; ok {
					return fmt.Sprint(true, far[m])
				}
				grew := false
				for s, k := range far {
					if k != d {
						continue
					}
					next := []string{}
					if id := mustID(s); id.Tenant != "" {
						next = append(next, TenantID(id.Tenant).String())
					}
					for _, f := range o.live(KindEdge) {
						if e := f.event.Edge; e.Kind == "in" && e.Child.String() == s && o.node(e.Parent) != nil {
							next = append(next, e.Parent.String())
						}
					}
					for _, s := range next {
						if _, ok := far[s]; !ok {
							far[s], grew = d+1, true
						}
					}
				}
				if !grew {
					return fmt.Sprint(false, 0)
				}
			}
		}},
		{"parents " + n, func(v View) any {
			out := []string{}
			for _, e := range v.Parents(mustID(n)) {
				out = append(out, fmt.Sprint(e.Fact, e.Kind, e.Valid, e.Parent))
			}
			sort.Strings(out)
			return out
		}, func(o *oracle) any {
			out := []string{}
			for _, f := range o.live(KindEdge) {
				if e := f.event.Edge; e.Child.String() == n {
					out = append(out, fmt.Sprint(f.id, e.Kind, f.valid, e.Parent))
				}
			}
			sort.Strings(out)
			return out
		}},
		{"children " + n, func(v View) any {
			out := []string{}
			for e := range v.Children(mustID(n)) {
				out = append(out, e.Child.String()+e.Kind)
			}
			sort.Strings(out)
			return out
		}, func(o *oracle) any {
			out := []string{}
			for _, f := range o.live(KindEdge) {
				if e := f.event.Edge; e.Parent.String() == n {
					out = append(out, e.Child.String()+e.Kind)
				}
			}
			sort.Strings(out)
			return out
		}},
		{"node " + n, func(v View) any { n, _, ok := v.Node(mustID(n)); return fmt.Sprint(n.Attrs, ok) },
			func(o *oracle) any {
				x := o.node(mustID(n))
				if x == nil {
					return fmt.Sprint(map[string]any(nil), false)
				}
				return fmt.Sprint(x.Attrs, true)
			}},
		{"merged " + p, func(v View) any { return texts(v.Merged(mustID(p))) }, func(o *oracle) any { return keys(o.merged(p)) }},
		{"persons " + u, func(v View) any { return texts(v.Persons(mustID(u))) },
			func(o *oracle) any {
				return keys(o.merged(keys(o.tied(LinkSelf, false, map[string]bool{u: true}))...))
			}},
		{"principals " + p, func(v View) any { return texts(v.Principals(mustID(p))) },
			func(o *oracle) any {
				of, out := o.merged(p), map[string]bool{}
				for _, f := range o.live(KindLink) {
					if l := f.event.Link; l.Kind == LinkSelf && of[l.To.String()] {
						out[l.From.String()] = true
					}
				}
				return keys(out)
			}},
		{"known " + n, func(v View) any { return v.Known(mustID(n)) }, func(o *oracle) any {
			return slices.ContainsFunc(o.facts, func(f oracleFact) bool { return f.kind == KindNode && f.event.Node.ID.String() == n })
		}},
		{"family " + p, func(v View) any { return texts(v.Family(mustID(p))) }, func(o *oracle) any { return o.family(p) }},
		{"owned " + p, func(v View) any { return texts(v.Owned(mustID(p))) },
			func(o *oracle) any { return keys(o.tied(LinkOwns, false, o.merged(p))) }},
		{"owners " + n, func(v View) any { return texts(v.Owners(mustID(n))) }, func(o *oracle) any { return o.owners(n) }},
		{"principal", func(v View) any { id, _, ok := v.Principal("iss", "sub0"); return fmt.Sprint(id, ok) },
			func(o *oracle) any {
				for _, f := range o.live(KindLink) {
					if l := f.event.Link; l.Kind == LinkIdentity && l.Sub == "sub0" {
						return fmt.Sprint(l.To, true)
					}
				}
				return fmt.Sprint(ID{}, false)
			}},
		{"assignments " + u, func(v View) any { return assignmentTexts(v.Assignments(mustID(u))) },
			func(o *oracle) any { return sure(o.assignments(mustID(u), false)) }},
		{"ended assignments " + u, func(v View) any { return assignmentTexts(v.EndedAssignments(mustID(u))) },
			func(o *oracle) any { return sure(o.assignments(mustID(u), true)) }},
		{"held at " + n + " and by " + u, func(v View) any {
			ids := []string{}
			for _, l := range v.Identities(mustID(u)) {
				ids = append(ids, fmt.Sprint(l.Fact, l.Valid, l.Issuer, l.Sub))
			}
			sort.Strings(ids)
			return slices.Concat(assignmentTexts(v.AssignmentsAt(mustID(n))), assignmentTexts(v.AssignmentsAhead(mustID(n))),
				assignmentTexts(v.AssignmentsAheadOf(mustID(u))), ids)
		}, func(o *oracle) any {
			return sure(slices.Concat(o.assignmentsAt(mustID(n), false), o.assignmentsAt(mustID(n), true), o.assignmentsAheadOf(mustID(u)), o.identities(mustID(u))))
		}},
		{"grants about " + p, func(v View) any {
			return slices.Concat(grantIDs(v.GrantsAbout(mustID(p))), grantIDs(v.GrantsAhead(mustID(p))))
		}, func(o *oracle) any {
			return sure(slices.Concat(o.grantsAbout(mustID(p), false), o.grantsAbout(mustID(p), true)))
		}},
		{"capabilities " + role, func(v View) any { return sure(v.Capabilities(role)) }, func(o *oracle) any { return o.caps(role) }},
		{"grants " + u, func(v View) any { return grantTexts(v.Grants(mustID(u))) },
			func(o *oracle) any { return sure(o.grants(mustID(u), false)) }},
		{"ended grants " + u, func(v View) any { return grantTexts(v.EndedGrants(mustID(u))) },
			func(o *oracle) any { return sure(o.grants(mustID(u), true)) }},
		{"grants of the organisation " + n, func(v View) any { return grantTexts(v.Grants(mustID(n))) },
			func(o *oracle) any { return sure(o.grants(mustID(n), false)) }},
		{"live " + id, func(v View) any { f, _ := v.Grant(id); return f.Effective.Holds(v.Instant()) },
			func(o *oracle) any { return o.alive(id) }},
		{"missing " + id, func(v View) any {
			f, _ := v.Grant(id)
			if f.Voided {
				return "[]"
			}
			return fmt.Sprint(f.Missing)
		}, func(o *oracle) any {
			var missing []Need
			for f := o.grantBy(id); ; f = o.grantBy(f.event.Grant.Parent) {
				if f == nil {
					return "[]"
				}
				for _, n := range f.event.Grant.Needs {
					if len(o.signatures(f.event.Grant.ID, n)) == 0 {
						missing = append(missing, n)
					}
				}
				if f.event.Grant.Parent == "" {
					return fmt.Sprint(missing)
				}
			}
		}},
		{"signatures of " + id, func(v View) any {
			out := []string{}
			for _, s := range v.Signatures(id) {
				out = append(out, fmt.Sprint(s.Fact, s.Valid, s.As, s.By, s.Principal))
			}
			return out
		}, func(o *oracle) any {
			facts := slices.Clone(o.facts)
			slices.SortFunc(facts, func(a, b oracleFact) int { return compareFacts(a.id, b.id) })
			out := []string{}
			for _, f := range facts {
				if s := f.event.Signature; f.kind == KindSignature && s.Grant == id {
					out = append(out, fmt.Sprint(f.id, f.valid, s.As, s.By, s.Principal))
				}
			}
			return out
		}},
		{"emergencies " + u, func(v View) any { return emergencyTexts(v, v.Emergencies(mustID(u))) },
			func(o *oracle) any { return sure(o.emergencies(func(x *Emergency) ID { return x.Principal }, u)) }},
		{"emergencies about " + p, func(v View) any { return emergencyTexts(v, v.EmergenciesAbout(mustID(p))) },
			func(o *oracle) any { return sure(o.emergencies(func(x *Emergency) ID { return x.Person }, p)) }},
		{"setting " + tenant + " " + name, func(v View) any { x, _, ok := v.Setting(TenantID(tenant), name); return fmt.Sprint(x, ok) },
			func(o *oracle) any {
				for _, f := range o.live(KindSetting) {
					if s := f.event.Setting; s.Tenant == TenantID(tenant) && s.Name == name {
						return fmt.Sprint(s.Value, true)
					}
				}
				return fmt.Sprint(nil, false)
			}},
		{"blocks " + p, func(v View) any {
			out := []string{}
			for _, b := range v.Blocks(mustID(p)) {
				out = append(out, fmt.Sprint(b.Fact, b.Principal))
			}
			sort.Strings(out)
			return out
		}, func(o *oracle) any { return sure(o.blocks(p)) }},
		{"entitled", func(v View) any { return v.Entitled(TenantID("a"), "claims") },
			func(o *oracle) any {
				return slices.ContainsFunc(o.live(KindEntitlement), func(f oracleFact) bool { return f.event.Entitlement.Tenant == TenantID("a") })
			}},
		{fmt.Sprint("facts of kind ", kind), func(v View) any {
			out := []string{}
			for f := range v.Facts(kind) {
				g, ok := v.Fact(f.ID)
				if !ok || g.Valid != f.Valid || f.Event.Valid != f.Valid {
					out = append(out, "Fact says otherwise")
				}
				out = append(out, fmt.Sprint(f.ID, f.Kind, f.Valid, f.Revision))
			}
			return out
		}, func(o *oracle) any {
			facts := slices.Clone(o.facts)
			slices.SortFunc(facts, func(a, b oracleFact) int { return compareFacts(a.id, b.id) })
			out := []string{}
			for _, f := range facts {
				if f.kind == kind {
					out = append(out, fmt.Sprint(f.id, f.kind, f.valid, f.added))
				}
			}
			return out
		}},
	}
	return pick(rng, q)
}

func pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }

// The little world of random histories.
var (
	worldNodes   = []string{"Operator:o", "Tenant:a", "Tenant:b", "Network:n", "Group:a/g0", "Group:a/g1", "Group:a/g2", "Plan:a/p0", "Group:b/g0", "Group:b/g1", "Pharmacy:s0", "Chain:s1"}
	worldPersons = []string{"Person:p0", "Person:p1", "Person:p2", "Person:p3"}
	worldUsers   = []string{"User:u0", "User:u1", "User:u2"}
	worldRoles   = []string{"r0", "r1", "a/r2"}

	worldSettings = []string{"x", "y"}
	// Whose node an emergency mostly is opened at.
	worldOwned = map[string]string{"Person:p0": "Group:a/g0", "Person:p1": "Group:a/g1", "Person:p2": "Group:a/g2", "Person:p3": "Plan:a/p0"}
)

// worldNeeds are the needs of the grant with a number.
func worldNeeds(n int) []Need {
	return [][]Need{nil, nil, {{SignerCoSigner, mustID("Person:p0")}}, {{As: SignerVerifier}, {SignerSubject, mustID("Person:p1")}}, {{As: SignerVerifier}}}[n%5]
}

const worldEnd = 30 // instants of the little world: 0 to worldEnd

func randomInterval(rng *rand.Rand) Interval {
	v := Interval{Instant(rng.IntN(worldEnd)), 0}
	v.To = v.From + 1 + Instant(rng.IntN(worldEnd))
	if rng.IntN(4) == 0 {
		v.From = Never
	}
	if rng.IntN(3) == 0 {
		v.To = Forever
	}
	return v
}

// longInterval mostly is all of time, so that much can build on it.
func longInterval(rng *rand.Rand) Interval {
	if rng.IntN(3) > 0 {
		return Always
	}
	return randomInterval(rng)
}

func randomEvent(rng *rand.Rand, known []FactID, kinds map[FactID]Kind, serial *int) Event {
	v := randomInterval(rng)
	switch rng.IntN(34) {
	case 0, 1, 2, 3, 4:
		if len(known) == 0 {
			break
		}
		f := known[rng.IntN(len(known))]
		if rng.IntN(2) == 0 {
			return endAt(kinds[f], f, Instant(rng.IntN(worldEnd)+1))
		}
		return void(kinds[f], f)
	case 5, 6, 7, 8, 9:
		e := edge(v, pick(rng, worldNodes), pick(rng, worldNodes))
		if rng.IntN(4) == 0 {
			e.Edge.Kind = "near"
		}
		return e
	case 10:
		return link(v, LinkMerge, pick(rng, worldPersons), pick(rng, worldPersons))
	case 11:
		return link(v, LinkFamily, pick(rng, worldPersons), pick(rng, worldPersons))
	case 12:
		return link(v, LinkSelf, pick(rng, worldUsers), pick(rng, worldPersons))
	case 13:
		p := pick(rng, worldPersons)
		if rng.IntN(2) == 0 {
			return link(v, LinkOwns, p, worldOwned[p])
		}
		return link(v, LinkOwns, p, pick(rng, worldNodes))
	case 14:
		return identity(v, "iss", fmt.Sprint("sub", rng.IntN(2)), pick(rng, worldUsers))
	case 15, 16:
		return assign(v, pick(rng, worldUsers), pick(rng, worldRoles), pick(rng, worldNodes))
	case 17, 18, 19:
		*serial++
		g := Grant{ID: fmt.Sprint("g", *serial), Grantor: mustID(pick(rng, worldUsers)), Grantee: mustID(pick(rng, worldUsers)),
			Subject: mustID(pick(rng, worldPersons)), EndsAtMajority: rng.IntN(2) == 0, Needs: worldNeeds(*serial)}
		if rng.IntN(6) == 0 { // between organisations
			g.Grantor, g.Grantee, g.Subject, g.EndsAtMajority = mustID(pick(rng, worldNodes)), mustID(pick(rng, worldNodes)), mustID(pick(rng, worldNodes)), false
		}
		if rng.IntN(2) == 0 {
			g.MayRedelegate, g.MaxDepth = true, 1
		}
		if rng.IntN(3) == 0 {
			g.Parent, v = fmt.Sprint("g", rng.IntN(*serial)+1), Interval{v.From, min(v.To, v.From+3)}
		}
		return grant(v, g)
	case 20:
		return block(v, pick(rng, worldPersons), pick(rng, worldUsers))
	case 21:
		return entitle(v, pick(rng, []string{"a", "b"}), "claims")
	case 22:
		e := role(pick(rng, worldRoles), []string{fmt.Sprint("c", rng.IntN(4))}, nil)
		e.Valid = longInterval(rng)
		if rng.IntN(2) == 0 {
			e.Role.Includes = []string{pick(rng, worldRoles)}
		}
		return e
	case 24, 25:
		return setting(v, pick(rng, []string{"a", "b"}), pick(rng, worldSettings), pick(rng, []any{true, false, int64(rng.IntN(9)), "s"}))
	case 26, 27:
		p := pick(rng, worldPersons)
		v := during(Instant(rng.IntN(worldEnd)), 0)
		v.To = v.From + 1 + Instant(rng.IntN(worldEnd))
		e := emergency(v, fmt.Sprint("e", rng.IntN(8)), pick(rng, worldUsers), p, worldOwned[p])
		if rng.IntN(3) == 0 {
			e.Emergency.Node = mustID(worldOwned[pick(rng, worldPersons)])
		}
		return e
	case 28:
		e := review(v, fmt.Sprint("e", rng.IntN(8)), pick(rng, worldUsers))
		e.Review.Outcome = pick(rng, []string{"justified", "unjustified"})
		return e
	case 29, 30, 31, 32:
		n := rng.IntN(*serial + 1)
		for range 20 {
			if len(worldNeeds(n)) > 0 {
				break
			}
			n = rng.IntN(*serial + 1)
		}
		if len(worldNeeds(n)) == 0 {
			break
		}
		s := pick(rng, worldNeeds(n))
		if s.As == SignerVerifier {
			s.By = mustID(pick(rng, worldUsers))
		}
		return sign(longInterval(rng), fmt.Sprint("g", n), s.As, s.By.String(), pick(rng, worldUsers))
	}
	switch rng.IntN(4) {
	case 0:
		m := Instant(rng.IntN(worldEnd))
		e := person(longInterval(rng), pick(rng, worldPersons), &m)
		if rng.IntN(3) == 0 {
			e.Node.Person.Majority = nil
		}
		return e
	case 1:
		return user(longInterval(rng), pick(rng, worldUsers))
	default:
		e := node(longInterval(rng), pick(rng, worldNodes))
		e.Node.Attrs = map[string]any{"n": int64(rng.IntN(100))}
		return e
	}
}

// randomHistory commits random batches, imports among them. What is refused is
// left out. It returns the batches. Where kinds are named, only they change.
func randomHistory(t testing.TB, rng *rand.Rand, batches int, only ...Kind) (*bench, []*Batch) {
	b := newBench(t)
	b.g.grants.indexes[byGrantee].crowds.most *= rng.IntN(2) // few are sorted too
	var history []*Batch
	var known []FactID
	kinds := map[FactID]Kind{}
	serial := 0
	commit := func(m *Import, events []Event) bool {
		batch := b.batch(m, events...)
		for {
			err := b.g.Check(batch)
			if err == nil {
				break
			}
			r, ok := err.(*Refusal)
			if !ok {
				t.Fatalf("check: %v", err)
			}
			if r.Index < 0 {
				return false
			}
			batch.Events = slices.Delete(slices.Clone(batch.Events), r.Index, r.Index+1)
		}
		b.apply(batch)
		history = append(history, batch)
		for i, e := range batch.Events {
			if e.Op == Assert {
				f := FactID{batch.Revision, uint32(i)}
				known = append(known, f)
				kinds[f] = e.Kind
			}
		}
		return true
	}
	// Most of the world stands from the start.
	var start []Event
	for _, n := range worldNodes {
		if rng.IntN(8) > 0 || n == "Tenant:a" {
			start = append(start, node(Always, n))
		}
	}
	for _, p := range worldPersons {
		m := Instant(rng.IntN(worldEnd))
		start = append(start, person(Always, p, &m))
	}
	for _, u := range worldUsers {
		start = append(start, user(Always, u))
	}
	for _, r := range worldRoles {
		start = append(start, role(r, []string{"c-" + r}, nil))
	}
	commit(nil, start)
	history0 := rng.IntN(3) == 0 // a history import first
	if !history0 {
		var owns []Event
		for _, p := range worldPersons {
			owns = append(owns, link(longInterval(rng), LinkOwns, p, worldOwned[p]))
		}
		commit(nil, owns)
	}
	for i := 0; len(history) < batches && i < 10*batches; i++ {
		b.time += Instant(rng.IntN(3))
		var m *Import
		open := b.g.Imports()
		switch {
		case history0 && i == 0:
			m = &Import{ID: "h", Step: ImportOpen, History: true}
			b.time = Instant(rng.IntN(500))
		case len(open) > 0 && (open[0].History || rng.IntN(2) == 0):
			o := pick(rng, open)
			step := ImportMore
			if rng.IntN(4) == 0 {
				step = pick(rng, []ImportStep{ImportClose, ImportClose, ImportAbandon})
			}
			m = &Import{ID: o.ID, Tenant: o.Tenant, History: o.History, Step: step}
		case rng.IntN(6) == 0:
			m = &Import{ID: fmt.Sprint("i", i), Tenant: pick(rng, []string{"", "a", "b"}), Step: ImportOpen}
		}
		var events []Event
		if m == nil || m.Step != ImportAbandon {
			for range 1 + rng.IntN(8) {
				e := randomEvent(rng, known, kinds, &serial)
				for len(only) > 0 && !slices.Contains(only, e.Kind) {
					e = randomEvent(rng, known, kinds, &serial)
				}
				events = append(events, e)
			}
			if rng.IntN(3) == 0 && len(events) > 0 { // an event that ends one of its own batch
				events = append(events, endAt(events[0].Kind, FactID{b.g.Tip().Revision + 1, 0}, Instant(rng.IntN(worldEnd))))
			}
		}
		commit(m, events)
	}
	return b, history
}

// rounds returns how much to try: more with WARD_CAMPAIGN=1.
func rounds(normal int) int {
	if os.Getenv("WARD_CAMPAIGN") == "1" {
		return 100 * normal
	}
	if testing.Short() {
		return normal/10 + 1
	}
	return normal
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// TestOracle puts questions about random histories to a View and to brute force.
func TestOracle(t *testing.T) {
	asked, changes, nonEmpty := 0, 0, 0
	for seed := range uint64(rounds(60)) {
		rng := newRand(seed)
		// Every kind at once, and those that hang together by themselves.
		only, about := []Kind{}, ""
		switch seed % 3 {
		case 1:
			only, about = []Kind{KindGrant, KindSignature}, "grants ended live missing signatures"
		case 2:
			only, about = []Kind{KindEmergency, KindReview, KindLink}, "emergencies"
		}
		b, history := randomHistory(t, rng, 10+rng.IntN(35), only...)
		head := b.g.Head().Revision
		confer := b.g.EdgeKinds("in")
		for range 120 {
			q := ask(rng)
			for about != "" && !strings.Contains(about, strings.Fields(q.name)[0]) {
				q = ask(rng)
			}
			at, rev := Instant(rng.IntN(worldEnd+4)-2), uint64(rng.IntN(int(head)+1))
			if rng.IntN(3) == 0 {
				rev = head
			}
			r := NewReading()
			v := b.g.At(at, rev, confer)
			got, want := fmt.Sprint(q.view(v.Reading(r))), fmt.Sprint(q.oracle(recall(history, rev, at)))
			if got != want {
				t.Fatalf("seed %d: %s at %d, revision %d of %d:\n got %s\nwant %s", seed, q.name, at, rev, head, got, want)
			}
			if plain := fmt.Sprint(q.view(v)); plain != got {
				t.Fatalf("seed %d: %s: with a Reading %s, without %s", seed, q.name, got, plain)
			}
			asked++
			if got != "[]" && got != "false" {
				nonEmpty++
			}
			// Until: no answer changes before it, and it lies ahead.
			until := r.Until()
			if until <= at {
				t.Fatalf("seed %d: %s at %d: until %d is not ahead", seed, q.name, at, until)
			}
			for later := at + 1; later <= worldEnd+worldEnd+2 && later < until; later++ {
				if now := fmt.Sprint(q.view(b.g.At(later, rev, confer))); now != got {
					t.Fatalf("seed %d: %s at %d, revision %d: until %v, but at %d\n got %s\nwas %s", seed, q.name, at, rev, until, later, now, got)
				}
			}
			if until != Forever && fmt.Sprint(q.view(b.g.At(until, rev, confer))) != got {
				changes++
			}
			for _, f := range r.Facts() {
				if x, ok := v.Fact(f); !ok || !x.Valid.Holds(at) {
					t.Fatalf("seed %d: %s at %d: used fact %v, which is not live", seed, q.name, at, f)
				}
			}
		}
	}
	t.Logf("%d questions, %d with an answer, %d whose answer changes at Until", asked, nonEmpty, changes)
	if changes*10 < asked || nonEmpty*5 < asked {
		t.Errorf("the questions are too easy: %d asked, %d with an answer, %d change", asked, nonEmpty, changes)
	}
}

// TestReplayed applies each history again and stops in the middle: the same
// answers at every revision that is visible.
func TestReplayed(t *testing.T) {
	for seed := range uint64(rounds(20)) {
		rng := newRand(seed)
		b, history := randomHistory(t, rng, 20)
		cut := rng.IntN(len(b.log)) + 1
		g := NewGraph()
		for _, e := range b.log[:cut] {
			if err := g.Apply(e); err != nil {
				t.Fatal(err)
			}
		}
		head := g.Head().Revision
		for range 30 {
			q, at := ask(rng), Instant(rng.IntN(worldEnd))
			got, want := fmt.Sprint(q.view(g.At(at, head, g.EdgeKinds("in")))), fmt.Sprint(q.oracle(recall(history[:cut], head, at)))
			if got != want {
				t.Fatalf("seed %d, cut at %d: %s at %d, revision %d:\n got %s\nwant %s", seed, cut, q.name, at, head, got, want)
			}
		}
	}
}

// TestInvariants looks at what Check let pass, at every instant of every
// revision: no cycle, no way from one tenant to another or to shared nodes, at
// most one node and one principal at a time, few enough grants.
func TestInvariants(t *testing.T) {
	for seed := range uint64(rounds(40)) {
		rng := newRand(1000 + seed)
		b, history := randomHistory(t, rng, 25)
		for rev := uint64(1); rev <= b.g.Head().Revision; rev++ {
			for at := Instant(0); at <= 2*worldEnd; at += 1 + Instant(rng.IntN(4)) {
				o := recall(history, rev, at)
				up := map[string][]string{}
				for _, f := range o.live(KindEdge) {
					up[f.event.Edge.Child.String()] = append(up[f.event.Edge.Child.String()], f.event.Edge.Parent.String())
				}
				if from := cyclic(up); from != "" {
					t.Fatalf("seed %d, revision %d at %d: a cycle through %s", seed, rev, at, from)
				}
				v := b.g.At(at, rev, b.g.EdgeKinds("in", "near"))
				for _, n := range worldNodes {
					id := mustID(n)
					for _, above := range v.Closure(id) {
						shared := func(id ID) bool { return id.Owner() == "" && id.Type != OperatorType }
						if o := above.Owner(); o != "" && o != id.Owner() || shared(above) != shared(id) {
							t.Fatalf("seed %d, revision %d at %d: %s is above %s", seed, rev, at, above, id)
						}
					}
				}
				once := map[string]int{}
				for _, f := range o.live(KindSetting) {
					once[fmt.Sprint("setting ", f.event.Setting.Tenant, f.event.Setting.Name)]++
				}
				for _, f := range o.live(KindReview) {
					once["review of "+f.event.Review.Emergency]++
				}
				for _, f := range o.live(KindSignature) {
					g := o.grantBy(f.event.Signature.Grant)
					if g == nil {
						continue // voided since
					}
					for _, n := range g.event.Grant.Needs {
						if f.event.Signature.meets(n) {
							once[fmt.Sprint("need ", g.event.Grant.ID, n)]++
						}
					}
				}
				for what, n := range once {
					if n > 1 {
						t.Fatalf("seed %d, revision %d at %d: %d times at once: %s", seed, rev, at, n, what)
					}
				}
				nodes, subs := map[ID]int{}, map[string]int{}
				for _, f := range o.live(KindNode) {
					if nodes[f.event.Node.ID]++; nodes[f.event.Node.ID] > 1 {
						t.Fatalf("seed %d, revision %d at %d: two nodes of one id", seed, rev, at)
					}
				}
				for _, f := range o.live(KindLink) {
					if l := f.event.Link; l.Kind == LinkIdentity {
						if subs[l.Sub]++; subs[l.Sub] > 1 {
							t.Fatalf("seed %d, revision %d at %d: one identity is two principals", seed, rev, at)
						}
					}
				}
			}
		}
	}
}

// cyclic returns a node on a cycle, or "".
func cyclic(up map[string][]string) string {
	for from := range up {
		seen := map[string]bool{}
		todo := slices.Clone(up[from])
		for len(todo) > 0 {
			n := todo[0]
			todo = todo[1:]
			if n == from {
				return from
			}
			if !seen[n] {
				seen[n] = true
				todo = append(todo, up[n]...)
			}
		}
	}
	return ""
}

// TestCycleOracle asserts random edges one by one: exactly those are refused
// as a cycle that close one at some instant.
func TestCycleOracle(t *testing.T) {
	refused, accepted := 0, 0
	for seed := range uint64(rounds(60)) {
		rng := newRand(2000 + seed)
		b := newBench(t)
		names := []string{"G:a/0", "G:a/1", "G:a/2", "G:a/3", "G:a/4", "G:a/5"}
		events := []Event{node(Always, "Tenant:a")}
		for _, n := range names {
			events = append(events, node(Always, n))
		}
		b.do(events...)
		var edges []Event
		for range 40 {
			e := edge(randomInterval(rng), pick(rng, names), pick(rng, names))
			e.Edge.Kind = pick(rng, []string{"in", "near"})
			want := false
			for at := Instant(-1); at <= 2*worldEnd+1 && !want; at++ {
				up := map[string][]string{}
				for _, o := range append(edges[:len(edges):len(edges)], e) {
					if o.Valid.Holds(at) {
						up[o.Edge.Child.String()] = append(up[o.Edge.Child.String()], o.Edge.Parent.String())
					}
				}
				want = cyclic(up) != ""
			}
			err := b.try(nil, e)
			switch {
			case err == nil && want:
				t.Fatalf("seed %d: accepted an edge that closes a cycle", seed)
			case err == nil:
				edges = append(edges, e)
				accepted++
			case strings.HasPrefix(err.Error(), CodeDuplicateFact):
			case !want || !strings.HasPrefix(err.Error(), CodeCycle):
				t.Fatalf("seed %d: %v; closes a cycle: %v", seed, err, want)
			default:
				refused++
			}
		}
	}
	if refused < 30 || accepted < 30 { // of the short run too
		t.Errorf("%d refused, %d accepted: too one-sided", refused, accepted)
	}
}

// TestEmergencyOracle opens random emergencies among reviews and merges that
// come and go: exactly those are refused that start too late, or while another
// of the same principal for the same person waits for its review.
func TestEmergencyOracle(t *testing.T) {
	refused, accepted := 0, 0
	for seed := range uint64(rounds(60)) {
		rng := newRand(5000 + seed)
		b := newBench(t)
		b.time = 10
		persons, users := worldPersons[:3], worldUsers[:2]
		events := []Event{node(Always, "Tenant:a"), user(Always, "User:rita")}
		for _, u := range users {
			events = append(events, user(Always, u))
		}
		for _, p := range persons {
			events = append(events, person(Always, p, nil), node(Always, worldOwned[p]), link(Always, LinkOwns, p, worldOwned[p]))
		}
		var history []*Batch
		commit := func(events ...Event) error {
			batch := b.batch(nil, events...)
			if err := b.g.Check(batch); err != nil {
				return err
			}
			b.apply(batch)
			history = append(history, batch)
			return nil
		}
		if err := commit(events...); err != nil {
			t.Fatal(err)
		}
		for n := range 60 {
			b.time += Instant(rng.IntN(3))
			o := recall(history, uint64(len(history)), 0)
			switch rng.IntN(7) {
			case 0:
				_ = commit(link(randomInterval(rng), LinkMerge, pick(rng, persons), pick(rng, persons)))
			case 1, 2:
				_ = commit(review(randomInterval(rng), fmt.Sprint("e", rng.IntN(n+1)), "User:rita"))
			case 3:
				var some []Event
				for _, f := range o.facts {
					if f.kind == KindEmergency || f.kind == KindReview || f.kind == KindLink && f.event.Link.Kind == LinkMerge {
						some = append(some, void(f.kind, f.id), endAt(f.kind, f.id, Instant(rng.IntN(60)+1)))
					}
				}
				if len(some) > 0 {
					_ = commit(pick(rng, some))
				}
			default:
				v := during(b.time+5-Instant(rng.IntN(40)), 0)
				v.To = v.From + 1 + Instant(rng.IntN(20))
				u, p := pick(rng, users), pick(rng, persons)
				o.at = v.From
				same := o.merged(p)
				o.at = b.time
				open := slices.ContainsFunc(o.facts, func(f oracleFact) bool {
					return f.kind == KindEmergency && f.event.Emergency.Principal.String() == u && same[f.event.Emergency.Person.String()] &&
						!slices.ContainsFunc(o.live(KindReview), func(r oracleFact) bool { return r.event.Review.Emergency == f.event.Emergency.ID })
				})
				want := ""
				switch {
				case v.From > b.time:
					want = CodeEmergencyFuture
				case open:
					want = CodeEmergencyOpen
				}
				err := commit(emergency(v, fmt.Sprint("e", n), u, p, worldOwned[p]))
				got := ""
				if err != nil {
					got, _, _ = strings.Cut(err.Error(), ":")
				}
				if got != want {
					t.Fatalf("seed %d, step %d: got %v; want %q", seed, n, err, want)
				}
				if err == nil {
					accepted++
				} else if open {
					refused++
				}
			}
		}
	}
	if refused < 30 || accepted < 30 { // of the short run too
		t.Errorf("%d refused, %d accepted: too one-sided", refused, accepted)
	}
}
