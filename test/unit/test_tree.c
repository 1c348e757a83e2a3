/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The client's snapshots against real directories that a child process changes:
 * after each change one tree_drain() must have told a model worker everything.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/map.h"
#include "concc/str.h"
#include "tree/snapshot.h"
#include "concc/tree.h"

#include "../lib/refuse.h"
#include "../lib/unit.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

/* ---- a model worker: keeps what it is told, and nothing else ---- */

struct name {
	struct entry_attr attr;
	char *target;
};

struct listing {
	uint32_t id;
	uint8_t state;
	char *path;
	struct entry_attr attr;
	struct map names;
};

struct worker {
	struct map by_path, by_id;
	unsigned dirs, updates, stales;
	unsigned unknowns; /* answers that say nothing */
	uint32_t last_error, last_id;
};

struct bed {
	struct tree *tree;
	struct hash_cache *cache;
	struct worker workers[4];
	struct map contents; /* "path version" -> struct digest: bytes of a version never change */
	bool may_be_unknown; /* what a name stands for */
	char root[64];
	/* the child that changes files */
	pid_t child;
	int to_child, from_child;
};

static void name_free(struct name *n)
{
	if (n)
		free(n->target);
	free(n);
}

static void forget(struct worker *w, struct listing *l)
{
	struct name *n;

	map_del_str(&w->by_path, l->path);
	map_del_u64(&w->by_id, l->id);
	for (size_t it = 0; (n = map_next(&l->names, &it, NULL));)
		name_free(n);
	map_release(&l->names);
	free(l->path);
	free(l);
}

static void forget_below(struct worker *w, const char *path)
{
	struct listing *l;

	for (size_t it = 0; (l = map_next(&w->by_path, &it, NULL));) {
		if (path_is_below(l->path, path))
			forget(w, l);
	}
}

static void put_entry(struct worker *w, struct listing *l, const struct dir_entry *d)
{
	char *name = xstrndup((const char *)d->name.p, d->name.n);
	struct name *old = map_get_str(&l->names, name);
	char *path = path_join(l->path, name);
	struct name *n;

	if (old)
		cr_assert_gt(d->attr.version, old->attr.version, "%s: version did not grow", path);
	/* dir_ids hold until the entry that leads to the directory changes. */
	if (old && old->attr.type == ENTRY_DIR)
		forget_below(w, path);
	if (d->attr.type == ENTRY_ABSENT) {
		name_free(map_del_str(&l->names, name));
	} else {
		n = xcalloc(1, sizeof(*n));
		n->attr = d->attr;
		n->target = xstrndup((const char *)d->target.p, d->target.n);
		name_free(map_put_str(&l->names, name, n));
	}
	free(path);
	free(name);
}

static void on_dir(struct worker *w, const struct buf *b)
{
	struct msg_dir m;
	struct listing *l;

	w->dirs++;
	cr_assert_eq(msg_dir_decode((struct blob){b->data, b->len}, &m), 0);
	cr_assert_neq(m.dir_id, 0);
	if (m.dir_id > w->last_id)
		w->last_id = m.dir_id;
	if (m.state == DIR_UNKNOWN) {
		w->unknowns++;
		w->last_error = m.error;
		msg_dir_release(&m);
		return;
	}
	l = map_get_str(&w->by_path, m.path);
	if (l)
		forget(w, l);
	l = xcalloc(1, sizeof(*l));
	l->id = m.dir_id;
	l->state = m.state;
	l->path = xstrdup(m.path);
	l->attr = m.attr;
	map_put_str(&w->by_path, l->path, l);
	map_put_u64(&w->by_id, l->id, l);
	for (uint32_t i = 0; i < m.n; i++) {
		struct dir_entry d;

		dir_entry_decode(&m.entries, &d);
		put_entry(w, l, &d);
	}
	msg_dir_release(&m);
}

static void on_update(struct worker *w, const struct buf *b)
{
	struct msg_update m;
	struct listing *l;

	w->updates++;
	cr_assert_eq(msg_update_decode((struct blob){b->data, b->len}, &m), 0);
	l = map_get_u64(&w->by_id, m.dir_id);
	cr_assert(l, "UPDATE for a directory that was never listed or is void");
	l->attr = m.attr;
	for (uint32_t i = 0; i < m.n; i++) {
		struct dir_entry d;

		dir_entry_decode(&m.entries, &d);
		put_entry(w, l, &d);
	}
}

static void on_send(void *data, unsigned peer, uint8_t type, const struct buf *b)
{
	cr_assert_leq(b->len, type == MSG_DIR ? PROTO_DIR_MAX : PROTO_MSG_MAX, "%zu bytes", b->len);
	struct worker *w = &((struct bed *)data)->workers[peer];
	uint32_t id;

	if (type == MSG_DIR) {
		on_dir(w, b);
	} else if (type == MSG_UPDATE) {
		on_update(w, b);
	} else {
		cr_assert_eq(type, MSG_DIR_STALE);
		cr_assert_eq(msg_u32_decode((struct blob){b->data, b->len}, &id), 0);
		cr_assert_leq(id, w->last_id, "DIR_STALE for an unknown directory");
		/* One that is void by its parent's UPDATE already is ignored. */
		if (map_get_u64(&w->by_id, id))
			forget(w, map_get_u64(&w->by_id, id));
		w->stales++;
	}
}

static void worker_reset(struct worker *w)
{
	struct listing *l;

	for (size_t it = 0; (l = map_next(&w->by_path, &it, NULL));)
		forget(w, l);
	map_release(&w->by_path);
	map_release(&w->by_id);
	*w = (struct worker){0};
}

static struct listing *listing(struct bed *b, unsigned peer, const char *path)
{
	struct listing *l = map_get_str(&b->workers[peer].by_path, path);

	if (l)
		return l;
	tree_list(b->tree, peer, path);
	l = map_get_str(&b->workers[peer].by_path, path);
	cr_assert(l, "LIST %s was not answered", path);
	return l;
}

static struct name *entry_of(struct bed *b, unsigned peer, const char *dir, const char *name)
{
	return map_get_str(&listing(b, peer, dir)->names, name);
}

/* ---- the truth ---- */

static uint8_t type_of(mode_t m)
{
	return S_ISREG(m)    ? ENTRY_FILE
	       : S_ISDIR(m)  ? ENTRY_DIR
	       : S_ISLNK(m)  ? ENTRY_SYMLINK
	       : S_ISFIFO(m) ? ENTRY_FIFO
	       : S_ISSOCK(m) ? ENTRY_SOCKET
	       : S_ISCHR(m)  ? ENTRY_CHAR
			     : ENTRY_BLOCK;
}

/* What a worker gets that asks for this version has the bytes that it has now, and ever had. */
static void check_bytes(struct bed *b, uint32_t dir_id, const char *path, uint64_t version)
{
	char *key = xasprintf("%s %llu", path, (unsigned long long)version);
	struct digest *d = xcalloc(1, sizeof(*d));
	struct digest *old = map_get_str(&b->contents, key);
	struct entry_attr a;
	int fd = -1;

	cr_assert_eq(tree_open_file(b->tree, dir_id, path_base(path), version, &fd, &a), 0);
	cr_assert_eq(digest_of_fd(fd, d, NULL), 0);
	close(fd);
	if (old)
		cr_assert(digest_eq(old, d), "%s: other bytes in the same version", path);
	else
		map_put_str(&b->contents, key, steal_ptr(&d));
	free(d);
	free(key);
}

static void check_name(struct bed *b, uint32_t dir_id, const char *path, const struct name *n,
		       const struct stat *st)
{
	char target[4096];
	ssize_t len;

	cr_assert(n, "%s: there, but the worker was not told", path);
	if (b->may_be_unknown && n->attr.type == ENTRY_UNKNOWN)
		return;
	cr_assert_eq(n->attr.type, type_of(st->st_mode), "%s: type", path);
	cr_assert_eq(n->attr.mode, st->st_mode & 07777, "%s: mode", path);
	if (S_ISDIR(st->st_mode))
		return;
	cr_assert_eq(n->attr.size, (uint64_t)st->st_size, "%s: size", path);
	cr_assert_eq(n->attr.nlink, st->st_nlink, "%s: nlink", path);
	cr_assert(n->attr.mtime_s == st->st_mtim.tv_sec && n->attr.mtime_ns == st->st_mtim.tv_nsec,
		  "%s: mtime", path);
	cr_assert(n->attr.ctime_s == st->st_ctim.tv_sec && n->attr.ctime_ns == st->st_ctim.tv_nsec,
		  "%s: ctime", path);
	if (S_ISREG(st->st_mode))
		check_bytes(b, dir_id, path, n->attr.version);
	if (S_ISLNK(st->st_mode)) {
		len = readlink(path, target, sizeof(target) - 1);
		target[len < 0 ? 0 : len] = '\0';
		cr_assert_str_eq(n->target, target, "%s: target", path);
	}
}

/* What the worker knows of path is the truth; asks for what it doesn't know when `list`. */
static void check_dir(struct bed *b, unsigned peer, const char *path, bool list)
{
	struct listing *l = map_get_str(&b->workers[peer].by_path, path);
	unsigned n = 0;
	struct dirent *de;
	struct stat st;
	DIR *dir;

	if (!l && !list)
		return;
	if (!l)
		l = listing(b, peer, path);
	dir = opendir(path);
	if (!dir) {
		cr_assert_neq(l->state, DIR_LISTED, "%s: gone, but the worker has it listed", path);
		return;
	}
	cr_assert_eq(l->state, DIR_LISTED, "%s: there, but not listed", path);
	cr_assert_eq(fstat(dirfd(dir), &st), 0);
	cr_assert(l->attr.mode == (st.st_mode & 07777) && l->attr.mtime_s == st.st_mtim.tv_sec &&
			  l->attr.mtime_ns == st.st_mtim.tv_nsec,
		  "%s: the directory's own attributes", path);
	while ((de = readdir(dir))) {
		char *child;
		struct name *e;

		if (streq(de->d_name, ".") || streq(de->d_name, "..") ||
		    str_starts(de->d_name, ".concc-tmp-"))
			continue;
		child = path_join(path, de->d_name);
		e = map_get_str(&l->names, de->d_name);
		n++;
		cr_assert_eq(lstat(child, &st), 0);
		check_name(b, l->id, child, e, &st);
		if (S_ISDIR(st.st_mode))
			check_dir(b, peer, child, list);
		free(child);
	}
	closedir(dir);
	cr_assert_eq(l->names.n, n, "%s: the worker knows %zu names, there are %u", path,
		     l->names.n, n);
}

/* ---- the bed ---- */

static void bed_tree(struct bed *b, const struct tree_limits *limits)
{
	static const struct tree_ops ops = {.send = on_send};
	struct errmsg msg = {0};

	cr_assert_eq(tree_new_limited(&ops, b, NULL, limits, &b->tree, &msg), 0, "%s", msg.text);
}

static void bed_init(struct bed *b, const struct tree_limits *limits)
{
	struct errmsg msg = {0};

	*b = (struct bed){0};
	strcpy(b->root, "/tmp/concc-test-tree.XXXXXX");
	cr_assert(mkdtemp(b->root));
	bed_tree(b, limits);
	cr_assert_eq(tree_serve(b->tree, b->root, true, &msg), 0, "%s", msg.text);
}

static int rm_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void rm_rf(const char *path)
{
	(void)nftw(path, rm_one, 32, FTW_DEPTH | FTW_PHYS);
}

static void bed_release(struct bed *b)
{
	struct digest *d;

	tree_free(b->tree);
	hash_cache_free(b->cache);
	for (int i = 0; i < 4; i++)
		worker_reset(&b->workers[i]);
	for (size_t it = 0; (d = map_next(&b->contents, &it, NULL));)
		free(d);
	map_release(&b->contents);
	rm_rf(b->root);
}

static char *at(const struct bed *b, const char *rel)
{
	static char bufs[8][512];
	static unsigned i;
	char *p = bufs[i++ % 8];

	snprintf(p, 512, "%s/%s", b->root, rel);
	return p;
}

/* ---- random changes ---- */

struct rng {
	uint64_t s;
};

static unsigned rnd(struct rng *r, unsigned n)
{
	r->s ^= r->s << 13;
	r->s ^= r->s >> 7;
	r->s ^= r->s << 17;
	return (unsigned)((r->s >> 11) % n);
}

static const char *const dirs[] = {"", "a", "b", "a/c", "a/c/d", "b/e"};
static const char *const names[] = {"f1", "f2", "f3", "f4", "f5", "s1", "c", "d", "e", "a", "b"};

static void random_path(struct rng *r, const char *root, char *buf)
{
	snprintf(buf, 512, "%s/%s/%s", root, dirs[rnd(r, 6)], names[rnd(r, 11)]);
}

