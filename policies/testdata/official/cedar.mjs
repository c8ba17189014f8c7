// The official Cedar engine (@cedar-policy/cedar-wasm, Apache-2.0), asked once:
// a pack and questions as JSON on standard input, what it says on standard
// output. See package policies/officialtest.
import { readFileSync } from "node:fs";
import cedar from "@cedar-policy/cedar-wasm/nodejs";

// must returns an answer of the engine that is no failure.
function must(answer, what) {
  if (answer.type !== "success") throw new Error(`${what}: ${text(answer.errors)}`);
  return answer;
}

const text = (errors) => errors.map((e) => (e.help ? `${e.message} (${e.help})` : e.message)).join("; ");

// merge joins files that declare parts of one namespace, as a pack's do; in Cedar
// a namespace stands in one block. What is not of that form does not parse.
function merge(files) {
  const bodies = new Map();
  for (const file of files) {
    const m = /^(?:\s|\/\/.*)*namespace\s+(\w+)\s*\{([^]*)\}(?:\s|\/\/.*)*$/.exec(file);
    if (!m) throw new Error("a schema file is not one namespace");
    bodies.set(m[1], (bodies.get(m[1]) ?? "") + m[2] + "\n");
  }
  return [...bodies].map(([name, body]) => `namespace ${name} {${body}}\n`).join("");
}

// readPolicies returns the policies of the files by their @id.
function readPolicies(files) {
  const policies = {};
  for (const file of files) {
    const parts = must(cedar.policySetTextToParts(file), "policies");
    if (parts.policy_templates.length > 0) throw new Error("policies: a template");
    for (const policy of parts.policies) {
      const { id } = must(cedar.policyToJson(policy), "policy").json.annotations ?? {};
      if (!id || Object.hasOwn(policies, id)) throw new Error(`policies: @id ${id} is missing or given twice`);
      policies[id] = policy;
    }
  }
  return policies;
}

// What follows turns Ward's canonical encoding of a question into Cedar's JSON.
const uid = ([type, id]) => ({ type, id });
const each = (fields, f) => Object.fromEntries(Object.entries(fields ?? {}).map(([k, v]) => [k, f(v)]));

function value(v) {
  if (typeof v === "number" && !Number.isSafeInteger(v)) throw new Error("a number that JSON loses here");
  if (typeof v !== "object") return v;
  const [[kind, x]] = Object.entries(v);
  switch (kind) {
    case "ref": return { __entity: uid(x) };
    case "datetime": return { __extn: { fn: "datetime", arg: new Date(x).toISOString() } };
    case "ip": return { __extn: { fn: "ip", arg: x } };
    case "set": return x.map(value);
    case "record": return each(x, value);
  }
  throw new Error(`a value of kind ${kind}`);
}

const entity = (e) => ({
  uid: uid(e.ref),
  attrs: each(e.attrs, value),
  parents: (e.parents ?? []).map(uid),
  tags: each(e.tags, (scopes) => scopes.map((s) => ({ __entity: uid(s) }))),
});

// readActions returns each of the schema's actions by name, as an entity with all
// its ancestors.
function readActions(schema) {
  const actions = {}, parents = {};
  const key = (p) => JSON.stringify([p.type, p.id]);
  for (const [namespace, declared] of Object.entries(must(cedar.schemaToJson(schema), "schema").json)) {
    const type = `${namespace}::Action`;
    for (const [id, { memberOf }] of Object.entries(declared.actions)) {
      if (Object.hasOwn(actions, id)) throw new Error(`action ${id} is declared twice`);
      actions[id] = { uid: { type, id }, attrs: {}, parents: [] };
      parents[key({ type, id })] = (memberOf ?? []).map((p) => ({ type: p.type ?? type, id: p.id }));
    }
  }
  for (const action of Object.values(actions)) {
    const above = new Map(), todo = [action.uid];
    for (const p of todo) {
      for (const q of parents[key(p)]) {
        if (!above.has(key(q))) todo.push(q);
        above.set(key(q), q);
      }
    }
    action.parents = [...above.values()];
  }
  return actions;
}

const { schemas, policies: files, questions } = JSON.parse(readFileSync(0, "utf8"));
const schema = merge(schemas);
const policies = readPolicies(files);
const actions = readActions(schema);

const checked = must(
  cedar.validate({ schema, policies: { staticPolicies: policies }, validationSettings: { mode: "strict" } }), "validate");
const findings = [
  ...checked.validationErrors.map((e) => `error: ${e.policyId}: ${text([e.error])}`),
  ...checked.validationWarnings.map((e) => `warning: ${e.policyId}: ${text([e.error])}`),
  ...checked.otherWarnings.map((e) => `warning: ${text([e])}`),
];

must(cedar.preparseSchema("schema", schema), "schema");
must(cedar.preparsePolicySet("policies", { staticPolicies: policies }), "policies");

// A question that conforms is held to the schema, entities and context; any other
// is evaluated as it is.
function answer({ conforms, question: q }) {
  const entities = [q.principal, q.resource, ...(q.others ?? [])].map(entity);
  const action = actions[q.action];
  const said = cedar.statefulIsAuthorized({
    principal: uid(q.principal.ref), action: action.uid, resource: uid(q.resource.ref), context: each(q.context, value),
    preparsedPolicySetId: "policies",
    ...(conforms
      ? { entities, preparsedSchemaName: "schema", validateRequest: true }
      : { entities: [...entities, action] }),
  });
  if (said.type !== "success") return { failure: text(said.errors) };
  const { decision, diagnostics } = said.response;
  return { allow: decision === "allow", reasons: diagnostics.reason.sort(), errors: diagnostics.errors.map((e) => e.policyId).sort() };
}

process.stdout.write(JSON.stringify({
  version: cedar.getCedarSDKVersion(), policies: Object.keys(policies).sort(), findings, answers: questions.map(answer),
}));
