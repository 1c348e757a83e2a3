/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/sandbox.h"
#include "mnt.h"
#include "refusal.h"
#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/process.h"
#include "concc/str.h"

#define NS_ALWAYS (CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS)
#define HOST_MAX  64 /* of the kernel: __NEW_UTS_LEN */

/*
 * Where the private tmpfs goes: directories that the agent itself never looks
 * into and that no job is shown.  A directory of our own in /tmp would not do:
 * when it is removed outside (by a cleaner), the kernel detaches what is
 * mounted there in every other namespace.
 */
static const char *const places[] = {"/sys/fs/fuse/connections", "/mnt", "/media", "/srv"};

#define GIVE_FUSE                                                                                  \
	"start the container with --device /dev/fuse; a pod, with \"privileged\": true in its "    \
	"securityContext, or the resource of a device plugin for /dev/fuse in its limits"

int sandbox_try_fuse(void)
{
	_cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : 0;
}

static int check_fuse(struct errmsg *msg)
{
	int r = sandbox_try_fuse();

	if (r == 0)
		return 0;
	if (r == -EACCES)
		return errmsg_set(msg, r,
				  "/dev/fuse is not accessible to uid %u: as root, chmod 0666 "
				  "/dev/fuse (what udev sets)",
				  (unsigned)geteuid());
	/* The group of devices of a container, whatever the mode is. */
	if (r == -EPERM)
		return errmsg_set(msg, r, "the container may not open /dev/fuse: " GIVE_FUSE);
	return errmsg_set(msg, r,
			  "/dev/fuse: %s: load the kernel's module (modprobe fuse); in a "
			  "container, " GIVE_FUSE,
			  err_text(r));
}

static int write_id_file(const char *path, const char *text, struct errmsg *msg)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	int r = fd < 0 ? -errno : write_full(fd, text, strlen(text));

	if (r < 0) {
		struct userns_knobs k;

		userns_knobs_read(&k);
		return errmsg_set(msg, r, "can't write %s: %s: %s", path, err_text(r),
				  userns_remedy(r, &k));
	}
	return 0;
}

/* ---- limits ---- */

/* What a user namespace may take of what the kernel counts for each user: a part of that, so that
 * jobs leave the login the rest. */
static const struct share {
	const char *limit; /* in /proc/sys/user, of this namespace */
	const char *whole; /* what the user has; NULL: jobs get none */
} shares[] = {
	{"max_inotify_instances", "/proc/sys/fs/inotify/max_user_instances"},
	{"max_inotify_watches", "/proc/sys/fs/inotify/max_user_watches"},
	{"max_fanotify_groups", "/proc/sys/fs/fanotify/max_user_groups"},
	{"max_fanotify_marks", "/proc/sys/fs/fanotify/max_user_marks"},
	{"max_user_namespaces", NULL},
};
#define SHARE_OF_USER 4 /* a quarter; two workers of a login leave half */

static int set_share(const struct share *s)
{
	_cleanup_free_ char *path = path_join("/proc/sys/user", s->limit);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
	long n = s->whole ? knob_read(s->whole) : 0;
	char text[32];

	if (fd < 0)
		return -errno;
	snprintf(text, sizeof(text), "%ld", n > 0 ? n / SHARE_OF_USER + 1 : n);
	return n < 0 ? -ENOENT : write_full(fd, text, strlen(text));
}

/* In a user namespace of our own only.  A container may have /proc/sys read-only. */
static void limit_share(void)
{
	for (size_t i = 0; i < N_OF(shares); i++) {
		int r = set_share(&shares[i]);

		if (r < 0)
			log_debug("jobs have no %s of their own: %s", shares[i].limit, err_text(r));
	}
}

/* Our own id outside shows as the client's inside; no other id exists there. */
static int map_ids(const struct sandbox_config *c, uid_t uid, gid_t gid, struct errmsg *msg)
{
	char line[64];
	int r = write_id_file("/proc/self/setgroups", "deny", msg);

	if (r < 0)
		return r;
	snprintf(line, sizeof(line), "%u %u 1", (unsigned)c->uid, (unsigned)uid);
	r = write_id_file("/proc/self/uid_map", line, msg);
	if (r < 0)
		return r;
	snprintf(line, sizeof(line), "%u %u 1", (unsigned)c->gid, (unsigned)gid);
	return write_id_file("/proc/self/gid_map", line, msg);
}

