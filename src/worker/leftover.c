/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "leftover.h"

#include <fnmatch.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/sandbox.h"
#include "concc/str.h"
#include "upper.h"

/* What is looked at by the loop's thread, also when each look takes its time. */
#define FEW_NAMES 32

/*
 * What programs leave in /tmp that no later program needs: counters and sockets of their own
 * processes, and caches of what can be made again.  Each would make all jobs of its program run
 * twice.
 */
static const char *const may_stay[] = {
	"hsperfdata_*",	       /* JVM: counters for jps and jstat, a directory for each user */
	".java_pid*",	       /* JVM: a socket for who attaches */
	"clr-debug-pipe-*",    /* .NET: fifos for debuggers */
	"dotnet-diagnostic-*", /* .NET: sockets */
	".dotnet",	       /* .NET: locks of its processes */
	"v8-compile-cache*",   /* node: compiled scripts */
	"node-compile-cache",  /* the same, of node itself */
};

bool leftover_stays(const char *path)
{
	_cleanup_free_ char *top = xstrndup(path, strcspn(path, "/"));

	for (size_t i = 0; i < N_OF(may_stay); i++) {
		if (fnmatch(may_stay[i], top, 0) == 0)
			return true;
	}
	return false;
}

/* What we made on the way to a workspace: of all else it counts that it is there. */
static bool is_ours(const struct upper_entry *e)
{
	return e->kind == UPPER_DIR && sandbox_is_mountpoint(&e->st);
}

static int look(int tmp_fd, size_t max, char *name, size_t n)
{
	struct upper u = {.fd = -1};
	int r = tmp_fd < 0 ? 0 : upper_read_some(&u, tmp_fd, max, is_ours), found = 0;

	for (size_t i = 1; i < u.n && r == 0 && !found; i++) {
		const struct upper_entry *e = &u.entries[i];

		if (is_ours(e) || leftover_stays(e->path))
			continue;
		snprintf(name, n, "%s", e->path);
		found = 1;
	}
	upper_release(&u);
	return r < 0 ? r : found;
}

int leftover_in_tmp(int tmp_fd, char *name, size_t n)
{
	return look(tmp_fd, UPPER_ENTRIES_MAX, name, n);
}

int leftover_in_tmp_few(int tmp_fd, char *name, size_t n)
{
	int r = look(tmp_fd, FEW_NAMES, name, n);

	return r == CONCC_E_TOOBIG ? CONCC_E_LATER : r;
}
