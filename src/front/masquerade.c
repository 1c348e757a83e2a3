/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "masquerade.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/map.h"
#include "concc/str.h"
#include "concc/wrapper.h"

/* A PATH that has more compilers than this is none that a person wrote; ccache's has some 25. */
#define NAMES_MAX 1024
/* Directories of one place: each new set of compilers makes one, and the oldest goes. */
#define DIRS_MAX 64

struct scan {
	char **names;
	struct map seen;
	const char *cache;
	unsigned flags;
};

/* ---- which names ---- */

/* In what the file ends up after all symlinks; NULL: nowhere. */
static const char *leads_to(const char *path, char real[PATH_MAX])
{
	return realpath(path, real) ? path_base(real) : NULL;
}

static bool is_program(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

static void look_at(struct scan *s, const char *dir, const char *name)
{
	_cleanup_free_ char *path = NULL;
	char real[PATH_MAX];
	const char *base;
	bool is_cache, is_ccache;

	if (!job_is_compiler_name(name) || map_get_str(&s->seen, name) || s->seen.n >= NAMES_MAX ||
	    (!(s->flags & MASQUERADE_RUST) && str_starts(name, "rustc")))
		return;
	path = path_join(dir, name);
	base = is_program(path) ? leads_to(path, real) : NULL;
	if (!base || streq(base, "concc-cc") || streq(base, "concc-dispatch"))
		return;
	/* The first in PATH counts, whatever it is. */
	map_put_str(&s->seen, name, s);
	is_cache = job_is_compiler_cache(base);
	is_ccache = is_cache && str_starts(base, "ccache");
	if (is_cache)
		s->cache = is_ccache ? "ccache" : s->cache ?: "another cache";
	if (!is_cache || (is_ccache && s->flags & MASQUERADE_CCACHE))
		strv_push(&s->names, xstrdup(name));
}

static void scan_dir(struct scan *s, const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		if (e->d_type != DT_DIR)
			look_at(s, dir, e->d_name);
	}
	if (d)
		closedir(d);
}

/* Calls fn for each directory of path_var, but for those of ours. */
static void each_dir(const char *path_var, void (*fn)(void *data, const char *dir), void *data)
{
	for (const char *p = path_var; *p; p += strspn(p, ":")) {
		size_t n = strcspn(p, ":");
		_cleanup_free_ char *dir = xstrndup(p, n);

		if (!masquerade_is(dir))
			fn(data, dir);
		p += n;
	}
}

