/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What a job lacked on a worker: when that makes a difference, and what a person is told to do. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "project/missing.h"

Test(missing, decisions)
{
	static const struct {
		struct missing_facts facts;
		enum missing_verdict verdict;
	} cases[] = {
		/* named by an argument */
		{{MISSING_NAMED, .here = true}, MISSING_HOLD},
		{{MISSING_NAMED, .here = false}, MISSING_NOTHING},
		/* looked up */
		{{MISSING_LOOKED_UP, .here = true}, MISSING_RUN_HERE},
		{{MISSING_LOOKED_UP, .here = false}, MISSING_ABSENT},
		{{MISSING_LOOKED_UP, .here = false, .writable = true}, MISSING_ABSENT},
		{{MISSING_LOOKED_UP, .here = true, .own_name = true}, MISSING_NOTHING},
		{{MISSING_LOOKED_UP, .here = false, .own_name = true}, MISSING_ABSENT},
		/* to be made, removed, changed */
		{{MISSING_CHANGED, .here = false, .writable = true}, MISSING_RUN_HERE},
		{{MISSING_CHANGED, .here = true}, MISSING_RUN_HERE},
		{{MISSING_CHANGED, .here = true, .own_name = true}, MISSING_RUN_HERE},
		{{MISSING_CHANGED, .here = false, .writable = false}, MISSING_NOTHING},
		/* not looked at */
		{{MISSING_NAMED, .unseen = true}, MISSING_HOLD},
		{{MISSING_LOOKED_UP, .unseen = true}, MISSING_RUN_HERE},
		{{MISSING_CHANGED, .unseen = true}, MISSING_RUN_HERE},
		/* listed */
		{{MISSING_LISTED, .here = true}, MISSING_NOTHING},
		{{MISSING_LISTED, .here = true, .more = true}, MISSING_HOLD},
		{{MISSING_LISTED, .here = true, .more = true, .marks = true}, MISSING_RUN_HERE},
		{{MISSING_LISTED, .here = true, .more = true, .own = true}, MISSING_RUN_HERE},
		{{MISSING_LISTED, .here = true, .own = true}, MISSING_NOTHING},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		cr_assert_eq(missing_decide(&cases[i].facts), cases[i].verdict, "case %zu", i);
}

#define LIST_BOTH                                                                                  \
	"list its tree as a `toolchain` (read-only) or `workspace` in [concc] of ~/.concc.ini "    \
	"to run this remotely: "
#define LIST_ONE "list its tree as a `workspace` in [concc] of ~/.concc.ini to run this remotely: "
#define NO_WAY	 "set CONCC_DISABLE=1 for such commands"

Test(missing, remedies)
{
	static char *const tools[] = {(char *)"/opt/gcc 14", (char *)"/data", NULL};
	static char *const spaces[] = {(char *)"/home/me/src", NULL};
	static const struct {
		struct missing_remedy remedy;
		const char *text;
	} cases[] = {
		{{true, false, "/srv/x", NULL, spaces}, LIST_BOTH "toolchain = /srv/x"},
		{{true, false, "/srv/x", tools, spaces},
		 LIST_BOTH "toolchain = \"/opt/gcc 14\" /data /srv/x"},
		{{true, true, "/srv/x", tools, spaces}, LIST_ONE "workspace = /home/me/src /srv/x"},
		{{false, false, "/srv/x", tools, spaces},
		 LIST_ONE "workspace = /home/me/src /srv/x"},
		{{false, false, "/srv/it's", NULL, NULL}, LIST_ONE "workspace = \"/srv/it's\""},
		{{false, false, "/srv/a\"b", NULL, NULL}, LIST_ONE "workspace = '/srv/a\"b'"},
		{{false, false, "/srv/a\"b'c", NULL, NULL}, NO_WAY},
		{{true, false, NULL, tools, spaces}, NO_WAY},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *text = missing_remedy(&cases[i].remedy);

		cr_assert_str_eq(text, cases[i].text, "case %zu: %s", i, text);
		free(text);
	}
}

static void expect_tree(const char *path, bool client_root, const char *want)
{
	_cleanup_free_ char *tree = missing_tree(path, client_root);

	if (want)
		cr_assert_str_eq(tree ? tree : "none", want, "%s", path);
	else
		cr_assert_null(tree, "%s: %s", path, tree);
}

/* What a list would take, and that is not far too much. */
Test(missing, trees)
{
	char top[] = "/srv/concc-test-XXXXXX";
	char *home, *tools, *file, *keys, *link, *config, *one;

	if (!mkdtemp(top))
		cr_skip_test("needs a directory that is not of every system: /srv");
	home = xasprintf("%s/home", top);
	tools = xasprintf("%s/home/tools", top);
	file = xasprintf("%s/home/tools/cc", top);
	keys = xasprintf("%s/home/.ssh", top);
	link = xasprintf("%s/link", top);
	cr_assert_eq(mkdir(home, 0755) | mkdir(tools, 0755) | mkdir(keys, 0700), 0);
	cr_assert_eq(symlink("../tools", file) | symlink(keys, link), 0);
	setenv("HOME", home, 1);
	expect_tree(tools, true, tools);
	expect_tree(file, true, tools);
	expect_tree(file, false, tools);
	expect_tree(home, true, NULL);
	expect_tree(top, true, NULL);
	expect_tree("/srv", false, NULL);
	expect_tree("/", true, NULL);
	expect_tree(keys, true, NULL);
	expect_tree(link, true, NULL);
	expect_tree("/srv/nothing/at-all", true, NULL);
	expect_tree("/etc/hostname", true, "/etc/hostname");
	expect_tree("/etc/ssl/private", true, NULL);
	expect_tree("/etc", true, NULL);
	expect_tree("/etc/hostname", false, NULL);
	expect_tree("/usr/lib", true, "/usr/lib");
	expect_tree("/usr/lib", false, NULL);
	expect_tree("/proc/self", true, NULL);
	expect_tree("/tmp", true, NULL);
	/* All programs' things: one program's are another matter. */
	config = xasprintf("%s/.config", home);
	one = xasprintf("%s/one", config);
	cr_assert_eq(mkdir(config, 0755) | mkdir(one, 0755), 0);
	expect_tree(config, true, NULL);
	expect_tree(config, false, NULL);
	expect_tree(one, true, one);
	cr_assert_eq(path_remove_tree(AT_FDCWD, top), 0);
	free(config);
	free(one);
	free(home);
	free(tools);
	free(file);
	free(keys);
	free(link);
}
