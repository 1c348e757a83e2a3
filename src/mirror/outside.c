/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#define FUSE_USE_VERSION 312
#include "outside.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "fuse.h"
#include "inode.h"
#include "stand_in.h"
#include "want.h"

/*
 * One file, though it has the kernel's side and the owner's: both are about the same places, under
 * one lock that nobody else knows.
 */

#define FOR_EVER 1e9 /* seconds, as in fuse.c */

/* A directory.  They stay as long as the file system: the kernel's references need no count. */
struct place {
	struct place *parent; /* NULL: the root */
	struct map children;  /* name -> struct place */
	struct map absent;    /* names that are no news */
	char *target;	      /* it is a symbolic link; else NULL */
	bool kept;	      /* something may be mounted there, or beneath */
	bool bare;	      /* it looks like the client's: what follows */
	mode_t mode;
	struct timespec mtim;
	uint64_t ino;
	struct place *old; /* the list of those that were replaced: the kernel may know them */
	char name[];
};

struct outside {
	struct mirror *mirror;
	char *mountpoint;
	struct fuse_session *session;
	int fd, stop_fd;
	int mounted_fd; /* its root, O_PATH, or -1: not mounted */
	pthread_t thread;
	bool runs;

	pthread_mutex_t lock; /* of the places */
	struct place *root, *old;
	struct place *stand_in, *terminal; /* the only files: stand_in.h */
	struct place *tmp;		   /* MIRROR_TMP */
	size_t n_places, n_absent, n_links, n_bare;
};

/* ---- places ---- */

/* Not yet found by its name. */
static struct place *place_alone(struct outside *o, struct place *parent, const char *name,
				 size_t len)
{
	struct place *p = xcalloc(1, sizeof(*p) + len + 1);

	memcpy(p->name, name, len);
	p->parent = parent;
	p->ino = SYNTHETIC_INO + ++o->n_places;
	return p;
}

static void place_free(struct place *p)
{
	struct place *child;
	size_t it = 0;

	while ((child = map_next(&p->children, &it, NULL)))
		place_free(child);
	map_release(&p->children);
	map_release(&p->absent);
	free(p->target);
	free(p);
}

static void old_free(struct place *p)
{
	while (p) {
		struct place *next = p->old;

		place_free(p);
		p = next;
	}
}

static void put_path(const struct place *p, struct buf *b)
{
	if (!p->parent)
		return;
	put_path(p->parent, b);
	buf_putf(b, "/%s", p->name);
}

/* As the client calls it: name in the directory p, or that itself when name is empty. */
static char *path_of(const struct place *p, const char *name)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	put_path(p, &b);
	if (*name || !b.len)
		buf_putf(&b, "/%s", name);
	return xstrdup(buf_cstr(&b));
}

static struct place *find(struct outside *o, const char *path)
{
	struct place *at = o->root;

	while (at && *(path += strspn(path, "/"))) {
		size_t len = strcspn(path, "/");

		at = map_get(&at->children, path, len);
		path += len;
	}
	return at;
}

/* ---- answers ---- */

struct mirror *outside_mirror(const struct outside *o)
{
	return o->mirror;
}

bool outside_is_terminal(const struct outside *o, uint64_t node)
{
	return (struct place *)(uintptr_t)node == o->terminal;
}

static struct outside *outside_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static struct place *place_of(fuse_req_t req, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? outside_of(req)->root : (struct place *)(uintptr_t)ino;
}

static void fill_stat(struct outside *o, const struct place *p, struct stat *st)
{
	struct timespec t = o->mirror->started;
	mode_t mode = 0755;

	pthread_mutex_lock(&o->lock);
	if (p->bare) {
		t = p->mtim;
		mode = p->mode;
	}
	pthread_mutex_unlock(&o->lock);
	*st = (struct stat){
		.st_ino = p->ino,
		.st_mode = p->target ? S_IFLNK | 0777 : S_IFDIR | mode,
		.st_nlink = 1,
		.st_size = p->target ? (off_t)strlen(p->target) : 0,
		.st_uid = o->mirror->uid,
		.st_gid = o->mirror->gid,
		.st_mtim = t,
		.st_atim = t,
		.st_ctim = t,
	};
}

