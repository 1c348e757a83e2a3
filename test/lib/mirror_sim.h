/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_MIRROR_SIM_H
#define CONCC_TEST_MIRROR_SIM_H

/*
 * A mirror mounted for real, and a client that serves a real directory to it
 * through the callbacks and the encoded messages, all in the test's thread.
 * Whatever touches the mounted files runs in threads and processes of its own,
 * while the test's thread answers.
 *
 * sim_sync() plays the client's drain: it compares what was told with the disk
 * and sends the differences.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/map.h"
#include "concc/mirror.h"
#include "concc/store.h"
#include "concc/str.h"

/* The failing end of every wait. */
#define SIM_TIMEOUT_MS 60000
#define SIM_CHUNK      (60 * 1024)

struct sim_dir {
	struct list link;
	uint32_t dir_id;
	uint64_t ino;
	char *path;
	struct map names; /* name -> struct entry_attr, with what was told */
};

struct sim_known {
	struct stat st;
	uint64_t version;
};

struct sim_want {
	struct list link;
	char *path;		/* of a LIST */
	struct msg_fetch fetch; /* or a FETCH */
};

struct sim {
	char tmp[64];
	char src[96], mnt[96], store_dir[96];
	struct mirror *m;
	struct store *store;
	struct list dirs; /* struct sim_dir: what was listed, as it was told */
	struct map known; /* path -> struct sim_known */
	uint64_t version;
	uint32_t next_dir_id;
	/* What the test wants of the client. */
	bool hold_lists, hold_fetches;
	bool with_digests;
	bool gone;
	int fetch_error;
	const char *denied;  /* this path can't be read by the client */
	const char *unknown; /* of this, directory or name, it can't tell anything, for ENFILE */
	struct list held;    /* struct sim_want */
	unsigned n_held;
	unsigned n_failed;
	int last_failed;
	int64_t last_failed_job;
	atomic_bool of_no_job; /* who asks now */
	char *last_failed_path;
	struct buf outside; /* what was looked up there: a line each, with the job */
};

static inline uint64_t sim_version(struct sim *s, const char *path, const struct stat *st)
{
	struct sim_known *k = map_get_str(&s->known, path);
	bool same;

	if (!k) {
		k = xcalloc(1, sizeof(*k));
		(void)map_put_str(&s->known, path, k);
	}
	same = k->version && k->st.st_ino == st->st_ino && k->st.st_mode == st->st_mode &&
	       k->st.st_size == st->st_size && k->st.st_nlink == st->st_nlink &&
	       memcmp(&k->st.st_mtim, &st->st_mtim, sizeof(st->st_mtim)) == 0 &&
	       memcmp(&k->st.st_ctim, &st->st_ctim, sizeof(st->st_ctim)) == 0;
	if (!same) {
		k->st = *st;
		k->version = ++s->version;
	}
	return k->version;
}

static inline uint8_t sim_type(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return ENTRY_FILE;
	case S_IFDIR:
		return ENTRY_DIR;
	case S_IFLNK:
		return ENTRY_SYMLINK;
	case S_IFIFO:
		return ENTRY_FIFO;
	case S_IFSOCK:
		return ENTRY_SOCKET;
	default:
		return ENTRY_CHAR;
	}
}

/* False when there is nothing. */
static inline bool sim_attr(struct sim *s, const char *path, struct entry_attr *a,
			    char target[4096])
{
	struct stat st;

	memset(a, 0, sizeof(*a));
	target[0] = '\0';
	if (lstat(path, &st) < 0)
		return false;
	if (s->unknown && streq(s->unknown, path) && !S_ISDIR(st.st_mode)) {
		a->type = ENTRY_UNKNOWN;
		a->version = ++s->version;
		return true;
	}
	a->type = sim_type(st.st_mode);
	a->mode = st.st_mode & 07777;
	a->nlink = (uint32_t)st.st_nlink;
	a->ino = st.st_ino;
	a->size = (uint64_t)st.st_size;
	a->mtime_s = st.st_mtim.tv_sec;
	a->mtime_ns = (uint32_t)st.st_mtim.tv_nsec;
	a->ctime_s = st.st_ctim.tv_sec;
	a->ctime_ns = (uint32_t)st.st_ctim.tv_nsec;
	a->version = sim_version(s, path, &st);
	if (a->type == ENTRY_SYMLINK) {
		ssize_t n = readlink(path, target, 4095);

		cr_assert_gt(n, 0);
		target[n] = '\0';
	}
	if (a->type == ENTRY_FILE && s->with_digests) {
		_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);

		cr_assert_eq(digest_of_fd(fd, &a->digest, NULL), 0);
		a->has_digest = true;
	}
	return true;
}

