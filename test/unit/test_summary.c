/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "view/summary.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "concc/buf.h"
#include "concc/str.h"
#include "view/page.h"

#define MS    1000ull
#define BEGAN 1795876522000000ull

static struct record records[64];
static struct build build;
static struct builds builds;
static struct summary s;

static struct record *add(const char *worker, uint64_t arrived_ms, uint64_t slot_ms,
			  uint64_t sent_ms, uint64_t took_ms)
{
	struct record *r = &records[builds.n_records++];
	char *argv[] = {(char *)"gcc", (char *)"-c", (char *)"a.c", NULL};

	record_init(r);
	record_set_words(r, argv);
	record_set(&r->build, "b");
	record_set(&r->cwd, "/p");
	record_set(&r->worker, worker);
	r->arrived_us = BEGAN + arrived_ms * MS;
	r->slot_us = slot_ms * MS;
	r->sent_us = sent_ms * MS;
	r->ended_us = r->committed_us = (sent_ms + took_ms) * MS;
	r->how = RECORD_END_EXIT;
	if (*worker)
		r->utime_us = r->wall_us = took_ms * MS;
	return r;
}

static void make(void)
{
	build = (struct build){.id = (char *)"b", .began_us = BEGAN, .jobs = records};
	build.n = builds.n_records;
	for (size_t i = 0; i < build.n; i++)
		if (job_done_us(&records[i]) > build.ended_us)
			build.ended_us = job_done_us(&records[i]);
	builds.builds = &build;
	builds.n = 1;
	builds.records = records;
	summary_make(&s, &builds, &build, 2);
}

static void done(void)
{
	summary_release(&s);
	for (size_t i = 0; i < builds.n_records; i++)
		record_release(&records[i]);
	builds = (struct builds){0};
}

TestSuite(summary, .fini = done);

Test(summary, places_and_lanes)
{
	add("w2", 0, 10, 20, 100);
	add("w2", 0, 10, 20, 50);
	add("w2", 80, 1, 1, 50); /* where the second was */
	add("", 0, 0, 5, 10);
	add("w1", 0, 1, 1, 30);
	records[0].worker_slots = 4;
	make();
	cr_assert_eq(s.n_places, 3);
	cr_assert_str_eq(s.places[0].name, "w1");
	cr_assert_str_eq(s.places[1].name, "w2");
	cr_assert_str_eq(s.places[2].name, "");
	cr_assert_eq(s.n_workers, 2);
	cr_assert_eq(s.n_remote, 4);
	cr_assert_eq(s.n_local, 1);
	cr_assert_eq(s.places[1].n_lanes, 2);
	cr_assert_eq(s.places[1].slots, 4);
	cr_assert_eq(s.lane_of[0], 0);
	cr_assert_eq(s.lane_of[1], 1);
	cr_assert_eq(s.lane_of[2], 1);
	/* A slot is held from the moment it was had. */
	cr_assert_eq(s.places[1].busy_us, (110 + 60 + 50) * MS);
}

Test(summary, one_that_never_began_has_no_lane)
{
	add("w1", 0, 1, 1, 30);
	records[0].all_slots = 9;
	add("w1", 3, 0, 0, 0);
	make();
	cr_assert_eq(s.lane_of[1], SUMMARY_NO_LANE);
	cr_assert_eq(s.places[0].n_lanes, 1);
	cr_assert_eq(s.slots, 9);
}

Test(summary, widths)
{
	/* Two at once for 100 ms, one for another 100; of one slot. */
	add("w1", 0, 1, 1, 99);
	add("w1", 0, 100, 100, 100);
	make();
	cr_assert_eq(s.wall_us, 200 * MS);
	cr_assert_eq(s.offered.most, 2);
	cr_assert_float_eq(s.offered.mean, 1.5, 0.001);
	cr_assert_eq(s.busy.most, 1);
	cr_assert_float_eq(s.busy.mean, 199.0 / 200, 0.001);
}

/* What runs here needs none, unless it has one of this machine's. */
Test(summary, slots_here)
{
	add("w1", 0, 0, 0, 100)->sent_us = 1;
	record_set(&add("", 0, 0, 10, 80)->rule, "query");
	make();
	cr_assert_eq(s.busy.most, 1);
	summary_release(&s);
	record_set(&records[1].rule, "local-slot");
	make();
	cr_assert_eq(s.busy.most, 2);
}

/* What is left when the crowd is gone. */
Test(summary, tail)
{
	for (int i = 0; i < 8; i++)
		add("w1", 0, 1, 1, 99);
	add("w1", 0, 1, 1, 199);
	make();
	cr_assert_eq(s.tail_us, 100 * MS);
	cr_assert_eq(s.n_tail, 1);
	cr_assert_eq(s.tail[0], 8);
	cr_assert_eq(s.n_slowest, 9);
	cr_assert_eq(s.slowest[0], 8);
}

Test(summary, lists_are_bounded)
{
	for (int i = 0; i < 40; i++)
		add("w1", 0, 1, 1, 10 + (uint64_t)(i * 7 % 40));
	make();
	cr_assert_eq(s.n_slowest, SUMMARY_LISTED);
	for (size_t i = 1; i < s.n_slowest; i++)
		cr_assert_geq(records[s.slowest[i - 1]].ended_us, records[s.slowest[i]].ended_us);
	cr_assert_eq(records[s.slowest[0]].ended_us, 50 * MS);
}