static void put_bytes(struct rng *r, const char *path, int flags)
{
	char bytes[64];
	int fd = open(path, flags | O_NOFOLLOW, 0644);

	if (fd < 0)
		return;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)('a' + rnd(r, 26));
	if (write(fd, bytes, sizeof(bytes)) < 0)
		_exit(9);
	close(fd);
}

static void mmap_bytes(struct rng *r, const char *path)
{
	int fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	char *p;

	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size) {
		p = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		p[0] = (char)('A' + rnd(r, 26));
		close(fd);
		munmap(p, 1);
		return;
	}
	close(fd);
}

/* Same size and the old time: what make would not notice. */
static void edit_keep_time(struct rng *r, const char *path)
{
	struct stat st;
	struct timespec t[2];

	if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	put_bytes(r, path, O_WRONLY);
	t[0] = st.st_atim;
	t[1] = st.st_mtim;
	(void)utimensat(AT_FDCWD, path, t, 0);
}

static void random_change(struct rng *r, const char *root, bool alone)
{
	char p[512];
	char q[512];
	char tmp[520];

	random_path(r, root, p);
	random_path(r, root, q);
	snprintf(tmp, sizeof(tmp), "%s.x", q);
	switch (rnd(r, 18)) {
	case 0:
	case 1:
		put_bytes(r, p, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK);
		break;
	case 2:
		put_bytes(r, p, O_WRONLY | O_NONBLOCK); /* same size, perhaps the same tick */
		put_bytes(r, p, O_WRONLY | O_NONBLOCK);
		break;
	case 3:
		edit_keep_time(r, p);
		break;
	case 4:
		mmap_bytes(r, p);
		break;
	case 5:
		(void)unlink(p);
		break;
	case 6:
		(void)unlink(p);
		put_bytes(r, p, O_WRONLY | O_CREAT | O_EXCL);
		break;
	case 7:
		(void)rename(p, q); /* files, and directories with all in them */
		break;
	case 8:
		put_bytes(r, tmp, O_WRONLY | O_CREAT | O_TRUNC);
		(void)rename(tmp, q);
		break;
	case 9:
		(void)symlink(rnd(r, 2) ? "f1" : "../a", p);
		break;
	case 10: /* a symlink swapped in one step */
		(void)symlink(rnd(r, 2) ? "f2" : "../b", tmp);
		if (rename(tmp, q) < 0)
			(void)unlink(tmp);
		break;
	case 11:
		(void)fchmodat(AT_FDCWD, p, 0600 | rnd(r, 0100), 0);
		break;
	case 12:
		/* Alone, and where a worker has listed: other new links are a stated blind spot. */
		snprintf(q, sizeof(q), "%s/%s", root, names[rnd(r, 6)]);
		if (alone && link(p, q) == 0)
			put_bytes(r, q, O_WRONLY);
		break;
	case 13:
		(void)mkdir(p, 0755);
		break;
	case 14:
		(void)rmdir(p);
		(void)mkdir(p, 0755);
		break;
	case 15:
		rm_rf(p);
		break;
	case 16: /* away and back, with a change meanwhile */
		if (rename(p, tmp) == 0) {
			char f[600];

			snprintf(f, sizeof(f), "%s/f1", tmp);
			put_bytes(r, f, O_WRONLY | O_CREAT);
			(void)rename(tmp, p);
		}
		break;
	default:
		(void)renameat2(AT_FDCWD, p, AT_FDCWD, q, RENAME_EXCHANGE);
		break;
	}
}

/* Mounts something somewhere, or takes it away.  All of it is in a namespace of the test's own. */
static void random_mount(struct rng *r, const char *root)
{
	char p[520], q[512];

	snprintf(p, sizeof(p), "%s/%s", root, dirs[rnd(r, 6)]);
	snprintf(q, sizeof(q), "%s/%s", root, dirs[rnd(r, 6)]);
	switch (rnd(r, 11)) {
	case 0:
		(void)mount(p, q, NULL, MS_BIND, NULL);
		break;
	case 1:
		(void)mount("none", q, "tmpfs", 0, NULL);
		snprintf(p, sizeof(p), "%s/f1", q);
		put_bytes(r, p, O_WRONLY | O_CREAT);
		break;
	case 2: /* a file; what is no file, or not there, is refused */
		random_path(r, root, p);
		random_path(r, root, q);
		(void)mount(p, q, NULL, MS_BIND, NULL);
		break;
	case 3: /* another one in its place, with the same number */
		if (umount2(q, MNT_DETACH) == 0)
			(void)mount("none", q, "tmpfs", 0, NULL);
		break;
	case 4:
		random_path(r, root, q);
		(void)umount2(q, MNT_DETACH);
		break;
	case 5: /* with what is mounted in it: no change of mounts */
		(void)renameat2(AT_FDCWD, p, AT_FDCWD, q, RENAME_EXCHANGE);
		break;
	case 6: /* of what may be mounted elsewhere */
	case 7:
		random_path(r, root, p);
		(void)fchmodat(AT_FDCWD, p, 0600 | rnd(r, 0100), 0);
		break;
	default: /* so that they don't pile up */
		(void)umount2(q, MNT_DETACH);
		break;
	}
}

static void child_loop(int in, int out, const char *root, uint64_t seed, bool mounts)
{
	struct rng r = {seed};
	char n;

	while (read(in, &n, 1) == 1) {
		for (int i = 0; i < n; i++) {
			if (mounts && rnd(&r, 4) == 0)
				random_mount(&r, root);
			else
				random_change(&r, root, n == 1 && !mounts);
		}
		if (write(out, "", 1) != 1)
			_exit(8);
	}
	_exit(0);
}

static void child_start(struct bed *b, uint64_t seed, bool mounts)
{
	int down[2];
	int up[2];

	cr_assert_eq(pipe2(down, O_CLOEXEC), 0);
	cr_assert_eq(pipe2(up, O_CLOEXEC), 0);
	b->child = fork();
	if (b->child == 0) {
		close(down[1]);
		close(up[0]);
		child_loop(down[0], up[1], b->root, seed, mounts);
	}
	close(down[0]);
	close(up[1]);
	b->to_child = down[1];
	b->from_child = up[0];
}

static void child_change(struct bed *b, char n)
{
	cr_assert_eq(write(b->to_child, &n, 1), 1);
	cr_assert_eq(read(b->from_child, &n, 1), 1, "the changing process died");
}

static void child_stop(struct bed *b)
{
	int status;

	close(b->to_child);
	close(b->from_child);
	cr_assert_eq(waitpid(b->child, &status, 0), b->child);
	cr_assert_eq(status, 0);
}

static uint64_t new_seed(void)
{
	const char *s = getenv("CONCC_TEST_SEED");
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return s ? strtoull(s, NULL, 0) : (uint64_t)t.tv_nsec << 20 ^ (uint64_t)t.tv_sec ^ 1;
}

/*
 * ramfs stamps files with the clock's ticks only, as all file systems did before
 * Linux 6.13: changes within one tick show the same times.
 */
static void use_ramfs(struct bed *b)
{
	struct errmsg msg;
	static const struct tree_ops ops = {.send = on_send};

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		cr_skip_test("no right to mount");
	tree_free(b->tree);
	cr_assert_eq(mount("ramfs", b->root, "ramfs", 0, NULL), 0);
	cr_assert_eq(tree_new(&ops, b, NULL, &b->tree, &msg), 0);
	cr_assert_eq(tree_serve(b->tree, b->root, true, &msg), 0);
}

static void random_rounds(const struct tree_limits *limits, unsigned rounds, bool coarse)
{
	uint64_t seed = new_seed();
	struct rng r = {seed ^ 0x5555};
	struct bed b;

	cr_log_info("seed: CONCC_TEST_SEED=%llu", (unsigned long long)seed);
	fprintf(stderr, "CONCC_TEST_SEED=%llu\n", (unsigned long long)seed);
	bed_init(&b, limits);
	if (coarse) {
		use_ramfs(&b);
		b.tree->limits = *limits;
	}
	for (size_t i = 1; i < 6; i++)
		cr_assert_eq(mkdir(at(&b, dirs[i]), 0755), 0);
	child_start(&b, seed, false);
	for (unsigned i = 0; i < rounds; i++) {
		child_change(&b, (char)(1 + rnd(&r, 3)));
		cr_assert_eq(tree_drain(b.tree), 0);
		check_dir(&b, 0, b.root, false);
		check_dir(&b, 1, b.root, false);
		if (!rnd(&r, 8))
			tree_set_horizon(b.tree, UINT64_MAX); /* no job runs */
		/* Now and then something is not asked for, so that partial views occur. */
		if (rnd(&r, 4))
			check_dir(&b, 0, b.root, true);
		if (!rnd(&r, 8))
			check_dir(&b, 1, b.root, true);
		if (!rnd(&r, 50)) {
			tree_peer_reset(b.tree, 1);
			worker_reset(&b.workers[1]);
		}
		if (!rnd(&r, 200)) {
			tree_peer_reset(b.tree, 0);
			worker_reset(&b.workers[0]);
		}
	}
	child_stop(&b);
	if (coarse)
		umount2(b.root, MNT_DETACH);
	bed_release(&b);
}

static void own_mounts(void)
{
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		cr_skip_test("no right to mount");
}

static void end_mounts(const struct bed *b)
{
	for (size_t i = 6; i-- > 0;)
		while (umount2(at(b, dirs[i]), MNT_DETACH) == 0)
			;
}

/* The numbers of all mounts, which a directory that is moved with some of them leaves alone; true
 * when they are others than before. */
static bool mounts_differ(struct buf *last)
{
	struct buf text = BUF_INIT, now = BUF_INIT;
	bool differ;

	cr_assert_eq(read_file_at(AT_FDCWD, "/proc/self/mountinfo", 1 << 20, &text), 0);
	for (const char *p = buf_cstr(&text); *p; p += strcspn(p, "\n"), p += *p != '\0')
		buf_append(&now, p, strcspn(p, " ") + 1);
	differ = now.len != last->len || memcmp(now.data, last->data, now.len) != 0;
	buf_release(&text);
	buf_release(last);
	*last = now;
	return differ;
}

static void random_mounts(const struct tree_limits *limits, unsigned rounds)
{
	uint64_t seed = new_seed(), known, changed = 0;
	struct buf mounts = BUF_INIT;
	struct tree_counts c;
	struct bed b;

	fprintf(stderr, "CONCC_TEST_SEED=%llu\n", (unsigned long long)seed);
	own_mounts();
	bed_init(&b, limits);
	for (size_t i = 1; i < 6; i++)
		cr_assert_eq(mkdir(at(&b, dirs[i]), 0755), 0);
	child_start(&b, seed, true);
	cr_assert_eq(tree_drain(b.tree), 0);
	tree_counts(b.tree, &c);
	known = c.mounts;
	(void)mounts_differ(&mounts);
	for (unsigned i = 0; i < rounds; i++) {
		child_change(&b, (char)(1 + i % 3));
		changed += mounts_differ(&mounts);
		cr_assert_eq(tree_drain(b.tree), 0);
		check_dir(&b, 0, b.root, false);
		if (i % 4)
			check_dir(&b, 0, b.root, true);
	}
	child_stop(&b);
	tree_counts(b.tree, &c);
	cr_assert_gt(changed, 0);
	cr_assert_geq(c.mounts - known, changed, "it has noticed %llu of %llu changes",
		      (unsigned long long)(c.mounts - known), (unsigned long long)changed);
	buf_release(&mounts);
	end_mounts(&b);
	bed_release(&b);
}

Test(tree, random_mounts, .timeout = 1000)
{
	random_mounts(NULL, 1500);
}

Test(tree, random_mounts_few_watches, .timeout = 1000)
{
	random_mounts(&(struct tree_limits){.max_watches = 4}, 700);
}

/* ---- what can't be told ---- */

/* Asks for directories while calls fail: each answer is right, or none. */
static void list_in_need(struct bed *b, struct rng *r)
{
	for (int i = 0; i < 3; i++) {
		const char *dir = dirs[rnd(r, 6)], *path = *dir ? at(b, dir) : b->root;
		_cleanup_free_ char *real = realpath(path, NULL);
		struct listing *l;
		struct stat st;
		/* By no symlink. */
		bool there = real && streq(real, path) && stat(path, &st) == 0 &&
			     S_ISDIR(st.st_mode);

		if (map_get_str(&b->workers[0].by_path, path))
			continue;
		refuse_one_in = 4;
		tree_list(b->tree, 0, path);
		refuse_one_in = 0;
		l = map_get_str(&b->workers[0].by_path, path);
		if (!l)
			continue;
		cr_assert_eq(l->state, there ? DIR_LISTED : DIR_MISSING, "%s: state %d", path,
			     l->state);
		if (!there) /* such an answer is forgotten with those that waited for it */
			forget(&b->workers[0], l);
	}
}

