/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The mounts of one job, made by its init.
 *
 * Their order: the launcher's root has the mirror on /tmp (and the
 * scratch directory on /var/tmp).  The job's tmpfs covers the mirror once that
 * is open; overlays are mounted from there; at last the job's private /tmp
 * covers the tmpfs, with an empty directory of the mirror below that tells what is sought in it. So
 * a job reaches neither, and nothing is unmounted, which would wait for a grace period of the
 * kernel each time.
 */
#include "jobinit.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/mirror.h"
#include "concc/str.h"
#include "mnt.h"
#include "overlay.h"

#define WORK "/tmp/tw"
#define TMP  "/tmp/t" /* the private /tmp, before it covers /tmp */

static bool below_tmp(const char *path)
{
	return path_is_below(path, "/tmp") || path_is_below(path, "/var/tmp");
}

/* mkdir -p for a mount point in the private /tmp, marked as none of the job's doing. */
static int make_tmp_mountpoint(const char *path)
{
	const char *rest = path_below(path, path_is_below(path, "/tmp") ? "/tmp" : "/var/tmp");
	_cleanup_free_ char *full = path_join(TMP, rest);
	char *p = full + strlen(TMP) + 1;

	while (*rest && *p) {
		char *slash = strchrnul(p, '/'), was = *slash;

		*slash = '\0';
		if (mkdir(full, 0755) == 0)
			mnt_mark(full);
		else if (errno != EEXIST)
			return -errno;
		*slash = was;
		p = slash + (was == '/');
	}
	return 0;
}

/* The merged root takes its attributes from the upper's: make them the lower's. */
static int like_lower(int lower, const char *upper)
{
	struct stat st;
	struct timespec times[2];

	if (fstat(lower, &st) < 0 || chmod(upper, st.st_mode & 07777) < 0)
		return -errno;
	/* Ids that don't exist here can't be given to it; ours are right already. */
	(void)chown(upper, st.st_uid, st.st_gid);
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	return utimensat(AT_FDCWD, upper, times, 0) < 0 ? -errno : 0;
}

static int open_dir(const char *path)
{
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Overlay over the directory `lower`, at path or, for a path in /tmp, at a place of its own. */
static int mount_workspace(struct job *j, size_t i, int lower, const char *path)
{
	bool on_disk = j->setup->upper == UPPER_DISK_USER;
	char upper[64], work[64], stage[64];
	int r;

	if (on_disk) {
		snprintf(upper, sizeof(upper), ROOT_SCRATCH "/%u/u%zu", j->id, i);
		snprintf(work, sizeof(work), ROOT_SCRATCH "/%u/w%zu", j->id, i);
	} else {
		snprintf(upper, sizeof(upper), "/tmp/u%zu", i);
		snprintf(work, sizeof(work), "/tmp/w%zu", i);
	}
	snprintf(stage, sizeof(stage), "/tmp/m%zu", i);
	if (mkdir(upper, 0700) < 0 || mkdir(work, 0700) < 0)
		return -errno;
	r = like_lower(lower, upper);
	if (r < 0)
		return r;
	j->fds[i] = open_dir(upper);
	if (j->fds[i] < 0)
		return -errno;
	if (below_tmp(path) && mkdir(stage, 0700) < 0)
		return -errno;
	/* "." needs no quoting, whatever the workspace's name. */
	if (fchdir(lower) < 0)
		return -errno;
	r = overlay_mount(j->setup->upper, ".", upper, work, below_tmp(path) ? stage : path);
	if (r < 0 || !below_tmp(path))
		return r;
	j->overlay_fds[i] = open(stage, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (j->overlay_fds[i] < 0)
		return -errno;
	return make_tmp_mountpoint(path);
}

static void mount_workspaces(struct job *j)
{
	for (size_t i = 0; i < j->n; i++) {
		const char *path = j->req.workspaces[i];
		_cleanup_close_ int lower = openat(j->mirror, path + 1,
						   O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		int r;

		if (lower < 0)
			jobinit_refuse(j, -errno, "workspace %s is not in the mirror", path);
		r = mount_workspace(j, i, lower, path);
		if (r < 0)
			jobinit_refuse(j, r, "can't mount an overlay at %s", path);
	}
}

/* Nothing is in the lower layer, so that nothing of it is ever hidden: no attributes are needed. */
static bool watch_tmp(const struct job *j)
{
	enum upper_kind kind = j->setup->upper;
	const char *lower = kind == UPPER_DISK_USER ? ROOT_LOWER : ROOT_SCRATCH;
	int r = mkdir(WORK, 0700) < 0 ? -errno : 0;

	if (r == 0)
		r = overlay_mount(kind == UPPER_TMPFS_TRUSTED ? kind : UPPER_TMPFS_USER, lower, TMP,
				  WORK, "/tmp");
	if (r < 0)
		log_debug("a job's /tmp tells nothing of what is sought there: %s", err_text(r));
	return r == 0;
}

static void cover_tmp(struct job *j)
{
	j->fds[j->n] = open_dir(TMP);
	if (j->fds[j->n] < 0)
		jobinit_refuse(j, -errno, "can't open " TMP);
	if ((!watch_tmp(j) && mount(TMP, "/tmp", NULL, MS_BIND, NULL) < 0) ||
	    mount("/tmp", "/var/tmp", NULL, MS_BIND, NULL) < 0)
		jobinit_refuse(j, -errno, "can't mount a private /tmp");
	for (size_t i = 0; i < j->n; i++) {
		if (j->overlay_fds[i] < 0)
			continue;
		if (move_mount(j->overlay_fds[i], "", AT_FDCWD, j->req.workspaces[i],
			       MOVE_MOUNT_F_EMPTY_PATH) < 0)
			jobinit_refuse(j, -errno, "can't mount an overlay at %s",
				       j->req.workspaces[i]);
		(void)close(j->overlay_fds[i]);
	}
}

static void loopback_up(void)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		log_warn("jobs get no loopback interface: %s", err_text(-errno));
}

/* They name those of the login; kernels without keys have none. */
static void hide_keys(void)
{
	(void)mount("/dev/null", "/proc/keys", NULL, MS_BIND, NULL);
	(void)mount("/dev/null", "/proc/key-users", NULL, MS_BIND, NULL);
}

#define PROC_FLAGS (MS_NOSUID | MS_NODEV | MS_NOEXEC)

/*
 * Where the numbers of a job's processes begin: else they were the same in each job, and a name
 * with such a number in it (log.$$, %p.profraw) the same file.
 */
#define PIDS_OF_JOB 64	/* that no other has, for long */
#define PIDS_FIRST  300 /* after its last number the kernel begins there */
#define PIDS_END    (4 * 1024 * 1024 - 4096)
#define PIDS_FEWER  (32 * 1024 - 4096) /* where pid_max is that of old */

static void begin_pids(uint32_t job_id)
{
	static const uint64_t ends[] = {PIDS_END, PIDS_FEWER};
	_cleanup_close_ int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);

	for (size_t i = 0; fd >= 0 && i < N_OF(ends); i++) {
		uint64_t n = (uint64_t)job_id * PIDS_OF_JOB % (ends[i] - PIDS_FIRST);

		if (dprintf(fd, "%u", (unsigned)(PIDS_FIRST + n)) > 0)
			return;
	}
}

/*
 * Where memory runs out, a machine's or a container's, a job can be done again, and what else is
 * there can't: the agent with all its other jobs, whoever's machine it is.  Raising it is
 * everybody's right.
 */
static void go_first(void)
{
	_cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write_full(fd, "1000", 4) < 0)
		log_debug("the job is not the first to be killed for memory: %s", err_text(-errno));
}

