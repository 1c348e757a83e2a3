/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/farm.h"
#include "concc/io.h"

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

static char file[] = "/tmp/concc-test.XXXXXX";

static int load_bytes(const char *text, size_t n, struct farm *f, struct errmsg *msg)
{
	int fd = mkstemp(file), r;

	cr_assert(fd >= 0 && write_full(fd, text, n) == 0 && fchmod(fd, 0644) == 0);
	close(fd);
	r = farm_load(file, f, msg);
	unlink(file);
	memset(file + strlen(file) - 6, 'X', 6);
	return r;
}

static int load(const char *text, struct farm *f, struct errmsg *msg)
{
	return load_bytes(text, strlen(text), f, msg);
}

static void skip_unless_root(void)
{
	if (getuid() != 0)
		cr_skip("only a file of root's counts");
}

Test(farm, no_file_limits_nothing)
{
	struct errmsg msg = {0};
	struct farm f;

	cr_assert_eq(farm_load("/nowhere/at/all", &f, &msg), 0, "%s", msg.text);
	cr_expect(!f.nice && !f.memory && !f.users && !f.slots && !f.log);
	cr_expect(farm_lets_in(&f));
}

Test(farm, all_keys)
{
	struct errmsg msg = {0};
	struct farm f;

	skip_unless_root();
	cr_assert_eq(
		load("# us\n[worker]\nnice = 5\nmemory = 2G\nprocesses=100\njob-time = 5m\n"
		     "slots = 3 ; few\nstore-size = 1G\nusers = a, @b 7\nlog = jobs\nown-disk = no\n",
		     &f, &msg),
		0, "%s", msg.text);
	cr_expect_eq(f.nice, 5);
	cr_expect_eq(f.memory, 2ull << 30);
	cr_expect_eq(f.processes, 100);
	cr_expect_eq(f.job_time_s, 300);
	cr_expect_eq(f.slots, 3);
	cr_expect_eq(f.store_max, 1ull << 30);
	cr_expect_str_eq(f.users[1], "@b");
	cr_expect_eq(f.log, FARM_LOG_JOBS);
	cr_expect_eq(f.own_disk, FARM_OWN_NO);
	farm_release(&f);
}

Test(farm, mistakes_have_their_line)
{
	static const struct {
		const char *text, *want;
	} cases[] = {
		{"[worker]\nnise = 5\n", ":2: unknown key 'nise'; did you mean 'nice'?"},
		{"[worker]\nnice = 50\n", ":2: nice: '50' is not"},
		{"[worker]\nown-disk = maybe\n", ":2: own-disk: "},
		{"[worker]\nnice = 5\nnice = 6\n", ":3: nice is given twice"},
		{"nice = 5\n", ":1: its one section is [worker]"},
		{"[worker]\nnice = 5\n[concc]\n\nslots = 1\n", ":3: its one section is [worker]"},
		{"[work]\n", ":1: its one section is [worker]"},
		{"[worker]\n  [concc]\n", ":2: its one section is [worker]"},
		{"[worker\nnice = 5\n", ":1: a section's name is not closed"},
		{"[worker]\nnice = 5\n  slots = 0\n", ":3: slots: "},
		{"[worker]\nwhat\n", ":2: "},
		{"[worker]\nusers =\n", ":2: users: it names nobody"},
		{"[worker]\nusers = , ,\n", ":2: users: it names nobody"},
	};

	skip_unless_root();
	for (size_t i = 0; i < N_OF(cases); i++) {
		struct errmsg msg = {0};
		struct farm f;

		cr_expect_eq(load(cases[i].text, &f, &msg), CONCC_E_CONF, "%s", cases[i].text);
		cr_expect(strstr(msg.text, cases[i].want), "%s", msg.text);
		cr_expect(!f.nice && !f.users);
	}
}

/* What is behind the first NUL would forbid something. */
Test(farm, what_is_no_text)
{
	static const char zeros[300], half[] = "[worker]\nnice = 3\n\0users = root\n";
	struct errmsg msg = {0};
	struct farm f;

	skip_unless_root();
	cr_expect_eq(load_bytes(zeros, sizeof(zeros), &f, &msg), CONCC_E_CONF);
	cr_expect_eq(load_bytes(half, sizeof(half) - 1, &f, &msg), CONCC_E_CONF);
	cr_expect(strstr(msg.text, "has a NUL byte in it"), "%s", msg.text);
	cr_expect(!f.nice && !f.users);
}

Test(farm, who_may_use_it)
{
	static const char passwd[] =
		"root:x:0:0::/:/bin/sh\nbuild:x:1000:100::/:/bin/sh\nbuilder:x:7:7:::\n";
	static const char group[] = "users:x:100:\ndev:x:200:build\n";
	const uint32_t groups[] = {100, 200};
	static const struct {
		const char *user;
		bool in;
	} cases[] = {{"build", true}, {"builder", false}, {"1000", true},
		     {"@dev", true},  {"@200", true},	  {"@nobody", false},
		     {"root", false}, {"1", false},	  {"buil", false}};

	for (size_t i = 0; i < N_OF(cases); i++) {
		char *users[] = {(char *)cases[i].user, NULL};
		struct farm f = {.users = users};

		cr_expect_eq(farm_names(&f, passwd, group, 1000, groups, 2), cases[i].in, "%s",
			     cases[i].user);
	}
}
