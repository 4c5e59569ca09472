#!/usr/bin/env python3
"""Writes an image to a disk that nobody else uses, and reads it back.

    write-disk.py IMAGE DISK MAJOR:MINOR SEQUENCE

The disk is opened exclusively, which the kernel refuses while it or a part of it is mounted or otherwise in use, and nobody can begin
to use it meanwhile. It must have the number and, unless that is empty, the sequence number (/sys/class/block/*/diskseq) of the disk that
the caller looked at: a stick that was swapped for another disk since has the same name. What is read back comes from the disk, not from
memory.

Written first are zeros at the beginning, last is what belongs there: a disk that was written in part does not start and has no label.
"""

import fcntl
import os
import struct
import sys

STEP = 4 << 20
BLKFLSBUF = 0x1261  # linux/fs.h: write out what is cached of a block device, and forget it
BLKGETDISKSEQ = 0x80081280  # linux/fs.h: how many disks had turned up when this one did


def is_the_one(device, number, sequence):
    """Whether the opened disk is the one that the caller means."""
    opened = os.fstat(device).st_rdev
    if f"{os.major(opened)}:{os.minor(opened)}" != number:
        return False
    return not sequence or struct.unpack("=Q", fcntl.ioctl(device, BLKGETDISKSEQ, bytes(8)))[0] == int(sequence)


def put(device, data):
    view = memoryview(data)
    while view:
        view = view[os.write(device, view) :]


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__.strip())
    image, disk, number, sequence = sys.argv[1:]
    name = os.path.basename(disk)
    try:
        device = os.open(disk, os.O_RDWR | os.O_EXCL)
    except OSError as error:
        sys.exit(f"cannot take {disk} for writing: {error.strerror}")
    if not is_the_one(device, number, sequence):
        sys.exit(f"{disk} is another disk now; nothing was written")
    with open(image, "rb") as source:
        if os.lseek(device, 0, os.SEEK_END) < os.path.getsize(image):
            sys.exit(f"{name} is too small; nothing was written")
        os.lseek(device, 0, os.SEEK_SET)
        print(f"writing {os.path.getsize(image) >> 20} MiB", flush=True)
        try:
            beginning = source.read(STEP)
            put(device, bytes(len(beginning)))
            os.fsync(device)
            while piece := source.read(STEP):
                put(device, piece)
            os.fsync(device)
            os.lseek(device, 0, os.SEEK_SET)
            put(device, beginning)
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
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
