/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#define FUSE_USE_VERSION 312
#include "stand_in.h"

#include <errno.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>

#include "inode.h"
#include "outside.h"
#include "want.h"

#define FOR_EVER 1e9 /* seconds, as in fuse.c */
/* So large that the kernel asks for what is read or mapped, wherever that is. */
#define STAND_IN_SIZE ((off_t)1 << 40)

static struct mirror *mirror_of(fuse_req_t req)
{
	return outside_mirror(fuse_req_userdata(req));
}

static int64_t job_of(fuse_req_t req)
{
	const struct mirror *m = mirror_of(req);

	return m->ops.job_of ? m->ops.job_of(m->data, fuse_req_ctx(req)->pid) : MIRROR_SOME_JOB;
}

static bool is_terminal(fuse_req_t req, uint64_t node)
{
	return outside_is_terminal(fuse_req_userdata(req), node);
}

void stand_in_refuse(fuse_req_t req, uint64_t node)
{
	struct mirror *m = mirror_of(req);
	int64_t job = job_of(req);
	bool terminal = is_terminal(req, node);

	pthread_mutex_lock(&m->lock);
	want_failed(m, job, terminal ? "/dev/tty" : "",
		    terminal ? CONCC_E_SPECIAL : CONCC_E_DESCRIPTOR);
	pthread_mutex_unlock(&m->lock);
	(void)fuse_reply_err(req, EIO); /* fails when the asker is gone */
}

static struct stat stat_of(const struct mirror *m, uint64_t ino)
{
	return (struct stat){
		.st_ino = ino,
		.st_mode = S_IFREG | 0666,
		.st_nlink = 1,
		.st_size = STAND_IN_SIZE,
		.st_uid = m->uid,
		.st_gid = m->gid,
		.st_mtim = m->started,
		.st_atim = m->started,
		.st_ctim = m->started,
	};
}

/* Who reads it waits for the answer, even when it is killed: so it can be found. */
void stand_in_init(struct fuse_conn_info *conn)
{
	conn->want &= ~(unsigned)FUSE_CAP_ASYNC_READ;
}

void stand_in_lookup(fuse_req_t req, uint64_t node, uint64_t ino)
{
	/* A descriptor's attributes are not to be known: to ask for them is a use of it.  Of a
	 * name an open asks for them. */
	struct fuse_entry_param e = {.ino = node,
				     .attr = stat_of(mirror_of(req), ino),
				     .entry_timeout = FOR_EVER,
				     .attr_timeout = is_terminal(req, node) ? FOR_EVER : 0};

	(void)fuse_reply_entry(req, &e); /* fails when the asker is gone */
}

void stand_in_getattr(fuse_req_t req, uint64_t node, uint64_t ino)
{
	struct stat st = stat_of(mirror_of(req), ino);
	bool terminal = is_terminal(req, node);

	/* An open asks, too; but that of a descriptor is not a job's. */
	if (!terminal && job_of(req) != MIRROR_NO_JOB)
		stand_in_refuse(req, node);
	else /* fails when the asker is gone */
		(void)fuse_reply_attr(req, &st, terminal ? FOR_EVER : 0);
}

/* ---- when it is open ---- */

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fuse_reply_open(req, fi); /* fails when the asker is gone */
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	stand_in_refuse(req, ino);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	stand_in_refuse(req, ino);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	stand_in_refuse(req, ino);
}

static void op_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	stand_in_refuse(req, ino);
}

static void op_setlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock,
		     int sleep)
{
	stand_in_refuse(req, ino);
}

static void op_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	stand_in_refuse(req, ino);
}

static void op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg,
		     struct fuse_file_info *fi, unsigned flags, const void *in, size_t in_size,
		     size_t out_size)
{
	stand_in_refuse(req, ino);
}

/*
 * find and xargs ask this of all descriptors to learn which are open: for whatever there is at
 * once.  Who wants to know when it can be read, or written, asks for that.
 */
static void op_poll(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi,
		    struct fuse_pollhandle *ph)
{
	const unsigned both = POLLIN | POLLOUT;

	if (ph)
		fuse_pollhandle_destroy(ph);
	if ((fi->poll_events & both) == both)
		(void)fuse_reply_poll(req, both); /* fails when the asker is gone */
	else
		stand_in_refuse(req, ino);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
			 struct fuse_file_info *fi)
{
	stand_in_refuse(req, ino);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
		     struct fuse_file_info *fi)
{
	stand_in_refuse(req, ino);
}

void stand_in_add_ops(struct fuse_lowlevel_ops *ops)
{
	ops->open = op_open;
	ops->read = op_read;
	ops->write = op_write;
	ops->fsync = op_fsync;
	ops->getlk = op_getlk;
	ops->setlk = op_setlk;
	ops->flock = op_flock;
	ops->ioctl = op_ioctl;
	ops->poll = op_poll;
	ops->fallocate = op_fallocate;
	ops->lseek = op_lseek;
}
