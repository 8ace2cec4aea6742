#!/usr/bin/env python3
"""Golden vectors of the formats, computed from docs/design.md and the field tables alone.

Shares nothing with the Rust code: Python's standard library, and below it GF(2^8), AES-256-GCM, CRC32C, an LZ4 block,
HKDF and postcard written anew. Prints JSON; `golden/vectors.json` is its committed output:

    python3 core/tests/golden.py > core/tests/golden/vectors.json
"""
import base64
import hashlib
import hmac
import json
import struct

SHARD = 256 << 10


def stream(label, length):
    """Test bytes: SHA-256 of label and block number, block after block."""
    blocks = (hashlib.sha256(label.encode() + struct.pack("<I", n)).digest() for n in range(-(-length // 32)))
    return b"".join(blocks)[:length]


# ---- GF(2^8), polynomial 0x11d, and the code: row r is the value at r of the polynomial through the data ----

def gf_mul(a, b):
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a & 0x100:
            a ^= 0x11D
        b >>= 1
    return product


MUL = [bytes(gf_mul(a, b) for b in range(256)) for a in range(256)]
INVERSE = [0] + [MUL[a].index(1) for a in range(1, 256)]


def lagrange(needed, row):
    """Coefficients of the values at 0..needed-1 in the value at `row`."""
    factors = []
    for i in range(needed):
        factor = 1
        for j in range(needed):
            if j != i:
                factor = MUL[MUL[factor][row ^ j]][INVERSE[i ^ j]]
        factors.append(factor)
    return factors


def rows_of(extent, needed, rows):
    out = {row: b"" for row in rows}
    for start in range(0, len(extent), needed * SHARD):
        data = extent[start : start + needed * SHARD]
        shard = -(-len(data) // needed)
        data = data.ljust(shard * needed, b"\0")
        shards = [data[i * shard : (i + 1) * shard] for i in range(needed)]
        for row in rows:
            total = 0
            for factor, piece in zip(lagrange(needed, row), shards):
                total ^= int.from_bytes(piece.translate(MUL[factor]), "big")
            out[row] += total.to_bytes(shard, "big")
    return out


# ---- CRC32C (Castagnoli, reflected) ----

CRC_TABLE = []
for n in range(256):
    for _ in range(8):
        n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
    CRC_TABLE.append(n)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


# ---- AES-256-GCM (FIPS 197, SP 800-38D) ----

def xtime(a):
    return ((a << 1) ^ 0x11B) & 0xFF if a & 0x80 else a << 1


def make_sbox():
    sbox, p, q = [0] * 256, 1, 1
    while True:
        p ^= xtime(p)
        q ^= q << 1
        q ^= q << 2
        q ^= q << 4
        q &= 0xFF
        if q & 0x80:
            q ^= 0x09
        rotated = q ^ (q << 1 | q >> 7) ^ (q << 2 | q >> 6) ^ (q << 3 | q >> 5) ^ (q << 4 | q >> 4)
        sbox[p] = (rotated ^ 0x63) & 0xFF
        if p == 1:
            break
    sbox[0] = 0x63
    return sbox


SBOX = make_sbox()


def expand_key(key):
    words, rcon = [list(key[i : i + 4]) for i in range(0, 32, 4)], 1
    for i in range(8, 60):
        word = list(words[i - 1])
        if i % 8 == 0:
            word = [SBOX[b] for b in word[1:] + word[:1]]
            word[0] ^= rcon
            rcon = xtime(rcon)
        elif i % 8 == 4:
            word = [SBOX[b] for b in word]
        words.append([a ^ b for a, b in zip(words[i - 8], word)])
    return [sum(words[i : i + 4], []) for i in range(0, 60, 4)]


def aes(round_keys, block):
    state = [a ^ b for a, b in zip(block, round_keys[0])]
    for number, round_key in enumerate(round_keys[1:], 1):
        state = [SBOX[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if number < 14:
            mixed = []
            for c in range(0, 16, 4):
                col = state[c : c + 4]
                every = col[0] ^ col[1] ^ col[2] ^ col[3]
                mixed += [col[i] ^ every ^ xtime(col[i] ^ col[(i + 1) % 4]) for i in range(4)]
            state = mixed
        state = [a ^ b for a, b in zip(state, round_key)]
    return bytes(state)


def ghash(h, data):
    y = 0
    for at in range(0, len(data), 16):
        y ^= int.from_bytes(data[at : at + 16], "big")
        product, v = 0, h
        for bit in range(127, -1, -1):
            if y >> bit & 1:
                product ^= v
            v = (v >> 1) ^ (0xE1 << 120 if v & 1 else 0)
        y = product
    return y


def pad16(data):
    return data + bytes(-len(data) % 16)


def gcm_seal(key, nonce, aad, plain):
    """Ciphertext, then tag."""
    keys = expand_key(key)
    h = int.from_bytes(aes(keys, bytes(16)), "big")
    pads = b"".join(aes(keys, nonce + struct.pack(">I", n + 2)) for n in range(-(-len(plain) // 16)))
    sealed = bytes(a ^ b for a, b in zip(plain, pads))
    lengths = struct.pack(">QQ", 8 * len(aad), 8 * len(sealed))
    mac = ghash(h, pad16(aad) + pad16(sealed) + lengths)
    return sealed + (mac ^ int.from_bytes(aes(keys, nonce + b"\0\0\0\1"), "big")).to_bytes(16, "big")


def hkdf(key, salt, info):
    """HKDF-SHA256 (RFC 5869), 32 bytes."""
    pseudorandom = hmac.new(salt, key, hashlib.sha256).digest()
    return hmac.new(pseudorandom, info + b"\x01", hashlib.sha256).digest()


def self_test():
    """Published vectors: CRC32C of the digits, AES-256 of FIPS 197 C.3, GCM test case 14, HKDF test case 3."""
    assert crc32c(b"123456789") == 0xE3069283
    block = bytes(0x11 * i for i in range(16))
    assert aes(expand_key(bytes(range(32))), block).hex() == "8ea2b7ca516745bfeafc49904b496089"
    case14 = "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    assert gcm_seal(bytes(32), bytes(12), b"", bytes(16)).hex() == case14
    case3 = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert hkdf(b"\x0b" * 22, b"", b"").hex() == case3


# ---- postcard, as far as the tail's list needs it ----

def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out + bytes([n]))


def counted(data):
    return varint(len(data)) + data


# ---- the values that the Rust test uses too ----

CLUSTER = bytes(range(0x10, 0x20))
EXTENT = bytes(range(0x20, 0x30))
SEGMENT = bytes(range(0x30, 0x40))
BLOB = bytes(range(0x40, 0x50))
VERSION = bytes(range(0x50, 0x60))
UPLOAD = bytes(range(0x60, 0x70))
INSTANCE = bytes(range(0x70, 0x78))
BUCKET = bytes(range(0x78, 0x80))
HASH = bytes(range(0x80, 0xA0))
CLUSTER_KEY = stream("cluster key", 32)
RING_KEYS = [stream("ring key 1", 32), stream("ring key 2", 32)]
NONCES = [stream("nonce 1", 12), stream("nonce 2", 12)]
TAIL_NONCE = stream("tail nonce", 12)
FAMILY = bytes(range(0xA0, 0xB0))
SERIAL = bytes(range(0xB0, 0xC0))


def rows():
    cases = []
    for needed, total, length in [(4, 6, 1001), (8, 12, 2 * 8 * SHARD + 12345), (1, 2, 300), (3, 255, 10)]:
        made = rows_of(stream("extent", length), needed, range(total))
        digests = [hashlib.sha256(made[row]).hexdigest() for row in range(total)]
        whole = [made[row].hex() for row in range(total)] if length < 1000 else []
        if total == 255:
            digests, whole = [hashlib.sha256("".join(whole).encode()).hexdigest()], whole[250:]
        cases.append({"needed": needed, "rows": total, "length": length, "sha256": digests, "last_hex": whole[-6:]})
    return cases


def sealed_chunk(index, last, compressed, payload):
    key = hkdf(RING_KEYS[0], BLOB, b"diptych/1 blob aes-256-gcm")
    aad = BLOB + struct.pack("<IBB", index, last, compressed)
    return gcm_seal(key, struct.pack("<IQ", index, 0), aad, payload).hex()


def chunks():
    # 5,000 times `d` as an LZ4 block: one literal, a match of 4,994 at distance 1, five literals (the format wants
    # the last five bytes literal). The match's length less 4 is 15 and so many 255s and a rest.
    match = 5000 - 6 - 4 - 15
    block = b"\x1fd\x01\x00" + b"\xff" * (match // 255) + bytes([match % 255]) + b"\x50ddddd"
    return {
        "blob_key": hkdf(RING_KEYS[0], BLOB, b"diptych/1 blob aes-256-gcm").hex(),
        "plain": {"index": 7, "last": True, "length": 1000, "sealed": sealed_chunk(7, 1, 0, stream("chunk", 1000))},
        "empty": {"index": 0, "last": True, "length": 0, "sealed": sealed_chunk(0, 1, 0, b"")},
        "compressed": {
            "index": 2, "last": True, "length": 5000,
            "sealed": sealed_chunk(2, 1, 1, struct.pack("<I", 5000) + block),
        },
    }


def salted(data):
    return data + struct.pack("<I", crc32c(SEGMENT + data))


def fragments():
    row = stream("row", 10000)
    blocks = b"".join(struct.pack("<I", crc32c(row[at : at + 4096])) for at in range(0, len(row), 4096))
    segment_head = b"DIPTYSEG" + struct.pack("<HHI", 1, 0, 5) + CLUSTER + struct.pack("<Q", 6) + SEGMENT
    reserved = -(-(128 + len(row) + len(blocks) + 80) // 64) * 64
    head = b"DPRH" + struct.pack("<HBB", 1, 2, 1) + CLUSTER + EXTENT + INSTANCE
    head += struct.pack("<BBBBII4xQQQQQ20x", 9, 4, 3, 1, 10000, 4096, 11, 1 << 60, 12, 13, reserved)
    head = salted(head)
    trailer = blocks + struct.pack("<QQ", len(row), 40000) + HASH + struct.pack("<QQII", 12, 14, 3, 1)
    trailer += struct.pack("<I", crc32c(head + trailer)) + b"DPRE"
    tombstone = b"DPRH" + struct.pack("<HBB", 1, 4, 0) + CLUSTER + EXTENT + INSTANCE
    tombstone += struct.pack("<BBBBII4xQQQQQQQ4x", 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128, 15, 16)
    entries = EXTENT + INSTANCE + struct.pack("<QQBB6x", 4096, reserved, 9, 2)
    entries += EXTENT + INSTANCE + struct.pack("<QQBB6x", 4096 + reserved, 128, 9, 4)
    return {
        "segment_head": salted(segment_head.ljust(4092, b"\0")).hex(),
        "record_head": head.hex(),
        "trailer": trailer.hex(),
        "tombstone": salted(tombstone).hex(),
        "foot": (salted(entries + struct.pack("<IHH", 2, 1, 0)) + b"DPSF").hex(),
    }


def keyring():
    def derived(purpose):
        return hkdf(CLUSTER_KEY, CLUSTER, b"diptych/1 keyring " + purpose)

    out = b"DPKEYRNG" + struct.pack("<HBBI", 1, 1, 0, 2) + CLUSTER + struct.pack("<Q", 2) + derived(b"mark")[:8]
    for number, made_ms, nonce, key in [(1, 1000, NONCES[0], RING_KEYS[0]), (2, 2000, NONCES[1], RING_KEYS[1])]:
        aad = CLUSTER + struct.pack("<IQ", number, made_ms)
        out += struct.pack("<IIQ", number, 0, made_ms) + nonce + gcm_seal(derived(b"wrap"), nonce, aad, key)
    out += hmac.new(derived(b"authentication"), out, hashlib.sha256).digest()
    return (out + struct.pack("<I", crc32c(out))).hex()


def tail():
    lengths = struct.pack("<IIII", 0, 2, (1 << 20) + 16, 1 << 31 | 500)
    head = lengths + struct.pack("<IB3x", 2, 1)
    entry = BLOB + varint(1) + varint(0) + varint(0) + varint((1 << 20) + 516) + varint((1 << 20) + 4000) + b"\1"
    entry += BUCKET + counted(b"a/key") + VERSION + b"\1" + UPLOAD + varint(300) + b"\1" + varint((1 << 20) + 4000)
    entry += b"\1" + bytes(16) + varint(0) + varint(1) + counted(b"content-type") + counted(b"text/plain")
    key = hkdf(RING_KEYS[1], EXTENT, b"diptych/1 extent tail")
    sealed = head[len(lengths) :] + TAIL_NONCE + gcm_seal(key, TAIL_NONCE, head, b"\1" + varint(1) + entry)
    body = lengths + sealed + struct.pack("<II", len(lengths), len(sealed))
    return (body + struct.pack("<I", crc32c(body + b"DPT1")) + b"DPT1").hex()


def subkeys():
    purposes = ["extent tail", "access key secret", "token signature", "token mark", "authority key",
                "opaque token"]
    return {name: hkdf(RING_KEYS[0], b"context", b"diptych/1 " + name.encode()).hex() for name in purposes}


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def session():
    """The two tokens of a user's session, and its record."""
    now, week = 1_790_000_000_000, 7 * 86_400_000
    extra = varint(1) + counted(b"scopes") + varint(1) + counted(b"read")
    user = counted(b"jane") + b"\1" + counted(b"uid-1") + varint(2) + counted(b"readers") + counted(b"writers") + extra
    key = hkdf(RING_KEYS[1], b"", b"diptych/1 token signature")

    def token(prefix, expires):
        grant = FAMILY + b"\1" + user + varint(expires) + SERIAL
        text = prefix + base64url(struct.pack("<I", 2) + grant)
        return text + b"." + base64url(hmac.new(key, text, hashlib.sha256).digest())

    refresh = token(b"dpr1.", now + week)
    record = b"\1" + hashlib.sha256(refresh).digest() + varint(now + week) + b"\0" + b"\1" + hashlib.sha256(b"jane").digest()
    session = token(b"dps1.", now + 86_400_000)
    return {"now_ms": now, "session": session.decode(), "refresh": refresh.decode(), "record": record.hex()}


if __name__ == "__main__":
    self_test()
    vectors = {"rows": rows(), "chunks": chunks(), "fragments": fragments(), "keyring": keyring(), "tail": tail(),
               "subkeys": subkeys(), "session": session()}
    print(json.dumps(vectors, indent=1))
