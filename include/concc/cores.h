/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CORES_H
#define CONCC_CORES_H

#include <stdint.h>

/*
 * How many cores this process may keep busy, at least 1: those of its affinity
 * (sched_getaffinity(2)), or less where a control group has a quota of CPU time
 * (cpu.max of cgroups(7) version 2, cpu.cfs_quota_us of version 1), rounded up.
 * A container that may use half a core of 64 says 1.  Reads a few files of the kernel's.  From any
 * thread, as the other.
 */
uint32_t cores_usable(void);

/* Bytes of memory that its control groups let it and its kin use, in the same way; 0: all that this
 * machine has. */
uint64_t memory_limit(void);
/*
 * A file of the kernel's with a line "oom_kill N": how many processes of our control group it has
 * killed for want of memory, the group's or the machine's; without groups, of the machine.  -1 and
 * errno; the caller's to close.
 */
int memory_events_open(void);

/*
 * How fast one of them is: two machines' numbers compare as the times of a
 * compiler do, within a third or so.  By CPU time, so that others do not matter.
 * Never 0.  Takes some 6 ms.
 */
uint32_t core_speed(void);
/*
 * The same of now, from no more of it than so much CPU time, or a millisecond or so: one that was
 * idle may take some tens of them until it is as fast as it gets.
 */
uint32_t core_speed_within(uint32_t cpu_ms);

#endif