static void random_refusals(const struct tree_limits *limits, unsigned rounds)
{
	uint64_t seed = new_seed();
	struct rng r = {seed ^ 0x7777};
	struct bed b;

	fprintf(stderr, "CONCC_TEST_SEED=%llu\n", (unsigned long long)seed);
	refuse_seed = seed;
	bed_init(&b, limits);
	for (size_t i = 1; i < 6; i++)
		cr_assert_eq(mkdir(at(&b, dirs[i]), 0755), 0);
	child_start(&b, seed, false);
	for (unsigned i = 0; i < rounds; i++) {
		child_change(&b, (char)(1 + rnd(&r, 3)));
		refuse_one_in = 1 + rnd(&r, 16);
		cr_assert_eq(tree_drain(b.tree), 0);
		refuse_one_in = 0;
		b.may_be_unknown = true;
		check_dir(&b, 0, b.root, false);
		list_in_need(&b, &r);
		check_dir(&b, 0, b.root, false);
		b.may_be_unknown = false;
		if (rnd(&r, 3))
			continue;
		/* With all that it takes, all is told. */
		cr_assert_eq(tree_drain(b.tree), 0);
		check_dir(&b, 0, b.root, false);
		check_dir(&b, 0, b.root, true);
	}
	child_stop(&b);
	cr_assert_gt(n_refused, rounds);
	cr_assert_gt(b.workers[0].unknowns, 0);
	bed_release(&b);
}

Test(tree, random_refusals, .timeout = 1000)
{
	random_refusals(&(struct tree_limits){.no_openat2 = true}, 3000);
}

Test(tree, random_refusals_few_watches, .timeout = 1000)
{
	random_refusals(&(struct tree_limits){.no_openat2 = true, .max_watches = 4}, 1000);
}

static void limit_fds(rlim_t n)
{
	struct rlimit rl;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &rl), 0);
	rl.rlim_cur = n;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &rl), 0);
}

/* The lowest free number: a limit of this is one of none that is free. */
static int free_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

Test(tree, descriptors_run_out, .timeout = 1000)
{
	IN_CHILD({
		unsigned unknowns = 0;
		struct bed b;

		bed_init(&b, NULL);
		for (int i = 0; i < 12; i++) {
			char dir[32];

			snprintf(dir, sizeof(dir), "d%d/in/deep", i);
			cr_assert_eq(path_mkdirs(at(&b, dir), 0755), 0);
		}
		write_file(at(&b, "d0/in/f"), "1");
		check_dir(&b, 0, at(&b, "d0"), true);
		for (int i = 1; i < 12; i++) {
			char dir[32];

			write_file(at(&b, "d0/in/f"), i % 2 ? "22" : "1");
			snprintf(dir, sizeof(dir), "d%d/in/deep", i);
			limit_fds((rlim_t)(free_fd() + i - 1));
			tree_drain(b.tree);
			tree_list(b.tree, 0, at(&b, dir));
			limit_fds(1024);
			b.may_be_unknown = true;
			check_dir(&b, 0, b.root, false);
			b.may_be_unknown = false;
			unknowns += !map_get_str(&b.workers[0].by_path, at(&b, dir));
		}
		cr_assert_gt(unknowns, 0);
		cr_assert_lt(unknowns, 11, "not even with ten of them");
		cr_assert_eq(b.workers[0].last_error, EMFILE);
		tree_drain(b.tree);
		check_dir(&b, 0, b.root, true);
		bed_release(&b);
	});
}

/* One that can't be looked at is told as that, and none beside it suffers. */
Test(tree, a_dead_mount, .timeout = 1000)
{
	char opts[64];
	struct bed b;
	int fuse;

	own_mounts();
	bed_init(&b, NULL);
	write_file(at(&b, "f"), "1");
	cr_assert_eq(mkdir(at(&b, "dead"), 0755), 0);
	check_dir(&b, 0, b.root, true);
	fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	cr_assert_geq(fuse, 0);
	snprintf(opts, sizeof(opts), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
	cr_assert_eq(mount("none", at(&b, "dead"), "fuse", 0, opts), 0, "%s", strerror(errno));
	close(fuse);
	tree_drain(b.tree);
	cr_assert_eq(entry_of(&b, 0, b.root, "dead")->attr.type, ENTRY_UNKNOWN);
	cr_assert_eq(entry_of(&b, 0, b.root, "f")->attr.type, ENTRY_FILE);
	tree_list(b.tree, 0, at(&b, "dead"));
	cr_assert_eq(b.workers[0].unknowns, 1);
	write_file(at(&b, "f"), "22");
	tree_drain(b.tree);
	cr_assert_eq(entry_of(&b, 0, b.root, "f")->attr.size, 2);
	cr_assert_eq(umount2(at(&b, "dead"), MNT_DETACH), 0);
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, true);
	bed_release(&b);
}

Test(tree, more_names_than_can_be_told)
{
	struct bed b;

	bed_init(&b, &(struct tree_limits){.dir_bytes = 4096});
	for (int i = 0; i < 100; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%d", i);
		write_file(at(&b, name), "");
	}
	tree_list(b.tree, 0, b.root);
	cr_assert_eq(b.workers[0].unknowns, 1);
	cr_assert_eq(b.workers[0].last_error, E2BIG);
	for (int i = 0; i < 90; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%d", i);
		cr_assert_eq(unlink(at(&b, name)), 0);
	}
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, true);
	bed_release(&b);
}

Test(tree, random_changes_watched, .timeout = 1000)
{
	int before = count_fds();

	random_rounds(NULL, 4000, false);
	cr_assert_eq(count_fds(), before, "leaked descriptors");
}

Test(tree, random_changes_without_openat2, .timeout = 1000)
{
	random_rounds(&(struct tree_limits){.no_openat2 = true}, 500, false);
}

Test(tree, random_changes_few_watches, .timeout = 1000)
{
	random_rounds(&(struct tree_limits){.max_watches = 4}, 1500, false);
}

Test(tree, random_changes_network, .timeout = 1000)
{
	random_rounds(&(struct tree_limits){.network = true}, 1000, false);
}

Test(tree, random_changes_coarse_clock, .timeout = 1000)
{
	random_rounds(&(struct tree_limits){0}, 1500, true);
}

Test(tree, random_changes_coarse_clock_unwatched, .timeout = 1000)
{
	random_rounds(&(struct tree_limits){.max_watches = 1}, 1000, true);
}

/* ---- one thing at a time ---- */

static void drain_and_check(struct bed *b)
{
	tree_drain(b->tree);
	check_dir(b, 0, b->root, false);
	check_dir(b, 0, b->root, true);
}

#define MOUNT(from, to) cr_assert_eq(mount(from, to, NULL, MS_BIND, NULL), 0, "%s", strerror(errno))
#define TMPFS(to)	cr_assert_eq(mount("none", to, "tmpfs", 0, NULL), 0, "%s", strerror(errno))
#define UMOUNT(to)	cr_assert_eq(umount2(to, 0), 0, "%s", strerror(errno))
#define UMOUNT_LAZY(to) cr_assert_eq(umount2(to, MNT_DETACH), 0, "%s", strerror(errno))

Test(tree, mounts_are_changes)
{
	struct bed b;

	own_mounts();
	bed_init(&b, NULL);
	cr_assert_eq(path_mkdirs(at(&b, "inc/deep"), 0755), 0);
	cr_assert_eq(path_mkdirs(at(&b, "alt/deep/er"), 0755), 0);
	cr_assert_eq(mkdir(at(&b, "empty"), 0755), 0);
	write_file(at(&b, "inc/h"), "old");
	write_file(at(&b, "inc/deep/h"), "old");
	write_file(at(&b, "alt/h"), "new");
	write_file(at(&b, "file"), "old");
	drain_and_check(&b);
	/* A directory, with all in it, and back. */
	MOUNT(at(&b, "alt"), at(&b, "inc"));
	drain_and_check(&b);
	UMOUNT(at(&b, "inc"));
	drain_and_check(&b);
	/* Two at once, one on the other. */
	MOUNT(at(&b, "alt"), at(&b, "inc"));
	MOUNT(at(&b, "inc"), at(&b, "inc/deep"));
	drain_and_check(&b);
	UMOUNT_LAZY(at(&b, "inc"));
	drain_and_check(&b);
	/* What was empty, and what comes in its place looks the same to mountinfo. */
	TMPFS(at(&b, "empty"));
	write_file(at(&b, "empty/one"), "1");
	drain_and_check(&b);
	UMOUNT(at(&b, "empty"));
	TMPFS(at(&b, "empty"));
	write_file(at(&b, "empty/two"), "2");
	drain_and_check(&b);
	UMOUNT(at(&b, "empty"));
	MOUNT(at(&b, "alt"), at(&b, "empty"));
	drain_and_check(&b);
	UMOUNT(at(&b, "empty"));
	cr_assert_eq(rename(at(&b, "alt"), at(&b, "alt2")), 0);
	cr_assert_eq(mkdir(at(&b, "alt"), 0755), 0);
	write_file(at(&b, "alt/other"), "o");
	MOUNT(at(&b, "alt"), at(&b, "empty"));
	drain_and_check(&b);
	/* Moved with the directory around it, then taken away. */
	cr_assert_eq(path_mkdirs(at(&b, "around/point"), 0755), 0);
	MOUNT(at(&b, "alt"), at(&b, "around/point"));
	drain_and_check(&b);
	cr_assert_eq(rename(at(&b, "around"), at(&b, "moved")), 0);
	drain_and_check(&b);
	UMOUNT(at(&b, "moved/point"));
	drain_and_check(&b);
	/* A file. */
	MOUNT(at(&b, "inc/h"), at(&b, "file"));
	drain_and_check(&b);
	UMOUNT(at(&b, "file"));
	drain_and_check(&b);
	UMOUNT(at(&b, "empty"));
	bed_release(&b);
}

/*
 * What is mounted on a file is changed by the name it has elsewhere, also after the directory
 * around it was moved: which is no change of mounts.
 */
static void move_a_mounted_file(const struct tree_limits *limits)
{
	struct bed b;

	own_mounts();
	bed_init(&b, limits);
	cr_assert_eq(path_mkdirs(at(&b, "from/dir"), 0755), 0);
	cr_assert_eq(mkdir(at(&b, "alt"), 0755), 0);
	write_file(at(&b, "alt/f"), "new");
	write_file(at(&b, "from/dir/f"), "old");
	MOUNT(at(&b, "alt/f"), at(&b, "from/dir/f"));
	drain_and_check(&b);
	for (int i = 0; i < 4; i++) {
		bool there = i % 2;

		cr_assert_eq(chmod(at(&b, "alt/f"), 0600), 0);
		drain_and_check(&b);
		cr_assert_eq(rename(at(&b, there ? "to" : "from"), at(&b, there ? "from" : "to")),
			     0);
		drain_and_check(&b);
		cr_assert_eq(chmod(at(&b, "alt/f"), 0640), 0);
		drain_and_check(&b);
	}
	UMOUNT(at(&b, "from/dir/f"));
	drain_and_check(&b);
	bed_release(&b);
}

Test(tree, a_mounted_file_that_was_moved)
{
	move_a_mounted_file(NULL);
}

Test(tree, a_mounted_file_that_was_moved_on_an_old_kernel)
{
	move_a_mounted_file(&(struct tree_limits){.no_openat2 = true});
}

/* Nothing was mounted beneath the root, as far as it heard. */
Test(tree, a_mounted_file_that_came_from_elsewhere)
{
	char other[] = "/tmp/concc-test-other.XXXXXX";
	char file[80];
	struct bed b;

	own_mounts();
	cr_assert(mkdtemp(other));
	snprintf(file, sizeof(file), "%s/f", other);
	bed_init(&b, NULL);
	write_file(at(&b, "f"), "new");
	write_file(file, "old");
	MOUNT(at(&b, "f"), file);
	drain_and_check(&b);
	cr_assert_eq(rename(other, at(&b, "came")), 0);
	drain_and_check(&b);
	cr_assert_eq(chmod(at(&b, "f"), 0600), 0);
	drain_and_check(&b);
	UMOUNT(at(&b, "came/f"));
	drain_and_check(&b);
	bed_release(&b);
}

/* On the served directory itself, on the way to it, and on itself: what is mounted then, is there.
 */
Test(tree, mounts_over_a_root)
{
	char around[80];
	struct bed b;

	own_mounts();
	bed_init(&b, NULL);
	cr_assert_eq(mkdir(at(&b, "d"), 0755), 0);
	cr_assert_eq(mkdir(at(&b, "alt"), 0755), 0);
	write_file(at(&b, "d/f"), "old");
	write_file(at(&b, "alt/f"), "new");
	drain_and_check(&b);
	TMPFS(b.root);
	write_file(at(&b, "covers"), "1");
	drain_and_check(&b);
	UMOUNT_LAZY(b.root);
	drain_and_check(&b);
	MOUNT(b.root, b.root);
	MOUNT(at(&b, "alt"), at(&b, "d"));
	drain_and_check(&b);
	UMOUNT(at(&b, "d"));
	UMOUNT_LAZY(b.root);
	drain_and_check(&b);
	snprintf(around, sizeof(around), "%s/d", b.root);
	tree_free(b.tree);
	bed_tree(&b, NULL);
	cr_assert_eq(tree_serve(b.tree, around, true, NULL), 0);
	worker_reset(&b.workers[0]);
	check_dir(&b, 0, around, true);
	TMPFS(b.root);
	tree_drain(b.tree);
	tree_list(b.tree, 0, around);
	cr_assert_eq(listing(&b, 0, around)->state, DIR_MISSING);
	UMOUNT_LAZY(b.root);
	tree_drain(b.tree);
	check_dir(&b, 0, around, false);
	check_dir(&b, 0, around, true);
	bed_release(&b);
}

