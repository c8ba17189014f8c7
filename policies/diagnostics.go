package policies

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Diagnostic is one finding about a pack. Its Code is stable, its Text is for
// people. Line and Column start at 1; 0 means that the place is not known.
type Diagnostic struct {
	File         string
	Line, Column int
	Code         string
	Text         string
}

// String returns the finding as file:line:column: code: text.
func (d Diagnostic) String() string {
	return fmt.Sprintf("%s:%d:%d: %s: %s", d.File, max(d.Line, 1), max(d.Column, 1), d.Code, d.Text)
}

// Diagnostics is the error of [Compile] and [Open]: every finding, sorted by
// file, place and code.
type Diagnostics struct {
	Findings []Diagnostic
}

// Error returns one finding a line, as file:line:column: code: text.
func (d *Diagnostics) Error() string {
	lines := make([]string, len(d.Findings))
	for i, f := range d.Findings {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Has reports whether a finding has this code.
func (d *Diagnostics) Has(code string) bool {
	return slices.ContainsFunc(d.Findings, func(f Diagnostic) bool { return f.Code == code })
}

func (d *Diagnostics) add(file string, line, column int, code, format string, args ...any) {
	d.Findings = append(d.Findings, Diagnostic{
		File: file, Line: max(line, 1), Column: max(column, 1), Code: code,
		Text: fmt.Sprintf(format, args...),
	})
}

// err returns d sorted and without repetitions, or nil when it is empty.
func (d *Diagnostics) err() error {
	if len(d.Findings) == 0 {
		return nil
	}
	slices.SortFunc(d.Findings, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Text, b.Text))
	})
	d.Findings = slices.Compact(d.Findings)
	return d
}

// Codes of a [Diagnostic]. Append-only. The package comment explains them.
const (
	CodeFileUnknown    = "file_unknown"
	CodeFileTooLarge   = "file_too_large"
	CodeTooManyFiles   = "too_many_files"
	CodeNotUTF8        = "not_utf8"
	CodeBidiControl    = "bidi_control"
	CodeNestingTooDeep = "nesting_too_deep"
	CodeSetTooLarge    = "set_too_large"
	CodePolicyTooLarge = "policy_too_large"
	CodeArchiveInvalid = "archive_invalid"

	CodeYAMLInvalid  = "yaml_invalid"
	CodeKeyUnknown   = "key_unknown"
	CodeKeyDuplicate = "key_duplicate"
	CodeKeyMissing   = "key_missing"
	CodeValueInvalid = "value_invalid"

	CodeCatalogueMissing  = "catalogue_missing"
	CodeSchemaMissing     = "schema_missing"
	CodeSchemaInvalid     = "schema_invalid"
	CodeSchemaDuplicate   = "schema_duplicate"
	CodeNamespaceUnknown  = "namespace_unknown"
	CodeNamespaceReserved = "namespace_reserved"
	CodeEntityReserved    = "entity_reserved"

	CodePolicyInvalid       = "policy_invalid"
	CodeValidationFailed    = "validation_failed"
	CodeIDMissing           = "id_missing"
	CodeIDInvalid           = "id_invalid"
	CodeIDDuplicate         = "id_duplicate"
	CodeIDReserved          = "id_reserved"
	CodeObligationInvalid   = "obligation_invalid"
	CodeEnumUnknown         = "enum_unknown"
	CodeUnsupportedFunction = "unsupported_function"
	CodeUnsupportedLiteral  = "unsupported_literal"
	CodeForbidOnOptional    = "forbid_on_optional"
	CodeModulePermit        = "module_permit"
	CodeBuiltinPermit       = "builtin_permit"
	CodeBuiltinForbid       = "builtin_forbid"
	CodeOverlayPermit       = "overlay_permit"
	CodeOverlayBuiltin      = "overlay_builtin"
	CodeOverlayEmpty        = "overlay_empty"

	CodeNameReserved      = "name_reserved"
	CodeActionUndeclared  = "action_undeclared"
	CodeActionUnknown     = "action_unknown"
	CodeEntityUnknown     = "entity_unknown"
	CodeEntityUndeclared  = "entity_undeclared"
	CodeAttributeUnknown  = "attribute_unknown"
	CodeAttributeType     = "attribute_type"
	CodeWardUnknown       = "ward_unknown"
	CodeSourceMissing     = "source_missing"
	CodeSourceDuplicate   = "source_duplicate"
	CodeNodeUnknown       = "node_unknown"
	CodeModuleUnknown     = "module_unknown"
	CodeSettingUnknown    = "setting_unknown"
	CodeResourceUnknown   = "resource_unknown"
	CodeRouteDuplicate    = "route_duplicate"
	CodeRoleUnknown       = "role_unknown"
	CodeRoleDuplicate     = "role_duplicate"
	CodeRoleCycle         = "role_cycle"
	CodeGrantUnknown      = "grant_unknown"
	CodeCapabilityUnknown = "capability_unknown"
	CodeCaseUnknown       = "case_unknown"
	CodeEdgeTypesMissing  = "edge_types_missing"
)

// checked are the codes of findings that evaluation can do without: [Compile]
// refuses a pack with one, [Open] does not. A check that a later version adds
// gets a code of its own here, so that older sets still open.
var checked = map[string]bool{
	CodeValidationFailed: true, CodeEnumUnknown: true, CodeUnsupportedFunction: true, CodeUnsupportedLiteral: true,
	CodeForbidOnOptional: true, CodeModulePermit: true, CodeBuiltinPermit: true, CodeBuiltinForbid: true,
	CodeOverlayBuiltin: true,
	CodeRouteDuplicate: true, CodeCapabilityUnknown: true, CodeCaseUnknown: true, CodeEdgeTypesMissing: true,
}
