/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/stat.h> /* of statx(2): <sys/stat.h> has it in newer libraries only */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Of most processes there are ten; who has more than this has a directory service, and is compared
 * by his own group. */
#define GROUPS_MAX 1024

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

#define MOUNTS 0 /* of these: */
static const struct {
	const char *name; /* in /proc/PID */
	const char *text;
} views[NAMESPACES_N] = {
	{"ns/mnt", "in another mount namespace than the project server"},
	{"ns/user", "in another user namespace than the project server"},
	{"ns/uts", "with another host name than the project server"},
	{"root", "in another root directory than the project server"},
};

static bool look(const char *who, int i, struct namespaces *ret)
{
	char path[64];
	struct statx st;

	(void)snprintf(path, sizeof(path), "/proc/%s/%s", who, views[i].name);
	if (syscall(SYS_statx, AT_FDCWD, path, 0, STATX_INO | STATX_MNT_ID, &st) < 0)
		return false;
	ret->views[i].device = (uint64_t)st.stx_dev_major << 32 | st.stx_dev_minor;
	ret->views[i].ino = st.stx_ino;
	/* Of one directory that is mounted twice, what is below may differ; 0 before Linux 5.8. */
	ret->views[i].mount = st.stx_mnt_id;
	return true;
}

void namespaces_look(struct namespaces *ret)
{
	*ret = (struct namespaces){0};
	for (int i = 0; i < NAMESPACES_N; i++)
		(void)look("self", i, ret); /* stays zero then */
}

static bool same(const struct namespaces *a, const struct namespaces *b, int i)
{
	return a->views[i].device == b->views[i].device && a->views[i].ino == b->views[i].ino &&
	       a->views[i].mount == b->views[i].mount;
}

const char *namespaces_differ(const struct namespaces *ours, pid_t pid)
{
	struct namespaces theirs = {0};
	char who[16];

	/* Without a number in our pid namespace it is in another container. */
	if (pid <= 0)
		return "in another pid namespace than the project server";
	(void)snprintf(who, sizeof(who), "%d", (int)pid);
	for (int i = 0; i < NAMESPACES_N; i++) {
		if (!ours->views[i].ino || !look(who, i, &theirs))
			return "where /proc does not tell whether it sees the project server's files";
		if (!same(ours, &theirs, i))
			return views[i].text;
	}
	return NULL;
}

bool namespaces_left(pid_t pid)
{
	struct namespaces n;
	bool left = false;
	char who[16];

	/* Where there is no /proc nothing is told of anybody. */
	if (pid <= 0 || !look("self", MOUNTS, &n))
		return false;
	(void)snprintf(who, sizeof(who), "%d", (int)pid);
	for (int i = 0; i < NAMESPACES_N && !left; i++)
		left = !look(who, i, &n) && (errno == ENOENT || errno == ESRCH);
	return left;
}

/* ---- groups ---- */

static bool other_supplementary(int fd)
{
	gid_t theirs[GROUPS_MAX], ours[GROUPS_MAX];
	socklen_t size = sizeof(theirs);
	int n = getgroups(GROUPS_MAX, ours);

	/* The kernel keeps both sorted.  Before Linux 4.13 it does not tell. */
	if (n < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, theirs, &size) < 0)
		return false;
	return size != (size_t)n * sizeof(*ours) || memcmp(theirs, ours, size) != 0;
}

bool groups_differ(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.gid != getegid() ||
	       other_supplementary(fd);
}

/* ---- mounts that pass ---- */

/* Above it no process is anybody's build. */
#define INIT 1

/* 0: not told. */
static pid_t parent_of(pid_t pid)
{
	char path[32], text[512];
	const char *end;
	FILE *f;
	size_t n;
	int parent = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fread(text, 1, sizeof(text) - 1, f);
	(void)fclose(f);
	text[n] = '\0';
	end = strrchr(text, ')'); /* of its name, which may have any */
	return end && sscanf(end, ") %*c %d", &parent) == 1 ? parent : 0;
}

bool namespaces_pass(void)
{
	struct namespaces ours, theirs = {0};
	struct statfs fs;
	char who[16];

	if (statfs(".", &fs) < 0 || fs.f_type != FUSE_SUPER_MAGIC)
		return false;
	namespaces_look(&ours);
	for (pid_t pid = getppid(); pid > INIT; pid = parent_of(pid)) {
		(void)snprintf(who, sizeof(who), "%d", (int)pid);
		if (look(who, MOUNTS, &theirs) && !same(&ours, &theirs, MOUNTS))
			return true;
	}
	return false;
}
