#!/usr/bin/env python3
"""Compares an exported image with its source: every readable byte is equal, the unreadable list is the injected one.

    compare-image.py SOURCE EXPORTED RESULT.json BAD_SECTORS FILL_HEX

RESULT.json is what `asl-capture disk --json` printed; BAD_SECTORS has one 512-byte sector a line; FILL_HEX is the byte
that the export put where nothing could be read.
"""

import json
import sys

SECTOR = 512
STEP = 1 << 20


def merged(sectors):
    """Sorted sectors as [start, length] runs in bytes."""
    runs = []
    for sector in sorted(sectors):
        start = sector * SECTOR
        if runs and runs[-1][0] + runs[-1][1] == start:
            runs[-1][1] += SECTOR
        else:
            runs.append([start, SECTOR])
    return runs


def main():
    source_path, exported_path, result_path, bad_path, fill = sys.argv[1:]
    with open(bad_path, encoding="ascii") as lines:
        injected = merged(int(line.split()[0]) for line in lines if line.strip())
    with open(result_path, encoding="utf-8") as text:
        result = json.load(text)
    listed = [run[:2] for run in result["unreadable"]]
    if listed != injected:
        wrong = [run for run in listed if run not in injected], [run for run in injected if run not in listed]
        sys.exit(f"the unreadable list differs from the injected one: only listed {wrong[0][:5]}, only injected {wrong[1][:5]}")
    if any(run[2] != 61 for run in result["unreadable"]):
        sys.exit("an unreadable range has another errno than the device gave")
    bad = [run for run in injected]
    filler = bytes([int(fill, 16)])
    readable = 0
    with open(source_path, "rb") as source, open(exported_path, "rb") as exported:
        offset = 0
        while True:
            want = bytearray(source.read(STEP))
            have = exported.read(STEP)
            if len(want) != len(have):
                sys.exit(f"the images differ in length after byte {offset}")
            if not want:
                break
            holes = 0
            for start, length in bad:
                first, last = max(start, offset), min(start + length, offset + len(want))
                if first < last:
                    want[first - offset : last - offset] = filler * (last - first)
                    holes += last - first
            if bytes(want) != have:
                at = next(i for i, (a, b) in enumerate(zip(want, have)) if a != b)
                sys.exit(f"the images differ at byte {offset + at}")
            readable += len(want) - holes
            offset += len(want)
            bad = [run for run in bad if run[0] + run[1] > offset]
    holes = sum(length for _, length in injected)
    print(f"every readable byte is equal: {readable} bytes")
    print(f"the unreadable list is exactly the injected one: {holes} bytes in {len(injected)} places")


if __name__ == "__main__":
    main()
