/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "mounted.h"
#include "peer.h"

#include <fcntl.h>
#include <string.h>

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

/* Each mount has a number of its own, so another one in the same place shows as well.  Of all lines
 * nothing is known when they can't be read, which is not the same as anything else. */
static void look(struct digest *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT, seen = BUF_INIT;
	struct mount_line line;
	char *at;

	if (read_file_at(AT_FDCWD, "/proc/self/mountinfo", MOUNTS_MAX, &b) < 0)
		buf_reset(&b);
	buf_put_u8(&b, '\0');
	at = (char *)b.data;
	while (mountinfo_next(&at, &line)) {
		if (is_out_of_sight(line.point))
			continue;
		buf_put_u64(&seen, line.id);
		buf_put_str(&seen, line.point);
	}
	digest_of(seen.data, seen.len, ret);
}

void mounted_note(struct peer *p)
{
	if (!sees_this_system(p))
		return;
	p->mounts = tree_mounts(p->server->tree);
	look(&p->mounted);
}

bool mounted_is_as_noted(struct peer *p)
{
	struct digest now;
	uint64_t mounts;

	if (!sees_this_system(p))
		return true;
	mounts = tree_mounts(p->server->tree);
	if (mounts == p->mounts)
		return true;
	look(&now);
	if (!digest_eq(&now, &p->mounted))
		return false;
	p->mounts = mounts;
	return true;
}
