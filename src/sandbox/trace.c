/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "trace.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/map.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "trace_calls.h"

#ifndef GRND_INSECURE
#define GRND_INSECURE 4
#endif

/* A job of more processes may meet a pid again, so directories are not remembered by it. */
#define PIDS_MAX 4096
#define PAGE	 4096 /* memory that can be read may end at a multiple of it */
#define SHORT	 192  /* most names: read at one go */

/* ---- names ---- */

struct trace {
	struct map names; /* letter and path -> the trace itself */
	struct buf bytes; /* the same, as they are told */
	struct map cwds;  /* thread -> char *, its current directory; owned */
	bool moves;	  /* a process changed its directory: nothing is remembered any more */
	bool has_changed; /* names may lead elsewhere than where they led at first */
	struct map ways;  /* of the names since then: letter and path -> the trace itself */
	const char *why;
	struct map known; /* number -> its row */
};

struct trace *trace_new(void)
{
	struct trace *t = xcalloc(1, sizeof(*t));
	size_t n;
	const struct traced_call *calls = traced_calls(&n);

	for (size_t i = 0; i < n; i++)
		(void)map_put_u64(&t->known, (uint64_t)calls[i].nr, (void *)&calls[i]);
	return t;
}

void trace_spoil(struct trace *t, const char *why)
{
	if (!t->why)
		t->why = why;
}

static void add_name(struct trace *t, enum trace_how how, const char *path)
{
	char name[PATH_MAX + 2];
	int n = snprintf(name, sizeof(name), "%c%s", how, path);

	if (n >= (int)sizeof(name) || !trace_name_is_valid(name, (size_t)n)) {
		trace_spoil(t, "long-name");
		return;
	}
	if (map_get(&t->names, name, (size_t)n))
		return;
	if (t->names.n >= PROTO_TRACE_NAMES_MAX ||
	    t->bytes.len + (size_t)n + 1 > PROTO_TRACE_BYTES_MAX) {
		trace_spoil(t, "many-names");
		return;
	}
	(void)map_put(&t->names, name, (size_t)n, t);
	buf_append(&t->bytes, name, (size_t)n + 1);
}

/*
 * Where it leads now.  What is there may have been there before under that name, of which nothing
 * else tells: behind a symlink that the job has made, or behind ".." in a directory.
 */
static void add_way(struct trace *t, enum trace_how how, const char *path)
{
	bool follow = how != TRACE_LOOK && how != TRACE_LINK && how != TRACE_MAKE;
	_cleanup_free_ char *name = xasprintf("%c%s", how, path), *way = NULL;

	if (path_is_below(path, "/proc") || map_get_str(&t->ways, name))
		return;
	(void)map_put_str(&t->ways, name, t);
	way = path_way(path, follow);
	/* A loop leads nowhere, which its name tells. */
	if (way && !streq(way, path))
		add_name(t, how == TRACE_EXEC ? TRACE_READ : how, way);
}

static void add(struct trace *t, enum trace_how how, const char *path)
{
	add_name(t, how, path);
	if (t->has_changed)
		add_way(t, how, path);
}

/* A directory or a symlink is made, or something gets another name. */
static void changes_ways(struct trace *t)
{
	t->has_changed = true;
	map_release(&t->ways);
	t->ways = MAP_INIT;
}

/* Where a link of /proc's leads; false when that is no path any more. */
static bool read_place(const char *link, char ret[PATH_MAX])
{
	ssize_t n = readlink(link, ret, PATH_MAX);

	if (n <= 0 || n >= PATH_MAX || ret[0] != '/')
		return false;
	ret[n] = '\0';
	return !str_ends(ret, " (deleted)");
}

static void forget_cwds(struct trace *t)
{
	char *cwd;
	size_t it = 0;

	while ((cwd = map_next(&t->cwds, &it, NULL)))
		free(cwd);
	map_release(&t->cwds);
	t->cwds = MAP_INIT;
}

