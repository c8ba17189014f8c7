package policies

import "io/fs"

func ReadPack(fsys fs.FS) (map[string][]byte, error) { return nil, nil }
func Compile(files map[string][]byte) (*Set, error)  { return nil, nil }
func Open(archive []byte) (*Set, error)              { return nil, nil }
func PBM() map[string][]byte                         { return nil }
func Encode(q *Question) []byte                      { return nil }

// Set is a compiled pack.
type Set struct{}

func (s *Set) Archive() []byte                               { return nil }
func (s *Set) Digest() string                                { return "" }
func (s *Set) Name() string                                  { return "" }
func (s *Set) Catalogue() *Catalogue                         { return nil }
func (s *Set) Policies() []*Policy                           { return nil }
func (s *Set) Policy(id string) (*Policy, bool)              { return nil, false }
func (s *Set) Cases() []Case                                 { return nil }
func (s *Set) Evaluate(q *Question) Outcome                  { return Outcome{} }
func (s *Set) Explain(q *Question, policyID string) []Clause { return nil }

type compiled struct{}
