#!/usr/bin/env python3
"""Gets everything out of a store, without the programs that made it.

Written from FORMAT.md alone; names here are the names there. It reads the log
from position 0 and the blocks, trusts no index, snapshot or cache, gives out no
byte that its hash does not vouch for, and never writes to a store.
Needs Python 3.9 or newer and, from PyPI, `blake3` and `zstandard`.

    extract.py STORE list                      captures, one JSON object a line
    extract.py STORE artifacts                 keys and lengths of what was put or captured
    extract.py STORE get KEY [-o FILE]         one artifact
    extract.py STORE export CAPTURE DEST       a captured disk as an image (sparse)
    extract.py STORE verify                    every hash in the log and the blocks

Exit: 0 done, 1 failed or damage found, 2 usage.
"""
import argparse
import contextlib
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
AUTHORITY, REMOVED = range(10, 16), 17  # the former say who vouches for the store: nothing that decides what is in it
CRITICAL, CONTINUES, IMPORTED = 1, 2, 3
STATES = {1: "begun", 2: "paused", 3: "finished", 4: "abandoned"}
LEAF, INNER, CAPTURE, FAN_OUT = 1, 2, 3, 1024
FILE_MAX, STORED_MAX, PAYLOAD_MAX, CHILDREN_MAX, DEPTH_MAX = 2 << 30, 1 << 30, 16 << 20, 1 << 20, 16
CHUNKED_MAX, NODE_MAX, CHUNK_MIN, CHUNK_MAX = 1 << 56, 128 << 20, 1024, 64 << 20
WHOLE, PIECE = 64 << 20, 1 << 20  # the longest chunk list held in memory; bytes filled at once


class Damage(Exception):
    """Something is not what the format says it must be."""


class Newer(Damage):
    """Something must not be read by who does not know it."""


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


def printable(text):
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


class File:
    """A regular file of the store."""

    def __init__(self, store, name):
        self.name = name
        flags = os.O_NOFOLLOW | os.O_NONBLOCK  # no links, and no waiting for a FIFO's writer
        try:
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