/* A tree that is taken back is void for all who were told, and as if it had never been. */
/* The user moves a tree that workers write to, and what a worker has made in it is where the path
 * of another root goes through now. */
static void moved_around(bool first, bool made_again)
{
	static const struct tree_ops ops = {.send = on_send};
	struct errmsg msg;
	struct bed b;
	char *in, *a;

	bed_init(&b, NULL);
	tree_free(b.tree);
	cr_assert_eq(tree_new(&ops, &b, NULL, &b.tree, &msg), 0);
	cr_assert_eq(path_mkdirs(at(&b, "sub/in"), 0755), 0);
	cr_assert_eq(path_mkdirs(at(&b, "a"), 0755), 0);
	cr_assert_eq(path_mkdirs(at(&b, "victim"), 0755), 0);
	write_file(at(&b, "victim/key"), "secret");
	in = xstrdup(at(&b, "sub/in"));
	a = xstrdup(at(&b, "a"));
	cr_assert_eq(tree_serve(b.tree, first ? a : in, true, &msg), 0);
	cr_assert_eq(tree_serve(b.tree, first ? in : a, true, &msg), 0);
	cr_assert_eq(symlink("../victim", at(&b, "a/in")), 0);
	tree_drain(b.tree);
	cr_assert_eq(listing(&b, 0, in)->state, DIR_LISTED);
	IN_CHILD({
		if (rename(at(&b, "sub"), at(&b, "old")) < 0 || rename(a, at(&b, "sub")) < 0 ||
		    (made_again && mkdir(a, 0755) < 0))
			_exit(1);
	});
	tree_drain(b.tree);
	cr_assert_neq(listing(&b, 0, in)->state, DIR_LISTED);
	free(in);
	free(a);
	bed_release(&b);
}

Test(tree, a_moved_tree_leads_no_root_elsewhere)
{
	moved_around(true, false);
	moved_around(false, false);
	moved_around(true, true);
	moved_around(false, true);
}

Test(tree, withdrawn)
{
	char other[] = "/tmp/concc-test-other.XXXXXX";
	int fds = 0;
	struct bed b;

	bed_init(&b, NULL);
	write_file(at(&b, "f"), "1");
	drain_and_check(&b);
	cr_assert(mkdtemp(other));
	fds = count_fds();
	for (int i = 0; i < 3; i++) {
		unsigned stales = b.workers[0].stales;

		cr_assert_eq(tree_serve(b.tree, other, true, NULL), 0);
		cr_assert(tree_serves_below(b.tree, other));
		cr_assert_eq(listing(&b, 0, other)->state, DIR_LISTED);
		tree_withdraw(b.tree, other);
		tree_drain(b.tree);
		cr_assert_gt(b.workers[0].stales, stales);
		cr_assert_null(map_get_str(&b.workers[0].by_path, other));
		cr_assert_null(tree_root_of(b.tree, other, NULL));
		cr_assert_not(tree_serves_below(b.tree, other));
		cr_assert_eq(listing(&b, 0, other)->state, DIR_DENIED);
		forget(&b.workers[0], listing(&b, 0, other));
	}
	cr_assert_eq(count_fds(), fds);
	/* What is no root, or not served, is left alone. */
	tree_withdraw(b.tree, other);
	tree_withdraw(b.tree, at(&b, "f"));
	drain_and_check(&b);
	cr_assert_eq(rmdir(other), 0);
	bed_release(&b);
}

/* Others mount and unmount all the time: it costs a look at the list, and nothing of ours is looked
 * at. */
Test(tree, mounts_elsewhere)
{
	struct tree_counts before, after;
	char dir[] = "/tmp/concc-test-mount.XXXXXX";
	struct bed b;

	own_mounts();
	cr_assert(mkdtemp(dir));
	bed_init(&b, NULL);
	write_file(at(&b, "f"), "1");
	drain_and_check(&b);
	tree_counts(b.tree, &before);
	TMPFS(dir);
	tree_drain(b.tree);
	UMOUNT(dir);
	tree_drain(b.tree);
	tree_drain(b.tree);
	tree_counts(b.tree, &after);
	cr_assert_eq(after.mounts - before.mounts, 2);
	cr_assert_eq(after.stats, before.stats);
	cr_assert_eq(after.scans, before.scans);
	cr_assert_eq(rmdir(dir), 0);
	bed_release(&b);
}

Test(tree, a_mapping_is_written_long_after_its_times)
{
	struct bed b;
	uint64_t v;
	char *p;
	int fd;

	bed_init(&b, NULL);
	write_file(at(&b, "f"), "one");
	fd = open(at(&b, "f"), O_RDWR | O_CLOEXEC);
	p = mmap(NULL, 3, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert_neq(p, MAP_FAILED);
	close(fd);
	p[0] = 'x'; /* the first store sets the times */
	check_dir(&b, 0, b.root, true);
	v = entry_of(&b, 0, b.root, "f")->attr.version;
	p[0] = 'y'; /* the page is dirty already: no trace */
	munmap(p, 3);
	tree_drain(b.tree);
	cr_assert_gt(entry_of(&b, 0, b.root, "f")->attr.version, v);
	check_dir(&b, 0, b.root, false);
	bed_release(&b);
}

Test(tree, a_directory_made_again_with_the_same_inode)
{
	unsigned same = 0;
	struct stat st;
	struct bed b;
	ino_t ino;

	bed_init(&b, NULL);
	mkdir(at(&b, "d"), 0755);
	for (int i = 0; i < 50; i++) {
		check_dir(&b, 0, b.root, true);
		cr_assert_eq(stat(at(&b, "d"), &st), 0);
		ino = st.st_ino;
		IN_CHILD({
			rm_rf(at(&b, "d"));
			mkdir(at(&b, "d"), 0755);
		});
		cr_assert_eq(stat(at(&b, "d"), &st), 0);
		same += st.st_ino == ino;
		tree_drain(b.tree);
		check_dir(&b, 0, b.root, true);
		IN_CHILD(write_file(at(&b, "d/f"), "1"));
		tree_drain(b.tree);
		check_dir(&b, 0, b.root, false);
	}
	cr_log_info("the inode number came back %u times of 50", same);
	bed_release(&b);
}

Test(tree, symlinks_are_followed_nowhere)
{
	for (int old = 0; old < 2; old++) {
		struct bed b;
		int fd;

		bed_init(&b, &(struct tree_limits){.no_openat2 = old});
		cr_assert_eq(path_mkdirs(at(&b, "d/sub"), 0755), 0);
		write_file(at(&b, "d/f"), "x");
		cr_assert_eq(symlink("d", at(&b, "in")), 0);
		cr_assert_eq(symlink("/etc", at(&b, "out")), 0);
		cr_assert_eq(symlink("f", at(&b, "d/last")), 0);
		fd = resolve_open(b.tree, at(&b, "d/sub"), O_PATH | O_DIRECTORY);
		cr_assert_geq(fd, 0);
		close(fd);
		fd = resolve_open(b.tree, at(&b, "d/f"), O_RDONLY);
		cr_assert_geq(fd, 0);
		close(fd);
		for (const char *const *p =
			     (const char *const[]){"in", "in/sub", "in/f", "out", "out/passwd",
						   "out/ssh", "d/last", NULL};
		     *p; p++)
			cr_assert_lt(resolve_open(b.tree, at(&b, *p), O_RDONLY), 0, "%s", *p);
		bed_release(&b);
	}
}

Test(tree, empty_drain_is_one_read)
{
	struct tree_counts before;
	struct tree_counts last;
	struct tree_counts after;
	struct bed b;

	bed_init(&b, NULL);
	write_file(at(&b, "f"), "x");
	check_dir(&b, 0, b.root, true);
	tree_drain(b.tree);
	tree_counts(b.tree, &before);
	last = before;
	for (int empty = 0; empty < 100;) {
		tree_drain(b.tree);
		tree_counts(b.tree, &after);
		/* Others remove and rename what is theirs in /tmp, which is watched too. */
		if (after.events == last.events) {
			cr_assert_eq(after.reads - last.reads, 1);
			empty++;
		}
		last = after;
	}
	cr_assert_eq(after.stats, before.stats);
	cr_assert_eq(after.scans, before.scans);
	cr_assert_eq(b.workers[0].updates, 0);
	bed_release(&b);
}

Test(tree, second_peer_is_answered_from_the_snapshot)
{
	struct tree_counts before;
	struct tree_counts after;
	struct bed b;

	bed_init(&b, NULL);
	write_file(at(&b, "f"), "x");
	check_dir(&b, 0, b.root, true);
	tree_counts(b.tree, &before);
	check_dir(&b, 1, b.root, true);
	tree_counts(b.tree, &after);
	cr_assert_eq(after.stats, before.stats);
	cr_assert_eq(listing(&b, 0, b.root)->id, listing(&b, 1, b.root)->id);
	bed_release(&b);
}

Test(tree, one_update_for_all_changes_of_a_directory)
{
	struct bed b;

	bed_init(&b, NULL);
	check_dir(&b, 0, b.root, true);
	IN_CHILD({
		for (int i = 0; i < 100; i++) {
			char name[32];

			snprintf(name, sizeof(name), "f%d", i);
			write_file(at(&b, name), "x");
		}
	});
	tree_drain(b.tree);
	cr_assert_eq(b.workers[0].updates, 1);
	check_dir(&b, 0, b.root, false);
	bed_release(&b);
}

/* A job that makes 50 000 files in a directory that workers know: all are told in one turn. */
Test(tree, an_update_fits_in_a_message, .timeout = 1000)
{
	struct bed b;

	bed_init(&b, NULL);
	check_dir(&b, 0, b.root, true);
	IN_CHILD({
		char name[160];

		memset(name, 'x', sizeof(name));
		for (int i = 0; i < 50000; i++) {
			snprintf(name + 120, 40, "%d", i);
			write_file(at(&b, name), "");
		}
	});
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, false);
	bed_release(&b);
}

Test(tree, own_temporaries_are_unseen_and_stale_ones_removed)
{
	struct stat st;
	struct tree_counts before;
	struct tree_counts after;
	struct bed b;
	bed_init(&b, NULL);
	check_dir(&b, 0, b.root, true);
	tree_counts(b.tree, &before);
	write_file(at(&b, ".concc-tmp-00000000-1-1-1"), "x"); /* elsewhere's: kept for a day */
	tree_drain(b.tree);
	tree_counts(b.tree, &after);
	cr_assert_eq(after.stats, before.stats);
	cr_assert_eq(b.workers[0].updates, 0);
	mkdir(at(&b, "d"), 0755);
	write_file(at(&b, "d/.concc-tmp-00000000-1-1-1"), "x");
	cr_assert_eq(listing(&b, 0, at(&b, "d"))->names.n, 0);
	cr_assert_eq(lstat(at(&b, "d/.concc-tmp-00000000-1-1-1"), &st), 0);
	bed_release(&b);
}

Test(tree, hostile_paths_are_denied)
{
	static const char *const bad[] = {
		"/",
		"/etc",
		"/tmp",
		"/proc/self/cwd",
	};
	struct bed b;
	char *p;

	bed_init(&b, NULL);
	mkdir(at(&b, "d"), 0755);
	cr_assert_eq(symlink("/etc", at(&b, "link")), 0);
	cr_assert_eq(symlink("d", at(&b, "inside")), 0);
	cr_assert_eq(symlink("..", at(&b, "d/up")), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		tree_list(b.tree, 0, bad[i]);
		cr_assert_eq(listing(&b, 0, bad[i])->state, DIR_DENIED, "%s", bad[i]);
	}
	static const char *const denied[] = {"../etc", "d/../..", "./d", "d//", "d/", "d/./x"};
	for (size_t i = 0; i < sizeof(denied) / sizeof(*denied); i++)
		tree_list(b.tree, 0, at(&b, denied[i]));
	tree_list(b.tree, 0, "");
	tree_list(b.tree, 0, "relative");
	cr_assert_eq(b.workers[0].by_path.n, 4, "an unclean path was answered");
	static const char *const missing[] = {"link",	  "inside",   "d/up",
					      "link/ssh", "inside/x", "nothing"};
	for (size_t i = 0; i < sizeof(missing) / sizeof(*missing); i++)
		cr_assert_eq(listing(&b, 0, at(&b, missing[i]))->state, DIR_MISSING, "%s",
			     missing[i]);
	/* A sibling whose name begins like the root's. */
	p = xasprintf("%sx", b.root);
	cr_assert_eq(listing(&b, 0, p)->state, DIR_DENIED);
	free(p);
	bed_release(&b);
}

