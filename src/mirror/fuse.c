/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#define FUSE_USE_VERSION 312
#include "fuse.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "content.h"
#include "inode.h"

#define READERS_DEFAULT 2
#define READERS_MAX	16
/* Reads on their way at once: 12 by default, less than one process's read-ahead needs. */
#define BACKGROUND_MAX 128
#define TRANSFER_MAX   (1024 * 1024)

struct fuse {
	struct fuse_session *session;
	int fd;
	int stop_fd; /* readable for good once the readers must end */
	bool mounted;
	atomic_bool ended;
	atomic_bool init_patched;
	atomic_uint_fast64_t init_unique;
	atomic_bool can_expire; /* told by INIT */
	unsigned n_readers;
	pthread_t readers[READERS_MAX];
};

/* ---- operations ---- */

static struct inode *inode_of(struct mirror *m, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? m->root : (struct inode *)(uintptr_t)ino;
}

static void take_request(fuse_req_t req, enum request_kind kind, fuse_ino_t ino, size_t size,
			 off_t offset, const char *name)
{
	struct mirror *m = fuse_req_userdata(req);
	struct request *r = xcalloc(1, sizeof(*r) + strlen(name) + 1);

	r->kind = kind;
	r->req = req;
	r->offset = (uint64_t)offset;
	r->size = size < TRANSFER_MAX ? size : TRANSFER_MAX;
	strcpy(r->name, name);
	list_init(&r->link);
	pthread_mutex_lock(&m->lock);
	/* The asker holds the node, so it lives. */
	r->inode = inode_ref(inode_of(m, ino));
	pthread_mutex_unlock(&m->lock);
	request_run(m, r);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct mirror *m = userdata;

	conn->want |= conn->capable & (FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPLICIT_INVAL_DATA |
				       FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS);
	/* Versions don't change, so a new size or time never means new bytes. */
	conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_READDIRPLUS |
				  FUSE_CAP_READDIRPLUS_AUTO);
	conn->max_background = BACKGROUND_MAX;
	conn->congestion_threshold = BACKGROUND_MAX * 3 / 4;
	conn->max_readahead = TRANSFER_MAX;
	conn->max_write = TRANSFER_MAX; /* libfuse takes the pages of a read from this, too */
	conn->time_gran = 1;
	atomic_store(&m->fuse->can_expire, conn->capable & FUSE_CAP_EXPIRE_ONLY);
	/* Linux 5.16, the first after that which does (5.15) with a number of its own. */
	atomic_store(&m->tells_copies, conn->proto_minor >= 35);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	take_request(req, REQUEST_LOOKUP, parent, 0, 0, name);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	take_request(req, REQUEST_GETATTR, ino, 0, 0, "");
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	take_request(req, REQUEST_READDIR, ino, size, off, "");
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	take_request(req, REQUEST_READ, ino, size, off, "");
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct mirror *m = fuse_req_userdata(req);
	const struct inode *i = inode_of(m, ino);

	/* The target belongs to the version: no lock needed. */
	if (i->target)
		(void)fuse_reply_readlink(req, i->target);
	else
		(void)fuse_reply_err(req, EINVAL);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	struct mirror *m = fuse_req_userdata(req);

	pthread_mutex_lock(&m->lock);
	if (ino != FUSE_ROOT_ID)
		inode_forget(m, inode_of(m, ino), nlookup);
	pthread_mutex_unlock(&m->lock);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct mirror *m = fuse_req_userdata(req);

	pthread_mutex_lock(&m->lock);
	for (size_t k = 0; k < count; k++)
		if (forgets[k].ino != FUSE_ROOT_ID)
			inode_forget(m, inode_of(m, forgets[k].ino), forgets[k].nlookup);
	pthread_mutex_unlock(&m->lock);
	fuse_reply_none(req);
}

/* The kernel remembers ENOSYS to OPEN, OPENDIR and FLUSH, and asks no more. */
static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fuse_reply_err(req, ENOSYS);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fuse_reply_err(req, ENOSYS);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st = {.f_bsize = 4096, .f_frsize = 4096, .f_namemax = NAME_MAX};

	(void)fuse_reply_statfs(req, &st);
}

/*
 * An overlay asks for the flags of whatever it copies up (ovl_copy_fileattr() in
 * fs/overlayfs/copy_up.c), each time, whatever the answer (measured on Linux 6.18 for ENOSYS and
 * ENOTTY); so directories that are made in the upper layer beforehand save a message each.  The
 * process that made it do so is the one that asks.
 */
static void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg,
		     struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_size,
		     size_t out_size)
{
	struct mirror *m = fuse_req_userdata(req);
	const struct inode *i = inode_of(m, ino);
	bool several;
	int64_t job;

	pthread_mutex_lock(&m->lock);
	several = i->attr.type == ENTRY_FILE && i->attr.nlink > 1;
	pthread_mutex_unlock(&m->lock);
	if (several) {
		job = m->ops.job_of ? m->ops.job_of(m->data, fuse_req_ctx(req)->pid)
				    : MIRROR_SOME_JOB;
		pthread_mutex_lock(&m->lock);
		job_copies(m, job, i);
		pthread_mutex_unlock(&m->lock);
	}
	(void)fuse_reply_err(req, ENOSYS);
}

