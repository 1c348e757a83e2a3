/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * Served trees, one in the other: well-formed things that users and workers may do to them, in any
 * order, four bytes each.  The user edits; roots are served, withdrawn, removed and replaced;
 * workers ask for listings and bytes, also where nothing is served; jobs bring files home.
 *
 * What must hold: nothing outside the served roots is read or written, and nothing in those to be
 * read only is written.  Where a root is says a model of what resolve.c promises: where its path
 * leads by the user's own symlinks, and by none that a worker can have made.  After a drain, what
 * workers were told is what the disk has.  What a job did is in place as a model of files has it,
 * or not at all; an honest one's is, when nobody else changed anything since.
 */
#include <errno.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>

#include "concc/cleanup.h"
#include "concc/log.h"
#include "concc/tree.h"
#include "files.h"
#include "replica.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define N_OF(a)	  (sizeof(a) / sizeof((a)[0]))
#define STEPS_MAX 64
#define N_PEERS	  2
#define SECRET	  "key" /* nothing but what is in the victim is called so */

enum step {
	USER_FILE,
	USER_APPEND,
	USER_DIR,
	USER_REMOVE,
	USER_RENAME,
	USER_SYMLINK,
	USER_LINK,
	USER_MODE,
	USER_FIFO,
	USER_LEAD_ELSEWHERE,
	SERVE,
	WITHDRAW,
	DRAIN,
	ON_EVENT,
	PEER_RESET,
	LIST,
	LIST_ALL,
	FETCH,
	JOB,
	JOB_FILE,
	JOB_SYMLINK,
	JOB_DIR,
	JOB_REMOVE,
	JOB_META,
	JOB_LINK,
	JOB_APPLY,
	N_STEPS
};

/* `link` leads to v1 or v2, by the user's hand. */
static const struct {
	const char *path;
	bool writable;
} roots[] = {
	{"w", true},	{"w/sub", true}, {"w/sub/in", false},
	{"link", true}, {"w/a", true},	 {"w/b", false},
};

/* The user has nothing to do in the last one, which holds the secrets. */
static const char *const areas[] = {"w", "v1", "v2", "victim"};

struct job {
	struct commit *commit;
	char *workspaces[3];
	bool honest;	   /* it did what a job can do */
	bool undisturbed;  /* and nobody else did anything */
	bool refused;	   /* something that is never done for a worker */
	struct files view; /* as the job sees it */
	struct msg_file effects[STEPS_MAX];
	char bytes[STEPS_MAX][FILE_BYTES_MAX];
	size_t n;
};

static struct {
	struct tree *tree;
	struct replica replicas[N_PEERS];
	bool served[N_OF(roots)];
	unsigned since[N_OF(roots)]; /* which of them was served first */
	char *held[N_OF(roots)];     /* where it led when it was found last; NULL: never */
	ino_t held_ino[N_OF(roots)], former_ino[N_OF(roots)]; /* and the one before */
	struct job job;
	struct files victim;
	bool watched;
	unsigned n_served;
	unsigned n_written; /* of the user's files: no two have the same bytes */
} bed;

/* ---- paths ---- */

/* Within a root: one to three of few names. */
static void place(uint8_t b, char path[16])
{
	static const char *const names[] = {"a", "b", "f", "sub", "in"};
	unsigned second = b / 5 % 6, third = b < 180 ? b / 30 : 5;

	if (b >= 240)
		(void)snprintf(path, 16, "%s/.git", names[b % 4]);
	else
		(void)snprintf(path, 16, "%s%s%s%s%s", names[b % 5], second < 5 ? "/" : "",
			       second < 5 ? names[second] : "", second < 5 && third < 5 ? "/" : "",
			       second < 5 && third < 5 ? names[third] : "");
}

static char *user_path(uint8_t b, uint8_t area)
{
	char path[16];

	place(b, path);
	return path_join(areas[area % 8 == 6 ? 1 : area % 8 == 7 ? 2 : 0], path);
}

static char *absolute(const char *path)
{
	return path_join(scratch_dir, path);
}

static char *dir_of(const char *path)
{
	const char *base = path_base(path);

	return xstrndup(path, base > path ? (size_t)(base - path) - 1 : 0);
}

/* The directory that holds path, which is relative to the scratch one: by no symlink. */
static int parent(const char *path, const char **ret_name)
{
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
	_cleanup_free_ char *dir = dir_of(path);

	*ret_name = path_base(path);
	return (int)syscall(SYS_openat2, scratch(), *dir ? dir : ".", &how, sizeof(how));
}

