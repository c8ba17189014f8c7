package admin

import (
	"context"
	"net"
)

type peerKey struct{}

// ConnContext notes the user id at the other end of a Unix socket connection,
// as the kernel reports it. It is an http.Server's ConnContext.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	uid, err := peerUID(u)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, uid)
}

// PeerUID returns the user id that [ConnContext] noted.
func PeerUID(ctx context.Context) (uid int, ok bool) {
	uid, ok = ctx.Value(peerKey{}).(int)
	return uid, ok
}
