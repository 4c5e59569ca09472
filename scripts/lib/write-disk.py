#!/usr/bin/env python3
"""Writes an image to a disk that nobody else uses, and reads it back.

    write-disk.py IMAGE DISK

The disk is opened exclusively, which the kernel refuses while it or a part of it is mounted or otherwise in use, and nobody can begin
to use it meanwhile. What is read back comes from the disk, not from memory.
"""

import fcntl
import os
import sys

STEP = 4 << 20
BLKFLSBUF = 0x1261  # linux/fs.h: write out what is cached of a block device, and forget it


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    image, disk = sys.argv[1:]
    name = os.path.basename(disk)
    try:
        device = os.open(disk, os.O_RDWR | os.O_EXCL)
    except OSError as error:
        sys.exit(f"cannot take {disk} for writing: {error.strerror}")
    with open(image, "rb") as source:
        print(f"writing {os.path.getsize(image) >> 20} MiB", flush=True)
        try:
            while piece := source.read(STEP):
                view = memoryview(piece)
                while view:
                    view = view[os.write(device, view) :]
            os.fsync(device)
            fcntl.ioctl(device, BLKFLSBUF)
        except OSError as error:
            sys.exit(f"cannot write {name}: {error.strerror}")
        print("reading it back", flush=True)
        source.seek(0)
        os.lseek(device, 0, os.SEEK_SET)
        at = 0
        while piece := source.read(STEP):
            back = b""
            while len(back) < len(piece):
                try:
                    more = os.read(device, len(piece) - len(back))
                except OSError as error:
                    sys.exit(f"cannot read {name} back: {error.strerror}; it is broken")
                if not more:
                    break
                back += more
            if back != piece:
                sys.exit(f"what {name} gives back is not what was written, from byte {at} on: it is broken")
            at += len(piece)


if __name__ == "__main__":
    main()