/* The innermost root that holds path, relative to the scratch directory; -1: none that is served.
 */
static int root_of(const char *path)
{
	int best = -1;

	for (size_t i = 0; i < N_OF(roots); i++) {
		if (bed.served[i] && path_is_below(path, roots[i].path) &&
		    (best < 0 || strlen(roots[i].path) > strlen(roots[best].path)))
			best = (int)i;
	}
	return best;
}

/* ---- where roots are ---- */

/* Wherever it is by now, and what is above it. */
static bool is_in(ino_t ino, const char *path)
{
	_cleanup_free_ char *at = xstrdup(path);
	struct stat st;

	for (; strlen(at) >= strlen(scratch_dir); *strrchr(at, '/') = '\0') {
		if (lstat(at, &st) == 0 && st.st_ino == ino)
			return true;
	}
	return false;
}

/* Has a worker's job had its hands in this directory?  As another root has it. */
static bool workers_write_to(size_t root, const char *at)
{
	for (size_t i = 0; i < N_OF(roots); i++) {
		if (i != root && bed.served[i] && roots[i].writable && bed.held[i] &&
		    (path_is_below(at, bed.held[i]) || is_in(bed.held_ino[i], at) ||
		     is_in(bed.former_ino[i], at)))
			return true;
	}
	return false;
}

/* A symlink's target, in front of the rest of the path. */
static char *follow(const char *link, const char *rest)
{
	char target[128];
	ssize_t n = readlink(link, target, sizeof(target) - 1);

	CHECK(n > 0);
	target[n] = '\0';
	return xasprintf("%s/%s", target, rest);
}

/* Where the root's path leads by directories and by symlinks of the user's own: those in no tree
 * that workers write to.  Absolute, without symlinks; NULL: nowhere. */
static char *walk(size_t root)
{
	char *at = xstrdup("/"), *rest = absolute(roots[root].path);
	unsigned n_symlinks = 0;
	bool ok = true;

	while (ok && rest[strspn(rest, "/")]) {
		char *part = rest + strspn(rest, "/"), *end = part + strcspn(part, "/");
		_cleanup_free_ char *name = xstrndup(part, (size_t)(end - part));
		char *child = path_clean(at, name), *next = xstrdup(end);
		struct stat st = {0};

		ok = lstat(child, &st) == 0;
		if (ok && S_ISLNK(st.st_mode)) {
			ok = !workers_write_to(root, at) && ++n_symlinks <= 40;
			free(next);
			next = follow(child, end);
			free(child);
			child = xstrdup(*next == '/' ? "/" : at);
		}
		ok = ok && (S_ISLNK(st.st_mode) || S_ISDIR(st.st_mode));
		free(at);
		at = child;
		free(rest);
		rest = next;
	}
	free(rest);
	if (!ok)
		free(at);
	return ok ? at : NULL;
}

/* The directory that was found last is held, and not let go while the path leads to it. */
static bool is_held(size_t root)
{
	_cleanup_free_ char *path = absolute(roots[root].path);
	struct stat st;

	return bed.held[root] && stat(path, &st) == 0 && st.st_ino == bed.held_ino[root];
}

/* The next one that was served after this number; N_OF(roots): none. */
static size_t served_after(unsigned since)
{
	size_t best = N_OF(roots);

	for (size_t i = 0; i < N_OF(roots); i++) {
		if (bed.served[i] && bed.since[i] > since &&
		    (best == N_OF(roots) || bed.since[i] < bed.since[best]))
			best = i;
	}
	return best;
}

/* The tree has looked where its roots are, one after the other. */
static void find_roots(void)
{
	for (size_t i = served_after(0); i < N_OF(roots); i = served_after(bed.since[i])) {
		char *now = walk(i);
		struct stat st;

		if (!now)
			continue; /* what was found before still is what workers wrote to */
		CHECK(stat(now, &st) == 0);
		if (bed.held[i] && bed.held_ino[i] != st.st_ino)
			bed.former_ino[i] = bed.held_ino[i];
		free(bed.held[i]);
		bed.held[i] = now;
		bed.held_ino[i] = st.st_ino;
	}
}

/* Where a path is, as the innermost root has it: relative to the scratch directory; NULL: nowhere
 * in it. */
static char *place_in(const char *root_place, int root, const char *path)
{
	const char *in_scratch = root_place ? path_below(root_place, scratch_dir) : NULL;
	const char *rest = path_below(path, roots[root].path);

	if (!in_scratch || !*in_scratch)
		return NULL;
	return *rest ? path_join(in_scratch, rest) : xstrdup(in_scratch);
}

