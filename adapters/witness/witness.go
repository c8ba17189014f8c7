package witness

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ward-authz/ward/pdp/audit"
)

const (
	keyFile      = "key"
	verifierFile = "verifier"
	ledgersFile  = "ledgers"
	lockFile     = "lock"
	never        = "never\n" // a ledger's file until something was cosigned

	maxBody = 16 << 10 // a request: 63 hashes and a signed checkpoint
)

// Witness cosigns checkpoints. One that could not make a checkpoint durable
// cosigns nothing any more, until it is opened again. It is an http.Handler, for
//
//	POST /add-checkpoint
//	GET  /<SHA-256 of a ledger's name, hex>/checkpoint
type Witness struct {
	http.Handler
	signer
	lock io.Closer
	log  *slog.Logger
	now  func() time.Time
	keep func(path string, content []byte) error // makes a file's new content durable

	mu     sync.Mutex
	known  map[string]*ledger // by the name of its file
	failed bool
}

// ledger is one that is watched.
type ledger struct {
	keys []string // in the order in which they sign, from the one of the last checkpoint on
	file string
	last []byte // the last checkpoint, cosigned, or never
	at   audit.Checkpoint
}

// signed opens a checkpoint, and says which keys may sign those after it.
func (l *ledger) signed(msg []byte) (cp audit.Checkpoint, next []string, err error) {
	for next = l.keys; len(next) > 0; next = next[1:] {
		if cp, err = audit.OpenCheckpoint(msg, next[0]); err == nil {
			break
		}
	}
	return cp, next, err
}

// Create makes the folder of a witness, which must not exist, with a new key,
// and returns the public one.
func Create(dir, name string) (verifier string, err error) {
	if !validName(name) {
		return "", errors.New("witness: a name is like witness.example/w1: up to 200 printable characters, no space, no +")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed) // never fails (crypto/rand)
	s := newSigner(name, seed)
	for _, f := range [][2]string{{ledgersFile, ""}, {verifierFile, s.String() + "\n"}, {keyFile, s.text() + "\n"}} {
		if err := replace(filepath.Join(dir, f[0]), []byte(f[1])); err != nil {
			return "", err
		}
	}
	return s.String(), nil
}

// Watch adds ledgers, or further keys of one, by their public keys, one a line, in
// the order in which they sign: none counts any more once a later one has signed.
// A running witness takes them up when it is opened again.
func Watch(dir, verifiers string) error {
	lines, err := readLines(filepath.Join(dir, ledgersFile))
	if err != nil {
		return err
	}
	for _, key := range strings.Fields(verifiers) {
		if _, err := audit.OpenCheckpoint(nil, key); errors.Is(err, audit.ErrVerifier) {
			return err
		}
		name, _, _ := strings.Cut(key, "+")
		file := filepath.Join(dir, fileOf(name))
		_, missing := os.Lstat(file)
		// A known ledger's file is never made again: what was in it is not "never".
		if missing != nil && !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+"+") }) {
			if err := replace(file, []byte(never)); err != nil {
				return err
			}
		}
		if !slices.Contains(lines, key) {
			lines = append(lines, key)
		}
	}
	return replace(filepath.Join(dir, ledgersFile), []byte(strings.Join(append(lines, ""), "\n")))
}

func fileOf(name string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(name))) }

func readLines(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	return strings.Fields(string(text)), err
}

// Open opens a witness's folder. It refuses one that lacks the file of a ledger
// that it watches, or holds another than it wrote.
//
// Another process that has it open would cosign from what it remembers, and the
// two could contradict each other: that is refused, until Close or its end.
func Open(dir string, log *slog.Logger) (*Witness, error) {
	lock, err := audit.Lock(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, err
	}
	w, err := open(dir, log, replace)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	w.lock = lock
	return w, nil
}

// Close cosigns nothing any more, and gives the folder back.
func (w *Witness) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = true
	return w.lock.Close()
}

