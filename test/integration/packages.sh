#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# The packages that `make deb` and `make rpm` make: clean by lintian, and installed into a minimal
# Debian they work.  They are of the last commit.  Needs a network and minutes.
# limit: 1200
. "${BASH_SOURCE[0]%/*}/../lib/lab.sh"
[ -n "${CONCC_TEST_LONG-}" ] || skip "set CONCC_TEST_LONG=1: it builds everything twice"
lab_need dpkg-buildpackage lintian mmdebstrap rpmbuild
[ "$(id -u)" -eq 0 ] || skip "needs root"
git -C "$LAB_REPO" rev-parse HEAD >/dev/null 2>&1 || skip "not in a git checkout"
# No lab: what is installed needs the network.
LAB=$(mktemp -d "${TMPDIR:-/tmp}/concc-packages.XXXXXX")
ROOT=$LAB/root
trap 'rm -rf --one-file-system "$LAB"' EXIT
cd "$LAB_REPO"
unset MAKEFLAGS MFLAGS MAKELEVEL

deb() {
	make B="$LAB/b" deb || fail "make deb"
	expect_eq "packages" "$(cd "$LAB/b/deb" && echo concc_*.deb concc-worker_*.deb concc-doc_*.deb | wc -w)" 3
}

is_clean() {
	expect_file "$(echo "$LAB"/b/deb/*.changes)"
	lintian --fail-on error,warning "$LAB"/b/deb/*.changes || fail "lintian"
}

# minbase has no compiler and no ssh.
in_chroot() {
	mmdebstrap --variant=minbase --customize-hook='mkdir "$1/pk"' \
		--customize-hook="cp $LAB/b/deb/concc_*.deb $LAB/b/deb/concc-worker_*.deb $LAB/b/deb/concc-doc_*.deb \"\$1/pk\"" \
		--customize-hook='chroot "$1" sh -c "apt-get install -y --no-install-recommends /pk/*.deb"' \
		bookworm "$ROOT" >"$LAB/log" 2>&1 || fail "$(tail -n 5 "$LAB/log")"
	# Its root is the root: in a chroot the kernel makes no user namespaces.
	# shellcheck disable=SC2016 # the other shells'
	unshare -m -p -f --propagation private sh -ec 'mount --bind "$1" "$1"
		cd "$1"
		mkdir old
		mount -t proc proc proc
		rm -f dev/fuse && mknod -m 666 dev/fuse c 10 229
		pivot_root . old
		umount -l /old
		rmdir /old
		exec env -i HOME=/root PATH=/usr/bin:/bin sh -ec "concc --version
			mkdir /root/p && cd /root/p
			echo hello >in
			concc run -w local: -- concc-dispatch cp in out
			cmp in out
			CONCC_WORKERS=local: concc doctor
			concc doctor || echo status \$?
			concc-worker --status"' sh "$ROOT" >"$LAB/out" 2>&1 || fail "$(cat "$LAB/out")"
	cat "$LAB/out"
	expect_grep ': 1 remote' "$LAB/out"
	expect_grep '^builds will be distributed: 1 of 1 worker' "$LAB/out"
	expect_grep '^status 1$' "$LAB/out"
	expect_grep 'failed +configuration .*names no worker' "$LAB/out"
	expect_file "$ROOT/usr/share/bash-completion/completions/concc"
	expect_file "$ROOT/usr/share/zsh/vendor-completions/_concc"
	chroot "$ROOT" sh -c 'dpkg -P concc concc-worker concc-doc' >"$LAB/out" 2>&1 || fail "$(cat "$LAB/out")"
	expect_eq "left" "$(find "$ROOT/usr" -name '*concc*')" ""
}

rpm() {
	make B="$LAB/b" rpm || fail "make rpm"
	expect_eq "packages" "$(find "$LAB/b/rpm/RPMS" -name '*.rpm' | wc -l)" 3
	rpmbuild --nobuild --nodeps --define "_topdir $LAB/b/rpm" "$LAB/b/rpm/concc.spec" || fail "rpmbuild"
}

check "make deb" deb
check "lintian" is_clean
check "in a minimal Debian" in_chroot
check "make rpm" rpm
[ "$LAB_CHECKS_FAILED" -eq 0 ] || fail "$LAB_CHECKS_FAILED checks failed"
