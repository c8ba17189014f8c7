package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/ward-authz/ward/pdp/authz"
)

// config is ward.yaml. Paths in it are relative to its own folder.
type config struct {
	path       string // of the file, "" when there is none
	data       string
	keys       string
	operator   string
	env        string
	durability string
	baseURL    string
	hosts      []string
	authzen    listenAuthZEN
	admin      listenAdmin
	drain      time.Duration
	callers    []callerConfig
	webhook    webhookConfig
	witnesses  []witnessConfig
	reserve    uint64                                      // bytes to keep free; 0 goes by the disk
	clock      func() time.Time                            // nil is the machine's; no file can set it
	space      func(string) (free, size uint64, err error) // nil is the machine's
}

type listenAuthZEN struct {
	address, socket string
	mode            fs.FileMode
	cert, key       string
}

type listenAdmin struct {
	socket string
	mode   fs.FileMode
}

// callerConfig registers a program that may ask. Exactly one of uid and
// listener says how it is recognised.
type callerConfig struct {
	authz.Caller
	uid      int // -1: by listener
	listener string
}

// store, ledger are where the data folder keeps its parts.
func (c *config) store() string  { return filepath.Join(c.data, "store.db") }
func (c *config) ledger() string { return filepath.Join(c.data, "ledger") }

// localDisk is the one durability that is built.
const localDisk = "local-disk-only"

// configFile returns the path of the configuration, and whether it was named.
func (a *app) configFile() (string, bool) {
	if a.configPath != "" {
		return a.configPath, true
	}
	if p := a.getenv("WARD_CONFIG"); p != "" {
		return p, true
	}
	return "ward.yaml", false
}

// config reads the configuration once. With optional, a missing file that
// nobody named gives the defaults.
func (a *app) config(optional bool) (*config, error) {
	if a.cfg != nil {
		return a.cfg, nil
	}
	path, named := a.configFile()
	text, err := os.ReadFile(path)
	var c *config
	switch {
	case errors.Is(err, fs.ErrNotExist) && (optional && !named || a.data != ""):
		c = &config{operator: "operator"}
		c.defaults(filepath.Dir(path))
	case errors.Is(err, fs.ErrNotExist):
		return nil, failf(exitFailure, "ward init --admin NAME=UID writes one, or name it with --config FILE", "there is no configuration at %s", path)
	case err != nil:
		return nil, failf(exitFailure, "", "the configuration cannot be read: %s", cause(err))
	default:
		if c, err = readConfig(path, text); err != nil {
			return nil, err
		}
	}
	if a.data != "" {
		own := c.admin.socket == filepath.Join(c.data, "admin.sock")
		c.data = a.data
		if own {
			c.admin.socket = filepath.Join(c.data, "admin.sock")
		}
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	c.clock, c.space = a.clock, a.space
	a.cfg = c
	return c, nil
}

// cause strips the path from a file error: the message names it already.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func (c *config) defaults(dir string) {
	rel := func(p *string, def string) {
		if *p == "" {
			*p = def
		}
		if !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	rel(&c.data, "data")
	rel(&c.keys, "keys")
	if c.admin.socket == "" {
		c.admin.socket = filepath.Join(c.data, "admin.sock")
	} else {
		rel(&c.admin.socket, "")
	}
	for _, p := range []*string{&c.authzen.socket, &c.authzen.cert, &c.authzen.key, &c.webhook.secretFile} {
		if *p != "" {
			rel(p, "")
		}
	}
	if c.admin.mode == 0 {
		c.admin.mode = 0o600
	}
	if c.authzen.mode == 0 {
		c.authzen.mode = 0o600
	}
	if c.drain == 0 {
		c.drain = time.Second
	}
}

// check looks at what the parts say together.
func (c *config) check() error {
	data, err := resolved(c.data)
	if err != nil {
		return err
	}
	keys, err := resolved(c.keys)
	if err != nil {
		return err
	}
	if within(keys, data) || within(data, keys) {
		return invalid("set keys: to a folder beside the data, on another disk if there is one", "the keys folder %s must lie outside the data folder %s", c.keys, c.data)
	}
	return nil
}

// resolved follows the symbolic links of the part of a path that exists.
func resolved(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rest := ""
	for p := abs; ; p = filepath.Dir(p) {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			return filepath.Join(real, rest), nil
		}
		if p == filepath.Dir(p) {
			return abs, nil
		}
		rest = filepath.Join(filepath.Base(p), rest)
	}
}

