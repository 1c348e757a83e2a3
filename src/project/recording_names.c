/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Which of the names that a job passed to the kernel count, and what else the kernel looked at. */
#include "recording.h"
#include "elf_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/str.h"

#define INTERPRETERS_MAX 4 /* of scripts, of scripts ... */
#define LOADERS_MAX	 4096
#define LINKS_MAX	 40
#define SELINUX		 "/sys/fs/selinux"

static bool has_dotdot(const char *path)
{
	return strstr(path, "/../") || str_ends(path, "/..");
}

/* Where its stack is, what memory it has, and how many processors; names for its linker's files. */
static bool says_nothing_to_rustc(const char *path)
{
	static const char *const paths[] = {
		"/dev/urandom",
		"/proc/self/maps",
		"/proc/self/statm",
		"/proc/self/cgroup",
		"/proc/self/mountinfo",
		"/proc/cpuinfo",
		"/sys/kernel/mm/transparent_hugepage/enabled",
	};

	for (size_t i = 0; i < N_OF(paths); i++)
		if (streq(path, paths[i]))
			return true;
	return (path_is_below(path, "/sys/fs/cgroup") ||
		path_is_below(path, "/sys/devices/system/cpu")) &&
	       !has_dotdot(path);
}

/* What is the same for each process of each machine, or says nothing that a compiler keeps. */
static bool is_constant(const struct recording *r, const char *path)
{
	static const char *const paths[] = {
		"/dev/null",
		"/dev/zero",
		"/dev/full",
		"/dev/tty",
		"/proc/self/fd",
		"/proc/sys/vm/overcommit_memory",
		"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", /* every program in Go */
	};

	for (size_t i = 0; i < N_OF(paths); i++)
		if (streq(path, paths[i]))
			return true;
	if (r->asks_selinux && (streq(path, SELINUX) || streq(path, "/proc/filesystems")))
		return true;
	if (r->rust && says_nothing_to_rustc(path))
		return true;
	/* How many there are decides what some commands do. */
	return !r->any && str_starts(path, "/sys/devices/system/cpu/") && !has_dotdot(path);
}

static bool is_in_workspace(const struct recording *r, const char *path)
{
	for (char **w = r->entry.workspaces; w && *w; w++)
		if (path_is_below(path, *w))
			return true;
	return false;
}

/* clang finds out so what its headers are really called. */
static bool is_own_descriptor(const char *name)
{
	static const char dir[] = "/proc/self/fd/";
	const char *path = name + 1;

	return name[0] == TRACE_LINK && str_starts(path, dir) &&
	       strspn(path + strlen(dir), "0123456789") == strlen(path + strlen(dir));
}

/* Each job has a /tmp of its own, in which there is nothing. */
static bool is_private(const struct recording *r, const char *path)
{
	return (path_is_below(path, "/tmp") || path_is_below(path, "/var/tmp")) &&
	       !is_in_workspace(r, path);
}

static bool is_special(const char *path)
{
	return path_is_below(path, "/proc") || path_is_below(path, "/sys") ||
	       path_is_below(path, "/dev");
}

/* Compilers read these for the time, and for nothing else; others when they show one. */
static bool tells_time(const char *path)
{
	return streq(path, "/etc/localtime") || path_is_below(path, "/usr/share/zoneinfo");
}

/* Does something look for the time zone as it starts, whatever it does then? */
static bool has_python(const struct recording *r)
{
	for (size_t i = 0; i < r->names.n; i++)
		if (r->names.v[i][0] == TRACE_EXEC &&
		    str_starts(path_base(r->names.v[i] + 1), "python"))
			return true;
	return false;
}

/* Compilers have the time zone for __DATE__, and random bytes for the names of temporary files. */
void recording_check_unforeseen(struct recording *r)
{
	if (r->asks_random && r->unknown && !r->rust)
		recording_uncacheable(r, "random");
	if (r->asks_time && (r->any && !r->rust ? !has_python(r) : !r->has_epoch))
		recording_uncacheable(r, "time");
}

static bool is_not_listed(const struct recording *r, const char *path)
{
	for (char **d = r->not_listed; d && *d; d++)
		if (streq(*d, path))
			return true;
	return false;
}