static int open_version(struct bed *b, const char *dir, const char *name, uint64_t version)
{
	struct entry_attr a;
	int fd = -1;
	int err = tree_open_file(b->tree, listing(b, 0, dir)->id, name, version, &fd, &a);

	return err ? err : fd;
}

Test(tree, files_open_in_their_version_only)
{
	struct bed b;
	struct name *n;
	uint64_t old;
	uint32_t id;
	int fd;

	bed_init(&b, NULL);
	write_file(at(&b, "f"), "one");
	cr_assert_eq(symlink("/etc/passwd", at(&b, "s")), 0);
	cr_assert_eq(mkfifo(at(&b, "fifo"), 0600), 0);
	n = entry_of(&b, 0, b.root, "f");
	old = n->attr.version;
	id = listing(&b, 0, b.root)->id;
	fd = open_version(&b, b.root, "f", old);
	cr_assert_geq(fd, 0);
	cr_assert_eq(tree_check_file(b.tree, id, "f", old, fd), 0);
	cr_assert_eq(open_version(&b, b.root, "f", old + 1), CONCC_E_STALE);
	cr_assert_eq(open_version(&b, b.root, "s", entry_of(&b, 0, b.root, "s")->attr.version),
		     CONCC_E_STALE);
	cr_assert_eq(
		open_version(&b, b.root, "fifo", entry_of(&b, 0, b.root, "fifo")->attr.version),
		CONCC_E_STALE);
	cr_assert_eq(open_version(&b, b.root, "../x", 1), CONCC_E_STALE);
	/* Changed while it was being read: known at the end, and told. */
	IN_CHILD(write_file(at(&b, "f"), "two"));
	cr_assert_eq(tree_check_file(b.tree, id, "f", old, fd), CONCC_E_STALE);
	close(fd);
	cr_assert_gt(entry_of(&b, 0, b.root, "f")->attr.version, old);
	cr_assert_eq(open_version(&b, b.root, "f", old), CONCC_E_STALE);
	/* Replaced by a symlink between the listing and the opening. */
	old = entry_of(&b, 0, b.root, "f")->attr.version;
	IN_CHILD({
		unlink(at(&b, "f"));
		if (symlink("/etc/passwd", at(&b, "f")) < 0)
			_exit(1);
	});
	cr_assert_eq(open_version(&b, b.root, "f", old), CONCC_E_STALE);
	bed_release(&b);
}

Test(tree, a_served_root_is_replaced)
{
	struct bed b;
	char moved[80];

	bed_init(&b, NULL);
	mkdir(at(&b, "d"), 0755);
	write_file(at(&b, "d/f"), "old");
	check_dir(&b, 0, b.root, true);
	snprintf(moved, sizeof(moved), "%s.moved", b.root);
	IN_CHILD({
		if (rename(b.root, moved) < 0 || mkdir(b.root, 0755) < 0)
			_exit(1);
	});
	tree_drain(b.tree);
	cr_assert(!map_get_str(&b.workers[0].by_path, b.root), "the old root is still believed");
	cr_assert(!map_get_str(&b.workers[0].by_path, at(&b, "d")));
	check_dir(&b, 0, b.root, true);
	/* Gone, asked for, and back. */
	IN_CHILD(rm_rf(b.root));
	tree_drain(b.tree);
	cr_assert_eq(listing(&b, 0, b.root)->state, DIR_MISSING);
	IN_CHILD({
		if (rename(moved, b.root) < 0)
			_exit(1);
	});
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, false);
	check_dir(&b, 0, b.root, true);
	cr_assert_eq(listing(&b, 0, at(&b, "d"))->state, DIR_LISTED);
	bed_release(&b);
}

Test(tree, an_ancestor_of_a_root_is_replaced)
{
	struct bed b;
	struct errmsg msg;
	char *root;
	char *mid;
	char *away;

	bed_init(&b, NULL);
	mid = xstrdup(at(&b, "m"));
	away = xstrdup(at(&b, "away"));
	tree_free(b.tree);
	static const struct tree_ops ops = {.send = on_send};
	cr_assert_eq(tree_new(&ops, &b, NULL, &b.tree, &msg), 0);
	cr_assert_eq(path_mkdirs(at(&b, "m/n/root"), 0755), 0);
	root = xstrdup(at(&b, "m/n/root"));
	write_file(at(&b, "m/n/root/f"), "one");
	cr_assert_eq(tree_serve(b.tree, root, true, &msg), 0);
	check_dir(&b, 0, root, true);
	IN_CHILD({
		if (rename(mid, away) < 0 || path_mkdirs(root, 0755) < 0)
			_exit(1);
		write_file(at(&b, "m/n/root/f"), "two");
	});
	tree_drain(b.tree);
	check_dir(&b, 0, root, false);
	check_dir(&b, 0, root, true);
	free(root);
	free(mid);
	free(away);
	bed_release(&b);
}

Test(tree, many_files_change_at_once, .timeout = 1000)
{
	struct tree_counts c;
	struct bed b;
	char name[64];

	bed_init(&b, NULL);
	mkdir(at(&b, "big"), 0755);
	mkdir(at(&b, "other"), 0755);
	for (int i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "big/file%d", i);
		write_file(at(&b, name), "1");
		snprintf(name, sizeof(name), "other/file%d", i + 10000);
		write_file(at(&b, name), "2");
	}
	check_dir(&b, 0, b.root, true);
	/* A branch switch by renames ... */
	IN_CHILD({
		if (renameat2(AT_FDCWD, at(&b, "big"), AT_FDCWD, at(&b, "other"), RENAME_EXCHANGE))
			_exit(1);
	});
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, false);
	check_dir(&b, 0, b.root, true);
	tree_counts(b.tree, &c);
	cr_assert_eq(c.overflows, 0);
	/* ... and one file by file: more events than the queue holds. */
	IN_CHILD({
		char n[64];

		for (int i = 0; i < 20000; i++) {
			snprintf(n, sizeof(n), "big/file%d", i + 10000);
			if (i % 2)
				unlink(at(&b, n));
			else
				write_file(at(&b, n), "3");
			snprintf(n, sizeof(n), "big/new%d", i);
			write_file(at(&b, n), "4");
		}
		/* A directory of the same name, and with luck of the same inode number. */
		mkdir(at(&b, "d"), 0755);
		write_file(at(&b, "d/f"), "new");
	});
	tree_drain(b.tree);
	tree_counts(b.tree, &c);
	cr_assert_eq(c.overflows, 1, "no overflow: the test is too small");
	check_dir(&b, 0, b.root, false);
	check_dir(&b, 0, b.root, true);
	/* Watches work on after it. */
	IN_CHILD(write_file(at(&b, "d/f"), "NEW"));
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, false);
	bed_release(&b);
}

Test(tree, a_watch_lost_in_an_overflow_is_set_again, .timeout = 1000)
{
	struct tree_counts c;
	struct bed b;

	bed_init(&b, NULL);
	mkdir(at(&b, "noise"), 0755);
	mkdir(at(&b, "d"), 0755);
	check_dir(&b, 0, b.root, true);
	IN_CHILD({
		for (int i = 0; i < 9000; i++) {
			write_file(at(&b, "noise/f"), "1");
			unlink(at(&b, "noise/f"));
		}
		/* Their events are lost. */
		rmdir(at(&b, "d"));
		mkdir(at(&b, "d"), 0755);
	});
	tree_drain(b.tree);
	tree_counts(b.tree, &c);
	cr_assert_eq(c.overflows, 1);
	check_dir(&b, 0, b.root, true);
	IN_CHILD(write_file(at(&b, "d/f"), "1"));
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, false);
	cr_assert(entry_of(&b, 0, at(&b, "d"), "f"));
	bed_release(&b);
}

Test(tree, hard_links_written_elsewhere)
{
	struct tree_counts c;
	struct bed b;
	char outside[] = "/tmp/concc-test-link.XXXXXX";
	uint64_t v;

	bed_init(&b, NULL);
	cr_assert(mkdtemp(outside));
	char *other = path_join(outside, "other");
	write_file(at(&b, "f"), "1");
	write_file(at(&b, "g"), "1");
	cr_assert_eq(link(at(&b, "f"), other), 0);
	check_dir(&b, 0, b.root, true);
	tree_counts(b.tree, &c);
	cr_assert_eq(c.linked, 1);
	v = entry_of(&b, 0, b.root, "f")->attr.version;
	IN_CHILD(write_file(other, "22"));
	tree_drain(b.tree);
	cr_assert_gt(entry_of(&b, 0, b.root, "f")->attr.version, v);
	check_dir(&b, 0, b.root, false);
	/* A second name that comes up in a listed directory: the first is looked at from then on.
	 */
	mkdir(at(&b, "d"), 0755);
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, true);
	IN_CHILD({
		if (link(at(&b, "g"), at(&b, "d/g2")) < 0)
			_exit(1);
	});
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, false);
	IN_CHILD(write_file(at(&b, "d/g2"), "333"));
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, false);
	cr_assert_eq(entry_of(&b, 0, b.root, "g")->attr.ino,
		     entry_of(&b, 0, at(&b, "d"), "g2")->attr.ino);
	unlink(other);
	IN_CHILD(unlink(at(&b, "d/g2")));
	tree_drain(b.tree);
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, false);
	/* Whoever opened it by a name that is gone may still write. */
	tree_counts(b.tree, &c);
	cr_assert_eq(c.linked, 2);
	unlink(at(&b, "f"));
	unlink(at(&b, "g"));
	tree_drain(b.tree);
	tree_counts(b.tree, &c);
	cr_assert_eq(c.linked, 0);
	check_dir(&b, 0, b.root, false);
	free(other);
	rm_rf(outside);
	bed_release(&b);
}

static void link_file(const struct bed *b, const char *from_dir, const char *to_dir, int i, int j)
{
	char from[512], to[512];

	snprintf(from, sizeof(from), "%s/%s%d/f%d", b->root, from_dir, i, j);
	snprintf(to, sizeof(to), "%s/%s%d/f%d", b->root, to_dir, i, j);
	if (link(from, to) < 0)
		_exit(1);
}

static uint64_t names_walked(const struct bed *b)
{
	struct tree_counts c;

	tree_counts(b->tree, &c);
	return c.walked;
}

/* Of a file with many names each further one is an event, for which all were gone through. */
Test(tree, many_names_of_a_file)
{
	const uint64_t names = 300;
	uint64_t before, walked;
	struct bed b;

	bed_init(&b, NULL);
	mkdir(at(&b, "d0"), 0755);
	mkdir(at(&b, "other0"), 0755);
	write_file(at(&b, "d0/f0"), "1");
	write_file(at(&b, "d0/own"), "1");
	for (int i = 1; i < (int)names; i++) {
		char to[32];

		snprintf(to, sizeof(to), "d0/f%d", i);
		cr_assert_eq(link(at(&b, "d0/f0"), at(&b, to)), 0);
	}
	check_dir(&b, 0, at(&b, "d0"), true);
	tree_drain(b.tree);
	before = names_walked(&b);
	IN_CHILD({
		for (int i = 0; i < 300; i++) {
			chmod(at(&b, "d0/f7"), i % 2 ? 0644 : 0600);
			chmod(at(&b, "d0/own"),
			      i % 2 ? 0644 : 0600); /* or the kernel takes two for one */
		}
	});
	tree_drain(b.tree);
	walked = names_walked(&b) - before;
	cr_expect(walked >= names && walked < 4 * names, "%llu names", (unsigned long long)walked);
	/* What is written after it was marked is marked so. */
	IN_CHILD({
		struct timespec same[2];
		struct stat st;

		stat(at(&b, "d0/f7"), &st);
		same[0] = st.st_atim;
		same[1] = st.st_mtim;
		chmod(at(&b, "d0/f7"), 0600);
		write_file(at(&b, "d0/f9"), "2");
		utimensat(AT_FDCWD, at(&b, "d0/f9"), same, 0);
	});
	tree_drain(b.tree);
	check_dir(&b, 0, at(&b, "d0"), false);
	bed_release(&b);
}

