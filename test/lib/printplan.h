/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_PRINTPLAN_H
#define CONCC_TEST_PRINTPLAN_H

/*
 * Chooses operations (printops.h) at random, looks at the tree for it, and does
 * each at once: what it writes down is a script that others can repeat.
 *
 * It leaves out what doc/limits.md says is different in a job, and nothing else:
 *
 *   - the names of one of the client's files are files of their own in a job.  So
 *     when one was written to, the others are not looked at any more; and none is
 *     renamed or removed when that would take the bytes, or the link, with it.
 *   - a directory is moved as mv(1) does between file systems, so only one whose
 *     files nobody has open and which have no names elsewhere.
 *   - fifos and symbolic links have one name.
 *   - times: what was written by the clock is in order, see plan_times().
 *
 * With PLAN_AT_WORKER also what a job runs here for: no file gets a further name, which would be
 * one of the client's in the next round, and no directory of the client's is moved.
 */
#include <sys/resource.h>

#include "printops.h"

enum plan_flags {
	PLAN_SHARED = 1 << 0,	 /* somebody else has names in the topmost directories */
	PLAN_AT_WORKER = 1 << 1, /* nothing that runs here: see below */
	PLAN_ENDS_WELL = 1 << 2, /* by no signal */
	PLAN_CLOSED =
		1 << 3, /* directories get other modes, are closed to their owner and opened */
	PLAN_LINKED = 1 << 4, /* files of the client's get further names, and are asked about */
};

static uint64_t plan_rng;
static unsigned plan_flags;
static FILE *plan_script;
static char plan_root[PATH_MAX];
static unsigned n_syncs, n_ops;

static uint32_t below(uint32_t n)
{
	return (uint32_t)(next_random(&plan_rng) % n);
}

static void plan_seed(uint64_t seed)
{
	plan_rng = seed * 0x9E3779B97F4A7C15u + 1;
	below(2);
	below(2);
}

/* ---- files, whatever their names ---- */

enum times { TIME_ANY, TIME_OLD, TIME_SET, TIME_CLOCK };

/* Held open, so that no other file gets its number. */
struct file {
	int fd;
	struct stat st;	 /* of when it was found */
	bool clients;	 /* was there before the job */
	bool several;	 /* and had several names then */
	bool linked;	 /* got one more */
	char first[128]; /* one of its names */
	enum times times;
	struct timespec set;
	const struct file *as; /* TIME_OLD: whose time it has, itself at first */
	unsigned tick;	       /* TIME_CLOCK: the later the higher; equal: the same time */
};

#define FILES_MAX 4000
static struct file files[FILES_MAX];
static size_t n_files;
static unsigned n_ticks;

static struct file *file_of(const struct stat *st)
{
	for (size_t i = 0; i < n_files; i++)
		if (files[i].st.st_ino == st->st_ino && files[i].st.st_dev == st->st_dev)
			return &files[i];
	return NULL;
}

static struct file *file_at(const char *path, bool follow)
{
	struct stat st;

	if (fstatat(AT_FDCWD, path, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
		return NULL;
	return file_of(&st);
}

static struct file *find_file(const char *path, const struct stat *st, bool clients)
{
	struct file *f = file_of(st);

	if (f)
		return f;
	if (n_files == FILES_MAX) {
		fprintf(stderr, "printing: too many files\n");
		exit(2);
	}
	f = &files[n_files++];
	*f = (struct file){
		.fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC),
		.st = *st,
		.clients = clients,
		.several = clients && !S_ISDIR(st->st_mode) && st->st_nlink > 1,
		.times = clients ? TIME_OLD : TIME_CLOCK,
		.tick = ++n_ticks,
	};
	f->as = f;
	snprintf(f->first, sizeof(f->first), "%s", path);
	return f;
}

/* ---- names of the client's files that have several ---- */

struct name {
	char path[128];
	const struct file *file;
	size_t kin; /* the name in the client's tree that it was linked from, or itself: its index
		     */
	bool gone;
	bool written; /* of a kin's first: it or a name that is linked to it */
};

#define NAMES_MAX 1000
static struct name names[NAMES_MAX];
static size_t n_names;

static struct name *name_at(const char *path)
{
	for (size_t i = 0; i < n_names; i++)
		if (!names[i].gone && strcmp(names[i].path, path) == 0)
			return &names[i];
	return NULL;
}

static struct name *add_name(const char *path, const struct file *f)
{
	struct name *n = &names[n_names];

