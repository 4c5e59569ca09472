#!/usr/bin/env python3
"""Tests extract.py against stores that this file writes by itself.

The writer below takes every layout and constant from FORMAT.md's tables, so what is tested
is the page and the reader together, without the programs that normally write stores.

    python3 docs/test_extract.py
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    from blake3 import blake3
    import zstandard
except ImportError as error:
    sys.exit("FAILED: test_extract.py needs blake3 and zstandard (%s); try: pip install blake3 zstandard" % error)

HERE = pathlib.Path(__file__).resolve().parent
EXTRACT = HERE / "extract.py"
sys.path.insert(0, str(HERE))
import extract  # noqa: E402


def read_tables():
    layouts, constants, heading, columns = {}, {}, None, None
    for line in (HERE / "FORMAT.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("#"):
            named = re.search(r"`(\w+)`", line)
            heading = named and named.group(1)
        elif not line.startswith("|"):
            columns = None
        elif columns is None:
            columns = cells[:3]
        elif columns == ["offset", "length", "field"] and cells[0].isdigit():
            layouts.setdefault(heading, {})[cells[2]] = (int(cells[0]), int(cells[1]))
        elif columns == ["constant", "value", "meaning"] and "`" in cells[1]:
            text = cells[1].split("`")[1]
            constants[cells[0]] = text.strip('"') if text.startswith('"') else int(text, 0)
    return layouts, constants


LAYOUTS, CONSTANTS = read_tables()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 * (crc & 1))
    return crc ^ 0xFFFFFFFF


def pack(layout, **values):
    """A structure as the page draws it; what is not given is zero, but for the crc."""
    fields = LAYOUTS[layout]
    raw = bytearray(max(offset + length for offset, length in fields.values()))
    if "magic" in fields:
        names = {"block_header": "BLOCK", "frame_header": "FRAME", "block_trailer": "TRAILER", "log_header": "LOG",
                 "record_head": "RECORD", "node_head": "NODE", "current_hint": "CURRENT", "segment_header": "SEGMENT"}
        values.setdefault("magic", CONSTANTS[names[layout] + "_MAGIC"].encode())
    if "version" in fields:
        values.setdefault("version", CONSTANTS["FORMAT_VERSION"])
    for name, value in values.items():
        offset, length = fields[name]
        if isinstance(value, int):
            value = (value % (1 << 8 * length)).to_bytes(length, "little")
        assert len(value) == length, (layout, name)
        raw[offset:offset + length] = value
    if "crc" in fields and "crc" not in values:
        offset = fields["crc"][0]
        raw[offset:offset + 4] = crc32c(raw[:offset]).to_bytes(4, "little")
    return bytes(raw)


def field(layout, name, raw):
    offset, length = LAYOUTS[layout][name]
    return raw[offset:offset + length]


def u32(*values):
    return b"".join(value.to_bytes(4, "little") for value in values)


def u64(value):
    return value.to_bytes(8, "little")


def hash_of(data):
    return blake3(data).digest()


def derive(context, *parts):
    return blake3(b"".join(parts), derive_key_context=CONSTANTS[context]).digest()


def noise(seed, length):
    return blake3(repr(seed).encode()).digest(length)


def pad(raw):
    return raw + bytes(-len(raw) % CONSTANTS["ALIGNMENT"])


def frame(data, encoding="RAW", flags=0, parts=None, **change):
    """A frame that is not in a block yet: the fields of its header, and its stored bytes."""
    stored = data
    if encoding == "ZSTD":
        stored = zstandard.ZstdCompressor().compress(data)
    if encoding == "CHUNKED":
        stored = u32(len(parts), 0) + b"".join(pack("chunk_entry", key=hash_of(part), bytes=len(part)) for part in parts)
    fields = dict(kind=CONSTANTS["FRAME_ARTIFACT"], encoding=CONSTANTS["ENCODING_" + encoding], flags=flags, note_type=0,
                  stored_len=len(stored), raw_len=len(data), key=hash_of(data), check=hash_of(stored))
    return {**fields, **change}, stored


def note(data, note_type):
    return frame(data, kind=CONSTANTS["FRAME_NOTE"], note_type=CONSTANTS[note_type], key=bytes(32))


def root(data, encoding="RAW", **more):
    return frame(data, encoding, flags=CONSTANTS["FLAG_ROOT"], **more)


def node(kind, children, body, top=False):
    data = pack("node_head", kind=kind, children=len(children)) + b"".join(children) + body
    return frame(data, flags=CONSTANTS["FLAG_NODE"] | (CONSTANTS["FLAG_ROOT"] if top else 0))


class Writer:
    """Writes a store, in the order of the page."""

    def __init__(self, path, shards=1, created={}):
        self.path, self.store_id, self.writer = pathlib.Path(path), noise("store", 16), noise("writer", 16)
        for name in ("log", "blocks/open", "blocks/sealed"):
            (self.path / name).mkdir(parents=True)
        self.position, self.chain, self.next_id = 0, derive("CONTEXT_GENESIS", self.store_id), 1
        self.at, self.name = None, None
        self.begin_file()
        self.record("CREATED", pack("created_payload", **{**dict(key_algorithm=1, shards=shards, block_size=1 << 26, large_size=1 << 26,
                                                                 small_threshold=1 << 22, packed_max=1000, store_id=self.store_id), **created}))
        self.record("LEASE", pack("lease_payload", first_id=1, count=1000, writer=self.writer))

    # The log

    def log_path(self, name):
        first, generation = name
        return self.path / "log" / ("log-%016x%s.asl" % (first, "-%04x" % generation if generation else ""))

    def log_header(self, name, before, valid, **change):
        fields = dict(store_id=self.store_id, first_position=name[0], prev_chain=self.chain, generation=name[1], prev_valid_len=valid,
                      prev_first_position=before[0], prev_generation=before[1], nonce=noise((name, "nonce"), 16))
        return pack("log_header", **{**fields, **change})

    def begin_file(self, **change):
        """Goes on in a new log file; what follows the valid bytes of the old one is left behind."""
        before, valid, generation = self.name or (0, 0xFFFFFFFF), self.at or 0, 0
        while self.log_path((self.position, generation)).exists():
            generation += 1
        self.name = (self.position, generation)
        header = self.log_header(self.name, before, valid, **change)
        self.log_path(self.name).write_bytes(header)
        self.at, self.salt = len(header), field("log_header", "crc", header)

    def encode(self, kind, payload, critical=True, **change):
        kind = CONSTANTS["RECORD_" + kind] if isinstance(kind, str) else kind
        head = pack("record_head", **{**dict(type=kind, flags=CONSTANTS["RECORD_CRITICAL"] if critical else 0, position=self.position,
                                             payload_len=len(payload), salt=self.salt, time=1), **change})
        body = head + pad(payload)
        chain = derive("CONTEXT_CHAIN", self.chain, body)
        return body + pack("record_tail", chain=chain, crc=crc32c(body + chain)), chain

    def append_raw(self, raw):
        with open(self.log_path(self.name), "r+b") as file:
            file.seek(self.at)
            file.write(raw)

    def record(self, kind, payload, critical=True, **change):
        raw, chain = self.encode(kind, payload, critical, **change)
        self.append_raw(raw)
        self.at, self.position, self.chain = self.at + len(raw), self.position + 1, chain

    def hint(self, position=None, **change):
        fields = dict(generation=self.name[1], first_position=self.name[0], valid_len=self.at, chain=self.chain,
                      position=self.position if position is None else position)
        (self.path / "log/current").write_bytes(pack("current_hint", **{**fields, **change}))

    # Blocks

    def block(self, frames, sealed=True, seal=True, salvaged=0, session=bytes(16), header={}, trailer={}):
        block, self.next_id = self.next_id, self.next_id + 1
        head = pack("block_header", **{**{"class": 1, "key_algorithm": 1, "store_id": self.store_id, "block_id": block, "session": session,
                                          "writer": self.writer, "base_position": self.position, "small_threshold": 1 << 22}, **header})
        raw, toc, artifacts, size = head, b"", 0, 0
        salt = derive("CONTEXT_FRAME_SALT", head)[:12]
        for fields, stored in frames:
            toc += pack("toc_entry", offset=len(raw), **fields)
            raw += pad(pack("frame_header", salt=salt, **fields) + stored)
            if fields["kind"] == CONSTANTS["FRAME_ARTIFACT"]:
                artifacts, size = artifacts + 1, size + fields["raw_len"]
        length = len(raw) + len(toc) + 96
        end = {**dict(frame_count=len(frames), flags=salvaged, toc_offset=len(raw), file_len=length, artifact_bytes=size), **trailer}
        digest = derive("CONTEXT_BLOCK", head, toc, pack("block_trailer", **end)[:LAYOUTS["block_trailer"]["digest"][0]])
        raw += toc + pack("block_trailer", digest=digest, **end)
        path = self.path / ("blocks/sealed/%s/%s.blk" % (digest.hex()[:2], digest.hex()) if sealed else "blocks/open/blk_%016x.tmp" % block)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw)
        if seal:
            self.record("SEAL", pack("seal_payload", **{"block_id": block, "digest": digest, "file_len": length, "frame_count": len(frames),
                                                        "artifact_count": artifacts, "class": 1, "origin": CONSTANTS["ORIGIN_SALVAGED"] if salvaged else 0,
                                                        "session": session, "artifact_bytes": end["artifact_bytes"]}))
        return block, path

    def tombstone(self, *keys):
        block, _ = self.block([note(pack("tombstones_note", position=self.position) + b"".join(keys), "NOTE_TOMBSTONES")])
        self.record("TOMBSTONE", pack("tombstone_payload", count=len(keys), block_id=block) + b"".join(keys))

    def session(self, session, kind, key=bytes(32), body=b"{}"):
        payload = pack("session_payload", session=session, kind=CONSTANTS["SESSION_" + kind], root=key, body_len=len(body)) + body
        self.record("SESSION", payload, critical=False)

    # Captures

    def capture(self, name, chunks, size, chunk_bytes=4096, leaf_chunks=4, end="FINISHED", label=None, hashes=True, record=True):
        """`chunks` has, for each chunk: bytes, None for zeros, or a list of fragments (bytes | length, tag, errno)."""
        session, frames, image, lost = noise(name, 16), {}, bytearray(size), [0, 0]

        def add(made):
            frames.setdefault(made[0]["key"], made)
            return made[0]["key"]

        level, at = [], 0
        for first in range(0, len(chunks), leaf_chunks):
            children, body, mine = [], b"", chunks[first:first + leaf_chunks]
            for chunk in mine:
                start = at
                if chunk is None:
                    body += b"\0"
                    at = min(at + chunk_bytes, size)
                elif isinstance(chunk, bytes):
                    body += b"\1" + u32(len(children))
                    children.append(add(frame(chunk)))
                    image[at:at + len(chunk)] = chunk
                    at += len(chunk)
                else:
                    body += b"\2" + u32(len(chunk))
                    for fragment in chunk:
                        data, tag, errno = fragment if isinstance(fragment, tuple) else (fragment, 1, 0)
                        length = data if tag != 1 else len(data)
                        if tag == 1:
                            errno = len(children)
                            children.append(add(frame(data, "ZSTD")))
                            image[at:at + length] = data
                        elif tag > 1:
                            lost[tag - 2] += length
                        body += u32(at - start, length) + bytes([tag]) + u32(errno)
                        at += length
            level.append(add(node(1, children, u32(chunk_bytes, len(mine)) + body)))
        assert at == size
        levels, span = 0, chunk_bytes * leaf_chunks
        while len(level) > 1 or (levels == 0 and len(chunks) > leaf_chunks):
            levels += 1
            groups = [level[first:first + 1024] for first in range(0, len(level), 1024)]
            level = [add(node(2, group, u32(levels, 0) + u64(span) + bytes(len(group)))) for group in groups]
            span *= 1024
        about = dict(format="asl-capture-1", session=session.hex(), label=label, source=dict(path="/dev/sdz", size_bytes=size),
                     chunk_bytes=chunk_bytes, leaf_chunks=leaf_chunks, levels=levels, rescued_bytes=size - sum(lost), unreadable_bytes=lost[0],
                     untried_bytes=lost[1], image_blake3=hash_of(bytes(image)).hex() if hashes and not lost[1] else None)
        top = node(3, level, json.dumps(about).encode(), top=True)
        if record:
            self.session(session, "BEGUN")
        self.block([note(b"{}", "NOTE_SESSION"), *frames.values(), top], session=session)
        if record:
            self.session(session, end, top[0]["key"])
        return session.hex(), top[0]["key"], bytes(image)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="extract-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.folder / "store"

    def run_extract(self, *args, code=0):
        done = subprocess.run([sys.executable, str(EXTRACT), str(self.path), *map(str, args)], capture_output=True)
        self.assertEqual(done.returncode, code, done.stderr.decode())
        if code:
            self.assertNotIn(b"Traceback", done.stderr)
        self.error = done.stderr.decode()
        return done.stdout

    def refuses(self, *args, says):
        """Fails with one line that contains this."""
        output = self.run_extract(*args, code=1)
        self.assertIn(says, self.error)
        self.assertEqual(self.error.count("\n"), 1, self.error)
        return output

    def get(self, data):
        self.assertEqual(self.run_extract("get", hash_of(data).hex()), data)

    def captures(self):
        return [json.loads(line) for line in self.run_extract("list").splitlines()]

    def export(self, capture, *args, code=0):
        dest = self.folder / "image"
        result = self.run_extract("export", capture, dest, *args, code=code)
        image = dest.read_bytes()
        dest.unlink()
        return image, json.loads(result)


class Artifacts(Case):
    def test_every_encoding(self):
        raw, packed, empty = noise("raw", 5001), b"text " * 4000, b""
        parts = [noise(n, 3000 + n) for n in range(5)]
        inner, outer = b"".join(parts[:3]), b"".join(parts)
        writer = Writer(self.path)
        writer.block([root(raw), note(b"any bytes", "NOTE_MAP"), root(packed, "ZSTD"), root(empty), *(frame(part) for part in parts),
                      frame(inner, "CHUNKED", parts=parts[:3]), root(outer, "CHUNKED", parts=[inner, *parts[3:]])])
        writer.hint()
        for data in (raw, packed, empty, outer, inner, parts[4]):
            self.get(data)
        listed = dict(line.split() for line in self.run_extract("artifacts").decode().splitlines())
        self.assertEqual(listed, {hash_of(data).hex(): str(len(data)) for data in (raw, packed, empty, outer)})
        self.assertIn(b"ok: 1 blocks, 10 artifacts", self.run_extract("verify"))
        dest = self.folder / "file"
        self.run_extract("get", hash_of(outer).hex(), "-o", dest)
        self.assertEqual(dest.read_bytes(), outer)
        self.refuses("get", hash_of(outer).hex(), "-o", dest, says="exists already")
        self.refuses("get", "00" * 32, says="no artifact")
        self.run_extract("get", "key", code=2)

    def test_tombstones_hide_until_a_newer_entry(self):
        writer = Writer(self.path)
        gone, back, part = b"gone" * 50, b"back" * 50, b"part" * 50
        writer.block([root(gone), root(back), root(part), root(part + back, "CHUNKED", parts=[part, back])])
        writer.tombstone(hash_of(gone), hash_of(back), hash_of(part), noise("never seen", 32))
        writer.block([root(back)])
        self.get(back)
        self.get(part + back)  # a hidden artifact stays readable as a part of a visible one
        self.refuses("get", hash_of(gone).hex(), says="no artifact")
        self.refuses("get", hash_of(part).hex(), says="no artifact")
        self.assertEqual(len(self.run_extract("artifacts").splitlines()), 2)
        self.run_extract("verify")

    def test_index_records_in_the_log(self):
        writer = Writer(self.path)
        data = noise("chunk", 999)
        block, _ = writer.block([frame(data)])
        self.assertEqual(self.run_extract("artifacts"), b"")
        entry = dict(key=hash_of(data), block_id=block, offset=256, stored_len=999, raw_len=999)
        writer.record("INDEX_ADD", pack("index_add_payload", count=1) + pack("index_record", flags=1, **entry))
        self.assertIn(hash_of(data).hex().encode(), self.run_extract("artifacts"))
        self.get(data)
        writer.record("INDEX_ADD", pack("index_add_payload", count=1) + pack("index_record", key=hash_of(data), flags=CONSTANTS["FLAG_TOMBSTONE"]))
        self.refuses("get", hash_of(data).hex(), says="no artifact")

    def test_a_block_may_still_lie_under_open(self):
        writer = Writer(self.path)
        writer.block([root(b"named by the log")], sealed=False)
        writer.block([root(b"named by nobody")], sealed=False, seal=False)
        writer.block([root(b"salvaged")], salvaged=1)
        self.get(b"named by the log")
        self.get(b"salvaged")
        self.refuses("get", hash_of(b"named by nobody").hex(), says="no artifact")
        self.run_extract("verify")

    def test_an_imported_block_keeps_its_birth(self):
        writer = Writer(self.path)
        block, path = writer.block([root(b"from elsewhere")], header=dict(store_id=bytes(16), block_id=77), seal=False)
        seal = dict(block_id=block, digest=bytes.fromhex(path.stem), file_len=path.stat().st_size, frame_count=1, artifact_count=1, artifact_bytes=14)
        writer.record("SEAL", pack("seal_payload", origin=CONSTANTS["ORIGIN_IMPORTED"], **seal))
        self.get(b"from elsewhere")
        self.run_extract("verify")


class Log(Case):
    def test_several_files_torn_tails_and_false_starts(self):
        writer = Writer(self.path)
        writer.block([root(b"one")])
        torn, _ = writer.encode("SEAL", bytes(96))
        writer.append_raw(torn[:50])  # a torn tail
        writer.begin_file()
        writer.append_raw(b"REC1" + bytes(20))  # torn at its first record
        writer.begin_file()
        self.assertEqual(writer.name[1], 1)
        writer.block([root(b"two")])
        keep = writer.name, writer.at
        writer.begin_file()  # begun, never written to, passed over
        writer.name, writer.at = keep
        writer.begin_file()
        self.assertEqual(writer.name[1], 1)
        writer.block([root(b"three")])
        (self.path / "log" / ("log-%016x.asl" % writer.position)).write_bytes(b"ASLLO")  # its creation was torn
        writer.begin_file()
        writer.block([root(b"four")])
        raw, _ = writer.encode("SEAL", bytes(96))
        writer.append_raw(raw[:-1])
        writer.hint(position=writer.position - 1, chain=noise("old", 32))
        self.refuses("verify", says="log/current is of another log")
        writer.hint()
        for data in (b"one", b"two", b"three", b"four"):
            self.get(data)
        self.assertEqual(len(self.run_extract("artifacts").splitlines()), 4)
        self.assertIn(b"ok: 4 blocks", self.run_extract("verify"))

    def test_lost_records_are_damage(self):
        writer = Writer(self.path)
        writer.block([root(b"first")])
        keep = writer.at
        writer.block([root(b"second")])
        writer.hint()
        path = writer.log_path(writer.name)
        os.truncate(path, path.stat().st_size - 10)
        self.refuses("verify", says="log/current knows of 4 records, there are 3")
        self.get(b"first")
        raw = bytearray(path.read_bytes())
        raw[keep - 60] ^= 1
        path.write_bytes(raw)
        self.refuses("verify", says="log/current")
        (self.path / "log/current").write_bytes(b"nonsense")
        self.assertIn(b"ok: 0 blocks", self.run_extract("verify"))  # nothing tells this from a torn tail

    def test_a_bad_record_before_a_valid_one_is_damage(self):
        writer = Writer(self.path)
        writer.block([root(b"before")])
        bad = writer.at
        writer.record("SESSION", pack("session_payload", kind=1), critical=False)
        writer.block([root(b"after")])
        path = writer.log_path(writer.name)
        raw = bytearray(path.read_bytes())
        raw[bad + 40] ^= 1
        path.write_bytes(raw)
        self.refuses("list", says="is damaged at byte %d" % bad)
        self.get(b"before")
        self.refuses("get", hash_of(b"after").hex(), says="no artifact")

    def test_what_follows_in_a_torn_append_is_no_damage(self):
        writer = Writer(self.path)
        writer.block([root(b"before")])
        torn, both = writer.at, CONSTANTS["RECORD_CRITICAL"] | CONSTANTS["RECORD_CONTINUES"]
        for flags in (CONSTANTS["RECORD_CRITICAL"], both, both):
            writer.record("LEASE", pack("lease_payload", first_id=2000, count=1), flags=flags)
        path = writer.log_path(writer.name)
        raw = bytearray(path.read_bytes())
        raw[torn + 40] ^= 1
        path.write_bytes(raw)
        self.run_extract("verify")
        self.get(b"before")
        writer.record("LEASE", pack("lease_payload", first_id=3000, count=1))
        self.refuses("list", says="is damaged at byte %d" % torn)

    def test_histories_that_do_not_fit(self):
        for change, says in ((dict(prev_chain=bytes(32)), "does not continue"), (dict(store_id=bytes(16)), "does not continue"),
                             (dict(prev_valid_len=1 << 20), "cannot be read to its end"), (dict(prev_first_position=7), "missing or damaged"),
                             (dict(prev_generation=3), "missing or damaged"), (dict(first_position=9), "by its header")):
            with self.subTest(change):
                writer = Writer(self.path)
                writer.begin_file(**change)
                writer.block([root(b"data")])
                self.refuses("verify", says=says)
                shutil.rmtree(self.path)
        writer = Writer(self.path)
        keep = writer.name, writer.at, writer.position, writer.chain
        writer.begin_file()
        writer.block([root(b"one")])
        writer.name, writer.at, writer.position, writer.chain = keep
        writer.begin_file()
        writer.block([root(b"other")])
        self.refuses("verify", says="another history")
        self.get(b"other")
        first = writer.log_path((keep[2], 0))
        os.truncate(first, 129)  # whatever follows a header
        self.refuses("verify", says="another history")
        os.truncate(first, 128)
        self.run_extract("verify")
        first.write_bytes(writer.log_header((keep[2], 0), keep[0], keep[1], store_id=bytes(16)))
        self.refuses("verify", says="another history")

    def test_reserved_bytes_are_ignored(self):
        for number, created in enumerate((dict(reserved=b"\1" * 16), dict(flags=1), dict(version=2), dict(key_algorithm=2))):
            with self.subTest(created):
                writer = Writer(self.path, created=created)
                writer.begin_file(reserved=b"\1" * 4)
                writer.block([root(b"data")], header=dict(reserved=b"\1" * 28), trailer=dict(reserved=b"\1" * 20))
                if number:
                    self.refuses("list", says="newer format")
                else:
                    self.get(b"data")
                shutil.rmtree(self.path)

    def test_newer_records(self):
        writer = Writer(self.path)
        writer.block([root(b"data")])
        writer.record(30, b"whatever", critical=False)
        self.get(b"data")
        self.run_extract("verify")
        keep = writer.log_path(writer.name).read_bytes()
        for flags, payload in ((CONSTANTS["RECORD_CRITICAL"], b"whatever"), (4, b""), (0x8000, b"")):
            writer.record(30, payload, flags=flags)
            self.refuses("list", says="newer format")
            self.get(b"data")
            writer.log_path(writer.name).write_bytes(keep)
            writer.at, writer.position, writer.chain = len(keep), writer.position - 1, keep[-40:-8]

    def test_impossible_payloads(self):
        huge = (1 << 32) - 1
        for kind, payload in (("SEAL", bytes(95)), ("INDEX_ADD", pack("index_add_payload", count=huge)), ("TOMBSTONE", bytes(3)),
                              ("TOMBSTONE", pack("tombstone_payload", count=2) + bytes(32)),
                              ("INDEX_ADD", b""), ("SESSION", pack("session_payload", body_len=9)), ("CREATED", bytes(72))):
            with self.subTest(kind):
                writer = Writer(self.path)
                writer.record(kind, payload)
                self.refuses("list", says="cannot be read to its end")
                shutil.rmtree(self.path)

    def test_no_store(self):
        self.refuses("list", says="no store")
        self.path.mkdir()
        self.refuses("list", says="no store")
        (self.path / "log").mkdir()
        (self.path / "log/log-0000000000000000.asl").write_bytes(bytes(128))
        self.refuses("list", says="no store")
        (self.path / "log/log-0000000000000000.asl").write_bytes(bytes(129))
        self.refuses("list", says="no valid header")
        writer = Writer(self.folder / "newer")
        (self.path / "log/log-0000000000000000.asl").write_bytes(writer.log_header((0, 0), (0, 0xFFFFFFFF), 0, version=2))
        self.refuses("list", says="newer format")
        (self.path / "log/log-0000000000000000.asl").unlink()
        os.mkfifo(self.path / "log/log-0000000000000000.asl")
        self.refuses("list", says="not a file of a store")


class Captures(Case):
    def chunks(self):
        return [noise("c0", 4096), None, [noise("f", 512), (1024, 0, 0), (512, 2, 5), (512, 2, 5), noise("g", 1536)],
                [(4096, 2, 5)], noise("c4", 4096), [(512, 2, 61), noise("h", 3584)], noise("c0", 4096), noise("tail", 700)]

    def test_export(self):
        writer = Writer(self.path)
        session, _, image = writer.capture("a", self.chunks(), 7 * 4096 + 700, label="old laptop")
        writer.hint()
        self.run_extract("verify")
        row = self.captures()[0]
        self.assertEqual((row["capture"], row["label"], row["state"], row["size_bytes"]), (session, "old laptop", "finished", len(image)))
        self.assertEqual((row["rescued_bytes"], row["unreadable_bytes"], row["untried_bytes"]), (len(image) - 5632, 5632, 0))
        for name in (session, session[:6], "old laptop"):
            got, result = self.export(name)
            self.assertEqual(got, image)
        self.assertEqual(result["unreadable"], [[9728, 1024, 5], [12288, 4096, 5], [20480, 512, 61]])
        self.assertEqual(result["verified"], ["image_blake3"])
        got, _ = self.export(session, "--fill", "0xBAD0DA")
        for start, length, _ in result["unreadable"]:
            self.assertEqual(got[start:start + length], (b"\xba\xd0\xda" * len(image))[start:start + length])
            got = got[:start] + bytes(length) + got[start + length:]
        self.assertEqual(got, image)
        self.refuses("export", "nothing", self.folder / "x", says="0 captures match")
        self.refuses("export", session, self.path, says="exists already")
        self.run_extract("export", session, self.folder / "x", "--fill", "0x", code=2)

    def test_two_levels_and_holes(self):
        chunks = [None] * 5000
        chunks[4999] = noise("end", 100)
        chunks[1] = noise("one", 1024)
        chunks[4200] = [(1024, 3, 0)]
        writer = Writer(self.path)
        session, _, image = writer.capture("big", chunks, 4999 * 1024 + 100, chunk_bytes=1024)
        got, result = self.export(session)
        self.assertEqual((got, result["untried"], result["verified"]), (image, [[4200 * 1024, 1024]], []))
        self.run_extract("export", session, self.folder / "sparse")
        self.assertLess((self.folder / "sparse").stat().st_blocks * 512, 200_000)
        self.assertEqual((self.folder / "sparse").stat().st_size, len(image))
        self.run_extract("verify")

    def test_one_leaf(self):
        writer = Writer(self.path)
        session, _, image = writer.capture("small", [noise("s", 4096), noise("t", 1)], 4097)
        self.assertEqual(self.export(session)[0], image)

    def test_which_captures_are_listed(self):
        writer = Writer(self.path)
        paused, old, _ = writer.capture("p", [[(4096, 3, 0)]], 4096, end="PAUSED")
        again, _, image = writer.capture("p", [noise("c", 4096)], 4096)
        self.assertEqual(paused, again)
        gone, key, _ = writer.capture("gone", [noise("d", 4096)], 4096, label="gone")
        lone, _, _ = writer.capture("lone", [noise("c", 4096)], 4096, record=False)
        writer.session(noise("begun", 16), "BEGUN")
        writer.tombstone(key)
        rows = {row["capture"]: row for row in self.captures()}
        states = {name: row["state"] for name, row in rows.items()}
        self.assertEqual(states, {paused: "finished", lone: "unrecorded", noise("begun", 16).hex(): "begun"})
        self.assertEqual(self.export(paused)[0], image)
        self.refuses("export", gone, self.folder / "x", says="captures match")
        self.refuses("export", "", self.folder / "x", says="captures match")

    def test_ambiguous_names(self):
        writer = Writer(self.path)
        for name in "ab":
            writer.capture(name, [noise("c", 4096)], 4096, label="same\x1b[31m\n")
        self.refuses("export", "same\x1b[31m\n", self.folder / "x", says="2 captures match")
        self.assertNotIn(b"\x1b", self.run_extract("list"))

    def test_an_image_that_is_not_what_was_captured(self):
        writer = Writer(self.path)
        session, key, _ = writer.capture("a", [noise("c", 4096)], 4096, record=False)
        about, top = next((one[3], one[4]) for one in extract.Store(str(self.path)).captures())
        about["image_blake3"] = "00" * 32
        about["session"] = "11" * 16
        writer.block([node(3, [top], json.dumps(about).encode(), top=True)])
        self.refuses("export", "11" * 16, self.folder / "x", says="does not match the image_blake3")
        self.assertEqual(list(self.folder.glob("x*")), [])

    def test_trees_that_do_not_fit(self):
        def leaf(body, children=()):
            return node(1, list(children), body)

        key = hash_of(noise("c", 4096))
        good = u32(4096, 1) + b"\1" + u32(0)
        bad = {"cut": leaf(u32(4096, 1) + b"\1", [key]), "child": leaf(u32(4096, 1) + b"\1" + u32(1), [key]), "tag": leaf(u32(4096, 1) + b"\3" + u32(0)),
               "left over": leaf(good + b"\0", [key]), "count": leaf(u32(4096, 2) + b"\0\0"), "geometry": leaf(u32(8192, 1) + b"\0"),
               "gap": leaf(u32(4096, 1) + b"\2" + u32(1) + u32(1, 4095) + b"\0" + u32(0)), "short": leaf(u32(4096, 1) + b"\2" + u32(1) + u32(0, 4095) + b"\0" + u32(0)),
               "empty": leaf(u32(4096, 1) + b"\2" + u32(2) + u32(0, 0) + b"\0" + u32(0) + u32(0, 4096) + b"\0" + u32(0)),
               "kind": node(2, [], u32(0, 0) + u64(4096)), "no node": frame(b"ASLNODE1"), "endless": leaf(u32(4096, 1) + b"\2" + u32((1 << 32) - 1))}
        writer = Writer(self.path)
        for number, (name, top) in enumerate({"good": leaf(good, [key]), **bad}.items()):
            about = dict(format="asl-capture-1", session="%032x" % number, source=dict(size_bytes=4096), chunk_bytes=4096, leaf_chunks=4, levels=0, label=name)
            writer.block([frame(noise("c", 4096)), top, node(3, [top[0]["key"]], json.dumps(about).encode(), top=True)])
        self.assertEqual(self.export("good")[0], noise("c", 4096))
        for name in bad:
            with self.subTest(name):
                self.refuses("export", name, self.folder / "x", says="node")
        huge = dict(format="asl-capture-1", session="ee" * 16, source=dict(size_bytes=1 << 40), chunk_bytes=1 << 26, leaf_chunks=1024, levels=16)
        for about in (b"", b"[]", b"[" * 100000, b'{"source":{"size_bytes":-1}}', b'{"format":"asl-capture-1","session":7}',
                      b'{"format":"asl-capture-1","session":"%s","source":{"size_bytes":%d},"chunk_bytes":4096,"leaf_chunks":1,"levels":1}' % (b"0" * 32, 1 << 70),
                      json.dumps(dict(huge, chunk_bytes=1 << 27)).encode(), json.dumps(dict(huge, chunk_bytes=512)).encode()):
            writer.block([node(3, [key], about, top=True)])
        writer.block([node(3, [key], json.dumps(huge).encode(), top=True)])
        self.refuses("export", "ee" * 16, self.folder / "x", says="node")
        self.assertEqual(len(self.captures()), 2 + len(bad))


class Damaged(Case):
    def test_hostile_frames(self):
        part = noise("part", 100)
        deep, blocks = part, [frame(part)]
        for _ in range(17):
            blocks.append(frame(deep + b"", "CHUNKED", parts=[deep]))
        bomb = zstandard.ZstdCompressor().compress(bytes(50 << 20))
        unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(50 << 20))
        wrong = {"bomb": (frame(b"x", encoding="RAW")[0], bomb), "unsized": (frame(b"z")[0], unsized), "no zstd": (frame(b"y")[0], noise("z", 50))}
        writer = Writer(self.path)
        for name, (fields, stored) in wrong.items():
            fields.update(encoding=CONSTANTS["ENCODING_ZSTD"], stored_len=len(stored), check=hash_of(stored))
            writer.block([(fields, stored)])
            self.refuses("get", fields["key"].hex(), says="another length" if name == "bomb" else "decompress")
        lists = {"empty": u32(1, 0) + pack("chunk_entry", key=hash_of(b""), bytes=0),
                 "other length": u32(1, 0) + pack("chunk_entry", key=hash_of(part), bytes=99), "count": u32(2, 0) + bytes(40), "head": u32(0, 1),
                 "unknown": u32(1, 0) + pack("chunk_entry", key=bytes(32), bytes=100), "short": b"abc", "other bytes": u32(1, 0) + pack("chunk_entry", key=hash_of(part), bytes=100)}
        writer.block([frame(part), frame(b"")])
        for name, stored in lists.items():
            with self.subTest(name):
                fields = frame(name.encode() * 20, encoding="RAW")[0]
                fields.update(encoding=CONSTANTS["ENCODING_CHUNKED"], stored_len=len(stored), check=hash_of(stored), raw_len=100)
                writer.block([(fields, stored)])
                self.refuses("get", fields["key"].hex(), says="artifact")
        # An artifact whose list names itself: its key is that of its content, not of the list.
        fields, stored = frame(part, "CHUNKED", parts=[part])
        writer.block([(fields, stored)])
        self.refuses("get", hash_of(part).hex(), says="nested too deep")

    def test_blocks_of_another_kind(self):
        for header, trailer, says in ((dict(version=2), {}, "newer"), (dict(key_algorithm=2), {}, "newer"), (dict(encryption=b"\1" * 96), {}, "encrypted"),
                                      (dict(flags=1), {}, "newer"), ({}, dict(flags=2), "newer"), (dict(block_id=9), {}, "another block"),
                                      (dict(store_id=bytes(16)), {}, "another block"), ({}, dict(toc_offset=0), "trailer"), ({}, dict(artifact_bytes=5), "impossible"),
                                      ({}, dict(frame_count=(1 << 32) - 1), "trailer")):
            with self.subTest((header, trailer)):
                writer = Writer(self.path)
                writer.block([root(b"data")], header=header, trailer=trailer)
                self.refuses("verify", says=says)
                if says in ("newer", "encrypted"):
                    self.refuses("get", hash_of(b"data").hex(), says="no artifact")
                shutil.rmtree(self.path)

    def test_a_block_without_its_contents_is_searched(self):
        datas = [noise(n, 100 * n) for n in range(1, 5)]
        writer = Writer(self.path)
        _, path = writer.block([root(data) for data in datas])
        raw = bytearray(path.read_bytes())
        raw[-200] ^= 1  # the table of contents
        raw[260] ^= 1  # and the first frame's header
        path.write_bytes(raw)
        self.refuses("list", says="does not match its digest")
        for data in datas[1:]:
            self.get(data)
        self.refuses("get", hash_of(datas[0]).hex(), says="no artifact")
        raw[300] ^= 1  # the block's header as well: then frames tell the salt
        raw[20] ^= 1
        path.write_bytes(raw)
        self.get(datas[2])
        path.unlink()
        self.refuses("list", says="No such file")
        self.refuses("get", hash_of(datas[2]).hex(), says="no artifact")
        os.symlink("/dev/zero", path)
        self.refuses("list", says=path.name)

    def test_bytes_that_look_like_a_frame_are_none(self):
        writer = Writer(self.path)
        fields, stored = root(b"a frame on a captured disk")
        forged = pad(pack("frame_header", salt=noise("guessed", 12), **fields) + stored)
        first, last = root(b"first"), root(b"last")
        _, path = writer.block([first, frame(bytes(24) + forged), last])
        raw = bytearray(path.read_bytes())
        raw[-200] ^= 1  # the table of contents
        raw[raw.index(forged) - 30] ^= 1  # and the header of the frame that holds them
        path.write_bytes(raw)
        self.refuses("list", says="does not match its digest")
        self.get(b"first")
        self.get(b"last")
        self.refuses("get", hash_of(stored).hex(), says="no artifact")

    def test_keep_going(self):
        writer = Writer(self.path)
        lost, kept = noise("lost", 4096), noise("kept", 4096)
        session, _, image = writer.capture("a", [kept, lost, None, kept], 4 * 4096)
        path = next(path for path in self.path.glob("blocks/sealed/*/*") if lost in path.read_bytes())
        raw = path.read_bytes()
        path.write_bytes(raw.replace(lost, lost[:-1] + b"!"))
        self.refuses("export", session, self.folder / "image", says="has a damaged frame")
        self.assertEqual(list(self.folder.glob("image*")), [])
        got, result = self.export(session, "--keep-going", "--fill", "0xff", code=1)
        self.assertEqual(got, kept + b"\xff" * 4096 + bytes(4096) + kept)
        self.assertEqual(result["damaged"], [[4096, 4096]])

    def test_every_flipped_byte(self):
        """Of every file that holds truth, any byte flipped is found, and no wrong byte ever comes out."""
        writer = Writer(self.path)
        part, text = noise("part", 70), b"words " * 30
        writer.block([root(noise("raw", 61)), root(text, "ZSTD"), frame(part), root(part * 2, "CHUNKED", parts=[part, part]), note(b"note!", "NOTE_MAP")])
        writer.tombstone(hash_of(text))
        writer.begin_file()
        writer.capture("c", [noise("c", 1024), None, [(512, 2, 5), noise("f", 512)]], 3072, chunk_bytes=1024, label="cap")
        writer.record("SNAPSHOT", pack("snapshot_payload", ordinal=1, label_len=2) + b"ab")
        writer.hint()
        expected = self.everything()
        self.assertEqual(len(expected), 4)
        self.assertIn(b"ok: 3 blocks", self.run_extract("verify"))
        flipped = 0
        for path in sorted(path for path in self.path.rglob("*") if path.is_file() and path.name != "current"):
            raw = path.read_bytes()
            for at in range(0, len(raw), {".asl": 1, ".blk": 3}[path.suffix]):
                path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << at % 8)]) + raw[at + 1:])
                with self.subTest("%s byte %d" % (path.name, at)):
                    for name, got in self.everything().items():
                        # Where the log cannot be read to a tombstone, what that hid shows again; its bytes are right.
                        right = hash_of(got) == name if got and len(name) == 32 and name not in expected else got in (None, expected.get(name))
                        self.assertTrue(right, name)
                    self.assertTrue(self.damage(), "not found")
                flipped += 1
            path.write_bytes(raw)
        self.assertGreater(flipped, 2500)
        raw = (self.path / "log/current").read_bytes()
        for at in range(len(raw)):
            (self.path / "log/current").write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1:])
            self.assertEqual((self.everything(), self.damage()), (expected, []))

    def everything(self):
        """All that can be had: bytes by name, None where there was an error."""
        found = {}
        try:
            store = extract.Store(str(self.path))
        except (extract.Damage, extract.struct.error):
            return found
        for key in store.index:
            if store.visible(key) and store.index[key][4] & extract.ROOT:
                try:
                    found[key] = b"".join(store.verified(key))
                except extract.Damage:
                    found[key] = None
        for session, _, root_key, about, top in store.captures():
            image = b""
            try:
                for _, length, what, value in store.extents(about, top) if about else ():
                    image += b"".join(store.verified(value)) if what == "data" else bytes(length)
            except extract.Damage:
                image = None
            found[session] = image
        # A capture that a damaged log no longer finishes has nothing to show.
        return {name: data for name, data in found.items() if data != b""}

    def damage(self):
        try:
            store = extract.Store(str(self.path))
            store.captures()
            sys.stdout, keep = open(os.devnull, "w"), sys.stdout
            try:
                extract.verify(store, None)
            finally:
                sys.stdout.close()
                sys.stdout = keep
            return store.damage
        except extract.Damage as damage:
            return [str(damage)]


if __name__ == "__main__":
    unittest.main(warnings="ignore")
