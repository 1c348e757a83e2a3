/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_CROWD_H
#define CONCC_WORKER_CROWD_H

/*
 * Who else uses this host's processors, be it jobs or not: by what the kernel's scheduler gave to
 * the jobs here of those.
 */
#include <stdint.h>
#include <sys/types.h>

struct crowd;

struct crowd *crowd_new(uint32_t cores);
void crowd_free(struct crowd *c); /* NULL is fine */
/* As how many jobs, since the last look; root: above all of ours, which are so many that run. Reads
 * some small files of /proc for each process. */
uint32_t crowd_look(struct crowd *c, pid_t root, uint32_t jobs);

#endif