/* Before the answer: the owner knows of it before it can hear of anything the asker does next. */
static void report(fuse_req_t req, const struct place *p, const char *name, enum missing_how how)
{
	struct mirror *m = outside_of(req)->mirror;
	_cleanup_free_ char *path = path_of(p, name);
	int64_t job;

	if (!m->ops.outside)
		return;
	job = m->ops.job_of(m->data, fuse_req_ctx(req)->pid);
	pthread_mutex_lock(&m->lock);
	want_outside(m, path, how, job);
	pthread_mutex_unlock(&m->lock);
}

/*
 * What can't be written to at home is refused with these words there; where it can,
 * the owner throws the job away.
 */
static void refuse_change(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	report(req, place_of(req, ino), name, MISSING_CHANGED);
	(void)fuse_reply_err(req, EACCES); /* fails when the asker is gone */
}

/* ---- operations ---- */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	conn->time_gran = 1;
	stand_in_init(conn);
}

/* What is served there, or in /var/tmp, which is the same to a job, is mounted above.  The lock is
 * held. */
static bool is_served_in_tmp(const struct outside *o, const char *name)
{
	const struct place *tmp = map_get_str(&o->root->children, "tmp"),
			   *var = map_get_str(&o->root->children, "var"),
			   *var_tmp = var ? map_get_str(&var->children, "tmp") : NULL;

	return (tmp && map_get_str(&tmp->children, name)) ||
	       (var_tmp && map_get_str(&var_tmp->children, name));
}

static void lookup_in_tmp(fuse_req_t req, const char *name)
{
	struct outside *o = outside_of(req);
	bool served;

	pthread_mutex_lock(&o->lock);
	served = is_served_in_tmp(o, name);
	pthread_mutex_unlock(&o->lock);
	if (!served)
		report(req, o->tmp, name, fuse_asks(o->mirror, fuse_req_ctx(req)->pid, name));
	(void)fuse_reply_err(req, ENOENT);
}

static bool is_file(const struct outside *o, const struct place *p)
{
	return p == o->stand_in || p == o->terminal;
}

/* NULL: it names none. */
static struct place *file_of(const struct outside *o, const struct place *dir, const char *name)
{
	if (dir != o->root)
		return NULL;
	return streq(name, MIRROR_STAND_IN)   ? o->stand_in
	       : streq(name, MIRROR_TERMINAL) ? o->terminal
					      : NULL;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct outside *o = outside_of(req);
	struct place *dir = place_of(req, parent), *child;
	struct fuse_entry_param e = {.entry_timeout = FOR_EVER, .attr_timeout = FOR_EVER};
	enum missing_how how = MISSING_LOOKED_UP;
	bool known;

	child = file_of(o, dir, name);
	if (child) {
		stand_in_lookup(req, (fuse_ino_t)(uintptr_t)child, child->ino);
		return;
	}
	if (dir == o->tmp) {
		lookup_in_tmp(req, name);
		return;
	}
	pthread_mutex_lock(&o->lock);
	child = dir == o->root && streq(name, MIRROR_TMP) ? o->tmp
							  : map_get_str(&dir->children, name);
	known = child || map_get_str(&dir->absent, name);
	pthread_mutex_unlock(&o->lock);
	/* A link to what is on another mount comes no further than this, remembered or not. */
	if (!child)
		how = fuse_asks(o->mirror, fuse_req_ctx(req)->pid, name);
	if (!known || how == MISSING_CHANGED) {
		report(req, dir, name, how);
		(void)fuse_reply_err(req, ENOENT); /* which the kernel does not remember */
		return;
	}
	if (child) {
		e.ino = (fuse_ino_t)(uintptr_t)child;
		fill_stat(o, child, &e.attr);
	}
	(void)fuse_reply_entry(req, &e);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct outside *o = outside_of(req);
	const struct place *p = place_of(req, ino);
	struct stat st;

