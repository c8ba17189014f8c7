package admin

// importEndpoints adds the endpoints of imports with [post].
func (h *Handler) importEndpoints() {}
