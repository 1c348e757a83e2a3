/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "sandbox.h"
#include "refusal.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"

#define NS_ALWAYS (CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS)
#define HOST_MAX  64 /* of the kernel: __NEW_UTS_LEN */

/*
 * Where the private tmpfs goes: directories that the agent itself never looks
 * into and that no job is shown.  A directory of our own in /tmp would not do:
 * when it is removed outside (by a cleaner), the kernel detaches what is
 * mounted there in every other namespace.
 */
static const char *const places[] = {"/sys/fs/fuse/connections", "/mnt", "/media", "/srv"};

static int check_fuse(struct errmsg *msg)
{
	_cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return 0;
	if (errno == EACCES || errno == EPERM)
		return errmsg_set(
			msg, -errno,
			"/dev/fuse is not accessible to uid %u: as root, chmod 0666 /dev/fuse "
			"(what udev sets), or start the container with --device /dev/fuse",
			(unsigned)geteuid());
	return errmsg_set(msg, -errno,
			  "/dev/fuse: %s: load the kernel's module (modprobe fuse), or start the "
			  "container with --device /dev/fuse",
			  err_text(-errno));
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

static int enter_namespaces(const struct sandbox_config *c, struct errmsg *msg)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	struct userns_knobs k;
	int r;

	if (unshare(CLONE_NEWUSER | NS_ALWAYS) == 0)
		return map_ids(c, uid, gid, msg);
	r = -errno;
	/* Containers often refuse user namespaces but give CAP_SYS_ADMIN, which does as well. */
	if (unshare(NS_ALWAYS) == 0) {
		log_info("no user namespace (%s): using CAP_SYS_ADMIN instead", err_text(r));
		return 0;
	}
	userns_knobs_read(&k);
	return errmsg_set(msg, r, "can't make a user namespace: %s: %s", err_text(r),
			  userns_remedy(r, &k));
}

static int mount_private(struct sandbox_paths *ret, struct errmsg *msg)
{
	struct userns_knobs k;
	int r = -ENOENT;

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
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
	r = enter_namespaces(c, msg);
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
		return errmsg_set(msg, -errno, "can't set the host name to %.*s: %s", (int)len,
				  c->host, err_text(-errno));
	return mount_private(ret, msg);
}
