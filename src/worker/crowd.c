/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "crowd.h"

#include <stdlib.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/cpu_share.h"
#include "concc/io.h"
#include "concc/str.h"

/* From less nothing is concluded: a moment's wait comes of many things. */
#define MEASURED_US 300000
/* While no job is here that would tell, what was seen is believed for so long. */
#define SEEN_US 30000000
/* Bytes of it: all but the first line may be missing. */
#define STAT_MAX (1024 * 1024)

struct crowd {
	struct cpu_look look;
	uint32_t cores;
	uint32_t others;
	struct cpu_share got;	  /* since from_us */
	struct cpu_stolen before; /* then */
	uint64_t from_us, seen_us;
};

static struct cpu_stolen read_stolen(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (read_file_at(-1, "/proc/stat", STAT_MAX, &b) < 0)
		return (struct cpu_stolen){0};
	return cpu_stolen_parse(buf_cstr(&b));
}

static void begin_anew(struct crowd *c, uint64_t now)
{
	c->got = (struct cpu_share){0};
	c->from_us = now;
	c->before = read_stolen();
}

struct crowd *crowd_new(uint32_t cores)
{
	struct crowd *c = xcalloc(1, sizeof(*c));

	c->cores = cores;
	begin_anew(c, now_us());
	return c;
}

void crowd_free(struct crowd *c)
{
	if (!c)
		return;
	cpu_look_release(&c->look);
	free(c);
}

uint32_t crowd_look(struct crowd *c, pid_t root, uint32_t jobs)
{
	struct cpu_share got = {0};
	uint64_t now = now_us();

	if (jobs && cpu_share_since(&c->look, root, &got)) {
		c->got.ran_us += got.ran_us;
		c->got.waited_us += got.waited_us;
	}
	if (c->got.ran_us + c->got.waited_us >= MEASURED_US) {
		struct cpu_stolen stolen = read_stolen();
		struct cpu_share mine = cpu_share_less_stolen(&c->got, &c->before, &stolen);

		c->others = cpu_share_others(c->cores, jobs, &mine, now - c->from_us);
		c->seen_us = now;
		begin_anew(c, now);
	} else if (!jobs) {
		begin_anew(c, now);
	}
	if (now > c->seen_us + SEEN_US)
		c->others = 0;
	return c->others;
}
