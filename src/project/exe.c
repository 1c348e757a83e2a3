/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/process.h"
#include "concc/str.h"

/* A compiler asked for its parts answers in milliseconds; one that does not is not waited for. */
#define ASK_TIMEOUT_MS 2000

void exe_free(struct exe *e)
{
	if (!e)
		return;
	msg_exe_release(&e->msg);
	free(e);
}

DEFINE_CLEANUP(struct exe, exe, exe_free);

static bool same_file(const struct exe *e, const struct stat *st)
{
	return e->dev == st->st_dev && e->ino == st->st_ino &&
	       e->mtime.tv_sec == st->st_mtim.tv_sec && e->mtime.tv_nsec == st->st_mtim.tv_nsec;
}

/* What `exe -print-prog-name=part` prints, when that is an absolute path; NULL otherwise. */
static char *ask_part(const char *exe, const char *part)
{
	_cleanup_free_ char *arg = xasprintf("-print-prog-name=%s", part);
	_cleanup_buf_ struct buf answer = BUF_INIT;
	char *argv[] = {(char *)exe, arg, NULL};
	char *env[] = {(char *)"PATH=/usr/local/bin:/usr/bin:/bin", (char *)"LC_ALL=C", NULL};
	struct process p = {
		.argv = argv,
		.env = env,
		.fds = {PROCESS_FD_NULL, PROCESS_FD_KEPT, PROCESS_FD_NULL},
		.n_fds = 3,
		.flags = PROCESS_SESSION,
	};
	size_t n;

	if (process_capture(&p, PROTO_PATH_MAX, now_ms() + ASK_TIMEOUT_MS, -1, &answer, NULL) < 0)
		return NULL;
	n = answer.len;
	if (n <= 1 || answer.data[0] != '/')
		return NULL;
	return xstrndup((char *)answer.data, n - (answer.data[n - 1] == '\n'));
}

/* Adds path, if it is a file, with its digest (from the cache when it is known). */
static int add_file(struct server *s, struct exe *e, const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct digest d;
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (e->msg.n_files >= PROTO_EXE_FILES_MAX)
		return CONCC_E_TOOBIG;
	if (!hash_cache_get(s->hashes, &st, &d)) {
		r = digest_of_fd(fd, &d, NULL);
		if (r < 0)
			return r;
		hash_cache_put(s->hashes, &st, &d);
	}
	e->msg.files = xrealloc(e->msg.files, (e->msg.n_files + 1) * sizeof(*e->msg.files));
	e->msg.files[e->msg.n_files++] = (struct exe_file){.path = xstrdup(path), .digest = d};
	return 0;
}

static bool is_c_driver(const char *path)
{
	static const char *const words[] = {"gcc", "g++", "clang", "c++", "cc"};
	const char *base = path_base(path);

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		if (strstr(base, words[i]))
			return true;
	}
	return false;
}

/*
 * The driver is not the compiler: cc1 and as make the object, and a distribution
 * may update them without it.  What is not found is left out on both sides.
 */
static void add_c_parts(struct server *s, struct exe *e)
{
	static const char *const parts[] = {"cc1", "cc1plus", "as"};

	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		_cleanup_free_ char *path = ask_part(e->msg.path, parts[i]);
		_cleanup_free_ char *clean = path ? path_clean("/", path) : NULL;

		if (clean)
			(void)add_file(s, e, clean);
	}
}

/* rustc is a small program over a large library. */
static void add_rust_parts(struct server *s, struct exe *e)
{
	_cleanup_free_ char *pattern = xasprintf("%s/../../lib/librustc_driver-*.so", e->msg.path);
	_cleanup_free_ char *clean = path_clean("/", pattern);
	glob_t g;

	if (glob(clean, GLOB_NOSORT, NULL, &g) == 0) {
		for (size_t i = 0; i < g.gl_pathc; i++)
			(void)add_file(s, e, g.gl_pathv[i]);
	}
	globfree(&g);
}

static int exe_new(struct server *s, const char *path, const struct stat *st, bool served,
		   struct exe **ret, struct errmsg *msg)
{
	_cleanup_(cleanup_exe) struct exe *e = xcalloc(1, sizeof(*e));
	int r;

	e->msg.exe_id = ++s->next_exe_id;
	e->msg.path = xstrdup(path);
	e->dev = st->st_dev;
	e->ino = st->st_ino;
	e->mtime = st->st_mtim;
	/* What workers see through the mirror is the same file. */
	if (!served) {
		r = add_file(s, e, path);
		if (r < 0)
			return errmsg_set(msg, r, "can't read %s: %s", path, err_text(r));
		if (is_c_driver(path))
			add_c_parts(s, e);
		else if (strstr(path_base(path), "rustc"))
			add_rust_parts(s, e);
	}
	*ret = steal_ptr(&e);
	return 0;
}

int exe_get(struct server *s, const char *path, bool served, struct exe **ret, struct errmsg *msg)
{
	struct map *known = served ? &s->exes_served : &s->exes;
	struct exe *e = map_get_str(known, path);
	struct stat st;
	int r;

	if (stat(path, &st) < 0)
		return errmsg_set(msg, -errno, "can't find %s: %s", path, err_text(-errno));
	if (e && same_file(e, &st)) {
		*ret = e;
		return 0;
	}
	r = exe_new(s, path, &st, served, &e, msg);
	if (r < 0)
		return r;
	/* The former one stays: jobs and links may still name it.  A compiler changes rarely. */
	struct exe *old = map_put_str(known, path, e);

	if (old) {
		_cleanup_free_ char *key = xasprintf("%s#%u", path, old->msg.exe_id);

		map_put_str(known, key, old);
	}
	*ret = e;
	return 0;
}
