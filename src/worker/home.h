/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_HOME_H
#define CONCC_WORKER_HOME_H

/*
 * Home-coming: reads an overlay's upper directory and says what the job did,
 * as the JOB_FILEs that repeat it on the client.  What has the same bytes as
 * below is not sent, copied-up directories with nothing new are not mentioned,
 * whiteouts become removals, opaque directories replace, hard links stay links.
 *
 * Once, when all of the job's processes are gone.  Before, single files can be
 * announced: that scan leaves them out.  That one may be any thread's, of which fn is called then.
 *
 * Effects come in the order in which the files were last written, so that times
 * given on arrival keep that order.  Overlay's own marks beyond whiteouts and opaque
 * directories (redirects, metacopies) don't occur: the overlays are mounted
 * without (see overlay.c).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "concc/proto.h"

struct home;
struct mirror;

struct home_config {
	struct mirror *mirror;	 /* to compare with what was below; NULL: everything is new */
	const char *workspace;	 /* absolute path of the overlay's mount point */
	char *const *workspaces; /* all of the job's, borrowed; NULL: there is no other */
	uint32_t job_id;	 /* by which the mirror knows what its overlays copied up */
	bool any_command; /* nobody knows what it looks at: what it may have seen wrongly counts */
	uint32_t index;	  /* its index in the job */
	int upper_fd;	  /* taken */
	struct timespec started; /* CLOCK_REALTIME before the job ran: the job set earlier times */
	uint64_t started_ms;	 /* CLOCK_MONOTONIC then */
};

struct home *home_new(const struct home_config *c);
/* Also empties an upper on disk, where nothing else frees its space (see scratch.h).  Any thread.
 */
void home_free(struct home *h);

/* One effect, with an open fd (borrowed for the call) to the bytes for EFFECT_FILE. */
typedef int (*home_effect_fn)(void *data, const struct msg_file *f, int fd);

/*
 * Calls fn for each effect in an order in which they can be repeated: removals,
 * directories before what is in them, links after their targets.  Stops at a
 * negative return of fn.
 */
int home_scan(struct home *h, home_effect_fn fn, void *data);
/* The same when it takes some milliseconds only; else CONCC_E_LATER, and fn was not called. */
int home_scan_few(struct home *h, home_effect_fn fn, void *data);
/*
 * The same for one file (path as in effects) which the job says is whole while it goes on, and for
 * the directories that it needs.  -ENOENT, -ENOTDIR or -ELOOP when the job has made none by that
 * path.
 */
int home_announce(struct home *h, const char *path, home_effect_fn fn, void *data);
/* The same of one that is read in some milliseconds; else CONCC_E_LATER, and fn was not called. */
int home_announce_few(struct home *h, const char *path, home_effect_fn fn, void *data);
/*
 * After a failed scan: what the job did that can't be repeated on the client as it is, for a
 * person, or NULL when the failure is another.  Another worker would fare no better.
 */
const char *home_refusal(const struct home *h);

#endif
