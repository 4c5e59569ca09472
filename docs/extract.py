#!/usr/bin/env python3
"""Gets everything out of a store, without the programs that made it.

Written from FORMAT.md alone; names here are the names there. It reads the log
from position 0 and the blocks, trusts no index, snapshot or cache, gives out no
byte that its hash does not vouch for, and never writes to a store.
Needs Python 3.9 or newer and, from PyPI, `blake3` and `zstandard`.

    extract.py STORE list [--json]             captures
    extract.py STORE artifacts                 keys and lengths of what was put or captured
    extract.py STORE get KEY [-o FILE]         one artifact
    extract.py STORE export CAPTURE DEST       a captured disk as an image (sparse)
    extract.py STORE verify                    every hash in the store

Exit: 0 done, 1 failed or damage found, 2 usage.
"""
import argparse
import hashlib
import json
import os
import stat
import struct
import sys

try:
    from blake3 import blake3
    import zstandard
except ImportError as error:
    sys.exit("error: %s; try: pip install blake3 zstandard" % error)

BLOCK_HEADER = struct.Struct("<8sHBBI16sQ16s16sQqQ16sIIQ96s28sI")
FRAME_HEADER = struct.Struct("<4sBBHIIQ32s32s12sI")
TOC_ENTRY = struct.Struct("<IBBHIIQ32s32s")
BLOCK_TRAILER = struct.Struct("<8sIIQQQ32s20sI")
LOG_HEADER = struct.Struct("<8sHHI16sQ32sQIIQ16sqII")
RECORD_HEAD = struct.Struct("<4sHHQIIq")
RECORD_TAIL = struct.Struct("<32sII")
CREATED_PAYLOAD = struct.Struct("<HBBIQQQII16s16s")
SEAL_PAYLOAD = struct.Struct("<Q32sQIIBB6s16sQ8s")
INDEX_RECORD = struct.Struct("<32sQIIQHBBI")
SESSION_PAYLOAD = struct.Struct("<16sB7s32sII")
CURRENT_HINT = struct.Struct("<8sHHIQQQ32sQ12sI")
ARTIFACT, NOTE, RAW, ZSTD, CHUNKED = 1, 2, 0, 1, 2
ROOT, NODE, TOMBSTONE = 1, 2, 0x8000
CREATED, LEASE, SEAL, INDEX_ADD, TOMBSTONES, SEGMENTS, SNAPSHOT, SESSION = range(1, 9)
CRITICAL, CONTINUES = 1, 2
STATES = {1: "begun", 2: "paused", 3: "finished", 4: "abandoned"}
FILE_MAX, STORED_MAX, PAYLOAD_MAX, CHILDREN_MAX, DEPTH_MAX = 2 << 30, 1 << 30, 16 << 20, 1 << 20, 16
CHUNKED_MAX, NODE_MAX, CHUNK_MIN, CHUNK_MAX = 1 << 56, 128 << 20, 1024, 64 << 20
WHOLE, PIECE = 64 << 20, 1 << 20  # the longest artifact held in memory; bytes read at once


class Damage(Exception):
    """Something is not what the format says it must be."""


def need(condition, *what):
    if not condition:
        raise Damage(" ".join(map(str, what)))


def derive(context, *parts):
    hasher = blake3(derive_key_context=context)
    for part in parts:
        hasher.update(part)
    return hasher.digest()


CRC_TABLE = list(range(256))
for _ in range(8):
    CRC_TABLE = [value >> 1 ^ (0x82F63B78 if value & 1 else 0) for value in CRC_TABLE]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def frame_salt(block_header):
    return derive("asl v1 frame salt", block_header)[:12]


def padded(length):
    return length + 7 & ~7


class File:
    """A regular file of the store."""

    def __init__(self, store, name):
        self.name = name
        try:
            flags = os.O_NOFOLLOW | os.O_NONBLOCK  # no links, and no waiting for a FIFO's writer
            self.file = open(os.path.join(store, name), "rb", opener=lambda path, mode: os.open(path, mode | flags))
        except OSError as error:
            raise Damage(name + ": " + error.strerror) from None
        status = os.fstat(self.file.fileno())
        self.length = status.st_size
        need(stat.S_ISREG(status.st_mode) and self.length <= FILE_MAX, name, "is not a file of a store")

    def read(self, at, length):
        need(at + length <= self.length, self.name, "ends too early")
        self.file.seek(at)
        data = self.file.read(length)
        need(len(data) == length, self.name, "ends too early")
        return data

    def pieces(self, at, length):
        return (self.read(start, min(PIECE, at + length - start)) for start in range(at, at + length, PIECE))


