/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_WORKING_SET_H
#define CONCC_PROJECT_WORKING_SET_H

/* What jobs in a tree have wanted so far: the next worker is told of it before its first job there.
 */
#include <stdbool.h>
#include <stdint.h>

struct peer;
struct server;

/* Before the peer's first job in this served root: tells what others wanted there, if not yet, and
 * in the system's trees that its jobs use. */
void working_set_push(struct peer *p, const char *root);
/* Is it (still) a tree of the system that all jobs of the peer see? */
bool working_set_is_tree(const struct peer *p, const char *path);
/* Before a job: its own sources, that nobody else will want. */
void working_set_sources(struct peer *p, const char *cwd, char *const *argv);
/* The peer has asked for it: remembered, and offered to the others. */
void working_set_note_dir(struct peer *p, const char *path);
void working_set_note_file(struct peer *p, uint32_t dir_id, const char *name);
/* The same of a file that was told of as a guess, and was right. */
void working_set_note_guess(struct peer *p, uint32_t dir_id, const char *name);
void working_sets_save(struct server *s);
void working_sets_free(struct server *s);

#endif
