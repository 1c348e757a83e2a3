/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CPU_SHARE_H
#define CONCC_CPU_SHARE_H

/*
 * What processes get of this machine's processors, as the kernel's scheduler has measured it: the
 * one thing that tells how much others take from them, whatever their niceness, policy and control
 * groups are.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "concc/map.h"

struct cpu_share {
	uint64_t ran_us;
	uint64_t waited_us; /* it could have run, and others did */
};

/*
 * All threads of the process and of its descendants, since each began; of some hundred at the most.
 * Of those that have ended nothing is known.  False: the process is gone, or this kernel does not
 * say.  Reads some small files of /proc for each.
 */
bool cpu_share_of(pid_t pid, struct cpu_share *ret);

/* What each thread had by the last look. */
struct cpu_look {
	struct map threads; /* id -> struct cpu_share */
};

/*
 * The same since the last look: of threads that are new since they began, of those that have ended
 * in between nothing.
 */
bool cpu_share_since(struct cpu_look *l, pid_t pid, struct cpu_share *ret);
void cpu_look_release(struct cpu_look *l);

/* Ticks since the start in which this machine's processors were not idle, and of those the ones
 * that a virtual machine's host had given to others: see proc_stat(5). */
struct cpu_stolen {
	uint64_t all, stolen;
};

/* Of what /proc/stat says; zeros: it does not. */
struct cpu_stolen cpu_stolen_parse(const char *stat);
/*
 * What was stolen meanwhile is neither run nor waited for, or counts as run, as the kernel is made:
 * for that part what jobs wanted was waited for, as beside others.
 */
struct cpu_share cpu_share_less_stolen(const struct cpu_share *got, const struct cpu_stolen *before,
				       const struct cpu_stolen *now);

/*
 * As how many jobs others count that use the same cores, of what jobs got in elapsed_us, all of
 * them together; jobs: so many they were at the least.  No more than CPU_SHARE_OTHERS_MAX.
 */
#define CPU_SHARE_OTHERS_MAX 100000
uint32_t cpu_share_others(uint32_t cores, uint32_t jobs, const struct cpu_share *got,
			  uint64_t elapsed_us);

#endif