func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// checkServe holds the configuration against what serving needs.
func (c *config) checkServe() error {
	switch c.durability {
	case localDisk:
	case "":
		return invalid("add the line durability: "+localDisk+" to accept that; an acknowledged second copy is not built yet",
			"the configuration does not say durability: every answer would be durable on this machine's disk alone")
	default:
		return invalid("write durability: "+localDisk, "durability %q is not built", c.durability)
	}
	if c.authzen.address == "" && c.authzen.socket == "" {
		return invalid("add listen.authzen.address: 127.0.0.1:8180, or a socket", "no door is configured: nobody could ask")
	}
	if c.authzen.address != "" {
		host, _, err := net.SplitHostPort(c.authzen.address)
		if err != nil {
			return invalid("write HOST:PORT, such as 127.0.0.1:8180", "listen.authzen.address is not an address")
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return invalid("use 127.0.0.1 or a socket, and put a gateway in front", "listen.authzen.address is not a loopback address: callers on the network cannot be told apart yet, as no token issuers are built")
		}
	}
	if (c.authzen.cert == "") != (c.authzen.key == "") {
		return invalid("give both listen.authzen.tls.cert and listen.authzen.tls.key", "the tls settings are incomplete")
	}
	return nil
}

// hostNames returns the Host headers that the door serves.
func (c *config) hostNames(actual net.Addr) []string {
	if len(c.hosts) > 0 {
		return c.hosts
	}
	names := []string{"localhost"}
	if actual != nil {
		if host, _, err := net.SplitHostPort(actual.String()); err == nil {
			names = append(names, host)
		}
	}
	if u, err := url.Parse(c.baseURL); err == nil && u.Hostname() != "" {
		names = append(names, u.Host)
	}
	return names
}

// reader reads a YAML file strictly: an unknown key, a key given twice or a
// value of another type is an error with its line.
type reader struct {
	path string
	err  error
}

func (r *reader) fail(n *yaml.Node, format string, args ...any) {
	if r.err == nil {
		r.err = invalid("", "%s:%d: %s", r.path, n.Line, fmt.Sprintf(format, args...))
	}
}

// document returns the root of the only document of a YAML text.
func (r *reader) document(text []byte) *yaml.Node {
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		r.err = invalid("", "%s: not YAML", r.path)
		return nil
	}
	var root, more yaml.Node
	err = loader.Load(&root)
	if errors.Is(err, io.EOF) {
		r.err = invalid("", "%s: the file is empty", r.path)
		return nil
	}
	if err == nil {
		if err = loader.Load(&more); err == nil {
			r.err = invalid("", "%s: the file has a second document", r.path)
			return nil
		}
	}
	if !errors.Is(err, io.EOF) {
		line, text := 1, "not YAML"
		var le *yaml.LoadError
		if errors.As(err, &le) {
			line, text = max(le.Mark.Line, 1), strings.SplitN(le.Message, "\n", 2)[0]
		}
		r.err = invalid("", "%s:%d: %s", r.path, line, text)
		return nil
	}
	n := &root
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	return n
}

// each calls the function of each key of a map.
func (r *reader) each(n *yaml.Node, keys map[string]func(*yaml.Node)) {
	if r.err != nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.fail(n, "want a map")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		f, ok := keys[k.Value]
		switch {
		case !ok:
			var known []string
			for name := range keys {
				known = append(known, name)
			}
			slices.Sort(known)
			if r.err == nil {
				r.err = invalid("known here: "+strings.Join(known, ", "), "%s:%d: unknown key %q", r.path, k.Line, k.Value)
			}
			return
		case seen[k.Value]:
			r.fail(k, "%q is given twice", k.Value)
			return
		}
		seen[k.Value] = true
		f(v)
		if r.err != nil {
			return
		}
	}
}

func (r *reader) text(into *string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			r.fail(n, "want a text")
			return
		}
		*into = n.Value
	}
}

func (r *reader) texts(into *[]string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			r.fail(n, "want a list")
			return
		}
		for _, c := range n.Content {
			var s string
			r.text(&s)(c)
			*into = append(*into, s)
		}
	}
}

func (r *reader) number(into *int) func(*yaml.Node) {
	return func(n *yaml.Node) {
		v, err := strconv.Atoi(n.Value)
		if err != nil || n.Kind != yaml.ScalarNode || v < 0 {
			r.fail(n, "want a whole number")
			return
		}
		*into = v
	}
}

func (r *reader) mode(into *fs.FileMode) func(*yaml.Node) {
	return func(n *yaml.Node) {
		v, err := strconv.ParseUint(strings.TrimPrefix(n.Value, "0o"), 8, 32)
		if err != nil || n.Kind != yaml.ScalarNode || v == 0 || v > 0o777 {
			r.fail(n, `want a file mode, such as "0660"`)
			return
		}
		*into = fs.FileMode(v)
	}
}

