/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_ASKER_H
#define CONCC_SANDBOX_ASKER_H

/* What a process that waits for a look-up is about: its system call tells (see sandbox_makes()). */
#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

/*
 * Does a call that makes the last name of path make this name, when that is looked up?  Not
 * when it is another on the way there, or one of the path of what is there already (source;
 * NULL or "": none); but when it is none of them: a symlink led to it.
 */
bool path_makes(const char *path, const char *source, const char *name);

/* Of the memory of a process, by /proc: up to size bytes, since a mapping may end before; or -1. */
ssize_t peek(pid_t pid, unsigned long address, void *p, size_t size);
/* A string in the memory of a process, by /proc; false when it has no end, or can't be read. */
bool peek_path(pid_t pid, unsigned long address, char path[PATH_MAX]);

#endif
