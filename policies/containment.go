package policies

// WardNamespace is the Cedar namespace of the built-in set.
const WardNamespace = "Ward"

// CanContain reports whether a node of type above can be an ancestor of one of
// type below over conferring edge kinds that name their node types.
func (c *Catalogue) CanContain(above, below string) bool {
	seen := map[string]bool{}
	var climb func(string) bool
	climb = func(t string) bool {
		if seen[t] {
			return false
		}
		seen[t] = true
		for _, e := range c.Edges {
			if !e.Confers {
				continue
			}
			for _, from := range e.From {
				if from != t {
					continue
				}
				for _, to := range e.To {
					if to == above || climb(to) {
						return true
					}
				}
			}
		}
		return false
	}
	return climb(below)
}
