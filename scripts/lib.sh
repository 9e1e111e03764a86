# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What every script here shares: places, messages, timed steps, locks.
#
# Sourced, never run. Messages go to stderr, so that a script's stdout holds
# only its answer (a path, a version).

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=$(realpath -m "${KFABRIC_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/kfabric}")
# shellcheck disable=SC2034 # used by those who source this
build=$top/build suite=trixie series=${KFABRIC_SERIES:-7.3}
export LC_ALL=C.UTF-8 KFABRIC_CACHE=$cache

# A make that calls us must not talk to the makes that we call.
unset MAKEFLAGS MAKELEVEL MFLAGS MAKEOVERRIDES

say() { printf 'kfabric: %s\n' "$*" >&2; }

# die WHAT: one clear line that says what failed, on what, and what to do.
die() {
	printf 'kfabric: error: %s\n' "$*" >&2
	exit 1
}

case $top$cache in
*[[:space:]:]*) die "a kernel can't be built where a path has a space or a colon: $top, $cache: move the checkout, or set KFABRIC_CACHE" ;;
esac
{ mkdir -p "$cache" && [ -w "$cache" ]; } 2>/dev/null ||
	die "$cache can't be made or can't be written: set KFABRIC_CACHE to a folder that can"

# step WHAT CMD...: runs CMD, and says what it does and how long it took.
step() {
	local what=$1 start=$SECONDS
	shift
	say "$what ..."
	"$@"
	say "$what: done in $((SECONDS - start)) s"
}

# lock NAME [WHAT]: holds the lock until this process and what it started end; says
# whom it waits for, and what that makes. A lock of the dead holds nobody up.
lock() {
	local file=$cache/lock/$1 pid since
	mkdir -p "$cache/lock"
	exec {held}>>"$file"
	if ! flock -n "$held"; then
		read -r pid since <"$file" || true
		# What a killed run has started may still be at it.
		kill -0 "$pid" 2>/dev/null || pid=$(find /proc/[0-9]*/fd -lname "$file" 2>/dev/null |
			cut -d / -f 3 | grep -vx "$$" | head -n 1) || true
		say "waiting for process $pid, which has been making ${2:-$1} since $since; to end it: kill $pid"
		flock "$held"
	fi
	echo "$$ $(date +%T)" >"$file"
}

# need_space DIR MIB FOR: dies unless DIR has room.
need_space() {
	local avail
	mkdir -p "$1"
	avail=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
	((avail >= $2)) ||
		die "$3 needs $2 MiB in $1, which has $avail: free some, or set KFABRIC_CACHE to a larger place"
}

need_root() {
	[ "$(id -u)" = 0 ] || die "run as root: the toolchain folder is entered with chroot"
}

# hash_of: a short key of what stdin holds.
hash_of() { sha256sum | cut -c 1-12; }

# share N: what has kfi_conformance run one case of so many, others each day.
share() {
	local every=${KFABRIC_EVERY:-$1}
	echo "first=$(($(date +%s) / 86400 % every + 1)) every=$every"
}

# said_by_conformance MACHINE: what kfi_conformance has printed there.
said_by_conformance() {
	sed -n 's/\r//; s/^\[ *[0-9.]*\]\(\[ *[CT][0-9]*\]\)\? kfi_conformance: //p' "$top/build/vm/$1/console.log"
}