static char *place_now(const char *path)
{
	int root = root_of(path);
	_cleanup_free_ char *now = root < 0 ? NULL : walk((size_t)root);

	return now ? place_in(now, root, path) : NULL;
}

static char *place_held(const char *path)
{
	int root = root_of(path);

	return root < 0 ? NULL : place_in(bed.held[root], root, path);
}

/* Of a path as it is served. */
static char *really(const char *path)
{
	int root = root_of(path);
	char *now = place_now(path);

	if (!now && root >= 0 && is_held((size_t)root))
		now = place_held(path);
	return now ? now : xstrdup(path);
}

static bool is_victims(const char *place)
{
	return place && path_is_below(place, "victim");
}

/* May what is in the victim be told of as what is in this directory?  Where the user has led it. */
static bool leads_to_victim(const char *path)
{
	_cleanup_free_ char *now = place_now(path), *held = place_held(path);

	return is_victims(now) || is_victims(held);
}

/* Is it in a served root, of this kind, when one goes by what the roots are? */
static bool is_served_as(const char *place, bool writable)
{
	_cleanup_free_ char *path = absolute(place);

	for (size_t i = 0; i < N_OF(roots); i++) {
		_cleanup_free_ char *served = NULL;
		const char *rest;

		if (!bed.served[i] || !bed.held[i] || roots[i].writable != writable)
			continue;
		rest = path_below(path, bed.held[i]);
		if (!rest)
			continue;
		served = *rest ? path_join(roots[i].path, rest) : xstrdup(roots[i].path);
		if (root_of(served) == (int)i)
			return true;
	}
	return false;
}

/* ---- the user ---- */

static void user_writes(const char *path, int flags)
{
	const char *name;
	_cleanup_close_ int dir = parent(path, &name);
	_cleanup_close_ int fd = -1;
	char text[FILE_BYTES_MAX];

	if (dir < 0)
		return;
	fd = openat(dir, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags, 0644);
	(void)snprintf(text, sizeof(text), "u%u", bed.n_written++ % 10000);
	if (fd >= 0 && (!(flags & O_APPEND) || lseek(fd, 0, SEEK_END) < FILE_BYTES_MAX / 2))
		CHECK(write(fd, text, strlen(text)) > 0);
}

static void user_symlink(const char *path, uint8_t x)
{
	const char *const targets[] = {"victim", "w/sub", "v1", "w"};
	_cleanup_free_ char *target = absolute(targets[x / 8 % 4]);
	const char *name;
	_cleanup_close_ int dir = parent(path, &name);

	if (dir >= 0)
		(void)symlinkat(x & 128 ? "../../victim" : target, dir, name);
}

static void user_two(enum step what, const char *path, const char *other)
{
	const char *from, *to;
	_cleanup_close_ int from_dir = parent(path, &from);
	_cleanup_close_ int to_dir = parent(other, &to);

	if (from_dir < 0 || to_dir < 0)
		return;
	/* A further name of a file is a way to its bytes wherever that is: the user's own doing. */
	if (what == USER_LINK)
		(void)linkat(from_dir, from, to_dir, to, 0);
	else
		(void)renameat(from_dir, from, to_dir, to);
}

static void user_one(enum step what, const char *path, uint8_t x)
{
	const char *name;
	_cleanup_close_ int dir = parent(path, &name);
	struct stat st;

	if (dir < 0)
		return;
	if (what == USER_DIR)
		(void)mkdirat(dir, name, 0755);
	else if (what == USER_REMOVE)
		(void)path_remove_tree(dir, name);
	else if (what == USER_FIFO)
		(void)mknodat(dir, name, S_IFIFO | 0600, 0);
	else if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISLNK(st.st_mode))
		(void)fchmodat(dir, name, 0700 | x % 64, 0);
}

static void user(enum step what, const uint8_t s[4])
{
	_cleanup_free_ char *path = user_path(s[1], s[3]), *other = user_path(s[2], s[3]);

	bed.job.undisturbed = false;
	switch (what) {
	case USER_FILE:
		user_writes(path, O_CREAT | O_TRUNC);
		break;
	case USER_APPEND:
		user_writes(path, O_APPEND);
		break;
	case USER_SYMLINK:
		user_symlink(path, s[3]);
		break;
	case USER_LINK:
	case USER_RENAME:
		if (what == USER_RENAME ||
		    (!path_is_below(path, "w/sub/in") && !path_is_below(path, "w/b") &&
		     !is_served_as(path, false)))
			user_two(what, path, other);
		break;
	case USER_LEAD_ELSEWHERE:
		(void)unlinkat(scratch(), "link.new", 0);
		CHECK(symlinkat(s[1] & 1 ? "v1" : "v2", scratch(), "link.new") == 0);
		CHECK(renameat(scratch(), "link.new", scratch(), "link") == 0);
		break;
	default:
		user_one(what, path, s[3]);
	}
}

