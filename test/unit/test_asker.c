/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Which of the names that a call looks up it is to make. */
#include <criterion/criterion.h>

#include "sandbox/asker.h"

Test(asker, names_of_a_path)
{
	static const struct {
		const char *path, *name;
		bool makes;
		const char *source;
	} cases[] = {
		{"/home/me/x", "x", true},
		{"x", "x", true},
		{"/home/me/x/", "x", true},
		{"/home/me//x", "x", true},
		/* on the way: it is absent, and nothing is made */
		{"/home/me/x", "me", false},
		{"/home/me/x", "home", false},
		{"me/x/y", "x", false},
		/* twice: at the end it may be */
		{"x/y/x", "x", true},
		{"x/x/y", "x", false},
		/* a symlink leads there */
		{"link", "x", true},
		{"/srv/ws/link", "x", true},
		{"", "x", true},
		{"/", "x", true},
		{"xx", "x", true},
		/* links and renames */
		{"linked", "x", false, "/home/me/x"},
		{"linked", "me", false, "/home/me/x"},
		{"/home/me/x", "x", true, "/srv/x"},
		{"/home/me/x", "me", false, "/srv/me/x"},
		{"linked", "y", true, "/home/me/x"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		cr_assert_eq(path_makes(cases[i].path, cases[i].source, cases[i].name),
			     cases[i].makes, "%s: %s", cases[i].path, cases[i].name);
}
