#!/usr/bin/env python3
"""Picks from unpacked Debian packages what the medium's lists name.

    pick-medium.py files FROM LIST TO       programs with the shared libraries that they need, and paths
    pick-medium.py modules FROM LIST TO     kernel modules with the modules that they depend on

A name that fits nothing is a fault: lists and packages have drifted apart.
"""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAM_DIRECTORIES = ("usr/bin", "usr/sbin")
LIBRARY_DIRECTORIES = ("usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib64", "usr/lib/x86_64-linux-gnu/systemd", "usr/lib/systemd")


def lines_of(path):
    for line in Path(path).read_text().splitlines():
        line = line.split("#", 1)[0].strip()
        if line:
            yield line


class Files:
    """Copies paths below `source` to `target`, following what they need."""

    def __init__(self, source, target):
        self.source = Path(source)
        self.target = Path(target)
        self.taken = set()
        self.missing = []

    def find(self, name, directories):
        for directory in directories:
            if os.path.lexists(self.source / directory / name):
                return f"{directory}/{name}"
        return None

    def inside(self, path):
        """The path with every symbolic link in its directories followed, all below `source`."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        done = []
        while parts:
            part = parts.pop(0)
            if part == "..":
                done = done[:-1]
                continue
            here = self.source.joinpath(*done, part)
            if parts and here.is_symlink():
                link = os.readlink(here)
                if link.startswith("/"):
                    done = []
                parts = [p for p in link.split("/") if p not in ("", ".")] + parts
                continue
            done.append(part)
        return "/".join(done)

    def take(self, path):
        path = self.inside(path)
        if path in self.taken:
            return
        self.taken.add(path)
        source = self.source / path
        target = self.target / path
        if not os.path.lexists(source):
            self.missing.append(path)
            return
        if source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            link = os.readlink(source)
            os.symlink(link, target)
            # Alternatives point at what no package has; then the list names what they would point at.
            self.take(link if link.startswith("/") else f"{Path(path).parent}/{link}")
        elif source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            for entry in sorted(source.iterdir()):
                self.take(f"{path}/{entry.name}")
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            # Set-user-id bits are of no use where everybody is root.
            target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
            self.take_libraries(source)

    def take_libraries(self, path):
        with open(path, "rb") as file:
            if file.read(4) != b"\x7fELF":
                return
        text = subprocess.run(["readelf", "--wide", "--dynamic", "--program-headers", path], capture_output=True, text=True, check=True).stdout
        for name in re.findall(r"\(NEEDED\).*\[(.+)\]", text):
            library = self.find(name, LIBRARY_DIRECTORIES)
            if library is None:
                self.missing.append(f"{name}, which {path.name} needs")
            else:
                self.take(library)
        for loader in re.findall(r"interpreter: (.+)\]", text):
            self.take(loader)

    def take_list(self, path):
        for entry in lines_of(path):
            if entry.startswith("/"):
                if not re.search(r"[*?\[]", entry):
                    self.take(entry)
                    continue
                found = sorted(self.source.glob(entry[1:]))
                if not found:
                    self.missing.append(entry)
                for each in found:
                    self.take(str(each.relative_to(self.source)))
            else:
                program = self.find(entry, PROGRAM_DIRECTORIES)
                if program is None:
                    self.missing.append(entry)
                else:
                    self.take(program)


def pick_files(source, listed, target):
    files = Files(source, target)
    files.take_list(listed)
    return files.missing


def pick_modules(source, listed, target):
    """`source` and `target` are lib/modules/VERSION."""
    source, target = Path(source), Path(target)
    rules = []
    for line in lines_of(listed):
        sign, pattern = line.split()
        rules.append([sign == "+", "kernel/" + pattern, False])

    needs = {}
    for line in (source / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()

    def wanted(path):
        for rule in rules:
            take, pattern, _ = rule
            if fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, pattern + "/*"):
                rule[2] = True
                return take
        return False

    picked = set()
    for path in needs:
        if wanted(path):
            picked.add(path)
            picked.update(needs[path])
    for path in sorted(picked):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, target / path)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copyfile(source / name, target / name)
    # What is built into the kernel has no file here, and a line that takes it is still right.
    builtin = (source / "modules.builtin").read_text().splitlines()
    return [
        pattern
        for _, pattern, used in rules
        if not used and not any(fnmatch.fnmatchcase(path, pattern) or path.startswith(pattern + "/") for path in builtin)
    ]


def main():
    if len(sys.argv) != 5 or sys.argv[1] not in ("files", "modules"):
        sys.exit(__doc__)
    pick = pick_files if sys.argv[1] == "files" else pick_modules
    missing = pick(*sys.argv[2:])
    for what in missing:
        print(f"{sys.argv[3]}: nothing is called {what}", file=sys.stderr)
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