/* ---- the tree ---- */

/* The directory that a message tells of, relative to the scratch one; NULL: none in it. */
static char *path_told_of(unsigned peer, uint8_t type, const struct buf *b)
{
	struct blob payload = {b->data, b->len};
	const struct replica_dir *d = NULL;
	struct msg_update u;
	struct msg_dir m;
	char *path = NULL;
	const char *rel;

	if (type == MSG_DIR && msg_dir_decode(payload, &m) == 0) {
		path = xstrdup(m.path);
		msg_dir_release(&m);
	} else if (type == MSG_UPDATE && msg_update_decode(payload, &u) == 0) {
		d = map_get_u64(&bed.replicas[peer].by_id, u.dir_id);
		path = d ? xstrdup(d->path) : NULL;
	}
	rel = path ? path_below(path, scratch_dir) : NULL;
	rel = rel ? xstrdup(rel) : NULL;
	free(path);
	return (char *)rel;
}

static void on_send(void *data, unsigned peer, uint8_t type, const struct buf *b)
{
	CHECK(peer < N_PEERS && b->len <= PROTO_DIR_MAX);
	if (memmem(b->data, b->len, SECRET, strlen(SECRET))) {
		_cleanup_free_ char *path = path_told_of(peer, type, b);

		CHECK(path && leads_to_victim(path));
	}
	replica_message(&bed.replicas[peer], type, b);
}

/* Whoever asked for what was not served yet asks again: no honest worker did. */
static void forget_denied(struct replica *t, const char *path)
{
	struct replica_dir *d;

	for (size_t it = 0; (d = map_next(&t->by_path, &it, NULL));) {
		if (path_is_below(d->path, path) && root_of(d->path + strlen(scratch_dir) + 1) < 0)
			replica_forget(t, d);
	}
}

static void forget_absent(struct replica *t, const char *path)
{
	struct replica_dir *d;

	for (size_t it = 0; (d = map_next(&t->by_path, &it, NULL));) {
		if (path_is_below(d->path, path) && d->state != DIR_LISTED)
			replica_forget(t, d);
	}
}

static void serve(uint8_t b, bool withdraw)
{
	size_t i = b % N_OF(roots);
	_cleanup_free_ char *path = absolute(roots[i].path);
	struct errmsg msg = {0};

	bed.job.undisturbed = false;
	if (withdraw) {
		tree_withdraw(bed.tree, path);
		bed.served[i] = false;
		free(bed.held[i]);
		bed.held[i] = NULL;
		bed.former_ino[i] = 0;
		/* That something is absent in it was told of it, too; a mirror looks there no more.
		 */
		for (unsigned p = 0; p < N_PEERS; p++)
			forget_absent(&bed.replicas[p], path);
	} else if (tree_serve(bed.tree, path, roots[i].writable, &msg) == 0) {
		for (unsigned p = 0; p < N_PEERS; p++)
			forget_denied(&bed.replicas[p], path);
		if (!bed.served[i])
			bed.since[i] = ++bed.n_served;
		bed.served[i] = true;
		find_roots();
	}
}

/* Roots are checked by themselves: one beneath another may lead elsewhere. */
static bool is_served_root(const char *path)
{
	const char *rel = path_below(path, scratch_dir);

	for (size_t i = 0; rel && i < N_OF(roots); i++) {
		if (bed.served[i] && streq(roots[i].path, rel))
			return true;
	}
	return false;
}

