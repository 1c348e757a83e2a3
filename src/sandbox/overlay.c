/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/cores.h"
#include "concc/digest.h"
#include "concc/process.h"
#include "concc/sandbox.h"
#include "concc/str.h"
#include "filter.h"

/*
 * redirect_dir, index and metacopy are off, with userxattr they must be: so a
 * renamed lower directory is copied by who renames it (EXDEV), a file is copied
 * up whole, and a plain new directory is not marked opaque.
 */
static const char *const options[] = {
	[UPPER_TMPFS_USER] = "userxattr,index=off",
	[UPPER_TMPFS_TRUSTED] = "redirect_dir=off,metacopy=off,index=off",
	/* Nobody needs the upper after a crash: no fsync reaches the disk. */
	[UPPER_DISK_USER] = "userxattr,index=off,volatile",
};

int overlay_mount(enum upper_kind kind, const char *lower, const char *upper, const char *work,
		  const char *target)
{
	char opts[512];
	int n = snprintf(opts, sizeof(opts), "lowerdir=%s,upperdir=%s,workdir=%s,%s", lower, upper,
			 work, options[kind]);

	if (n >= (int)sizeof(opts))
		return -ENAMETOOLONG;
	return mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV, opts) < 0 ? -errno : 0;
}

int overlay_tmpfs_mount(const char *target)
{
	const char *size = getenv(OVERLAY_SIZE_ENV);
	char opts[128];

	snprintf(opts, sizeof(opts), "mode=0755%s%.64s", size && *size ? ",size=" : "",
		 size ? size : "");
	/* noatime: leftover_in_tmp() knows mount points by their access time. */
	if (mount("concc-job", target, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOATIME, opts) < 0)
		return -errno;
	return 0;
}

void overlay_bound_tmpfs(void)
{
	const char *size = getenv(OVERLAY_SIZE_ENV);
	uint64_t limit = size && *size ? 0 : memory_limit();
	_cleanup_free_ char *half = xasprintf("%llu", (unsigned long long)(limit / 2));

	if (limit)
		(void)setenv(OVERLAY_SIZE_ENV, half, 1); /* fails without memory only */
}

static int probe(enum upper_kind kind, const char *dir, const char *disk)
{
	char upper[64] = "u", work[64] = "w";
	int disk_fd, r;

	if (unshare(CLONE_NEWNS) < 0)
		return -errno;
	/* In the new namespace, else it can't be bound; before dir may cover it. */
	disk_fd = disk ? open(disk, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	r = overlay_tmpfs_mount(dir);
	if (r < 0)
		return r;
	if (chdir(dir) < 0 || mkdir("m", 0755) < 0 || mkdir("l", 0755) < 0 ||
	    mkdir("l/d", 0755) < 0 || mkdir("d", 0755) < 0)
		return -errno;
	if (kind == UPPER_DISK_USER) {
		char fd_path[64];

		snprintf(fd_path, sizeof(fd_path), "/proc/self/fd/%d", disk_fd);
		if (mount(fd_path, "d", NULL, MS_BIND, NULL) < 0)
			return -errno;
		strcpy(upper, "d/u");
		strcpy(work, "d/w");
	}
	if (mkdir(upper, 0755) < 0 || mkdir(work, 0755) < 0)
		return -errno;
	r = overlay_mount(kind, "l", upper, work, "m");
	if (r < 0)
		return r;
	return rmdir("m/d") < 0 || mkdir("m/d", 0755) < 0 ? -errno : 0;
}

int overlay_probe(enum upper_kind kind, const char *dir, const char *disk)
{
	int status, r;
	pid_t pid = process_fork();

	if (pid < 0)
		return pid;
	if (pid == 0) {
		r = probe(kind, dir, disk);
		_exit(r < 0 && r >= -255 ? -r : r < 0 ? EIO : 0);
	}
	r = process_wait(pid, &status);
	if (r < 0)
		return r;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

/* ---- marks ---- */

int overlay_is_opaque(int fd)
{
	/* The second only exists for an agent with the real CAP_SYS_ADMIN. */
	static const char *const names[] = {"user.overlay.opaque", "trusted.overlay.opaque"};

	for (size_t i = 0; i < N_OF(names); i++) {
		char v;
		ssize_t n = filter_fgetxattr(fd, names[i], &v, 1);

		if (n == 1 && v == 'y')
			return 1;
		if (n < 0 && errno != ENODATA && errno != EOPNOTSUPP && errno != ERANGE)
			return -errno;
	}
	return 0;
}

bool overlay_is_copied_up(int fd)
{
	/* ovl_set_origin() in fs/overlayfs/copy_up.c marks each copy, if only with nothing. */
	return filter_fgetxattr(fd, "user.overlay.origin", NULL, 0) >= 0 ||
	       filter_fgetxattr(fd, "trusted.overlay.origin", NULL, 0) >= 0;
}

/*
 * overlayfs passes over names of its own prefix that it does not know, and shows none to jobs. What
 * it holds is as long as the filter of system calls, which the marking init is under, lets pass.
 */
static const char *const moved_names[] = {"user.overlay.concc-from", "trusted.overlay.concc-from"};

struct moved {
	uint8_t from[FILTER_ATTR_SIZE]; /* the beginning of the path's digest */
};

static struct moved moved_from(const char *path)
{
	struct digest d;
	struct moved m;

	digest_of(path, strlen(path), &d);
	memcpy(m.from, d.b, sizeof(m.from));
	return m;
}

int overlay_mark_moved(int fd, const char *from)
{
	struct moved m = moved_from(from);

	for (size_t i = 0; i < N_OF(moved_names); i++)
		if (fsetxattr(fd, moved_names[i], &m, sizeof(m), XATTR_CREATE) == 0 ||
		    errno == EEXIST)
			return 0;
	return -errno;
}

bool overlay_is_from(int fd, const char *path)
{
	struct moved m, here = moved_from(path);

	for (size_t i = 0; i < N_OF(moved_names); i++) {
		ssize_t n = filter_fgetxattr(fd, moved_names[i], &m, sizeof(m));

		if (n >= 0)
			return n == sizeof(m) && memcmp(&m, &here, sizeof(m)) == 0;
	}
	return overlay_is_copied_up(fd);
}
