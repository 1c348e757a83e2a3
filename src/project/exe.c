/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
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

/* Reads what the child prints until EOF or the time is over. */
static ssize_t read_answer(int fd, char *out, size_t size)
{
	uint64_t end = now_ms() + ASK_TIMEOUT_MS;
	size_t n = 0;

	while (n < size) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t now = now_ms();
		ssize_t k;

		if (now >= end || poll(&p, 1, (int)(end - now)) <= 0)
			return CONCC_E_TIMEOUT;
		k = read(fd, out + n, size - n);
		if (k < 0)
			return -errno;
		if (k == 0)
			return (ssize_t)n;
		n += (size_t)k;
	}
	return CONCC_E_TOOBIG;
}

/*
 * What `exe -print-prog-name=part` prints, when that is an absolute path; NULL otherwise. Negative:
 * it could not be asked.
 */
static int ask_part(const char *exe, const char *part, char **ret)
{
	_cleanup_free_ char *arg = xasprintf("-print-prog-name=%s", part);
	char *argv[] = {(char *)exe, arg, NULL};
	char *env[] = {(char *)"PATH=/usr/local/bin:/usr/bin:/bin", (char *)"LC_ALL=C", NULL};
	_cleanup_close_ int out_r = -1;
	posix_spawn_file_actions_t fa;
	char answer[PROTO_PATH_MAX];
	int out[2], r, status;
	ssize_t n;
	pid_t pid;

	*ret = NULL;
	if (pipe2(out, O_CLOEXEC) < 0)
		return -errno;
	out_r = out[0];
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, out[1], 1);
	posix_spawn_file_actions_addopen(&fa, 2, "/dev/null", O_WRONLY, 0);
	r = posix_spawn(&pid, exe, &fa, NULL, argv, env);
	posix_spawn_file_actions_destroy(&fa);
	close(out[1]);
	if (r != 0)
		return err_is_fact(-r) || r == ENOEXEC ? 0 : -r;
	n = read_answer(out_r, answer, sizeof(answer));
	if (n < 0)
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (n < 0 && n > -4096)
		return (int)n;
	if (n > 1 && answer[0] == '/')
		*ret = xstrndup(answer, (size_t)n - (answer[n - 1] == '\n'));
	return 0;
}

/* Adds path, if it is a file, with its digest (from the cache when it is known). */
static int add_file(struct server *s, struct exe *e, const char *path)
{
	/* Not a file any more by now?  Then opening must not wait. */
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
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

/* One that is not there is left out on both sides; one that can't be read now is not. */
static int add_part(struct server *s, struct exe *e, const char *path)
{
	int r = add_file(s, e, path);

	return err_is_fact(r) || r == -EINVAL || r == CONCC_E_TOOBIG ? 0 : r;
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
static int add_c_parts(struct server *s, struct exe *e)
{
	static const char *const parts[] = {"cc1", "cc1plus", "as"};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(parts) / sizeof(*parts); i++) {
		_cleanup_free_ char *path = NULL, *clean = NULL;

		r = ask_part(e->msg.path, parts[i], &path);
		if (r == 0 && path) {
			clean = path_clean("/", path);
			r = add_part(s, e, clean);
		}
	}
	return r;
}

/* For glob(3): the directories that can't be read for want of something end it. */
static int is_no_fact(const char *path, int err)
{
	return !err_is_fact(-err);
}

/* rustc is a small program over a large library. */
static int add_rust_parts(struct server *s, struct exe *e)
{
	_cleanup_free_ char *pattern = xasprintf("%s/../../lib/librustc_driver-*.so", e->msg.path);
	_cleanup_free_ char *clean = path_clean("/", pattern);
	glob_t g = {0};
	int found = glob(clean, GLOB_NOSORT, is_no_fact, &g);
	int r = found == 0 || found == GLOB_NOMATCH ? 0 : -EIO;

	for (size_t i = 0; r == 0 && i < g.gl_pathc; i++)
		r = add_part(s, e, g.gl_pathv[i]);
	globfree(&g);
	return r;
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
			r = add_c_parts(s, e);
		else if (strstr(path_base(path), "rustc"))
			r = add_rust_parts(s, e);
		if (r < 0)
			return errmsg_set(msg, r, "can't tell what %s is made of: %s", path,
					  err_text(r));
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