	if (n_names == NAMES_MAX) {
		fprintf(stderr, "printing: too many names\n");
		exit(2);
	}
	*n = (struct name){.file = f, .kin = n_names++};
	snprintf(n->path, sizeof(n->path), "%s", path);
	return n;
}

/* Names of the same file that are other files in a job. */
static unsigned strangers(const struct name *n)
{
	unsigned count = 0;

	for (size_t i = 0; i < n_names; i++)
		count += !names[i].gone && names[i].file == n->file && names[i].kin != n->kin;
	return count;
}

static unsigned kin(const struct name *n)
{
	unsigned count = 0;

	for (size_t i = 0; i < n_names; i++)
		count += !names[i].gone && names[i].kin == n->kin;
	return count;
}

static bool is_written(const struct file *f)
{
	for (size_t i = 0; i < n_names; i++)
		if (names[i].file == f && names[i].written)
			return true;
	return false;
}

/* ---- the tree ---- */

static bool is_dir(const char *p)
{
	struct stat st;

	return lstat(p, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Without "./", which the walk begins with. */
static const char *bare(const char *p)
{
	return strncmp(p, "./", 2) == 0 ? p + 2 : p;
}

static void each_path(const char *dir, void (*fn)(const char *path, const struct stat *st))
{
	char **v = look_names(dir, 0), child[PATH_MAX];
	struct stat st;

	for (char **n = v; n && *n; n++) {
		snprintf(child, sizeof(child), "%s/%s", dir, *n);
		if (lstat(child, &st) < 0)
			continue;
		fn(bare(child), &st);
		if (S_ISDIR(st.st_mode))
			each_path(child, fn);
	}
	look_free(v);
}

static void learn_before(const char *path, const struct stat *st)
{
	struct file *f = find_file(path, st, true);

	if (f->several)
		add_name(path, f);
}

static void learn_new(const char *path, const struct stat *st)
{
	(void)find_file(path, st, false);
}

/*
 * The name of the entry that path leads to, or would: all symbolic links on the way followed,
 * and the last one as well if follow is true.  False when it leads nowhere.
 */
static bool resolve(const char *path, bool follow, char *ret, size_t n)
{
	char dir[PATH_MAX], proc[64], to[PATH_MAX];
	const char *base = strrchr(path, '/');
	size_t root = strlen(plan_root);
	ssize_t len;
	int fd;

	snprintf(dir, sizeof(dir), "%.*s", follow ? INT_MAX : base ? (int)(base - path) : 0, path);
	fd = open(*dir ? dir : ".", O_PATH | O_CLOEXEC);
	if (fd < 0)
		return false;
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	len = readlink(proc, to, sizeof(to) - 1);
	close(fd);
	if (len < (ssize_t)root)
		return false;
	to[len] = '\0';
	if (follow)
		snprintf(ret, n, "%s", to[root] ? to + root + 1 : ".");
	else
		snprintf(ret, n, "%s%s%s", to[root] ? to + root + 1 : "", to[root] ? "/" : "",
			 base ? base + 1 : path);
	return true;
}

static struct name *name_of(const char *path, bool follow)
{
	char real[PATH_MAX];

	return resolve(path, follow, real, sizeof(real)) ? name_at(real) : NULL;
}

/* ---- what may be done ---- */

static bool may_look(const char *path)
{
	const struct name *n = name_of(path, true);

	return !n || !is_written(n->file) || names[n->kin].written || !strangers(n);
}

static bool may_write(const char *path)
{
	return may_look(path);
}

/* Its name goes: so does, in a job, what was written through it, and the link. */
static bool may_lose(const char *path)
{
	const struct name *n = name_of(path, false);

	if (!n || !strangers(n))
		return true;
	if (names[n->kin].written)
		return false;
	return n->kin != (size_t)(n - names) || kin(n) == 1;
}

static bool may_rename_from(const char *path)
{
	const struct name *n = name_of(path, false);

	return !n || !strangers(n);
}

static bool may_link(const char *from, const char *to)
{
	const struct name *n = name_of(from, false);
	const struct file *f = file_at(from, false);

	if (f && !S_ISREG(f->st.st_mode) && !S_ISDIR(f->st.st_mode))
		return false;
	if (n && strangers(n) && !(plan_flags & PLAN_LINKED))
		return false;
	return !n || !strangers(n) || !is_written(n->file);
}

static bool is_asked_alike(const char *a, const char *b)
{
	const struct file *f = file_at(a, true), *g = file_at(b, true);

	if (!f || !g || f != g || !f->clients)
		return true;
	if (f->linked && !(plan_flags & PLAN_LINKED))
		return false;
	for (size_t i = 0; i < n_names; i++)
		if (names[i].file == f && names[i].kin != i)
			return false;
	return !is_written(f);
}

static bool dir_ok;

/* Every file in a directory that is about to go, or to be copied. */
static void check_loss(const char *path, const struct stat *st)
{
	(void)st;
	if (!may_lose(path))
		dir_ok = false;
}

static void check_copy(const char *path, const struct stat *st)
{
	bool open_to_us = S_ISLNK(st->st_mode) ||
			  (st->st_mode & (S_ISDIR(st->st_mode) ? 0700 : 0400)) ==
				  (S_ISDIR(st->st_mode) ? 0700 : 0400);

	(void)path;
	if ((!S_ISDIR(st->st_mode) && st->st_nlink > 1) || !open_to_us)
		dir_ok = false;
}

static bool may_lose_tree(const char *dir)
{
	dir_ok = true;
	if (is_dir(dir))
		each_path(dir, check_loss);
	else
		dir_ok = may_lose(dir);
	return dir_ok;
}

static bool leads_to_several(const char *to)
{
	char real[PATH_MAX];
	size_t len;

	if (!resolve(to, false, real, sizeof(real)))
		return false;
	len = strlen(real);
	for (size_t i = 0; i < n_names; i++)
		if (strncmp(names[i].path, real, len) == 0 && names[i].path[len] == '/')
			return true;
	return false;
}

static bool may_move_tree(const char *from, const char *to)
{
	struct stat st;

	dir_ok = slots[0] < 0 && slots[1] < 0;
	if (lstat(from, &st) == 0)
		check_copy(from, &st);
	/* mv must see whether it is empty. */
	if (is_dir(to) && lstat(to, &st) == 0)
		check_copy(to, &st);
	each_path(from, check_copy);
	return dir_ok && !leads_to_several(to) && may_lose(to);
}

/* ---- what was done ---- */

static void mark_written(const char *path)
{
	struct name *n = name_of(path, true);
	struct file *f = file_at(path, true);

	if (n)
		names[n->kin].written = true;
	if (!f)
		return;
	f->times = TIME_CLOCK;
	f->tick = ++n_ticks;
}

static void mark_any(const char *path, bool follow)
{
	struct file *f = file_at(path, follow);

	if (f)
		f->times = TIME_ANY;
}

static void mark_changed(const char *path, bool follow)
{
	struct name *n = name_of(path, follow);

	if (n)
		names[n->kin].written = true;
}

/* What each name leads to now. */
static void settle(void)
{
	struct stat st;

	for (size_t i = 0; i < n_names; i++)
		if (!names[i].gone &&
		    (lstat(names[i].path, &st) < 0 ? errno != EACCES
						   : file_of(&st) != names[i].file))
			names[i].gone = true;
	each_path(".", learn_new);
	/* A directory in which something was made or removed since. */
	for (size_t i = 0; i < n_files; i++)
		if (files[i].times == TIME_SET && S_ISDIR(files[i].st.st_mode) &&
		    fstatat(files[i].fd, "", &st, AT_EMPTY_PATH) == 0 &&
		    (st.st_mtim.tv_sec != files[i].set.tv_sec ||
		     st.st_mtim.tv_nsec != files[i].set.tv_nsec))
			files[i].times = TIME_ANY;
}

/* ---- names to choose from ---- */

static void some_dir(char *ret, size_t n)
{
	uint32_t d = below(4), s = below(5);

	if (s < 3)
		snprintf(ret, n, "d%u/s%u", d, s);
	else if (s == 3)
		snprintf(ret, n, "d%u/s%u/t%u", d, below(2), below(2));
	else
		snprintf(ret, n, "d%u", d);
}

static char found[1000][128];
static unsigned n_found;
static mode_t wanted;

static void collect(const char *path, const struct stat *st)
{
	const char *base = strrchr(path, '/');

	if ((st->st_mode & S_IFMT) == wanted && n_found < 1000 && (base ? base[1] : *path) != 'x')
		snprintf(found[n_found++], sizeof(found[0]), "%s", path);
}

static void find_all(mode_t type)
{
	wanted = type;
	n_found = 0;
	each_path(".", collect);
}

/* As a rule in a directory that is there. */
static void some_file(char *ret, size_t n)
{
	char dir[64];

	find_all(S_IFDIR);
	if (n_found && below(6))
		snprintf(dir, sizeof(dir), "%.63s", found[below(n_found)]);
	else
		some_dir(dir, sizeof(dir));
	snprintf(ret, n, "%s/f%u", dir, below(5));
}

/* One that is there, as a rule. */
static void existing(mode_t type, char *ret, size_t n)
{
	find_all(type);
	if (n_found && below(8))
		snprintf(ret, n, "%s", found[below(n_found)]);
	else if (type == S_IFDIR)
		some_dir(ret, n);
	else
		some_file(ret, n);
}

/* One of the client's files that have several names. */
static void several(char *ret, size_t n)
{
	for (unsigned i = 0; n_names && i < 8; i++) {
		const struct name *m = &names[below((uint32_t)n_names)];

		if (m->gone || strstr(m->path, "/x"))
			continue;
		snprintf(ret, n, "%s", m->path);
		return;
	}
	existing(S_IFREG, ret, n);
}

static void a_file(char *ret, size_t n)
{
	if (below(4) == 0)
		several(ret, n);
	else
		existing(S_IFREG, ret, n);
}

static bool is_top(const char *dir)
{
	return plan_flags & PLAN_SHARED && !strchr(dir, '/');
}

/* ---- one operation after the other ---- */

static long act(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static long act(const char *fmt, ...)
{
	char line[LINE_MAX_];
	va_list ap;
	long r;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	fprintf(plan_script, "%s\n", line);
	/* Be it that a signal comes of it. */
	fflush(plan_script);
	r = operate(line);
	settle();
	return r;
}

static uint32_t some_length(void)
{
	switch (below(40)) {
	case 0:
		return 100000 + below(CONTENT - 100000);
	case 1:
	case 2:
		return 4096 + below(20000);
	default:
		return 1 + below(200);
	}
}

static void do_write(void)
{
	static const char *const how[] = {"write", "write", "append", "append", "excl"};
	const char *word = how[below(5)];
	char p[128];

	a_file(p, sizeof(p));
	if (below(2))
		some_file(p, sizeof(p));
	if (may_write(p) && act("%s %s %u %u", word, p, some_length(), below(1u << 30)) >= 0)
		mark_written(p);
}

static void do_patch(void)
{
	char p[128];

	a_file(p, sizeof(p));
	if (may_write(p) &&
	    act("patch %s %u %u %u", p, 1 + below(50), below(1u << 30), below(100)) >= 0)
		mark_written(p);
}

static void do_truncate(void)
{
	char p[128];

	a_file(p, sizeof(p));
	if (!may_write(p) || act("truncate %s %u", p, below(300)) < 0)
		return;
	mark_written(p);
	mark_any(p, true); /* the same size is no change to some */
}

static void do_replace(void)
{
	char p[128];

	a_file(p, sizeof(p));
	if (may_lose(p) && act("replace %s %u %u", p, some_length(), below(1u << 30)) >= 0)
		mark_written(p);
}

static void do_copy(void)
{
	char from[128], to[128];

	a_file(from, sizeof(from));
	a_file(to, sizeof(to));
	if (below(2))
		some_file(to, sizeof(to));
	/* What it reads is not what it is about to empty. */
	if (!may_look(from) || !may_write(to) ||
	    (file_at(from, true) && file_at(from, true) == file_at(to, true)))
		return;
	if (act("copy %s %s", from, to) >= 0)
		mark_written(to);
}

static void do_unlink(void)
{
	char p[128];

	a_file(p, sizeof(p));
	if (below(6) == 0)
		existing(S_IFLNK, p, sizeof(p));
	if (may_lose(p))
		act("unlink %s", p);
}

static void do_rename(void)
{
	static const char *const how[] = {"rename", "rename", "rename", "noreplace", "exchange"};
	unsigned i = below(5);
	char from[128], to[128];
	const struct file *f, *g;

	a_file(from, sizeof(from));
	if (below(6) == 0)
		existing(S_IFLNK, from, sizeof(from));
	a_file(to, sizeof(to));
	if (below(2))
		some_file(to, sizeof(to));
	f = file_at(from, false);
	g = file_at(to, false);
	if ((f && S_ISDIR(f->st.st_mode)) || !may_rename_from(from) || !may_lose(to))
		return;
	if (f && f == g && f->linked && !(plan_flags & PLAN_LINKED))
		return;
	/* Directories of the client's can't be exchanged in a job. */
	if (i == 4 && (!g || S_ISDIR(g->st.st_mode) || !may_rename_from(to)))
		return;
	act("%s %s %s", how[i], from, to);
}

static void do_link(void)
{
	char from[128], to[128], real[PATH_MAX];
	const struct name *n;
	struct file *f;
	struct name *m;
	size_t of;

	if (plan_flags & PLAN_AT_WORKER)
		return;
	a_file(from, sizeof(from));
	some_file(to, sizeof(to));
	if (!may_link(from, to))
		return;
	n = name_of(from, false);
	of = n ? n->kin : 0;
	if (act("link %s %s", from, to) < 0)
		return;
	f = file_at(from, false);
	if (f)
		f->linked = true;
	if (!n || !resolve(to, false, real, sizeof(real)))
		return;
	m = add_name(real, n->file);
	m->kin = of;
}

/* Never out of the tree, wherever what holds it may be moved. */
static void do_symlink(void)
{
	char p[128], to[128];

	some_file(p, sizeof(p));
	switch (below(4)) {
	case 0:
		snprintf(to, sizeof(to), "f%u", below(5));
		break;
	case 1:
		snprintf(to, sizeof(to), "../d%u/f%u", below(4), below(5));
		break;
	case 2:
		snprintf(to, sizeof(to), "../d%u", below(4));
		break;
	default:
		snprintf(to, sizeof(to), "nowhere/%u", below(3));
	}
	act("symlink %s %s", to, p);
}

static void do_mkdir(void)
{
	static const char *const modes[] = {"777", "777", "777", "755", "700", "555"};
	char p[128];

	some_dir(p, sizeof(p));
	if (below(3))
		act("mkdir %s %s", p, modes[below(plan_flags & PLAN_CLOSED ? 6 : 5)]);
	else
		act("mktree %s %u %u", p, below(5), below(1u << 30));
}

static void do_rmdir(void)
{
	char p[128];

	existing(S_IFDIR, p, sizeof(p));
	if (!is_top(p))
		act("rmdir %s", p);
}

static void do_rmtree(void)
{
	char p[128];

	existing(S_IFDIR, p, sizeof(p));
	if (below(4) && !strchr(p, '/'))
		return;
	if (!is_top(p) && may_lose_tree(p))
		act("rmtree %s", p);
}

static void do_move(void)
{
	char from[128], to[128];
	const struct file *d;

	existing(S_IFDIR, from, sizeof(from));
	some_dir(to, sizeof(to));
	d = file_at(from, false);
	if (plan_flags & PLAN_AT_WORKER && d && d->clients)
		return;
	if (!is_top(from) && !is_top(to) && is_dir(from) && may_move_tree(from, to))
		act("move %s %s", from, to);
}

static void do_chmod(void)
{
	static const char *const of_files[] = {"644", "755", "600", "444", "0", "777"};
	char p[128];

	a_file(p, sizeof(p));
	if (!may_write(p))
		return;
	if (act("chmod %s %s", p, of_files[below(6)]) == 0)
		mark_changed(p, true);
}

static void do_chmod_dir(void)
{
	static const char *const modes[] = {"755", "755", "700", "711", "775", "500", "600", "0"};
	char p[128];

	existing(S_IFDIR, p, sizeof(p));
	if (plan_flags & PLAN_CLOSED && !is_top(p))
		act("chmod %s %s", p, modes[below(8)]);
}

/* What was closed is opened again, or nothing would go on. */
static void do_open_up(void)
{
	find_all(S_IFDIR);
	for (unsigned i = 0; i < n_found; i++) {
		struct stat st;

		if (lstat(found[i], &st) == 0 && (st.st_mode & 0700) != 0700)
			act("chmod %s 755", found[i]);
	}
}

static void do_settime(void)
{
	uint32_t s = 1600000000 + below(1000000), ns = below(999999999);
	struct file *f;
	char p[128];

	a_file(p, sizeof(p));
	if (below(4) == 0)
		existing(S_IFDIR, p, sizeof(p));
	if (below(6) == 0)
		existing(S_IFLNK, p, sizeof(p));
	/* By its own name, or that of what it leads to: such a file is written to, too. */
	if (is_top(p) || !may_write(p) || act("settime %s %u %u", p, s, ns) < 0)
		return;
	mark_changed(p, false);
	f = file_at(p, false);
	if (!f)
		return;
	f->times = TIME_SET;
	f->set = (struct timespec){.tv_sec = s, .tv_nsec = ns};
}

static void do_astime(void)
{
	struct file *f, *g;
	char p[128], as[128];

	a_file(p, sizeof(p));
	a_file(as, sizeof(as));
	if (!may_write(p) || !may_look(as) || act("astime %s %s", p, as) < 0)
		return;
	mark_changed(p, false);
	f = file_at(p, false);
	g = file_at(as, false);
	if (!f || !g)
		return;
	f->times = g->times;
	f->set = g->set;
	f->as = g->as;
	f->tick = g->tick;
}

static void do_now(void)
{
	char p[128];

	a_file(p, sizeof(p));
	if (may_write(p) && file_at(p, false) == file_at(p, true) && act("now %s", p) == 0)
		mark_written(p);
}

static void do_fifo(void)
{
	char p[128];

	some_file(p, sizeof(p));
	/* Not for the next round: who looks at one of the client's runs here. */
	if (act("fifo %s 644", p) == 0)
		act("unlink %s", p);
}

static struct file *slot_files[SLOTS];

static void do_slot(void)
{
	unsigned i = below(SLOTS);
	struct file *f;
	char p[128];

	if (slots[i] < 0) {
		existing(S_IFREG, p, sizeof(p));
		f = file_at(p, true);
		if ((f && (f->several || !S_ISREG(f->st.st_mode))) || !may_write(p) ||
		    act("open %u %s", i, p) < 0)
			return;
		slot_files[i] = file_at(p, true);
	}
	if (below(3)) {
		act("into %u %u %u", i, some_length(), below(1u << 30));
		if (slot_files[i]) {
			slot_files[i]->times = TIME_CLOCK;
			slot_files[i]->tick = ++n_ticks;
		}
	}
	if (below(2))
		act("close %u", i);
}

static void do_look(void)
{
	char p[128];

	a_file(p, sizeof(p));
	if (below(4) == 0)
		some_file(p, sizeof(p));
	if (below(4) == 0)
		existing(S_IFDIR, p, sizeof(p));
	if (below(6) == 0)
		existing(S_IFLNK, p, sizeof(p));
	if (may_look(p))
		act("look %s", p);
}

static void do_list(void)
{
	char p[128], in[8];

	existing(S_IFDIR, p, sizeof(p));
	switch (below(4)) {
	case 0:
		act("names .");
		break;
	case 1:
		snprintf(in, sizeof(in), "f%u", below(5));
		if (strlen(p) < 100 && (strcat(strcat(p, "/"), in), may_look(p)))
			act("within %.*s %s", (int)(strrchr(p, '/') - p), p, in);
		break;
	default:
		act("list %s", p);
	}
}

static void do_walk(void)
{
	for (size_t i = 0; i < n_names; i++)
		if (!names[i].gone && !may_look(names[i].path))
			return;
	act("walk .");
}

static void do_ask(void)
{
	char a[128], b[128];
	const struct file *f;

	a_file(a, sizeof(a));
	a_file(b, sizeof(b));
	f = file_at(a, false);
	if (below(2) && f && !f->several) {
		act("links %s", a);
		return;
	}
	if (is_asked_alike(a, b))
		act("same %s %s", a, b);
}

static void do_print(void)
{
	static const unsigned lengths[] = {1, 20, 80, 300, 5000, 70000};

	act("say %u %u %u", 1 + below(2), 1 + below(lengths[below(6)]), below(1u << 30));
}

static void do_sync(void)
{
	act("sync %u", ++n_syncs);
}

/* So that there is always something to do with. */
static void do_grow(void)
{
	char p[128];

	some_dir(p, sizeof(p));
	if (!is_dir(p)) {
		act("mktree %s %u %u", p, 1 + below(5), below(1u << 30));
		return;
	}
	some_file(p, sizeof(p));
	act("excl %s %u %u", p, some_length(), below(1u << 30));
}

#define FEW 40

static const struct {
	void (*fn)(void);
	unsigned weight;
} choices[] = {
	{do_write, 12},	 {do_patch, 3},	  {do_truncate, 2}, {do_replace, 6}, {do_copy, 3},
	{do_unlink, 7},	 {do_rename, 10}, {do_link, 9},	    {do_symlink, 3}, {do_mkdir, 5},
	{do_rmdir, 2},	 {do_rmtree, 1},  {do_move, 4},	    {do_chmod, 3},   {do_chmod_dir, 3},
	{do_settime, 2}, {do_astime, 2},  {do_now, 2},	    {do_fifo, 1},    {do_slot, 5},
	{do_look, 6},	 {do_list, 6},	  {do_walk, 1},	    {do_ask, 4},     {do_print, 6},
	{do_sync, 14},
};

static void one_choice(void)
{
	unsigned sum = 0, pick;

	find_all(S_IFREG);
	if (n_found < FEW && below(3) == 0) {
		do_grow();
		return;
	}
	for (size_t i = 0; i < sizeof(choices) / sizeof(*choices); i++)
		sum += choices[i].weight;
	pick = below(sum);
	for (size_t i = 0; i < sizeof(choices) / sizeof(*choices); i++) {
		if (pick < choices[i].weight) {
			choices[i].fn();
			return;
		}
		pick -= choices[i].weight;
	}
}

/* ---- the end ---- */

static FILE *times_file;

static void tell_times(const char *path, const struct stat *st)
{
	const struct file *f = file_of(st);
	const char *base = strrchr(path, '/');

	if (!f || S_ISFIFO(st->st_mode) || (base && base[1] == 'x'))
		return;
	if (f->times == TIME_OLD && !S_ISDIR(st->st_mode))
		fprintf(times_file, "old %s %s\n", path, f->as->first);
	if (f->times == TIME_SET)
		fprintf(times_file, "set %s %lld.%09ld\n", path, (long long)f->set.tv_sec,
			f->set.tv_nsec);
	if (f->times == TIME_CLOCK && !S_ISDIR(st->st_mode))
		fprintf(times_file, "clock %s %u\n", path, f->tick);
}

/*
 * What is promised of the times of all that is there, a line for each: "old
 * PATH NAME", as NAME had before; "set PATH TIME"; "clock PATH N", equal for
 * equal N and not earlier for a higher one.
 */
static void plan_times(const char *to)
{
	times_file = fopen(to, "w");
	each_path(".", tell_times);
	fclose(times_file);
}

/* Some n operations, written to a script, and a file of times. */
static int plan(uint64_t seed, unsigned n, unsigned flags, const char *script, const char *times)
{
	struct rlimit many;
	unsigned end;

	/* Each file is held open. */
	if (getrlimit(RLIMIT_NOFILE, &many) == 0) {
		many.rlim_cur = many.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &many);
	}
	plan_flags = flags;
	plan_seed(seed);
	plan_script = fopen(script, "w");
	if (!plan_script || !getcwd(plan_root, sizeof(plan_root)))
		return 2;
	each_path(".", learn_before);
	drop_powers();
	while (n_ops++ < n) {
		one_choice();
		if (below(3) == 0)
			act("flush");
		if (n_ops % 16 == 0)
			do_open_up();
	}
	end = below(8);
	plan_times(times);
	if (end == 0 && !(plan_flags & PLAN_ENDS_WELL))
		act("die %d", below(2) ? SIGKILL : SIGUSR1);
	act("exit %u", end > 4 ? end - 4 : 0);
	return 2;
}

#endif
