package policies

// WardNamespace is the Cedar namespace of the built-in set.
const WardNamespace = "Ward"

// CanContain reports whether a node of type above can be an ancestor of one of
// type below over conferring edge kinds.
func (c *Catalogue) CanContain(above, below string) bool { return c.contains[[2]string{above, below}] }

// contain works out which node types can contain which.
func (c *Catalogue) contain() {
	up := map[string][]string{} // parents by type
	for _, e := range c.Edges {
		if e.Confers {
			for _, from := range e.From {
				up[from] = append(up[from], e.To...)
			}
		}
	}
	c.contains = map[[2]string]bool{}
	for below := range up {
		for todo := up[below]; len(todo) > 0; {
			above := todo[0]
			todo = todo[1:]
			if k := [2]string{above, below}; !c.contains[k] {
				c.contains[k] = true
				todo = append(todo[:len(todo):len(todo)], up[above]...)
			}
		}
	}
}
