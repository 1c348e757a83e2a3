/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/schedule.h"

static uint64_t mix(uint64_t h, const char *s)
{
	/* FNV-1a, the end included, so that "ab" "c" is not "a" "bc". */
	do
		h = (h ^ (unsigned char)*s) * 0x100000001b3ULL;
	while (*s++);
	return h;
}

uint64_t sched_key_of_kind(const char *program, const char *cwd)
{
	uint64_t h = mix(mix(0xcbf29ce484222325ULL, program), cwd);

	return h ? h : 1;
}

uint64_t sched_key_of_job(const char *program, const char *cwd, const char *subject)
{
	uint64_t h = mix(sched_key_of_kind(program, cwd), subject);

	return h ? h : 1;
}