/* "." is another one in each directory of the build. */
static void scan_absolute(void *data, const char *dir)
{
	if (*dir == '/')
		scan_dir(data, dir);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void put_dir(void *data, const char *dir)
{
	struct buf *out = data;

	buf_putf(out, "%s%s", out->len ? ":" : "", dir);
}

char *masquerade_leave(const char *path_var)
{
	_cleanup_buf_ struct buf out = BUF_INIT;

	each_dir(path_var, put_dir, &out);
	return xstrdup(buf_cstr(&out));
}

/* ---- where ---- */

/* FNV-1a: the same on every run, and nobody's secret. */
static uint64_t hash_more(uint64_t h, const char *s)
{
	do
		h = (h ^ (uint8_t)*s) * 0x100000001b3u;
	while (*s++);
	return h;
}

#define HASH_START 0xcbf29ce484222325u

static int make_link(const char *to, const char *path)
{
	_cleanup_free_ char *beside = xasprintf("%s.%d", path, (int)getpid());
	char now[PATH_MAX];
	ssize_t n = readlink(path, now, sizeof(now) - 1);

	if (n >= 0) {
		now[n] = '\0';
		if (streq(now, to))
			return 0;
	}
	(void)unlink(beside); /* of a former process with this pid */
	if (symlink(to, beside) < 0 || rename(beside, path) < 0)
		return -errno;
	return 0;
}

/* The same bytes and the same time, by which wrapper_installed() knows it again. */
static int copy_file(int from, const struct stat *st, const char *path)
{
	_cleanup_free_ char *beside = xasprintf("%s.%d", path, (int)getpid());
	_cleanup_close_ int to = -1;
	const struct timespec times[2] = {st->st_atim, st->st_mtim};
	_cleanup_free_ char *data = xmalloc((size_t)st->st_size + 1);
	ssize_t n = read_full(from, data, (size_t)st->st_size);
	int r;

	if (n < 0)
		return (int)n;
	(void)unlink(beside);
	to = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
	if (to < 0)
		return -errno;
	r = write_full(to, data, (size_t)n);
	if (r == 0 && (futimens(to, times) < 0 || rename(beside, path) < 0))
		r = -errno;
	if (r < 0)
		(void)unlink(beside);
	return r;
}

/* True: what is executed there may be ours (a file system mounted noexec may not). */
static bool put_copy(const char *installed, const char *path)
{
	_cleanup_close_ int from = open(installed, O_RDONLY | O_CLOEXEC);
	struct stat st, now;

	if (from < 0 || fstat(from, &st) < 0)
		return false;
	if (lstat(path, &now) == 0 && S_ISREG(now.st_mode) && now.st_size == st.st_size &&
	    time_is_same(&now.st_mtim, &st.st_mtim) && access(path, X_OK) == 0)
		return true;
	return copy_file(from, &st, path) == 0 && access(path, X_OK) == 0;
}

/* The directory for this place of concc, with its copy; NULL: not there. */
static char *open_place(const char *base, const char *bin, bool linked)
{
	_cleanup_free_ char *dir = xasprintf("%s/masquerade/%016llx", base,
					     (unsigned long long)hash_more(HASH_START, bin));
	_cleanup_free_ char *cc = path_join(dir, "concc-cc");
	_cleanup_free_ char *project = path_join(dir, "concc-project");
	_cleanup_free_ char *installed_cc = path_join(bin, "concc-cc");
	_cleanup_free_ char *installed_project = path_join(bin, "concc-project");

	if (path_mkdirs(dir, 0700) < 0 || make_link(installed_project, project) < 0)
		return NULL;
	if (linked ? make_link(installed_cc, cc) < 0 : !put_copy(installed_cc, cc))
		return NULL;
	return steal_ptr(&dir);
}

static char *find_place(const char *bin, struct errmsg *msg)
{
	_cleanup_free_ char *cache = NULL, *runtime = NULL;
	char *place = NULL;
	int r;

	if (cache_dir(&cache, NULL) == 0)
		place = open_place(cache, bin, false);
	if (place)
		return place;
	r = runtime_dir_open(&runtime, NULL, msg);
	if (r < 0)
		return NULL;
	place = open_place(runtime, bin, false);
	if (!place)
		place = open_place(runtime, bin, true);
	if (!place)
		errmsg_set(msg, -EACCES, "can't make a masquerade directory in %s or %s",
			   cache ? cache : "the cache directory", runtime);
	return place;
}

/* ---- the directory ---- */

/* Those who wrote down one that was used by no build since DIRS_MAX others were are too late. */
static void drop_oldest(const char *place)
{
	DIR *d = opendir(place);
	_cleanup_free_ char *oldest = NULL;
	struct timespec when = {0};
	struct dirent *e;
	unsigned n = 0;

	while (d && (e = readdir(d))) {
		struct stat st;

		if (*e->d_name == '.' || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
		    !S_ISDIR(st.st_mode))
			continue;
		n++;
		if (oldest &&
		    (st.st_mtim.tv_sec > when.tv_sec ||
		     (st.st_mtim.tv_sec == when.tv_sec && st.st_mtim.tv_nsec >= when.tv_nsec)))
			continue;
		free(oldest);
		oldest = xstrdup(e->d_name);
		when = st.st_mtim;
	}
	if (n > DIRS_MAX)
		(void)path_remove_tree(dirfd(d), oldest); /* next time */
	if (d)
		closedir(d);
}

static int fill(const char *dir, char *const *names)
{
	_cleanup_free_ char *mark = path_join(dir, MASQUERADE_MARK);
	int r;

	if (mkdir(dir, 0755) < 0)
		return -errno;
	r = make_link("../concc-cc", mark);
	for (; r == 0 && *names; names++) {
		_cleanup_free_ char *path = path_join(dir, *names);

		r = make_link("../concc-cc", path);
	}
	return r;
}

/* Whole, or not at all: others make the same one at the same time. */
static int make_dir(const char *place, const char *dir, char *const *names)
{
	_cleanup_free_ char *beside = xasprintf("%s/.new-%d", place, (int)getpid());
	int r;

	(void)path_remove_tree(AT_FDCWD, beside);
	r = fill(beside, names);
	if (r == 0 && rename(beside, dir) < 0)
		r = -errno;
	if (r < 0)
		(void)path_remove_tree(AT_FDCWD, beside);
	return r == -EEXIST || r == -ENOTEMPTY ? 0 : r;
}

static int open_names(const char *place, char *const *names, char **ret, struct errmsg *msg)
{
	uint64_t h = HASH_START;
	_cleanup_free_ char *dir = NULL;
	int r = 0;

	for (char *const *n = names; *n; n++)
		h = hash_more(h, *n);
	dir = xasprintf("%s/%016llx", place, (unsigned long long)h);
	/* So is told which of them are used. */
	if (!masquerade_is(dir) || utimensat(AT_FDCWD, dir, NULL, 0) < 0) {
		r = make_dir(place, dir, names);
		drop_oldest(place);
	}
	if (r < 0)
		return errmsg_set(msg, r, "can't make %s: %s", dir, err_text(r));
	*ret = steal_ptr(&dir);
	return 0;
}

int masquerade_make(const char *path_var, unsigned flags, struct masquerade *ret,
		    struct errmsg *msg)
{
	static char *const none[] = {NULL};
	_cleanup_free_ char *bin = program_dir(), *place = NULL, *cc = NULL;
	struct scan s = {.flags = flags};
	struct masquerade m = {0};
	int r;

	cc = bin ? path_join(bin, "concc-cc") : NULL;
	if (!cc || access(cc, X_OK) < 0)
		return errmsg_set(msg, -ENOENT, "there is no concc-cc in %s, where concc is",
				  bin ? bin : "/proc");
	place = find_place(bin, msg);
	if (!place)
		return -EACCES;
	each_dir(path_var, scan_absolute, &s);
	m.n = (unsigned)strv_len(s.names);
	if (m.n)
		qsort(s.names, m.n, sizeof(*s.names), by_name);
	m.cache = s.cache;
	r = open_names(place, s.names ? s.names : none, &m.dir, msg);
	map_release(&s.seen);
	strv_free(s.names);
	if (r < 0)
		return r;
	m.cc = path_join(place, "concc-cc");
	*ret = m;
	return 0;
}

void masquerade_release(struct masquerade *m)
{
	free(m->dir);
	free(m->cc);
	*m = (struct masquerade){0};
}
