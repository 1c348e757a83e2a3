/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <glob.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "concc/wrapper.h"

char **server_other_dirs(const char *mine)
{
	char **ret = NULL;
	glob_t g = {0};

	if (glob(RUN_DIR_PREFIX "*", 0, NULL, &g) == 0) {
		for (size_t i = 0; i < g.gl_pathc; i++) {
			struct stat st;

			if (lstat(g.gl_pathv[i], &st) == 0 && S_ISDIR(st.st_mode) &&
			    st.st_uid == geteuid() && !streq(g.gl_pathv[i], mine))
				strv_push(&ret, xstrdup(g.gl_pathv[i]));
		}
	}
	globfree(&g);
	return ret;
}

/* False: it is there, and has not done it in time. */
static bool flush_one(const char *dir, uint64_t until_ms)
{
	char *words[] = {(char *)"flush", NULL};
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct conn c = {.fd = -1};
	uint64_t now = now_ms();
	bool done = true;

	if (server_connect(dir, &c) < 0)
		return true;
	msg_ctl_encode(&b, words);
	if (conn_send(&c, MSG_CTL, &b) == 0) {
		struct pollfd p = {.fd = c.fd, .events = POLLIN};

		/* Whatever it says, or that it ends. */
		done = poll(&p, 1, now < until_ms ? (int)(until_ms - now) : 0) > 0;
	}
	conn_release(&c);
	return done;
}

char *servers_flush(unsigned limit_ms)
{
	_cleanup_free_ char *dir = NULL;
	_cleanup_strv_ char **others = NULL;
	char *late = NULL;
	uint64_t until_ms = now_ms() + limit_ms;

	if (runtime_dir_open(&dir, NULL, NULL) < 0)
		return NULL;
	others = server_other_dirs(dir);
	if (!flush_one(dir, until_ms))
		late = steal_ptr(&dir);
	for (char **d = others; d && *d; d++) {
		if (!flush_one(*d, until_ms) && !late)
			late = xstrdup(*d);
	}
	return late;
}