static inline void sim_dir_free(struct sim_dir *t)
{
	struct entry_attr *a;
	size_t it = 0;

	list_remove(&t->link);
	while ((a = map_next(&t->names, &it, NULL)))
		free(a);
	map_release(&t->names);
	free(t->path);
	free(t);
}

static inline struct sim_dir *sim_dir_by_id(struct sim *s, uint32_t dir_id)
{
	list_for_each (p, &s->dirs) {
		struct sim_dir *t = container_of(p, struct sim_dir, link);

		if (t->dir_id == dir_id)
			return t;
	}
	return NULL;
}

static inline struct sim_dir *sim_dir_by_path(struct sim *s, const char *path)
{
	list_for_each (p, &s->dirs) {
		struct sim_dir *t = container_of(p, struct sim_dir, link);

		if (streq(t->path, path))
			return t;
	}
	return NULL;
}

static inline void sim_forget_below(struct sim *s, const char *path)
{
	list_for_each_safe (p, &s->dirs) {
		struct sim_dir *t = container_of(p, struct sim_dir, link);

		if (path_is_below(t->path, path))
			sim_dir_free(t);
	}
}

static inline void sim_tell(struct sim_dir *t, const char *name, const struct entry_attr *a)
{
	free(map_put_str(&t->names, name, xmemdup(a, sizeof(*a))));
}

static inline int sim_send_dir(struct sim *s, uint32_t dir_id, uint8_t state, const char *path,
			       const struct entry_attr *attr, uint32_t n, const struct buf *entries)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_dir d;
	int rc;

	msg_dir_encode(&b, dir_id, state, path, attr, n);
	buf_append(&b, entries->data, entries->len);
	rc = msg_dir_decode((struct blob){b.data, b.len}, &d);
	if (rc < 0)
		return rc;
	rc = mirror_dir(s->m, &d);
	msg_dir_release(&d);
	return rc;
}

static inline int sim_send_update(struct sim *s, uint32_t dir_id, const struct entry_attr *attr,
				  uint32_t n, const struct buf *entries)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_update u;
	int rc;

	msg_update_encode(&b, dir_id, attr, n);
	buf_append(&b, entries->data, entries->len);
	rc = msg_update_decode((struct blob){b.data, b.len}, &u);
	if (rc < 0)
		return rc;
	return mirror_update(s->m, &u);
}

static inline void sim_send_unknown(struct sim *s, const char *path)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_dir d;

	msg_dir_unknown_encode(&b, 0, path, ENFILE);
	cr_assert_eq(msg_dir_decode((struct blob){b.data, b.len}, &d), 0);
	cr_assert_eq(mirror_dir(s->m, &d), 0);
	msg_dir_release(&d);
}

