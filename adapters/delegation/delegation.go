// Package delegation is the people's door: over HTTP they ask for grants, sign
// and end them, and open emergencies, themselves. The pack decides all of it;
// the door reads strictly, and turns what [pdp.PDP] says back into JSON.
//
//	door, err := delegation.New(delegation.Config{PDP: pdp, Hosts: []string{"127.0.0.1:8180"}, Caller: callers.Identify})
//
// Ask it:
//
//	$ curl -s https://pdp.example.com/v1/grants \
//	    -H 'Ward-Subject: user:otto' -H 'Content-Type: application/json' -d '{
//	      "type": "adult-proxy", "subject": "Person:otto", "grantee": "User:nora",
//	      "scope": {"capabilities": ["lab.view"]}, "to": "2027-06-30", "zone": "America/New_York"}'
//	{"id":"g-…","type":"adult-proxy","state":"active",…,"record":"a-1042","revision":318}
//
// Give the server a WriteTimeout: an answer to GET that its client does not read
// holds back the acknowledgement of revocations until it has left (see the
// Delivery section of package authz).
//
// # Endpoints
//
//	POST   /v1/grants                 ask for a grant         201  the grant
//	GET    /v1/grants                 the asker's grants      200  {"grants": [the grant, …]}
//	GET    /v1/grants/{id}            one of them             200  the grant
//	POST   /v1/grants/{id}/approval   sign it                 200  the grant
//	DELETE /v1/grants/{id}            end it, or take back    200  the grant
//	                                  the assent it rests on
//	POST   /v1/emergencies            break the glass         201  the emergency
//	DELETE /v1/emergencies/{id}       end it before its time  200  the emergency
//	POST   /v1/emergencies/{id}/review  close its case        200  the emergency
//
// The list shows the grants that the asker is the grantee or the subject of, at
// most [pdp.MaxListed]. Where the pack in force has no resource of kind grant (or
// emergency), those paths answer 404.
//
// # Who asks
//
// The header Ward-Subject names the person, as type:id ("user:mia"), once. It
// counts only from a caller that is registered to assert subjects of that type;
// from another the decision point records the question and denies it with
// subject_unverified. A caller with an issuer gives the issuer's "sub" as the
// id. Nothing in a body says who asks.
//
// # Bodies
//
// A body is one JSON object of at most 64 KiB, and what is asked for of
// [pdp.MaxRequestBytes], declared as application/json.
// Unknown fields, duplicate keys and null are refused; requests without a body
// here must have none, and no path takes a query. An id is written as elsewhere
// in Ward: Person:leo, User:mia, Patient:general/leo. A time is RFC 3339, or a
// date (YYYY-MM-DD) in the time zone that "zone" names, UTC without; the day of
// an end is part of it. Names (types, capabilities, reasons) have letters,
// digits, '.', '-' and '_', at most 64; texts have at most 1024 bytes without
// control characters.
//
// Asking for a grant:
//
//	key            optional: the asker's own name for this request, of letters, digits
//	               and '-', at most 64. It is used once, and says nothing to others: the
//	               same key again is answered with grant_exists and the Location of the
//	               grant, so that a client that lost an answer asks again safely
//	type           a grant type of the pack (parent, adult-proxy, org-delegate, …)
//	subject        the person, or the node, that it is about
//	grantor        optional: who gives; the subject without
//	grantee        who may act: a principal, or a node between organisations
//	scope          {capabilities: […],            what may be done; at least one
//	                covers: […],                  sensitivities beyond the routine ones
//	                coverage: ID,                 narrowed to what hangs from this node
//	                records: ["report:r-17", …],  narrowed to these
//	                service: {from, to}}          narrowed to records dated so
//	purpose        optional: HL7 PurposeOfUse codes
//	from, to       optional: now, and no end but by majority
//	zone           optional: the zone of the dates, for example America/New_York
//	coSigners      optional: who else must sign, where the type says so
//	legalBasis     optional
//	evidence       optional: {document, sha256, assurance}; a reference, never the content
//	parent         optional: the id of the grant that this one is made from
//	mayRedelegate  optional: whether grants may be made from it
//	maxDepth       with mayRedelegate: how deep, 1 to 3
//	why, ticket    optional: kept with the change
//
// The id of a grant is made here, and nobody can guess it. Who asks to act for a
// person and is no family of theirs names a record of that person as the coverage:
// without, the answer is the one for a person that does not exist. At most
// [pdp.MaxRequested] grants that somebody asked for wait for a signature, and
// at most [pdp.MaxRequests] are asked for within 24 hours, by all accounts of one
// person.
//
// Signing: {"as": "grantor" | "subject" | "co-signer" | "verifier"}. Opening an
// emergency: {node, reason, text, ticket?}, of which the privacy office reads the
// text. Reviewing one: {"outcome": "justified" | "unjustified", text?}.
//
// # Answers
//
// A grant, with what is absent left out:
//
//	id, type, grantor, grantee, subject, scope, purpose, parent, mayRedelegate, maxDepth
//	state        requested, future, active, ended, revoked or void
//	needs        the signatures it takes: [{as, by, signed}], signed being the time
//	             from which one counts
//	from, to     its own time
//	until        the end of the time around now in which it counts, with those of its
//	             parents, the signatures and the subject's majority
//	byMajority   true: that end is the subject's majority
//	record       the record of this answer
//	revision     the number of the last change that the answer knew
//	obligations  what the caller must do now: [{id, properties}]
//
// An emergency:
//
//	id, node, reason, from, until, record, revision, obligations
//	review       its outcome, once it is reviewed
//
// Times are RFC 3339 in UTC with milliseconds. The header Ward-Record names the
// record of every answer that has one. Everything else is an error:
//
//	{"error":{"code":"no_standing","message":"…","record":"a-1043"}}
//
//	400  the request cannot be read        413  its body is too large
//	401  caller_unknown                    415  its body is not application/json
//	403  denied, with the decision's code (denied, forbidden, grant_ended,
//	     majority_reached, obligation_unsupported, subject_unverified, …)
//	404  not_found: no such path. unknown_resource: what is named does not exist,
//	     or is not the asker's to know of; the two are told apart in the record alone.
//	     So is every denial of a grant about a person who is not the asker
//	405  another method                    421  another host
//	409  grant_exists, grant_limit, request_limit, duplicate_fact, emergency_open,
//	     nothing_to_do
//	422  what the facts or the pack do not admit, with the code of the
//	     [hierarchy.Refusal]; its text names no person. Of the facts only who may ask
//	     is told: all others are denied
//	429  rate_limited, with Retry-After: the caller asks more often than it may
//	503  an outage, with Retry-After: no decision, and never a deny. What was asked
//	     may have been done all the same; asking again with the same key is safe
//
// Of what was sent, messages repeat the name of an unknown field and the ids of
// organisations' nodes, and nothing else.
//
// # Compatibility
//
// Codes and members of answers are append-only.
package delegation

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/ward-authz/ward/adapters/hosts"
	"github.com/ward-authz/ward/adapters/panics"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/authz"
)

