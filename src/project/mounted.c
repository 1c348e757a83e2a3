/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "mounted.h"
#include "peer.h"
#include "server.h"
#include "shown.h"
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
static bool is_out_of_sight(const struct server *s, const char *point)
{
	static const char *const dirs[] = {"/boot", "/dev", "/home", "/media", "/mnt", "/proc",
					   "/root", "/run", "/srv",  "/sys",   "/tmp", "/var"};

	for (char *const *t = shown_trees(s); t && *t; t++)
		if (path_is_below(point, *t))
			return false;
	for (size_t i = 0; i < N_OF(dirs); i++)
		if (path_is_below(point, dirs[i]))
			return true;
	return false;
}

/* Each mount has a number of its own, so another one in the same place shows as well. */
static void put_mounts(const struct server *s, struct buf *seen)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct mount_line line;
	char *at;

	if (read_file_at(AT_FDCWD, "/proc/self/mountinfo", MOUNTS_MAX, &b) < 0)
		buf_reset(&b);
	buf_put_u8(&b, '\0');
	at = (char *)b.data;
	while (mountinfo_next(&at, &line)) {
		if (is_out_of_sight(s, line.point))
			continue;
		buf_put_u64(seen, line.id);
		buf_put_str(seen, line.point);
	}
}

static void put_dirs(const char *const *dirs, struct buf *seen)
{
	for (; dirs && *dirs; dirs++) {
		struct stat st;

		if (lstat(*dirs, &st) < 0)
			continue;
		buf_put_str(seen, *dirs);
		buf_put_u64(seen, st.st_dev);
		buf_put_u64(seen, st.st_ino);
	}
}

/* In the place of a tree that was removed, another one may be that has its number. */
static void put_births(const char *const *dirs, struct buf *seen)
{
	for (; dirs && *dirs; dirs++) {
		struct statx stx;

		if (statx(AT_FDCWD, *dirs, AT_SYMLINK_NOFOLLOW, STATX_BTIME, &stx) < 0 ||
		    !(stx.stx_mask & STATX_BTIME))
			continue;
		buf_put_u64(seen, (uint64_t)stx.stx_btime.tv_sec);
		buf_put_u32(seen, stx.stx_btime.tv_nsec);
	}
}

/* Anybody may put another one in the place of a tree of tools: it is looked at each time. */
static void look_at_trees(const struct server *s, struct digest *ret)
{
	const char *const *trees = (const char *const *)shown_trees(s);
	_cleanup_buf_ struct buf seen = BUF_INIT;

	put_dirs(trees, &seen);
	put_births(trees, &seen);
	digest_of(seen.data, seen.len, ret);
}

/* What of it there is at all: a first package may make /opt, and a 32-bit one /lib32. */
static void look(const struct server *s, struct digest *ret)
{
	_cleanup_buf_ struct buf seen = BUF_INIT;

	put_mounts(s, &seen);
	put_dirs(workspaces_system_dirs, &seen);
	digest_of(seen.data, seen.len, ret);
}

/* Has no name come or gone there since? */
static bool same_top(const struct stat *a, const struct stat *b)
{
	return a->st_mode && stat_is_unchanged(a, b);
}

/* All zero when a name that comes after this may not show. */
static void look_at_top(struct stat *ret)
{
	int64_t since = clock_ns();

	if (stat("/", ret) < 0 || stat_is_racy(ret, since, false))
		*ret = (struct stat){0};
}

void mounted_note(struct peer *p)
{
	bool told;

	if (!shown_sees_this_system(p))
		return;
	told = shown_look(p->server);
	p->mounts = tree_mounts(p->server->tree);
	look_at_top(&p->top);
	look_at_trees(p->server, &p->trees);
	look(p->server, &p->mounted);
	if (!told)
		p->trees = (struct digest){0}; /* no job will find it so */
}

bool mounted_is_as_noted(struct peer *p)
{
	uint64_t mounts;
	struct digest now;
	struct stat top;

	if (!shown_sees_this_system(p))
		return true;
	look_at_trees(p->server, &now);
	if (!digest_eq(&now, &p->trees))
		return false;
	mounts = tree_mounts(p->server->tree);
	look_at_top(&top);
	if (mounts == p->mounts && same_top(&top, &p->top))
		return true;
	look(p->server, &now);
	if (!digest_eq(&now, &p->mounted))
		return false;
	p->mounts = mounts;
	p->top = top;
	return true;
}