/* What is not here, libfuse answers with ENOSYS, which the kernel remembers. */
static const struct fuse_lowlevel_ops ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.readlink = op_readlink,
	.open = op_open,
	.opendir = op_open,
	.flush = op_flush,
	.read = op_read,
	.readdir = op_readdir,
	.statfs = op_statfs,
	.ioctl = op_ioctl,
};

/* ---- the connection ---- */

/*
 * Waits in epoll instead of in read(2), so that a reader can be told to end;
 * EPOLLEXCLUSIVE wakes one of them per request.
 */
static ssize_t io_read(int fd, void *buf, size_t len, void *userdata)
{
	struct mirror *m = userdata;
	const struct fuse_in_header *in = buf;
	ssize_t n = read(fd, buf, len);

	if (n < (ssize_t)sizeof(*in))
		return n;
	if (in->opcode < MIRROR_OPCODES)
		atomic_fetch_add(&m->by_opcode[in->opcode], 1);
	if (in->opcode == FUSE_INIT)
		atomic_store(&m->fuse->init_unique, in->unique);
	return n;
}

/*
 * libfuse before 3.17 never passes FUSE_PARALLEL_DIROPS on to the kernel, which
 * then allows one look-up at a time in a directory.  The INIT reply is changed
 * on its way.
 */
static void patch_init(struct fuse *f, const struct iovec *iov, int count)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	struct fuse_init_out *init;

	if (atomic_load(&f->init_patched) || count != 2 || out->error != 0 ||
	    out->unique != atomic_load(&f->init_unique))
		return;
	if (iov[1].iov_len < offsetof(struct fuse_init_out, max_background))
		return;
	init = iov[1].iov_base;
	init->flags |= FUSE_PARALLEL_DIROPS;
	atomic_store(&f->init_patched, true);
}

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct mirror *m = userdata;
	ssize_t n;

	patch_init(m->fuse, iov, count);
	n = writev(fd, iov, count);
	/* Of an aborted connection there is nothing to report; ENOENT is what libfuse takes
	 * silently. */
	if (n < 0 && atomic_load(&m->fuse->ended))
		errno = ENOENT;
	return n;
}

static const struct fuse_custom_io custom_io = {.read = io_read, .writev = io_writev};

static void log_fuse(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char line[512];

	(void)vsnprintf(line, sizeof(line), fmt, ap);
	line[strcspn(line, "\n")] = '\0';
	if (level <= FUSE_LOG_WARNING)
		log_warn("%s", line);
	else
		log_debug("%s", line);
}

static int open_epoll(const struct fuse *f)
{
	_cleanup_close_ int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event on_request = {.events = EPOLLIN | EPOLLEXCLUSIVE};
	struct epoll_event on_stop = {.events = EPOLLIN};

	if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, f->fd, &on_request) < 0 ||
	    epoll_ctl(ep, EPOLL_CTL_ADD, f->stop_fd, &on_stop) < 0)
		return -errno;
	return steal_fd(&ep);
}

/* Reads and answers until there is nothing; false when the connection ended. */
static bool read_all(struct mirror *m, struct fuse_buf *buf)
{
	struct fuse *f = m->fuse;

	for (;;) {
		int n = fuse_session_receive_buf(f->session, buf);

		if (n == -EAGAIN)
			return true;
		if (n == -EINTR)
			continue;
		if (n <= 0)
			return false;
		fuse_session_process_buf(f->session, buf);
	}
}

static void *reader(void *arg)
{
	struct mirror *m = arg;
	_cleanup_close_ int ep = open_epoll(m->fuse);
	struct fuse_buf buf = {0};
	struct epoll_event ev;

	while (ep >= 0 && !atomic_load(&m->fuse->ended)) {
		if (!read_all(m, &buf))
			break;
		if (epoll_wait(ep, &ev, 1, -1) < 0 && errno != EINTR)
			break;
	}
	if (!atomic_exchange(&m->fuse->ended, true))
		log_err("the FUSE connection of %s ended (unmounted by someone?): jobs there fail",
			m->mountpoint);
	free(buf.mem);
	return NULL;
}

int fuse_open_device(struct errmsg *msg)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0)
		return fd;
	if (errno == EACCES || errno == EPERM)
		return errmsg_set(msg, -errno,
				  "can't open /dev/fuse: %s; make it accessible (chmod 0666 "
				  "/dev/fuse; in a container: --device /dev/fuse)",
				  strerror(errno));
	return errmsg_set(msg, -errno,
			  "can't open /dev/fuse: %s; load the kernel module (modprobe fuse), in a "
			  "container add --device /dev/fuse",
			  strerror(errno));
}

