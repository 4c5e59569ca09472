#!/usr/bin/env python3
"""Checks what the crates depend on: licences, origins, and the walls between the crates.

Reads `cargo metadata --format-version 1 --locked` from standard input. Prints one line per fault; exits 1 if there is any.
"""

import json
import re
import sys

# Licences under which a dependency may end up in a binary that is handed on under MIT OR Apache-2.0.
ALLOWED_LICENSES = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-1-Clause", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0",
    "CC0-1.0", "ISC", "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib",
}

# Crates of the command line, which only the crate of the command line may use directly.
FACE_ONLY = {"clap", "clap_complete", "clap_mangen", "console", "dialoguer", "indicatif", "signal-hook"}
FACE = "asl-cli"

# Which of our own crates each of ours may use, tests aside.
OWN = {
    "asl-store": set(),
    "asl-capture": {"asl-store"},
    "asl-bootstrap": {"asl-store"},
}


def license_allowed(expression):
    """Evaluates an SPDX expression: a licence is true if it is allowed, then AND and OR mean what they say."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    python = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token in ("AND", "OR"):
            python.append(token.lower())
        elif token in ("(", ")"):
            python.append(token)
        else:
            if tokens[at + 1 : at + 2] == ["WITH"]:
                token = f"{token} WITH {tokens[at + 2]}"
                at += 2
            python.append(str(token in ALLOWED_LICENSES))
        at += 1
    return eval(" ".join(python), {"__builtins__": {}})  # only True, False, and, or, ( and ) can get here


def faults(metadata):
    members = set(metadata["workspace_members"])
    for package in metadata["packages"]:
        name = package["name"]
        source = package["source"]
        if package["id"] not in members:
            if source is None or not source.startswith("registry+"):
                yield f"{name}: comes from {source or 'a path'}, not from the package registry"
            if not package["license"]:
                yield f"{name}: states no licence"
            elif not license_allowed(package["license"]):
                yield f"{name}: licence {package['license']} is not among those allowed"
            continue
        if name == FACE:
            continue
        for dependency in package["dependencies"]:
            if dependency["kind"] == "dev":
                continue
            if dependency["name"] in FACE_ONLY:
                yield f"{name}: uses {dependency['name']}, which is for {FACE} only"
            if dependency.get("path") and name in OWN and dependency["name"] not in OWN[name]:
                yield f"{name}: must not depend on {dependency['name']}"


def main():
    found = list(faults(json.load(sys.stdin)))
    for fault in found:
        print(fault, file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
