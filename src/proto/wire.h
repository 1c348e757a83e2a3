/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROTO_WIRE_H
#define CONCC_PROTO_WIRE_H

/* Pieces that several messages share: string vectors, checked paths. */
#include <stdbool.h>
#include <stdint.h>

#include "concc/buf.h"
#include "concc/caller.h"
#include "concc/digest.h"

/* How many strings argv or an environment may have: each costs a pointer. */
#define STRINGS_MAX 1000000

/* Words for a person, NULL for none: cut at PROTO_TEXT_MAX, since they name paths of any length. */
void put_text(struct buf *b, const char *text);
/* At most PROTO_ARGS_MAX bytes in all. */
void put_strv(struct buf *b, char *const *v);
/* Never NULL unless r->bad; owned.  max_n bounds the number of strings. */
char **rd_strv(struct rd *r, uint32_t max_n);
/* Absolute and lexically clean ("/a/b", no "." or ".." parts), else bad. */
char *rd_abs_path(struct rd *r);
/* Relative and clean, without ".." anywhere; may be empty when allowed. */
char *rd_rel_path(struct rd *r, int may_be_empty);
/* What execve(2) takes: any path that is not empty. */
char *rd_any_path(struct rd *r);
/* Of one file in its directory: 1 to PROTO_NAME_MAX bytes, no '/' or NUL, not "." or "..". */
bool name_is_valid(struct blob n);
void rd_digest(struct rd *r, struct digest *ret);
void put_caller(struct buf *b, const struct caller *c);
void rd_caller(struct rd *r, struct caller *ret);

/* Can a process end so?  how and code as in JOB_EXIT; of others than an exit and a signal: no. */
bool is_process_end(uint8_t how, uint32_t code);

#endif