static int mount_device(const struct mirror *m, int fd, struct errmsg *msg)
{
	_cleanup_free_ char *opts = xasprintf(
		"fd=%d,rootmode=40000,user_id=%u,group_id=%u,allow_other,default_permissions", fd,
		(unsigned)getuid(), (unsigned)getgid());

	/* Read-only, or the kernel asks for attributes again after each first read (atime). */
	if (mount("concc", m->mountpoint, "fuse", MS_RDONLY | MS_NOSUID | MS_NODEV, opts) == 0)
		return 0;
	if (errno == EPERM || errno == EACCES)
		return errmsg_set(
			msg, -errno,
			"can't mount FUSE at %s: %s; a container needs --cap-add SYS_ADMIN "
			"(and, with AppArmor, --security-opt apparmor=unconfined)",
			m->mountpoint, strerror(errno));
	return errmsg_set(msg, -errno, "can't mount FUSE at %s: %s; is it an existing directory?",
			  m->mountpoint, strerror(errno));
}

static int open_session(struct mirror *m, const struct mirror_config *c, struct errmsg *msg)
{
	struct fuse *f = m->fuse;
	char name[] = "concc";
	char *argv[] = {name, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	_cleanup_close_ int fd = -1;
	int err;

	fd = c->fuse_fd ? c->fuse_fd : fuse_open_device(msg);
	if (fd < 0)
		return fd;
	fuse_set_log_func(log_fuse);
	f->session = fuse_session_new(&args, &ops, sizeof(ops), m);
	fuse_opt_free_args(&args);
	if (!f->session)
		return errmsg_set(msg, -ENOMEM, "can't make a FUSE session; see the line above");
	err = fuse_session_custom_io(f->session, &custom_io, fd);
	if (err != 0)
		return errmsg_set(msg, -ENOMEM, "can't set up the FUSE session");
	f->fd = steal_fd(&fd); /* the session closes it */
	err = mount_device(m, f->fd, msg);
	f->mounted = err == 0;
	return err;
}

static int start_readers(struct mirror *m, unsigned n)
{
	struct fuse *f = m->fuse;

	n = n == 0 ? READERS_DEFAULT : n > READERS_MAX ? READERS_MAX : n;
	for (; f->n_readers < n; f->n_readers++) {
		int err = pthread_create(&f->readers[f->n_readers], NULL, reader, m);

		if (err != 0)
			return -err;
	}
	return 0;
}

int fuse_start(struct mirror *m, const struct mirror_config *c, struct errmsg *msg)
{
	struct fuse *f = xcalloc(1, sizeof(*f));
	int err;

	f->fd = -1;
	m->fuse = f;
	f->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (f->stop_fd < 0)
		return errmsg_set(msg, -errno, "can't make an eventfd: %s", strerror(errno));
	err = open_session(m, c, msg);
	if (err < 0)
		return err;
	err = start_readers(m, c->n_threads);
	if (err < 0)
		return errmsg_set(msg, err,
				  "can't start a thread: %s; is the limit of processes "
				  "(ulimit -u) reached?",
				  err_text(err));
	return 0;
}

void fuse_abort(struct mirror *m)
{
	struct fuse *f = m->fuse;
	uint64_t one = 1;

	if (!f)
		return;
	atomic_store(&f->ended, true);
	if (f->stop_fd >= 0)
		(void)!write(f->stop_fd, &one, sizeof(one)); /* the counter can't be full */
	/*
	 * MNT_FORCE aborts the connection even where closing our fd would not: a forked process
	 * may still hold it.
	 */
	if (f->mounted && umount2(m->mountpoint, MNT_FORCE | MNT_DETACH) < 0)
		log_debug("unmounting %s: %s", m->mountpoint, strerror(errno));
}

void fuse_stop(struct mirror *m)
{
	struct fuse *f = m->fuse;

	if (!f)
		return;
	for (unsigned k = 0; k < f->n_readers; k++)
		(void)pthread_join(f->readers[k], NULL);
	if (f->session)
		fuse_session_destroy(f->session); /* closes the device */
	if (f->stop_fd >= 0)
		(void)close(f->stop_fd);
	free(f);
	m->fuse = NULL;
}

/* ---- for the notifier thread ---- */

uint64_t fuse_nodeid(const struct mirror *m, const struct inode *i)
{
	return i == m->root ? FUSE_ROOT_ID : (uint64_t)(uintptr_t)i;
}

/* The kernel may have forgotten what it is told to: that is as good, so results don't matter. */
void fuse_inval_entry(struct mirror *m, uint64_t dir, const char *name, bool expire)
{
	/* On another thread it deadlocks now and then: see notify.h. */
	assert(pthread_equal(m->notifies, pthread_self()));
	/*
	 * A kernel before 6.2 knows no expiry: right answers are worth more there than the working
	 * directories of processes inside.
	 */
	if (expire && atomic_load(&m->fuse->can_expire))
		(void)fuse_lowlevel_notify_expire_entry(m->fuse->session, dir, name, strlen(name),
							FUSE_LL_EXPIRE_ONLY);
	else
		(void)fuse_lowlevel_notify_inval_entry(m->fuse->session, dir, name, strlen(name));
}

void fuse_inval_inode(struct mirror *m, uint64_t ino)
{
	assert(pthread_equal(m->notifies, pthread_self()));
	(void)fuse_lowlevel_notify_inval_inode(m->fuse->session, ino, 0, 0);
}