/* Trees of hard links, as `cp -al` makes them: what is known is not gone through for each. */
static void linked_trees(int n_dirs)
{
	char name[64];
	struct bed b;

	bed_init(&b, NULL);
	for (int i = 0; i < n_dirs; i++) {
		snprintf(name, sizeof(name), "one/d%d", i);
		path_mkdirs(at(&b, name), 0755);
		snprintf(name, sizeof(name), "two/d%d", i);
		path_mkdirs(at(&b, name), 0755);
		for (int j = 0; j < 5; j++) {
			snprintf(name, sizeof(name), "one/d%d/f%d", i, j);
			write_file(at(&b, name), "1");
			link_file(&b, "one/d", "two/d", i, j);
		}
	}
	check_dir(&b, 0, b.root, true);
	cr_expect_eq(names_walked(&b), 0, "%llu names", (unsigned long long)names_walked(&b));
	/* Names that were the only ones are found among those that are known, each once. */
	mkdir(at(&b, "single0"), 0755);
	for (int i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "single0/f%d", i);
		write_file(at(&b, name), "1");
	}
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, true);
	mkdir(at(&b, "other0"), 0755);
	IN_CHILD({
		for (int i = 0; i < 500; i++)
			link_file(&b, "single", "other", 0, i);
	});
	tree_drain(b.tree);
	(void)listing(&b, 0, at(&b, "other0")); /* until then nobody is told of it */
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, true);
	cr_expect_eq(names_walked(&b), 500, "%llu names", (unsigned long long)names_walked(&b));
	IN_CHILD(write_file(at(&b, "other0/f77"), "2"));
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, false);
	bed_release(&b);
}

Test(tree, hard_links_of_whole_trees)
{
	linked_trees(20);
	linked_trees(200);
}

/* A file with several links is watched itself: what is written elsewhere is seen, and no drain
 * looks. */
static void hard_link_costs(const struct tree_limits *limits, uint64_t watches, uint64_t looks)
{
	struct tree_counts before, after;
	char outside[] = "/tmp/concc-test-link.XXXXXX";
	uint64_t v;
	struct bed b;

	bed_init(&b, limits);
	cr_assert(mkdtemp(outside));
	char *other = path_join(outside, "other");
	write_file(at(&b, "f"), "1");
	cr_assert_eq(link(at(&b, "f"), other), 0);
	check_dir(&b, 0, b.root, true);
	tree_drain(b.tree);
	tree_counts(b.tree, &before);
	for (int i = 0; i < 10; i++)
		tree_drain(b.tree);
	tree_counts(b.tree, &after);
	cr_expect_eq(after.linked, 1);
	cr_expect_eq(after.link_watches, watches);
	cr_expect_eq(after.stats - before.stats, looks);
	v = entry_of(&b, 0, b.root, "f")->attr.version;
	IN_CHILD(write_file(other, "2"));
	tree_drain(b.tree);
	cr_expect_gt(entry_of(&b, 0, b.root, "f")->attr.version, v);
	check_dir(&b, 0, b.root, false);
	/* Another file of several links in its place is watched instead. */
	write_file(at(&b, "g"), "3");
	rename(at(&b, "g"), at(&b, "f"));
	unlink(other);
	link(at(&b, "f"), other);
	tree_drain(b.tree);
	v = entry_of(&b, 0, b.root, "f")->attr.version;
	IN_CHILD(write_file(other, "4"));
	tree_drain(b.tree);
	cr_expect_gt(entry_of(&b, 0, b.root, "f")->attr.version, v);
	check_dir(&b, 0, b.root, false);
	unlink(at(&b, "f"));
	tree_drain(b.tree);
	tree_counts(b.tree, &after);
	cr_expect_eq(after.linked, 0);
	cr_expect_eq(after.link_watches, 0);
	free(other);
	rm_rf(outside);
	bed_release(&b);
}

/* What is not known to be local is not. */
Test(tree, which_file_systems_others_may_change)
{
	static const uint32_t network[] = {
		0x6969,	    /* NFS */
		0xff534d42, /* CIFS */
		0xfe534d42, /* SMB2 */
		0x65735546, /* FUSE: sshfs, virtiofs, GlusterFS */
		0x01021997, /* 9p */
		0x00c36400, /* Ceph */
		0x0bd00bd0, /* Lustre */
		0x47504653, /* GPFS */
		0x19830326, /* BeeGFS */
		0xaad7aaea, /* PanFS */
		0x20030528, /* OrangeFS */
		0x6b414653, /* AFS of the kernel */
		0x786f4256, /* vboxsf */
		0xbacbacbc, /* VMware's */
		0x7461636f, /* OCFS2 */
		0x01161970, /* GFS2 */
		0x12345678, /* one that is to come */
	};
	int fd;

	for (size_t i = 0; i < sizeof(network) / sizeof(*network); i++)
		cr_expect(fs_traits_of_type(network[i]).network, "%x", network[i]);
	for (const uint32_t *l = (uint32_t[]){0xef53, 0x58465342, 0x9123683e, 0x01021994,
					      0x794c7630, 0x2fc12fc1, 0};
	     *l; l++)
		cr_expect_not(fs_traits_of_type(*l).network, "%x", *l);
	/* Of which nobody has heard that it were one. */
	fd = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_expect(fs_is_network(fd));
	close(fd);
	fd = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_expect_not(fs_is_network(fd));
	close(fd);
}

/* By (device, inode, size, times): not where these are made up, or all times are the maker's. */
Test(tree, which_file_systems_stamp_what_changes)
{
	static const uint32_t others[] = {
		0x65735546, /* FUSE */
		0x4d44,	    /* FAT */
		0x2011bab0, /* exFAT */
		0x73717368, /* squashfs */
		0xe0f5e1e2, /* EROFS */
		0x9660,	    /* ISO 9660 */
		0x28cd3d45, /* cramfs */
		0xff534d42, /* CIFS */
		0x12345678, /* one that is to come */
	};

	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
		cr_expect_not(fs_traits_of_type(others[i]).stamps, "%x", others[i]);
	for (const uint32_t *l = (uint32_t[]){0xef53, 0x58465342, 0x9123683e, 0x01021994,
					      0x794c7630, 0x2fc12fc1, 0x6969, 0};
	     *l; l++)
		cr_expect(fs_traits_of_type(*l).stamps, "%x", *l);
}

/* Without watches all that is known is looked at before a job, and then no more of it than is asked
 * for: 500 fetches of a job that read as many directories were 390 000 looks. */
static void unwatched_costs(const struct tree_limits *limits, int n)
{
	struct tree_counts before, after;
	struct bed b;
	char name[64];

	bed_init(&b, limits);
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		mkdir(at(&b, name), 0755);
		snprintf(name, sizeof(name), "d%d/f", i);
		write_file(at(&b, name), "1");
	}
	/* What is younger than a tick of the clock is another version at each look. */
	(void)poll(NULL, 0, 50);
	check_dir(&b, 0, b.root, true);
	tree_counts(b.tree, &before);
	tree_drain(b.tree);
	tree_counts(b.tree, &after);
	cr_expect_eq(after.swept, (uint64_t)n + 1);
	cr_expect_eq(after.stats - before.stats, 2 * (uint64_t)n, "a job: %llu looks",
		     (unsigned long long)(after.stats - before.stats));
	before = after;
	for (int i = 0; i < n; i++) {
		int fd;

		snprintf(name, sizeof(name), "d%d", i);
		fd = open_version(&b, at(&b, name), "f",
				  entry_of(&b, 0, at(&b, name), "f")->attr.version);
		cr_assert_geq(fd, 0);
		cr_expect_eq(tree_check_file(b.tree, listing(&b, 0, at(&b, name))->id, "f",
					     entry_of(&b, 0, at(&b, name), "f")->attr.version, fd),
			     0);
		close(fd);
		tree_on_event(b.tree);
	}
	tree_counts(b.tree, &after);
	cr_expect_eq(after.stats - before.stats, 0, "its fetches: %llu looks",
		     (unsigned long long)(after.stats - before.stats));
	before = after;
	/* Another worker's: each is compared once, as it is asked for. */
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		(void)listing(&b, 1, at(&b, name));
	}
	tree_counts(b.tree, &after);
	cr_expect_eq(after.stats - before.stats, n, "its listings: %llu looks",
		     (unsigned long long)(after.stats - before.stats));
	bed_release(&b);
}

Test(tree, unwatched_directories_cost_each_job_once)
{
	/* For / and /tmp. */
	unwatched_costs(&(struct tree_limits){.max_watches = 2}, 50);
	unwatched_costs(&(struct tree_limits){.max_watches = 2}, 200);
}

/* In the place of libc's, for all of this program: what happens just before a file is watched. */
static const char *written_before_watch;

int inotify_add_watch(int fd, const char *path, uint32_t mask)
{
	const char *written = written_before_watch;

	if (written && !(mask & IN_ONLYDIR)) {
		written_before_watch = NULL;
		IN_CHILD(write_file(written, "written"));
	}
	return refused() < 0 ? -1 : (int)syscall(SYS_inotify_add_watch, fd, path, mask);
}

Test(tree, hard_link_written_before_its_watch)
{
	char outside[] = "/tmp/concc-test-link.XXXXXX";
	struct bed b;

	bed_init(&b, NULL);
	cr_assert(mkdtemp(outside));
	char *other = path_join(outside, "other");
	write_file(other, "");
	mkdir(at(&b, "d"), 0755);
	check_dir(&b, 0, at(&b, "d"), true);
	link(other, at(&b, "d/f"));
	written_before_watch = other;
	tree_drain(b.tree);
	cr_assert_null(written_before_watch, "no file was watched");
	check_dir(&b, 0, at(&b, "d"), false);
	cr_expect_eq(entry_of(&b, 0, at(&b, "d"), "f")->attr.size, 7);
	free(other);
	rm_rf(outside);
	bed_release(&b);
}

Test(tree, hard_links_are_watched)
{
	hard_link_costs(NULL, 1, 0);
}

Test(tree, hard_links_without_watches_are_looked_at)
{
	/* For /, /tmp and the directory itself. */
	hard_link_costs(&(struct tree_limits){.max_watches = 3}, 0, 10);
}

/* The kernel reports a write by the name that was opened, and not at all once that is gone. */
Test(tree, written_through_a_name_that_is_gone)
{
	struct bed b;
	int fd;

	bed_init(&b, NULL);
	write_file(at(&b, "old"), "1");
	cr_assert_eq(link(at(&b, "old"), at(&b, "kept")), 0);
	check_dir(&b, 0, b.root, true);
	fd = open(at(&b, "old"), O_WRONLY | O_APPEND);
	cr_assert_geq(fd, 0);
	unlink(at(&b, "old"));
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, false);
	cr_assert_eq(write(fd, "more", 4), 4);
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, false);
	close(fd);
	bed_release(&b);
}

/* The kernel itself refuses, in a user namespace with a small limit of its own. */
Test(tree, the_kernel_refuses_watches, .timeout = 1000)
{
	IN_CHILD({
		struct tree_counts c;
		struct bed b;
		int fd;

		if (unshare(CLONE_NEWUSER) < 0)
			_exit(77);
		fd = open("/proc/self/uid_map", O_WRONLY);
		if (fd < 0 || write(fd, "0 0 1", 5) != 5)
			_exit(78);
		close(fd);
		fd = open("/proc/sys/user/max_inotify_watches", O_WRONLY);
		if (fd < 0 || write(fd, "5", 1) != 1)
			_exit(79);
		close(fd);
		bed_init(&b, NULL);
		for (int i = 0; i < 8; i++) {
			char d[16];

			snprintf(d, sizeof(d), "d%d", i);
			mkdir(at(&b, d), 0755);
		}
		check_dir(&b, 0, b.root, true);
		tree_counts(b.tree, &c);
		cr_assert_gt(c.swept, 3);
		cr_assert_gt(c.watches, 1);
		for (int i = 0; i < 8; i++) {
			char f[16];

			snprintf(f, sizeof(f), "d%d/f", i);
			write_file(at(&b, f), "1");
			tree_drain(b.tree);
			check_dir(&b, 0, b.root, false);
			write_file(at(&b, f), "2");
			tree_drain(b.tree);
			check_dir(&b, 0, b.root, false);
		}
		bed_release(&b);
	});
}