/* Is it at none of the places of which something is known here?  Mostly it is not. */
static bool is_elsewhere(const char *path)
{
	switch (path[1]) {
	case 'd':
		return !str_starts(path, "/dev");
	case 'e':
		return !str_starts(path, "/etc/localtime");
	case 'p':
		return !str_starts(path, "/proc");
	case 's':
		return !str_starts(path, "/sys");
	case 't':
		return !str_starts(path, "/tmp");
	case 'u':
		return !str_starts(path, "/usr/share/zoneinfo");
	case 'v':
		return !str_starts(path, "/var/tmp");
	}
	return true;
}

/* Does it count, at such a place?  May spoil. */
static bool counts_there(struct recording *r, const char *name)
{
	const char *path = name + 1;

	if (streq(path, "/proc/self/exe")) {
		r->wants_exe = true;
		return false;
	}
	if (name[0] == TRACE_LINK && streq(path, TRACE_GETRANDOM)) {
		r->asks_random = true;
		return false;
	}
	if (is_constant(r, path))
		return false;
	if (is_own_descriptor(name)) {
		r->wants_places = true;
		return false;
	}
	if (is_private(r, path)) {
		if (has_dotdot(path))
			recording_uncacheable(r, "tmp");
		return false;
	}
	if (is_special(path))
		recording_uncacheable(r, path_is_below(path, "/dev") ? "device" : "proc");
	if (tells_time(path) && name[0] == TRACE_READ)
		r->asks_time = true;
	return true;
}

/* Does it count?  May spoil. */
static bool counts(struct recording *r, const char *name)
{
	const char *path = name + 1;

	if (name[0] == TRACE_LIST && is_not_listed(r, path))
		return false;
	if (!is_elsewhere(path) && !counts_there(r, name))
		return false;
	if (name[0] == TRACE_EXEC && !r->any && !cache_knows_tool(path))
		recording_uncacheable(r, "unknown-tool");
	return true;
}

void recording_choose_names(struct recording *r)
{
	size_t kept = 0;

	for (size_t i = 0; i < r->names.n && !r->asks_selinux; i++)
		r->asks_selinux = r->names.v[i][2] == 's' && streq(r->names.v[i] + 1, SELINUX);
	for (size_t i = 0; i < r->names.n; i++) {
		char *name = r->names.v[i];

		if (counts(r, name))
			r->names.v[kept++] = name;
	}
	r->names.n = kept;
}

static bool is_opened(const char *name)
{
	return name[0] == TRACE_READ || name[0] == TRACE_WRITE || name[0] == TRACE_EXEC;
}

static bool shows_times(const char *name)
{
	return name[0] == TRACE_LOOK || name[0] == TRACE_STAT || name[0] == TRACE_READ ||
	       name[0] == TRACE_EXEC;
}

/* What a command did with the times that it was told of nobody knows. */
void recording_add_times(struct recording *r)
{
	size_t n = 0;
	char **more = xcalloc(r->names.n + 1, sizeof(*more)), **v = r->names.v;

	for (size_t i = 0; i < r->names.n; i++)
		if (shows_times(v[i]))
			more[n++] = xasprintf("%c%s", TRACE_TIMES, v[i] + 1);
	cache_names_add(&r->names, more, n);
	if (r->names.n > CACHE_NAMES_MAX)
		recording_uncacheable(r, "many-names");
}

/* Of which descriptor it asked is not known: of each.  Nor which of its programs did. */
void recording_add_places(struct recording *r)
{
	size_t n = 0;
	char **more = xcalloc(r->names.n + 1, sizeof(*more)), **v = r->names.v;

	for (size_t i = 0; i < r->names.n; i++)
		if (r->wants_places ? is_opened(v[i]) : v[i][0] == TRACE_EXEC)
			more[n++] = xasprintf("%c%s", TRACE_PLACE, v[i] + 1);
	cache_names_add(&r->names, more, n);
	if (r->names.n > CACHE_NAMES_MAX)
		recording_uncacheable(r, "many-names");
}

static bool makes_something(const struct recording *r)
{
	for (size_t i = 0; i < r->names.n; i++)
		if (r->names.v[i][0] == TRACE_MAKE)
			return true;
	return false;
}

