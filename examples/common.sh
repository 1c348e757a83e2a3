# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=sh
#
# What the `run` scripts of the examples have in common: they source it.  Sets
#	here, top	the example's folder, and the repository
#	out		where it builds and keeps what it fetched (OUT; `make clean` removes it)
#	jobs		how many at once (JOBS)
#	tmp		a directory that goes with the script
# The build gets a project server of its own, which leaves with it.

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
example=examples/${here##*/}
out=${OUT:-$top/build/$example}
# shellcheck disable=SC2034 # used by who sources this
jobs=${JOBS:-$((2 * $(nproc)))}

die() { # TEXT
	echo "$example: $*" >&2
	exit 1
}

need() { # PROGRAM DEBIAN-PACKAGE
	command -v "$1" >/dev/null || die "$1 is not installed (on Debian: apt install $2)"
}

if ! command -v concc >/dev/null; then
	[ -x "$top/build/bin/concc" ] || die "there is no concc in PATH or $top/build/bin: run make in $top"
	PATH=$top/build/bin:$PATH
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
export CONCC_RUNTIME_DIR="$tmp/run" CONCC_WORKSPACE="$here:$out"
mkdir -p "$out"
