/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/proto.h"
#include "concc/str.h"
#include "tree/names.h"

#define NAMES_MAX 300

static struct names names;

static void teardown(void)
{
	names_release(&names);
}

TestSuite(names, .fini = teardown);

static void name_of(unsigned i, char ret[16])
{
	(void)snprintf(ret, 16, "name-%u", i);
}

static struct ent *find(uint32_t seed, unsigned i)
{
	char name[16];

	name_of(i, name);
	return names_find(&names, seed, name, strlen(name));
}

static struct ent *add(uint32_t seed, unsigned i)
{
	char name[16];

	name_of(i, name);
	return names_add(&names, seed, name, strlen(name));
}

/* Against a table of what must be there, through all the fill levels that a growing table has. */
Test(names, found_while_others_come_and_go)
{
	for (uint32_t seed = 0; seed < 20; seed++) {
		struct ent *there[NAMES_MAX] = {0};
		uint32_t n = 0;

		srandom(seed);
		for (int step = 0; step < 4000; step++) {
			/* First mostly growth, then mostly removal. */
			unsigned i = (unsigned)random() % NAMES_MAX;
			bool grow = random() % 4 != (step < 2000 ? 0 : 1) && step < 2000;

			if (there[i] && !grow) {
				names_remove(&names, seed, there[i]);
				there[i] = NULL;
				n--;
			} else if (!there[i] && (grow || random() % 4 == 0)) {
				there[i] = add(seed, i);
				n++;
			}
			cr_assert_eq(names.n, n);
			cr_assert_eq(find(seed, i), there[i], "seed %u, step %d", seed, step);
		}
		for (unsigned i = 0; i < NAMES_MAX; i++)
			cr_assert_eq(find(seed, i), there[i], "seed %u, name %u", seed, i);
		names_release(&names);
	}
}

Test(names, each_is_met_once)
{
	unsigned met[NAMES_MAX] = {0};
	struct ent *e;

	for (unsigned i = 0; i < NAMES_MAX; i++)
		add(7, i)->size = i;
	for (uint32_t it = 0; (e = names_next(&names, &it));)
		met[e->size]++;
	for (unsigned i = 0; i < NAMES_MAX; i++)
		cr_expect_eq(met[i], 1);
}

Test(names, a_part_or_more_of_a_name_is_another)
{
	struct ent *e = names_add(&names, 1, "abc", 3);

	cr_expect_eq(names_find(&names, 1, "abcd", 3), e);
	cr_expect_null(names_find(&names, 1, "abcd", 4));
	cr_expect_null(names_find(&names, 1, "ab", 2));
	cr_expect_null(names_find(&names, 1, "", 0));
}

Test(names, a_name_that_is_too_long_is_not_there)
{
	char name[PROTO_NAME_MAX + 2];

	memset(name, 'n', sizeof(name));
	names_add(&names, 1, name, PROTO_NAME_MAX);
	cr_expect(names_find(&names, 1, name, PROTO_NAME_MAX));
	cr_expect_null(names_find(&names, 1, name, PROTO_NAME_MAX + 1));
}

Test(names, empty)
{
	uint32_t it = 0;

	cr_expect_null(names_find(&names, 1, "a", 1));
	cr_expect_null(names_next(&names, &it));
}

/* Seen by the leak checker of `make check-sanitize`. */
Test(names, what_an_entry_owns_goes_with_it)
{
	struct ent *link = names_add(&names, 1, "link", 4);
	struct ent *file = names_add(&names, 1, "file", 4);

	link->type = ENTRY_SYMLINK;
	link->target = xstrdup("target");
	file->type = ENTRY_FILE;
	file->known = xcalloc(1, sizeof(*file->known));
	names_remove(&names, 1, file);
	cr_expect_eq(names.n, 1);
}

static unsigned place_of(const struct ent *e)
{
	struct ent **all = names_in_order(&names);
	unsigned i = 0;

	while (i < names.n && all[i] != e)
		i++;
	free(all);
	return i;
}

/* As they came, whatever their hashes are; who is put last is behind those who came since. */
Test(names, have_an_order)
{
	struct ent *e[NAMES_MAX];

	for (unsigned i = 0; i < NAMES_MAX; i++)
		e[i] = add(7, i);
	for (unsigned i = 0; i < NAMES_MAX; i++)
		cr_expect_eq(place_of(e[i]), i);
	names_put_last(&names, e[3]);
	cr_expect_eq(place_of(e[3]), NAMES_MAX - 1);
	cr_expect_eq(place_of(e[4]), 3);
}
