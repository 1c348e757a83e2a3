#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# A first package in a directory of this machine's system that no other has: /opt, /lib32, /nix.  Workers
# of this machine are started anew and show it.  Those of other tests would be, too.
# alone
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
[ -n "${LAB_INSIDE-}" ] || [ ! -e /gnu ] || skip "there is a /gnu"
lab_enter "$@"
NEW=/gnu # a name that the system may have (Guix)
printf '[concc]\nworkspace = %s\nlocal-slots = 0\n[worker w1]\naddress = local:\nslots = 1\n' "$WS" >/srv/concc.ini
lab_mounts >"$LAB/mounts"
lab_all_up
mkdir alt
echo 'static const char which[] = "alt";' >alt/h.h
printf '#include <h.h>\nconst char *f(void) { return which; }\n' >b.c

new_directory() {
	CONCC_EXPLAIN=$LAB/explain concc-cc gcc -Ialt -c b.c -o b.o
	mkdir "$NEW"
	mount --bind alt "$NEW"
	rm -f b.o
	CONCC_EXPLAIN=$LAB/explain concc-cc gcc -I"$NEW" -c b.c -o b.o || true
	umount "$NEW"
	rmdir "$NEW"
	gcc -Ialt -c b.c -o "$LAB/b.o"
	expect_same_file "$LAB/b.o" b.o
	expect_eq "remote jobs" "$(explained_remote "$LAB/explain")" 2
}

check "a new directory of this machine's system" new_directory
lab_stop