static inline void sim_list(struct sim *s, const char *path)
{
	_cleanup_buf_ struct buf entries = BUF_INIT;
	struct sim_dir *old = sim_dir_by_path(s, path);
	struct entry_attr self = {0}, a;
	char target[4096];
	struct sim_dir *t;
	struct dirent *e;
	uint32_t n = 0;
	DIR *d;

	if (old)
		sim_dir_free(old);
	if (s->denied && streq(s->denied, path)) {
		cr_assert_eq(sim_send_dir(s, 0, DIR_DENIED, path, &self, 0, &entries), 0);
		return;
	}
	if (s->unknown && streq(s->unknown, path)) {
		sim_send_unknown(s, path);
		return;
	}
	if (!sim_attr(s, path, &self, target) || self.type != ENTRY_DIR) {
		memset(&self, 0, sizeof(self));
		cr_assert_eq(sim_send_dir(s, 0, DIR_MISSING, path, &self, 0, &entries), 0);
		return;
	}
	t = xcalloc(1, sizeof(*t));
	t->dir_id = ++s->next_dir_id;
	t->path = xstrdup(path);
	t->ino = self.ino;
	list_append(&s->dirs, &t->link);
	d = opendir(path);
	cr_assert(d);
	while ((e = readdir(d))) {
		_cleanup_free_ char *p = path_join(path, e->d_name);

		if (streq(e->d_name, ".") || streq(e->d_name, "..") || !sim_attr(s, p, &a, target))
			continue;
		sim_tell(t, e->d_name, &a);
		dir_entry_encode(&entries, e->d_name, strlen(e->d_name), &a, target);
		n++;
	}
	closedir(d);
	cr_assert_eq(sim_send_dir(s, t->dir_id, DIR_LISTED, path, &self, n, &entries), 0);
}

static inline int sim_content(struct sim *s, const struct msg_content *c)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_content got;

	msg_content_encode(&b, c);
	cr_assert_eq(msg_content_decode((struct blob){b.data, b.len}, &got), 0);
	return mirror_content(s->m, &got);
}

static inline int sim_data(struct sim *s, uint32_t id, uint64_t offset, const void *p, size_t n)
{
	return sim_content(s, &(struct msg_content){.fetch_id = id,
						    .state = CONTENT_DATA,
						    .offset = offset,
						    .data = {p, n}});
}

static inline int sim_end(struct sim *s, uint32_t id, const struct digest *d)
{
	return sim_content(
		s, &(struct msg_content){.fetch_id = id, .state = CONTENT_END, .digest = *d});
}

/* The file a FETCH names, when it is that version still. */
static inline char *sim_fetch_path(struct sim *s, const struct msg_fetch *f)
{
	struct sim_dir *t = sim_dir_by_id(s, f->dir_id);
	_cleanup_free_ char *path = t ? path_join(t->path, f->name) : NULL;
	struct entry_attr a;
	char target[4096];

	if (!path || !sim_attr(s, path, &a, target) || a.type != ENTRY_FILE ||
	    a.version != f->version)
		return NULL;
	return steal_ptr(&path);
}

static inline void sim_fetch(struct sim *s, const struct msg_fetch *f)
{
	_cleanup_free_ char *path = sim_fetch_path(s, f);
	_cleanup_close_ int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	static char chunk[SIM_CHUNK];
	struct digest d;
	uint64_t at = 0;
	ssize_t n;

	if (s->fetch_error) {
		cr_assert_eq(
			sim_content(s, &(struct msg_content){.fetch_id = f->fetch_id,
							     .state = CONTENT_ERROR,
							     .error = (uint32_t)s->fetch_error}),
			0);
		return;
	}
	if (fd < 0 || s->gone) {
		cr_assert_eq(sim_content(s, &(struct msg_content){.fetch_id = f->fetch_id,
								  .state = CONTENT_GONE}),
			     0);
		return;
	}
	cr_assert_eq(digest_of_fd(fd, &d, NULL), 0);
	while ((n = read(fd, chunk, sizeof(chunk))) > 0) {
		cr_assert_eq(sim_data(s, f->fetch_id, at, chunk, (size_t)n), 0);
		at += (uint64_t)n;
	}
	cr_assert_eq(sim_end(s, f->fetch_id, &d), 0);
}

/* ---- callbacks ---- */

static inline struct sim_want *sim_hold(struct sim *s)
{
	struct sim_want *w = xcalloc(1, sizeof(*w));

	list_append(&s->held, &w->link);
	s->n_held++;
	return w;
}

static inline void sim_want_dir(void *data, const char *path)
{
	struct sim *s = data;

	if (s->hold_lists)
		sim_hold(s)->path = xstrdup(path);
	else
		sim_list(s, path);
}

