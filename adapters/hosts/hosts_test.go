package hosts

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/ward-authz/ward/pdp/authz"
)

func TestCheck(t *testing.T) {
	list, err := Read([]string{"Example.com", "[::1]:8180", "10.0.0.1:80", "::1"})
	if err != nil {
		t.Fatal(err)
	}
	unix := &net.UnixAddr{Name: "door.sock", Net: "unix"}
	tcp := &net.TCPAddr{}
	for _, c := range []struct {
		list  List
		host  string
		local net.Addr
		want  bool
	}{
		{list, "example.com", tcp, true},
		{list, "EXAMPLE.com:99", tcp, true},
		{list, "[::1]:8180", tcp, true},
		{list, "[::1]", tcp, true},
		{list, "10.0.0.1:80", tcp, true},
		{list, "10.0.0.1:81", tcp, false},
		{list, "10.0.0.1", tcp, false},
		{list, "evil.example", tcp, false},
		{list, "sub.example.com", tcp, false},
		{list, "", tcp, false},
		{list, "localhost", tcp, false},
		{list, "localhost", nil, false},
		{list, "localhost", unix, true},
		{List{}, "localhost", unix, true},
		{List{}, "example.com", unix, false},
		{List{}, "example.com", tcp, false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = c.host
		if c.local != nil {
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, c.local))
		}
		err := c.list.Check(r)
		if (err == nil) != c.want {
			t.Errorf("host %q at %v: %v", c.host, c.local, err)
		}
		if e, ok := errors.AsType[*authz.Error](err); err != nil && (!ok || e.Code != NotAllowed || e.Kind != authz.Refused) {
			t.Errorf("host %q: %v", c.host, err)
		}
	}
	for _, bad := range []string{"", "*.example.com", "https://example.com", "a b", "a,b", "user@host", ":80"} {
		if _, err := Read([]string{bad}); err == nil {
			t.Errorf("the list takes %q", bad)
		}
	}
}