/* What a command makes it may come upon by other names, which led nowhere before. */
void recording_add_ways(struct recording *r)
{
	char **more = xcalloc(r->names.n + 1, sizeof(*more)), **v = r->names.v;
	size_t n_seen = makes_something(r) ? r->names.n : 0, n = 0;
	struct stat st;

	for (size_t i = 0; i < n_seen; i++)
		if ((!i || !streq(v[i] + 1, v[i - 1] + 1)) && stat(v[i] + 1, &st) < 0)
			more[n++] = xasprintf("%c%s", TRACE_WAY, v[i] + 1);
	cache_names_add(&r->names, more, n);
	if (r->names.n > CACHE_NAMES_MAX)
		recording_uncacheable(r, "many-names");
}

/* ---- outputs ---- */

static struct msg_file *file_at(const struct recording *r, const char *path)
{
	for (size_t i = 0; i < r->entry.n_effects; i++) {
		struct msg_file *f = &r->entry.effects[i];
		_cleanup_free_ char *at = recording_path_of(r, f);

		if (f->kind == EFFECT_FILE && streq(at, path))
			return f;
	}
	return NULL;
}

/* What a job has left at path; opened: by this name.  That it can be run it may have from what was
 * there before. */
static char how_left(const struct recording *r, struct msg_file *f, const char *path, bool opened)
{
	struct stat st;

	if (!opened) {
		f->flags |= EFFECT_F_REPLACED; /* whatever is there the next time */
		return TRACE_OUTPUT_MOVED;
	}
	if (f->mode == (0777 & ~r->umask))
		return lstat(path, &st) < 0 && errno == ENOENT ? TRACE_OUTPUT_EXEC : 0;
	return f->mode == (0666 & ~r->umask) ? TRACE_OUTPUT : 0;
}

/*
 * A macro that rustc calls may write, too, and not do so when there is something; what rustc itself
 * makes it makes in one directory, and of that it reads what it has just made.  What a preprocessor
 * is asked for, with __has_include, it opens.
 */
static char output_of(const struct recording *r, const char *name, bool opened)
{
	_cleanup_free_ char *path = has_dotdot(name) ? NULL : path_clean("/", name);
	_cleanup_free_ char *dir = path ? path_parent(path) : NULL;
	struct msg_file *f;

	if (!path || (r->rust && (!r->out_dir || !streq(dir, r->out_dir))))
		return 0;
	f = file_at(r, path);
	return f ? how_left(r, f, path, opened) : 0;
}

void recording_add_outputs(struct recording *r)
{
	char **more = xcalloc(1, sizeof(*more)), **v = r->names.v;

	for (size_t i = 0, end; i < r->names.n && (r->rust || !r->unknown); i = end) {
		bool made = false, read = false, opened = false;
		char how;

		for (end = i; end < r->names.n && streq(v[end] + 1, v[i] + 1); end++) {
			made |= v[end][0] == TRACE_MAKE;
			opened |= v[end][0] == TRACE_WRITE;
			read |= v[end][0] == TRACE_READ || v[end][0] == TRACE_EXEC;
		}
		how = made && (!read || r->rust) ? output_of(r, v[i] + 1, opened) : 0;
		if (how)
			strv_push(&more, xasprintf("%c%s", how, v[i] + 1));
	}
	cache_names_add(&r->names, more, strv_len(more));
	if (r->names.n > CACHE_NAMES_MAX)
		recording_uncacheable(r, "many-names");
}

/* ---- programs ---- */

/* The loader that the kernel reads for this program, on the heap; NULL: none, or *ret_bad. */
static char *loader_of(const char *path, bool *ret_bad)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	char *loader = NULL;

	*ret_bad = fd < 0 || elf_loader(fd, &loader) < 0;
	return loader;
}

/* The same of a program that has these bytes, borrowed; it is the same for all that have. */
static const char *known_loader(struct results *all, const char *path, const struct digest *d,
				bool *ret_bad)
{
	char *loader = map_get(&all->loaders, d->b, DIGEST_SIZE);

	*ret_bad = false;
	if (!loader) {
		loader = loader_of(path, ret_bad);
		if (*ret_bad)
			return NULL;
		if (all->loaders.n >= LOADERS_MAX)
			results_forget_loaders(all);
		loader = loader ?: xstrdup("");
		(void)map_put(&all->loaders, d->b, DIGEST_SIZE, loader);
	}
	return *loader ? loader : NULL;
}