static inline void sim_want_file(void *data, const struct msg_fetch *f)
{
	struct sim *s = data;

	if (s->hold_fetches) {
		struct sim_want *w = sim_hold(s);

		w->fetch = *f;
		w->fetch.name = xstrdup(f->name);
	} else {
		sim_fetch(s, f);
	}
}

static inline void sim_failed(void *data, int64_t job, const char *path, int err)
{
	struct sim *s = data;

	s->n_failed++;
	s->last_failed = err;
	s->last_failed_job = job;
	free(s->last_failed_path);
	s->last_failed_path = xstrdup(path);
}

/* In a FUSE thread: the asker must be there, waiting. */
static inline int64_t sim_job_of(void *data, pid_t pid)
{
	const struct sim *s = data;

	return !s->of_no_job && pid > 0 && kill(pid, 0) == 0 ? 7 : MIRROR_NO_JOB;
}

static inline void sim_outside(void *data, int64_t job, enum missing_how how, const char *path)
{
	struct sim *s = data;

	buf_putf(&s->outside, "%lld %s%s\n", (long long)job,
		 how == MISSING_CHANGED	 ? "change "
		 : how == MISSING_LISTED ? "list "
					 : "",
		 path);
}

static inline void sim_want_free(struct sim *s, struct sim_want *w)
{
	list_remove(&w->link);
	s->n_held--;
	free(w->path);
	free(w->fetch.name);
	free(w);
}

/* Answers the held request for this path (of a LIST) or name (of a FETCH). */
static inline void sim_answer(struct sim *s, const char *what)
{
	list_for_each (p, &s->held) {
		struct sim_want *w = container_of(p, struct sim_want, link);

		if (!streq(w->path ? w->path : w->fetch.name, what))
			continue;
		if (w->path)
			sim_list(s, w->path);
		else
			sim_fetch(s, &w->fetch);
		sim_want_free(s, w);
		return;
	}
	cr_assert_fail("nobody asked for %s", what);
}

/* ---- life ---- */

static const struct mirror_ops sim_ops = {
	.want_dir = sim_want_dir,
	.want_file = sim_want_file,
	.failed = sim_failed,
	.job_of = sim_job_of,
	.outside = sim_outside,
};

static inline void sim_mount(struct sim *s)
{
	struct errmsg msg = {0};
	struct mirror_config c = {
		.mountpoint = s->mnt, .uid = getuid(), .gid = getgid(), .store = s->store};

	cr_assert_eq(mirror_start(&c, &sim_ops, s, &s->m, &msg), 0, "%s", msg.text);
}

/* An empty directory s->src, not served yet. */
static inline struct sim *sim_new(void)
{
	struct sim *s = xcalloc(1, sizeof(*s));

	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	strcpy(s->tmp, "/tmp/concc-mirror-XXXXXX");
	cr_assert(mkdtemp(s->tmp));
	/* All in a tmpfs of this namespace: whatever happens, nothing is left behind. */
	cr_assert_eq(mount("test", s->tmp, "tmpfs", 0, NULL), 0);
	snprintf(s->src, sizeof(s->src), "%s/src", s->tmp);
	snprintf(s->mnt, sizeof(s->mnt), "%s/mnt", s->tmp);
	snprintf(s->store_dir, sizeof(s->store_dir), "%s/store", s->tmp);
	cr_assert_eq(mkdir(s->src, 0755), 0);
	cr_assert_eq(mkdir(s->mnt, 0755), 0);
	list_init(&s->dirs);
	list_init(&s->held);
	cr_assert_eq(store_open(s->store_dir, 1 << 30, &s->store, NULL), 0);
	setenv("S", s->src, 1);
	setenv("T", s->tmp, 1);
	{
		_cleanup_free_ char *seen = xasprintf("%s%s", s->mnt, s->src);

		setenv("M", seen, 1);
	}
	sim_mount(s);
	return s;
}

static inline struct sim *sim_new_served(void)
{
	struct sim *s = sim_new();

	cr_assert_eq(mirror_serve(s->m, s->src), 0);
	return s;
}

