/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#define FUSE_USE_VERSION 312
#include "outside.h"
#include "outside_places.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "fuse.h"
#include "inode.h"
#include "stand_in.h"

struct mirror *outside_mirror(const struct outside *o)
{
	return o->mirror;
}

bool outside_is_terminal(const struct outside *o, uint64_t node)
{
	return (struct place *)(uintptr_t)node == o->terminal;
}

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
	struct fuse_lowlevel_ops all = outside_ops;

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
	o->root = outside_place_new(o, NULL, "", 0);
	o->stand_in = outside_place_new(o, o->root, MIRROR_STAND_IN, strlen(MIRROR_STAND_IN));
	o->terminal = outside_place_new(o, o->root, MIRROR_TERMINAL, strlen(MIRROR_TERMINAL));
	/* Not found by that name, so that it is no other place. */
	o->tmp = outside_place_new(o, o->root, "tmp", strlen("tmp"));
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
	outside_places_free(o);
	pthread_mutex_destroy(&o->lock);
	free(o->mountpoint);
	free(o);
}
