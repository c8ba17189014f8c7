package witness

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

var (
	// ErrKey: the text is not the key of a witness.
	ErrKey = errors.New("witness: not a witness key")
	// ErrNotCosigned: the checkpoint bears no valid cosignature of the witness.
	ErrNotCosigned = errors.New("witness: not cosigned by the witness")
)

// Verifier is the public key of a witness. Its text is a C2SP signed-note vkey.
type Verifier struct {
	name string
	id   [4]byte
	key  ed25519.PublicKey
}

// maxTime is the first second after the year 9999, which no text of a time can
// say.
const maxTime = 253402300800

// algorithm is that of Ed25519 cosignatures in vkeys.
const algorithm = 4

func newVerifier(name string, key ed25519.PublicKey) Verifier {
	sum := sha256.Sum256(append([]byte(name+"\n\x04"), key...))
	return Verifier{name, [4]byte(sum[:4]), key}
}

// ParseVerifier reads the text of a public key.
func ParseVerifier(text string) (Verifier, error) {
	name, raw, err := parseKey(text)
	if err != nil {
		return Verifier{}, err
	}
	if v := newVerifier(name, raw); v.String() == text {
		return v, nil
	}
	return Verifier{}, ErrKey
}

// parseKey takes apart what formatKey wrote, without a look at the id.
func parseKey(text string) (name string, raw []byte, err error) {
	f := strings.SplitN(text, "+", 3) // base64 has + too
	if len(f) != 3 || !validName(f[0]) {
		return "", nil, ErrKey
	}
	raw, err = base64.StdEncoding.DecodeString(f[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != algorithm {
		return "", nil, ErrKey
	}
	return f[0], raw[1:], nil
}

func formatKey(name string, id [4]byte, raw []byte) string {
	return fmt.Sprintf("%s+%x+%s", name, id, base64.StdEncoding.EncodeToString(append([]byte{algorithm}, raw...)))
}

func validName(s string) bool {
	return s != "" && len(s) <= 200 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '+' })
}

// String gives the text of the key.
func (v Verifier) String() string { return formatKey(v.name, v.id, v.key) }

// Name is the witness's name.
func (v Verifier) Name() string { return v.name }

// File names the file in a ledger's folder that keeps the last checkpoint that
// the witness cosigned (see package audit).
func (v Verifier) File() string { return fmt.Sprintf("cosigned-%x", v.id) }

// Seen gives the time at which the witness last cosigned a checkpoint, to the
// second; else [ErrNotCosigned]. That it is the ledger's own is for
// audit.OpenCheckpoint to say.
func (v Verifier) Seen(msg []byte) (last time.Time, err error) {
	text, sigs := splitNote(msg)
	err = ErrNotCosigned
	for line := range strings.Lines(string(sigs)) {
		sig, ok := strings.CutPrefix(line, "— "+v.name+" ")
		raw, derr := base64.StdEncoding.DecodeString(strings.TrimSuffix(sig, "\n"))
		if !ok || derr != nil || len(raw) != 4+8+ed25519.SignatureSize || [4]byte(raw) != v.id {
			continue
		}
		unix := binary.BigEndian.Uint64(raw[4:])
		at := time.Unix(int64(min(unix, maxTime)), 0).UTC()
		if unix < maxTime && (err != nil || at.After(last)) && ed25519.Verify(v.key, cosigned(unix, text), raw[12:]) {
			last, err = at, nil
		}
	}
	return last, err
}

// splitNote parts the text of a signed note from its signature lines.
func splitNote(msg []byte) (text, sigs []byte) {
	i := bytes.LastIndex(msg, []byte("\n\n"))
	if i < 0 {
		return nil, nil
	}
	return msg[:i+1], msg[i+2:]
}

// cosigned is what a witness signs.
func cosigned(unix uint64, text []byte) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", unix), text...)
}
