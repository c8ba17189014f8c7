package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/hierarchy/boltstore"
	"github.com/ward-authz/ward/pdp"
	"github.com/ward-authz/ward/pdp/audit"
	"github.com/ward-authz/ward/policies"
)

func newInitCommand(a *app) *cobra.Command {
	var admins, officers []string
	var operator, pack, keys string
	c := &cobra.Command{
		Use:   "init --admin NAME=UID",
		Short: "Make the data folder, the keys and the first administrator",
		Long: `Makes the keys, an empty ledger and store, and a commented ward.yaml where
there is none; then writes the first revision: the operator, the roles of the
policy set, the administrators, and the set's activation.

An administrator is known by the user id with which they run ward. A records
officer destroys the keys of records whose time is over (ward audit shred), and
no administrator can make one who is none. No other
command makes any of this, and init makes it once: it refuses a folder that
holds anything.`,
		Example: `  ward init --admin ana=1000
  ward init --admin ana=1000 --admin ben=1001 --operator acme-pbm --pack ./pack`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.init(cmd.Context(), initialise{admins: admins, officers: officers, operator: operator, pack: pack, keys: keys})
		},
	}
	f := c.Flags()
	f.StringArrayVar(&admins, "admin", nil, "an administrator and their user id, `NAME=UID`; may be given again")
	f.StringArrayVar(&officers, "records-officer", nil, "who may destroy the keys of old records, `NAME=UID`; may be given again, and be an administrator")
	f.StringVar(&operator, "operator", "", "`key` of the organisation that runs the platform (default the configuration's, else operator)")
	f.StringVar(&pack, "pack", "pbm", "policy set: a `folder`, or pbm, the one that is shipped")
	f.StringVar(&keys, "keys", "", "keys `folder` (default the configuration's, else ./keys)")
	return c
}

type initialise struct {
	admins, officers     []string
	operator, pack, keys string
}

func (a *app) init(ctx context.Context, in initialise) (err error) {
	admins, err := users(in.admins, "administrator", "--admin")
	if err != nil {
		return err
	}
	officers, err := users(in.officers, "records officer", "--records-officer")
	if err != nil {
		return err
	}
	for name, uid := range officers {
		if n, both := admins[name]; both && n != uid {
			return failf(exitFailure, "", "%s is given two user ids", name)
		}
	}
	if len(admins) == 0 {
		return failf(exitFailure, fmt.Sprintf("ward init --admin NAME=%d names you", os.Getuid()), "at least one administrator is required: nobody else could ever change anything")
	}
	c, err := a.initConfig(in)
	if err != nil {
		return err
	}
	if err := c.empty(); err != nil {
		return err
	}
	// Everything that can be wrong with the pack shows before a folder is made.
	set, err := a.compile(in.pack)
	if err != nil {
		return err
	}
	if err := a.runTests(set, in.pack); err != nil {
		return err
	}
	var made []string
	defer func() {
		if err != nil {
			for _, dir := range made {
				err = errors.Join(err, os.RemoveAll(dir))
			}
		}
	}()
	for _, dir := range []string{c.data, filepath.Dir(c.keys)} {
		if _, serr := os.Stat(dir); errors.Is(serr, fs.ErrNotExist) {
			if dir == c.data {
				made = append(made, dir)
			}
			if err = os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
		}
	}
	if err = audit.CreateKeys(c.keys, c.operator+"/ward/audit"); err != nil {
		return fmt.Errorf("the keys cannot be made: %w", err)
	}
	made = append(made, c.keys, c.ledger(), c.store())
	keys, err := audit.OpenKeys(c.keys)
	if err != nil {
		return err
	}
	if err = audit.Create(c.ledger(), keys); err != nil {
		return fmt.Errorf("the ledger cannot be made: %w", err)
	}
	if err = boltstore.Create(c.store()); err != nil {
		return fmt.Errorf("the store cannot be made: %w", err)
	}
	k, err := c.openKernel(ctx, true)
	if err != nil {
		return err
	}
	p, err := pdp.Initialise(ctx, k.config(), pdp.Setup{Operator: c.operator, Set: set, Admins: admins, Officers: officers})
	if err = errors.Join(err, k.close()); err != nil {
		return err
	}
	wrote, err := a.writeConfig(c)
	if err != nil {
		return err
	}
	out := struct {
		Data     string `json:"data"`
		Keys     string `json:"keys"`
		Config   string `json:"config,omitempty"`
		Operator string `json:"operator"`
		Set      string `json:"set"`
		Revision uint64 `json:"revision"`
		Verifier string `json:"verifier"`
	}{c.data, c.keys, wrote, "Operator:" + c.operator, set.Digest(), p.Graph().Head().Revision, keys.Verifier()}
	err = a.show(out, func(w io.Writer) {
		fmt.Fprintf(w, "data\t%s\n", out.Data)
		fmt.Fprintf(w, "keys\t%s\n", out.Keys)
		if wrote != "" {
			fmt.Fprintf(w, "configuration\t%s\n", wrote)
		}
		fmt.Fprintf(w, "operator\t%s\n", out.Operator)
		fmt.Fprintf(w, "policy set\t%s %s\n", set.Name(), short(out.Set))
		fmt.Fprintf(w, "revision\t%d\n", out.Revision)
		fmt.Fprintf(w, "verifier\t%s\n", out.Verifier)
	})
	if len(officers) == 0 {
		a.say("no records officer is named (--records-officer), and nobody can name one later: nothing of this ledger can ever be shredded")
	}
	a.say("keep the verifier, and now and then a checkpoint (ward status), where this machine cannot change them")
	return err
}

