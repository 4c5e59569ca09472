# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is read by the scripts that source this file
# What every script here shares. Source it right after `set -euo pipefail`;
# it leaves the shell in the root of the repository.

# mke2fs, losetup and others live in sbin, which a user's PATH often lacks.
export PATH="$PATH:/usr/sbin:/sbin"

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT" || exit

SCRIPT=$(basename "$0")
ARCH=$(uname -m)

# Everything that is built lands under here; CARGO_TARGET_DIR moves it, as for cargo itself.
TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}

# The statically linked programs, in the order in which they are reported.
STATIC_BINARIES=(asl asl-capture asl-promote)

say() { printf '%s: %s\n' "$SCRIPT" "$*"; }
warn() { printf '%s: %s\n' "$SCRIPT" "$*" >&2; }
die() {
  warn "$*"
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# require PROGRAM...: stops unless they are all there.
require() {
  local program missing=()
  for program in "$@"; do
    have "$program" || missing+=("$program")
  done
  ((${#missing[@]} == 0)) || die "missing: ${missing[*]}; scripts/setup --medium installs what building and booting media needs"
}

as_root() {
  if [[ $EUID -eq 0 ]]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    die "needs root to run: $*"
  fi
}

# Runs a command silently; shows everything that it printed if it fails.
quietly() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if ((status)); then
    cat "$log" >&2
  fi
  rm -f "$log"
  return "$status"
}

# Python packages go into a virtual environment in the user's cache, shared by all clones and work trees.
# Its name carries a digest of what it is to hold, so that a changed requirement makes a new one.
VENV_HOME=${ASL_VENV_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/asl-dev}

# venv_path NAME: where the environment for scripts/requirements/NAME.txt is, or will be.
venv_path() {
  local digest
  digest=$(sha256sum "$ROOT/scripts/requirements/$1.txt")
  printf '%s/%s-%s\n' "$VENV_HOME" "$1" "${digest:0:12}"
}

venv_ready() { [[ -e "$(venv_path "$1")/complete" ]]; }

# The two ways to a static binary; scripts/build-static says more about them.
static_route_rustup() { # TARGET
  have rustup && have musl-gcc && rustup target list --installed 2>/dev/null | grep -qx "$1"
}

static_route_debian() {
  # The standard library's source with its vendored crates is what tells rust-web-src from a mere compiler.
  [[ -x /usr/bin/cargo && -x /usr/bin/rustc ]] &&
    [[ -e $(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.toml ]] &&
    venv_ready static
}

# Whether this is a clone, and not what somebody unpacked from an archive of a commit.
is_clone() { [[ -e $ROOT/.git ]]; }

# source_files DIRECTORY: the names of what is in it, each ended by a NUL. In a clone only what is committed or about to be: no
# editor's leavings.
source_files() {
  if is_clone; then
    git -C "$1" ls-files -z --cached --others --exclude-standard
  else
    find "$1" \( -type f -o -type l \) -printf '%P\0' | LC_ALL=C sort -z
  fi
}

# The time that goes into whatever is built in place of now: SOURCE_DATE_EPOCH, or that of the last commit, which the files of an
# archive have, too.
set_source_date() {
  if [[ -n ${SOURCE_DATE_EPOCH-} ]]; then
    SOURCE_DATE=$SOURCE_DATE_EPOCH
  elif is_clone; then
    SOURCE_DATE=$(git log -1 --format=%ct)
  else
    SOURCE_DATE=$(stat --format %Y Cargo.lock)
  fi
  # mksquashfs refuses to be told twice.
  unset SOURCE_DATE_EPOCH
}

# make_squashfs DIRECTORY OUT [OPTION...]: the same bytes from the same files, whoever builds. Needs set_source_date.
make_squashfs() {
  quietly mksquashfs "$1" "$2" -noappend -no-progress -all-root -no-xattrs -mkfs-time "$SOURCE_DATE" -all-time "$SOURCE_DATE" \
    -comp zstd -Xcompression-level 19 -b 256K "${@:3}"
}

# on_exit COMMAND [ARGUMENT...]: runs it when the script ends, however it ends; the latest first.
EXIT_COMMANDS=()
on_exit() {
  EXIT_COMMANDS+=("$(printf '%q ' "$@")")
  trap run_exit_commands EXIT
}
run_exit_commands() {
  local i
  for ((i = ${#EXIT_COMMANDS[@]} - 1; i >= 0; i--)); do
    eval "${EXIT_COMMANDS[i]}" || true
  done
}