// Config says what a door needs. PDP and Caller are required.
type Config struct {
	// PDP decides and does what people ask.
	PDP *pdp.PDP
	// Hosts lists the values of the Host header that are served, as
	// [hosts.Read] reads them.
	Hosts []string
	// Caller says which program asks, from the connection or a credential in the
	// header. False answers 401. It must not read the body.
	Caller func(*http.Request) (authz.Caller, bool)
	// Refused, when set, is called with the code of every request that was
	// refused without a decision, for counting. It must be fast.
	Refused func(authz.Code)
	// Log gets panics (error) and outages (debug), by code and place, never with
	// values of a request; nil discards.
	Log *slog.Logger
}

// Codes of this door's own errors, beside those of packages authz, jsonbody,
// hosts and hierarchy.
const (
	// NotFound: no such endpoint, or the pack has no such things. Status 404.
	NotFound authz.Code = "not_found"
	// MethodNotAllowed: the endpoint exists, for another method. Status 405.
	MethodNotAllowed authz.Code = "method_not_allowed"
	// CallerUnknown: nobody registered is asking. Status 401.
	CallerUnknown authz.Code = "caller_unknown"
	// SubjectMissing: no header Ward-Subject.
	SubjectMissing authz.Code = "subject_missing"
	// SubjectInvalid: Ward-Subject is not type:id, or is given twice.
	SubjectInvalid authz.Code = "subject_invalid"
	// QueryUnexpected: there is a query, which no endpoint takes.
	QueryUnexpected authz.Code = "query_unexpected"
	// BodyUnexpected: there is a body where none is taken.
	BodyUnexpected authz.Code = "body_unexpected"
	// FieldMissing: a required field is absent.
	FieldMissing authz.Code = "field_missing"
	// FieldUnknown: a field that this endpoint does not know.
	FieldUnknown authz.Code = "field_unknown"
	// FieldType: a field has the wrong JSON type.
	FieldType authz.Code = "field_type"
	// FieldInvalid: a field's value is malformed.
	FieldInvalid authz.Code = "field_invalid"
	// DoorFailed: the door itself failed. An outage.
	DoorFailed authz.Code = "door_failed"
)

type door struct {
	pdp     *pdp.PDP
	hosts   hosts.List
	caller  func(*http.Request) (authz.Caller, bool)
	refused func(authz.Code)
	log     *slog.Logger
}