// users reads names with user ids.
func users(list []string, what, flag string) (map[string]int, error) {
	out := map[string]int{}
	for _, s := range list {
		name, uid, ok := strings.Cut(s, "=")
		n, err := strconv.Atoi(uid)
		if !ok || err != nil || n < 0 || (hierarchy.ID{Type: "Admin", Key: name}).Valid() != nil {
			return nil, failf(exitFailure, fmt.Sprintf("%s NAME=%d names you", flag, os.Getuid()), "each %s is NAME=UID", what)
		}
		if _, twice := out[name]; twice {
			return nil, failf(exitFailure, "", "the %s %s is given twice", what, name)
		}
		out[name] = n
	}
	return out, nil
}

// initConfig returns the configuration to initialise, which may not exist yet.
func (a *app) initConfig(in initialise) (*config, error) {
	path, _ := a.configFile()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && a.data == "" {
		c := &config{operator: "operator", keys: in.keys, clock: a.clock}
		c.defaults(filepath.Dir(path))
		a.cfg = c
	}
	c, err := a.config(true)
	if err != nil {
		return nil, err
	}
	if in.keys != "" {
		if c.path != "" && in.keys != c.keys {
			return nil, failf(exitFailure, "leave out --keys, or change the configuration", "%s names another keys folder", c.path)
		}
		c.keys = in.keys
	}
	if in.operator != "" {
		if c.path != "" && in.operator != c.operator {
			return nil, failf(exitFailure, "leave out --operator, or change the configuration", "%s names another operator", c.path)
		}
		c.operator = in.operator
	}
	if strings.ContainsFunc(c.operator, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}) || c.operator == "" || len(c.operator) > 64 {
		return nil, invalid("such as acme-pbm", "the operator's key holds letters, digits, '.', '-' and '_', at most 64")
	}
	return c, c.check()
}

// empty refuses a data folder that holds anything, and keys that exist.
func (c *config) empty() error {
	names, err := os.ReadDir(c.data)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return failf(exitFailure, "", "the data folder %s cannot be read: %s", c.data, cause(err))
	case len(names) > 0:
		if _, err := os.Stat(c.store()); err == nil {
			return failf(exitFailure, "ward serve uses it", "the data folder %s holds a store already", c.data)
		}
		return failf(exitFailure, "name an empty or a new folder", "the data folder %s is not empty, and what it holds is not ward's", c.data)
	}
	if _, err := os.Lstat(c.keys); err == nil {
		return failf(exitFailure, "name a new folder for the keys", "the keys folder %s exists already", c.keys)
	}
	return nil
}

// writeConfig writes a commented configuration where there is none, and
// returns its path.
func (a *app) writeConfig(c *config) (string, error) {
	if c.path != "" {
		return "", nil
	}
	path, _ := a.configFile()
	rel := func(p string) string {
		dir, err1 := filepath.Abs(filepath.Dir(path))
		abs, err2 := filepath.Abs(p)
		if err1 != nil || err2 != nil {
			return p
		}
		if r, err := filepath.Rel(dir, abs); err == nil && !strings.HasPrefix(r, "..") {
			return r
		}
		return abs
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return "", nil // --data was given beside a configuration of another installation
	}
	if err != nil {
		return "", err
	}
	_, err = fmt.Fprintf(f, configText, rel(c.data), rel(c.keys), c.operator)
	return path, errors.Join(err, f.Close())
}

