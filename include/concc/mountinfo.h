/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MOUNTINFO_H
#define CONCC_MOUNTINFO_H

/* Lines of /proc/PID/mountinfo, see proc_pid_mountinfo(5), and what of them tells of a path.  From
 * any thread. */
#include <stdbool.h>
#include <stddef.h>

struct mount_line {
	unsigned long long id;	  /* no other mount has it meanwhile; later ones may */
	const char *point, *type; /* borrowed from the text; "": the line has none */
};

/* The next line of *text, which is changed and moved on; false: there is none. */
bool mountinfo_next(char **text, struct mount_line *ret);

/*
 * Would looking at this absolute, clean path have the kernel mount something (autofs), which can
 * take long, and is to be done for nobody but the user?  text, that of mountinfo, is changed.
 * Symlinks are followed, but for the last name, by lstat(2) and readlink(2) of what is asked
 * before.  True also when they have no end.
 */
bool mountinfo_triggers(char *text, const char *path);
/*
 * The same of any of these, each an absolute path behind one letter, as it was passed to the
 * kernel: with "..", slashes and symlinks, also one that it ends with.
 */
bool mountinfo_names_trigger(char *text, char *const *names, size_t n);

#endif
