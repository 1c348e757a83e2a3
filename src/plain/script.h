/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PLAIN_SCRIPT_H
#define CONCC_PLAIN_SCRIPT_H

/*
 * The scripts, for any POSIX shell: dash, bash, busybox.  Each is one compound
 * command, which the shell reads whole before it begins, so that what follows
 * on its standard input is the command's own.  Pure text.
 */
#include <stdbool.h>
#include <stddef.h>

#include "concc/buf.h"
#include "concc/proto.h"

/*
 * The first session of a connection: "begin NODE MACHINE CPUS"; then takes lines
 * "+ ID", "- ID" and "k ID" for process groups.  At the end of its input, which
 * is that of the connection, all that are left are killed.
 */
void script_control(struct buf *out, const char *token);

/*
 * One job: "begin GROUP MISSING", where the group is the session's own and
 * MISSING the number of the first of the paths that is not there, or 0.  Waits
 * for a line before it starts the job, whose input follows.  "end code N", "end
 * signal N", "end cwd" or, when it can't give the job what the caller has, "end caller"; and the
 * group is killed.
 */
void script_job(struct buf *out, const char *token, const struct msg_job *m,
		const struct caller *caller, char *const *env, char *const *paths);
/* Is there a word of a shell for all that the caller has?  But niceness, which it does not give. */
bool script_can_say(const struct caller *c);

/* "begin", then for each file a line with its SHA-256 or another word, "end". */
void script_check(struct buf *out, const char *token, const struct msg_exe *exe);

/* "begin", then "end yes" when this file is there. */
void script_probe(struct buf *out, const char *token, const char *path);

/*
 * "begin"; then, after a line, makes the directory if need be and mounts it; "end yes" on stderr
 * when the file probe (relative to it) is there, or "end" and what to do.  Stays until the input
 * ends, and leaves the directory as it was.
 */
void script_mount(struct buf *out, const char *token, const char *dir, const char *probe);

#endif
