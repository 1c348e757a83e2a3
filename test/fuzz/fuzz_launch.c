/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * A job as the agent hands it to its launcher, in a memfd.  Input is what follows the numbers,
 * which are as long as this build has them: zero here.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "concc/cleanup.h"
#include "concc/str.h"
#include "sandbox/launchmsg.h"
#include "scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int unpack(const void *p, size_t n, struct lm_request *ret)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC), r;

	CHECK(fd >= 0 && write_full(fd, p, n) == 0);
	r = lm_request_unpack(fd, ret);
	(void)close(fd);
	return r;
}

/* All of its strings, to their ends. */
static size_t lengths(const struct lm_request *r)
{
	size_t n = strlen(r->exe) + strlen(r->path) + strlen(r->cwd);
	char *const *const lists[] = {r->workspaces, r->trees, r->argv, r->env};

	for (size_t i = 0; i < 4; i++)
		for (char *const *s = lists[i]; *s; s++)
			n += strlen(*s) + 1;
	return n;
}

/* What was unpacked, packed and unpacked again, is the same. */
static void again(const struct lm_request *r)
{
	struct launch j = {
		.exe = r->exe,
		.path = r->path,
		.argv = r->argv,
		.env = r->env,
		.cwd = r->cwd,
		.workspaces = r->workspaces,
		.trees = r->trees,
		.umask = r->umask,
		.caller = r->caller,
		.memory = r->max_memory,
		.processes = r->max_processes,
	};
	struct lm_request b = {0};
	int fd = lm_request_pack(&j);

	if (fd == CONCC_E_TOOBIG)
		return;
	CHECK(fd >= 0);
	CHECK(lm_request_unpack(fd, &b) == 0);
	CHECK(lengths(&b) == lengths(r) && streq(b.exe, r->exe) && streq(b.cwd, r->cwd));
	CHECK(b.umask == r->umask && b.max_memory == r->max_memory);
	lm_request_release(&b);
	(void)close(fd);
}

/* Of the numbers. */
static size_t head_size(void)
{
	char *const none[] = {NULL};
	const struct launch j = {.exe = "",
				 .path = "",
				 .cwd = "",
				 .workspaces = (char **)none,
				 .argv = (char **)none,
				 .env = (char **)none};
	int fd = lm_request_pack(&j);
	struct stat st;

	CHECK(fd >= 0 && fstat(fd, &st) == 0);
	(void)close(fd);
	return (size_t)st.st_size - 3 - 4 * sizeof(uint32_t); /* empty strings, empty lists */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	size_t head = head_size();
	_cleanup_free_ uint8_t *all = xcalloc(1, head + n);
	struct lm_request r = {0};

	if (n)
		memcpy(all + head, data, n);
	if (unpack(all, head + n, &r) < 0) {
		CHECK(!r.memory && !r.argv);
		return 0;
	}
	CHECK(lengths(&r) <= n);
	again(&r);
	lm_request_release(&r);
	return 0;
}