Test(tree, unreadable_directories, .timeout = 1000)
{
	IN_CHILD({
		struct bed b;

		cr_assert_eq(setgid(65534), 0);
		cr_assert_eq(setuid(65534), 0);
		bed_init(&b, NULL);
		cr_assert_eq(path_mkdirs(at(&b, "closed/in"), 0755), 0);
		cr_assert_eq(path_mkdirs(at(&b, "xonly/in"), 0755), 0);
		write_file(at(&b, "xonly/in/f"), "1");
		chmod(at(&b, "closed"), 0);
		chmod(at(&b, "xonly"), 0311);
		cr_assert_eq(listing(&b, 0, b.root)->state, DIR_LISTED);
		/* Its owner's jobs are kept out by its mode: it is overlayfs that asks. */
		tree_list(b.tree, 0, at(&b, "closed"));
		cr_assert_eq(b.workers[0].unknowns, 1);
		cr_assert_eq(b.workers[0].last_error, EACCES);
		/* Its names can be found, and not listed: so nothing is told of them. */
		tree_list(b.tree, 0, at(&b, "xonly"));
		cr_assert_eq(b.workers[0].unknowns, 2);
		cr_assert_eq(b.workers[0].last_error, EACCES);
		/* Reachable through a parent that can't be read: compared at each drain. */
		cr_assert_eq(listing(&b, 0, at(&b, "xonly/in"))->names.n, 1);
		chmod(at(&b, "xonly/in"), 0700);
		write_file(at(&b, "xonly/in/g"), "1");
		tree_drain(b.tree);
		check_dir(&b, 0, at(&b, "xonly/in"), false);
		/* Opened up: the entry's new mode tells the worker to ask again. */
		chmod(at(&b, "closed"), 0755);
		tree_drain(b.tree);
		cr_assert_eq(entry_of(&b, 0, b.root, "closed")->attr.mode, 0755);
		tree_list(b.tree, 0, at(&b, "closed"));
		cr_assert_eq(listing(&b, 0, at(&b, "closed"))->state, DIR_LISTED);
		/* Lost again, with what is beneath. */
		check_dir(&b, 0, at(&b, "closed"), true);
		chmod(at(&b, "closed"), 0);
		tree_drain(b.tree);
		tree_drain(b.tree);
		cr_assert_eq(entry_of(&b, 0, b.root, "closed")->attr.mode, 0);
		/* The parent moves away: nobody has a watch that tells. */
		cr_assert_eq(rename(at(&b, "xonly"), at(&b, "moved")), 0);
		tree_drain(b.tree);
		cr_assert_not(map_get_str(&b.workers[0].by_path, at(&b, "xonly/in")));
		chmod(at(&b, "moved"), 0755);
		chmod(at(&b, "closed"), 0755);
		bed_release(&b);
	});
}