class Instance:
    """One log and its blocks; see Instances in FORMAT.md."""

    def __init__(self, path, prefix=""):
        self.path, self.prefix, self.damage, self.store_id = path, prefix, [], None
        self.index = {}  # key: (block id, offset, stored_len, raw_len, flags, encoding), with TOMBSTONE if hidden
        self.blocks = {}  # block id: fields of its seal record
        self.sessions = {}  # session: (state, newest root or None)
        self.shown = {}  # key: position of the last record that names it to show it
        self.removed = {}  # instance: {key: the highest position up to which it was removed there}
        self.opened, self.position = (None, None), 0
        try:
            for number, (kind, flags, payload) in enumerate(self.records()):
                need((kind == CREATED) == (number == 0), "the log does not begin with the store's creation")
                known = kind <= SESSION or kind in AUTHORITY or kind == REMOVED
                need(flags < 4 and (known or not flags & CRITICAL), "record", number, "is of a newer format")
                self.position = number
                self.apply(kind, payload)
        except (Damage, struct.error) as error:
            if self.store_id is None:
                raise
            self.damage.append("the log cannot be read to its end: %s" % error)

    def open(self, name):
        return File(self.path, self.prefix + name)

    # The log

    def log_files(self):
        """The log files in their order, each with the fields of its header."""
        found, invalid = {}, None
        folder = os.path.join(self.path, self.prefix + "log")
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            if not (name.startswith("log-") and name.endswith(".asl")):
                continue
            file = self.open("log/" + name)
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
            continues = header[4:7] == (store_id, position, chain) and end <= file.length
            need(continues, file.name, "does not continue the log")
            while at < end:
                found = self.record(file, at, salt)
                if not found or found[7] > end:
                    behind = (self.record(file, later, salt) for later in range(at + 8, file.length, 8))
                    begun = any(other and not other[1] & CONTINUES for other in behind)
                    need(last and not begun, file.name, "is damaged at byte", at)
                    break  # a torn tail
                kind, flags, its_position, head, body, payload, its_chain, after = found
                chain = derive("asl v1 log chain", chain, head, body)
                need((its_position, its_chain) == (position, chain), file.name, "breaks the chain at byte", at)
                position, at = position + 1, after
                need(position != hinted or chain == hinted_chain, "log/current is of another log")
                yield kind, flags, payload
        need(hinted <= position, "log/current knows of", hinted, "records, there are", position)

    def hint(self):
        """The position and chain that log/current remembers, if it is valid."""
        try:
            raw = self.open("log/current").read(0, 96)
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
                entries = () if isinstance(damage, Newer) else self.frames(block)
            for offset, kind, encoding, flags, _, stored_len, raw_len, key, _ in entries:
                if kind == ARTIFACT:
                    self.show(key, (block, offset, stored_len, raw_len, flags & ~TOMBSTONE, encoding))
        elif kind == INDEX_ADD:
            count, _, records = struct.unpack("<II%ds" % max(0, len(payload) - 8), payload)
            need(len(records) == 64 * count, "an index-add record has a wrong length")
            for key, block, offset, stored_len, raw_len, flags, encoding, _, _ in INDEX_RECORD.iter_unpack(records):
                if flags & TOMBSTONE:
                    self.hide(key)
                else:
                    self.show(key, (block, offset, stored_len, raw_len, flags, encoding))
        elif kind == TOMBSTONES:
            count, _, _, keys = struct.unpack("<IIQ%ds" % max(0, len(payload) - 16), payload)
            need(len(keys) == 32 * count, "a tombstone record has a wrong length")
            for at in range(0, len(keys), 32):
                self.hide(keys[at:at + 32])
        elif kind == REMOVED:
            store, position, count, _, keys = struct.unpack("<16sQII%ds" % max(0, len(payload) - 32), payload)
            need(len(keys) == 32 * count > 0 and store != self.store_id, "a removal is not valid")
            of = self.removed.setdefault(store, {})
            for at in range(0, len(keys), 32):
                of[keys[at:at + 32]] = max(position, of.get(keys[at:at + 32], 0))
        elif kind == SESSION:
            session, state, _, root, length, _ = SESSION_PAYLOAD.unpack_from(payload)
            need(len(payload) == 64 + length, "a session record has a wrong length")
            known = self.sessions.get(session, (None, None))[1]
            self.sessions[session] = STATES.get(state, "unknown"), root if any(root) else known

    def show(self, key, entry):
        self.index[key], self.shown[key] = entry, self.position

    def hide(self, key):
        if key in self.index:
            block, offset, stored_len, raw_len, flags, encoding = self.index[key]
            self.index[key] = block, offset, stored_len, raw_len, flags | TOMBSTONE, encoding

    # Blocks

    def block(self, block):
        """The file of a block."""
        if self.opened[0] != block:
            name = "blocks/open/blk_%016x.tmp" % block
            if block in self.blocks:
                digest = self.blocks[block][1].hex()
                sealed = "blocks/sealed/%s/%s.blk" % (digest[:2], digest)
                there = [os.path.lexists(os.path.join(self.path, self.prefix + path)) for path in (sealed, name)]
                name = name if there == [False, True] else sealed
            self.opened = block, self.open(name)
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
        its_own = derive("asl v1 block digest", head, toc, tail[:40])
        need(its_own == its_digest == digest, file.name, "does not match its digest")
        valid = (magic, crc, count, its_size) == (b"ASLBLEND", crc32c(tail[:92]), frames, size)
        need(valid, file.name, "has no valid trailer")
        magic, version, _, algorithm, its_flags, *birth = BLOCK_HEADER.unpack(head)[:7]
        known = (magic, version, algorithm, its_flags) == (b"ASLBLOCK", 1, 1, 0) and flags < 2
        if not known or any(head[128:224]):
            raise Newer(file.name + " is encrypted or of a newer format")
        need(birth == [self.store_id, block] or origin == IMPORTED, file.name, "is another block")
        entries, end, total = list(TOC_ENTRY.iter_unpack(toc)), 256, 0
        for at, kind, encoding, _, _, stored_len, raw_len, _, _ in entries:
            possible = at == end and kind in (ARTIFACT, NOTE) and encoding <= CHUNKED and stored_len <= STORED_MAX
            need(possible and raw_len <= (CHUNKED_MAX if encoding == CHUNKED else STORED_MAX),
                 file.name, "has impossible contents")
            end, total = end + 104 + padded(stored_len), total + (raw_len if kind == ARTIFACT else 0)
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
                header = FRAME_HEADER.unpack(raw)
                if header[0] == b"FRM1" and salt in (None, header[9]) and header[10] == crc32c(raw[:100]):
                    salt = header[9]
                    yield (at, *header[1:9])
                    at += 96 + padded(header[5])
                at += 8
        except Damage:
            pass  # the file is missing, as was said already

    def frame(self, block, offset):
        """Header and stored bytes of a frame, checked against each other."""
        file = self.block(block)
        raw = file.read(offset, 104)
        header = FRAME_HEADER.unpack(raw)
        valid = header[0] == b"FRM1" and header[10] == crc32c(raw[:100]) and header[5] <= STORED_MAX
        need(valid, file.name, "has no valid frame at byte", offset)
        stored = file.read(offset + 104, header[5])
        need(blake3(stored).digest() == header[8], file.name, "has a damaged frame at byte", offset)
        return header, stored