static int enter_own(const struct sandbox_config *c, struct errmsg *msg)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	struct userns_knobs k;
	int r;

	if (unshare(CLONE_NEWUSER | NS_ALWAYS) == 0) {
		r = map_ids(c, uid, gid, msg);
		if (r == 0)
			limit_share();
		return r;
	}
	r = -errno;
	userns_knobs_read(&k);
	if (c->uid == 0 && uid == 0 && !c->client_root)
		return errmsg_set(msg, r,
				  "can't make a user namespace: %s: jobs of a root would be root "
				  "here, and read all that root may: %s; or set root = client",
				  err_text(r), userns_remedy(r, &k));
	/* Containers often refuse user namespaces but give CAP_SYS_ADMIN, which does as well. */
	if (unshare(NS_ALWAYS) == 0) {
		log_info("no user namespace (%s): using CAP_SYS_ADMIN instead", err_text(r));
		return 0;
	}
	return errmsg_set(msg, r, "can't make a user namespace: %s: %s", err_text(r),
			  userns_remedy(r, &k));
}

/* ---- root becomes an ordinary user ---- */

/* Does the file of an id map have this id on its inner side? */
static bool id_exists(const char *map, unsigned long id)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	unsigned long inner, outer, n;
	const char *p;
	int used;

	if (read_file_at(AT_FDCWD, map, 64 * 1024, &b) < 0)
		return false;
	for (p = buf_cstr(&b); sscanf(p, "%lu %lu %lu%n", &inner, &outer, &n, &used) == 3;
	     p += used)
		if (id >= inner && id - inner < n)
			return true;
	return false;
}

uid_t sandbox_uid(void)
{
	static const uid_t ids[] = {SANDBOX_UID, SANDBOX_UID_ALT};

	for (size_t i = 0; geteuid() == 0 && i < N_OF(ids); i++)
		if (id_exists("/proc/self/uid_map", ids[i]) &&
		    id_exists("/proc/self/gid_map", ids[i]))
			return ids[i];
	return 0;
}

static int give_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	uid_t id = sandbox_uid();

	return st->st_uid == 0 && lchown(path, id, (gid_t)id) < 0 ? -errno : 0;
}

int sandbox_give(const char *dir)
{
	struct stat st;

	if (sandbox_uid() == 0)
		return 0;
	if (lstat(dir, &st) < 0)
		return -errno;
	/* Walked by root only where nobody else can put anything. */
	if (st.st_uid != 0 || !S_ISDIR(st.st_mode) || (st.st_mode & 022))
		return 0;
	return nftw(dir, give_one, 16, FTW_PHYS | FTW_MOUNT | FTW_DEPTH);
}

/* The first directory on the way that only its owner may search, on the heap; NULL: none is. */
static char *first_closed(const char *path)
{
	struct stat st;

	for (const char *end = strchr(path + 1, '/'); end; end = strchr(end + 1, '/')) {
		_cleanup_free_ char *dir = xstrndup(path, (size_t)(end - path));

		if (stat(dir, &st) == 0 && !(st.st_mode & S_IXOTH))
			return steal_ptr(&dir);
	}
	return NULL;
}