	if (is_file(o, p)) {
		stand_in_getattr(req, ino, p->ino);
		return;
	}
	fill_stat(o, p, &st);
	(void)fuse_reply_attr(req, &st, FOR_EVER);
}

/* Where the entry at `at` ends, as add_name() has said. */
static size_t entry_end(const struct buf *b, size_t at)
{
	struct fuse_dirent d;

	memcpy(&d, b->data + at, offsetof(struct fuse_dirent, name));
	return (size_t)d.off;
}

static void add_name(fuse_req_t req, struct buf *b, const char *name, const struct place *p)
{
	struct stat st = {.st_ino = p->ino, .st_mode = p->target ? S_IFLNK : S_IFDIR};
	size_t n = fuse_add_direntry(req, NULL, 0, name, NULL, 0);

	uint8_t *to = buf_grow(b, n);

	(void)fuse_add_direntry(req, (char *)to, n, name, &st, (off_t)b->len);
}

/*
 * What is served, and what leads there: so much a listing may say of somebody's directories.  What
 * else is there a job finds by its name only; the owner knows whether it could have wanted it.
 */
static void list(struct outside *o, fuse_req_t req, const struct place *p, struct buf *b)
{
	const struct place *child;
	size_t it = 0;

	add_name(req, b, ".", p);
	add_name(req, b, "..", p->parent ? p->parent : p);
	pthread_mutex_lock(&o->lock);
	while ((child = map_next(&p->children, &it, NULL))) {
		if (child->kept || child->target)
			add_name(req, b, child->name, child);
	}
	pthread_mutex_unlock(&o->lock);
}

/* Made anew for each who opens it, so that the kernel must not keep it. */
static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct buf *b = xcalloc(1, sizeof(*b));

	list(outside_of(req), req, place_of(req, ino), b);
	fi->fh = (uint64_t)(uintptr_t)b;
	fi->cache_readdir = 0;
	if (fuse_reply_open(req, fi) < 0) { /* the asker is gone, and closes nothing */
		buf_release(b);
		free(b);
	}
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	const struct buf *b = (const struct buf *)(uintptr_t)fi->fh;
	size_t at = (size_t)off, end = at;

	if (at == 0)
		report(req, place_of(req, ino), "", MISSING_LISTED);
	/* Whole entries: each begins where the offset of the one before says. */
	while (end < b->len && entry_end(b, end) - at <= size)
		end = entry_end(b, end);
	(void)fuse_reply_buf(req, end > at ? (const char *)b->data + at : NULL, end - at);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct buf *b = (struct buf *)(uintptr_t)fi->fh;

	buf_release(b);
	free(b);
	(void)fuse_reply_err(req, 0);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	const struct place *p = place_of(req, ino);

	/* No place becomes a link, or stops to be one: another takes its name. */
	if (p->target)
		(void)fuse_reply_readlink(req, p->target);
	else
		(void)fuse_reply_err(req, EINVAL);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = NAME_MAX};

	(void)fuse_reply_statfs(req, &st);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	refuse_change(req, parent, name);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	refuse_change(req, parent, name);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	refuse_change(req, parent, name);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	refuse_change(req, parent, name);
}

static void op_remove(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	refuse_change(req, parent, name);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
		      const char *newname, unsigned flags)
{
	report(req, place_of(req, parent), name, MISSING_CHANGED);
	refuse_change(req, newparent, newname);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	refuse_change(req, newparent, newname);
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
		       struct fuse_file_info *fi)
{
	if (is_file(outside_of(req), place_of(req, ino)))
		stand_in_refuse(req, ino);
	else
		refuse_change(req, ino, "");
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
			size_t size, int flags)
{
	refuse_change(req, ino, "");
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	refuse_change(req, ino, "");
}

