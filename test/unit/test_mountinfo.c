/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What mountinfo tells of a path: lines as the kernel writes them, and symlinks on the disk. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/mountinfo.h"
#include "concc/str.h"

static const char table[] =
	"22 28 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n"
	"28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
	"40 28 0:35 / /net rw,relatime shared:9 master:3 - autofs auto.net rw,fd=7,indirect\n"
	"41 40 0:36 / /net/up rw - nfs4 up:/ rw\n"
	"42 28 0:37 / /a\\040b rw - autofs systemd-1 rw,direct\n"
	"43 28 0:38 / /lazy rw - autofs systemd-1 rw,direct\n"
	"44 43 0:39 / /lazy rw - vfat /dev/sdb1 rw\n";

Test(mountinfo, lines)
{
	_cleanup_free_ char *copy = xstrdup(table), *odd = xstrdup("x\n\n1 2 3 4 /p - t");
	char *at = copy;
	struct mount_line l;

	cr_assert(mountinfo_next(&at, &l));
	cr_expect(streq(l.point, "/sys") && streq(l.type, "sysfs"));
	for (int i = 0; i < 4; i++)
		cr_assert(mountinfo_next(&at, &l));
	cr_expect(streq(l.point, "/a b") && streq(l.type, "autofs"), "%s %s", l.point, l.type);
	at = odd;
	for (int i = 0; i < 2; i++) {
		cr_assert(mountinfo_next(&at, &l));
		cr_expect(streq(l.point, "") && streq(l.type, ""));
	}
	cr_assert(mountinfo_next(&at, &l));
	cr_expect(streq(l.point, "/p") || streq(l.type, ""));
	cr_expect_not(mountinfo_next(&at, &l));
}

static bool triggers(const char *text, const char *path)
{
	_cleanup_free_ char *copy = xstrdup(text);

	return mountinfo_triggers(copy, path);
}

Test(mountinfo, triggers)
{
	static const char *const will[] = {"/net/x", "/net/x/y", "/a b/c", "/net/upper"};
	static const char *const wont[] = {"/",		"/net",	    "/a b",    "/srv", "/net/up",
					   "/net/up/x", "/network", "/lazy/f", "/a",   "/sys/x"};

	for (size_t i = 0; i < sizeof(will) / sizeof(*will); i++)
		cr_expect(triggers(table, will[i]), "%s", will[i]);
	for (size_t i = 0; i < sizeof(wont) / sizeof(*wont); i++)
		cr_expect_not(triggers(table, wont[i]), "%s", wont[i]);
	cr_expect_not(triggers("", "/net/x"));
}

static bool names_trigger(const char *name)
{
	_cleanup_free_ char *copy = xstrdup(table), *last = xstrdup(name);
	char *names[] = {(char *)"r/usr/bin", (char *)"l/usr/../usr/bin/", (char *)"s/net", last};

	return mountinfo_names_trigger(copy, names, 4);
}

/* As programs pass them to the kernel. */
Test(mountinfo, names)
{
	static const char *const will[] = {"r/net/x",	"s/usr/../net/x",	   "d//net///x/",
					   "l/net/./x", "l/usr/bin/../../net/x/y", "s/../net/x"};
	static const char *const wont[] = {"r/net",	     "s/net/x/..x/../../../usr/net/",
					   "d/net/.",	     "l/network/..",
					   "r/net/../usr/x", "s/"};

	for (size_t i = 0; i < N_OF(will); i++)
		cr_expect(names_trigger(will[i]), "%s", will[i]);
	for (size_t i = 0; i < N_OF(wont); i++)
		cr_expect_eq(names_trigger(wont[i]), i == 1, "%s", wont[i]);
}

/* A symlink on the way leads there, the last name does not. */
Test(mountinfo, symlinks)
{
	char dir[] = "/tmp/concc-test-mountinfo.XXXXXX", path[128], name[160];
	static const struct {
		const char *name, *target;
	} links[] = {{"up", "/net"}, {"on", "up/x"}, {"self", "self"}, {"fine", "/tmp"}};

	cr_assert(mkdtemp(dir));
	cr_assert_eq(chdir(dir), 0);
	for (size_t i = 0; i < 4; i++)
		cr_assert_eq(symlink(links[i].target, links[i].name), 0);
	for (size_t i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, links[i].name);
		cr_expect_not(triggers(table, path), "%s", path);
		snprintf(name, sizeof(name), "s%s", path);
		cr_expect_eq(names_trigger(name), i == 1 || i == 2, "%s", path);
		strcat(path, "/below");
		cr_expect_eq(triggers(table, path), i < 3, "%s", path);
		snprintf(name, sizeof(name), "s%s/../below", path);
		cr_expect_eq(names_trigger(name), i < 3, "%s", path);
	}
	for (size_t i = 0; i < 4; i++)
		(void)unlink(links[i].name);
	cr_assert_eq(chdir("/"), 0);
	cr_assert_eq(rmdir(dir), 0);
}