static inline void sim_stop(struct sim *s)
{
	mirror_stop(s->m);
	s->m = NULL;
	while (!list_empty(&s->dirs))
		sim_dir_free(list_first(&s->dirs, struct sim_dir, link));
	while (!list_empty(&s->held))
		sim_want_free(s, list_first(&s->held, struct sim_want, link));
}

static inline void sim_free(struct sim *s)
{
	struct sim_known *k;
	size_t it = 0;

	sim_stop(s);
	store_close(s->store);
	while ((k = map_next(&s->known, &it, NULL)))
		free(k);
	map_release(&s->known);
	cr_assert_eq(umount2(s->tmp, MNT_DETACH), 0);
	cr_assert_eq(rmdir(s->tmp), 0);
	free(s->last_failed_path);
	buf_release(&s->outside);
	free(s);
}

/* ---- the client's drain ---- */

static inline bool sim_changed(const struct entry_attr *was, const struct entry_attr *is)
{
	if (was->type != is->type)
		return true;
	/* What is in a directory is told by its own updates. */
	if (is->type == ENTRY_DIR)
		return was->ino != is->ino || was->mode != is->mode;
	return was->version != is->version;
}

static inline void sim_diff_name(struct sim *s, struct sim_dir *t, const char *name,
				 struct buf *entries, uint32_t *n)
{
	_cleanup_free_ char *path = path_join(t->path, name);
	struct entry_attr *was = map_get_str(&t->names, name);
	struct entry_attr is;
	char target[4096];
	bool exists = sim_attr(s, path, &is, target);

	if (exists ? was && !sim_changed(was, &is) : !was)
		return;
	dir_entry_encode(entries, name, strlen(name), &is, target);
	(*n)++;
	/* The entry that leads to them changed. */
	if (was && was->type == ENTRY_DIR)
		sim_forget_below(s, path);
	if (exists)
		sim_tell(t, name, &is);
	else
		free(map_del_str(&t->names, name));
}

static inline void sim_sync_dir(struct sim *s, struct sim_dir *t)
{
	_cleanup_buf_ struct buf entries = BUF_INIT;
	_cleanup_buf_ struct buf names = BUF_INIT; /* each with its NUL */
	struct entry_attr self;
	char target[4096];
	const char *name;
	struct dirent *e;
	uint32_t n = 0;
	size_t it = 0;
	DIR *d;

	if (!sim_attr(s, t->path, &self, target) || self.type != ENTRY_DIR || self.ino != t->ino)
		return; /* its parent's update says so */
	while (map_next(&t->names, &it, &name))
		buf_append(&names, name, strlen(name) + 1);
	d = opendir(t->path);
	cr_assert(d);
	while ((e = readdir(d)))
		if (!streq(e->d_name, ".") && !streq(e->d_name, "..") &&
		    !map_get_str(&t->names, e->d_name))
			buf_append(&names, e->d_name, strlen(e->d_name) + 1);
	closedir(d);
	for (size_t at = 0; at < names.len; at += strlen((char *)names.data + at) + 1)
		sim_diff_name(s, t, (char *)names.data + at, &entries, &n);
	cr_assert_eq(sim_send_update(s, t->dir_id, &self, n, &entries), 0);
}

static inline void sim_wait_event(struct sim *s, int other_fd)
{
	struct pollfd fds[2] = {
		{.fd = mirror_event_fd(s->m), .events = POLLIN},
		{.fd = other_fd, .events = POLLIN},
	};
	int n = poll(fds, other_fd >= 0 ? 2 : 1, SIM_TIMEOUT_MS);

	cr_assert_gt(n, 0, "waited in vain");
	if (fds[0].revents)
		mirror_dispatch(s->m);
}

static inline void sim_flush(struct sim *s)
{
	uint64_t seq = mirror_seq(s->m);

	while (!mirror_flushed(s->m, seq))
		sim_wait_event(s, -1);
}

/* Everything that was changed on the disk is known, as before a job. */
static inline void sim_sync(struct sim *s)
{
	/* By ids: an update of one directory may end others. */
	for (uint32_t id = 1; id <= s->next_dir_id; id++) {
		struct sim_dir *t = sim_dir_by_id(s, id);

		if (t)
			sim_sync_dir(s, t);
	}
	sim_flush(s);
}

