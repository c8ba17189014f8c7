package audit

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// The key folder:
//
//	signer                   note signer key (Ed25519), private
//	signer.new               the next one, which signs nothing yet
//	verifier                 note verifier keys, public, one a line, in the order
//	                         in which they signed; the last is the signer's
//	hash                     HMAC-SHA256 key of Hash
//	lock                     held while a ledger is open for writing
//	seals/<day>/<tenant>     seal key of a tenant and a UTC day; <tenant> is the
//	                         keyed hash, so that a listing names nobody
const (
	signerFile   = "signer"
	nextFile     = signerFile + newSuffix
	verifierFile = "verifier"
	hashFile     = "hash"
	sealsDir     = "seals"
	lockFile     = "lock" // in the ledger's folder too

	hashMagic = "wardhash1"
	sealMagic = "wardseal1"

	tenantKind = "tenant"
	hashScheme = "hmac1"
	maxKeyFile = 1024
	maxSigners = 1024 // in one verifier file
	maxCached  = 4096
)

// Keys are the secrets of one ledger: the key that signs its checkpoints, the
// key of its identifier hashes, and the seal keys. They lie in a folder of
// their own, never inside the ledger's: who can read the ledger can verify it,
// only who has the keys can read the sealed parts.
//
// [Keys.Destroy] shreds what a tenant has in the records of a day; the records
// still verify. A Keys is safe for concurrent use.
type Keys struct {
	fs   fileSystem
	dir  string
	hash []byte
	kid  string

	mu        sync.Mutex
	signer    note.Signer       // changed by the ledger's writer alone
	verifiers []string          // the last one is the signer's
	seals     map[string][]byte // by path; each was durable before it got here
}

// CreateKeys makes a key folder (0700, files 0600), durable when it returns.
// It refuses one that exists. The origin names the ledger in its checkpoints
// (C2SP tlog-checkpoint: a schema-less URL such as ward.example/audit/node-1):
// at most 200 characters, letters, digits and ./-_: only.
func CreateKeys(dir, origin string) error { return createKeys(osFS{}, dir, origin) }