Test(tree, digests_are_learnt_and_forgotten)
{
	struct bed b;
	struct digest d;
	struct digest other;
	struct name *n;
	char path[80];
	struct errmsg msg;
	struct timespec t[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
	static const struct tree_ops ops = {.send = on_send};

	bed_init(&b, NULL);
	snprintf(path, sizeof(path), "%s.hashes", b.root);
	tree_free(b.tree);
	cr_assert_eq(hash_cache_open(path, &b.cache), 0);
	cr_assert_eq(tree_new(&ops, &b, b.cache, &b.tree, &msg), 0);
	cr_assert_eq(tree_serve(b.tree, b.root, true, &msg), 0);
	write_file(at(&b, "f"), "one");
	cr_assert_eq(utimensat(AT_FDCWD, at(&b, "f"), t, 0), 0);
	n = entry_of(&b, 0, b.root, "f");
	digest_of("one", 3, &d);
	tree_learn(b.tree, listing(&b, 0, b.root)->id, "f", n->attr.version, &d);
	/* Written a moment ago: the next write may show the same times, so not on disk. */
	cr_assert_eq(hash_cache_count(b.cache), 0);
	n = entry_of(&b, 1, b.root, "f");
	cr_assert(n->attr.has_digest && digest_eq(&n->attr.digest, &d));
	/* A wrong version is nobody's. */
	digest_of("two", 3, &other);
	tree_learn(b.tree, listing(&b, 0, b.root)->id, "f", n->attr.version + 7, &other);
	n = entry_of(&b, 2, b.root, "f");
	cr_assert(digest_eq(&n->attr.digest, &d));
	IN_CHILD(write_file(at(&b, "f"), "two"));
	tree_drain(b.tree);
	cr_assert_not(entry_of(&b, 2, b.root, "f")->attr.has_digest);
	bed_release(&b);
}

/* cargo links what was just made: nobody has to fetch it again for that. */
Test(tree, a_further_name_leaves_the_bytes_what_they_are)
{
	struct bed b;
	struct digest d;
	struct name *n;
	struct timespec t[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
	uint64_t old;
	int fd;

	bed_init(&b, NULL);
	mkdir(at(&b, "d"), 0755);
	write_file(at(&b, "d/f"), "one");
	cr_assert_eq(link(at(&b, "d/f"), at(&b, "second")), 0);
	cr_assert_eq(utimensat(AT_FDCWD, at(&b, "d/f"), t, 0), 0);
	n = entry_of(&b, 0, at(&b, "d"), "f");
	old = n->attr.version;
	digest_of("one", 3, &d);
	tree_learn(b.tree, listing(&b, 0, at(&b, "d"))->id, "f", old, &d);
	IN_CHILD({
		if (link(at(&b, "d/f"), at(&b, "third")))
			_exit(1);
	});
	tree_drain(b.tree);
	n = entry_of(&b, 0, at(&b, "d"), "f");
	cr_assert_eq(n->attr.nlink, 3);
	cr_assert_gt(n->attr.version, old);
	cr_assert(n->attr.has_digest && digest_eq(&n->attr.digest, &d));
	fd = open_version(&b, at(&b, "d"), "f", old);
	cr_assert_geq(fd, 0, "who was told of it before can still have it");
	close(fd);
	/* By whatever name. */
	IN_CHILD({
		write_file(at(&b, "third"), "two");
		if (utimensat(AT_FDCWD, at(&b, "third"), t, 0) || unlink(at(&b, "second")))
			_exit(1);
	});
	tree_drain(b.tree);
	n = entry_of(&b, 0, at(&b, "d"), "f");
	cr_assert_eq(n->attr.nlink, 2);
	cr_assert_not(n->attr.has_digest);
	cr_assert_eq(open_version(&b, at(&b, "d"), "f", old), CONCC_E_STALE);
	bed_release(&b);
}

/* ---- writes that neither an event nor the times tell ---- */

/*
 * What is written through memory to a page that was written before changes no time (ramfs never
 * takes it away), and is no event: so it is as if it were within the tick of the last change, by
 * another machine.
 */
static char *bytes_of_f;
/* In the place of libc's, for all of this program: whoever reads the clock is suspended before it
 * answers, and during that "f" is written. */
static bool written_before_clock;
static int clock_ahead_s;

static void map_bytes(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	cr_assert_geq(fd, 0);
	bytes_of_f = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	cr_assert_neq(bytes_of_f, MAP_FAILED);
	close(fd);
	*bytes_of_f = 'a';
}

static void write_unseen(void)
{
	*bytes_of_f = 'b';
	clock_ahead_s = 10;
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int err = (int)syscall(SYS_clock_gettime, id, ts);

	if (id != CLOCK_REALTIME)
		return err;
	if (written_before_clock)
		write_unseen();
	written_before_clock = false;
	ts->tv_sec += clock_ahead_s;
	return err;
}

/* A directory that is watched and compared all the same, as on a network file system: other
 * machines' writes are no events. */
static void bed_on_network(struct bed *b)
{
	bed_init(b, NULL);
	use_ramfs(b);
	mkdir(at(b, "d"), 0755);
	check_dir(b, 0, at(b, "d"), true);
	dir_find(b->tree, at(b, "d"))->network = true;
	dir_sweep(b->tree, dir_find(b->tree, at(b, "d")), true);
}

static void bed_off_network(struct bed *b)
{
	munmap(bytes_of_f, 1);
	umount2(b->root, MNT_DETACH);
	bed_release(b);
}

/* A commit puts it there, of which worker 0 says what it holds. */
static uint64_t put_claimed(struct bed *b, bool suspended)
{
	int dir = open(at(b, "d"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct digest claim;
	struct stat st;
	uint64_t version;

	digest_of("a", 1, &claim);
	/* No event tells of its bytes when it comes by its name. */
	write_file(at(b, "d/.concc-tmp-f"), "a");
	map_bytes(at(b, "d/.concc-tmp-f"));
	tree_on_event(b->tree);
	cr_assert_eq(rename(at(b, "d/.concc-tmp-f"), at(b, "d/f")), 0);
	written_before_clock = suspended;
	version = snap_note(b->tree, dir, at(b, "d/f"), &claim, 0, true, &st);
	cr_assert_not(written_before_clock);
	close(dir);
	updates_flush(b->tree);
	cr_assert(entry_of(b, 0, at(b, "d"), "f")->attr.has_digest);
	return version;
}

static void expect_told(struct bed *b, uint64_t old)
{
	const struct name *n = entry_of(b, 0, at(b, "d"), "f");

	cr_expect_gt(n->attr.version, old);
	cr_expect_not(n->attr.has_digest, "what was written since is not told");
}

Test(tree, suspended_when_a_commit_looks_at_what_it_did)
{
	struct bed b;
	uint64_t old;

	bed_on_network(&b);
	old = put_claimed(&b, true);
	tree_drain(b.tree);
	expect_told(&b, old);
	bed_off_network(&b);
}

Test(tree, opened_long_after_a_write_that_nothing_told)
{
	struct bed b;
	uint64_t old;

	bed_on_network(&b);
	old = put_claimed(&b, false);
	write_unseen();
	/* Whoever asks gets what it is now; and who begins after this, a version of its own. */
	cr_expect_geq(open_version(&b, at(&b, "d"), "f", old), 0);
	cr_expect_eq(tree_changed_since(b.tree, at(&b, "d/f"), old, true), 1);
	tree_drain(b.tree);
	expect_told(&b, old);
	cr_expect_eq(tree_changed_since(b.tree, at(&b, "d/f"), old, true), 1);
	old = entry_of(&b, 0, at(&b, "d"), "f")->attr.version;
	cr_expect_geq(open_version(&b, at(&b, "d"), "f", old), 0);
	bed_off_network(&b);
}

Test(tree, looked_at_long_after_a_write_that_nothing_told)
{
	struct bed b;
	uint64_t old;

	bed_on_network(&b);
	old = put_claimed(&b, false);
	write_unseen();
	tree_on_event(b.tree); /* of its name */
	tree_drain(b.tree);
	expect_told(&b, old);
	bed_off_network(&b);
}

/* ---- what nobody asks for any more, where no event tells ---- */

static uint64_t looks_of_a_drain(struct bed *b)
{
	struct tree_counts before, after;

	tree_counts(b->tree, &before);
	cr_assert_eq(tree_drain(b->tree), 0);
	tree_counts(b->tree, &after);
	return after.stats - before.stats;
}

static bool is_listed(struct bed *b, const char *dir)
{
	return map_get_str(&b->workers[0].by_path, dir);
}

static void wait_until_old(const char *path)
{
	struct stat st;

	cr_assert_eq(stat(path, &st), 0);
	while (stat_is_racy(&st, clock_ns(), false))
		sched_yield();
}

static void bed_of_unwatched(struct bed *b)
{
	bed_init(b, &(struct tree_limits){.max_watches = 1});
	mkdir(at(b, "d"), 0755);
	mkdir(at(b, "d/e"), 0755);
	for (int i = 0; i < 50; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "d/e/f%d", i);
		write_file(at(b, name), "one");
	}
	wait_until_old(at(b, "d/e/f49"));
	check_dir(b, 0, b->root, true);
	cr_assert_geq(looks_of_a_drain(b), 50);
}

static unsigned drains_until_stale(struct bed *b, const char *dir)
{
	unsigned n = 0;

	while (is_listed(b, dir)) {
		cr_assert_lt(++n, 1000, "it is swept for ever");
		looks_of_a_drain(b);
	}
	return n;
}

Test(tree, what_nobody_asks_for_is_swept_no_more)
{
	struct bed b;
	unsigned first;

	bed_of_unwatched(&b);
	tree_set_horizon(b.tree, UINT64_MAX);
	first = drains_until_stale(&b, at(&b, "d/e"));
	(void)drains_until_stale(&b, at(&b, "d"));
	cr_expect_leq(looks_of_a_drain(&b), 1, "but for what the root has in it");
	/* As if it had never been known. */
	write_file(at(&b, "d/e/f7"), "two");
	unlink(at(&b, "d/e/f8"));
	wait_until_old(at(&b, "d/e/f7"));
	tree_drain(b.tree);
	check_dir(&b, 0, b.root, true);
	cr_expect_eq(tree_changed_since(b.tree, at(&b, "d/e/f7"), tree_version(b.tree), true), 0);
	/* For longer, each time. */
	cr_expect_gt(drains_until_stale(&b, at(&b, "d/e")), first + first / 2);
	bed_release(&b);
}

/* What changed while nobody looked, the job may have seen as it was. */
Test(tree, a_job_runs_while_what_it_saw_is_swept_no_more)
{
	struct bed b;
	uint64_t began;

	bed_of_unwatched(&b);
	began = tree_version(b.tree);
	tree_set_horizon(b.tree, began);
	(void)drains_until_stale(&b, at(&b, "d/e"));
	cr_expect_eq(tree_changed_since(b.tree, at(&b, "d/e/f9"), began, true), 0);
	write_file(at(&b, "d/e/f7"), "seven");
	looks_of_a_drain(&b);
	check_dir(&b, 0, b.root, true);
	cr_expect_eq(tree_changed_since(b.tree, at(&b, "d/e/f7"), began, true), 1);
	/* Nor does anybody know once it has been forgotten. */
	(void)drains_until_stale(&b, at(&b, "d/e"));
	tree_set_horizon(b.tree, UINT64_MAX);
	looks_of_a_drain(&b);
	check_dir(&b, 0, b.root, true);
	cr_expect_eq(tree_changed_since(b.tree, at(&b, "d/e/f9"), began, true), -ENOENT);
	bed_release(&b);
}

/* No event tells of it: it is found when the file is opened for somebody. */
Test(tree, a_further_name_where_nobody_looks)
{
	struct bed b;
	struct stat st;
	uint64_t old;
	int fd;

	bed_init(&b, NULL);
	mkdir(at(&b, "d"), 0755);
	mkdir(at(&b, "other"), 0755);
	write_file(at(&b, "d/f"), "one");
	cr_assert_eq(stat(at(&b, "d/f"), &st), 0);
	while (stat_is_racy(&st, clock_ns(),
			    false)) /* within a tick of the clock nothing could be concluded */
		sched_yield();
	old = entry_of(&b, 0, at(&b, "d"), "f")->attr.version;
	IN_CHILD({
		if (link(at(&b, "d/f"), at(&b, "other/g")))
			_exit(1);
	});
	fd = open_version(&b, at(&b, "d"), "f", old);
	cr_assert_geq(fd, 0);
	close(fd);
	cr_assert_eq(entry_of(&b, 0, at(&b, "d"), "f")->attr.nlink, 2);
	IN_CHILD(write_file(at(&b, "other/g"), "two"));
	cr_assert_eq(open_version(&b, at(&b, "d"), "f", old), CONCC_E_STALE);
	bed_release(&b);
}

Test(tree, an_old_file_is_remembered_across_sessions)
{
	_cleanup_buf_ struct buf kept = BUF_INIT;
	struct bed b;
	struct digest d;
	struct name *n;
	char path[80];
	struct errmsg msg;
	struct stat st;
	static const struct tree_ops ops = {.send = on_send};

	/* Some directory of the system with files of days ago. */
	cr_assert_eq(stat("/etc/hostname", &st) & stat("/etc/passwd", &st), 0);
	bed_init(&b, NULL);
	snprintf(path, sizeof(path), "%s.hashes", b.root);
	for (int session = 0; session < 2; session++) {
		tree_free(b.tree);
		worker_reset(&b.workers[0]);
		cr_assert_eq(hash_cache_open(path, &b.cache), 0);
		cr_assert_eq(tree_new(&ops, &b, b.cache, &b.tree, &msg), 0);
		cr_assert_eq(tree_serve(b.tree, "/etc", false, &msg), 0);
		n = entry_of(&b, 0, "/etc", "passwd");
		if (session) {
			cr_assert(n->attr.has_digest && digest_eq(&n->attr.digest, &d));
		} else {
			cr_assert_not(n->attr.has_digest);
			digest_of("x", 1, &d);
			tree_learn(b.tree, listing(&b, 0, "/etc")->id, "passwd", n->attr.version,
				   &d);
		}
		kept.len = 0;
		cr_assert(hash_cache_changes(b.cache, &kept));
		cr_assert_eq(replace_file(path, kept.data, kept.len), 0);
		if (!session)
			hash_cache_free(b.cache);
	}
	unlink(path);
	bed_release(&b);
}

static long rss_kb(void)
{
	char line[256];
	long kb = 0;
	FILE *f = fopen("/proc/self/status", "re");

	while (fgets(line, sizeof(line), f))
		(void)sscanf(line, "VmRSS: %ld", &kb);
	fclose(f);
	return kb;
}

static void drop_message(void *data, unsigned peer, uint8_t type, const struct buf *b)
{
	(void)data;
	(void)peer;
	(void)type;
	(void)b;
}

/* By whatever name, and whoever asks for it. */
/* Where a variable says that they are, and in other places of the list. */
static void keys_elsewhere(struct bed *b, const char *home)
{
	static const struct {
		const char *variable, *value; /* beneath the home */
		const char *file, *bad, *good;
	} cases[] = {
		{"GNUPGHOME", "pgp", "pgp/private-keys-v1.d", "pgp/repo", "src"},
		{"CARGO_HOME", "cargo", "cargo/credentials.toml", "cargo", "cargo/registry"},
		{"CARGO_HOME", "old", "old/credentials", "old", "old/registry"},
		{"XDG_CONFIG_HOME", "xdg", "xdg/gh/hosts.yml", "xdg/gh/repo", "xdg/nvim"},
		{"DOCKER_CONFIG", "", "config.json", "src", NULL}, /* a whole home is none */
		{"X", "", ".npmrc", "", "src"},
		{"X", "", ".m2/settings.xml", ".m2", ".m2/repository"},
		{"X", "", ".config/containers/auth.json", ".config/containers", ".config/nvim"},
		{"X", "", ".mozilla/firefox/x", ".mozilla/firefox", "src"},
	};
	struct errmsg msg = {0};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		_cleanup_free_ char *value = path_clean(home, cases[i].value);
		_cleanup_free_ char *file = path_join(home, cases[i].file);
		_cleanup_free_ char *bad = path_clean(home, cases[i].bad);
		_cleanup_free_ char *good = cases[i].good ? path_join(home, cases[i].good) : NULL;
		_cleanup_free_ char *dir = path_parent(file);

		cr_assert_eq(path_mkdirs(dir, 0755), 0);
		cr_assert_eq(path_mkdirs(bad, 0755), 0);
		write_file(file, "secret");
		setenv(cases[i].variable, value, 1);
		cr_expect_eq(tree_serve(b->tree, bad, true, &msg), good ? CONCC_E_UNSAFE : 0, "%s",
			     bad);
		cr_assert(!good || path_mkdirs(good, 0755) == 0);
		cr_expect(!good || tree_serve(b->tree, good, true, &msg) == 0, "%s", msg.text);
		unsetenv(cases[i].variable);
	}
}

static void expect_served(struct bed *b, const char *path, bool served)
{
	struct errmsg msg = {0};

	cr_expect_eq(tree_serve(b->tree, path, true, &msg), served ? 0 : CONCC_E_UNSAFE, "%s: %s",
		     path, msg.text);
}

static char *make_dir(struct bed *b, const char *name)
{
	char *path = xstrdup(at(b, name));

	cr_assert_eq(path_mkdirs(path, 0755), 0);
	return path;
}

/* A home by another name, and what others see of it or of the keys in what they serve. */
static void keys_mounted(struct bed *b, const char *home)
{
	_cleanup_free_ char *again = make_dir(b, "again"), *within = make_dir(b, "up/home");
	_cleanup_free_ char *keys = make_dir(b, "project/keys"), *part = make_dir(b, "part");
	_cleanup_free_ char *up = path_parent(within), *project = path_parent(keys);
	_cleanup_free_ char *ssh = path_join(home, ".ssh"), *config = path_join(home, ".config");
	_cleanup_free_ char *other = make_dir(b, "others/.ssh"), *others = path_parent(other);

	cr_assert_eq(mount(home, again, NULL, MS_BIND, NULL), 0);
	cr_assert_eq(mount(home, within, NULL, MS_BIND, NULL), 0);
	cr_assert_eq(mount(ssh, keys, NULL, MS_BIND, NULL), 0);
	cr_assert_eq(mount(config, part, NULL, MS_BIND, NULL), 0);
	expect_served(b, again, false);
	expect_served(b, within, false);
	expect_served(b, keys, false);
	expect_served(b, part, false); /* it has gcloud's */
	expect_served(b, others, false);
	/* These are served, but for what is mounted in them. */
	expect_served(b, up, true);
	expect_served(b, project, true);
	cr_expect_eq(entry_of(b, 0, up, "home")->attr.type, ENTRY_UNKNOWN);
	cr_expect_eq(entry_of(b, 0, project, "keys")->attr.type, ENTRY_UNKNOWN);
	/* Nor for who names it, or what is in it, without having been told. */
	for (size_t i = 0; i < 2; i++) {
		_cleanup_free_ char *path = path_clean(keys, i ? "repo" : ".");

		tree_list(b->tree, 0, path);
		cr_expect(!map_get_str(&b->workers[0].by_path, path), "%s is listed", path);
	}
	cr_assert_eq(umount2(keys, MNT_DETACH), 0);
	cr_assert_eq(tree_drain(b->tree), 0);
	cr_expect_eq(entry_of(b, 0, project, "keys")->attr.type, ENTRY_DIR);
	cr_assert_eq(mount(ssh, keys, NULL, MS_BIND, NULL), 0);
	cr_assert_eq(tree_drain(b->tree), 0);
	cr_expect_eq(entry_of(b, 0, project, "keys")->attr.type, ENTRY_UNKNOWN);
	for (size_t i = 0; i < 4; i++)
		cr_assert_eq(umount2((char *[]){again, within, keys, part}[i], MNT_DETACH), 0);
}

/* Keys that are kept elsewhere, one by one. */
static void keys_linked(struct bed *b, const char *home)
{
	_cleanup_free_ char *dots = make_dir(b, "dots/ssh"), *open_dots = make_dir(b, "open");
	_cleanup_free_ char *key = path_join(dots, "id_x"), *hosts = path_join(open_dots, "hosts");
	_cleanup_free_ char *link = path_join(home, ".ssh/id_x");
	_cleanup_free_ char *open_link = path_join(home, ".ssh/known_hosts");

	write_file(key, "secret");
	write_file(hosts, "public");
	cr_assert_eq(chmod(key, 0600), 0);
	cr_assert_eq(symlink(key, link), 0);
	cr_assert_eq(symlink(hosts, open_link), 0);
	expect_served(b, dots, false);
	expect_served(b, open_dots, true);
}

Test(tree, serves_no_keys)
{
	struct bed b;
	struct errmsg msg = {0};
	char *home, *path;
	static const char *const bad[] = {"",
					  "/.ssh",
					  "/.ssh/repo",
					  "/.gnupg",
					  "/.aws",
					  "/.config",
					  "/.config/gcloud/x",
					  "/bound",
					  "/bound/repo",
					  "/link",
					  "/.kube"};
	static const char *const good[] = {"/src", "/.config/nvim", "/.docker", "/.sshx"};

	own_mounts(); /* the tree's too */
	bed_init(&b, NULL);
	home = xstrdup(at(&b, "home"));
	for (size_t i = 0; i < 9; i++) {
		static const char *const dirs[] = {
			".ssh/repo", ".gnupg", ".aws",	".config/nvim", ".config/gcloud/x",
			"bound",     "src",    ".sshx", ".kube"};
		path = path_join(home, dirs[i]);
		cr_assert_eq(path_mkdirs(path, 0755), 0);
		free(path);
	}
	setenv("HOME", home, 1);
	cr_assert_eq(chdir(home), 0);
	cr_assert_eq(mount(".ssh", "bound", NULL, MS_BIND, NULL), 0);
	cr_assert_eq(symlink(".ssh", "link"), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		path = xasprintf("%s%s", home, bad[i]);
		cr_expect_eq(tree_serve(b.tree, path, i % 2, &msg), CONCC_E_UNSAFE, "%s", path);
		cr_expect(strstr(msg.text, "is not served to workers, since /"), "%s", msg.text);
		free(path);
	}
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		path = xasprintf("%s%s", home, good[i]);
		cr_expect_eq(tree_serve(b.tree, path, true, &msg), i == 2 ? -ENOENT : 0, "%s: %s",
			     path, msg.text);
		free(path);
	}
	keys_elsewhere(&b, home);
	keys_mounted(&b, home);
	keys_linked(&b, home);
	cr_assert_eq(chdir("/"), 0);
	path = path_join(home, "bound");
	cr_assert_eq(umount2(path, MNT_DETACH), 0);
	free(path);
	free(home);
	bed_release(&b);
}

Test(tree, memory_of_many_files, .timeout = 1000)
{
	static const struct tree_ops ops = {.send = drop_message};
	struct tree_counts c;
	struct bed b;
	struct errmsg msg;
	char name[64];
	long before;
	long per_file;

	bed_init(&b, NULL);
	tree_free(b.tree);
	cr_assert_eq(tree_new(&ops, &b, NULL, &b.tree, &msg), 0);
	cr_assert_eq(tree_serve(b.tree, b.root, true, &msg), 0);
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		mkdir(at(&b, name), 0755);
		for (int j = 0; j < 500; j++) {
			snprintf(name, sizeof(name), "d%d/some_header_%d.h", i, j);
			int fd = open(at(&b, name), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
			close(fd);
		}
	}
	before = rss_kb();
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		tree_list(b.tree, 0, at(&b, name));
	}
	per_file = (rss_kb() - before) * 1024 / 20000;
	tree_counts(b.tree, &c);
	cr_assert_eq(c.entries, 20040);
	/* A sanitizer's shadow is memory too. */
	cr_assert(SANITIZED || per_file < 180, "%ld bytes per file", per_file);
	bed_release(&b);
}
