/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_MIRROR_STAND_IN_H
#define CONCC_MIRROR_STAND_IN_H

/*
 * MIRROR_STAND_IN and MIRROR_TERMINAL (concc/mirror.h): the only files of outside's file system,
 * which a job has open in place of what its caller had, or finds by the name of what that has.  No
 * job has what they stand for, so whoever wants more of one than to have it open is refused, and
 * the owner is told that the job is to run on the client.
 *
 * On the thread of outside.c; each call but stand_in_init() and stand_in_add_ops() answers its
 * request, under no lock.
 */
#include <stdint.h>

struct fuse_conn_info;
struct fuse_lowlevel_ops;
struct fuse_req;

/* The connection is about to be made. */
void stand_in_init(struct fuse_conn_info *conn);
/* All that is asked for an open file: no other can be open. */
void stand_in_add_ops(struct fuse_lowlevel_ops *ops);

/* node: by which the kernel calls it; ino: as stat(2) tells. */
void stand_in_lookup(struct fuse_req *req, uint64_t node, uint64_t ino);
void stand_in_getattr(struct fuse_req *req, uint64_t node, uint64_t ino);
/* Any other use of it. */
void stand_in_refuse(struct fuse_req *req, uint64_t node);

#endif