class Store:
    """What all instances in a directory show together. Its blocks are pairs of an instance's number and an id."""

    def __init__(self, path):
        self.path, self.instances, self.damage = path, [Instance(path)], []
        self.store_id = self.instances[0].store_id
        folder = os.path.join(path, "instances")
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            try:
                need(len(name) == 32 and set(name) <= set("0123456789abcdef"), "it is no instance")
                logs = os.path.join(folder, name, "log")
                if not (os.path.isdir(logs) and any(file.startswith("log-") for file in os.listdir(logs))):
                    continue  # one that was begun, and no more
                other = Instance(path, "instances/%s/" % name)
                need(other.store_id.hex() == name != self.store_id.hex(), "its log is another's")
                self.instances.append(other)
            except Damage as damage:
                self.damage.append("instances/%s: %s" % (name, damage))
        self.index, self.blocks, self.sessions = {}, {}, {}
        for number, one in enumerate(self.instances):
            self.damage += [one.prefix + damage for damage in one.damage]
            self.blocks.update({(number, block): fields for block, fields in one.blocks.items()})
            for session, state in one.sessions.items():
                ended = state[0] in ("finished", "abandoned") and self.sessions.get(session, state)[0] in ("begun", "paused")
                if ended or session not in self.sessions:
                    self.sessions[session] = state
            for key, (block, *where, flags, encoding) in one.index.items():
                removed = max(other.removed.get(one.store_id, {}).get(key, 0) for other in self.instances)
                if removed > one.shown.get(key, 0):
                    flags |= TOMBSTONE
                known = self.index.get(key)
                if known and not flags & TOMBSTONE and not known[4] & TOMBSTONE:
                    self.index[key] = known[:4] + (known[4] | flags & (ROOT | NODE), known[5])
                elif not known or known[4] & TOMBSTONE and not flags & TOMBSTONE:
                    self.index[key] = ((number, block), *where, flags, encoding)

    def block(self, block):
        return self.instances[block[0]].block(block[1])

    def contents(self, block):
        return self.instances[block[0]].contents(block[1])

    def frame(self, block, offset):
        return self.instances[block[0]].frame(block[1], offset)

    # Artifacts

    def entry(self, key):
        need(key in self.index, "the store has no artifact", key.hex())
        return self.index[key]

    def visible(self, key):
        return key in self.index and not self.index[key][4] & TOMBSTONE

    def pieces(self, key, depth=0):
        """The bytes of an artifact. They are right only if this ends without Damage."""
        block, offset, stored_len, raw_len, _, encoding = self.entry(key)
        header, stored = self.frame(block, offset)
        right = header[1:3] == (ARTIFACT, encoding) and header[5:8] == (stored_len, raw_len, key)
        need(right, "artifact", key.hex(), "is not where it should be")
        yield from self.decode(header, stored, depth)

    def decode(self, header, stored, depth=0):
        encoding, raw_len, key = header[2], header[6], header[7]
        name = "artifact " + key.hex()
        if encoding == CHUNKED:
            yield from self.parts(key, stored, raw_len, depth)
            return
        if encoding == ZSTD:
            try:
                fits = zstandard.frame_content_size(stored) in (-1, raw_len) and raw_len <= STORED_MAX
                need(fits, name, "decompresses to another length")
                stored = zstandard.ZstdDecompressor().decompress(stored, max_output_size=raw_len)
            except zstandard.ZstdError:
                raise Damage(name + " does not decompress") from None
        right = encoding <= ZSTD and len(stored) == raw_len and blake3(stored).digest() == key
        need(right, name, "does not match its key")
        yield stored

    def parts(self, key, stored, raw_len, depth):
        """The bytes of a chunk list."""
        name = "artifact " + key.hex()
        count, rest = divmod(len(stored) - 8, 40)
        valid = rest == 0 and count <= CHILDREN_MAX and stored[:8] == struct.pack("<II", count, 0)
        need(valid, name, "has no valid chunk list")
        entries, hasher = list(struct.iter_unpack("<32sQ", stored[8:])), blake3()
        lengths = [length for _, length in entries]
        need(all(lengths) and sum(lengths) == raw_len, name, "has a chunk list that does not add up")
        need(depth < DEPTH_MAX, name, "is nested too deep")
        for part, length in entries:
            need(self.entry(part)[3] == length, name, "lists a part of another length")
            for piece in self.pieces(part, depth + 1):
                hasher.update(piece)
                yield piece
        need(hasher.digest() == key, name, "does not match its key")

    def verified(self, key):
        """The bytes of an artifact, none of them before all are known to be right."""
        _, _, _, raw_len, _, encoding = self.entry(key)
        if encoding == CHUNKED and raw_len > WHOLE:
            for _ in self.pieces(key):
                pass
            yield from self.pieces(key)
        else:
            yield b"".join(self.pieces(key))

    def node(self, key, kind):
        """Keys of the children and body of a tree node of this kind."""
        need(self.entry(key)[3] <= NODE_MAX, "node", key.hex(), "is impossibly long")
        raw = b"".join(self.pieces(key))
        count = struct.unpack_from("<I", raw.ljust(16), 12)[0]
        fits = count <= CHILDREN_MAX and len(raw) >= 16 + 32 * count
        need(fits and raw[:12] == b"ASLNODE1" + struct.pack("<I", kind), key.hex(), "is not a node of kind", kind)
        return [raw[at:at + 32] for at in range(16, 16 + 32 * count, 32)], raw[16 + 32 * count:]

    # Captures

    def captures(self):
        """Every capture: session, state, root, description, top of its tree; the last three None if it has no root."""
        roots = {root: session for session, (_, root) in self.sessions.items() if root}
        found = {one: (one, state, None, None, None) for one, (state, root) in self.sessions.items() if not root}
        self.damage += ["capture %s: its root is missing" % roots[key].hex() for key in roots if key not in self.index]
        for key in [key for key, entry in self.index.items() if entry[4] & (TOMBSTONE | ROOT | NODE) == ROOT | NODE]:
            try:
                session, about, top = self.capture(key)
            except (Damage, ValueError, KeyError, TypeError, RecursionError) as error:
                if key in roots:
                    self.damage.append("capture %s: %s" % (roots[key].hex(), error))
                continue
            state, newest = self.sessions.get(session, ("unrecorded", key))
            if newest in (key, None):
                found[session] = session, state, key, about, top
        return list(found.values())

    def capture(self, key):
        children, body = self.node(key, CAPTURE)
        about = json.loads(body)
        session = bytes.fromhex(about["session"])
        numbers = [about["source"]["size_bytes"]] + [about[name] for name in ("chunk_bytes", "leaf_chunks", "levels")]
        _, chunk, leaf, levels = numbers
        sound = all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)
        need(sound and about["format"] == "asl-capture-1" and len(session) == 16 and len(children) == 1
             and CHUNK_MIN <= chunk <= CHUNK_MAX and 0 < leaf <= CHILDREN_MAX and levels <= DEPTH_MAX,
             "capture", key.hex(), "has no valid description")
        return session, about, children[0]

    def choose(self, name):
        found = [one for one in self.captures() if one[2]]
        found = [one for one in found if one[3].get("label") == name or one[0].hex().startswith(name.lower())]
        need(len(found) == 1, "; ".join(["%d captures match %s" % (len(found), ascii(name))] + self.damage))
        return found[0]

    def extents(self, about, top):
        """The whole image in order: (offset, length, "zero", "data", "unreadable" or "untried", key or errno)."""
        size = about["source"]["size_bytes"]
        return self.tree(top, about["levels"], 0, size, about["chunk_bytes"], about["leaf_chunks"])

    def tree(self, key, level, start, end, chunk, leaf):
        children, body = self.node(key, INNER if level else LEAF)
        span = chunk * leaf * FAN_OUT ** (level - 1) if level else chunk
        count, at = -(-(end - start) // span), 16 if level else 8
        fits = len(children) == count == len(body) - 16 if level else count <= leaf
        need(fits and span < 1 << 64 and count <= CHILDREN_MAX, "node", key.hex(), "does not fit its place")
        head = struct.pack("<IIQ", level, 0, span) if level else struct.pack("<II", chunk, count)
        need(body[:at] == head, "node", key.hex(), "does not fit its place")
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
                        fits = tag == 2 and offset == done and size and kind < 4
                        need(fits, "node", key.hex(), "has fragments that do not fit")
                        what = ("zero", "data", "unreadable", "untried")[kind]
                        yield first + offset, size, what, children[value] if kind == 1 else value
                        at, done = at + 13, done + size
                    need(done == length, "node", key.hex(), "has fragments that do not fit")
            need(at == len(body), "node", key.hex(), "has bytes left over")
        except (struct.error, IndexError):
            raise Damage("node %s is cut short" % key.hex()) from None


@contextlib.contextmanager
def output(name):
    """A new file that gets its name only when it is complete."""
    need(not os.path.lexists(name), ascii(name), "exists already")
    with open(name + ".part", "xb") as out:
        try:
            yield out
        except BaseException:
            os.unlink(out.name)
            raise
    os.rename(out.name, name)


# The verbs


def show_list(store, args):
    for session, state, root, about, _ in store.captures():
        about = about or {"source": {}}
        row = {"capture": session.hex(), "state": state, "root": root and root.hex(),
               "size_bytes": about["source"].get("size_bytes")}
        for name in ("label", "rescued_bytes", "unreadable_bytes", "untried_bytes"):
            row[name] = about.get(name)
        print(json.dumps(row))


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
        with output(args.output) as out:
            for piece in store.pieces(args.key):
                out.write(piece)


def export(store, args):
    session, _, _, about, top = store.choose(args.capture)
    size, lists = about["source"]["size_bytes"], {"unreadable": [], "untried": [], "damaged": []}
    makers = {"image_blake3": blake3, "sha256": hashlib.sha256, "md5": hashlib.md5}
    hashers = {name: make() for name, make in makers.items() if about.get(name)}
    fill = args.fill * (PIECE // len(args.fill) + 2)  # repeats from the image's first byte on
    with output(args.dest) as out:
        out.truncate(size)
        for at, length, what, value in store.extents(about, top):
            if what == "data":
                try:
                    need(store.entry(value)[3] == length, "the chunk at byte", at, "has a wrong length")
                    out.seek(at)
                    for piece in store.verified(value):
                        out.write(piece)
                        for hasher in hashers.values():
                            hasher.update(piece)
                    continue
                except Damage as damage:
                    if not args.keep_going:
                        raise
                    store.damage.append(str(damage))
                    hashers, what = {}, "damaged"
            filled = what == "damaged" or what != "zero" and any(fill)
            for start in range(at, at + length, PIECE) if filled or hashers else ():
                count = min(PIECE, at + length - start)
                for hasher in hashers.values():
                    hasher.update(bytes(count))
                if filled:
                    out.seek(start)
                    out.write(fill[start % len(args.fill):][:count])
            if what != "zero":
                errno, ranges = [value] if what == "unreadable" else [], lists[what]
                if ranges and ranges[-1][0] + ranges[-1][1] == at and ranges[-1][2:] == errno:
                    ranges[-1][1] += length
                else:
                    ranges.append([at, length] + errno)
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

    def check_frame(block, entry, salt):
        header, stored = store.frame(block, entry[0])
        file, end = store.block(block), entry[0] + 104 + len(stored)
        right = header[1:9] == entry[1:] and header[9] == salt and not any(file.read(end, -end % 8))
        need(right and (entry[1] == ARTIFACT or not any(header[7])), file.name, "has a damaged frame at byte", entry[0])
        for _ in store.decode(header, stored) if entry[1] == ARTIFACT else ():
            pass

    def check_block(block):
        entries = store.contents(block)
        salt = frame_salt(store.block(block).read(0, 256))
        for entry in entries:
            check(check_frame, block, entry, salt)

    def check_capture(session, about, top):
        for at, length, what, value in store.extents(about, top):
            there = what != "data" or value in store.index and store.index[value][3] == length
            need(there, "capture", session.hex(), "lacks byte", at)

    for block in store.blocks:
        check(check_block, block)
    for session, _, _, about, top in captures:
        check(check_capture, session, about, top)
    if not store.damage:
        print("ok: %d blocks, %d artifacts, %d captures" % (len(store.blocks), len(store.index), len(captures)))


def hex_argument(text):
    """Bytes in hex, at least one."""
    digits = text[2:] if text.startswith("0x") else text
    return bytes.fromhex(digits or "none")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", metavar="STORE")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list").set_defaults(run=show_list)
    verbs.add_parser("artifacts").set_defaults(run=show_artifacts)
    one = verbs.add_parser("get")
    one.add_argument("key", metavar="KEY", type=hex_argument)
    one.add_argument("-o", dest="output", metavar="FILE")
    one.set_defaults(run=get)
    one = verbs.add_parser("export")
    one.add_argument("capture", metavar="CAPTURE", help="session id, unique beginning of one, or label")
    one.add_argument("dest", metavar="DEST", help="a file that does not exist yet")
    one.add_argument("--fill", metavar="0xHEX", type=hex_argument, default=b"\0", help="for what was not read; else zeros")
    one.add_argument("--keep-going", action="store_true", help="fill and list what the store has lost; else give up")
    one.set_defaults(run=export)
    verbs.add_parser("verify").set_defaults(run=verify)
    args = parser.parse_args()
    try:
        store = Store(args.store)
        code = args.run(store, args)
    except (Damage, OSError) as error:
        sys.exit("error: " + printable(error))
    for damage in store.damage:
        print("damaged: " + printable(damage), file=sys.stderr)
    return 1 if store.damage and args.verb in ("list", "artifacts", "verify") else code


if __name__ == "__main__":
    sys.exit(main())
