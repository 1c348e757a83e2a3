/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_MOVES_H
#define CONCC_SANDBOX_MOVES_H

/*
 * What overlayfs can't do with names of the lower layer.  A file that gets a further name is copied
 * up, and is another file then than the one below with all its names; a directory is not renamed
 * (EXDEV, which mv(1) knows how to live with and a program need not); and what is one file system
 * on the client may be several here.  What the job has made itself is moved and linked as anywhere,
 * and a file of the client's is moved with a mark of where it was (overlay_mark_moved()).
 *
 * And locks: those of the client's processes are not seen here, nor a job's there.  A file that the
 * client has is locked there, or two write to it that should take turns.  But a lock to read
 * (F_RDLCK, and F_GETLK with that: it asks whether it could) goes on, and is told of: whether the
 * job could have had it is seen by the client, when the job has ended (EFFECT_LOCKED).  Not one of
 * flock(2): to take one of those that it would have met nobody needs to open the file for writing,
 * so the client can't know that nobody did.
 *
 * And attributes, which the mirror shows none of: who asks for those of the client's files is told
 * of in the same way, since only the client knows whether they have any (EFFECT_ASKED).
 *
 * And watches: who waits for a change of the client's files is not told of it here, where a job
 * sees them as they were when it began, and would wait for ever.
 */
#include <stddef.h>

#include "filter.h"

/* A job's workspaces, where its overlays are mounted. */
struct moves {
	int mirror; /* its root: the lower layers of all of them */
	const int *uppers;
	char *const *workspaces;
	size_t n;
	/* It is about to lock this file of the client's, in order to read it, or to ask for its
	 * attributes: false, it may not. */
	bool (*looks)(void *data, bool locks, size_t workspace, const char *path);
	void *data;
};

/*
 * A filter_ask_fn for link(2), rename(2), flock(2), the locks of fcntl(2), inotify_add_watch(2),
 * getxattr(2), listxattr(2) and their like; moves: struct moves.  Looks with the eyes of the
 * process, by the /proc of our namespace, and waits for the mirror as that would.  What can't be
 * found is no matter: the call will not find it either.
 */
bool moves_ask(const void *moves, const struct filter_call *c);

#endif
