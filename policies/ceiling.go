package policies

import "slices"

// Own reports whether a capability is one of Ward's own: an action on its own
// objects.
func (c *Catalogue) Own(capability string) bool {
	act := c.Actions[capability]
	return act != nil && slices.ContainsFunc(act.Resources, func(r string) bool { return c.Resources[r].Kind == KindWard })
}

// WithinTenant reports whether a capability of the pack lies within the ceiling
// of tenants: who administers no more than a tenant confers no other, and a
// tenant's own role holds no other. Without TenantRoles there is none.
func (c *Catalogue) WithinTenant(capability string) bool { return c.ceiling[capability] }

// Delegable reports whether a grant of a type about a person may confer a
// capability: one that the person has on their own records, or that the type
// names. None of Ward's own is.
func (c *Catalogue) Delegable(grantType, capability string) bool {
	if c.Own(capability) {
		return false
	}
	gt := c.GrantTypes[grantType]
	return gt != nil && (c.personal[capability] || slices.Contains(gt.Capabilities, capability))
}

// Reserved reports whether a role is what people hold on their own records (the
// self role, with what it includes) or in an emergency, and so is assigned to
// nobody: at a node it would open all that hangs from it.
func (c *Catalogue) Reserved(role string) bool { return c.reserved[role] }

// bound works out the ceilings.
func (c *Catalogue) bound() {
	roles := map[string]Role{}
	for _, r := range c.Roles {
		roles[r.Name] = r
	}
	c.ceiling, c.personal = held(roles, c.TenantRoles...), held(roles, c.SelfRole)
	c.reserved = map[string]bool{}
	for todo := []string{c.SelfRole}; len(todo) > 0; todo = todo[1:] {
		if name := todo[0]; name != "" && !c.reserved[name] {
			c.reserved[name] = true
			todo = append(todo, roles[name].Includes...)
		}
	}
	if c.Emergency != nil {
		c.reserved[c.Emergency.Role] = true
	}
}

// held returns the capabilities of roles and of all that they include.
func held(roles map[string]Role, names ...string) map[string]bool {
	out, seen := map[string]bool{}, map[string]bool{}
	for todo := slices.Clone(names); len(todo) > 0; {
		name := todo[0]
		if todo = todo[1:]; seen[name] {
			continue
		}
		seen[name] = true
		for _, capability := range roles[name].Capabilities {
			out[capability] = true
		}
		todo = append(todo, roles[name].Includes...)
	}
	return out
}
