#!/usr/bin/env python3
"""Independent decoder of the Diaspore block format, written from docs/format.md alone.

    decode.py --all FOLDER                  check every golden vector in FOLDER, good and bad
    decode.py --blob FOLDER KEY_HEX OUT     rebuild one blob from the shard files and key file in FOLDER

Needs Python 3.11 and the packages `cryptography` and `zstandard`; BLAKE3 is below. Slow on purpose: it is meant to be read.
"""
import base64, hashlib, hmac, itertools, json, pathlib, struct, sys
import zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class Refused(Exception):
    """The bytes are not what their place promises."""


def need(condition, why):
    if not condition:
        raise Refused(why)


# ---- BLAKE3 (hash, keyed, derive-key, extendable output) -------------------------------------------------------------
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
START, END, PARENT, ROOT, KEYED, DERIVE_CONTEXT, DERIVE_KEY = 1, 2, 4, 8, 16, 32, 64
M32 = 0xFFFFFFFF


def compress(chaining, block, counter, length, flags):
    v = list(chaining) + list(IV[:4]) + [counter & M32, counter >> 32, length, flags]
    m = list(struct.unpack("<16I", block.ljust(64, b"\0")))

    def g(a, b, c, d, x, y):
        v[a] = (v[a] + v[b] + x) & M32
        t = v[d] ^ v[a]; v[d] = (t >> 16 | t << 16) & M32
        v[c] = (v[c] + v[d]) & M32
        t = v[b] ^ v[c]; v[b] = (t >> 12 | t << 20) & M32
        v[a] = (v[a] + v[b] + y) & M32
        t = v[d] ^ v[a]; v[d] = (t >> 8 | t << 24) & M32
        v[c] = (v[c] + v[d]) & M32
        t = v[b] ^ v[c]; v[b] = (t >> 7 | t << 25) & M32

    for turn in range(7):
        g(0, 4, 8, 12, m[0], m[1]); g(1, 5, 9, 13, m[2], m[3]); g(2, 6, 10, 14, m[4], m[5]); g(3, 7, 11, 15, m[6], m[7])
        g(0, 5, 10, 15, m[8], m[9]); g(1, 6, 11, 12, m[10], m[11]); g(2, 7, 8, 13, m[12], m[13]); g(3, 4, 9, 14, m[14], m[15])
        if turn < 6:
            m = [m[i] for i in ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)] + [v[i + 8] ^ chaining[i] for i in range(8)]


def blake3(data, length=32, key=None, context=None):
    words, flags = IV, 0
    if key is not None:
        words, flags = struct.unpack("<8I", key), KEYED
    if context is not None:
        words = struct.unpack("<8I", blake3_words(context, IV, DERIVE_CONTEXT, 32))
        flags = DERIVE_KEY
    return blake3_words(data, words, flags, length)