func (r *reader) boolean(into *bool) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.Value != "true" && n.Value != "false" {
			r.fail(n, "want true or false")
			return
		}
		*into = n.Value == "true"
	}
}

func readConfig(path string, text []byte) (*config, error) {
	r := &reader{path: path}
	root := r.document(text)
	if r.err != nil {
		return nil, r.err
	}
	c := &config{path: path, operator: "operator"}
	var drain string
	nested := func(keys map[string]func(*yaml.Node)) func(*yaml.Node) {
		return func(n *yaml.Node) { r.each(n, keys) }
	}
	r.each(root, map[string]func(*yaml.Node){
		"data":        r.text(&c.data),
		"keys":        r.text(&c.keys),
		"operator":    r.text(&c.operator),
		"environment": r.text(&c.env),
		"durability":  r.text(&c.durability),
		"baseURL":     r.text(&c.baseURL),
		"hosts":       r.texts(&c.hosts),
		"drain": func(n *yaml.Node) {
			r.text(&drain)(n)
			var err error
			if c.drain, err = time.ParseDuration(drain); err != nil || c.drain <= 0 || c.drain > time.Minute {
				r.fail(n, "want a time up to 1m, such as 2s")
			}
		},
		"reserve": func(n *yaml.Node) {
			var size string
			r.text(&size)(n)
			var ok bool
			if c.reserve, ok = readSize(size); !ok || c.reserve < leastReserve {
				r.fail(n, "want a size of at least 256MiB, such as 20GiB")
			}
		},
		"listen": nested(map[string]func(*yaml.Node){
			"authzen": nested(map[string]func(*yaml.Node){
				"address": r.text(&c.authzen.address),
				"socket":  r.text(&c.authzen.socket),
				"mode":    r.mode(&c.authzen.mode),
				"tls": nested(map[string]func(*yaml.Node){
					"cert": r.text(&c.authzen.cert),
					"key":  r.text(&c.authzen.key),
				}),
			}),
			"admin": nested(map[string]func(*yaml.Node){
				"socket": r.text(&c.admin.socket),
				"mode":   r.mode(&c.admin.mode),
			}),
		}),
		"callers": func(n *yaml.Node) { c.readCallers(r, n) },
		"webhook": func(n *yaml.Node) { c.readWebhook(r, n) },
		"witness": func(n *yaml.Node) { c.readWitnesses(r, n) },
	})
	if r.err != nil {
		return nil, r.err
	}
	c.defaults(filepath.Dir(path))
	return c, nil
}

func (c *config) readCallers(r *reader, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		r.fail(n, "want a list of callers")
		return
	}
	for _, item := range n.Content {
		k := callerConfig{uid: -1}
		r.each(item, map[string]func(*yaml.Node){
			"name":      r.text(&k.Name),
			"uid":       r.number(&k.uid),
			"listener":  r.text(&k.listener),
			"asserts":   r.texts(&k.Asserts),
			"issuer":    r.text(&k.Issuer),
			"assurance": r.number(&k.Assurance),
			"explains":  r.boolean(&k.Explains),
			"performs":  r.texts(&k.Performs),
			"rate":      r.number(&k.Rate),
		})
		if r.err != nil {
			return
		}
		switch {
		case k.Name == "":
			r.fail(item, "a caller needs a name")
		case k.Name == "admin":
			r.fail(item, `the caller name "admin" is ward's own`)
		case (k.uid >= 0) == (k.listener != ""):
			r.fail(item, "caller %q needs either a uid or a listener (tcp or socket)", k.Name)
		case k.listener != "" && k.listener != "tcp" && k.listener != "socket":
			r.fail(item, "caller %q: a listener is tcp or socket", k.Name)
		case k.Assurance > 3:
			r.fail(item, "caller %q: assurance is 0 to 3", k.Name)
		case slices.Contains(k.Asserts, "admin"):
			r.fail(item, "caller %q: administrators are known by their user id alone", k.Name)
		}
		for _, o := range c.callers {
			switch {
			case o.Name == k.Name:
				r.fail(item, "caller %q is given twice", k.Name)
			case k.uid >= 0 && o.uid == k.uid:
				r.fail(item, "callers %q and %q have one uid", o.Name, k.Name)
			case k.listener != "" && o.listener == k.listener:
				r.fail(item, "callers %q and %q have one listener", o.Name, k.Name)
			}
		}
		c.callers = append(c.callers, k)
	}
}