func createKeys(fsys fileSystem, dir, origin string) error {
	if !originText.MatchString(origin) {
		return fmt.Errorf("audit: invalid origin %q", origin)
	}
	signer, verifier, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return err
	}
	// The signer is written last: a folder without it is not a key folder.
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, step := range []func() error{
		func() error { return makeDir(fsys, dir) },
		func() error { return makeDir(fsys, at(sealsDir)) },
		func() error { return writeFile(fsys, at(hashFile), newKey(hashMagic)) },
		func() error { return writeFile(fsys, at(verifierFile), []byte(verifier+"\n")) },
		func() error { return writeFile(fsys, at(signerFile), []byte(signer+"\n")) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// originText is what may name a ledger.
var originText = regexp.MustCompile(`^[a-zA-Z0-9./_:-]{1,200}$`)

// OpenKeys opens a folder that [CreateKeys] made. It creates nothing.
func OpenKeys(dir string) (*Keys, error) { return openKeys(osFS{}, dir) }

func openKeys(fsys fileSystem, dir string) (*Keys, error) {
	k := &Keys{fs: fsys, dir: dir, seals: map[string][]byte{}}
	verifiers, err := readFile(fsys, filepath.Join(dir, verifierFile), maxSigners*maxKeyFile)
	if err != nil {
		return nil, err
	}
	if k.hash, err = readKey(fsys, filepath.Join(dir, hashFile), hashMagic); err != nil {
		return nil, err
	}
	k.kid = keyID(k.hash)
	k.verifiers = strings.Fields(string(verifiers))
	if k.signer, err = k.pair(signerFile, k.verifiers); errors.Is(err, ErrCorrupt) && len(k.verifiers) > 1 {
		// A crash may have come when the next one was announced and did not sign yet.
		k.verifiers = k.verifiers[:len(k.verifiers)-1]
		k.signer, err = k.pair(signerFile, k.verifiers)
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// pair opens a signer that belongs to the last of the verifiers. The library's
// errors could quote the key; ours do not.
func (k *Keys) pair(file string, verifiers []string) (note.Signer, error) {
	raw, err := readFile(k.fs, filepath.Join(k.dir, file), maxKeyFile)
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(strings.TrimSpace(string(raw)))
	vs, verr := openVerifiers(strings.Join(verifiers, "\n"))
	if err != nil || verr != nil || vs.Name() != signer.Name() || vs[len(vs)-1].KeyHash() != signer.KeyHash() {
		return nil, fmt.Errorf("%w: the key files %s and %s are no pair", ErrCorrupt, file, verifierFile)
	}
	return signer, nil
}

// Verifier is the public key of the checkpoints, as a note verifier string
// ("name+hash+key", golang.org/x/mod/sumdb/note). Where the signer was replaced
// it holds one of them a line, the oldest first. Give it to auditors.
func (k *Keys) Verifier() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.verifiers, "\n")
}

// NewSigner makes the key that is to sign next, durable when it returns, and
// gives its verifier. It signs nothing before [Ledger.Adopt]; one that was made
// before and not adopted is gone.
func (k *Keys) NewSigner() (verifier string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	signer, verifier, err := note.GenerateKey(rand.Reader, k.signer.Name())
	if err != nil {
		return "", err
	}
	return verifier, freshFile(k.fs, filepath.Join(k.dir, nextFile), []byte(signer+"\n"))
}

// adopt makes the next signer the one that signs, if it is there. Its verifier
// is in place before it, so that nothing is ever signed without one.
func (k *Keys) adopt(verifier string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	verifiers := append(k.verifiers[:len(k.verifiers):len(k.verifiers)], verifier)
	signer, err := k.pair(nextFile, verifiers)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrCorrupt) {
		return nil
	}
	if err == nil {
		err = replaceFile(k.fs, filepath.Join(k.dir, verifierFile), []byte(strings.Join(verifiers, "\n")+"\n"))
	}
	if err == nil {
		err = moveInto(k.fs, filepath.Join(k.dir, signerFile))
	}
	if err == nil {
		k.verifiers, k.signer = verifiers, signer
	}
	return err
}

// Hash gives the keyed hash of an identifier, "hmac1:<key id>:<base64url>",
// which stands for it in the clear part of a record. Kind ("person", "claim")
// and tenant separate: the same id of another kind or tenant has another hash.
func (k *Keys) Hash(kind, tenant, id string) string {
	var text []byte
	for _, s := range []string{kind, tenant, id} {
		text = append(binary.BigEndian.AppendUint64(text, uint64(len(s))), s...)
	}
	m := hmac.New(sha256.New, k.hash)
	m.Write(text)
	return hashScheme + ":" + k.kid + ":" + b64.EncodeToString(m.Sum(nil))
}

// hashText is what Hash writes: the id of its key, and the hash.
var hashText = regexp.MustCompile("^" + hashScheme + ":([A-Za-z0-9_-]{8}):([A-Za-z0-9_-]{43})$")

// sealPath is the file of the seal key; t is a tenant's hash.
func (k *Keys) sealPath(t, day string) (string, error) {
	name := hashText.FindStringSubmatch(t)
	if _, err := time.Parse(time.DateOnly, day); err != nil || name == nil {
		return "", fmt.Errorf("%w: not the name of a seal key", ErrCorrupt)
	}
	if name[1] != k.kid {
		return "", ErrForeignKeys
	}
	return filepath.Join(k.dir, sealsDir, day, name[2]), nil
}

// sealKey gives the seal key of a tenant and day, and makes it on first use.
// It is durable before it is returned, so that no record can outlive its key. One
// that cannot be made so fails the ledger.
func (k *Keys) sealKey(t, day string) ([]byte, error) {
	path, err := k.sealPath(t, day)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if key := k.seals[path]; key != nil && k.fs.Exists(path) {
		return key, nil
	}
	key, err := k.makeSealKey(path)
	if err != nil {
		return nil, fmt.Errorf("audit: no seal key: %w", err)
	}
	if len(k.seals) >= maxCached {
		clear(k.seals)
	}
	k.seals[path] = key
	return key, nil
}

func (k *Keys) makeSealKey(path string) ([]byte, error) {
	day := filepath.Dir(path)
	if err := k.fs.Mkdir(day, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if !k.fs.Exists(path) {
		// The lock of the key folder keeps every other writer out, so this
		// replaces nothing; and no second copy of a used key stays behind that
		// shredding would miss.
		if err := replaceFile(k.fs, path, newKey(sealMagic)); err != nil {
			return nil, err
		}
	}
	// Also where the file was there already: a process that died may have made
	// it and not come as far as this.
	if err := errors.Join(k.fs.SyncDir(day), k.fs.SyncDir(filepath.Dir(day))); err != nil {
		return nil, err
	}
	return readKey(k.fs, path, sealMagic)
}

// openSeal reads the seal key of a tenant, a keyed hash, and a day.
func (k *Keys) openSeal(t, day string) ([]byte, error) {
	path, err := k.sealPath(t, day)
	if err != nil {
		return nil, err
	}
	key, err := readKey(k.fs, path, sealMagic)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNoKey
	}
	return key, err
}

// SealKeyID gives the id of the seal key of a tenant and day; [ErrNoKey] if
// there is none. The tenant is a keyed hash, as in a [Seal].
func (k *Keys) SealKeyID(tenant, day string) (string, error) {
	key, err := k.openSeal(tenant, day)
	if err != nil {
		return "", err
	}
	return keyID(key), nil
}

// Destroy destroys the seal key of a tenant, a keyed hash, and a day, if there is
// one: what that tenant has in the records of that day can no longer be read. It
// is durable when it returns. The record that says so must be durable before.
//
// The file is overwritten before it is removed. A disk that writes elsewhere
// (flash, copy on write), a snapshot and a backup may keep the key all the same.
func (k *Keys) Destroy(tenant, day string) error {
	path, err := k.sealPath(tenant, day)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.seals, path)
	f, err := k.fs.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		err = errors.Join(writeSync(f, make([]byte, maxKeyFile), 0), f.Close(), k.fs.Remove(path))
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) { // it may have been removed before a crash
		err = k.fs.SyncDir(filepath.Dir(path))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// newKey is the content of a new key file.
func newKey(magic string) []byte {
	key := make([]byte, 32)
	rand.Read(key) // never fails (crypto/rand)
	return keyFile(magic, key)
}

// keyFile is "<magic> <key id> <base64url of 32 random bytes>\n".
func keyFile(magic string, key []byte) []byte {
	return fmt.Appendf(nil, "%s %s %s\n", magic, keyID(key), b64.EncodeToString(key))
}

func readKey(fsys fileSystem, path, magic string) ([]byte, error) {
	raw, err := readFile(fsys, path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	key, err := b64.DecodeString(string(bytes.TrimSpace(raw[bytes.LastIndexByte(raw, ' ')+1:])))
	if err != nil || len(key) != 32 || !bytes.Equal(raw, keyFile(magic, key)) {
		return nil, fmt.Errorf("%w: key file", ErrCorrupt)
	}
	return key, nil
}

// keyIDText is what keyID gives.
var keyIDText = regexp.MustCompile("^[A-Za-z0-9_-]{8}$")

// keyID tells keys apart without telling anything about them.
func keyID(key []byte) string {
	sum := sha256.Sum256(append([]byte("ward/audit/v1/key id\n"), key...))
	return b64.EncodeToString(sum[:6])
}
