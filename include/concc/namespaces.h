/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_NAMESPACES_H
#define CONCC_NAMESPACES_H

/*
 * Whether two processes see the same files, ids and host name: what the project server serves to a
 * caller's job, and where it puts what comes home, is by the server's own view.  Told by /proc,
 * which shows a process to its own user; what can't be told counts as another view.  From any
 * thread; nothing blocks.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define NAMESPACES_N 4 /* mounts, ids, host name; and the root directory */

/* Zeros: not told, and nobody else's. */
struct namespaces {
	struct {
		uint64_t device, ino, mount;
	} views[NAMESPACES_N];
};

void namespaces_look(struct namespaces *ret); /* this process's */
/* NULL when the process has ours; else what differs, or that it can't be told: a static text that
 * goes on after "it runs ", of a caller and the project server. */
const char *namespaces_differ(const struct namespaces *ours, pid_t pid);

/* Has the process ended, or begun to?  It has left them before the kernel closes what it had open,
 * and of one that is there /proc says at the worst that we may not look. */
bool namespaces_left(pid_t pid);

/*
 * Is who is at the other end of this unix socket, by when it was connected or listened, in other
 * groups than this process?  Its own group is what its files get, all of them say what it may read.
 */
bool groups_differ(int fd);
/* What is said of such a caller and the project server; goes on after "it runs ". */
#define GROUPS_DIFFER                                                                              \
	"in other groups than the project server (after `concc stop` the next call starts one in " \
	"its own)"

/*
 * Is the current directory in a file system that a program serves, as this process sees it and one
 * that it descends from does not?  Then that is likely to end with this build.
 */
bool namespaces_pass(void);

#endif
