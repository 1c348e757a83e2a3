#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# What is built for one PREFIX and installed with another works (`make distcheck` does the same with
# what is in the archive).
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
lab_need make gcc pkg-config
lab_enter "$@"
[ -z "$LAB_SANITIZED" ] || skip "it would be linked without the sanitizer"
lab_start 0

# A copy of what is built: it is built for this PREFIX from then on.
install() {
	mkdir "$LAB/built"
	cp -a "$LAB_BUILD"/lib*.a "$LAB_BUILD/src" "$LAB_BUILD/bin" "$LAB/built/"
	[ ! -e "$LAB_BUILD/installed-paths" ] || cp -a "$LAB_BUILD/installed-paths" "$LAB/built/"
	"$LAB_REPO/test/installed" "$LAB_REPO" B="$LAB/built"
}

check "make install with another PREFIX" install
lab_stop