static bool current_dir(struct trace *t, pid_t pid, char ret[PATH_MAX])
{
	const char *known = t->moves ? NULL : map_get_u64(&t->cwds, (uint64_t)pid);
	char link[40];

	if (known) {
		memcpy(ret, known, strlen(known) + 1);
		return true;
	}
	(void)snprintf(link, sizeof(link), "/proc/%d/cwd", (int)pid);
	if (!read_place(link, ret))
		return false;
	if (t->cwds.n >= PIDS_MAX)
		t->moves = true;
	if (!t->moves)
		(void)map_put_u64(&t->cwds, (uint64_t)pid, xstrdup(ret));
	return true;
}

static bool place_of_fd(pid_t pid, int fd, char ret[PATH_MAX])
{
	char link[40];

	(void)snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)pid, fd);
	return read_place(link, ret);
}

static bool peek(pid_t pid, uint64_t address, void *p, size_t n)
{
	struct iovec to = {p, n}, from = {(void *)(uintptr_t)address, n};

	return process_vm_readv(pid, &to, 1, &from, 1, 0) == (ssize_t)n;
}

/* Page by page, since the next one may not be there. */
static bool peek_name(pid_t pid, uint64_t address, char ret[PATH_MAX])
{
	size_t have = 0;

	while (have < PATH_MAX) {
		size_t page = PAGE - (address + have) % PAGE, n = have ? page : SHORT;

		n = n < page ? n : page;
		n = n < PATH_MAX - have ? n : PATH_MAX - have;
		if (!peek(pid, address + have, ret + have, n))
			return false;
		if (memchr(ret + have, '\0', n))
			return true;
		have += n;
	}
	return false;
}

static int dir_of(const struct filter_call *c, int arg)
{
	return arg == CALL_NONE ? AT_FDCWD : (int)c->args[arg];
}

/* The absolute path of what is named; false: there is none, or it can't be told, which spoils. */
static bool name_of(struct trace *t, const struct filter_call *c, int dir_arg, int path_arg,
		    char ret[2 * PATH_MAX])
{
	char name[PATH_MAX];
	size_t len;

	if (!c->args[path_arg])
		return false; /* futimens(3); or EFAULT */
	if (!peek_name(c->pid, c->args[path_arg], name)) {
		trace_spoil(t, "memory");
		return false;
	}
	if (name[0] == '\0')
		return false; /* of a descriptor that was opened before, or ENOENT */
	if (name[0] == '/') {
		memcpy(ret, name, strlen(name) + 1);
		return true;
	}
	if (dir_of(c, dir_arg) == AT_FDCWD ? !current_dir(t, c->pid, ret)
					   : !place_of_fd(c->pid, dir_of(c, dir_arg), ret)) {
		/* Relative to what is no directory, or is none any more. */
		trace_spoil(t, "lost-directory");
		return false;
	}
	/* It was named by another name, which may lead elsewhere the next time. */
	if (t->moves || dir_of(c, dir_arg) != AT_FDCWD)
		add(t, TRACE_STAT, ret);
	len = strlen(ret);
	(void)snprintf(ret + len, 2 * PATH_MAX - len, "/%s", name);
	return true;
}

/* ---- what was done ---- */

static void opened(struct trace *t, const char *path, uint64_t flags)
{
	bool creates = (flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL);
	/* With O_TRUNC by O_RDONLY, too, Linux makes it empty. */
	bool writes = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);

	if (flags & O_PATH)
		writes = creates = false;
	if (writes) {
		add(t, TRACE_WRITE, path);
		add(t, TRACE_MAKE, path);
	}

	if (flags & O_NOFOLLOW || creates)
		add(t, TRACE_LOOK, path);
	/* There is nothing, or it fails; or there is nothing in it any more. */
	if (!creates && (flags & O_PATH || !(flags & O_TRUNC)))
		add(t, TRACE_READ, path);
}

static void opened2(struct trace *t, const struct filter_call *c, int arg, const char *path)
{
	struct open_how how;

	if (!peek(c->pid, c->args[arg], &how, sizeof(how)))
		trace_spoil(t, "memory");
	else if (how.resolve & ~(uint64_t)RESOLVE_CACHED)
		trace_spoil(t, "resolve");
	else
		opened(t, path, how.flags);
}

