/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* When a peer counts as dead, with time as a number. */
#include <criterion/criterion.h>

#include "link/beat.h"

#define DEAD 4000
#define PING 1000

/* As a link does it, each time when the timer was set for: until it is dead.  When that is. */
static uint64_t ticks_until_dead(struct beat *b, uint64_t now)
{
	uint8_t token[BEAT_TOKEN_LEN];

	while (b->silence_ms < DEAD) {
		now += beat_next_ms(b, DEAD, PING);
		beat_tick(b, now);
		if (!b->pinged && b->silence_ms >= PING)
			beat_ping(b, now * 1000, token);
	}
	return now;
}

Test(beat, silence_is_death)
{
	struct beat b = {0};

	beat_alive(&b, 500);
	cr_expect_eq(beat_next_ms(&b, DEAD, PING), PING);
	cr_expect_eq(ticks_until_dead(&b, 500), 500 + DEAD);
	cr_expect(b.pinged);
}

Test(beat, a_late_tick_is_our_own_silence)
{
	struct beat b = {0};

	beat_alive(&b, 0);
	(void)beat_next_ms(&b, DEAD, PING);
	beat_tick(&b, 60 * 1000); /* we were stopped */
	cr_expect_eq(b.silence_ms, PING);
	cr_expect_eq(ticks_until_dead(&b, 60 * 1000), 60 * 1000 + DEAD - PING);
}

Test(beat, a_sign_of_life_begins_anew)
{
	uint8_t token[BEAT_TOKEN_LEN];
	struct beat b = {0};

	beat_alive(&b, 0);
	(void)beat_next_ms(&b, DEAD, PING);
	beat_tick(&b, PING);
	beat_ping(&b, PING * 1000, token);
	beat_hear(&b, 100, 1, PING + 10);
	cr_expect_not(b.pinged);
	cr_expect_eq(b.silence_ms, 0);
	cr_expect_eq(ticks_until_dead(&b, PING + 10), PING + 10 + DEAD);
}

Test(beat, what_comes_unasked_is_none)
{
	struct beat b = {0};

	beat_alive(&b, 0);
	for (unsigned i = 1; i <= 1000; i++) {
		beat_unasked(&b, 20);
		beat_hear(&b, i * 20, i, i);
		cr_assert_eq(b.alive_ms, 0, "message %u", i);
	}
	/* Half of one is here, and then the rest. */
	beat_hear(&b, 1000 * 20 + 10, 1000, 2000);
	beat_unasked(&b, 20);
	beat_hear(&b, 1001 * 20, 1001, 2001);
	cr_expect_eq(b.alive_ms, 0);
	beat_hear(&b, 1001 * 20 + 9, 1002, 2002);
	cr_expect_eq(b.alive_ms, 2002);
}

Test(beat, a_frame_that_grows_slowly)
{
	struct beat b = {0};

	beat_alive(&b, 0);
	for (uint64_t i = 1; i < 1024; i++)
		beat_hear(&b, i, 0, i);
	cr_expect_eq(b.alive_ms, 0);
	beat_hear(&b, 1024, 0, 5000);
	cr_expect_eq(b.alive_ms, 5000);
}

Test(beat, the_answer_to_the_last_ping)
{
	uint8_t first[BEAT_TOKEN_LEN], last[BEAT_TOKEN_LEN], none[BEAT_TOKEN_LEN] = {0};
	struct beat b = {0};

	cr_expect_not(beat_is_answer(&b, none));
	beat_ping(&b, 1, first);
	cr_expect(beat_is_answer(&b, first));
	beat_ping(&b, 2, last);
	cr_expect_not(beat_is_answer(&b, first));
	cr_expect(beat_is_answer(&b, last));
}

Test(beat, neither_is_wanted)
{
	struct beat b = {0};

	beat_alive(&b, 0);
	cr_expect_eq(beat_next_ms(&b, 0, PING), PING);
	/* Dead without a PING: a peer that has not greeted. */
	cr_expect_leq(beat_next_ms(&b, DEAD, 0), DEAD / 16 + 1);
}