// New returns the door as a handler.
func New(c Config) (http.Handler, error) {
	if c.PDP == nil || c.Caller == nil {
		return nil, errors.New("delegation: Config.PDP and Config.Caller are required")
	}
	list, err := hosts.Read(c.Hosts)
	if err != nil {
		return nil, fmt.Errorf("delegation: Config.Hosts: %w", err)
	}
	d := &door{pdp: c.PDP, hosts: list, caller: c.Caller, refused: c.Refused, log: c.Log}
	if d.refused == nil {
		d.refused = func(authz.Code) {}
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	return d, nil
}

// Serves reports whether a path is this door's, for a server that has others.
func Serves(path string) bool {
	for _, root := range []string{"/v1/grants", "/v1/emergencies"} {
		if path == root || strings.HasPrefix(path, root+"/") {
			return true
		}
	}
	return false
}

// ServeHTTP answers one request. A panic below it becomes an outage.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out := &reply{w: w}
	defer func() {
		if v := recover(); v != nil {
			panics.Log(d.log, "delegation", v)
			if !out.started {
				out.fail(&authz.Error{Kind: authz.Outage, Code: DoorFailed})
			}
		}
	}()
	if err := d.route(out, r); err != nil {
		code, record := out.fail(err)
		switch {
		case outage(err):
			d.log.Debug("delegation: outage", "code", code)
		case record == "":
			d.refused(code)
		}
	}
}

// question is a request whose headers are read: who asks what, about which id.
type question struct {
	*http.Request
	out *reply
	who pdp.Asking
	id  string
}

// endpoint is what a path answers, by method.
type endpoint map[string]func(*door, question) error

// endpoints by what follows the kind in the path; "*" stands for an id.
var endpoints = map[string]map[string]endpoint{
	"grants": {
		"":            {"POST": (*door).requestGrant, "GET": (*door).grants},
		"/*":          {"GET": (*door).grant, "DELETE": (*door).revokeGrant},
		"/*/approval": {"POST": (*door).signGrant},
	},
	"emergencies": {
		"":          {"POST": (*door).openEmergency},
		"/*":        {"DELETE": (*door).endEmergency},
		"/*/review": {"POST": (*door).reviewEmergency},
	},
}

// route checks what the request line and the headers say, before the body.
func (d *door) route(out *reply, r *http.Request) error {
	if err := d.hosts.Check(r); err != nil {
		return err
	}
	kind, id, found := find(r.URL.EscapedPath())
	if found == nil {
		return refuse(NotFound, "no such endpoint")
	}
	serve := found[r.Method]
	if serve == nil {
		out.w.Header().Set("Allow", allowed(found))
		return refuse(MethodNotAllowed, "this endpoint takes "+allowed(found))
	}
	caller, ok := d.caller(r)
	if !ok {
		return refuse(CallerUnknown, "the caller is not registered here")
	}
	if !d.has(kind) {
		return refuse(NotFound, "the policy set in force has nothing of this kind")
	}
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return refuse(QueryUnexpected, "no endpoint takes a query")
	}
	if r.Method != "POST" && r.ContentLength != 0 {
		return refuse(BodyUnexpected, "this request takes no body")
	}
	who, err := subject(r.Header, caller)
	if err != nil {
		return err
	}
	return serve(d, question{r, out, pdp.Asking{Subject: who, Caller: caller}, id})
}

// find splits a path that this door serves.
func find(path string) (kind, id string, _ endpoint) {
	rest, ok := strings.CutPrefix(path, "/v1/")
	if !ok {
		return "", "", nil
	}
	kind, rest, _ = strings.Cut(rest, "/")
	if rest == "" {
		if path != "/v1/"+kind {
			return "", "", nil
		}
		return kind, "", endpoints[kind][""]
	}
	id, action, _ := strings.Cut(rest, "/")
	if !isID(id) {
		return "", "", nil
	}
	pattern := "/*"
	if rest != id {
		pattern += "/" + action
	}
	return kind, id, endpoints[kind][pattern]
}

// has reports whether the pack in force has grants or emergencies. Without a
// pack the decision point itself says that it is not ready.
func (d *door) has(kind string) bool {
	set := d.pdp.Set()
	if set == nil {
		return true
	}
	for _, rt := range set.Catalogue().Resources {
		if rt.Kind == "grant" && kind == "grants" || rt.Kind == "emergency" && kind == "emergencies" {
			return true
		}
	}
	return false
}

func allowed(e endpoint) string {
	var methods []string
	for _, m := range []string{"GET", "POST", "DELETE"} {
		if e[m] != nil {
			methods = append(methods, m)
		}
	}
	return strings.Join(methods, ", ")
}