/* From here on it is to be read only. */
static void finish_proc(struct job *j)
{
	if (!j->own_proc)
		return;
	begin_pids(j->id);
	if (mount(NULL, "/proc", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | PROC_FLAGS, NULL) < 0)
		jobinit_refuse(j, -errno, "can't make /proc read-only");
}

void jobinit_mount_common(struct job *j)
{
	int r;

	/* The launcher does not wait for this: here, many jobs can do it at once. */
	j->failed = "can't make namespaces";
	if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET) < 0)
		goto fail;
	loopback_up();
	/* Opened in the new namespace: overlay takes no layer of another. */
	j->failed = "can't open the mirror";
	j->mirror = open(ROOT_MIRROR, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (j->mirror < 0)
		goto fail;
	j->failed = "can't mount a tmpfs";
	r = overlay_tmpfs_mount("/tmp");
	errno = -r;
	if (r < 0)
		goto fail;
	j->failed = "can't make a private /tmp";
	if (mkdir(TMP, 0700) < 0 || chmod(TMP, 01777) < 0)
		goto fail;
	/* Refused in containers that hide parts of /proc: then the launcher's stays visible. */
	j->own_proc = mount("proc", "/proc", "proc", PROC_FLAGS, NULL) == 0;
	go_first();
	hide_keys();
	return;
fail:
	j->err = -errno;
}

/* Here it is nobody's; that of the caller is not to be taken for none. */
static void stand_in_for_terminal(const struct job *j)
{
	int r = mnt_bind_at(j->mirror, MIRROR_OUTSIDE "/" MIRROR_TERMINAL, false, AT_FDCWD,
			    "/dev/tty");

	if (r < 0)
		log_debug("nothing stands in for the caller's terminal: %s", err_text(r));
}

void jobinit_mount_own(struct job *j)
{
	char dir[64];

	finish_proc(j);
	snprintf(dir, sizeof(dir), ROOT_SCRATCH "/%u", j->id);
	if (j->setup->upper == UPPER_DISK_USER && mkdir(dir, 0700) < 0)
		jobinit_refuse(j, -errno, "can't make a scratch directory");
	if (j->req.terminal)
		stand_in_for_terminal(j);
	mount_workspaces(j);
	cover_tmp(j);
}
