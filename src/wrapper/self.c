/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "self.h"

#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "concc/wrapper.h"

#define STARTED_VAR "_CONCC_STARTED"
/* Bytes of all paths in it: more than a hundred in one another. */
#define STARTED_MAX 4096
/* Linkers put notes behind the headers of the file. */
#define HEAD_LEN 4096

static const struct mark {
	Elf32_Nhdr header;
	char name[8];
	char text[8];
} mark __attribute__((section(".note.concc"), used, aligned(4))) = {
	{sizeof("concc"), sizeof("wrapper"), 1}, "concc", "wrapper"};

enum self_kind self_look(const char *path)
{
	/* A FIFO is nothing to wait for. */
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char head[HEAD_LEN];
	ssize_t n = fd < 0 ? -1 : pread(fd, head, sizeof(head), 0);

	if (n >= 2 && memcmp(head, "#!", 2) == 0)
		return SELF_SCRIPT;
	if (n > 0 && memmem(head, (size_t)n, &mark, sizeof(mark)))
		return SELF_OURS;
	return SELF_OTHER;
}

/* A version may follow, or the name of what wraps the file come before. */
bool wrapper_is_own_name(const char *argv0)
{
	const char *base = path_base(argv0);

	return strstr(base, "concc-cc") || strstr(base, "concc-dispatch");
}

bool self_started(const char *path)
{
	const char *list = getenv(STARTED_VAR);
	_cleanup_free_ char *clean = list ? path_clean("/", path) : NULL;
	size_t n = clean ? strlen(clean) : 0;

	for (; list && *list; list += strspn(list, ":")) {
		size_t k = strcspn(list, ":");

		if (k == n && memcmp(list, clean, n) == 0)
			return true;
		list += k;
	}
	return false;
}

bool self_start(const char *path)
{
	const char *list = getenv(STARTED_VAR);
	_cleanup_free_ char *clean = path_clean("/", path);
	_cleanup_free_ char *more = xasprintf("%s%s%s", list ? list : "", list ? ":" : "", clean);

	if (strlen(more) > STARTED_MAX)
		return false;
	return setenv(STARTED_VAR, more, 1) == 0;
}
