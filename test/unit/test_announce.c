/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "concc/buf.h"
#include "concc/str.h"
#include "worker/announce.h"

static void on_path(void *data, const char *path)
{
	buf_putf(data, "%s\n", path);
}

static struct announcements *of_rustc(void)
{
	static char *const argv[] = {
		(char *)"rustc",
		(char *)"--json=diagnostic-rendered-ansi,artifacts,future-incompat", (char *)"x.rs",
		NULL};

	return announcements_new(argv);
}

/* In pieces of n bytes: the same comes of it, however it is cut. */
static void expect(const char *text, const char *want)
{
	for (size_t n = 1; n <= strlen(text); n++) {
		struct announcements *a = of_rustc();
		struct buf got = BUF_INIT;

		for (size_t at = 0; at < strlen(text); at += n)
			announcements_read(a, 2, text + at,
					   n < strlen(text) - at ? n : strlen(text) - at, on_path,
					   &got);
		cr_assert_str_eq(buf_cstr(&got), want, "in pieces of %zu", n);
		buf_release(&got);
		announcements_free(a);
	}
}

Test(announce, who_announces)
{
	static const struct {
		const char *argv[4];
		bool announces;
	} cases[] = {
		{{"rustc", "--json=artifacts"}, true},
		{{"rustc", "--json", "unused-externs,artifacts"}, true},
		{{"clippy-driver", "rustc", "--json=artifacts"}, true},
		{{"rustc", "--json=diagnostic-short", "--json=artifacts"}, true},
		{{"rustc", "x.rs"}, false},
		{{"rustc", "--json=diagnostic-short"}, false},
		{{"rustc", "--json=no-artifacts"}, false},
		{{"rustc", "--json"}, false},
		{{"echo", "artifacts"}, false},
		{{"gcc", "-c", "a.c"}, false},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct announcements *a = announcements_new((char *const *)cases[i].argv);

		cr_expect_eq(a != NULL, cases[i].announces, "case %zu", i);
		announcements_free(a);
	}
}

Test(announce, lines_of_rustc)
{
	expect("{\"$message_type\":\"artifact\",\"artifact\":\"/t/lib.rmeta\",\"emit\":\"metadata\"}\n",
	       "/t/lib.rmeta\n");
	expect("{\"artifact\":\"t/lib.rmeta\",\"emit\":\"metadata\"}\n"
	       "{\"artifact\":\"t/lib.rlib\",\"emit\":\"link\"}\n",
	       "t/lib.rmeta\nt/lib.rlib\n");
	expect("{\"artifact\":\"a\\\"b\\n\\u00e4\",\"emit\":\"metadata\"}\n", "a\"b\n\u00e4\n");
	/* What is none. */
	expect("{\"$message_type\":\"diagnostic\",\"message\":\"the \\\"artifact\\\" is odd\"}\n",
	       "");
	expect("{\"artifact\":\"x\"}\n", "");
	expect("{\"artifact\":1,\"emit\":\"metadata\"}\n", "");
	expect("{\"artifact\":\"x\",\"emit\":\"metadata\"", "");
	expect("{\"artifact\":\"x\",\"emit\"\n:\"metadata\"}\n", "");
	expect("warning: {\"artifact\":\"x\",\"emit\":\"metadata\"}\n", "");
	expect("\n\n{}\n[]\n", "");
}

Test(announce, each_stream_has_its_lines)
{
	struct announcements *a = of_rustc();
	struct buf got = BUF_INIT;
	const char *half = "{\"artifact\":\"x\",", *rest = "\"emit\":\"metadata\"}\n";

	announcements_read(a, 2, half, strlen(half), on_path, &got);
	announcements_read(a, 1, "noise\n", 6, on_path, &got);
	announcements_read(a, 2, rest, strlen(rest), on_path, &got);
	cr_assert_str_eq(buf_cstr(&got), "x\n");
	buf_release(&got);
	announcements_free(a);
}

Test(announce, long_lines_are_none)
{
	struct announcements *a = of_rustc();
	struct buf got = BUF_INIT;
	const char *line = "{\"artifact\":\"x\",\"emit\":\"metadata\"}\n";
	char *noise = xmalloc(100000);

	memset(noise, ' ', 100000);
	for (int i = 0; i < 100; i++)
		announcements_read(a, 2, noise, 100000, on_path, &got);
	announcements_read(a, 2, line, strlen(line), on_path, &got);
	cr_assert_str_eq(buf_cstr(&got), "");
	announcements_read(a, 2, line, strlen(line), on_path, &got);
	cr_assert_str_eq(buf_cstr(&got), "x\n");
	free(noise);
	buf_release(&got);
	announcements_free(a);
}
