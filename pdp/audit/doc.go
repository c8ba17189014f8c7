// Package audit is the ledger: a file log in which a record is durable before
// the answer that it is about leaves, that strangers verify with a public key
// alone, and whose content only the holder of the keys can read.
//
// Make the keys and the ledger once; they refuse to come into being by accident:
//
//	err := audit.CreateKeys("/etc/ward/keys", "ward.example/audit/node-1")
//	keys, err := audit.OpenKeys("/etc/ward/keys")
//	err = audit.Create("/var/lib/ward/ledger", keys)
//
// Then write, one process at a time:
//
//	ledger, recovery, err := audit.Open("/var/lib/ward/ledger", keys, audit.Options{})
//	seq, err := ledger.Append(ctx, audit.Record{
//		Kind:  audit.Decision,
//		Time:  now.UnixMilli(),
//		Clear: json.RawMessage(`{"decision":"deny","person":"` + keys.Hash("person", tenant, id) + `"}`),
//		Parts: []audit.Part{{Tenant: tenant, Plain: request}},
//	})
//	if err != nil { … }      // an outage: the answer must not leave
//	fmt.Println(audit.ID(seq)) // a-1042
//
// And read, anywhere, at any time:
//
//	report, err := audit.Verify(dir, verifier, checkpointsKeptElsewhere...)
//	reader, err := audit.OpenReader(dir, verifier)
//	for entry, err := range reader.From(0) { … keys.Unseal(entry) … }
//	proof, err := reader.Prove(1042, nil)                            // of one record
//	seq, checkpoint, err := audit.CheckProof(proof, body, verifier) // without the ledger
//	proof, err := reader.Consistency(oldCheckpoint, nil)             // that nothing before was changed
//
// What Append promises is in its own comment. A write or sync error fails the
// ledger for good: the file system may have dropped what it could not write, so
// nothing is retried; the process opens the ledger again, which recovers it.
//
// Without an outside anchor a ledger proves only that it agrees with itself:
// who holds the signing key can rewrite everything. Keep checkpoints elsewhere.
//
// # Format
//
// This is the specification of format version 1. A ledger is a folder:
//
//	lock                   held by the writer
//	checkpoints            signed checkpoints
//	00000000000000000000   segments, named by the first sequence number in 20 digits
//	00000000000000065536
//	torn-<seq>-<time>      bytes that a recovery cut off; no part of the ledger
//	cosigned-<key id>      the last checkpoint that a witness cosigned; the key id
//	                       is that of the witness's key, in 8 hexadecimal digits
//
// A segment holds exactly 65,536 records, the last one up to that. A record
// is a frame, integers in little endian:
//
//	length  u32   bytes of the body, 1 to 61,440
//	crc     u32   CRC-32C (Castagnoli) of length, batch and body
//	batch   u64   sequence number of the first record of the same batch
//	body
//
// Records have no gaps: the sequence number is the position from 0. A batch is
// what is written and synced at once. It lies in one segment, and is written
// only when the one before is durable. So a bad frame at sequence number s may
// be a torn tail; but a valid frame anywhere behind it with a batch above s
// proves that s had been durable, and that it was damaged later. A segment is
// durable in its folder before a record in it is acknowledged, and all of it is
// before the next one is made.
//
// A body is one JSON text in UTF-8 without insignificant space, its fields in
// this order:
//
//	{"v":1,"kind":"decision","time":1767225600000,"clear":{…},
//	 "sealed":[{"t":"hmac1:…","day":"2026-01-01","key":"…","salt":"…","ct":"…"}]}
//
// "kind" is decision, inquiry, outcome, change, abandoned or refusals, and no
// other word. Records of the kinds abandoned, outcome and refusals seal nothing.
//
// The bytes as stored are the leaf of an RFC 6962 Merkle tree: the leaf hash is
// SHA-256(0x00 ‖ body), an inner one SHA-256(0x01 ‖ left ‖ right). Nothing is
// canonicalised for it, and destroying a seal key changes none of it.
//
// Each element of "sealed" is what one tenant may read. "t" is the keyed hash
// of the tenant, "day" the UTC day of "time"; together they name the seal key,
// 32 random bytes, of which "key" is the id: the first 6 bytes of
// SHA-256("ward/audit/v1/key id\n" ‖ key). With the 32 bytes of "salt" and the
// info "ward/audit/v1/part", HKDF-SHA256 derives the key of this part alone;
// "ct" is AES-256-GCM under it, with a nonce of 12 zeros. The plaintext is the
// length of the tenant's name in 4 bytes, big endian, the name, and the part.
// The additional data are
//
//	ward/audit/v1 <kind> <time> <index>/<count> <t> <day> <key>\n<clear>
//
// where index counts from 0. Binary fields are base64url without padding.
//
// A keyed hash is "hmac1:<key id>:<mac>", the mac HMAC-SHA256 over kind, tenant
// and id, each after its length in 8 bytes, big endian. A tenant's own has the
// kind "tenant", the tenant "" and the name as id.
//
// A checkpoint (C2SP tlog-checkpoint) is a signed note (C2SP signed-note) of
// three lines, origin, number of records, root in base64, signed with one
// Ed25519 key. In the file each is filled up with line ends to 166 bytes and
// twice the length of the origin, which leaves room for a size of 19 digits and
// an empty line. A crash may leave the last one short, or with zeros at its start
// or end: it does not count then. The first one is of size 0; the sizes rise. One
// is added at most once a second while the ledger grows, at
// Open if it covers too little, for Files, and at Close: a ledger that was
// closed is covered to its last byte.
//
// The signing key may be replaced. A record of the kind "change" says so, with
// the verifiers (C2SP signed-note) of both keys in its clear part:
//
//	{…,"keys":{"op":"rotate",…,"old":"<name>+<id>+<key>","new":"<name>+<id>+<key>",…}}
//
// A checkpoint by the new key is valid where an earlier checkpoint covers such a
// record, the key named as the old one signed the checkpoint just before, and
// none by a key before it follows. So the oldest verifier is enough to check a
// whole ledger; to read its end, or a checkpoint alone, takes the key that
// signed it. The name stays the same.
//
// The same member with "op" "shred" or "loss" names a seal key by "tenant" (a
// keyed hash), "day" and "key" (its id), that was to be destroyed once the record
// was durable, or that somebody says was lost. A seal key that is gone without
// such a record is missing.
//
// A cosigned checkpoint is a checkpoint with one more signature line, a C2SP
// tlog-cosignature of Ed25519 (cosignature/v1). Its file holds that note alone,
// and is replaced as a whole.
//
// An inclusion proof is a C2SP tlog-proof@v1 file without extra data: the line
// "c2sp.org/tlog-proof@v1", the line "index <sequence number>", the hashes from
// the leaf's sibling up to the root's child, each in base64 on a line, an empty
// line, the checkpoint. A consistency proof is the body of a C2SP tlog-witness
// add-checkpoint request: the line "old <size>", the hashes of RFC 6962 section
// 2.1.2, an empty line, the later checkpoint; the earlier one is kept beside it.
//
// # Compatibility
//
// Format version 1 will be read by every later version. A change of what a
// record means raises "v". Error text is for people and may change.
package audit