static int open_way(const char *path, int fd)
{
	_cleanup_free_ char *closed = first_closed(path);
	_cleanup_close_ int base = -1;
	int r;

	/* Of several in one directory the first has covered it. */
	if (closed && mount("concc", closed, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0)
		return -errno;
	base = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (base < 0)
		return -errno;
	r = mnt_make_dirs(base, path + 1);
	return r < 0 ? r : mnt_bind_at(fd, "", true, base, path + 1);
}

/*
 * Root's own toolchain is in /root, which whom root becomes can't search: that
 * directory gives way to one in which only what is to be shown is.
 */
static void open_ways(char *const *shown)
{
	size_t n = strv_len(shown);
	_cleanup_free_ int *fds = xcalloc(n + 1, sizeof(*fds));

	if (!n || unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
		return; /* who shows them says which are missing */
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *closed = first_closed(shown[i]);

		fds[i] = closed ? open(shown[i], O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	}
	for (size_t i = 0; i < n; i++) {
		int r = fds[i] < 0 ? 0 : open_way(shown[i], fds[i]);

		if (r < 0)
			log_warn("can't make %s readable for jobs: %s", shown[i], err_text(r));
		if (fds[i] >= 0)
			(void)close(fds[i]);
	}
}

static int write_map(pid_t pid, const char *file, unsigned inside, unsigned outside)
{
	char path[64], line[64];
	int fd, r;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	snprintf(line, sizeof(line), "%u %u 1", inside, outside);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	r = fd < 0 ? -errno : write_full(fd, line, strlen(line));
	if (fd >= 0)
		(void)close(fd);
	return r;
}

/* Only from outside can another id than one's own be mapped. */
static _Noreturn void map_parent(const struct sandbox_config *c, pid_t parent, uid_t id, int ready)
{
	char go;
	int r;

	if (read_full(ready, &go, 1) != 1)
		_exit(0); /* there is no namespace */
	r = write_map(parent, "uid_map", c->uid, id);
	if (r == 0)
		r = write_map(parent, "gid_map", c->gid, id);
	_exit(r < 0 ? -r & 0xff : 0);
}

static int become(const struct sandbox_config *c, struct sandbox_paths *ret)
{
	/* Of the namespace that mounts it, as the kernel wants it; and root's alone, maybe. */
	for (int i = 0; i < 2; i++) {
		ret->fuse_fds[i] = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
		if (ret->fuse_fds[i] < 0)
			return -errno;
	}
	if (setgroups(0, NULL) < 0 || setresgid(c->gid, c->gid, c->gid) < 0 ||
	    setresuid(c->uid, c->uid, c->uid) < 0)
		return -errno;
	/* An exec would do this; without one, /proc/self stays root's. */
	return prctl(PR_SET_DUMPABLE, 1) < 0 ? -errno : 0;
}

/* 1 when that was done; 0 when there is no user namespace to be had. */
static int leave_root(const struct sandbox_config *c, uid_t id, struct sandbox_paths *ret,
		      struct errmsg *msg)
{
	_cleanup_close_ int ready = -1;
	pid_t parent = getpid(), helper;
	int fds[2], status = 0, r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return errmsg_set(msg, -errno, "can't make a pipe: %s", err_text(-errno));
	helper = process_fork();
	if (helper == 0) {
		(void)close(fds[1]);
		map_parent(c, parent, id, fds[0]);
	}
	(void)close(fds[0]);
	ready = fds[1];
	if (helper < 0)
		return errmsg_set(msg, helper, "can't fork: %s", err_text(helper));
	r = unshare(CLONE_NEWUSER) < 0 ? 0 : 1;
	if (r == 1)
		(void)write_full(ready, "x", 1);
	(void)close(steal_fd(&ready));
	if (process_wait(helper, &status) < 0)
		status = -1;
	if (r == 1 && status != 0)
		r = errmsg_set(msg, -EPERM, "can't map uid %u: %s", (unsigned)id,
			       err_text(-WEXITSTATUS(status)));
	if (r == 1 && become(c, ret) < 0)
		r = errmsg_set(msg, -errno, "can't become uid %u: %s", (unsigned)id,
			       err_text(-errno));
	return r;
}

static int enter_namespaces(const struct sandbox_config *c, struct sandbox_paths *ret,
			    struct errmsg *msg)
{
	_cleanup_strv_ char **shown = root_shown();
	uid_t id = sandbox_uid();
	int r;

	if (id)
		open_ways(shown);
	r = id ? leave_root(c, id, ret, msg) : 0;
	if (r == 0)
		return enter_own(c, msg);
	if (r == 1)
		limit_share();
	if (r == 1 && unshare(NS_ALWAYS) < 0)
		r = errmsg_set(msg, -errno, "can't make namespaces: %s", err_text(-errno));
	return r < 0 ? r : 0;
}

/* ---- mounts ---- */

static int mount_private(struct sandbox_paths *ret, struct errmsg *msg)
{
	struct userns_knobs k;
	int r = -ENOENT;

	for (size_t i = 0; i < N_OF(places); i++) {
		if (mount("concc", places[i], "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0) {
			r = -errno;
			continue;
		}
		snprintf(ret->mirror, sizeof(ret->mirror), "%s/mirror", places[i]);
		if (mkdir(ret->mirror, 0755) < 0)
			return errmsg_set(msg, -errno, "can't make %s: %s", ret->mirror,
					  err_text(-errno));
		return 0;
	}
	userns_knobs_read(&k);
	return errmsg_set(msg, r, "can't mount a tmpfs on %s or %s: %s: %s", places[0], places[1],
			  err_text(r), userns_remedy(r, &k));
}

int sandbox_enter(const struct sandbox_config *c, struct sandbox_paths *ret, struct errmsg *msg)
{
	size_t len = strnlen(c->host, HOST_MAX);
	int r = check_fuse(msg);

	if (r < 0)
		return r;
	ret->fuse_fds[0] = ret->fuse_fds[1] = -1;
	r = enter_namespaces(c, ret, msg);
	if (r < 0)
		return r;
	/* Nothing we mount may show outside; what the machine mounts later may show here. */
	if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0) {
		struct userns_knobs k;

		userns_knobs_read(&k);
		return errmsg_set(msg, -errno, "can't take the mounts out of propagation: %s: %s",
				  err_text(-errno), userns_remedy(-errno, &k));
	}
	if (len > 0 && sethostname(c->host, len) < 0)
		return errmsg_set(msg, -errno, "can't set the host name to %.*s: %s%s", (int)len,
				  c->host, err_text(-errno),
				  errno == EPERM ? "; start the container with --cap-add SYS_ADMIN"
						 : "");
	return mount_private(ret, msg);
}
