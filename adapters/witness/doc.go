// Package witness is both sides of a witness: a service, run by somebody else,
// that keeps the last checkpoint of each ledger it watches, refuses one that
// does not continue it, and cosigns the others with the time. Who holds a
// ledger's signing key can rewrite the ledger; with a witness that shows.
//
//	err := witness.Create("/var/lib/witness", "witness.example/w1")
//	err = witness.Watch("/var/lib/witness", ledgerVerifier)
//	w, err := witness.Open("/var/lib/witness", log)
//	http.ListenAndServe(address, w)
//
// A ledger's side is a [Client], which submits checkpoints and keeps the
// cosigned ones; who reads the ledger checks them with [Verifier.Seen].
//
// The protocol is C2SP tlog-witness, the signatures C2SP tlog-cosignature of
// Ed25519. The folder of a witness:
//
//	key        its private key
//	verifier   its public key; give it to auditors
//	lock       held while it is open
//	ledgers    public keys of the ledgers that it watches, one a line; one
//	           ledger may have several, in the order in which they sign
//	<hash>     of each ledger, named by the SHA-256 of its name: the last
//	           checkpoint it cosigned, with the cosignature, or "never"
//
// A ledger's file is made when the ledger is first watched, and a witness does
// not start without it: what it has lost it must not take for never seen.
package witness