const configText = `# Configuration of ward. Unknown keys are refused. Paths are relative to this file.

# The store and the ledger.
data: %s
# The ledger's keys. They lie outside the data folder, best on another disk:
# who has both can read everything.
keys: %s
# The organisation that runs the platform.
operator: %s
# A word for the logs: production, staging, …
environment: development

# An answer leaves when its record is synced to this machine's disk. A second
# copy that is acknowledged as well is not built yet; this line accepts that.
durability: local-disk-only

listen:
  # The door for questions (AuthZEN), and for grants and emergencies that people ask
  # for themselves (/v1/grants, /v1/emergencies): a loopback address, a Unix socket, or both.
  authzen:
    address: 127.0.0.1:8180
    socket: run/authzen.sock
    # mode: "0660"
    # tls: {cert: tls/cert.pem, key: tls/key.pem}
  # The door for administrators. Who connects is known by user id.
  # admin: {socket: data/admin.sock, mode: "0600"}

# What the AuthZEN metadata calls this server, as gateways reach it (https).
# baseURL: https://pdp.example.com
# Host headers that are served; by default localhost, the address and baseURL's.
# hosts: [pdp.example.com]

# How long a shutdown lets clients move away before the door closes.
# drain: 1s
# reserve: 20GiB   # below this on the data's disk, readiness fails; a twentieth of it without

# Who may ask. A caller is recognised by its user id on the socket, or by the
# listener it comes through (tcp or socket: anybody who can connect).
# callers:
#  - name: claims-service       # the catalogue names authorities by this
#    uid: 1200
#    asserts: [user]            # subject types whose identity it vouches for, in
#                               # questions and in the header Ward-Subject
#    issuer: https://login.example.com   # its ids are this issuer's "sub"
#    assurance: 2               # how well they were authenticated, 0 to 3
#    explains: false            # may see reasons
#    performs: [filter, mask]   # obligations that it carries out
#    rate: 500                  # answers a second that it may have, twice as many at once

# Where to post an event 30, 7 and 1 days before a grant ends. The secret's file
# holds "whsec_" and the base64 of 24 to 64 bytes, and is its owner's to read.
# webhook: {url: https://portal.example.com/ward, secretFile: webhook.secret, events: [grant.ending]}

# Who cosigns the ledger's checkpoints, so that a rewritten ledger shows: a ward
# witness that somebody else runs, or any other of C2SP tlog-witness.
# witness:
# - {url: https://witness.example.org, key: "witness.example.org/w1+…", every: 10s}
`

// compile reads and compiles a policy set: a folder, or the shipped one.
func (a *app) compile(pack string) (*policies.Set, error) {
	files := policies.PBM()
	prefix := "pbm"
	if pack != "pbm" {
		prefix = strings.TrimSuffix(pack, "/")
		info, err := os.Stat(pack)
		if err != nil || !info.IsDir() {
			return nil, invalid("a folder with schema.cedarschema and catalogue.yaml, or pbm", "there is no policy folder %s", pack)
		}
		if files, err = policies.ReadPack(os.DirFS(pack)); err != nil {
			return nil, findings(prefix, err)
		}
	}
	set, err := policies.Compile(files)
	if err != nil {
		return nil, findings(prefix, err)
	}
	return set, nil
}

// findings makes an error of every finding, as DIR/file:line:col.
func findings(prefix string, err error) error {
	var d *policies.Diagnostics
	if !errors.As(err, &d) {
		return err
	}
	return &invalidSet{prefix, d}
}

// invalidSet is a policy set that does not compile.
type invalidSet struct {
	prefix string
	*policies.Diagnostics
}

func (e *invalidSet) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the policies have %d findings", len(e.Findings))
	for _, f := range e.Findings {
		fmt.Fprintf(&b, "\n%s/%s", e.prefix, f)
	}
	return b.String()
}

// runTests runs the set's own tests.
func (a *app) runTests(set *policies.Set, pack string) error {
	failures, err := pdp.RunTests(set)
	if err != nil {
		return invalid("", "the policy tests cannot be run: %s", err)
	}
	if len(failures) == 0 {
		return nil
	}
	text := fmt.Sprintf("%d of %d policy tests failed", len(failures), len(set.Cases()))
	for _, f := range failures {
		text += fmt.Sprintf("\n%s/%s", strings.TrimSuffix(pack, "/"), f)
	}
	return failf(exitTestsFailed, "", "%s", text)
}

func short(digest string) string {
	if len(digest) > 19 {
		return digest[:19]
	}
	return digest
}
