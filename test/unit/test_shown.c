/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "wrapper/shown.h"

static struct shown shown;
static struct buf out;

static void say(const char *text, size_t cut)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < len; i += cut) {
		size_t n = len - i < cut ? len - i : cut;
		struct blob b = shown_next(&shown, 0, (struct blob){(const uint8_t *)text + i, n});

		buf_append(&out, b.p, b.n);
	}
}

static void forget(void)
{
	shown_release(&shown);
	buf_release(&out);
	shown = (struct shown){0};
}

/* First attempt, second and third, in pieces of every size; what a person saw of them. */
static void expect(const char *one, const char *two, const char *three, const char *want)
{
	for (size_t cut = 1; cut < 12; cut++) {
		say(one, cut);
		shown_restart(&shown);
		say(two, 13 - cut);
		shown_restart(&shown);
		say(three, cut);
		cr_expect_str_eq(buf_cstr(&out), want, "in pieces of %zu", cut);
		forget();
	}
}

Test(shown, the_same_again_is_left_out)
{
	expect("", "", "a\nb\n", "a\nb\n");
	expect("a\n", "a\nb\n", "a\nb\n", "a\nb\n");
	expect("a\nb", "a\n", "a\nbc\nd\n", "a\nbc\nd\n");
}

Test(shown, another_line_goes_out_whole)
{
	expect("try 1\n", "try 2\nmore\n", "try 2\nmore\nend\n", "try 1\ntry 2\nmore\nend\n");
	expect("same\ntry 1\n", "same\ntry 2\n", "same\ntry 3\n", "same\ntry 1\ntry 2\ntry 3\n");
	expect("no newline 1", "no newline 2", "no newline 2\n", "no newline 1no newline 2\n");
}

/* What was said first is longer than what comes: nothing of it can be taken back. */
Test(shown, less_is_said_again)
{
	expect("a\nb\nc\n", "a\n", "a\nx\n", "a\nb\nc\nx\n");
}

Test(shown, streams_are_apart)
{
	struct blob a = {(const uint8_t *)"x", 1};

	cr_expect_eq(shown_next(&shown, 1, a).n, 1);
	cr_expect_eq(shown_left(&shown, 1), 0);
	shown_restart(&shown);
	cr_expect_eq(shown_left(&shown, 0), 0);
	cr_expect_eq(shown_left(&shown, 1), 1);
	cr_expect_eq(shown_next(&shown, 0, a).n, 1);
	cr_expect_eq(shown_next(&shown, 1, a).n, 0);
	forget();
}

/* Of what counted as gone, some was not written. */
Test(shown, cut_short)
{
	say("one\ntwo\n", 100);
	shown_cut(&shown, 0, 3);
	shown_restart(&shown);
	say("one\ntwo\nthree\n", 100);
	cr_expect_str_eq(buf_cstr(&out), "one\ntwo\nwo\nthree\n");
	shown_cut(&shown, 0, shown.streams[0].n);
	shown_restart(&shown);
	cr_expect_eq(shown_left(&shown, 0), 0);
	buf_reset(&out);
	say("anew\n", 100);
	cr_expect_str_eq(buf_cstr(&out), "anew\n");
	forget();
}

/* Beyond what is kept, bytes are counted only; and memory has an end. */
Test(shown, much_output)
{
	static uint8_t big[3 * SHOWN_KEPT_MAX];
	struct blob b;

	memset(big, 'a', sizeof(big));
	cr_expect_eq(shown_next(&shown, 0, (struct blob){big, sizeof(big)}).n, sizeof(big));
	cr_expect_eq(shown.streams[0].kept.len, SHOWN_KEPT_MAX);
	shown_restart(&shown);
	memset(big + SHOWN_KEPT_MAX, 'b', SHOWN_KEPT_MAX);
	cr_expect_eq(shown_next(&shown, 0, (struct blob){big, sizeof(big)}).n, 0);
	cr_expect_eq(shown_next(&shown, 0, (struct blob){big, 5}).n, 5);
	shown_restart(&shown);
	big[7] = 'x';
	b = shown_next(&shown, 0, (struct blob){big, sizeof(big)});
	cr_expect_eq(b.n, sizeof(big));
	cr_expect(memcmp(b.p, big, b.n) == 0);
	shown_cut(&shown, 0, 10);
	cr_expect_eq(shown.streams[0].n, sizeof(big) - 10);
	shown_cut(&shown, 0, sizeof(big) - 20);
	cr_expect_eq(shown.streams[0].kept.len, 10);
	forget();
}
