/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TEST_FUZZ_REPLICA_H
#define CONCC_TEST_FUZZ_REPLICA_H

/* What one worker was told of the client's tree: a model of it, held against the disk. */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/map.h"
#include "concc/str.h"
#include "concc/tree.h"
#include "scratch.h"

struct shown_name {
	struct entry_attr attr;
	char *target;
};

struct replica_dir {
	uint32_t id;
	uint8_t state; /* enum dir_state */
	char *path;
	struct map names; /* struct shown_name */
};

/* Of the user of this header: it leads to a directory of its own, which is checked by itself. */
static bool is_served_root(const char *path);

struct replica {
	struct map by_path, by_id; /* struct replica_dir */
};

static void replica_name_free(struct shown_name *n)
{
	if (n)
		free(n->target);
	free(n);
}

static void replica_dir_free(struct replica_dir *d)
{
	struct shown_name *n;

	for (size_t it = 0; (n = map_next(&d->names, &it, NULL));)
		replica_name_free(n);
	map_release(&d->names);
	free(d->path);
	free(d);
}

static void replica_forget(struct replica *t, struct replica_dir *d)
{
	map_del_str(&t->by_path, d->path);
	map_del_u64(&t->by_id, d->id);
	replica_dir_free(d);
}

static void replica_release(struct replica *t)
{
	struct replica_dir *d;

	for (size_t it = 0; (d = map_next(&t->by_path, &it, NULL));)
		replica_forget(t, d);
	map_release(&t->by_path);
	map_release(&t->by_id);
	*t = (struct replica){0};
}

/* The name stands for another thing by now: what was told of what is there is void. */
static void replica_void(struct replica *t, const char *path)
{
	struct replica_dir *d;

	for (size_t it = 0; (d = map_next(&t->by_path, &it, NULL));) {
		if (path_is_below(d->path, path))
			replica_forget(t, d);
	}
}

/* Is what was told of path told by this name in the directory around it?  A served root has its own
 * way there, whatever else the name stands for. */
static bool replica_by_name(const char *path, const struct shown_name *old, uint8_t type)
{
	return type == ENTRY_DIR || (old && old->attr.type == ENTRY_DIR) || !is_served_root(path);
}

/* was: what the name stood for before, as told, or NULL. */
static void replica_put(struct replica *t, struct replica_dir *d, const struct dir_entry *e,
			const struct map *was)
{
	_cleanup_free_ char *name = xstrndup((const char *)e->name.p, e->name.n);
	_cleanup_free_ char *path = path_join(d->path, name);
	const struct shown_name *old = was ? map_get_str(was, name) : NULL;
	const struct replica_dir *below = map_get_str(&t->by_path, path);
	struct shown_name *n;

	/* A mirror asks for no directory before what holds it.  To one that did, that there was
	 * none is void when the first listing of that has it. */
	if (!was && below && below->state != DIR_LISTED && !is_served_root(path))
		replica_void(t, path);
	if (was && (!old || old->attr.version != e->attr.version) &&
	    replica_by_name(path, old, e->attr.type))
		replica_void(t, path);
	if (e->attr.type == ENTRY_ABSENT) {
		replica_name_free(map_del_str(&d->names, name));
		return;
	}
	n = xcalloc(1, sizeof(*n));
	n->attr = e->attr;
	n->target = xstrndup((const char *)e->target.p, e->target.n);
	replica_name_free(map_put_str(&d->names, name, n));
}

static void replica_entries(struct replica *t, struct replica_dir *d, struct rd *entries,
			    uint32_t n, const struct map *was)
{
	for (uint32_t i = 0; i < n; i++) {
		struct dir_entry e;

		dir_entry_decode(entries, &e);
		replica_put(t, d, &e, was);
	}
}

static void replica_dir(struct replica *t, struct blob b)
{
	struct replica_dir *d, *former;
	struct msg_dir m;

	CHECK(msg_dir_decode(b, &m) == 0 && m.dir_id);
	former = map_get_str(&t->by_path, m.path);
	if (former) {
		map_del_str(&t->by_path, former->path);
		map_del_u64(&t->by_id, former->id);
	}
	if (m.state != DIR_UNKNOWN) {
		d = xcalloc(1, sizeof(*d));
		d->id = m.dir_id;
		d->state = m.state;
		d->path = xstrdup(m.path);
		map_put_str(&t->by_path, d->path, d);
		map_put_u64(&t->by_id, d->id, d);
		replica_entries(t, d, &m.entries, m.n, former ? &former->names : NULL);
	}
	if (former)
		replica_dir_free(former);
	msg_dir_release(&m);
}

