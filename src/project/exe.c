/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "exe.h"
#include "peer.h"
#include "run.h"
#include "shown.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/process.h"
#include "concc/str.h"

/* Compilers asked for their parts answer in milliseconds; one that does not is not waited for. */
#define ASK_TIMEOUT_MS 2000
/* Calls that are remembered, by program and PATH: beyond that all are looked at anew. */
#define CALLS_MAX 4096

/* A file or directory as it was when the identity was made. */
struct seen {
	char *path;
	struct stat st;
};

struct exes {
	struct map all;	    /* encoded EXE but for its id -> struct exe, owned */
	struct map by_call; /* what decides which it is -> one of those */
	uint32_t next_id;
};

struct exe {
	struct msg_exe msg;
	struct seen *seen; /* while all of them are so, it is the identity */
	size_t n_seen;
	bool young; /* one may change again and look the same: it is looked at anew for each job */
};

/* One job's program, looked at. */
struct look {
	struct peer *peer;
	const struct msg_run *m;
	const char *path; /* PATH of the job */
	bool compiler;
	bool may_link;
	uint64_t deadline_ms; /* for all that is asked */
	struct exe *e;
};

static void forget_seen(struct exe *e)
{
	for (size_t i = 0; i < e->n_seen; i++)
		free(e->seen[i].path);
	free(steal_ptr(&e->seen));
	e->n_seen = 0;
}

static void exe_free(struct exe *e)
{
	if (!e)
		return;
	msg_exe_release(&e->msg);
	forget_seen(e);
	free(e);
}

DEFINE_CLEANUP(struct exe, exe, exe_free);

void exes_free(struct server *s)
{
	struct exe *e;
	size_t it = 0;

	if (!s->exes)
		return;
	while ((e = map_next(&s->exes->all, &it, NULL)))
		exe_free(e);
	map_release(&s->exes->all);
	map_release(&s->exes->by_call);
	free(steal_ptr(&s->exes));
}

/* ---- what a file is ---- */

static bool is_elf(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	char magic[4];

	return fd >= 0 && pread(fd, magic, sizeof(magic), 0) == sizeof(magic) &&
	       memcmp(magic, "\177ELF", sizeof(magic)) == 0;
}

static bool has_text(const char *path, const char *text)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;
	bool found;
	void *p;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= 0)
		return false;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return false;
	found = memmem(p, (size_t)st.st_size, text, strlen(text));
	(void)munmap(p, (size_t)st.st_size);
	return found;
}

/*
 * A driver of GCC or clang, and not what is only called like one: a program that knows the
 * option which it will be asked by (clang's options may be in its library), under such a name
 * at the end of all links, too.  Scripts are none: whatever they do with their arguments.
 */
static bool is_driver(const char *path)
{
	_cleanup_free_ char *real = job_is_driver_name(path) ? realpath(path, NULL) : NULL;

	return real && job_is_driver_name(real) && is_elf(real) &&
	       (has_text(real, "print-prog-name") || has_text(real, "libclang-cpp.so"));
}

/* ---- the files of an identity ---- */

static bool is_known(const struct exe *e, const char *path)
{
	for (uint32_t i = 0; i < e->msg.n_files; i++) {
		if (streq(e->msg.files[i].path, path))
			return true;
	}
	return false;
}

static void add_seen(struct exe *e, const char *path, const struct stat *st)
{
	e->seen = xrealloc(e->seen, (e->n_seen + 1) * sizeof(*e->seen));
	e->seen[e->n_seen++] = (struct seen){xstrdup(path), *st};
}

/* Adds path, if it is a file, with its digest (from the cache when it is known). */
static int add_file(struct look *l, const char *path)
{
	struct hash_cache *hashes = l->peer->server->hashes;
	/* Not a file any more by now?  Then opening must not wait. */
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct msg_exe *m = &l->e->msg;
	int64_t since = clock_ns();
	struct digest d;
	struct stat st;
	bool young;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (m->n_files >= PROTO_EXE_FILES_MAX)
		return CONCC_E_TOOBIG;
	young = stat_is_racy(&st, since, fs_is_network(fd));
	l->e->young |= young;
	if (!hash_cache_get(hashes, &st, &d)) {
		r = digest_of_fd(fd, &d, NULL);
		if (r < 0)
			return r;
		if (!young)
			hash_cache_put(hashes, &st, &d);
	}
	m->files = xrealloc(m->files, (m->n_files + 1) * sizeof(*m->files));
	add_seen(l->e, path, &st);
	m->files[m->n_files++] = (struct exe_file){.path = xstrdup(path), .digest = d};
	return 0;
}

