// Package hosts checks the Host header. Every HTTP door needs it: a web page
// could otherwise reach one on this machine through a name of its own that it
// points here (DNS rebinding), and its scripts would read the answers.
package hosts

import (
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/ward-authz/ward/pdp/authz"
)

// NotAllowed: the Host header is none that is served. Status 421.
const NotAllowed authz.Code = "host_not_allowed"

// List holds the Host headers that a door serves. The zero List serves none
// from the network.
type List struct{ names map[string]bool }

// Read reads a list of names: "name" matches with any port, "name:port" with
// that port. Names compare without case, and there are no wildcards.
func Read(list []string) (List, error) {
	names := make(map[string]bool, len(list))
	for _, entry := range list {
		host, port := split(entry)
		if host == "" || strings.ContainsAny(entry, " \t\r\n/*@?#,") {
			return List{}, fmt.Errorf("%q is not a host or host:port", entry)
		}
		if port != "" {
			host = net.JoinHostPort(host, port)
		}
		names[host] = true
	}
	return List{names}, nil
}

// Check refuses a request to another host. On a Unix socket, which no web page
// reaches, "localhost" is served as well.
func (l List) Check(r *http.Request) error {
	host, port := split(r.Host)
	if host != "" {
		if l.names[host] || l.names[net.JoinHostPort(host, port)] {
			return nil
		}
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if host == "localhost" && local != nil && local.Network() == "unix" {
			return nil
		}
	}
	return &authz.Error{Kind: authz.Refused, Code: NotAllowed, Text: "this host name is not served here"}
}

// split returns the lower-case name, without brackets, and the port if any.
func split(s string) (host, port string) {
	if h, p, err := net.SplitHostPort(s); err == nil {
		return strings.ToLower(h), p
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	return strings.ToLower(s), ""
}
