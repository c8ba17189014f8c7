#!/usr/bin/env python3
"""Checks Ward's evidence from files and a public key; shares no code with Ward.

    verify.py ledger FOLDER VERIFIER    every frame, and the tree against every checkpoint
    verify.py case FOLDER VERIFIER      every record's proof, and the digests of the policies;
                                        not what the keys open, nor the facts: ward replay does

VERIFIER is a file with the ledger's public keys. Exit code 0: as it was written, 7: not.
Written from pdp/audit/doc.go and pdp/doc.go; Python 3.8 or later and nothing else."""
import base64, hashlib, json, os, re, struct, sys

def check(ok, text):
    if not ok:
        raise ValueError(text)

def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()

def b64(s):
    check(base64.b64encode(base64.b64decode(s)).decode() == s, "base64 in another spelling")
    return base64.b64decode(s)

# Ed25519 (RFC 8032), verification only, in extended coordinates.
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]), (p[1] + p[0]) * (q[1] + q[0])
    c, d = 2 * p[3] * q[3] * D, 2 * p[2] * q[2]
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P

def mul(n, p):
    r = (0, 1, 1, 0)
    for bit in bin(n)[2:]:
        r = add(add(r, r), p) if bit == "1" else add(r, r)
    return r

def point(raw):
    y = int.from_bytes(raw, "little") & (1 << 255) - 1
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(x2, (P + 3) // 8, P)
    x = x if x * x % P == x2 else x * pow(2, (P - 1) // 4, P) % P
    check(y < P and x * x % P == x2, "not a point")
    x = x if x & 1 == raw[31] >> 7 else P - x
    return x, y, 1, x * y % P

def signed(key, msg, sig):
    check(len(sig) == 64 and len(key) == 32, "not a signature")
    s, h = int.from_bytes(sig[32:], "little"), hashlib.sha512(sig[:32] + key + msg).digest()
    a = mul(s, point((4 * pow(5, -1, P) % P).to_bytes(32, "little")))
    b = add(point(sig[:32]), mul(int.from_bytes(h, "little") % L, point(key)))
    return s < L and all((a[i] * b[2] - b[i] * a[2]) % P == 0 for i in (0, 1))

def verifiers(lines):  # a line is name+hash+base64(1 || key)
    keys = {}
    for name, digest, raw in (line.split("+", 2) for line in lines):
        check(sha(name.encode(), b"\n", b64(raw.strip()))[:4].hex() == digest, "a key is not that of its hash")
        keys[name, bytes.fromhex(digest)] = b64(raw.strip())[1:]
    return keys

def checkpoint(note, keys):  # origin, size and root; an empty line; signatures
    text, sigs = note.split("\n\n")
    origin, size, root = text.split("\n")
    good = []
    for name, raw in re.findall("(?m)^\u2014 ([^ \n]+) ([^ \n]+)$", sigs):
        key = keys.get((name, b64(raw)[:4]))  # a witness's may stand beside the ledger's
        good += [key] if name == origin and key and signed(key, (text + "\n").encode(), b64(raw)[4:]) else []
    check(len(good) == 1 and size == str(int(size)), "a checkpoint is not signed by the ledger's key")
    return int(size), b64(root), good[0]

TABLE = list(range(256))
for _ in range(8):
    TABLE = [c >> 1 ^ (0x82F63B78 if c & 1 else 0) for c in TABLE]

def crc32c(data):
    c = 0xFFFFFFFF
    for byte in data:
        c = c >> 8 ^ TABLE[(c ^ byte) & 255]
    return c ^ 0xFFFFFFFF

def ledger(folder, keys):
    check(keys, "no key is given")
    text = open(os.path.join(folder, "checkpoints"), "rb").read()
    size = 2 * len(next(iter(keys))[0]) + 166  # of an entry; a crash may leave the last one short, or zeros in it
    entries = [text[i : i + size] for i in range(0, len(text) - size + 1, size)]
    if entries and len(text) % size == 0 and 0 in entries[-1][::size - 1]:
        entries.pop()
    notes = [e.decode().rstrip("\n") + "\n" for e in entries]
    check(notes and all(n.count("\n") == 5 for n in notes), "a bad checkpoint")
    sizes = [int(n.split("\n")[1]) for n in notes]
    roots = dict(zip(sizes, notes))
    check(sizes == sorted(roots) and sizes[0] == 0, "checkpoints out of order")
    seq, edges, torn, last, fresh, named = 0, [], 0, sizes[-1], [], {}
    _, root, signer = checkpoint(roots[0], keys)
    check(root == sha(), "the first checkpoint is not of nothing")
    names = sorted(n for n in os.listdir(folder) if re.fullmatch("[0-9]{20}", n))
    for name in names:
        check(int(name) == seq and seq % 65536 == 0, "segment %s is not in its place" % name)
        data, at, batch = open(os.path.join(folder, name), "rb").read(), 0, seq
        while at < len(data):
            length, crc, first = struct.unpack_from("<IIQ", data + bytes(16), at)
            frame = data[at : at + 16 + length]
            if not (0 < length <= 61440 and len(frame) == 16 + length and crc == crc32c(frame[:4] + frame[8:])):
                torn = len(data) - at
                later = lambda k, n, c, b: 0 < n <= 61440 and seq < b < seq + torn and crc32c(data[k : k + 4] + data[k + 8 : k + 16 + n]) == c
                behind = any(later(k, *struct.unpack_from("<IIQ", data, k)) for k in range(at + 1, len(data) - 16))
                check(name == names[-1] and seq >= last and not behind, "a bad frame at a-%d" % seq)
                break
            check(first in (batch, seq) and seq < int(name) + 65536, "a-%d is not in its place" % seq)
            seq, at, batch, size, h = seq + 1, at + 16 + length, first, 1, sha(b"\0", frame[16:])
            while edges and edges[-1][0] == size:
                size, h = 2 * size, sha(b"\1", edges.pop()[1], h)
            edges.append((size, h))
            if frame[16:].startswith(b'{"v":1,"kind":"change"') and "keys" in json.loads(frame[16:])["clear"]:
                fresh.append(json.loads(frame[16:])["clear"]["keys"])  # perhaps of a new signer
            if seq in roots:
                for _, left in edges[-2::-1]:
                    h = sha(b"\1", left, h)
                size, root, key = checkpoint(roots[seq], keys)
                check(h == root, "the root at %d is not the checkpoint's" % seq)
                check(key == signer or named.get(key) == signer, "another key signs at %d, and no record names it" % seq)
                for old, new in (list(verifiers((k["old"], k["new"])).items()) for k in fresh if k.get("op") == "rotate"):
                    named[new[1]], keys[new[0]] = old[1], new[1]
                signer, fresh = key, []
    check(seq >= last, "%d records, and a checkpoint states %d" % (seq, last))
    return "%d records, %d of them under %d checkpoints, %d torn bytes" % (seq, last, len(roots), torn)

def case(folder, keys):
    files = {n: open(os.path.join(folder, n), "rb").read() for n in os.listdir(folder)}
    records, under = [n[:-7] for n in files if re.fullmatch("a-[0-9]+[.]record", n)], set()
    known = {n + end for n in records for end in (".record", ".proof", ".keys", ".facts")} | {"verifier"}
    check(known == {n for n in files if not n.endswith(".policies")}, "a file is missing, or belongs to no case")
    for name in files:
        check(not name.endswith(".policies") or name == "sha256-%s.policies" % sha(files[name]).hex(), "%s is not of its digest" % name)
    for name in records:
        head, note = files[name + ".proof"].decode().split("\n\n", 1)
        magic, index, *path = head.split("\n")
        check(magic == "c2sp.org/tlog-proof@v1" and index == "index " + name[2:], "%s: the proof is of another record" % name)
        size, root, _ = checkpoint(note, keys)
        under.add((size, root))
        at, end, h = int(name[2:]), size - 1, sha(b"\0", files[name + ".record"])
        check(at <= end, "%s: the proof is of nothing" % name)
        for p in map(b64, path):  # RFC 9162, 2.1.3.2
            check(end > 0, "%s: the proof is too long" % name)
            h = sha(b"\1", p, h) if at & 1 or at == end else sha(b"\1", h, p)
            while at == end and at and not at & 1:
                at, end = at >> 1, end >> 1
            at, end = at >> 1, end >> 1
        check(end == 0 and h == root, "%s is not in the ledger" % name)
    check(len(under) == 1, "no record, or not all under one checkpoint")
    return "%d records, each in the ledger" % len(records)

if len(sys.argv) != 4 or sys.argv[1] not in ("ledger", "case"):
    sys.exit(__doc__)
try:
    print((ledger if sys.argv[1] == "ledger" else case)(sys.argv[2], verifiers(open(sys.argv[3]))))
except (ValueError, OSError, KeyError) as e:
    sys.stderr.write("not as it was written: %s\n" % e)
    sys.exit(7)
