/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_DESCRIPTORS_H
#define CONCC_SANDBOX_DESCRIPTORS_H

/*
 * The descriptors that a job has open beside the standard ones: stand-ins for its caller's, by
 * their numbers (MIRROR_STAND_IN, concc/mirror.h).  So it has nobody else's open there, and who
 * uses one is noticed.
 *
 * Called between a vfork and an exec: system calls only, and no memory is changed but the
 * arguments'.
 */
struct caller;

/*
 * stand_ins: open for reading, for writing and for both, by O_RDONLY, O_WRONLY and O_RDWR; they
 * stay as they are.  *above: a descriptor that gets out of the way first, to one above all of the
 * caller's, or -1; the old one stays open.  -1 and errno on failure.
 */
int descriptors_place(const struct caller *caller, const int stand_ins[3], int *above);
/* But the standard ones, those of descriptors_place(), and keep, which is above them, or -1. */
void descriptors_close_others(const struct caller *caller, int keep);

#endif
