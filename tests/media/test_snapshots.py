#!/usr/bin/env python3
"""A store on file systems that help below it: snapshots of a dataset, sending them elsewhere, scrubbing.

Such a snapshot is a copy of the store's files at a moment, and never one of the store's own snapshots, which say what
is in it. Needs root for loop devices and mounts; without it, or without the file system's programs, says so and does nothing.
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = [os.environ.get("ASL_TEST_BIN_DIR"), ROOT / "dist/x86_64", Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"]
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
MIB = 1 << 20


def run(*command, status=0):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env={**os.environ, "PATH": PATH})
    if done.returncode != status:
        raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def need(*programs):
    if os.geteuid() != 0:
        raise unittest.SkipTest("needs root to mount")
    for program in programs:
        if not shutil.which(program, path=PATH):
            raise unittest.SkipTest(f"there is no {program}; scripts/setup --medium installs it")


def program(name):
    for place in PLACES:
        if place and (Path(place) / name).is_file():
            return Path(place) / name
    raise unittest.SkipTest(f"there is no {name} yet; scripts/build-static makes it")


class Helped(unittest.TestCase):
    def setUp(self):
        # Not in memory: a store there is refused.
        self.work = Path(tempfile.mkdtemp(dir=os.environ.get("ASL_BUILD_TMP", "/var/tmp"), prefix="asl-snapshots."))
        self.addCleanup(shutil.rmtree, self.work)

    def asl(self, *words, name="asl", status=0):
        return run(program(name), *words, status=status)

    def disk(self, name, mib):
        image = self.work / f"{name}.img"
        image.write_bytes(random.Random(name).randbytes(mib * MIB))
        return image

    def capture(self, store, image):
        self.asl("disk", image, "--label", image.stem, "--store", store, "--quiet", name="asl-capture")

    def json(self, store, *words):
        return json.loads(self.asl(*words, "--json", "--store", store))

    def labels(self, store):
        return sorted(capture["label"] for capture in self.json(store, "captures")["captures"])

    def check_copy(self, copy, sealed, image):
        """The copy is the store as it was when its dataset was snapshotted, whole, and with nothing of what came later."""
        self.asl("store", "verify", "--store", copy)
        self.assertEqual(self.json(copy, "store", "state"), sealed)
        self.assertEqual(self.labels(copy), [image.stem])
        out = self.work / "out.img"
        self.asl("export", image.stem, out, "--store", copy)
        self.assertEqual(out.read_bytes(), image.read_bytes())
        out.unlink()

    @contextlib.contextmanager
    def mounted(self, image, at):
        at.mkdir()
        device = run("losetup", "--find", "--show", image).strip()
        try:
            run("mount", device, at)
            # What udev does where it runs: by this name a store knows which file system it is at home on.
            link = Path("/dev/disk/by-uuid") / run("blkid", "-o", "value", "-s", "UUID", device).strip()
            made = []
            until = time.monotonic() + 2
            while not link.exists() and time.monotonic() < until and Path("/run/udev/control").exists():
                time.sleep(0.1)
            if not link.exists():
                for directory in (link.parent.parent, link.parent):
                    if not directory.exists():
                        directory.mkdir()
                        made.insert(0, directory)
                link.symlink_to(device)
                made.insert(0, link)
            try:
                yield
            finally:
                for path in made:
                    with contextlib.suppress(OSError):
                        path.unlink() if path.is_symlink() else path.rmdir()
                run("umount", at)
        finally:
            run("losetup", "--detach", device)

    def test_btrfs(self):
        """Covers C7."""
        need("mkfs.btrfs", "btrfs", "losetup", "blkid")
        images = [self.work / name for name in ("here.btrfs", "there.btrfs")]
        for image in images:
            image.touch()
            os.truncate(image, 512 * MIB)
            run("mkfs.btrfs", "-q", image)
        here, there = self.work / "here", self.work / "there"
        first, second, third = self.disk("first", 8), self.disk("second", 4), self.disk("third", 4)
        with self.mounted(images[0], here), self.mounted(images[1], there):
            run("btrfs", "subvolume", "create", here / "rescue")
            store = here / "rescue/store"
            self.asl("store", "init", store)
            self.capture(store, first)
            # A finished capture has sealed its blocks: the moment for a snapshot.
            sealed, own = self.json(store, "store", "state"), self.json(store, "store", "snapshots")
            run("btrfs", "subvolume", "snapshot", "-r", here / "rescue", here / "sealed")
            self.assertEqual(self.json(store, "store", "snapshots"), own, "it is none of the store's own")
            self.capture(store, second)
            run("bash", "-o", "pipefail", "-c", f"btrfs send -q {here}/sealed | btrfs receive {there}")

            copy = there / "sealed/store"
            self.check_copy(copy, sealed, first)
            # Received read-only, and refused as such.
            self.asl("disk", third, "--store", copy, "--quiet", name="asl-capture", status=1)
            # Made writable it is a copy that goes its own way: what is written there is an instance beside the old one.
            run("btrfs", "subvolume", "snapshot", there / "sealed", there / "live")
            live = there / "live/store"
            self.capture(live, third)
            self.assertIn("written elsewhere", self.asl("store", "info", "--store", live))
            self.asl("store", "verify", "--store", live)
            # And the two meet again without a fork.
            self.asl("store", "sync", live, "--store", store)
            self.assertEqual(self.labels(store), ["first", "second", "third"])
            run("btrfs", "scrub", "start", "-B", here)

    def destroy(self, pool):
        # FUSE lets go of a mount a moment after it was told to.
        until = time.monotonic() + 20
        while subprocess.run(["zpool", "destroy", "-f", pool], capture_output=True, env={**os.environ, "PATH": PATH}).returncode != 0:
            if time.monotonic() > until:
                return
            time.sleep(0.5)

    def test_zfs(self):
        """Covers C7. With ZFS in user space, whose datasets, snapshots and streams are those of any ZFS."""
        need("zfs-fuse", "zpool", "zfs")
        if subprocess.run(["zpool", "list"], capture_output=True, env={**os.environ, "PATH": PATH}).returncode == 0:
            self.skipTest("ZFS runs on this machine, and is left alone")
        log = (self.work / "zfs.log").open("w")
        daemon = subprocess.Popen(
            ["zfs-fuse", "--no-daemon", "--no-kstat-mount", "--pidfile", self.work / "zfs.pid"],
            stdout=log, stderr=log, env={**os.environ, "PATH": PATH},
        )  # fmt: skip
        self.addCleanup(log.close)
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.terminate)
        until = time.monotonic() + 30
        while subprocess.run(["zpool", "list"], capture_output=True, env={**os.environ, "PATH": PATH}).returncode != 0:
            if daemon.poll() is not None or time.monotonic() > until:
                self.skipTest("zfs-fuse does not start here: " + (self.work / "zfs.log").read_text())
            time.sleep(0.2)
        pools = {name: f"asltest{name}{os.getpid()}" for name in ("here", "there")}
        for name, pool in pools.items():
            image = self.work / f"{name}.zfs"
            image.touch()
            os.truncate(image, 512 * MIB)
            run("zpool", "create", "-O", f"mountpoint={self.work / name}", pool, image)
            self.addCleanup(self.destroy, pool)
        first, second = self.disk("first", 8), self.disk("second", 4)
        dataset = f"{pools['here']}/rescue"
        run("zfs", "create", dataset)
        store = self.work / "here/rescue/store"
        self.asl("store", "init", store)
        self.capture(store, first)
        sealed, own = self.json(store, "store", "state"), self.json(store, "store", "snapshots")
        run("zfs", "snapshot", f"{dataset}@sealed")
        self.assertEqual(self.json(store, "store", "snapshots"), own, "it is none of the store's own")
        self.capture(store, second)
        run("bash", "-o", "pipefail", "-c", f"zfs send {dataset}@sealed | zfs receive {pools['there']}/rescue")
        copy = self.work / "there/rescue/store"
        self.check_copy(copy, sealed, first)
        # It is an older copy of a store that is written elsewhere, which is noticed, and brought up to date by a second stream.
        self.asl("store", "sync", store, "--store", copy, status=12)
        run("zfs", "snapshot", f"{dataset}@later")
        # In user space the kernel still knows the files as they were, unless they were not mounted meanwhile.
        received = f"{pools['there']}/rescue"
        run("zfs", "unmount", "-f", received)
        # It may receive all and fail to mount it again: FUSE lets go of a mount a moment after it was told to.
        later = f"zfs send -i @sealed {dataset}@later | zfs receive -F {received}"
        said = subprocess.run(["bash", "-o", "pipefail", "-c", later], capture_output=True, text=True, env={**os.environ, "PATH": PATH})
        self.assertIn("@later", run("zfs", "list", "-H", "-t", "snapshot", "-o", "name", "-r", received), said.stderr)
        until = time.monotonic() + 20
        while not (copy / "log").is_dir() and time.monotonic() < until:
            subprocess.run(["zfs", "mount", received], capture_output=True, env={**os.environ, "PATH": PATH})
            time.sleep(0.5)
        self.asl("store", "verify", "--store", copy)
        self.assertEqual(self.labels(copy), ["first", "second"])
        run("zpool", "scrub", pools["here"])
        while "in progress" in run("zpool", "status", pools["here"]):
            time.sleep(0.2)
        self.assertIn("No known data errors", run("zpool", "status", pools["here"]))


if __name__ == "__main__":
    unittest.main()