/* ---- what runs beside ---- */

struct sim_task {
	void *(*fn)(void *);
	void *arg, *result;
	int done_fd;
	pthread_t thread;
};

static inline void *sim_task_main(void *arg)
{
	struct sim_task *t = arg;
	uint64_t one = 1;

	t->result = t->fn(t->arg);
	cr_assert_eq(write(t->done_fd, &one, sizeof(one)), sizeof(one));
	return NULL;
}

static inline struct sim_task *sim_begin(void *(*fn)(void *), void *arg)
{
	struct sim_task *t = xcalloc(1, sizeof(*t));

	t->fn = fn;
	t->arg = arg;
	t->done_fd = eventfd(0, EFD_CLOEXEC);
	cr_assert_eq(pthread_create(&t->thread, NULL, sim_task_main, t), 0);
	return t;
}

static inline bool sim_task_done(const struct sim_task *t)
{
	struct pollfd p = {.fd = t->done_fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

/* Answers what the mirror asks until fd is readable. */
static inline void sim_wait_fd(struct sim *s, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	while (poll(&p, 1, 0) == 0)
		sim_wait_event(s, fd);
}

/* Answers what the mirror asks until the task ends; returns its result. */
static inline void *sim_finish(struct sim *s, struct sim_task *t)
{
	void *result;

	while (!sim_task_done(t)) {
		if (s->m) {
			sim_wait_event(s, t->done_fd);
		} else {
			struct pollfd p = {.fd = t->done_fd, .events = POLLIN};

			cr_assert_eq(poll(&p, 1, SIM_TIMEOUT_MS), 1, "waited in vain");
		}
	}
	cr_assert_eq(pthread_join(t->thread, NULL), 0);
	/* As the agent does at a job's end: what the mirror has said of it by then is heard. */
	if (s->m)
		mirror_dispatch(s->m);
	result = t->result;
	close(t->done_fd);
	free(t);
	return result;
}

static inline void *sim_popen(void *arg)
{
	FILE *f = popen(arg, "re");
	_cleanup_buf_ struct buf b = BUF_INIT;
	char chunk[4096];
	size_t n;
	int status;

	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
		buf_append(&b, chunk, n);
	status = pclose(f);
	if (status != 0)
		buf_putf(&b, "status %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	return xstrdup(buf_cstr(&b));
}

static inline struct sim_task *sim_begin_sh(const char *command)
{
	return sim_begin(sim_popen, (void *)command);
}

/* The output of a shell command, stderr too, and "status N" when it failed.  $S: on the client's
 * disk, $M: in the mirror.  Owned by the caller. */
static inline char *sim_sh(struct sim *s, const char *command)
{
	return sim_finish(s, sim_begin_sh(command));
}

#define sim_expect(s, command, expected)                                                           \
	do {                                                                                       \
		_cleanup_free_ char *out_ = sim_sh((s), "exec 2>&1; " command);                    \
                                                                                                   \
		cr_assert_str_eq(out_, expected, "%s:\n%s", command, out_);                        \
	} while (0)

/* A change on the client's disk. */
#define sim_change(command) cr_assert_eq(system("set -e; cd $S; " command), 0, "can't: %s", command)

/* Types, modes, sizes, times, inode numbers, link targets and bytes of all there is. */
#define SIM_SHOW(dir)                                                                              \
	"cd " dir " && find . -printf '%P %y %m %s %T@ %C@ %i %l\\n' | sort && "                   \
	"find . -type f | sort | xargs -r -d '\\n' sha256sum"

static inline void sim_check_same(struct sim *s)
{
	_cleanup_free_ char *want = sim_sh(s, "exec 2>&1; " SIM_SHOW("$S"));
	_cleanup_free_ char *got = sim_sh(s, "exec 2>&1; " SIM_SHOW("$M"));

	cr_assert_str_eq(got, want, "mirror:\n%s\ndisk:\n%s", got, want);
}

static inline struct mirror_counts sim_counts(struct sim *s)
{
	struct mirror_counts c;

	mirror_counts(s->m, &c);
	return c;
}

#endif