/* Its other threads may share the directory, and name things before it has changed. */
static void changes_dir(struct trace *t, pid_t pid)
{
	char path[32];
	struct stat st;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	if (stat(path, &st) < 0 || st.st_nlink != 3)
		trace_spoil(t, "chdir-in-threads");
	t->moves = true;
	forget_cwds(t);
}

/* Its bytes have another name then, whoever reads them, and the time that they had. */
static void moved(struct trace *t, const char *path)
{
	add(t, TRACE_LOOK, path);
	add(t, TRACE_MAKE, path);
	add(t, TRACE_LINK, path);
	add(t, TRACE_READ, path);
	add(t, TRACE_TIMES, path);
}

static bool is_directory(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool exchanges(const struct filter_call *c, const struct traced_call *r)
{
	return r->nr == SYS_renameat2 && c->args[4] & RENAME_EXCHANGE;
}

static void second_name(struct trace *t, const struct filter_call *c, const struct traced_call *r)
{
	char path[2 * PATH_MAX];
	bool at = r->dir != CALL_NONE;

	if (!name_of(t, c, at ? r->dir + 2 : CALL_NONE, r->path + (at ? 2 : 1), path))
		return;
	if (exchanges(c, r))
		moved(t, path);
	add(t, TRACE_LOOK, path);
	add(t, TRACE_MAKE, path);
	if (is_directory(path))
		add(t, TRACE_LIST, path); /* only an empty one can be replaced */
}

static void listed(struct trace *t, const struct filter_call *c)
{
	char path[PATH_MAX];

	if (place_of_fd(c->pid, (int)c->args[0], path))
		add(t, TRACE_LIST, path);
	else
		trace_spoil(t, "lost-directory");
}

/* To a time that is said, which it may have already. */
static bool sets_some_time(const struct filter_call *c, const struct traced_call *r)
{
	uint64_t times = c->args[r->path + 1];
	struct timespec t[2];

	if (!times)
		return false;
	return r->nr != SYS_utimensat || !peek(c->pid, times, t, sizeof(t)) ||
	       (t[1].tv_nsec != UTIME_NOW && t[1].tv_nsec != UTIME_OMIT);
}

/* What has them already is not changed, and nobody is told of it. */
static void set_times(struct trace *t, const struct filter_call *c, const struct traced_call *r,
		      const char *path)
{
	if (sets_some_time(c, r))
		add(t, TRACE_TIMES, path);
}

/* Its bytes may come home with it: overlayfs copies them, and whether they are the same is not
 * known. */
static void changed(struct trace *t, const char *path, bool nofollow)
{
	add(t, nofollow ? TRACE_LOOK : TRACE_STAT, path);
	add(t, nofollow ? TRACE_MAKE : TRACE_PLACE, path);
	add(t, TRACE_READ, path);
}

static void named(struct trace *t, const struct filter_call *c, const struct traced_call *r,
		  const char *path)
{
	bool nofollow = r->flags != CALL_NONE && c->args[r->flags] & AT_SYMLINK_NOFOLLOW;

	switch ((enum call_kind)r->kind) {
	case CALL_LOOK:
		add(t, TRACE_LOOK, path);
		break;
	case CALL_MAKE:
	case CALL_REMOVE:
	case CALL_REMOVE_DIR:
		add(t, TRACE_LOOK, path);
		add(t, TRACE_MAKE, path);
		if (r->kind == CALL_REMOVE_DIR ||
		    (r->flags != CALL_NONE && c->args[r->flags] & AT_REMOVEDIR))
			add(t, TRACE_LIST, path); /* whether it is empty */
		if (r->kind == CALL_MAKE)
			changes_ways(t);
		break;
	case CALL_CHANGE:
	case CALL_CHANGE_AT:
		changed(t, path, nofollow);
		break;
	case CALL_CHANGE_SELF:
		changed(t, path, true);
		break;
	case CALL_SET_TIMES:
		set_times(t, c, r, path);
		changed(t, path, nofollow);
		break;
	case CALL_FOLLOW:
	case CALL_CHDIR:
		add(t, TRACE_STAT, path);
		break;
	case CALL_AT:
		add(t, nofollow ? TRACE_LOOK : TRACE_STAT, path);
		break;
	case CALL_READ_LINK:
		add(t, TRACE_LINK, path);
		break;
	case CALL_OPEN:
		opened(t, path, c->args[r->flags]);
		break;
	case CALL_OPEN2:
		opened2(t, c, r->flags, path);
		break;
	case CALL_CREATE:
		opened(t, path, O_CREAT | O_WRONLY | O_TRUNC);
		break;
	case CALL_TRUNCATE:
		opened(t, path, O_RDWR);
		break;
	case CALL_EXECUTE:
		add(t, TRACE_EXEC, path);
		break;
	case CALL_TWO:
		moved(t, path);
		second_name(t, c, r);
		changes_ways(t);
		break;
	case CALL_STATFS:
		/* libselinux does, in cp, mkdir and the like. */
		if (streq(path, "/sys/fs/selinux") || streq(path, "/selinux"))
			add(t, TRACE_STAT, path);
		else
			trace_spoil(t, "statfs");
		break;
	case CALL_LIST:
	case CALL_FCHDIR:
	case CALL_RANDOM:
	case CALL_SPOIL:
		break;
	}
}

static void set_times_by_fd(struct trace *t, const struct filter_call *c,
			    const struct traced_call *r)
{
	char path[PATH_MAX];

	/* Of what has no name any more nobody is told. */
	if (place_of_fd(c->pid, (int)c->args[r->dir], path))
		set_times(t, c, r, path);
}

/*
 * Libraries seed their tables by what need not be random, which they say.  Who wants to have it
 * random is told of in a way in which nobody looks at that name.
 */
static void asked_for_random(struct trace *t, uint64_t flags)
{
	if (!(flags & (GRND_NONBLOCK | GRND_INSECURE)))
		add(t, TRACE_LINK, TRACE_GETRANDOM);
}

void trace_call(struct trace *t, const struct filter_call *c)
{
	const struct traced_call *r = map_get_u64(&t->known, (uint64_t)c->nr);
	char path[2 * PATH_MAX];

	if (!r || t->why)
		return; /* of no use any more */
	if (r->kind == CALL_SPOIL)
		trace_spoil(t, r->why);
	else if (r->kind == CALL_LIST)
		listed(t, c);
	else if (r->kind == CALL_SET_TIMES && r->dir != CALL_NONE && !c->args[r->path])
		set_times_by_fd(t, c, r);
	else if (r->kind == CALL_RANDOM)
		asked_for_random(t, c->args[r->flags]);
	else if (r->kind != CALL_FCHDIR && name_of(t, c, r->dir, r->path, path))
		named(t, c, r, path);
	/* An execveat(2) of a descriptor names nothing. */
	else if (r->kind == CALL_EXECUTE)
		trace_spoil(t, "exec-by-descriptor");
	if (r->kind == CALL_CHDIR || r->kind == CALL_FCHDIR)
		changes_dir(t, c->pid);
}

static int by_path(const void *a, const void *b)
{
	const char *x = *(char *const *)a, *y = *(char *const *)b;
	int r = strcmp(x + 1, y + 1);

	return r ? r : x[0] - y[0];
}

/* As they are kept: who has to do with many jobs at once need not sort them, and they pack well. */
static void sort_names(const struct trace *t, struct buf *ret)
{
	_cleanup_free_ char **v = xcalloc(t->names.n + 1, sizeof(*v));
	char *at = (char *)t->bytes.data;

	for (size_t i = 0; i < t->names.n; i++) {
		v[i] = at;
		at += strlen(at) + 1;
	}
	qsort(v, t->names.n, sizeof(*v), by_path);
	for (size_t i = 0; i < t->names.n; i++)
		buf_append(ret, v[i], strlen(v[i]) + 1);
}

int trace_finish(const struct trace *t)
{
	_cleanup_buf_ struct buf names = BUF_INIT;
	_cleanup_close_ int fd = memfd_create("concc-trace", MFD_CLOEXEC);
	const char *why = t->why ? t->why : "";
	int r;

	if (fd < 0)
		return -errno;
	r = write_full(fd, why, strlen(why) + 1);
	if (r == 0 && !t->why) {
		sort_names(t, &names);
		r = write_full(fd, names.data, names.len);
	}
	return r < 0 ? r : steal_fd(&fd);
}
