/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What files of a build say about the compilers that it calls. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "front/hints.h"
#include "front/tools.h"

static void expect_compiler(const char *text, const char *path, const char *variable)
{
	char *got_variable = NULL;
	char *got = hint_find_compiler(text, &got_variable);

	if (!path) {
		cr_assert_null(got, "%s has %s", text, got);
		return;
	}
	cr_assert_not_null(got, "%s", text);
	cr_assert_str_eq(got, path);
	cr_assert_str_eq(got_variable, variable);
	free(got);
	free(got_variable);
}

Test(hints, compilers_by_path)
{
	expect_compiler("CC = /usr/bin/gcc\n", "/usr/bin/gcc", "CC");
	expect_compiler("# x\nMYCC:=/usr/bin/clang-14 -O2\n", "/usr/bin/clang-14", "MYCC");
	expect_compiler("a.o: a.c\n\t/usr/bin/g++ -c a.c\n", "/usr/bin/g++", "");
	expect_compiler("  command = /opt/x/bin/arm-gcc $in", "/opt/x/bin/arm-gcc", "");
	expect_compiler("CC=\"/usr/bin/cc\"", "/usr/bin/cc", "CC");
}

Test(hints, no_compilers_by_path)
{
	expect_compiler("", NULL, NULL);
	expect_compiler("CC = gcc\nINC = -I/usr/lib/gcc/x\n", NULL, NULL);
	expect_compiler("LD = /usr/bin/ld\nx: src/gcc\n", NULL, NULL);
	expect_compiler("/", NULL, NULL);
}

static bool is_silent(const char *tool, const char *arg)
{
	char *argv[] = {(char *)tool, (char *)"all", (char *)arg, NULL};

	return tools_is_silent(argv);
}

Test(hints, tools_that_write_nothing)
{
	cr_expect(is_silent("make", "-s"));
	cr_expect(is_silent("/usr/bin/gmake", "-ksj8"));
	cr_expect(is_silent("make", "--quiet"));
	cr_expect(is_silent("ninja", "--quiet"));
	cr_expect(is_silent("cargo", "-q"));
	cr_expect(!is_silent("make", "-j8"));
	cr_expect(!is_silent("make", "-fsilent.mk"), "the name of a file");
	cr_expect(!is_silent("make", "-Csrc"));
	cr_expect(!is_silent("ninja", "-s"));
	cr_expect(!is_silent("samu", "-s"));
	cr_expect(!is_silent("./build.sh", "-s"));
}

static void expect_value(const char *cache, const char *name, const char *value)
{
	char *got = hint_cmake_value(cache, name);

	cr_assert_eq(!got, !value);
	if (got)
		cr_assert_str_eq(got, value);
	free(got);
}

Test(hints, cmake_cache)
{
	static const char cache[] = "//C compiler\nCMAKE_C_COMPILER:FILEPATH=/usr/bin/cc\n"
				    "CMAKE_C_COMPILER_AR:FILEPATH=/usr/bin/ar\n"
				    "CMAKE_CXX_COMPILER_LAUNCHER:STRING=\nX:INTERNAL=a=b";

	expect_value(cache, "CMAKE_C_COMPILER", "/usr/bin/cc");
	expect_value(cache, "CMAKE_CXX_COMPILER", NULL);
	expect_value(cache, "CMAKE_CXX_COMPILER_LAUNCHER", NULL);
	expect_value(cache, "X", "a=b");
	expect_value("", "X", NULL);
	expect_value("X:", "X", NULL);
}

static void expect_hint_of(const struct counter *e, size_t n, const char *workers, const char *part)
{
	struct buf out = BUF_INIT;

	hint_kept_local(e, n, &(struct front_run){.workers = workers}, &out);
	if (part)
		cr_assert(strstr(buf_cstr(&out), part), "%s", buf_cstr(&out));
	else
		cr_assert_eq(out.len, 0, "%s", buf_cstr(&out));
	buf_release(&out);
}

static void expect_hint(const struct counter *e, size_t n, const char *part)
{
	expect_hint_of(e, n, NULL, part);
}

/* The doctor is sent to those workers that were asked for. */
Test(hints, workers)
{
	const struct counter e[] = {{"fallback:no-worker", 2}, {"fallback:missing", 1}};

	expect_hint_of(e, 2, NULL, "\"no-worker\": `concc doctor` says why no worker can be used");
	expect_hint_of(e, 2, "w1", "\"no-worker\": `concc doctor w1` says why no worker");
	expect_hint_of(e, 2, "w1/4, ssh://h,", ": `concc doctor w1/4 ssh://h` says why");
	expect_hint_of(e + 1, 1, "w1", "\"missing\": list what they look up as");
}

Test(hints, rules)
{
	const struct counter e[] = {
		{"local:link", 50}, {"local:native", 3}, {"fallback:missing", 7}, {"remote:w", 9}};

	expect_hint(e, 4, "7 jobs ran here by the rule \"missing\"");
	expect_hint(e, 2, "3 jobs ran here by the rule \"native\"");
	expect_hint(e, 1, NULL);
	expect_hint(e, 0, NULL);
}