class Store:
    def __init__(self, path):
        self.path, self.damage, self.store_id = path, [], None
        self.index = {}  # key: (block id, offset, stored_len, raw_len, flags, encoding), with TOMBSTONE if hidden
        self.blocks = {}  # block id: fields of its seal record
        self.sessions = {}  # session: (state, newest root or None)
        self.segments = {}  # (shard, number): digest
        self.opened = (None, None)
        try:
            for number, (kind, flags, payload) in enumerate(self.records()):
                need((kind == CREATED) == (number == 0), "the log does not begin with the store's creation")
                need(flags < 4 and (kind <= SESSION or not flags & CRITICAL), "record", number, "is of a newer format")
                self.apply(kind, payload)
        except (Damage, struct.error) as error:
            if self.store_id is None:
                raise
            self.damage.append("the log cannot be read to its end: %s" % error)

    # The log

    def log_files(self):
        """The log files in their order, each with the fields of its header."""
        found, invalid = {}, None
        folder = os.path.join(self.path, "log")
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        for name in names:
            if not (name.startswith("log-") and name.endswith(".asl")):
                continue
            file = File(self.path, "log/" + name)
            raw = file.read(0, min(128, file.length))
            if len(raw) < 128 or raw[:8] != b"ASLLOGv1" or crc32c(raw[:124]) != LOG_HEADER.unpack(raw)[14]:
                if file.length > 128:
                    invalid = file.name + " has no valid header"
                continue
            header = LOG_HEADER.unpack(raw)
            need(header[1] == 1 and header[3] == 0, file.name, "is of a newer format")
            first, generation = header[5], header[9]
            own = "log-%016x%s.asl" % (first, "-%04x" % generation if generation else "")
            if name == own:
                found[first, generation] = file, header
            else:
                self.damage.append("%s is %s by its header" % (file.name, own))
        need(found, invalid or "there is no store at " + self.path)
        if invalid:
            self.damage.append(invalid)
        order = [found.pop(max(found))]
        while order[0][1][8] != 0xFFFFFFFF:
            before = order[0][1][7:9]
            need(before in found, "the log file before", order[0][0].name, "is missing or damaged")
            order.insert(0, found.pop(before))
        self.damage += [file.name + " is of another history" for file, header in found.values()
                        if file.length > 128 or header[4] != order[0][1][4]]
        return order

    @staticmethod
    def record(file, at, salt):
        """The record at this offset, if it is whole and valid by itself, and where it ends."""
        if at + 72 > file.length:
            return None
        head = file.read(at, 32)
        magic, kind, flags, position, length, its_salt, _ = RECORD_HEAD.unpack(head)
        end = at + 32 + padded(length) + 40
        if magic != b"REC1" or its_salt != salt or length > PAYLOAD_MAX or end > file.length:
            return None
        body, tail = file.read(at + 32, padded(length)), file.read(end - 40, 40)
        chain, crc, pad = RECORD_TAIL.unpack(tail)
        if pad or any(body[length:]) or crc32c(head + body + chain) != crc:
            return None
        return kind, flags, position, head, body, body[:length], chain, end

    def records(self):
        """Type, flags and payload of each record, up to the log's end or its first damage."""
        order, position = self.log_files(), 0
        store_id = self.store_id = order[0][1][4]
        chain = derive("asl v1 log genesis", store_id)
        hinted, hinted_chain = self.hint()
        for number, (file, header) in enumerate(order):
            last = number + 1 == len(order)
            at, end, salt = 128, file.length if last else order[number + 1][1][10], header[14]
            need(header[4:7] == (store_id, position, chain) and end <= file.length, file.name, "does not continue the log")
            while at < end:
                found = self.record(file, at, salt)
                if not found or found[7] > end:
                    behind = (self.record(file, later, salt) for later in range(at + 8, file.length, 8))
                    durable = (other for other in behind if other and not other[1] & CONTINUES)
                    need(last and not any(durable), file.name, "is damaged at byte", at)
                    break  # a torn tail
                kind, flags, its_position, head, body, payload, its_chain, after = found
                chain = derive("asl v1 log chain", chain, head, body)
                need((its_position, its_chain) == (position, chain), file.name, "breaks the chain at byte", at)
                position, at = position + 1, after
                need(position != hinted or chain == hinted_chain, "log/current is of another log")
                yield kind, flags, payload
        need(hinted <= position, "log/current knows of", hinted, "records, there are", position)

    def hint(self):
        try:
            raw = File(self.path, "log/current").read(0, 96)
        except Damage:
            return 0, None
        fields = CURRENT_HINT.unpack(raw)
        valid = fields[:2] == (b"ASLCURNT", 1) and fields[10] == crc32c(raw[:92])
        return (fields[5], fields[7]) if valid else (0, None)

    def apply(self, kind, payload):
        """Does what a record says. A payload of a wrong length raises struct.error."""
        if kind == CREATED:
            version, algorithm, _, _, _, _, _, _, flags, _, _ = CREATED_PAYLOAD.unpack(payload)
            need((version, algorithm, flags) == (1, 1, 0), "the store is of a newer format")
        elif kind == SEAL:
            fields = SEAL_PAYLOAD.unpack(payload)
            block = fields[0]
            need(block not in self.blocks, "block", block, "was sealed twice")
            self.blocks[block] = fields
            try:
                entries = self.contents(block)
            except Damage as damage:
                self.damage.append(str(damage))
                entries = self.frames(block)
            for offset, kind, encoding, flags, _, stored_len, raw_len, key, _ in entries:
                if kind == ARTIFACT:
                    self.index[key] = block, offset, stored_len, raw_len, flags & ~TOMBSTONE, encoding
        elif kind == INDEX_ADD:
            count, _, records = struct.unpack("<II%ds" % max(0, len(payload) - 8), payload)
            for key, block, offset, stored_len, raw_len, flags, encoding, _, _ in INDEX_RECORD.iter_unpack(records):
                if flags & TOMBSTONE:
                    self.hide(key)
                else:
                    self.index[key] = block, offset, stored_len, raw_len, flags, encoding
            need(len(records) == 64 * count, "an index-add record has a wrong length")
        elif kind == TOMBSTONES:
            count, _, _, keys = struct.unpack("<IIQ%ds" % max(0, len(payload) - 16), payload)
            need(len(keys) == 32 * count, "a tombstone record has a wrong length")
            for at in range(0, len(keys), 32):
                self.hide(keys[at:at + 32])
        elif kind == SEGMENTS:
            _, added, removed = struct.unpack_from("<QII", payload)
            split = 16 + 48 * added
            need(len(payload) == split + 8 * removed, "a segments record has a wrong length")
            for shard, number, _, digest in struct.iter_unpack("<IIQ32s", payload[16:split]):
                self.segments[shard, number] = digest
            for pair in struct.iter_unpack("<II", payload[split:]):
                self.segments.pop(pair, None)
        elif kind == SESSION:
            session, state, _, root, length, _ = SESSION_PAYLOAD.unpack_from(payload)
            need(len(payload) == 64 + length, "a session record has a wrong length")
            self.sessions[session] = STATES.get(state, "unknown"), root if any(root) else self.sessions.get(session, (0, None))[1]

    def hide(self, key):
        if key in self.index:
            entry = self.index[key]
            self.index[key] = entry[:4] + (entry[4] | TOMBSTONE,) + entry[5:]

    # Blocks

    def block(self, block):
        """The file of a block."""
        if self.opened[0] != block:
            name = "blocks/open/blk_%016x.tmp" % block
            if block in self.blocks:
                digest = self.blocks[block][1].hex()
                sealed = "blocks/sealed/%s/%s.blk" % (digest[:2], digest)
                there = [os.path.lexists(os.path.join(self.path, path)) for path in (sealed, name)]
                name = name if there == [False, True] else sealed
            self.opened = block, File(self.path, name)
        return self.opened[1]

    def contents(self, block):
        """The table of contents of a sealed block, checked against the digest in the log."""
        _, digest, length, frames, _, _, origin, _, _, size, _ = self.blocks[block]
        file = self.block(block)
        need(file.length == length >= 352, file.name, "has not the length that the log states")
        head, tail = file.read(0, 256), file.read(length - 96, 96)
        magic, count, flags, offset, _, its_size, its_digest, _, crc = BLOCK_TRAILER.unpack(tail)
        need(offset + 88 * count + 96 == length, file.name, "has no valid trailer")
        toc = file.read(offset, 88 * count)
        need(derive("asl v1 block digest", head, toc, tail[:40]) == its_digest == digest, file.name, "does not match its digest")
        need((magic, crc, count, its_size) == (b"ASLBLEND", crc32c(tail[:92]), frames, size), file.name, "has no valid trailer")
        header, entries, end = BLOCK_HEADER.unpack(head), list(TOC_ENTRY.iter_unpack(toc)), 256
        need(header[0] == b"ASLBLOCK" and header[1] == header[3] == 1 and flags < 2 and not header[4] and not any(header[16]),
             file.name, "is encrypted or of a newer format")
        need(header[5:7] == (self.store_id, block) or origin == 3, file.name, "is another block")
        for entry in entries:
            need(entry[0] == end and entry[1] in (ARTIFACT, NOTE) and entry[2] <= CHUNKED and entry[5] <= STORED_MAX
                 and entry[6] <= (CHUNKED_MAX if entry[2] == CHUNKED else STORED_MAX), file.name, "has impossible contents")
            end += 104 + padded(entry[5])
        total = sum(entry[6] for entry in entries if entry[1] == ARTIFACT)
        need((end, total) == (offset, size), file.name, "has impossible contents")
        return entries

    def frames(self, block):
        """Frames found without a table of contents. Whether they are right, their keys will tell."""
        try:
            file, at = self.block(block), 256
            head = file.read(0, 256)
            salt = frame_salt(head) if crc32c(head[:252]) == BLOCK_HEADER.unpack(head)[18] else None
            while at + 104 <= file.length:
                raw = file.read(at, 104)
                if raw[:4] == b"FRM1" and salt in (None, raw[88:100]) and crc32c(raw[:100]) == FRAME_HEADER.unpack(raw)[10]:
                    salt = raw[88:100]
                    yield (at,) + FRAME_HEADER.unpack(raw)[1:9]
                    at += 96 + padded(FRAME_HEADER.unpack(raw)[5])
                at += 8
        except Damage:
            pass  # the file is missing, as was said already

    # Artifacts

    def entry(self, key):
        need(key in self.index, "the store has no artifact", key.hex())
        return self.index[key]

    def visible(self, key):
        return not self.index.get(key, (0, 0, 0, 0, TOMBSTONE))[4] & TOMBSTONE

    def pieces(self, key, depth=0):
        """The bytes of an artifact. They are right only if this ends without Damage."""
        return self.decode(key, self.entry(key), depth)

    def decode(self, key, entry, depth=0):
        block, offset, stored_len, raw_len, _, encoding = entry
        file = self.block(block)
        where = "%s at byte %d (artifact %s)" % (file.name, offset, key.hex())
        raw = file.read(offset, 104)
        header = FRAME_HEADER.unpack(raw)
        need(header[:3] == (b"FRM1", ARTIFACT, encoding) and header[5:8] == (stored_len, raw_len, key)
             and header[10] == crc32c(raw[:100]) and stored_len <= STORED_MAX, where, "has no valid frame")
        check, hasher, length = blake3(), blake3(), 0
        stored = Stored(file.pieces(offset + 104, stored_len), check)
        if encoding == CHUNKED:
            need(stored_len <= 8 + 40 * CHILDREN_MAX and depth < DEPTH_MAX, where, "is nested too deep or too long")
            source = self.parts(b"".join(stored), where, depth)
        elif encoding == ZSTD:
            reader = zstandard.ZstdDecompressor().stream_reader(stored)
            source = iter(lambda: reader.read(PIECE), b"")
        else:
            need(encoding == RAW, where, "has an unknown encoding")
            source = stored
        try:
            for piece in source:
                hasher.update(piece)
                length += len(piece)
                need(length <= raw_len, where, "is longer than it should be")
                yield piece
        except zstandard.ZstdError:
            raise Damage(where + " does not decompress") from None
        for _ in stored:
            pass
        need((length, hasher.digest(), check.digest()) == (raw_len, key, header[8]), where, "does not match its hash")

    def parts(self, stored, where, depth):
        head, entries = stored[:8], stored[8:]
        need(head == struct.pack("<II", len(entries) // 40, 0) and len(entries) % 40 == 0, where, "has no valid chunk list")
        for key, length in struct.iter_unpack("<32sQ", entries):
            need(self.entry(key)[3] == length > 0, where, "lists a part of another length")
            yield from self.pieces(key, depth + 1)

    def verified(self, key):
        """The bytes of an artifact, none of them before all are known to be right."""
        if self.entry(key)[3] <= WHOLE:
            yield b"".join(self.pieces(key))
        else:
            for _ in self.pieces(key):
                pass
            yield from self.pieces(key)

    def node(self, key, kind):
        """Keys of the children and body of a tree node of this kind."""
        need(self.entry(key)[3] <= NODE_MAX, "node", key.hex(), "is impossibly long")
        raw = b"".join(self.verified(key))
        count = struct.unpack_from("<I", raw.ljust(16), 12)[0]
        need(raw[:12] == b"ASLNODE1" + struct.pack("<I", kind) and count <= CHILDREN_MAX and len(raw) >= 16 + 32 * count,
             key.hex(), "is not a node of kind", kind)
        return [raw[at:at + 32] for at in range(16, 16 + 32 * count, 32)], raw[16 + 32 * count:]

    # Captures

    def captures(self):
        """Every capture: (session, state, root, description, top of its tree), the last three None if it has none yet."""
        roots = {root: session for session, (_, root) in self.sessions.items() if root}
        found = {session: (session, state, None, None, None) for session, (state, root) in self.sessions.items() if not root}
        self.damage += ["capture %s: its root is missing" % roots[key].hex() for key in roots if key not in self.index]
        for key in [key for key, entry in self.index.items() if entry[4] & (TOMBSTONE | ROOT | NODE) == ROOT | NODE]:
            try:
                children, body = self.node(key, 3)
                about = json.loads(body)
                session = bytes.fromhex(about["session"])
                numbers = about["source"]["size_bytes"], about["chunk_bytes"], about["leaf_chunks"], about["levels"]
                need(about["format"] == "asl-capture-1" and len(session) == 16 and len(children) == 1
                     and all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
                     and CHUNK_MIN <= numbers[1] <= CHUNK_MAX and 0 < numbers[2] <= CHILDREN_MAX and numbers[3] <= DEPTH_MAX,
                     "capture", key.hex(), "has no valid description")
            except (Damage, ValueError, KeyError, TypeError, RecursionError) as error:
                if key in roots:
                    self.damage.append("capture %s: %s" % (roots[key].hex(), error))
                continue
            state, newest = self.sessions.get(session, ("unrecorded", key))
            if newest in (key, None):
                found[session] = session, state, key, about, children[0]
        return list(found.values())

    def choose(self, name):
        found = [capture for capture in self.captures() if capture[2]]
        for match in (lambda one: one[0].hex() == name, lambda one: one[3].get("label") == name,
                      lambda one: name and one[0].hex().startswith(name.lower())):
            hits = [one for one in found if match(one)]
            need(len(hits) < 2, len(hits), "captures match", ascii(name))
            if hits:
                return hits[0]
        raise Damage("; ".join(["no capture matches " + ascii(name)] + self.damage))

    def extents(self, about, top):
        """The whole image in order: (offset, length, "zero", "data", "unreadable" or "untried", key or errno)."""
        return self.tree(top, about["levels"], 0, about["source"]["size_bytes"], about["chunk_bytes"], about["leaf_chunks"])

    def tree(self, key, level, start, end, chunk, leaf):
        children, body = self.node(key, 2 if level else 1)
        span = chunk * leaf * 1024 ** (level - 1) if level else chunk
        count, at = -(-(end - start) // span), 16 if level else 8
        need(span < 1 << 64 and count <= CHILDREN_MAX, "node", key.hex(), "does not fit its place")
        head = struct.pack("<IIQ", level, 0, span) if level else struct.pack("<II", chunk, count)
        fits = len(children) == count == len(body) - 16 if level else count <= leaf
        need(fits and body[:at] == head, "node", key.hex(), "does not fit its place")
        try:
            for number, first in enumerate(range(start, end, span)):
                length, tag, at = min(span, end - first), body[at], at + 1
                if level:
                    yield from self.tree(children[number], level - 1, first, first + length, chunk, leaf)
                elif tag == 0:
                    yield first, length, "zero", 0
                elif tag == 1:
                    yield first, length, "data", children[struct.unpack_from("<I", body, at)[0]]
                    at += 4
                else:
                    fragments, at, done = struct.unpack_from("<I", body, at)[0], at + 4, 0
                    for _ in range(fragments):
                        offset, size, kind, value = struct.unpack_from("<IIBI", body, at)
                        need(tag == 2 and offset == done and size and kind < 4, "node", key.hex(), "has fragments that do not fit")
                        what = ("zero", "data", "unreadable", "untried")[kind]
                        yield first + offset, size, what, children[value] if kind == 1 else value
                        at, done = at + 13, done + size
                    need(done == length, "node", key.hex(), "has fragments that do not fit")
            need(at == len(body), "node", key.hex(), "has bytes left over")
        except (struct.error, IndexError):
            raise Damage("node %s is cut short" % key.hex()) from None


class Stored:
    """The stored bytes of a frame, hashed as they pass; also a file for the decompressor."""

    def __init__(self, pieces, hasher):
        self.pieces, self.hasher = pieces, hasher

    def __iter__(self):
        return iter(self.read, b"")

    def read(self, _=-1):
        piece = next(self.pieces, b"")
        self.hasher.update(piece)
        return piece


class Output:
    """A new file that gets its name only when it is complete."""

    def __init__(self, name):
        self.name, self.part = name, name + ".part"

    def __enter__(self):
        need(not os.path.lexists(self.name), ascii(self.name), "exists already")
        self.file = open(self.part, "xb")
        return self.file

    def __exit__(self, kind, *_):
        self.file.close()
        if kind:
            os.unlink(self.part)
        else:
            os.rename(self.part, self.name)


# The verbs


def show_list(store, args):
    rows = []
    for session, state, root, about, _ in store.captures():
        about = about or {"source": {}}
        row = {"capture": session.hex(), "label": about.get("label"), "state": state, "root": root and root.hex(),
               "size_bytes": about["source"].get("size_bytes")}
        rows.append({**row, **{name: about.get(name) for name in ("rescued_bytes", "unreadable_bytes", "untried_bytes")}})
    artifacts = sum(map(store.visible, store.index))
    if args.json:
        print(json.dumps({"captures": rows, "artifacts": artifacts, "damage": store.damage}))
        return
    for row in rows:
        print(" ".join(name + "=" + json.dumps(value) for name, value in row.items()))
    print("%d captures, %d visible artifacts" % (len(rows), artifacts))


def show_artifacts(store, args):
    for key, entry in sorted(store.index.items()):
        if store.visible(key) and entry[4] & ROOT:
            print(key.hex(), entry[3])


def get(store, args):
    need(store.visible(args.key), "the store has no artifact", args.key.hex())
    if args.output is None:
        for piece in store.verified(args.key):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    else:
        with Output(args.output) as out:
            for piece in store.pieces(args.key):
                out.write(piece)


def export(store, args):
    session, _, _, about, top = store.choose(args.capture)
    size, lists = about["source"]["size_bytes"], {"unreadable": [], "untried": [], "damaged": []}
    makers = {"image_blake3": blake3, "sha256": hashlib.sha256, "md5": hashlib.md5}
    hashers = {name: make() for name, make in makers.items() if about.get(name)}
    # The pattern repeats from the image's first byte on.
    fill = args.fill * (PIECE // len(args.fill) + 2)
    with Output(args.dest) as out:
        out.truncate(size)
        for at, length, what, value in store.extents(about, top):
            pieces = (bytes(min(PIECE, length - start)) for start in range(0, length, PIECE) if hashers)
            if what == "data":
                try:
                    need(store.entry(value)[3] == length, "the chunk at byte", at, "has a wrong length")
                    pieces = store.verified(value)
                    out.seek(at)
                    for piece in pieces:
                        out.write(piece)
                        for hasher in hashers.values():
                            hasher.update(piece)
                    continue
                except Damage as damage:
                    if not args.keep_going:
                        raise
                    store.damage.append(str(damage))
                    hashers, pieces, what, value = {}, (), "damaged", 0
            for piece in pieces:
                for hasher in hashers.values():
                    hasher.update(piece)
            if what != "zero":
                errno, ranges = [value] if what == "unreadable" else [], lists[what]
                if ranges and ranges[-1][0] + ranges[-1][1] == at and ranges[-1][2:] == errno:
                    ranges[-1][1] += length
                else:
                    ranges.append([at, length] + errno)
                if any(fill) or what == "damaged":
                    for start in range(at, at + length, PIECE):
                        out.seek(start)
                        out.write(fill[start % len(args.fill):][:min(PIECE, at + length - start)])
        for name, hasher in hashers.items():
            need(hasher.hexdigest() == about[name], "the image does not match the", name, "of the capture")
    print(json.dumps({"capture": session.hex(), "size_bytes": size, "verified": sorted(hashers), **lists}))
    return 1 if lists["damaged"] else 0


def verify(store, args):
    captures = [capture for capture in store.captures() if capture[2]]

    def check(work, *arguments):
        try:
            work(*arguments)
        except Damage as damage:
            if str(damage) not in store.damage:
                store.damage.append(str(damage))

    def check_frame(block, file, salt, entry):
        offset, kind, encoding, flags, note_type, stored_len, raw_len, key, check = entry
        header = FRAME_HEADER.pack(b"FRM1", kind, encoding, flags, note_type, stored_len, raw_len, key, check, salt, 0)[:100]
        header += struct.pack("<I", crc32c(header))
        good = file.read(offset, 104) == header and not any(file.read(offset + 104 + stored_len, -stored_len % 8))
        need(good, file.name, "has a damaged frame at byte", offset)
        if kind == ARTIFACT:
            for _ in store.decode(key, (block, offset, stored_len, raw_len, flags, encoding)):
                pass
        else:
            hasher = blake3()
            for piece in file.pieces(offset + 104, stored_len):
                hasher.update(piece)
            need(hasher.digest() == check and not any(key), file.name, "has a damaged note at byte", offset)

    def check_block(block):
        for entry in store.contents(block):
            file = store.block(block)
            check(check_frame, block, file, frame_salt(file.read(0, 256)), entry)

    def check_segment(shard, number):
        file = File(store.path, "index/shard-%03x/segment-%04d.idx" % (shard, number))
        digest = derive("asl v1 segment digest", *file.pieces(0, file.length))
        need(digest == store.segments[shard, number], file.name, "does not match its digest")

    def check_capture(session, about, top):
        for at, length, what, value in store.extents(about, top):
            need(what != "data" or store.index.get(value, (0, 0, 0, -1))[3] == length, "capture", session.hex(), "lacks byte", at)

    for block in store.blocks:
        check(check_block, block)
    for segment in store.segments:
        check(check_segment, *segment)
    for session, _, _, about, top in captures:
        check(check_capture, session, about, top)
    if not store.damage:
        print("ok: %d blocks, %d artifacts, %d index segments, %d captures" % tuple(
            map(len, (store.blocks, store.index, store.segments, captures))))


def key_argument(text):
    key = bytes.fromhex(text)
    if len(key) != 32:
        raise ValueError(text)
    return key


def fill_argument(text):
    fill = bytes.fromhex(text[2:] if text.startswith("0x") else text)
    if not 0 < len(fill) <= PIECE:
        raise ValueError(text)
    return fill


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", metavar="STORE")
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("list")
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=show_list)
    verbs.add_parser("artifacts").set_defaults(run=show_artifacts)
    one = verbs.add_parser("get")
    one.add_argument("key", metavar="KEY", type=key_argument)
    one.add_argument("-o", dest="output", metavar="FILE")
    one.set_defaults(run=get)
    one = verbs.add_parser("export")
    one.add_argument("capture", metavar="CAPTURE", help="session id, unique beginning of one, or label")
    one.add_argument("dest", metavar="DEST", help="a file that does not exist yet")
    one.add_argument("--fill", metavar="0xHEX", type=fill_argument, default=b"\0", help="for what was not read; zeros if not given")
    one.add_argument("--keep-going", action="store_true", help="fill and list what the store has lost, instead of giving up")
    one.set_defaults(run=export)
    verbs.add_parser("verify").set_defaults(run=verify)
    args = parser.parse_args()
    try:
        store = Store(args.store)
        code = args.run(store, args)
    except (Damage, OSError) as error:
        sys.exit("error: " + "".join(letter if letter.isprintable() else "?" for letter in str(error)))
    for damage in store.damage:
        print("damaged: " + "".join(letter if letter.isprintable() else "?" for letter in damage), file=sys.stderr)
    return 1 if store.damage and args.verb in ("list", "artifacts", "verify") else code


if __name__ == "__main__":
    sys.exit(main())