/* The same for what need not be there, on neither side; what is served is the same on both. */
static int add_part(struct look *l, const char *path)
{
	_cleanup_free_ char *clean = path_clean("/", path);
	int r;

	if (is_known(l->e, clean) || run_serves_exe(l->peer, clean))
		return 0;
	/* One that is not there is left out on both sides; one that can't be read now is not. */
	r = add_file(l, clean);
	return err_is_fact(r) || r == -EINVAL ? 0 : r;
}

/* By an absolute path, whatever PATH has. */
static char *find_program(const char *name, const char *path_var, const char *cwd,
			  bool (*skip)(const char *path, void *data))
{
	_cleanup_free_ char *found = job_resolve(name, path_var, cwd, skip, NULL);

	return found ? job_exe(found, cwd) : NULL;
}

char *exe_part(const char *part, const char *answer, const char *path, const char *cwd)
{
	_cleanup_free_ char *line = xstrndup(answer, strcspn(answer, "\n"));

	if (*line == '/')
		return steal_ptr(&line);
	/* No place of its own for it: it takes what PATH has. */
	return streq(line, part) ? find_program(part, path, cwd, NULL) : NULL;
}

/* Where a driver finds this part of it, or NULL; negative when it can't be asked now. */
static int ask_part(const struct look *l, const char *driver, const char *part, char **ret)
{
	_cleanup_free_ char *arg = xasprintf("-print-prog-name=%s", part);
	_cleanup_buf_ struct buf answer = BUF_INIT;
	char *argv[] = {(char *)driver, arg, NULL};
	char *env[] = {(char *)"PATH=/usr/local/bin:/usr/bin:/bin", (char *)"LC_ALL=C", NULL};
	int r = process_ask(argv, env, PROTO_PATH_MAX, l->deadline_ms, &answer, NULL);

	*ret = NULL;
	/* One that can't be executed, or says too much or too late, is none to be asked. */
	if (r < 0)
		return r > -4096 && !err_is_fact(r) && r != -ENOEXEC ? r : 0;
	*ret = exe_part(part, buf_cstr(&answer), l->path, l->m->cwd);
	return 0;
}

/*
 * The driver is not the compiler: cc1 and as make the object, ld the program, and a distribution
 * may update them without it.  What is not found is left out on both sides.
 */
static int add_c_parts(struct look *l, const char *driver)
{
	static const char *const parts[] = {"cc1", "cc1plus", "as", "collect2", "ld"};
	size_t n = l->may_link ? 5 : 3;
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		_cleanup_free_ char *path = NULL, *dir = NULL;
		struct stat st;

		r = ask_part(l, driver, parts[i], &path);
		if (!path)
			continue;
		dir = path_clean(path, "..");
		r = add_part(l, path);
		/* Where others appear when a package is installed: cc1plus beside cc1. */
		if (i == 0 && stat(dir, &st) == 0)
			add_seen(l->e, dir, &st);
	}
	return r;
}

/* For glob(3): the directories that can't be read for want of something end it. */
static int is_no_fact(const char *path, int err)
{
	return !err_is_fact(-err);
}

/* rustc is a small program over a large library. */
static int add_rust_parts(struct look *l, const char *rustc)
{
	_cleanup_free_ char *pattern = xasprintf("%s/../../lib/librustc_driver-*.so", rustc);
	_cleanup_free_ char *clean = path_clean("/", pattern);
	glob_t g = {0};
	int found = glob(clean, GLOB_NOSORT, is_no_fact, &g);
	int r = found == 0 || found == GLOB_NOMATCH ? 0 : -EIO;

	for (size_t i = 0; i < g.gl_pathc && r == 0; i++)
		r = add_part(l, g.gl_pathv[i]);
	globfree(&g);
	return r;
}

/* ---- compilers that the program may run in turn ---- */

static bool is_no_driver(const char *path, void *data)
{
	return !is_driver(path);
}

static bool is_no_elf(const char *path, void *data)
{
	return !is_elf(path);
}

static int add_found(struct look *l, const char *name, const char *path_var)
{
	bool rust = streq(name, "rustc");
	_cleanup_free_ char *found = find_program(name, path_var, l->m->cwd,
						  rust ? is_no_elf : is_no_driver);
	int r;

	if (!found || is_known(l->e, found))
		return 0;
	r = add_part(l, found);
	if (r == 0)
		r = rust ? add_rust_parts(l, found) : add_c_parts(l, found);
	return r;
}

/* Which it runs nobody knows: so each that it finds by a usual name, or by its own. */
static int add_compilers(struct look *l, enum job_family family)
{
	static const char *const c[] = {"cc", "c++", "gcc", "g++", "clang", "clang++"};
	static const char *const system_path = "/usr/bin:/bin";
	int r = 0;

	if (family == JOB_FAMILY_RUST)
		return add_found(l, "rustc", l->path);
	for (size_t i = 0; i < sizeof(c) / sizeof(*c) && r == 0; i++) {
		r = add_found(l, c[i], l->path);
		if (r == 0)
			r = add_found(l, c[i], system_path);
	}
	return r < 0 ? r : add_found(l, path_base(l->m->argv[0]), l->path);
}