def blake3_words(data, words, flags, length):
    def chunk(index):
        part = data[index * 1024:(index + 1) * 1024]
        blocks = [part[i:i + 64] for i in range(0, len(part), 64)] or [b""]
        cv = words
        for i, block in enumerate(blocks):
            f = flags | (START if i == 0 else 0) | (END if i == len(blocks) - 1 else 0)
            node = (cv, block, index, len(block), f)
            if i < len(blocks) - 1:
                cv = compress(*node)[:8]
        return node

    def tree(first, count):
        if count == 1:
            return chunk(first)
        left = 1 << ((count - 1).bit_length() - 1)
        halves = [compress(*tree(first, left))[:8], compress(*tree(first + left, count - left))[:8]]
        return (words, struct.pack("<16I", *halves[0], *halves[1]), 0, 64, flags | PARENT)

    cv, block, _, size, f = tree(0, max(1, -(-len(data) // 1024)))
    out = b""
    for counter in range(-(-length // 64)):
        out += struct.pack("<16I", *compress(cv, block, counter, size, f | ROOT))
    return out[:length]


# ---- SEAL ------------------------------------------------------------------------------------------------------------
SECTION, SHARD_HEADER, LEAF_LIST, CLAIM, HEAD, KEYRING = 1, 2, 3, 4, 5, 6
PREFIX, TAG = 56, 16


def expand(key, info, length):
    out, block = b"", b""
    for i in range(-(-length // 32)):
        block = hmac.digest(key, block + info + bytes([i + 1]), "sha256")
        out += block
    return out[:length]


def plain_len(sealed, log2):
    body = sealed - PREFIX
    need(body >= 0, "sealed form too short")
    segments = -(-body // ((1 << log2) + TAG))
    plain = body - segments * TAG
    need(plain >= 0 and plain + -(-plain // (1 << log2)) * TAG == body, "no plaintext has this sealed length")
    return plain


def unseal(key, kind, deployment, log2, meaning, sealed):
    need(len(meaning) <= 128, "meaning too wide")
    length = plain_len(len(sealed), log2)
    salt, commitment, body = sealed[:24], sealed[24:56], sealed[56:]
    info = b"diaspore/v1/seal" + bytes([kind]) + salt + deployment + struct.pack(">QB", length, log2) + meaning.ljust(128, b"\0")
    okm = expand(key, info, 76)
    need(hmac.compare_digest(okm[44:], commitment), "commitment")
    cipher, base, plain = AESGCM(okm[:32]), okm[32:44], b""
    stride = (1 << log2) + TAG
    for i in range(-(-len(body) // stride)):
        nonce = base[:8] + (int.from_bytes(base[8:], "big") ^ i).to_bytes(4, "big")
        try:
            plain += cipher.decrypt(nonce, body[i * stride:(i + 1) * stride], None)
        except InvalidTag:
            raise Refused("segment tag") from None
    need(len(plain) == length, "plaintext length")
    return plain


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        need(0 <= n <= len(self.data) - self.at, "short")
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, n):
        return int.from_bytes(self.take(n), "big")

    u8 = lambda self: self.number(1)
    u32 = lambda self: self.number(4)
    u64 = lambda self: self.number(8)
    id = lambda self: self.take(16)
    hash = lambda self: self.take(32)

    def flag(self):
        value = self.u8()
        need(value in (0, 1), "flag")
        return value == 1

    def bytes(self):
        return self.take(self.u32())

    def text(self):
        try:
            return self.bytes().decode()
        except UnicodeDecodeError:
            raise Refused("text") from None

    def list(self, item):
        count = self.u32()
        need(count <= len(self.data), "count")
        return [item(self) for _ in range(count)]

    def option(self, item):
        return item(self) if self.flag() else None

    def rest(self):
        return self.take(len(self.data) - self.at)

    def zeros(self, n=None):
        need(not any(self.take(n) if n is not None else self.rest()), "reserved bytes")

    def end(self):
        need(self.at == len(self.data), "trailing bytes")


# ---- Keyring ---------------------------------------------------------------------------------------------------------
def open_keyring(master, provider, version, sealed):
    name = listed_name(expand(master, b"diaspore/v1/keyring-names", 32), "keyring", provider, struct.pack(">Q", version))
    meaning = sha(provider.encode()) + sha(name.encode()) + struct.pack(">Q", version)
    r = Reader(unseal(master, KEYRING, bytes(16), 16, meaning, sealed))
    need(r.u8() == 1, "keyring version")
    ring = {"deployment": r.id(), "version": r.u64()}
    need(ring["version"] == version, "version of the keyring")
    for name in ("header", "name", "head", "log", "reference", "ledger", "api", "credential", "identity"):
        ring[name] = r.hash()
    ring["tenants"] = {}
    for _ in range(r.u32()):
        tenant, current, dedup, reference = r.id(), r.u32(), r.hash(), r.hash()
        versions = {}
        for _ in range(r.u32()):
            version = r.u32()
            versions[version] = r.hash()
        need(current in versions, "current key")
        ring["tenants"][tenant] = {"dedup": dedup, "reference": reference, "versions": versions}
    need(len(r.data) - r.at < 4096, "padding")
    r.zeros()
    return ring


# ---- Names -----------------------------------------------------------------------------------------------------------
def name_tag(key, label, provider, position):
    parts = [label.encode(), provider.encode(), position]
    message = b"diaspore/v1/name\0" + b"".join(struct.pack(">I", len(p)) + p for p in parts)
    return hmac.digest(key, message, "sha256")[:20].hex()


def shard_name(key, provider, kind, incarnation, counter, attempt):
    tag = name_tag(key, kind, provider, incarnation + struct.pack(">QB", counter, attempt))
    return tag[:2] + "/" + tag[2:]


def listed_name(key, label, provider, position):
    return name_tag(key, label + "-prefix", provider, b"")[:16] + "/" + name_tag(key, label, provider, position)


# ---- Merkle trees ----------------------------------------------------------------------------------------------------
def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def merkle(leaves):
    if not leaves:
        return sha()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha(b"\1", merkle(leaves[:split]), merkle(leaves[split:]))


def shard_root(index, length, cells):
    leaves = [sha(b"\0diaspore/v1/cell\0", struct.pack(">I", i), cell) for i, cell in enumerate(cells)]
    return sha(b"diaspore/v1/shard\0", struct.pack(">BI", index, length), merkle(leaves))


def block_root(roots):
    return sha(b"diaspore/v1/block\0", merkle([sha(b"\0", root) for root in roots]))


# ---- Manifest, header, shard object ----------------------------------------------------------------------------------
KINDS = {1: "bulk", 2: "commit", 3: "commit", 4: "bulk"}
NAME_CLASSES = {"bulk": 1, "commit": 2}


def open_manifest(data):
    r = Reader(data)
    need(r.u8() == 1, "manifest version")
    m = {"kind": r.u8(), "attempt": r.u8(), "k": r.u8(), "n": r.u8(), "code": r.u8(), "cell_log2": r.u8(), "k_floor": r.u8()}
    m |= {"deployment": r.id(), "block": r.id(), "incarnation": r.id(), "epoch": r.u64(), "seq": r.u64(), "counter": r.u64()}
    m |= {"payload_len": r.u32(), "shard_len": r.u32(), "first_section_len": r.u32()}
    r.zeros(4)
    m |= {"block_root": r.hash(), "log_size": r.u64(), "log_root": r.hash(), "acked": r.u64(), "settled": r.u64(), "blind": r.hash()}
    r.zeros(40)
    r.end()
    need(m["kind"] in KINDS and m["attempt"] < 4 and 1 <= m["k"] < m["n"] <= 32 and m["code"] == 1 and m["cell_log2"] == 16, "manifest")
    need(0 < m["payload_len"] and m["shard_len"] == shard_len_for(m["payload_len"], m["k"]), "lengths")
    log = [m["seq"], m["log_size"], m["acked"], m["settled"], m["first_section_len"]]
    if KINDS[m["kind"]] == "bulk":
        need(not any(log) and not any(m["log_root"]), "log of a bulk block")
    else:
        need(m["settled"] <= m["acked"] <= m["seq"] and m["seq"] and m["first_section_len"], "marks")
    need(1 <= m["k_floor"] <= m["k"], "k floor")
    m["raw"] = data
    return m


def padme(length):
    exponent = length.bit_length() - 1
    low = exponent - exponent.bit_length()
    return -(-length // (1 << low)) << low if low > 0 else length


def object_len(shard_len):
    return max(4096, padme(2048 + shard_len + PREFIX + TAG + 32 * -(-shard_len // 65536)))


def shard_len_for(payload, k):
    least = -(-payload // k)
    room = object_len(least) - 2120
    return 65536 * (room // 65568) + max(0, room % 65568 - 32)


def verify(public, domain, message, signature):
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, domain + b"\0" + message)
    except InvalidSignature:
        raise Refused("signature") from None


def open_shard(ring, public, place, data):
    """A shard object at its place -> (manifest, roots, index, body)."""
    name = shard_name(ring["name"], place["provider"], place["kind"], place["incarnation"], place["counter"], place["attempt"])
    meaning = sha(place["provider"].encode()) + sha(name.encode()) + place["incarnation"]
    meaning += struct.pack(">QBB", place["counter"], place["attempt"], NAME_CLASSES[place["kind"]])
    need(len(data) >= 2048, "short object")
    r = Reader(unseal(ring["header"], SHARD_HEADER, place["deployment"], 16, meaning, data[:2048]))
    raw = r.take(256)
    m, signature, index = open_manifest(raw), r.take(64), r.u8()
    roots = [r.hash() for _ in range(m["n"])]
    r.zeros()
    verify(public, b"diaspore/v1/manifest", raw, signature)
    need(all(m[field] == place[field] for field in ("deployment", "incarnation", "counter", "attempt")), "place")
    need(KINDS[m["kind"]] == place["kind"] and index < m["n"] and block_root(roots) == m["block_root"], "roots")
    need(len(data) == object_len(m["shard_len"]), "object length")
    body = data[2048:2048 + m["shard_len"]]
    r = Reader(unseal(ring["header"], LEAF_LIST, place["deployment"], 16, meaning, data[2048 + m["shard_len"]:]))
    cells = [r.hash() for _ in range(-(-m["shard_len"] // 65536))]
    r.zeros()
    need(shard_root(index, m["shard_len"], cells) == roots[index], "leaf list")
    for i, cell in enumerate(cells):
        need(blake3(body[i * 65536:(i + 1) * 65536]) == cell, f"cell {i}")
    return m, roots, index, body


# ---- Reed-Solomon over GF(2^8), polynomial 0x11d ---------------------------------------------------------------------
EXP, LOG = [0] * 512, [0] * 256
value = 1
for power in range(255):
    EXP[power] = EXP[power + 255] = value
    LOG[value] = power
    value = value << 1 ^ (0x11D if value & 0x80 else 0)


def mul(a, b):
    return EXP[LOG[a] + LOG[b]] if a and b else 0


def power(a, n):
    result = 1
    for _ in range(n):
        result = mul(result, a)
    return result


def invert(rows):
    n = len(rows)
    work = [list(row) + [int(i == j) for j in range(n)] for i, row in enumerate(rows)]
    for col in range(n):
        pivot = next((r for r in range(col, n) if work[r][col]), None)
        need(pivot is not None, "singular matrix")
        work[col], work[pivot] = work[pivot], work[col]
        inverse = EXP[255 - LOG[work[col][col]]]
        work[col] = [mul(x, inverse) for x in work[col]]
        for r in range(n):
            if r != col and work[r][col]:
                factor = work[r][col]
                work[r] = [x ^ mul(factor, y) for x, y in zip(work[r], work[col])]
    return [row[n:] for row in work]


def product(a, b):
    out = []
    for row in a:
        line = [0] * len(b[0])
        for factor, other in zip(row, b):
            line = [x ^ mul(factor, y) for x, y in zip(line, other)]
        out.append(line)
    return out


def code_matrix(k, n):
    vandermonde = [[power(r, c) for c in range(k)] for r in range(n)]
    return product(vandermonde, invert(vandermonde[:k]))


def combine(row, shards):
    out = bytearray(len(shards[0]))
    for factor, shard in zip(row, shards):
        if factor:
            table = bytes(mul(factor, x) for x in range(256))
            for i, byte in enumerate(shard.translate(table)):
                out[i] ^= byte
    return bytes(out)


def decode_payload(m, shards):
    """{index: body} with at least k entries -> payload."""
    need(len(shards) >= m["k"], "too few shards")
    used = sorted(shards)[:m["k"]]
    matrix = code_matrix(m["k"], m["n"])
    back = invert([matrix[i] for i in used])
    data = b"".join(combine(row, [shards[i] for i in used]) for row in back)
    payload, padding = data[:m["payload_len"]], data[m["payload_len"]:]
    need(padding == blake3(m["blind"], len(padding), context=b"diaspore v1 payload padding"), "padding")
    return payload


# ---- Sections and commit bodies --------------------------------------------------------------------------------------
def section_info(r):
    return {"tenant": r.id(), "key_version": r.u32(), "offset": r.u32(), "plain_len": r.u32(), "seg_log2": r.u8(), "prefix": r.take(PREFIX)}


def chunk_entry(r):
    names = ("section", "offset", "stored_len", "plain_len", "encoding")
    entry = {"bucket": r.id(), "id": r.hash()}
    return entry | dict(zip(names, (r.u8(), r.u32(), r.u32(), r.u32(), r.u8())))


def sealed_len(section):
    return section["plain_len"] + PREFIX + TAG * -(-section["plain_len"] // (1 << section["seg_log2"]))


def open_section(ring, m, index, section, payload):
    need(9 <= section["seg_log2"] <= 16, "segment length")
    sealed = payload[section["offset"]:section["offset"] + sealed_len(section)]
    need(len(sealed) == sealed_len(section) and sealed[:PREFIX] == section["prefix"], "section place")
    if section["tenant"] == bytes(16):
        key = ring["log"]
    else:
        key = ring["tenants"].get(section["tenant"], {"versions": {}})["versions"].get(section["key_version"])
        need(key is not None, "no key for the section")
    meaning = m["block"] + m["incarnation"] + struct.pack(">QBBB", m["counter"], m["attempt"], m["kind"], index)
    meaning += section["tenant"] + struct.pack(">I", section["key_version"])
    return unseal(key, SECTION, m["deployment"], section["seg_log2"], meaning, sealed)


def reference(key, one):
    return one if one == bytes(16) else blake3(b"diaspore/v1/reference\0" + one, key=key)[:16]


def belongs(private, tenant):
    """Whether this private part may lie in that tenant's section."""
    kind, of_service = private[1], tenant == bytes(16)
    if kind == 1:
        return not of_service and private[34:50] == tenant
    if kind == 11:
        return private[50:66] == tenant
    if kind == 6:
        return not of_service and all(section["tenant"] == tenant for section in bulk_added(private)["sections"])
    if kind in (2, 3, 4, 5, 15):
        return not of_service
    return kind in (12, 16) or of_service


def open_commit(ring, m, payload):
    """-> [(public part, private part)], [(chunk entry, stored bytes)]"""
    first = {"tenant": bytes(16), "key_version": 0, "offset": 0, "plain_len": m["first_section_len"], "seg_log2": 13, "prefix": payload[:PREFIX]}
    r = Reader(open_section(ring, m, 0, first, payload))
    need(r.u8() == 1, "commit body version")
    sections = [section_info(r) for _ in range(r.u8())]
    end, last = sealed_len(first), bytes(16)
    for section in sections:
        need(section["tenant"] > last and section["offset"] == end and section["seg_log2"] == 13, "section table")
        end, last = end + sealed_len(section), section["tenant"]
    need(end == len(payload), "sections fill the payload")
    publics = r.list(lambda r: r.take(128))
    privates = {}

    def take_privates(r, tenant):
        count, last = r.u32(), -1
        for _ in range(count):
            index, blind, private = r.u32(), r.hash(), r.bytes()
            need(last < index < len(publics) and index not in privates, "record index")
            last = index
            public = publics[index]
            need(public[0] == 1 and public[2] <= 2 and public[3] <= 1 and not any(public[92:]), "public part")
            need(sha(b"diaspore/v1/private\0", blind, private) == public[60:92], "commitment of a record")
            need(private[:2] == public[:2], "kind of a record")
            key = ring["reference"] if tenant == bytes(16) else ring["tenants"][tenant]["reference"]
            ids = tenant, private[2:18], private[18:34]
            need(public[4:52] == b"".join(reference(key, one) for one in ids), "references of a record")
            need(belongs(private, tenant), "section of a record")
            privates[index] = private
        return count

    take_privates(r, bytes(16))
    r.end()
    chunks = []
    for index, section in enumerate(sections, 1):
        plain = open_section(ring, m, index, section, payload)
        r = Reader(plain)
        own = take_privates(r, section["tenant"])
        entries = r.list(chunk_entry)
        need(entries or own, "empty section")
        for entry in entries:
            need(entry["section"] == index and entry["offset"] == r.at, "chunk place")
            chunks.append((entry, r.take(entry["stored_len"])))
            need(entry["encoding"] != 0 or entry["plain_len"] == entry["stored_len"], "length of a raw chunk")
        r.end()
    need(len(privates) == len(publics), "private part missing")
    return [(publics[i], privates[i]) for i in range(len(publics))], chunks


def blob_put(private):
    r = Reader(private[34:])
    put = {"bucket": r.id(), "key": r.bytes(), "version": r.id(), "size": r.u64(), "content_type": r.option(Reader.text)}
    put |= {"metadata": r.list(lambda r: (r.text(), r.text())), "sha256": r.option(Reader.hash), "etag": r.id(), "class": r.u8()}
    put |= {"depth": r.u8(), "refs": r.list(lambda r: (r.hash(), r.u64()))}
    put["idempotency"] = r.option(lambda r: (r.hash(), r.hash()))
    r.end()
    need(put["depth"] <= 3 and len(put["refs"]) <= 512 and sum(length for _, length in put["refs"]) == put["size"], "size of a blob")
    return put


def bulk_added(private):
    r = Reader(private[34:])
    bulk = {"block": r.id(), "incarnation": r.id(), "counter": r.u64(), "attempt": r.u8(), "k": r.u8(), "n": r.u8(), "code": r.u8()}
    bulk |= {"payload_len": r.u32(), "shard_len": r.u32(), "block_root": r.hash(), "shard_roots": r.list(Reader.hash)}
    bulk |= {"manifest_hash": r.hash(), "placements": r.list(lambda r: (r.u8(), r.text(), r.flag()))}
    bulk |= {"sections": r.list(section_info), "chunks": r.list(chunk_entry)}
    r.end()
    return bulk


# ---- Compressed chunks ------------------------------------------------------------------------------------------------
FRAME = 65536


def unpack(stored, length):
    """The plain bytes of a stored chunk of encoding 1."""
    frames = -(-length // FRAME)
    need(0 < length <= 4 << 20 and len(stored) >= 4 * frames, "offsets of a chunk")
    ends, body = struct.unpack(f">{frames}I", stored[:4 * frames]), stored[4 * frames:]
    need(ends[-1] == len(body), "last offset of a chunk")
    plain, start = b"", 0
    for end in ends:
        need(start <= end <= len(body), "offset of a frame")
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            piece = frame.decompress(body[start:end])
        except zstandard.ZstdError:
            raise Refused("frame") from None
        need(frame.eof and not frame.unused_data and len(piece) == min(FRAME, length - len(plain)), "frame")
        plain, start = plain + piece, end
    return plain


# ---- Claims, notes, proofs -------------------------------------------------------------------------------------------
def open_parked(ring, public, label, kind, length, provider, position, sealed):
    """The body of a claim or head."""
    name = listed_name(ring["name"], label, provider, position)
    plain = unseal(ring["head"], kind, ring["deployment"], 16, sha(provider.encode()) + sha(name.encode()), sealed)
    need(len(plain) == length, f"length of a {label}")
    r = Reader(plain)
    need(r.u8() == 1, f"{label} version")
    body, signature = r.bytes(), r.take(64)
    r.zeros()
    verify(public, b"diaspore/v1/" + label.encode(), body, signature)
    return Reader(body)


def open_head(ring, public, provider, incarnation, counter, sealed):
    r = open_parked(ring, public, "head", HEAD, 4096, provider, incarnation + struct.pack(">Q", counter), sealed)
    h = {"deployment": r.id(), "root": block_ref(r), "covers": r.u64(), "acked": r.u64()}
    h |= {"settled": r.u64(), "checkpoint": r.text()}
    r.end()
    need(h["deployment"] == ring["deployment"] and 0 < h["covers"] <= h["settled"] <= h["acked"], "head")
    return h


# ---- Compacted logs --------------------------------------------------------------------------------------------------
def block_ref(r):
    ref = {"block": r.id(), "incarnation": r.id(), "counter": r.u64(), "attempt": r.u8(), "k": r.u8(), "n": r.u8()}
    need(ref["attempt"] < 4 and 1 <= ref["k"] < ref["n"] <= 32, "block reference")
    return ref | {"manifest_hash": r.hash()}


def open_compacted(ring, m, payload):
    """The plaintext of a part's or a root's block."""
    need(m["kind"] == 4, "kind of the block")
    section = {"tenant": bytes(16), "key_version": 0, "offset": 0, "seg_log2": 16, "prefix": payload[:PREFIX]}
    return open_section(ring, m, 0, section | {"plain_len": plain_len(len(payload), 16)}, payload)


def open_root(plain):
    r = Reader(plain)
    need(r.u8() == 1, "version of a root")
    root = {"covers": r.u64(), "incarnation": r.id(), "counter": r.u64(), "log_size": r.u64(), "log_root": r.hash(), "acked": r.u64()}

    def part(r):
        p = {"first": (r.u8(), r.bytes()), "rows": r.u32(), "plain_len": r.u32(), "encoding": r.u8(), "content": r.hash()}
        need(0 < p["plain_len"] <= 4_000_000 and p["encoding"] <= 1, "part")
        return p | {"block": block_ref(r)}

    root["parts"] = r.list(part)
    r.end()
    firsts = [p["first"] for p in root["parts"]]
    need(firsts[:1] == [(0, b"")] and all(a < b for a, b in zip(firsts, firsts[1:])), "order of the parts")
    need(0 < root["covers"] <= root["acked"] and root["log_size"] > 0, "root")
    return root


def open_part(part, end, stored):
    """The rows of one part."""
    plain = unpack(stored, part["plain_len"]) if part["encoding"] else stored
    need(len(plain) == part["plain_len"] and blake3(plain) == part["content"], "content of a part")
    r, rows = Reader(plain), []
    while r.at < len(plain):
        rows.append((r.u8(), r.bytes(), r.bytes()))
    places = [row[:2] for row in rows]
    need(all(a < b for a, b in zip(places, places[1:])) and len(rows) == part["rows"], "rows")
    need(all(part["first"] <= place and (end is None or place < end) for place in places), "range of a part")
    return rows


def open_claim(ring, public, provider, incarnation, epoch, sealed):
    r = open_parked(ring, public, "claim", CLAIM, 32768, provider, incarnation + struct.pack(">Q", epoch), sealed)
    c = {"deployment": r.id(), "epoch": r.u64(), "incarnation": r.id(), "started": r.u64(), "lease": r.u64(), "quorum": r.u8()}
    c |= {"seen": r.list(lambda r: (r.u64(), r.id())), "providers": r.list(Reader.text), "k": r.u8(), "n": r.u8()}
    c |= {"k_floor": r.u8(), "window": r.u32()}
    r.end()
    need(c["deployment"] == ring["deployment"] and c["epoch"] > 0 and c["window"] > 0, "claim")
    need(1 <= c["k_floor"] <= c["k"] < c["n"] <= 32 and 1 <= c["quorum"] <= len(c["providers"]), "claim")
    need(all(1 <= len(p.encode()) <= 255 for p in c["providers"]) and all(e < c["epoch"] for e, _ in c["seen"]), "claim")
    return c


def unbase64(text):
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise Refused("base64") from None


def open_note(vkey, public, note):
    """-> (size, root)"""
    name, key_id, key = vkey.split("+", 2)
    need(unbase64(key) == b"\1" + public, "key of the note")
    need(all(c >= " " or c == "\n" for c in note) and "\n\n" in note and note.endswith("\n"), "note")
    text, signatures = note.rsplit("\n\n", 1)
    lines, decided = signatures[:-1].split("\n"), False
    need(len(lines) <= 100, "signature lines")
    for line in lines:
        parts = line.split(" ")
        need(len(parts) == 3 and parts[0] == "\u2014" and parts[1] and "+" not in parts[1], "signature line")
        blob = unbase64(parts[2])
        need(len(blob) > 4, "signature line")
        if not decided and parts[1] == name and blob[:4].hex() == key_id:
            decided = True
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(blob[4:], (text + "\n").encode())
            except InvalidSignature:
                raise Refused("signature of the note") from None
    need(decided, "no signature by the log")
    origin, size, root = text.split("\n")
    need(origin == name and str(int(size)) == size, "checkpoint")
    root = unbase64(root)
    need(len(root) == 32 and (size != "0" or root == sha()), "checkpoint")
    return int(size), root


def check_inclusion(index, size, leaf, path, root):
    """RFC 9162, 2.1.3.2."""
    need(index < size, "index")
    fn, sn, r = index, size - 1, leaf
    for p in path:
        need(sn != 0, "path too long")
        if fn & 1 or fn == sn:
            r = sha(b"\1", p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = sha(b"\1", r, p)
        fn, sn = fn >> 1, sn >> 1
    need(sn == 0 and r == root, "inclusion")


def check_consistency(old, new, old_root, path, new_root):
    """RFC 9162, 2.1.4.2."""
    if old == 0:
        return need(not path and old_root == sha(), "consistency with nothing")
    if old == new:
        return need(not path and old_root == new_root, "consistency with itself")
    need(old < new and path, "consistency")
    if old & (old - 1) == 0:
        path = [old_root] + path
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        need(sn != 0, "path too long")
        if fn & 1 or fn == sn:
            fr, sr = sha(b"\1", c, fr), sha(b"\1", c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = sha(b"\1", sr, c)
        fn, sn = fn >> 1, sn >> 1
    need(sn == 0 and fr == old_root and sr == new_root, "consistency")


def flip(data, at):
    data = bytearray(data)
    data[at] ^= 1
    return bytes(data)


# ---- The vectors -----------------------------------------------------------------------------------------------------
class Vectors:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.index = json.loads(self.read("vectors.json"))
        self.master = bytes.fromhex(self.read(self.index["master_key"]).decode())
        self.ring = open_keyring(self.master, *self.keyring())
        self.public = bytes.fromhex(self.index["log_public_key"])
        self.opened = {}

    def read(self, name):
        return (self.folder / name).read_bytes()

    def keyring(self):
        of = self.index["keyring"]
        return of["provider"], of["version"], self.read(of["file"])

    def claim(self):
        of = self.index["claim"]
        return of["provider"], bytes.fromhex(of["incarnation"]), of["epoch"], self.read(of["file"])

    def head(self):
        of = self.index["head"]
        return of["provider"], bytes.fromhex(of["incarnation"]), of["counter"], self.read(of["file"])

    def block(self, label):
        return next(b for b in self.index["blocks"] if b["label"] == label)

    def place(self, block, shard):
        place = {"kind": block["kind"], "incarnation": bytes.fromhex(block["incarnation"]), "counter": block["counter"]}
        return place | {"attempt": block["attempt"], "provider": self.index["providers"][shard], "deployment": self.ring["deployment"]}

    def shard(self, block, i):
        name = block["shards"][i]
        if name not in self.opened:
            self.opened[name] = open_shard(self.ring, self.public, self.place(block, i), self.read(name))
        return self.opened[name]

    def payload(self, block, subset):
        shards = {}
        # Blocks with a fourth shard need three.
        for i in [*subset, *range(3, len(block["shards"]))]:
            m, roots, index, body = self.shard(block, i)
            shards[index] = body
        return m, roots, decode_payload(m, shards)

    def log(self, subset):
        """The records and chunks of every commit and decision block in order, checked against the signed log."""
        leaves, records, chunks, commits = [], [], [], []
        for block in self.index["blocks"]:
            if block["kind"] == "commit":
                m, _, payload = self.payload(block, subset)
                commits.append((m, payload))
        for seq, (m, payload) in enumerate(sorted(commits, key=lambda c: c[0]["seq"]), 1):
            own, small = open_commit(self.ring, m, payload)
            leaves += [sha(b"\0", public) for public, _ in own]
            need(m["seq"] == seq and m["log_size"] == len(leaves) and m["log_root"] == merkle(leaves), "log")
            records, chunks = records + own, chunks + small
        return leaves, records, chunks

    def bulk(self, added, subset):
        """The stored chunks of the block that a BulkAdded record names, wherever it is among the files."""
        for block in self.index["blocks"]:
            place = bytes.fromhex(block["incarnation"]), block["counter"], block["attempt"]
            if block["kind"] == "bulk" and place == (added["incarnation"], added["counter"], added["attempt"]):
                m, roots, payload = self.payload(block, subset)
                need(sha(b"diaspore/v1/manifest-hash\0", m["raw"]) == added["manifest_hash"], "manifest of the record")
                need((m["block"], m["block_root"], roots) == (added["block"], added["block_root"], added["shard_roots"]), "bulk block")
                plains = [open_section(self.ring, m, i, section, payload) for i, section in enumerate(added["sections"])]
                for entry in added["chunks"]:
                    data = plains[entry["section"]][entry["offset"]:entry["offset"] + entry["stored_len"]]
                    need(len(data) == entry["stored_len"], "chunk place")
                    yield entry, data
                return
        raise Refused("a bulk block is missing")

    def blob(self, key, subset):
        _, records, chunks = self.log(subset)
        puts = [(public, blob_put(private)) for public, private in records if private[1] == 4]
        put = next((put for _, put in puts if put["key"] == key), None)
        need(put is not None, "no such blob")
        # The bucket says whose blob it is: its BucketCreated record lies in its tenant's section.
        tenant = next(t for t, keys in self.ring["tenants"].items() for public, private in records
                      if private[1] == 2 and private[34:50] == put["bucket"] and public[4:20] == reference(keys["reference"], t))
        for _, private in records:
            if private[1] == 6:
                chunks = chunks + list(self.bulk(bulk_added(private), subset))
        stored = {(entry["bucket"], entry["id"]): (entry, data) for entry, data in chunks}
        chunk_key = blake3(put["bucket"], key=self.ring["tenants"][tenant]["dedup"])

        def plain(refs, depth):
            out = b""
            for chunk_id, length in refs:
                entry, data = stored[put["bucket"], chunk_id]
                data = unpack(data, entry["plain_len"]) if entry["encoding"] == 1 else data
                need(entry["encoding"] <= 1 and entry["plain_len"] == len(data), "chunk length")
                need(blake3(data, key=chunk_key) == chunk_id, "chunk id")
                if depth:
                    r, below = Reader(data), []
                    while r.at < len(data):
                        below.append((r.hash(), r.u64()))
                    need(0 < len(below) <= 4096, "list")
                    data = plain(below, depth - 1)
                need(len(data) == length, "reference length")
                out += data
            return out

        need(put["depth"] <= 3, "depth")
        blob = plain(put["refs"], put["depth"])
        need(len(blob) == put["size"] and put["sha256"] in (None, sha(blob)), "blob")
        return blob

    def check_blobs(self):
        for of in self.index["blobs"]:
            for subset in itertools.combinations(range(3), 2):
                blob = self.blob(bytes.fromhex(of["key"]), subset)
                need(len(blob) == of["size"] and sha(blob).hex() == of["sha256"], f"blob from shards {subset}")
            expect_refusal("one shard of two", self.blob, bytes.fromhex(of["key"]), (1,))

    def check_log(self):
        note = self.read(self.index["checkpoint"]).decode()
        leaves, _, _ = self.log((0, 1))
        # The checkpoint and the proofs are about the log of the first incarnation.
        signed, root = open_note(self.index["vkey"], self.public, note)
        need(signed < len(leaves) and root == merkle(leaves[:signed]), "checkpoint")
        leaves = leaves[:signed]
        for bad in self.index["bad_notes"]:
            expect_refusal(bad["why"], open_note, self.index["vkey"], self.public, bad["note"])
        proofs = self.index["proofs"]
        size, root, one, two = proofs["size"], bytes.fromhex(proofs["root"]), proofs["inclusion"], proofs["consistency"]
        path = [bytes.fromhex(h) for h in one["path"]]
        leaf = bytes.fromhex(one["leaf"])
        need(leaf == leaves[one["index"]] and root == merkle(leaves) and size == len(leaves), "proven leaf")
        check_inclusion(one["index"], size, leaf, path, root)
        expect_refusal("another leaf", check_inclusion, one["index"], size, leaves[0], path, root)
        expect_refusal("a cut path", check_inclusion, one["index"], size, leaf, path[:-1], root)
        path, old = [bytes.fromhex(h) for h in two["path"]], two["old_size"]
        need(bytes.fromhex(two["old_root"]) == merkle(leaves[:old]), "older root")
        check_consistency(old, size, merkle(leaves[:old]), path, root)
        expect_refusal("another past", check_consistency, old, size, merkle(leaves[1:old + 1]), path, root)
        check_consistency(0, size, sha(), [], root)

    def check_seal(self):
        for v in self.index["seal"]:
            args = [bytes.fromhex(v["key"]), v["type"], bytes.fromhex(v["deployment"]), v["segment_log2"], bytes.fromhex(v["meaning"])]
            sealed = bytes.fromhex(v["sealed"])
            need(unseal(*args, sealed) == bytes.fromhex(v["plain"]), "sealed vector")
            for at in range(0, len(sealed), 13):
                expect_refusal(f"flipped byte {at}", unseal, *args, flip(sealed, at))

    def check_code(self):
        for v in self.index["code"]:
            k, n, data, parity = v["k"], v["n"], bytes.fromhex(v["data"]), bytes.fromhex(v["parity"])
            length = len(data) // k
            shards = [data[i * length:(i + 1) * length] for i in range(k)]
            matrix = code_matrix(k, n)
            need(b"".join(combine(row, shards) for row in matrix[k:]) == parity, f"code {k}-of-{n}")

    def check_bad(self):
        for bad in self.index["bad"]:
            file = bad["file"]
            good = {"forged.shard": "bulk-0.shard", "floor.shard": "packed-0.shard"}.get(file, file)
            block = next(b for b in self.index["blocks"] if good in b["shards"])
            place, data = self.place(block, block["shards"].index(good)), self.read(file)
            self.shard(block, block["shards"].index(good))
            change = bad.get("change", {})
            if "flip" in change:
                data = flip(data, change["flip"])
            data = data[:len(data) - change.get("cut", 0)][:change.get("keep", len(data))] + bytes(change.get("append", 0))
            for field, value in bad.get("place", {}).items():
                place[field] = bytes.fromhex(value) if field in ("incarnation", "deployment") else value
            expect_refusal(bad["why"], open_shard, self.ring, self.public, place, data)

    def check_bad_bytes(self):
        provider, version, ring = self.keyring()
        *claimed, claim = self.claim()
        open_claim(self.ring, self.public, *claimed, claim)
        *left, head = self.head()
        opened, of = open_head(self.ring, self.public, *left, head), self.index["head"]
        marks = [of[x] for x in ("covers", "acked_through", "settled_through")]
        need([opened[x] for x in ("covers", "acked", "settled")] == marks, "marks of the head")
        need(opened["checkpoint"].encode() == self.read(self.index["checkpoint"]), "checkpoint of the head")
        expect_refusal("a head as a claim", open_claim, self.ring, self.public, *claimed, head)
        expect_refusal("another provider's head", open_head, self.ring, self.public, "alpha", *left[1:], head)
        expect_refusal("another counter's head", open_head, self.ring, self.public, *left[:2], left[2] + 1, head)
        for bad in self.index["bad_bytes"]:
            why = f"{bad['what']} with flipped byte {bad['flip']}"
            match bad["what"].split():
                case ["keyring"]:
                    expect_refusal(why, open_keyring, self.master, provider, version, flip(ring, bad["flip"]))
                case ["claim"]:
                    expect_refusal(why, open_claim, self.ring, self.public, *claimed, flip(claim, bad["flip"]))
                case ["head"]:
                    expect_refusal(why, open_head, self.ring, self.public, *left, flip(head, bad["flip"]))
                case ["payload", "of", label]:
                    m, _, payload = self.payload(self.block(label), (0, 1))
                    read = open_compacted if m["kind"] == 4 else open_commit
                    expect_refusal(why, read, self.ring, m, flip(payload, bad["flip"]))
        expect_refusal("another master key", open_keyring, bytes(32), provider, version, ring)
        expect_refusal("another provider's keyring", open_keyring, self.master, "beta", version, ring)
        expect_refusal("another version of the keyring", open_keyring, self.master, provider, version + 1, ring)

    def check_bad_sections(self):
        _, records, _ = self.log((0, 1))
        added = [bulk_added(private) for _, private in records if private[1] == 6]
        for bad in self.index["bad_sections"]:
            m, _, payload = self.payload(self.block(bad["block"]), (0, 1))
            section = next(one for one in added if one["block"] == m["block"])["sections"][0]
            open_section(self.ring, m, 0, section, payload)
            change = dict(bad["change"])
            index = change.pop("index", 0)
            if "tenant" in change:
                other = sorted(t for t in self.ring["tenants"] if t != section["tenant"])[0]
                change["tenant"] = other if change["tenant"] is not None else bytes(16)
            expect_refusal(bad["why"], open_section, self.ring, m, index, section | change, payload)


    def compacted(self, ref, subset):
        """The plaintext of the block that a head or a root names, and its label."""
        for block in self.index["blocks"]:
            place = bytes.fromhex(block["incarnation"]), block["counter"], block["attempt"]
            if block["kind"] == "bulk" and place == (ref["incarnation"], ref["counter"], ref["attempt"]):
                m, _, payload = self.payload(block, subset)
                need((m["block"], m["k"], m["n"]) == (ref["block"], ref["k"], ref["n"]), "named block")
                need(sha(b"diaspore/v1/manifest-hash\0", m["raw"]) == ref["manifest_hash"], "manifest of a named block")
                return open_compacted(self.ring, m, payload)
        raise Refused("a named block is missing")

    def check_compacted(self):
        *left, sealed = self.head()
        head = open_head(self.ring, self.public, *left, sealed)
        for subset in itertools.combinations(range(3), 2):
            root = open_root(self.compacted(head["root"], subset))
            need(root["covers"] == head["covers"], "what the root covers")
            rows = []
            for part, end in zip(root["parts"], [p["first"] for p in root["parts"]][1:] + [None]):
                stored = self.compacted(part["block"], subset)
                rows += open_part(part, end, stored)
                expect_refusal("rows beyond the part's end", open_part, part, rows[-1][:2], stored)
                expect_refusal("a part with another count", open_part, part | {"rows": 0}, end, stored)
            leaves = [(key, value) for table, key, value in rows if table == 10]
            need([key for key, _ in leaves] == [struct.pack(">Q", i) for i in range(root["log_size"])], "leaves of the compacted log")
            need(merkle([sha(b"\0", value) for _, value in leaves]) == root["log_root"], "log of the compacted log")
            need(open_note(self.index["vkey"], self.public, head["checkpoint"]) == (root["log_size"], root["log_root"]), "signed log")
            need(len(rows) == self.index["head"]["rows"], "rows of the compacted log")

    def check_frames(self):
        good = self.read("compressed.chunk")
        length = len(unpack(good, 99000))
        for bad in self.index["bad_frames"]:
            change, data = bad["change"], good
            for at, value in change.get("put", []):
                data = data[:at] + struct.pack(">I", value) + data[at + 4:]
            data = data[:len(data) - change.get("cut", 0)][:change.get("keep", len(data))] + bytes(change.get("append", 0))
            expect_refusal(bad["why"], unpack, data, change.get("plain_len", length))

    def check_geometry(self):
        """k steps down to its floor."""
        shapes = [[self.shard(self.block(label), 0)[0][x] for x in ("k", "n", "k_floor")] for label in ("turn", "later", "broad")]
        need(shapes == [[3, 4, 2], [2, 3, 2], [2, 32, 2]], "geometries")


def expect_refusal(why, function, *args):
    try:
        function(*args)
    except Refused:
        return
    sys.exit(f"FAILED: accepted what must be refused: {why}")


def check_all(folder):
    need(blake3(b"").hex().startswith("af1349b9f5f9a1a6a0404dea36dcc949"), "BLAKE3 self-test")
    v = Vectors(folder)
    v.check_blobs()
    v.check_log()
    v.check_seal()
    v.check_code()
    v.check_bad()
    v.check_bad_bytes()
    v.check_bad_sections()
    v.check_compacted()
    v.check_frames()
    v.check_geometry()
    bad = sum(len(v.index[kind]) for kind in v.index if kind.startswith("bad"))
    print(f"ok: {len(v.index['blobs'])} blobs from every 2 of 3 shards, the log with its proofs, its compacted form, {len(v.index['seal'])} seals, "
          f"{len(v.index['code'])} codes, {bad} bad vectors refused")


def main(arguments):
    match arguments:
        case ["--all", folder]:
            check_all(folder)
        case ["--blob", folder, key, out]:
            pathlib.Path(out).write_bytes(Vectors(folder).blob(bytes.fromhex(key), (0, 1)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refused as refusal:
        sys.exit(f"FAILED: {refusal}")