/*
 * ccache and its like are called by the names of compilers, too, and read what those don't.  This
 * leads to a regular file; how that is called only the symlinks that the path ends with tell.
 */
static bool is_known_at_last(const char *path)
{
	char at[PATH_MAX], target[PATH_MAX];
	size_t dir, len = strlen(path);

	if (len >= sizeof(at))
		return false;
	memcpy(at, path, len + 1);
	for (unsigned n_links = 0; n_links < LINKS_MAX; n_links++) {
		ssize_t n = readlink(at, target, sizeof(target));

		if (n < 0)
			return errno == EINVAL && cache_knows_tool(at);
		dir = n && target[0] == '/' ? 0 : (size_t)(path_base(at) - at);
		if (dir + (size_t)n >= sizeof(at))
			return false;
		memcpy(at + dir, target, (size_t)n);
		at[dir + (size_t)n] = '\0';
	}
	return false;
}

/* What runs this script, on the heap; NULL: that can't be told, or depends on the directory. */
static char *interpreter_of(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	char line[PATH_MAX];
	ssize_t n = fd < 0 ? -1 : pread(fd, line, sizeof(line) - 1, 0);
	char *name = line + 2;

	if (n < 3)
		return NULL;
	line[n] = '\0';
	name += strspn(name, " \t");
	n = (ssize_t)strcspn(name, " \t\n");
	return *name == '/' && name[n] ? xstrndup(name, (size_t)n) : NULL;
}

/* Of a program's words: it may be a worker's.  False: it is not to be looked at. */
static bool add_name(struct recording *r, char ***more, char how, const char *path)
{
	char *name = xasprintf("%c%s", how, path);

	strv_push(more, name);
	if (tree_names_trigger(r->server->tree, &name, 1))
		recording_uncacheable(r, "automount");
	return !r->why;
}

/* What the kernel opens by itself for an exec is no call of the job's. */
static void look_at_elf(struct recording *r, const char *path, const struct digest *d, char ***more)
{
	bool bad;
	const char *loader = known_loader(r->results, path, d, &bad);

	if (bad)
		recording_uncacheable(r, "loader");
	else if (loader)
		add_name(r, more, TRACE_READ, loader);
}

/* Scripts of scripts are followed as far as the kernel does.  0 or CONCC_E_LATER. */
static int look_at_program(struct recording *r, const char *path, char ***more, unsigned depth)
{
	struct digest d;
	struct stat st;
	unsigned facts;
	int err;

	if (stat(path, &st) < 0)
		return 0; /* looked for in PATH */
	if (!S_ISREG(st.st_mode))
		return 0;
	err = results_facts(r->results, path, &st, &d, &facts);
	if (err == CONCC_E_LATER)
		return err;
	if (err < 0) {
		recording_uncacheable(r, "unreadable");
		return 0;
	}
	if (facts & FACT_ELF && is_known_at_last(path)) {
		look_at_elf(r, path, &d, more);
		return 0;
	}
	r->unknown = true;
	if (r->any && facts & FACT_SCRIPT && depth < INTERPRETERS_MAX) {
		_cleanup_free_ char *by = interpreter_of(path);

		if (!by) {
			recording_uncacheable(r, "script");
			return 0;
		}
		return add_name(r, more, TRACE_EXEC, by) ? look_at_program(r, by, more, depth + 1)
							 : 0;
	}
	if (r->any && facts & FACT_ELF) {
		look_at_elf(r, path, &d, more);
	} else {
		recording_uncacheable(r, facts & FACT_ELF ? "unknown-tool" : "script");
	}
	return 0;
}

int recording_look_at_programs(struct recording *r)
{
	char **more = xcalloc(1, sizeof(*more));
	bool later = false;

	for (size_t i = 0; i < r->names.n && !r->why; i++) {
		const char *name = r->names.v[i];

		if (name[0] == TRACE_EXEC)
			later |= look_at_program(r, name + 1, &more, 0) < 0;
	}
	if (later && !r->why) {
		strv_free(more);
		return CONCC_E_LATER;
	}
	cache_names_add(&r->names, more, strv_len(more));
	return 0;
}