static int add_parts(struct look *l)
{
	enum job_family family = job_family(l->m->argv);
	const char *path = l->m->exe;

	if (is_driver(path))
		return add_c_parts(l, path);
	if (family == JOB_FAMILY_RUST && is_elf(path))
		return add_rust_parts(l, path);
	if (family == JOB_FAMILY_ALONE || (family == JOB_FAMILY_OTHER && is_elf(path)))
		return 0;
	return add_compilers(l, family);
}

/*
 * The very files of this machine: what is mounted on them, mounted.h compares.  A program that is
 * not ours may take jobs wherever it likes.
 */
static bool has_our_programs(const struct peer *p)
{
	return p->conf->root == ROOT_CLIENT ||
	       (shown_sees_this_system(p) && !p->conf->worker_program);
}

static int look(struct look *l, struct errmsg *msg)
{
	const char *path = l->m->exe;
	int r = 0;

	l->e->msg.path = xstrdup(path);
	if (has_our_programs(l->peer))
		return 0; /* there is nothing there that is not from here */
	if (!run_serves_exe(l->peer, path))
		r = add_file(l, path);
	if (r == 0 && l->compiler)
		r = add_parts(l);
	return r < 0 ? errmsg_set(msg, r, "can't read %s: %s", path, err_text(r)) : 0;
}

/* ---- what is known already ---- */

static bool is_current(const struct exe *e)
{
	if (e->young)
		return false;
	for (size_t i = 0; i < e->n_seen; i++) {
		if (!file_is_unchanged(e->seen[i].path, &e->seen[i].st))
			return false;
	}
	return true;
}

/* What decides which files they are, but for the files themselves. */
static void put_call(const struct look *l, struct buf *key)
{
	bool all_ours = has_our_programs(l->peer);
	bool ours = all_ours || run_serves_exe(l->peer, l->m->exe);

	buf_put_u8(key, ours);
	buf_put_u8(key, (uint8_t)l->peer->conf->root);
	buf_put_u8(key, l->compiler);
	buf_put_str(key, l->m->exe);
	if (!l->compiler || all_ours)
		return;
	buf_put_u8(key, (uint8_t)job_family(l->m->argv));
	buf_put_u8(key, l->may_link);
	buf_put_str(key, path_base(l->m->argv[0]));
	buf_put_str(key, l->path);
}

/* The one with the same files, which workers know already, or else e; takes e. */
static struct exe *keep(struct server *s, struct exe *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct exe *known;

	msg_exe_encode(&b, &e->msg);
	known = map_get(&s->exes->all, b.data, b.len);
	if (!known) {
		map_put(&s->exes->all, b.data, b.len, e);
		e->msg.exe_id = ++s->exes->next_id;
		return e;
	}
	forget_seen(known);
	known->n_seen = e->n_seen;
	known->seen = steal_ptr(&e->seen);
	known->young = e->young;
	e->n_seen = 0;
	exe_free(e);
	return known;
}

static const char *path_of(char *const *env)
{
	while (*env && !str_starts(*env, "PATH="))
		env++;
	return *env ? *env + strlen("PATH=") : "";
}

const struct msg_exe *exe_msg(const struct exe *e)
{
	return &e->msg;
}

int exe_get(struct peer *p, const struct msg_run *m, struct exe **ret, struct errmsg *msg)
{
	struct server *s = p->server;
	_cleanup_(cleanup_exe) struct exe *e = NULL;
	_cleanup_buf_ struct buf call = BUF_INIT;
	struct look l = {
		.peer = p,
		.m = m,
		.path = path_of(m->env),
		.compiler = m->flags & JOB_F_COMPILER,
		.may_link = job_may_link(m->argv),
		.deadline_ms = now_ms() + ASK_TIMEOUT_MS,
	};
	struct exe *known;
	int r;

	if (!s->exes)
		s->exes = xcalloc(1, sizeof(*s->exes));
	put_call(&l, &call);
	known = map_get(&s->exes->by_call, call.data, call.len);
	/* It is there if it is what was seen first; with a client's root nothing was. */
	if (!(known && known->n_seen && streq(known->seen[0].path, m->exe)) &&
	    access(m->exe, F_OK) < 0)
		return errmsg_set(msg, -errno, "can't find %s: %s", m->exe, err_text(-errno));
	if (known && is_current(known)) {
		*ret = known;
		return 0;
	}
	e = l.e = xcalloc(1, sizeof(*e));
	r = look(&l, msg);
	if (r < 0)
		return r;
	*ret = keep(s, steal_ptr(&e));
	if (s->exes->by_call.n >= CALLS_MAX)
		map_release(&s->exes->by_call);
	map_put(&s->exes->by_call, call.data, call.len, *ret);
	return 0;
}
