/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Outputs.  A compiler that finds the one of the time before removes it, or makes it empty: what it
 * leaves is what it would have left if nothing had been there.  So who comes back to what was built
 * before finds that result, whatever the outputs hold meanwhile.  That is so of a file that is as
 * such a call leaves it; what else there may be (its mode, an owner, a second name, a list of who
 * may read it) would stay with some compilers, unless the output is moved there.
 */
#include "look.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/proto.h"
#include "concc/str.h"

#define XATTRS_MAX 256 /* bytes of their names: there is one at most that does not count */

void cache_look_umask(struct cache_look *l, unsigned umask)
{
	l->umask = umask;
}

/* Each file gets SELinux's, by where it is. */
static bool has_xattrs(const char *path)
{
	char names[XATTRS_MAX];
	ssize_t n = llistxattr(path, names, sizeof(names));

	if (n < 0)
		return errno != EOPNOTSUPP;
	return n && !(n == sizeof("security.selinux") && streq(names, "security.selinux"));
}

/* Would what is made in it have this process's group, and a mode by the umask? */
static bool is_plain_dir(const char *dir)
{
	struct stat st;

	return stat(dir, &st) == 0 && !(st.st_mode & S_ISGID) &&
	       getxattr(dir, "system.posix_acl_default", NULL, 0) < 0;
}

bool look_is_as_made(const struct cache_look *l, const char *path)
{
	const mode_t all = l->output == TRACE_OUTPUT_EXEC ? 0777 : 0666;
	const mode_t mode = all & ~(mode_t)l->umask;
	_cleanup_free_ char *dir = path_parent(path);
	const struct stat *st = &l->st;

	/* Some ask whether they may write to it before they replace it. */
	if (!S_ISREG(st->st_mode) || st->st_uid != geteuid() || !(st->st_mode & S_IWUSR))
		return false;
	if (l->output == TRACE_OUTPUT_MOVED)
		return true;
	return st->st_nlink == 1 && (st->st_mode & 07777) == mode && st->st_gid == getegid() &&
	       !has_xattrs(path) && is_plain_dir(dir);
}
