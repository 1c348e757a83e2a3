/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "mounted.h"
#include "peer.h"
#include "workspaces.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "concc/cleanup.h"
#include "concc/digest.h"
#include "concc/io.h"
#include "concc/mountinfo.h"
#include "concc/str.h"
#include "concc/tree.h"

#define MOUNTS_MAX (16 * 1024 * 1024) /* bytes of mountinfo, of some 100 000 mounts */

/* In these a job finds nothing of the worker's, or what is its own: see src/sandbox/root.c. Engines
 * of containers mount there all the time. */
static bool is_out_of_sight(const char *point)
{
	static const char *const dirs[] = {"/boot", "/dev", "/home", "/media", "/mnt", "/proc",
					   "/root", "/run", "/srv",  "/sys",   "/tmp", "/var"};

	for (size_t i = 0; i < N_OF(dirs); i++)
		if (path_is_below(point, dirs[i]))
			return true;
	return false;
}

static bool sees_this_system(const struct peer *p)
{
	return conf_worker_is_here(p->conf) && p->conf->root == ROOT_WORKER &&
	       p->conf->mirror == MIRROR_CONCC;
}

/* Each mount has a number of its own, so another one in the same place shows as well. */
static void put_mounts(struct buf *seen)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct mount_line line;
	char *at;

	if (read_file_at(AT_FDCWD, "/proc/self/mountinfo", MOUNTS_MAX, &b) < 0)
		buf_reset(&b);
	buf_put_u8(&b, '\0');
	at = (char *)b.data;
	while (mountinfo_next(&at, &line)) {
		if (is_out_of_sight(line.point))
			continue;
		buf_put_u64(seen, line.id);
		buf_put_str(seen, line.point);
	}
}

/* What of it there is at all: a first package may make /opt, and a 32-bit one /lib32. */
static void put_dirs(struct buf *seen)
{
	for (const char *const *d = workspaces_system_dirs; *d; d++) {
		struct stat st;

		if (lstat(*d, &st) < 0)
			continue;
		buf_put_str(seen, *d);
		buf_put_u64(seen, st.st_dev);
		buf_put_u64(seen, st.st_ino);
	}
}

static void look(struct digest *ret)
{
	_cleanup_buf_ struct buf seen = BUF_INIT;

	put_mounts(&seen);
	put_dirs(&seen);
	digest_of(seen.data, seen.len, ret);
}

/* Has no name come or gone there since?  Within a tick of the clock that would not show. */
static bool same_top(const struct stat *a, const struct stat *b)
{
	return !stat_is_racy(a, false) && stat_is_same_file(a, b) && stat_is_unchanged(a, b);
}

static void look_at_top(struct stat *ret)
{
	if (stat("/", ret) < 0)
		*ret = (struct stat){0};
}

void mounted_note(struct peer *p)
{
	if (!sees_this_system(p))
		return;
	p->mounts = tree_mounts(p->server->tree);
	look_at_top(&p->top);
	look(&p->mounted);
}

bool mounted_is_as_noted(struct peer *p)
{
	uint64_t mounts;
	struct digest now;
	struct stat top;

	if (!sees_this_system(p))
		return true;
	mounts = tree_mounts(p->server->tree);
	look_at_top(&top);
	if (mounts == p->mounts && same_top(&top, &p->top))
		return true;
	look(&now);
	if (!digest_eq(&now, &p->mounted))
		return false;
	p->mounts = mounts;
	p->top = top;
	return true;
}