static void replica_update(struct replica *t, struct blob b)
{
	struct msg_update m;
	struct replica_dir *d;
	struct rd look;

	CHECK(msg_update_decode(b, &m) == 0);
	d = map_get_u64(&t->by_id, m.dir_id);
	CHECK(d); /* nobody is told of what he never asked for, or what is void */
	look = m.entries;
	for (uint32_t i = 0; i < m.n; i++) {
		_cleanup_free_ char *name = NULL;
		struct shown_name *old;
		struct dir_entry e;

		dir_entry_decode(&look, &e);
		name = xstrndup((const char *)e.name.p, e.name.n);
		old = map_get_str(&d->names, name);
		CHECK(!old || e.attr.version > old->attr.version);
	}
	replica_entries(t, d, &m.entries, m.n, &d->names);
}

static void replica_message(struct replica *t, uint8_t type, const struct buf *b)
{
	struct blob payload = {b->data, b->len};
	struct replica_dir *d;
	uint32_t id;

	if (type == MSG_DIR) {
		replica_dir(t, payload);
	} else if (type == MSG_UPDATE) {
		replica_update(t, payload);
	} else {
		CHECK(type == MSG_DIR_STALE && msg_u32_decode(payload, &id) == 0);
		d = map_get_u64(&t->by_id, id);
		if (d)
			replica_forget(t, d);
	}
}

static uint8_t replica_type(mode_t m)
{
	return S_ISREG(m)    ? ENTRY_FILE
	       : S_ISDIR(m)  ? ENTRY_DIR
	       : S_ISLNK(m)  ? ENTRY_SYMLINK
	       : S_ISFIFO(m) ? ENTRY_FIFO
			     : ENTRY_SOCKET;
}

static void replica_check_name(const struct shown_name *n, int dir_fd, const char *name,
			       const struct stat *st)
{
	char target[PROTO_PATH_MAX];
	ssize_t len;

	CHECK(n && n->attr.type == replica_type(st->st_mode));
	CHECK(n->attr.mode == (st->st_mode & 07777));
	if (S_ISDIR(st->st_mode))
		return;
	CHECK(n->attr.size == (uint64_t)st->st_size && n->attr.nlink == st->st_nlink);
	CHECK(n->attr.mtime_s == st->st_mtim.tv_sec && n->attr.mtime_ns == st->st_mtim.tv_nsec);
	if (!S_ISLNK(st->st_mode))
		return;
	len = readlinkat(dir_fd, name, target, sizeof(target) - 1);
	CHECK(len >= 0 && (size_t)len == strlen(n->target) &&
	      memcmp(target, n->target, (size_t)len) == 0);
}

/* What was told of the directory at path, and beneath it, is so.  Takes fd, of it or -1.  Served
 * roots beneath it are left out. */
static void replica_check(const struct replica *t, const char *path, int fd)
{
	const struct replica_dir *d = map_get_str(&t->by_path, path);
	struct dirent *de;
	unsigned n = 0;
	DIR *dir;

	if (!d || fd < 0) {
		CHECK(!d || d->state != DIR_LISTED);
		if (fd >= 0)
			(void)close(fd);
		return;
	}
	if (d->state != DIR_LISTED && getenv("FUZZ_TRACE"))
		fprintf(stderr, "%s is there, and was told as %u\n", path, d->state);
	CHECK(d->state == DIR_LISTED);
	dir = fdopendir(fd);
	CHECK(dir);
	while ((de = readdir(dir))) {
		char *child;
		struct stat st;

		if (streq(de->d_name, ".") || streq(de->d_name, "..") ||
		    str_starts(de->d_name, TEMP_PREFIX))
			continue;
		n++;
		CHECK(fstatat(dirfd(dir), de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0);
		replica_check_name(map_get_str(&d->names, de->d_name), dirfd(dir), de->d_name, &st);
		child = path_join(path, de->d_name);
		if (S_ISDIR(st.st_mode) && !is_served_root(child))
			replica_check(t, child,
				      openat(dirfd(dir), de->d_name,
					     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
		free(child);
	}
	(void)closedir(dir);
	CHECK(d->names.n == n);
}

#endif