static const struct fuse_lowlevel_ops ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.releasedir = op_releasedir,
	.readlink = op_readlink,
	.statfs = op_statfs,
	.create = op_create,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.symlink = op_symlink,
	.unlink = op_remove,
	.rmdir = op_remove,
	.rename = op_rename,
	.link = op_link,
	.setattr = op_setattr,
	.setxattr = op_setxattr,
	.removexattr = op_removexattr,
};

/* ---- the thread ---- */

static void count(struct mirror *m, const struct fuse_buf *buf)
{
	const struct fuse_in_header *in = buf->mem;

	if (in->opcode < MIRROR_OPCODES)
		atomic_fetch_add(&m->by_opcode[in->opcode], 1);
}

/* Until the connection ends, or the owner says so. */
static void *answer(void *arg)
{
	struct outside *o = arg;
	struct pollfd p[2] = {{.fd = o->fd, .events = POLLIN},
			      {.fd = o->stop_fd, .events = POLLIN}};
	struct fuse_buf buf = {0};

	while (!p[1].revents) {
		int n = fuse_session_receive_buf(o->session, &buf);

		if (n > 0) {
			count(o->mirror, &buf);
			fuse_session_process_buf(o->session, &buf);
		} else if (n == -EAGAIN) {
			(void)poll(p, 2, -1); /* interrupted: once more */
		} else if (n != -EINTR) {
			break;
		}
	}
	free(buf.mem);
	return NULL;
}

/* ---- life ---- */

