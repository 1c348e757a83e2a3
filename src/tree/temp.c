/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

/*
 * A temporary's name says whose it is: .concc-tmp-WHERE-PID-STARTED-COUNT.
 * WHERE stands for this boot and pid namespace; only there can we ask whether
 * the process lives.  Names from elsewhere (a container, another machine on the
 * same network file system) are left alone for a day.
 */
#define FOREIGN_MAX_S (24 * 3600)

/* Field 22 of /proc/PID/stat, 0 when there is no such process, or -errno. */
static int64_t start_time(uint32_t pid)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char path[64];
	const char *p;
	int err;

	(void)snprintf(path, sizeof(path), "/proc/%" PRIu32 "/stat", pid);
	err = read_file_at(AT_FDCWD, path, 4096, &b);
	if (err < 0)
		return err == -ENOENT || err == -ESRCH ? 0 : err;
	/* After the last ')': the program's name may hold anything. */
	p = strrchr(buf_cstr(&b), ')');
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p ? strtoll(p + 1, NULL, 10) : 0;
}

void temp_init(struct tree *t)
{
	struct buf b = BUF_INIT;
	struct stat st = {0};
	uint32_t h = 2166136261u;

	if (read_file_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 4096, &b) < 0)
		buf_reset(&b);
	if (stat("/proc/self/ns/pid", &st) == 0)
		buf_append(&b, &st.st_ino, sizeof(st.st_ino));
	for (size_t i = 0; i < b.len; i++)
		h = (h ^ b.data[i]) * 16777619u;
	buf_release(&b);
	t->temp_where = h;
	t->temp_pid = (uint32_t)getpid();
	t->temp_started = (uint64_t)start_time(t->temp_pid);
}

void temp_name(struct tree *t, char buf[TEMP_NAME_SIZE])
{
	(void)snprintf(buf, TEMP_NAME_SIZE,
		       TEMP_PREFIX "%08" PRIx32 "-%" PRIu32 "-%" PRIu64 "-%" PRIu32, t->temp_where,
		       t->temp_pid, t->temp_started, ++t->temp_count);
}

void temp_clean(struct tree *t, int dir_fd, const char *name)
{
	uint32_t where;
	uint32_t pid;
	uint64_t started;
	uint32_t count;
	char end;
	struct stat st;
	int64_t now;

	if (sscanf(name + strlen(TEMP_PREFIX), "%8" SCNx32 "-%" SCNu32 "-%" SCNu64 "-%" SCNu32 "%c",
		   &where, &pid, &started, &count, &end) != 4)
		return;
	now = where == t->temp_where ? start_time(pid) : 0;
	/* One of which it can't be told whether it lives may live. */
	if (now < 0 || (now > 0 && (uint64_t)now == started))
		return;
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_uid != geteuid() ||
	    S_ISDIR(st.st_mode))
		return;
	if (where != t->temp_where && time(NULL) - st.st_ctim.tv_sec < FOREIGN_MAX_S)
		return;
	if (unlinkat(dir_fd, name, 0) == 0)
		log_info("removed %s, left by a project server that died", name);
}