func open(dir string, log *slog.Logger, keep func(string, []byte) error) (*Witness, error) {
	key, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, err
	}
	w := &Witness{log: log, now: time.Now, keep: keep, known: map[string]*ledger{}}
	if w.signer, err = parseSigner(strings.TrimSuffix(string(key), "\n")); err != nil {
		return nil, err
	}
	lines, err := readLines(filepath.Join(dir, ledgersFile))
	if err != nil {
		return nil, err
	}
	for _, line := range lines {
		name, _, _ := strings.Cut(line, "+")
		if l := w.known[fileOf(name)]; l != nil {
			l.keys = append(l.keys, line)
		} else {
			w.known[fileOf(name)] = &ledger{keys: []string{line}, file: filepath.Join(dir, fileOf(name))}
		}
	}
	for _, l := range w.known {
		if err := w.load(l); err != nil {
			return nil, fmt.Errorf("witness: the last checkpoint of a ledger is not there as it was cosigned: %w", err)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", w.add)
	mux.HandleFunc("GET /{hash}/checkpoint", w.show)
	w.Handler = mux
	return w, nil
}

// load reads what was cosigned of a ledger, and writes it again: it may never
// have reached the disk although it can be read.
func (w *Witness) load(l *ledger) (err error) {
	l.at.Root = sha256.Sum256(nil) // of no records
	if l.last, err = os.ReadFile(l.file); err != nil {
		return err
	}
	if string(l.last) != never {
		if l.at, l.keys, err = l.signed(l.last); err != nil {
			return err
		}
		if _, err = w.Seen(l.last); err != nil {
			return err
		}
	}
	return w.keep(l.file, l.last)
}

// signer is the private key of a witness. Its text is that of the public key
// with the seed in place of the point, after privatePrefix.
type signer struct {
	Verifier
	private ed25519.PrivateKey
}

const privatePrefix = "PRIVATE+KEY+"

func newSigner(name string, seed []byte) signer {
	private := ed25519.NewKeyFromSeed(seed)
	return signer{newVerifier(name, private.Public().(ed25519.PublicKey)), private}
}

func parseSigner(text string) (signer, error) {
	name, seed, err := parseKey(strings.TrimPrefix(text, privatePrefix))
	if err != nil {
		return signer{}, err
	}
	if s := newSigner(name, seed); s.text() == text {
		return s, nil
	}
	return signer{}, ErrKey
}

func (s signer) text() string { return privatePrefix + formatKey(s.name, s.id, s.private.Seed()) }

// cosign gives the signature line for a checkpoint.
func (s signer) cosign(msg []byte, at time.Time) []byte {
	text, _ := splitNote(msg)
	unix := uint64(at.Unix())
	sig := append(binary.BigEndian.AppendUint64(s.id[:], unix), ed25519.Sign(s.private, cosigned(unix, text))...)
	return fmt.Appendf(nil, "— %s %s\n", s.name, base64.StdEncoding.EncodeToString(sig))
}

func (w *Witness) add(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxBody))
	if err != nil {
		body = nil // too large, or cut off: no request
	}
	status, answer := w.submit(body)
	if status == http.StatusConflict {
		rw.Header().Set("Content-Type", "text/x.tlog.size")
	}
	rw.WriteHeader(status)
	_, _ = rw.Write(answer)
}

// submit answers a request. A cosignature leaves only when the checkpoint is
// durable: one that it does not continue is refused ever after.
func (w *Witness) submit(body []byte) (status int, answer []byte) {
	c, err := audit.ParseConsistency(body)
	if err != nil {
		return http.StatusBadRequest, []byte("not an add-checkpoint request\n")
	}
	name, _, _ := strings.Cut(string(c.Checkpoint), "\n")
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.known[fileOf(name)]
	if l == nil {
		return http.StatusNotFound, []byte("this ledger is not watched here\n")
	}
	next, keys, err := l.signed(c.Checkpoint)
	switch {
	case w.failed:
		return http.StatusInternalServerError, []byte("the witness has failed\n")
	case err != nil:
		return http.StatusForbidden, []byte("the checkpoint is not signed by the ledger's key\n")
	case c.Old > next.Size:
		return http.StatusBadRequest, []byte("the old size is above the checkpoint's\n")
	case c.Old != l.at.Size:
		return http.StatusConflict, fmt.Appendln(nil, l.at.Size)
	case c.Check(l.at, next) != nil:
		w.log.Error("a ledger's checkpoint does not continue the last one", "ledger", name, "size", next.Size, "last", l.at.Size)
		return http.StatusUnprocessableEntity, []byte("the checkpoint does not continue the last one\n")
	}
	line := w.cosign(c.Checkpoint, w.now())
	note := append(bytes.Clone(c.Checkpoint), line...)
	if err := w.keep(l.file, note); err != nil {
		w.failed = true
		w.log.Error("a checkpoint could not be made durable: nothing is cosigned any more")
		return http.StatusInternalServerError, []byte("the witness has failed\n")
	}
	l.last, l.at, l.keys = note, next, keys
	return http.StatusOK, line
}

func (w *Witness) show(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.known[r.PathValue("hash")]
	if l == nil || string(l.last) == never {
		http.NotFound(rw, r)
		return
	}
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = rw.Write(l.last)
}