/* Where it is mounted, fd's connection then; the mirror answers already. */
static int mount_it(struct outside *o, struct errmsg *msg)
{
	_cleanup_free_ char *opts = xasprintf(
		"fd=%d,rootmode=40000,user_id=%u,group_id=%u,allow_other,default_permissions",
		o->fd, (unsigned)getuid(), (unsigned)getgid());

	if (mount("concc-outside", o->mountpoint, "fuse",
		  MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME, opts) < 0)
		return errmsg_set(msg, -errno, "can't mount FUSE at %s: %s", o->mountpoint,
				  err_text(-errno));
	o->mounted_fd = open(o->mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return o->mounted_fd < 0 ? errmsg_set(msg, -errno, "can't open %s: %s", o->mountpoint,
					      err_text(-errno))
				 : 0;
}

/*
 * Not by its path: that leads through the mirror, which may wait for a client that is
 * gone.  A forked process may still hold the device: this aborts all the same.
 */
static void unmount_it(struct outside *o)
{
	char path[64];

	if (o->mounted_fd < 0)
		return;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", o->mounted_fd);
	if (umount2(path, MNT_FORCE | MNT_DETACH) < 0)
		log_debug("unmounting %s: %s", o->mountpoint, err_text(-errno));
	close(steal_fd(&o->mounted_fd));
}

static int open_session(struct outside *o, struct errmsg *msg)
{
	char name[] = "concc", path[32];
	char *argv[] = {name, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fuse_lowlevel_ops all = ops;

	stand_in_add_ops(&all);
	o->session = fuse_session_new(&args, &all, sizeof(all), o);
	fuse_opt_free_args(&args);
	(void)snprintf(path, sizeof(path), "/dev/fd/%d", o->fd);
	if (!o->session || fuse_session_mount(o->session, path) != 0)
		return errmsg_set(msg, -ENOMEM, "can't make a FUSE session; see the line above");
	return 0;
}

static int start_thread(struct outside *o, struct errmsg *msg)
{
	int err = -pthread_create(&o->thread, NULL, answer, o);

	o->runs = err == 0;
	return err < 0 ? errmsg_set(msg, err, "can't start a thread: %s", err_text(err)) : 0;
}

int outside_start(struct mirror *m, int fuse_fd, struct outside **ret, struct errmsg *msg)
{
	struct outside *o = xcalloc(1, sizeof(*o));
	int r = 0;

	o->mirror = m;
	o->mounted_fd = -1;
	o->mountpoint = path_join(m->mountpoint, MIRROR_OUTSIDE);
	pthread_mutex_init(&o->lock, NULL);
	o->root = place_alone(o, NULL, "", 0);
	o->stand_in = place_alone(o, o->root, MIRROR_STAND_IN, strlen(MIRROR_STAND_IN));
	o->terminal = place_alone(o, o->root, MIRROR_TERMINAL, strlen(MIRROR_TERMINAL));
	/* Not found by that name, so that it is no other place. */
	o->tmp = place_alone(o, o->root, "tmp", strlen("tmp"));
	o->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	o->fd = fuse_fd ? fuse_fd : fuse_open_device(msg);
	if (o->fd < 0)
		r = o->fd;
	else if (o->stop_fd < 0)
		r = errmsg_set(msg, -errno, "can't make an eventfd: %s", err_text(-errno));
	if (r == 0)
		r = mount_it(o, msg);
	if (r == 0)
		r = open_session(o, msg);
	if (r == 0)
		r = start_thread(o, msg);
	if (r < 0)
		outside_stop(o);
	else
		*ret = o;
	return r;
}

void outside_stop(struct outside *o)
{
	uint64_t one = 1;

	if (!o)
		return;
	if (o->stop_fd >= 0)
		(void)!write(o->stop_fd, &one, sizeof(one)); /* the counter can't be full */
	unmount_it(o);
	if (o->runs)
		(void)pthread_join(o->thread, NULL);
	if (o->session)
		fuse_session_destroy(o->session); /* closes the device */
	else if (o->fd >= 0)
		(void)close(o->fd);
	if (o->stop_fd >= 0)
		(void)close(o->stop_fd);
	place_free(o->root);
	place_free(o->stand_in);
	place_free(o->terminal);
	place_free(o->tmp);
	old_free(o->old);
	pthread_mutex_destroy(&o->lock);
	free(o->mountpoint);
	free(o);
}

/* ---- for the owner ---- */

/* The kernel believes in no such name: it asks again.  Not under the lock: see fuse.h. */
static void notify(struct outside *o, const struct place *dir, const char *name)
{
	fuse_ino_t ino = dir->parent ? (fuse_ino_t)(uintptr_t)dir : FUSE_ROOT_ID;

	atomic_fetch_add(&o->mirror->n_notifications, 1);
	/* Fails when it has no such thing: as good. */
	(void)fuse_lowlevel_notify_inval_entry(o->session, ino, name, strlen(name));
}

static void notify_attributes(struct outside *o, const struct place *p)
{
	atomic_fetch_add(&o->mirror->n_notifications, 1);
	(void)fuse_lowlevel_notify_inval_inode(o->session, (fuse_ino_t)(uintptr_t)p, -1, 0);
}

static void put_place(struct outside *o, struct place *p)
{
	struct place *dir = p->parent;
	bool was_absent;

	pthread_mutex_lock(&o->lock);
	(void)map_put_str(&dir->children, p->name, p);
	was_absent = map_del_str(&dir->absent, p->name);
	o->n_absent -= was_absent;
	pthread_mutex_unlock(&o->lock);
	if (was_absent)
		notify(o, dir, p->name);
}

static struct place *add_child(struct outside *o, struct place *dir, const char *name, size_t len)
{
	struct place *child = place_alone(o, dir, name, len);

	put_place(o, child);
	return child;
}

/* Only the owner changes them, so that it may look without the lock. */
void outside_add(struct outside *o, const char *path, bool kept)
{
	struct place *at = o->root;

	while (*(path += strspn(path, "/"))) {
		size_t len = strcspn(path, "/");
		struct place *child = map_get(&at->children, path, len);

		/* Behind a link is what is told of where it leads. */
		if ((!child && o->n_places >= SYNTHETIC_MAX) || (child && child->target))
			return;
		at = child ? child : add_child(o, at, path, len);
		at->kept |= kept;
		path += len;
	}
}

/* The lock is held. */
static void uncount(struct outside *o, const struct place *p)
{
	const struct place *child;
	size_t it = 0;

	o->n_links -= p->target != NULL;
	o->n_bare -= p->bare;
	o->n_absent -= p->absent.n;
	while ((child = map_next(&p->children, &it, NULL)))
		uncount(o, child);
}

/* The kernel may hold it, so it stays, and all that was in it, where no name leads. */
static void retire(struct outside *o, struct place *p)
{
	pthread_mutex_lock(&o->lock);
	(void)map_del_str(&p->parent->children, p->name);
	p->old = o->old;
	o->old = p;
	uncount(o, p);
	pthread_mutex_unlock(&o->lock);
	notify(o, p->parent, p->name);
}

int outside_link(struct outside *o, const char *path, const char *target)
{
	_cleanup_free_ char *parent = path_parent(path);
	struct place *dir, *at = find(o, path), *link;

	if (at && at->target && streq(at->target, target))
		return 0;
	/* Of what was mounted nothing may be lost. */
	if (at && at->kept)
		return *target ? -EISDIR : 0;
	if (at && (*target || at->target))
		retire(o, at);
	if (!*target)
		return 0;
	outside_add(o, parent, false);
	dir = find(o, parent);
	if (!dir || dir->target)
		return -ENOTDIR;
	if (o->n_links >= PROTO_OUTSIDE_LINKS_MAX || o->n_places >= SYNTHETIC_MAX)
		return CONCC_E_TOOBIG;
	link = place_alone(o, dir, path_base(path), strlen(path_base(path)));
	link->target = xstrdup(target);
	o->n_links++;
	put_place(o, link);
	return 0;
}

static void bare_no_more(struct outside *o, struct place *p)
{
	if (!p || !p->bare)
		return;
	/* What is mounted in it is still there. */
	if (!p->kept) {
		retire(o, p);
		return;
	}
	pthread_mutex_lock(&o->lock);
	p->bare = false;
	o->n_bare--;
	pthread_mutex_unlock(&o->lock);
	notify_attributes(o, p);
}

int outside_bare(struct outside *o, const struct msg_bare *b)
{
	struct place *p = find(o, b->path);

	if (!b->there) {
		bare_no_more(o, p);
		return 0;
	}
	if (!p && o->n_bare >= PROTO_BARE_MAX)
		return CONCC_E_TOOBIG;
	outside_add(o, b->path, false);
	p = find(o, b->path);
	if (!p || p->target)
		return 0;
	pthread_mutex_lock(&o->lock);
	o->n_bare += !p->bare;
	p->bare = true;
	p->mode = b->mode;
	p->mtim = (struct timespec){.tv_sec = (time_t)b->mtime_s, .tv_nsec = b->mtime_ns};
	pthread_mutex_unlock(&o->lock);
	notify_attributes(o, p);
	return 0;
}

static void all_news(struct outside *o, struct place *dir)
{
	struct map was;
	const char *name;
	size_t it = 0;

	pthread_mutex_lock(&o->lock);
	was = dir->absent;
	dir->absent = MAP_INIT;
	o->n_absent -= was.n;
	pthread_mutex_unlock(&o->lock);
	while (map_next(&was, &it, &name))
		notify(o, dir, name);
	map_release(&was);
}

void outside_absent(struct outside *o, const char *dir, const char *name)
{
	struct place *p = find(o, dir);

	if (!p)
		return;
	if (!*name) {
		all_news(o, p);
		return;
	}
	/* Beyond, they are told as before. */
	if (o->n_absent >= PROTO_OUTSIDE_MAX || map_get_str(&p->children, name))
		return;
	pthread_mutex_lock(&o->lock);
	o->n_absent += !map_put_str(&p->absent, name, p);
	pthread_mutex_unlock(&o->lock);
}
