/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "concc/map.h"

#define N 500

static struct map m = MAP_INIT;

static void teardown(void)
{
	map_release(&m);
}

TestSuite(map, .fini = teardown);

static int values[N];

/* Against a table of what must be there, with keys that come and go. */
static void random_changes(void *(*put)(unsigned i), void *(*get)(unsigned i),
			   void *(*del)(unsigned i))
{
	void *there[N] = {0};
	size_t n = 0;

	srandom(1);
	for (int step = 0; step < 20000; step++) {
		unsigned i = (unsigned)random() % N;

		cr_assert_eq(get(i), there[i], "step %d", step);
		if (random() % 2) {
			cr_assert_eq(put(i), there[i], "step %d", step);
			n += !there[i];
			there[i] = &values[i];
		} else {
			cr_assert_eq(del(i), there[i], "step %d", step);
			n -= there[i] != NULL;
			there[i] = NULL;
		}
		cr_assert_eq(m.n, n);
	}
}

static void *put_number(unsigned i)
{
	return map_put_u64(&m, (uint64_t)i << 40, &values[i]);
}

static void *get_number(unsigned i)
{
	return map_get_u64(&m, (uint64_t)i << 40);
}

static void *del_number(unsigned i)
{
	return map_del_u64(&m, (uint64_t)i << 40);
}

static const char *name_of(unsigned i)
{
	static char name[32];

	/* Of many lengths, that of a number among them. */
	(void)snprintf(name, sizeof(name), "%.*s%u", (int)(i % 12), "abcdefghijkl", i);
	return name;
}

static void *put_name(unsigned i)
{
	return map_put_str(&m, name_of(i), &values[i]);
}

static void *get_name(unsigned i)
{
	return map_get_str(&m, name_of(i));
}

static void *del_name(unsigned i)
{
	return map_del_str(&m, name_of(i));
}

Test(map, numbers)
{
	random_changes(put_number, get_number, del_number);
}

Test(map, names)
{
	random_changes(put_name, get_name, del_name);
}

Test(map, iteration_meets_each_once_and_may_delete)
{
	unsigned met[N] = {0};
	const char *key;
	int *v;

	for (unsigned i = 0; i < N; i++)
		(void)put_name(i);
	for (size_t it = 0; (v = map_next(&m, &it, &key));) {
		unsigned i = (unsigned)(v - values);

		met[i]++;
		cr_expect_str_eq(key, name_of(i));
		if (i % 2)
			cr_expect_eq(del_name(i), v);
	}
	for (unsigned i = 0; i < N; i++)
		cr_expect_eq(met[i], 1);
	cr_expect_eq(m.n, N / 2);
}

/* A number is its eight bytes, by whichever function. */
Test(map, numbers_are_bytes)
{
	uint64_t k = 0x0102030405060708;

	(void)map_put_u64(&m, k, &values[0]);
	cr_expect_eq(map_get(&m, &k, sizeof(k)), &values[0]);
	cr_expect_eq(map_put(&m, &k, sizeof(k), &values[1]), &values[0]);
	cr_expect_eq(map_get_u64(&m, k), &values[1]);
	cr_expect_eq(map_del(&m, &k, sizeof(k)), &values[1]);
	cr_expect_eq(m.n, 0);
}

Test(map, a_key_may_be_the_values_own)
{
	char one[] = "a key", two[] = "a key";

	cr_expect_null(map_put_borrowed(&m, one, one));
	cr_expect_eq(map_get_str(&m, "a key"), one);
	cr_expect_eq(map_put_borrowed(&m, two, two), one);
	one[0] = 'b'; /* is the map's no more */
	cr_expect_eq(map_get_str(&m, "a key"), two);
	for (int i = 0; i < 100; i++) /* which it grows for */
		(void)map_put_str(&m, name_of(i), &values[i]);
	cr_expect_eq(map_del_str(&m, "a key"), two);
	cr_expect_null(map_get_str(&m, "a key"));
}

Test(map, the_empty_key_is_one)
{
	cr_expect_null(map_get_str(&m, ""));
	cr_expect_null(map_put_str(&m, "", &values[0]));
	cr_expect_eq(map_get_str(&m, ""), &values[0]);
	cr_expect_null(map_get_str(&m, "a"));
}
