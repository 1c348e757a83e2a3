/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * make-records FILE N [NAME]: appends the records of a build of N jobs, on three workers and here,
 * as one would be that comes to its end with a long job; NAME: what one of them makes.  The same N
 * gives the same records.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/err.h"
#include "concc/record.h"
#include "concc/str.h"

#define BEGAN_US 1795876522000000

struct place {
	const char *name;
	unsigned slots, speed;
};

static const struct place places[] = {{"build1", 16, 140}, {"build2", 8, 100}, {"arm-box", 4, 60}};
#define SLOTS 28

static uint64_t state = 88172645463325252u;

static uint64_t any(uint64_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

/* Until when each slot is taken. */
static uint64_t until[SLOTS];

static unsigned next_slot(void)
{
	unsigned best = 0;

	for (unsigned i = 1; i < SLOTS; i++)
		best = until[i] < until[best] ? i : best;
	return best;
}

static const struct place *place_of(unsigned slot)
{
	return slot < 16 ? &places[0] : slot < 24 ? &places[1] : &places[2];
}

static void words(struct record *r, unsigned i, const char *name)
{
	static const char *const programs[] = {"gcc", "g++", "clang-14", "rustc", "nvcc"};
	static const char *const dirs[] = {"core", "net", "gui/widgets", "third_party/zlib"};
	char *subject = name ? xstrdup(name) : xasprintf("%s/file%u.o", dirs[any(4)], i);
	char *source = xasprintf("../src/file%u.c", i);
	char *argv[] = {(char *)programs[any(10) < 7 ? any(2) : any(5)],
			(char *)"-O2",
			(char *)"-Wall",
			(char *)"-c",
			(char *)"-o",
			subject,
			source,
			NULL};

	record_set_words(r, argv);
	record_set(&r->cwd, "/home/u/project/build");
	record_set(&r->build, "made");
	free(subject);
	free(source);
}

static void fill_remote(struct record *r, uint64_t cpu)
{
	unsigned slot = next_slot();
	const struct place *p = place_of(slot);
	uint64_t now = r->arrived_us - BEGAN_US;
	uint64_t wait = until[slot] > now ? until[slot] - now : 0;

	cpu = cpu * 100 / p->speed;
	r->slot_us = wait + 150;
	r->sent_us = r->slot_us + 300 + any(2000);
	r->wall_us = cpu + any(cpu / 8 + 1);
	r->utime_us = cpu * 9 / 10;
	r->stime_us = cpu / 10;
	r->ended_us = r->sent_us + r->wall_us;
	r->committed_us = r->ended_us + 2000 + any(9000);
	r->maxrss_kb = 40000 + any(400000);
	r->bytes_back = 2000 + any(300000);
	r->files_fetched = any(12);
	r->bytes_fetched = r->files_fetched * (1 + any(20000));
	r->worker_slots = p->slots;
	r->tries = 1 + (any(200) == 0);
	record_set(&r->worker, p->name);
	until[slot] = now + r->committed_us;
}

static void fill_here(struct record *r, uint64_t cpu)
{
	static const char *const rules[][2] = {{"link", "-o prog"},
					       {"probe", "conftest.c"},
					       {"query", "--version"},
					       {"native", "-march=native"},
					       {"missing", "/opt/sdk/include/x.h: not served"}};
	unsigned i = (unsigned)any(5);

	r->sent_us = 100;
	r->ended_us = r->committed_us = 100 + cpu / 8 + 1000;
	record_set(&r->rule, rules[i][0]);
	record_set(&r->why, rules[i][1]);
}

static void fill(struct record *r, unsigned i, unsigned n, const char *name)
{
	uint64_t cpu = 80000 + any(400000) + (any(60) == 0 ? 4000000 : 0);

	record_init(r);
	words(r, i, i == n / 2 ? name : NULL);
	/* The tool has 40 at once, and now and then a pause. */
	r->arrived_us = BEGAN_US + (uint64_t)i * 9500 + (uint64_t)(i / 1500) * 700000;
	r->pid = 1000 + i;
	r->all_slots = SLOTS;
	r->how = RECORD_END_EXIT;
	r->code = any(150) == 0;
	if (i + 1 == n)
		cpu = 6000000;
	if (any(12) == 0 && i + 1 < n)
		fill_here(r, cpu);
	else
		fill_remote(r, cpu);
}

int main(int argc, char **argv)
{
	struct record_file *f;
	unsigned n;

	if (argc < 3 || record_file_open(argv[1], &f) < 0)
		return 1;
	n = (unsigned)strtoul(argv[2], NULL, 10);
	for (unsigned i = 0; i < n; i++) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		struct record r;

		fill(&r, i, n, argv[3]);
		record_put(&b, &r);
		if (record_append(f, &b, 1) < 0)
			return 1;
		record_release(&r);
	}
	record_file_close(f);
	return 0;
}