Test(summary, speed_of_workers)
{
	for (int i = 0; i < 10; i++) {
		add("fast", 0, 1, 1, 50);
		add("slow", 0, 1, 1, 150);
	}
	make();
	cr_assert_float_eq(s.places[0].speed, 2.0, 0.001);
	cr_assert_float_eq(s.places[1].speed, 2.0 / 3, 0.001);
	cr_assert_eq(s.places[0].speed_local, 0);
	cr_assert(!s.scaled);
	/* 2000 ms of CPU on two cores. */
	cr_assert_eq(s.alone_us, 1000 * MS);
}

/* The same command took 200 ms here that took 100 there. */
Test(summary, speed_against_here)
{
	for (int i = 0; i < 3; i++)
		add("w1", 0, 1, 1, 100);
	add("", 0, 0, 1, 200);
	make();
	cr_assert_float_eq(s.places[0].speed_local, 2.0, 0.001);
	cr_assert_eq(s.places[0].n_compared, 3);
	cr_assert(s.scaled);
	cr_assert_eq(s.alone_us, (3 * 200 + 200) / 2 * MS);
}

/* No job has two cores. */
Test(summary, alone_is_no_less_than_the_longest)
{
	add("w1", 0, 1, 1, 500);
	add("w1", 0, 1, 1, 10);
	make();
	cr_assert_eq(s.alone_us, 500 * MS);
}

Test(summary, speed_up)
{
	for (int i = 0; i < 8; i++)
		add("w1", 0, 0, 1, 999);
	make();
	cr_assert_float_eq(summary_speed_up(&s), 4.0, 0.01);
	/* Nothing was gained, and nothing is claimed. */
	done();
	add("", 0, 0, 1, 999);
	make();
	cr_assert_eq(summary_speed_up(&s), 0);
}

/* Eight jobs that began at once on a machine of two cores. */
static const char *limit_of(unsigned slots, const char *worker, uint64_t slot_ms, uint64_t took_ms,
			    uint64_t wall_ms)
{
	done();
	for (int i = 0; i < 8; i++) {
		struct record *r = add(worker, 0, slot_ms, slot_ms + 1, took_ms);

		r->all_slots = slots;
		if (*worker)
			r->wall_us = r->utime_us = wall_ms * MS;
	}
	make();
	return summary_limit(&s);
}

Test(summary, what_limits_a_build)
{
	cr_expect_str_eq(limit_of(8, "", 0, 900, 900), "no job went to a worker");
	cr_expect(strstr(limit_of(8, "w", 0, 900, 900), "workers' own speed"));
	cr_expect(strstr(limit_of(8, "w", 900, 900, 900), "too few slots"));
	cr_expect(strstr(limit_of(8, "w", 0, 900, 100), "the way"));
	cr_expect(strstr(limit_of(64, "w", 0, 900, 900), "too few jobs"));
	done();
	add("w", 0, 0, 1, 100);
	add("", 0, 0, 1, 900);
	add("", 0, 0, 1, 900);
	make();
	cr_expect(strstr(summary_limit(&s), "this machine"));
}

Test(summary, rules)
{
	record_set(&add("", 0, 0, 1, 10)->rule, "query");
	record_set(&add("", 0, 0, 1, 10)->rule, "link");
	record_set(&add("", 0, 0, 1, 10)->rule, "link");
	record_set(&records[2].why, "-o prog");
	record_set(&add("w1", 0, 1, 1, 10)->rule, "worker-lost");
	records[3].tries = 2;
	make();
	cr_assert_eq(s.n_rules, 2);
	cr_assert_str_eq(s.rules[0].rule, "link");
	cr_assert_str_eq(s.rules[0].why, "-o prog");
	cr_assert_eq(s.rules[0].n, 2);
	cr_assert_eq(s.rules[0].us, 20 * MS);
	cr_assert_eq(s.n_retried, 1);
}

static size_t count(const char *text, const char *word)
{
	size_t n = 0;

	for (const char *p = text; (p = strstr(p, word)); p++)
		n++;
	return n;
}

/* Whatever stands in a record, the page has the elements of its skeleton and no others. */
Test(summary, page_keeps_markup_out)
{
	_cleanup_buf_ struct buf page = BUF_INIT, trace = BUF_INIT;
	static const char evil[] = "</script><b onclick=\"x\">&{{js}}'\xff</style></title><!--";
	struct record *r = add("w1", 0, 1, 1, 10);

	record_set(&r->subject, evil);
	record_set(&r->command, evil);
	record_set(&r->cwd, evil);
	record_set(&r->worker, evil);
	record_set(&r->program, evil);
	r = add("", 0, 0, 1, 10);
	record_set(&r->rule, evil);
	record_set(&r->why, evil);
	make();
	build.id = (char *)evil;
	page_html(&page, &s);
	cr_assert_eq(count(buf_cstr(&page), "</script>"), 2);
	cr_assert_eq(count(buf_cstr(&page), "<b "), 0);
	cr_assert_eq(count(buf_cstr(&page), "</style>"), 1);
	cr_assert_eq(count(buf_cstr(&page), "<!--"), 0);
	cr_assert_eq(count(buf_cstr(&page), "</title>"), 1);
	cr_assert_eq(count(buf_cstr(&page), "\"use strict\""), 1);
	cr_assert_geq(count(buf_cstr(&page), "&lt;/script&gt;"), 5);
	page_trace(&trace, &s);
	cr_assert_gt(trace.len, 100);
}

/* A build of nothing but one job that never began. */
Test(summary, nearly_empty)
{
	_cleanup_buf_ struct buf page = BUF_INIT;

	add("", 0, 0, 0, 0);
	records[0].ended_us = records[0].committed_us = 0;
	make();
	page_html(&page, &s);
	cr_assert_eq(s.wall_us, 0);
	cr_assert_eq(count(buf_cstr(&page), "nan"), 0);
	cr_assert_eq(count(buf_cstr(&page), "inf"), 0);
}