static void check_told_of(unsigned peer, size_t i)
{
	_cleanup_free_ char *path = absolute(roots[i].path), *now = walk(i);
	const struct replica_dir *d = map_get_str(&bed.replicas[peer].by_path, path);
	bool listed = d && d->state == DIR_LISTED;
	const char *place = now ? now : bed.held[i];
	int fd = -1;

	/* Where the symlink became one that workers may have made, it is held, or not any more. */
	if (now || (listed && is_held(i)))
		fd = open(place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	replica_check(&bed.replicas[peer], path, fd);
}

static void drain_and_check(void)
{
	CHECK(tree_drain(bed.tree) == 0);
	find_roots();
	for (size_t i = 0; i < N_OF(roots); i++) {
		for (unsigned p = 0; bed.served[i] && p < N_PEERS; p++)
			check_told_of(p, i);
	}
}

/* ---- workers ---- */

static void list(unsigned peer, uint8_t b, uint8_t x)
{
	const char *const tops[] = {"w", "link", "victim", "v1", "."};
	const char *top = tops[x / 2 % N_OF(tops)];
	_cleanup_free_ char *at = NULL, *path = NULL;
	struct replica_dir *d;
	char below[16];

	place(b, below);
	at = x & 128 ? xstrdup(top) : path_join(top, below);
	path = streq(top, ".") ? xstrdup(scratch_dir) : absolute(at);
	tree_list(bed.tree, peer, path);
	d = map_get_str(&bed.replicas[peer].by_path, path);
	if (d && root_of(at) < 0)
		CHECK(d->state == DIR_DENIED || d->state == DIR_MISSING);
}

/* As a mirror does: each directory by the entry that leads to it, also one that is new in a
 * directory which was told of before. */
static void list_all(unsigned peer, const char *path)
{
	struct replica_dir *d = map_get_str(&bed.replicas[peer].by_path, path);
	_cleanup_strv_ char **children = NULL;
	struct shown_name *n;
	const char *name;

	if (!d) {
		tree_list(bed.tree, peer, path);
		d = map_get_str(&bed.replicas[peer].by_path, path);
	}
	/* Asking for those may bring news about what is being read. */
	for (size_t it = 0; d && (n = map_next(&d->names, &it, &name));) {
		if (n->attr.type == ENTRY_DIR)
			strv_push(&children, path_join(path, name));
	}
	for (char **child = children; child && *child; child++)
		list_all(peer, *child);
}

static void list_served(unsigned peer)
{
	for (size_t i = 0; i < N_OF(roots); i++) {
		_cleanup_free_ char *path = absolute(roots[i].path);

		if (bed.served[i])
			list_all(peer, path);
	}
}

/* Is it that file? */
static bool is_file_at(const struct stat *st, const char *place)
{
	const char *name;
	_cleanup_close_ int dir = place ? parent(place, &name) : -1;
	struct stat is;

	return dir >= 0 && fstatat(dir, name, &is, AT_SYMLINK_NOFOLLOW) == 0 &&
	       st->st_ino == is.st_ino && st->st_dev == is.st_dev;
}

/* The bytes of what was told: those that are there, or none. */
static void fetch(unsigned peer, uint8_t b, uint8_t x)
{
	char below[16];
	_cleanup_free_ char *path = NULL, *now = NULL, *held = NULL, *dir_path = NULL;
	_cleanup_close_ int fd = -1;
	struct entry_attr attr;
	struct shown_name *n;
	struct replica_dir *d;
	struct stat st;

	place(b, below);
	path = path_join(x & 1 ? "link" : "w", below);
	dir_path = xasprintf("%s/%.*s", scratch_dir, (int)(path_base(path) - path) - 1, path);
	d = map_get_str(&bed.replicas[peer].by_path, dir_path);
	n = d ? map_get_str(&d->names, path_base(path)) : NULL;
	if (!n || n->attr.type != ENTRY_FILE)
		return;
	held = place_held(path);
	if (tree_open_file(bed.tree, d->id, path_base(path), n->attr.version, &fd, &attr) < 0)
		return;
	now = place_now(path);
	CHECK(fstat(fd, &st) == 0 && (is_file_at(&st, now) || is_file_at(&st, held)));
	CHECK((uint64_t)st.st_size == attr.size);
}

/* ---- jobs ---- */

static void scan(struct files *f)
{
	files_release(f);
	for (size_t i = 0; i < N_OF(areas); i++)
		files_scan(f, scratch(), areas[i], areas[i]);
}

static void scan_victim(void)
{
	files_release(&bed.victim);
	files_scan(&bed.victim, scratch(), "victim", "victim");
}

static void job_end(void)
{
	commit_free(bed.job.commit);
	for (size_t i = 0; i < bed.job.n; i++)
		msg_file_release(&bed.job.effects[i]);
	for (size_t i = 0; bed.job.workspaces[i]; i++)
		free(bed.job.workspaces[i]);
	files_release(&bed.job.view);
	bed.job = (struct job){0};
}

static void job_start(uint8_t x)
{
	static const char *const sets[][2] = {
		{"w"}, {"w/sub"}, {"w", "link"}, {"w/sub", "w"}, {"w/a"}, {"link"},
	};
	struct job *j = &bed.job;

	job_end();
	for (size_t i = 0; i < 2 && sets[x % N_OF(sets)][i]; i++)
		j->workspaces[i] = absolute(sets[x % N_OF(sets)][i]);
	drain_and_check();
	list_served(0);
	drain_and_check();
	j->commit = commit_new(bed.tree, j->workspaces, tree_version(bed.tree));
	j->honest = j->undisturbed = true;
	scan(&j->view);
}

/* Where an effect's path is, relative to the scratch directory. */
static char *effect_place(const struct msg_file *f, const char *path)
{
	const char *workspace = bed.job.workspaces[f->workspace] + strlen(scratch_dir) + 1;
	_cleanup_free_ char *served = *path ? path_join(workspace, path) : xstrdup(workspace);

	return really(served);
}

static bool is_writable(const char *path)
{
	int root = root_of(path);

	return root >= 0 && roots[root].writable;
}

/* Things that are never done for a worker, whatever it says. */
static bool is_refused(const struct msg_file *f, const char *served, const char *target)
{
	if (!is_writable(served) || (f->kind == EFFECT_LINK && !is_writable(target)))
		return true;
	if (f->kind == EFFECT_LINK && path_is_below(target, served))
		return true;
	for (size_t i = 0; i < N_OF(roots); i++) {
		if (bed.served[i] && path_is_below(roots[i].path, served) && *f->path &&
		    (f->kind != EFFECT_DIR || f->flags & EFFECT_F_OPAQUE))
			return true;
	}
	if (f->kind == EFFECT_META || (f->kind == EFFECT_DIR && !(f->flags & EFFECT_F_OPAQUE)))
		return false;
	return streq(path_base(f->path), ".git") ||
	       (f->kind == EFFECT_LINK && streq(path_base(f->target), ".git"));
}

/* Was it, or what leads there, done something to already?  A job's upper has each name once. */
static bool was_touched(const struct job *j, const struct msg_file *f)
{
	for (size_t i = 0; i < j->n; i++) {
		const struct msg_file *o = &j->effects[i];

		if (path_is_below(o->path, f->path) || streq(o->path, f->target) ||
		    (path_is_below(f->path, o->path) && o->kind != EFFECT_DIR))
			return true;
	}
	return false;
}

/* Can a job that sees this have done that? */
static bool is_possible(const struct job *j, const struct msg_file *f, const char *path,
			const char *target)
{
	_cleanup_free_ char *dir = dir_of(path);
	const struct file *p = files_find(&j->view, dir), *old = files_find(&j->view, path);
	const struct file *t = files_find(&j->view, target);

	if (!*f->path)
		return old && S_ISDIR(old->mode);
	if (!p || !S_ISDIR(p->mode) || was_touched(j, f))
		return false;
	if (f->kind == EFFECT_LINK)
		return t && S_ISREG(t->mode) && !path_is_below(target, path);
	if (f->kind == EFFECT_META)
		return old && S_ISREG(old->mode);
	return f->kind != EFFECT_REMOVE || old;
}

static void send_bytes(const struct msg_file *f, const char *bytes, bool special)
{
	if (special || !f->size || !bed.job.commit)
		return;
	CHECK(commit_data(bed.job.commit, bytes, 1) == 0);
	if (f->size > 1)
		CHECK(commit_data(bed.job.commit, bytes + 1, f->size - 1) == 0);
}

/* What the job does: takes f, whose path and target are owned. */
static void job_does(struct msg_file *f, const char *bytes, bool lies)
{
	struct job *j = &bed.job;
	_cleanup_free_ char *path = effect_place(f, f->path), *target = effect_place(f, f->target);
	_cleanup_free_ char *served = NULL, *served_target = NULL;
	const char *workspace = j->workspaces[f->workspace] + strlen(scratch_dir) + 1;
	bool special = f->flags & (EFFECT_F_FIFO | EFFECT_F_SOCKET);

	served = *f->path ? path_join(workspace, f->path) : xstrdup(workspace);
	served_target = path_join(workspace, f->target);
	if (!is_possible(j, f, path, target)) {
		if (!lies) {
			msg_file_release(f);
			return;
		}
		j->honest = false;
	}
	CHECK(commit_file(j->commit, f) == 0);
	send_bytes(f, bytes, special);
	j->refused |= is_refused(f, served, served_target);
	files_apply(&j->view, f, path, target, bytes);
	memcpy(j->bytes[j->n], bytes, FILE_BYTES_MAX);
	j->effects[j->n++] = *f;
}

static uint8_t kind_of(enum step what)
{
	return what == JOB_FILE	     ? EFFECT_FILE
	       : what == JOB_SYMLINK ? EFFECT_SYMLINK
	       : what == JOB_DIR     ? EFFECT_DIR
	       : what == JOB_REMOVE  ? EFFECT_REMOVE
	       : what == JOB_META    ? EFFECT_META
				     : EFFECT_LINK;
}

static void job_step(enum step what, const uint8_t s[4])
{
	struct msg_file f = {.kind = kind_of(what), .mode = what == JOB_DIR ? 0755 : 0640};
	char path[16], target[16], bytes[FILE_BYTES_MAX] = "";

	if (!bed.job.commit || bed.job.n == STEPS_MAX)
		return;
	place(s[1], path);
	place(s[2], target);
	f.workspace = bed.job.workspaces[1] ? s[3] & 1 : 0;
	f.path = xstrdup(what == JOB_DIR && s[3] & 64 ? "" : path);
	f.target = xstrdup("");
	if (what == JOB_LINK || what == JOB_SYMLINK) {
		free(f.target);
		f.target = what == JOB_LINK ? xstrdup(target)
			   : s[3] & 8	    ? absolute("victim")
					    : xasprintf("../%s", target);
	}
	if (what == JOB_FILE && s[3] & 2)
		f.flags = s[3] & 4 ? EFFECT_F_FIFO : EFFECT_F_REPLACED;
	if (what == JOB_DIR && s[3] & 2 && *f.path)
		f.flags = EFFECT_F_OPAQUE;
	if (what == JOB_FILE && !(f.flags & EFFECT_F_FIFO)) {
		f.size = (uint64_t)snprintf(bytes, sizeof(bytes), "job%u", s[2] % 100);
		digest_of(bytes, f.size, &f.digest);
	}
	job_does(&f, bytes, s[3] & 128);
}

/* A further name of a file is a way to its bytes wherever that is. */
static bool is_written_elsewhere(const struct files *f, const struct file *of)
{
	for (size_t i = 0; i < f->n; i++) {
		if (f->v[i].ino == of->ino && is_served_as(f->v[i].path, true))
			return true;
	}
	return false;
}

/* What is outside, or may only be read, is as it was. */
static void check_outside(const struct files *before, const struct files *after)
{
	for (size_t i = 0; i < before->n; i++) {
		const struct file *f = &before->v[i], *now;

		if (is_served_as(f->path, true) ||
		    (!is_served_as(f->path, false) && is_written_elsewhere(before, f)))
			continue;
		now = files_find(after, f->path);
		CHECK(now && now->ino == f->ino && now->mode == f->mode && now->n == f->n &&
		      memcmp(now->bytes, f->bytes, f->n) == 0);
	}
	for (size_t i = 0; i < after->n; i++) {
		const struct file *f = &after->v[i];

		CHECK(files_find(before, f->path) || is_served_as(f->path, true) ||
		      str_starts(path_base(f->path), TEMP_PREFIX));
	}
}

static void job_apply(void)
{
	struct files before = {0}, wanted = {0}, after = {0};
	struct job *j = &bed.job;
	struct errmsg msg = {0};
	size_t n_temps = 0;
	bool may_refuse;
	int r;

	if (!j->commit || !j->n)
		return;
	scan(&before);
	for (size_t i = before.n; i-- > 0;) {
		if (str_starts(path_base(before.v[i].path), TEMP_PREFIX)) {
			n_temps++;
			files_remove(&before, before.v[i].path);
		}
	}
	CHECK(n_temps <= j->n);
	files_copy(&before, &wanted);
	for (size_t i = 0; i < j->n; i++) {
		const struct msg_file *f = &j->effects[i];
		_cleanup_free_ char *path = effect_place(f, f->path);
		_cleanup_free_ char *target = effect_place(f, f->target);

		files_apply(&wanted, f, path, target, j->bytes[i]);
	}
	/* What users are told between two pieces is what there is, too. */
	while (!commit_apply_some(j->commit, 0, 0, &r, &msg))
		drain_and_check();
	may_refuse = !bed.watched || !j->honest || !j->undisturbed || j->refused;
	if (getenv("FUZZ_TRACE") || (r < 0 && !may_refuse))
		fprintf(stderr, "%d %s\n", r, msg.text);
	scan(&after);
	if (r == 0)
		CHECK(!j->refused && (!j->honest || files_same(&wanted, &after)));
	else if (j->honest || !strstr(msg.text, "in place"))
		CHECK(files_same(&before, &after));
	/* Where nothing is watched, a file may be too young to tell whether it changed. */
	CHECK(r == 0 || may_refuse);
	check_outside(&before, &after);
	files_release(&before);
	files_release(&wanted);
	files_release(&after);
	job_end();
	scan_victim();
	drain_and_check();
}

/* ---- one input ---- */

static void lay_out(void)
{
	static const char *const dirs[] = {"w",	       "w/a",	     "w/sub",  "w/sub/a",
					   "w/sub/in", "w/sub/in/a", "w/b",    "v1",
					   "v2",       "v1/a",	     "victim", "victim/a"};

	for (size_t i = 0; i < N_OF(areas); i++)
		CHECK(path_remove_tree(scratch(), areas[i]) == 0);
	for (size_t i = 0; i < N_OF(dirs); i++)
		CHECK(mkdirat(scratch(), dirs[i], 0755) == 0);
	(void)unlinkat(scratch(), "link", 0);
	CHECK(symlinkat("v1", scratch(), "link") == 0);
	scratch_write("w/f", "f", 1);
	scratch_write("w/sub/f", "sub/f", 5);
	scratch_write("w/sub/in/f", "sub/in/f", 8);
	scratch_write("w/b/f", "b/f", 3);
	scratch_write("v1/f", "v1/f", 4);
	scratch_write("victim/" SECRET, SECRET, strlen(SECRET));
	scratch_write("victim/a/" SECRET, SECRET, strlen(SECRET));
	scratch_write("victim/f", SECRET, strlen(SECRET));
	scan_victim();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	log_init("fuzz", LOG_LEVEL_ERR);
	return 0;
}

static void check_victim(void)
{
	struct files now = {0};

	files_scan(&now, scratch(), "victim", "victim");
	CHECK(files_same(&bed.victim, &now));
	files_release(&now);
}

/* FUZZ_TRACE=1 tells what an input does. */
static void trace(const uint8_t s[4])
{
	static const char *const names[N_STEPS] = {
		"file",	    "append",	 "dir",		"remove",  "rename",	 "symlink",
		"link",	    "mode",	 "fifo",	"lead",	   "serve",	 "withdraw",
		"drain",    "on-event",	 "reset",	"list",	   "list-all",	 "fetch",
		"job",	    "job-file",	 "job-symlink", "job-dir", "job-remove", "job-meta",
		"job-link", "job-apply",
	};
	char path[16], other[16];

	if (!getenv("FUZZ_TRACE"))
		return;
	place(s[1], path);
	place(s[2], other);
	fprintf(stderr, "%s %u %s %s %#x\n", names[s[0] % N_STEPS], s[1], path, other, s[3]);
}

static void do_step(const uint8_t s[4])
{
	enum step what = s[0] % N_STEPS;
	unsigned peer = s[3] & 1;

	trace(s);

	switch (what) {
	case SERVE:
	case WITHDRAW:
		serve(s[1], what == WITHDRAW);
		break;
	case DRAIN:
		drain_and_check();
		break;
	case ON_EVENT:
		tree_on_event(bed.tree);
		find_roots();
		break;
	case PEER_RESET:
		if (peer == 0)
			job_end(); /* it was that one's */
		tree_peer_reset(bed.tree, peer);
		replica_release(&bed.replicas[peer]);
		break;
	case LIST:
		list(peer, s[1], s[3]);
		break;
	case LIST_ALL:
		list_served(peer);
		break;
	case FETCH:
		fetch(peer, s[1], s[2]);
		break;
	case JOB:
		job_start(s[1]);
		break;
	case JOB_APPLY:
		job_apply();
		break;
	default:
		if (what < SERVE)
			user(what, s);
		else
			job_step(what, s);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const struct tree_ops ops = {.send = on_send};
	const struct tree_limits limits = {.no_openat2 = n && data[0] & 1,
					   .max_watches = n && data[0] & 2 ? 3 : 0,
					   .network = n && data[0] & 4};
	struct errmsg msg = {0};

	if (n < 1 || n > 1 + 4 * STEPS_MAX)
		return 0;
	lay_out();
	CHECK(tree_new_limited(&ops, &bed, NULL, &limits, &bed.tree, &msg) == 0);
	bed.watched = !(data[0] & 6);
	memset(bed.served, 0, sizeof(bed.served));
	for (size_t i = 0; i < 4; i++) {
		if (!(data[0] & 8 << i))
			serve((uint8_t)i, false);
	}
	for (size_t i = 1; i + 4 <= n; i += 4)
		do_step(data + i);
	job_end();
	drain_and_check();
	check_victim();
	tree_free(bed.tree);
	for (size_t i = 0; i < N_OF(roots); i++) {
		free(bed.held[i]);
		bed.held[i] = NULL;
		bed.former_ino[i] = 0;
	}
	for (unsigned p = 0; p < N_PEERS; p++)
		replica_release(&bed.replicas[p]);
	return 0;
}
