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

/*
 * How fast one of them is: two machines' numbers compare as the times of a
 * compiler do, within a third or so.  By CPU time, so that others do not matter.
 * Never 0.  Takes some 6 ms.
 */
uint32_t core_speed(void);

#endif
