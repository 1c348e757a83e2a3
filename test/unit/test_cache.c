/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cache.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

static char tmp[64];
static char dir[128];

static void setup(void)
{
	strcpy(tmp, "/tmp/concc-cache-XXXXXX");
	cr_assert(mkdtemp(tmp));
	snprintf(dir, sizeof(dir), "%s/deep/results", tmp);
	cr_assert_eq(chdir(tmp), 0);
}

static void teardown(void)
{
	char cmd[256];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", tmp);
	cr_assert_eq(system(cmd), 0);
}

TestSuite(cache, .init = setup, .fini = teardown, .timeout = 300);

/* ---- names ---- */

static struct cache_names names_of(const char *const *list)
{
	struct cache_names s = {0};
	size_t n = 0;
	char **v;

	while (list[n])
		n++;
	v = xcalloc(n + 1, sizeof(*v));
	for (size_t i = 0; i < n; i++)
		v[i] = xstrdup(list[i]);
	cache_names_add(&s, v, n);
	return s;
}

Test(cache, names_are_sorted_once_each_and_come_back)
{
	static const char *const list[] = {"r/usr/include/stdio.h", "l/usr/include",	     "s/b",
					   "r/usr/include/stdio.h", "l/usr/include/stdio.h", NULL};
	struct cache_names s = names_of(list), back;
	_cleanup_buf_ struct buf b = BUF_INIT;

	cr_assert_eq(s.n, 4);
	cr_assert_str_eq(s.v[0], "s/b");
	cr_assert_str_eq(s.v[2], "l/usr/include/stdio.h");
	cache_names_encode(&b, &s);
	cr_assert_eq(cache_names_decode((struct blob){b.data, b.len}, &back), 0);
	cr_assert_eq(back.n, s.n);
	for (size_t i = 0; i < s.n; i++)
		cr_assert_str_eq(back.v[i], s.v[i]);
	cache_names_release(&s);
	cache_names_release(&back);
}

Test(cache, damaged_names_are_refused)
{
	static const char *const list[] = {"r/a/one", "r/a/other", "l/b", NULL};
	struct cache_names s = names_of(list), back;
	_cleanup_buf_ struct buf b = BUF_INIT;

	cache_names_encode(&b, &s);
	for (size_t n = 0; n < b.len; n++)
		cr_assert_lt(cache_names_decode((struct blob){b.data, n}, &back), 0);
	b.data[4] = 'q'; /* no such letter */
	cr_assert_lt(cache_names_decode((struct blob){b.data, b.len}, &back), 0);
	b.data[4] = 'r';
	b.data[9] = '\0'; /* of the path */
	cr_assert_lt(cache_names_decode((struct blob){b.data, b.len}, &back), 0);
	cache_names_release(&s);
}

/* ---- looking ---- */

static int hash_file(void *data, const char *path, const struct stat *st, struct digest *ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : digest_of_fd(fd, ret, NULL);
}

static const struct cache_look_ops ops = {.digest = hash_file};

static struct digest state_of(const char *const *list)
{
	struct cache_look *l = cache_look_new(&ops, NULL);
	struct cache_names s = {0};
	struct digest d;
	size_t n = 0;
	char **v;

	while (list[n])
		n++;
	v = xcalloc(n + 1, sizeof(*v));
	for (size_t i = 0; i < n; i++)
		v[i] = xasprintf("%c%s/%s", list[i][0], tmp, list[i] + 1);
	cache_names_add(&s, v, n);
	cr_assert_eq(cache_look_state(l, &s, &d, NULL), 0);
	cache_names_release(&s);
	cache_look_free(l);
	return d;
}

/* Does doing this make another state of these names? */
#define CHANGES(list, what)                                                                        \
	({                                                                                         \
		struct digest before = state_of(list), after;                                      \
		cr_assert_eq(system(what), 0);                                                     \
		after = state_of(list);                                                            \
		!digest_eq(&before, &after);                                                       \
	})

Test(cache, what_changes_a_state)
{
	static const char *const read[] = {"rf", NULL}, *const look[] = {"lf", NULL},
				 *const follow[] = {"sl", NULL}, *const link[] = {"kl", NULL},
				 *const lists[] = {"dd", NULL}, *const written[] = {"wf", NULL},
				 *const output[] = {"lf", "wf", NULL},
				 *const place[] = {"pl", NULL}, *const absent[] = {"ln/o", NULL},
				 *const times[] = {"tf", NULL},
				 *const time_of_link[] = {"tl", NULL},
				 *const time_of_dir[] = {"td", NULL};

	cr_assert_eq(system("echo one >f; mkdir d; ln -s f l"), 0);
	cr_assert(CHANGES(read, "echo two >f"));
	cr_assert(CHANGES(read, "chmod 600 f"));
	cr_assert_not(CHANGES(read, "touch -d 2001-01-01 f"));
	cr_assert(CHANGES(times, "touch -d 2001-01-02 f"));
	cr_assert(CHANGES(times, "ln f same"));
	cr_assert(CHANGES(times, "rm same"));
	cr_assert(CHANGES(time_of_link, "touch -d 2001-01-03 f"));
	cr_assert(CHANGES(time_of_link, "touch -h -d 2001-01-04 l"));
	cr_assert_not(CHANGES(time_of_dir, "touch -d 2001-01-05 d"));
	cr_assert_not(CHANGES(look, "echo six >f"));
	cr_assert(CHANGES(look, "echo seven >f"));
	cr_assert(CHANGES(look, "mv f g"));
	cr_assert(CHANGES(look, "mkdir f"));
	cr_assert_eq(system("rmdir f; mv g f"), 0);
	cr_assert_not(CHANGES(follow, "echo eight >g"));
	cr_assert(CHANGES(follow, "ln -sfn d l"));
	cr_assert(CHANGES(link, "ln -sfn ./d l"));
	cr_assert_not(CHANGES(place, "echo x >d/y"));
	cr_assert(CHANGES(place, "rm l; cp f l"));
	cr_assert(CHANGES(lists, "touch d/x"));
	cr_assert_not(CHANGES(lists, "echo x >d/x"));
	cr_assert_not(CHANGES(written, "echo much more than there was >f"));
	cr_assert_not(CHANGES(output, "echo of another size >f"));
	cr_assert(CHANGES(output, "> f"));
	cr_assert(CHANGES(output, "echo x >f; chmod 644 f"));
	cr_assert(CHANGES(written, "rm f"));
	cr_assert(CHANGES(absent, "touch n")); /* not there, but for another reason */
	cr_assert(CHANGES(absent, "rm n; mkdir n; touch n/o"));
}

Test(cache, where_it_is_made_counts)
{
	static const char *const made[] = {"mo/f", NULL}, *const through[] = {"ml", NULL},
				 *const dir[] = {"mo/", NULL}, *const in_file[] = {"mp/f/", NULL};

	cr_assert_eq(system("mkdir d1 d2 p; touch p/f; ln -s d1 o; ln -s o/x l"), 0);
	cr_assert_not(CHANGES(made, "touch d1/y d1/f"));
	cr_assert(CHANGES(made, "ln -sfn d2 o"));
	cr_assert(CHANGES(through, "ln -sfn d1 o"));
	cr_assert_not(CHANGES(through, "touch o/x"));
	cr_assert_not(CHANGES(dir, "ln -sfn d1 o"));
	cr_assert(CHANGES(made, "rm o"));
	cr_assert(CHANGES(through, "mkdir o"));
	/* EISDIR in a directory, whatever f is, and ENOTDIR in a file. */
	cr_assert(CHANGES(in_file, "rm -r p; touch p"));
}

static void fingerprints_of(const struct cache_names *s, uint64_t *ret)
{
	struct cache_look *l = cache_look_new(&ops, NULL);
	struct digest d;

	cr_assert_eq(cache_look_state(l, s, &d, ret), 0);
	cache_look_free(l);
}

/* Many names in one look, and each in one of its own, would be at the same places. */
Test(cache, where_what_is_absent_would_be)
{
	static const char *const ways[] = {
		"a",
		"a/",
		"a/b",
		"a/b/c",
		"a/b/c/d",
		"a/b/../x",
		"a//b",
		"a/bc",
		"ab/c",
		"d/x",
		"d/y/z",
		"d/y/w",
		"d/../q",
		"d/./q",
		"f/x",
		"f/x/y",
		"l/x",
		"l/y/z",
		"lf/x",
		"none",
		"none/x",
		"none/x/y",
		"none/y",
		"to/x",
		"to/x/y",
		"round",
		"round/x",
		"d/l",
		"d/l/x",
		"d/none/x",
		"closed",
		"f/z",
		"ax",
		"ax/l",
		"ax/q",
		"../nothing/x",
		"../nothing/y/z",
	};
	char *full[2 * N_OF(ways) + 1] = {0};
	uint64_t together[2 * N_OF(ways)], alone;
	struct cache_names s;

	cr_assert_eq(
		system("mkdir -p d e ax; ln -s ../e/no ax/l; touch f; ln -s d l; ln -s f lf; ln -s nowhere/at none;"
		       "ln -s e/gone to; ln -s round round; ln -s ../a/b d/l"),
		0);
	for (size_t i = 0; full[2 * N_OF(ways) - 1] == NULL; i++)
		full[i] = xasprintf("%c%s/%s", i % 2 ? TRACE_WAY : TRACE_LOOK, tmp, ways[i / 2]);
	s = names_of((const char *const *)full);
	cr_assert_eq(s.n, 2 * N_OF(ways));
	fingerprints_of(&s, together);
	for (size_t i = 0; i < s.n; i++) {
		const char *const one[] = {s.v[i], NULL};
		struct cache_names single = names_of(one);

		fingerprints_of(&single, &alone);
		cr_expect_eq(together[i], alone, "%s", s.v[i]);
		cache_names_release(&single);
	}
	cache_names_release(&s);
	for (size_t i = 0; full[i]; i++)
		free(full[i]);
}

static unsigned n_steady;

static bool always_steady(void *data, const char *dir, const struct stat *st)
{
	n_steady++;
	return true;
}

/* What is remembered of directories never makes another state than that of a first look. */
Test(cache, absent_names_are_remembered_no_longer_than_true)
{
	static const struct cache_look_ops remembering = {
		.digest = hash_file,
		.shows_changes = always_steady,
	};
	/* Changes within a tick of the clock are for shows_changes() to tell. */
	static const char *const steps[] = {
		"mkdir x y",
		"echo 1 >x/a; touch -d 2001-01-01 x",
		"rm x/a; touch -d 2001-01-02 x",
		"ln -s nowhere x/b; touch -d 2001-01-03 x",
		"mv x z",
		"ln -s y x",
		"echo 2 >y/a; touch -d 2001-01-04 y",
		"ln -sfn z x",
		"rm x; touch x",
		"rm x; mkdir x; touch -d 2001-01-05 x",
		"mkdir x/c; touch -d 2001-01-06 x",
		"chmod 000 y; chmod 700 y",
	};
	_cleanup_free_ char *a = xasprintf("r%s/x/a", tmp), *b = xasprintf("l%s/x/b", tmp),
			    *c = xasprintf("s%s/x/c/", tmp), *d = xasprintf("r%s/x/c/e", tmp);
	const char *const list[] = {a, b, c, d, NULL}, *const same[] = {"rx/a", "lx/b", "sx/c/",
									"rx/c/e", NULL};
	struct cache_look *l = cache_look_new(&remembering, NULL);
	struct cache_names s = names_of(list);
	struct digest now, first;

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		cr_assert_eq(system(steps[i]), 0);
		first = state_of(same);
		for (unsigned again = 0; again < 2; again++) {
			cr_assert_eq(cache_look_state(l, &s, &now, NULL), 0);
			cr_assert(digest_eq(&now, &first), "after %s", steps[i]);
		}
	}
	cr_assert_gt(n_steady, 0);
	cache_names_release(&s);
	cache_look_free(l);
}

static char asked[PATH_MAX], often[PATH_MAX];
static unsigned n_often;

static bool same_as_asked(void *data, const char *path, const struct stat *st)
{
	(void)snprintf(asked, sizeof(asked), "%s", path);
	return false;
}

static void note_often(void *data, const char *dir)
{
	(void)snprintf(often, sizeof(often), "%s", dir);
	n_often++;
}

static void look_often(struct cache_look *l, const struct cache_names *s, unsigned times)
{
	struct digest d;

	while (times--)
		cr_assert_eq(cache_look_state(l, s, &d, NULL), 0);
}

/* A compiler's "lib/gcc/../../include" is where the tree has it by another name. */
Test(cache, what_changes_is_asked_by_real_paths)
{
	static const struct cache_look_ops asking = {
		.digest = hash_file,
		.is_same = same_as_asked,
		.shows_changes = always_steady,
		.looks_often = note_often,
	};
	_cleanup_free_ char *a = xasprintf("s%s/x/../l/a", tmp),
			    *b = xasprintf("s%s/x/../l/b", tmp), *real_b = xasprintf("%s/y/b", tmp),
			    *moved_b = xasprintf("%s/z/b", tmp);
	const char *const list[] = {a, b, NULL};
	struct cache_look *l = cache_look_new(&asking, NULL);
	struct cache_names s = names_of(list);

	cr_assert_eq(system("mkdir x y; ln -s y l; touch y/a y/b"), 0);
	look_often(l, &s, 2);
	cr_expect_str_eq(asked, real_b);
	cr_expect_eq(n_often, 0);
	look_often(l, &s, 300);
	cr_expect_geq(n_often, 1);
	cr_expect_eq(strncmp(often, real_b, strlen(often)), 0);
	/* Another directory is there now. */
	cr_assert_eq(system("mv y z; ln -sfn z l; touch z/c"), 0);
	look_often(l, &s, 2);
	cr_expect_str_eq(asked, moved_b);
	cache_names_release(&s);
	cache_look_free(l);
}

/* As the one header of a directory is by most of a project's sources. */
Test(cache, a_single_name_is_looked_at_often)
{
	static const struct cache_look_ops telling = {
		.digest = hash_file,
		.shows_changes = always_steady,
		.looks_often = note_often,
	};
	_cleanup_free_ char *a = xasprintf("s%s/x/a", tmp), *x = xasprintf("%s/x", tmp);
	const char *const list[] = {a, NULL};
	struct cache_look *l = cache_look_new(&telling, NULL);
	struct cache_names s = names_of(list);

	cr_assert_eq(system("mkdir x; touch x/a"), 0);
	look_often(l, &s, 2);
	cr_expect_eq(n_often, 0);
	look_often(l, &s, 300);
	cr_expect_geq(n_often, 1);
	cr_expect_str_eq(often, x);
	cache_names_release(&s);
	cache_look_free(l);
}

/* What a person is told of one name after something was done to it. */
static const char *told(const char *name, const char *what)
{
	struct cache_look *l = cache_look_new(&ops, NULL);
	_cleanup_free_ char *full = xasprintf("%c%s/%s", name[0], tmp, name + 1);
	const char *const list[] = {full, NULL};
	struct cache_names s = names_of(list);
	uint64_t was, is;
	struct digest d;

	cr_assert_eq(cache_look_state(l, &s, &d, &was), 0);
	cr_assert_eq(system(what), 0);
	cr_assert_eq(cache_look_state(l, &s, &d, &is), 0);
	cr_assert_neq(was, is);
	cache_names_release(&s);
	cache_look_free(l);
	return cache_look_change(name[0], was, is);
}

Test(cache, what_changed_is_told_in_words)
{
	cr_assert_str_eq(told("rx/h.h", "mkdir x; echo 1 >x/h.h"), "exists now");
	cr_assert_str_eq(told("rx/h.h", "echo 2 >x/h.h"), "changed");
	cr_assert_str_eq(told("xx/h.h", "echo 3 >x/h.h"), "changed");
	cr_assert_str_eq(told("dx", "echo 3 >x/i.h"), "has other names in it");
	cr_assert_str_eq(told("sx", "chmod 700 x"), "has another type, mode, owner or size");
	cr_assert_str_eq(told("rx/h.h", "rm -r x; echo 1 >x"), "is gone");
	cr_assert_str_eq(told("rx/h.h", "rm x; mkdir x; echo 1 >x/h.h"), "exists now");
	cr_assert_eq(system("ln -s x l"), 0);
	cr_assert_str_eq(told("kl", "ln -sfn y l"), "leads elsewhere");
}

/* #pragma once knows a header again by its inode, or by its bytes and time. */
Test(cache, which_files_are_the_same_counts)
{
	static const char *const two[] = {"ra", "rb", NULL};

	cr_assert_eq(system("echo x >a; cp a b; touch -d 2001-01-01 a; touch -d 2002-01-01 b"), 0);
	cr_assert(CHANGES(two, "touch -r a b"));
	cr_assert(CHANGES(two, "ln -f a b"));
	cr_assert_not(CHANGES(two, "touch -d 2003-01-01 a"));
}

/* ---- entries ---- */

static struct cache_entry an_entry(struct cache_store *s)
{
	struct cache_entry e = {.n_effects = 2};

	e.workspaces = xcalloc(1, sizeof(char *));
	strv_push(&e.workspaces, xstrdup("/w"));
	e.effects = xcalloc(2, sizeof(*e.effects));
	e.effects[0] = (struct msg_file){.kind = EFFECT_FILE,
					 .mode = 0644,
					 .size = 3,
					 .path = xstrdup("a.o"),
					 .target = xstrdup("")};
	if (s)
		cr_assert_eq(cache_put_bytes(s, "abc", 3, &e.effects[0].digest), 0);
	e.effects[1] = (struct msg_file){
		.kind = EFFECT_REMOVE, .path = xstrdup("b"), .target = xstrdup("")};
	buf_put_u8(&e.output, 2);
	buf_put_blob(&e.output, "warning", 7);
	e.input = 7;
	e.utime_us = 5;
	e.announced = true;
	e.worker = xstrdup("w1");
	e.n_fingerprints = 2;
	e.fingerprints = xcalloc(2, sizeof(uint64_t));
	return e;
}

Test(cache, an_entry_comes_back_or_is_refused)
{
	struct cache_entry e = an_entry(NULL), back;
	_cleanup_buf_ struct buf b = BUF_INIT;

	cache_entry_encode(&b, &e);
	cr_assert_eq(cache_entry_decode((struct blob){b.data, b.len}, &back), 0);
	cr_assert_eq(back.n_effects, 2);
	cr_assert_str_eq(back.effects[0].path, "a.o");
	cr_assert_str_eq(back.worker, "w1");
	cr_assert(back.announced);
	cr_assert_eq(back.output.len, e.output.len);
	cache_entry_release(&back);
	for (size_t n = 0; n < b.len; n++)
		cr_assert_lt(cache_entry_decode((struct blob){b.data, n}, &back), 0);
	e.effects[0].workspace = 1; /* there is one */
	buf_reset(&b);
	cache_entry_encode(&b, &e);
	cr_assert_lt(cache_entry_decode((struct blob){b.data, b.len}, &back), 0);
	e.effects[0].workspace = 0;
	e.output.data[0] = 3; /* a stream that there is not */
	buf_reset(&b);
	cache_entry_encode(&b, &e);
	cr_assert_lt(cache_entry_decode((struct blob){b.data, b.len}, &back), 0);
	e.output.data[0] = 2;
	for (int i = 0; i < 4; i++) {
		uint64_t *used[] = {&e.utime_us, &e.stime_us, &e.wall_us, &e.maxrss_kb};

		for (uint64_t more = 0; more < 2; more++) {
			back = (struct cache_entry){0};
			*used[i] = PROTO_USED_MAX + more;
			buf_reset(&b);
			cache_entry_encode(&b, &e);
			cr_assert_eq(cache_entry_decode((struct blob){b.data, b.len}, &back),
				     more ? CONCC_E_PROTO : 0, "%d", i);
			cache_entry_release(&back);
		}
		*used[i] = 0;
	}
	cache_entry_release(&e);
}

/* ---- the store ---- */

static struct cache_store *open_store(uint64_t max)
{
	struct cache_store *s = NULL;
	struct errmsg msg = {0};

	cr_assert_eq(cache_store_open(dir, max, &s, &msg), 0, "%s", msg.text);
	return s;
}

static struct digest key(int n)
{
	struct digest d;

	digest_of(&n, sizeof(n), &d);
	return d;
}

Test(cache, a_result_is_found_by_call_set_and_state)
{
	struct cache_store *s = open_store(1 << 30);
	struct digest call = key(1), set = key(2), state = key(3);
	struct cache_variant variants[CACHE_VARIANTS_MAX];
	struct cache_entry e = an_entry(s), back;
	_cleanup_buf_ struct buf b = BUF_INIT;
	size_t n = 0;

	cr_assert_eq(cache_get_variants(s, &call, variants, &n), -ENOENT);
	cr_assert_eq(cache_put_entry(s, &call, &set, &state, &e), 0);
	cr_assert_eq(cache_add_variant(s, &call, &(struct cache_variant){set, state}), 0);
	cr_assert_eq(cache_get_variants(s, &call, variants, &n), 0);
	cr_assert(n == 1 && digest_eq(&variants[0].set, &set) &&
		  digest_eq(&variants[0].state, &state));
	cr_assert_eq(cache_get_entry(s, &call, &set, &state, &back), 0);
	cr_assert_eq(cache_get_bytes(s, &back.effects[0].digest, 100, &b), 0);
	cr_assert(b.len == 3 && memcmp(b.data, "abc", 3) == 0);
	cache_entry_release(&back);
	cr_assert_eq(cache_get_entry(s, &call, &state, &set, &back), -ENOENT);
	cache_entry_release(&e);
	cache_store_close(s);
}

static void see(struct cache_store *s, int set, int state)
{
	struct digest call = key(1);
	struct cache_variant variant = {key(set), key(state)};

	cr_assert_eq(cache_add_variant(s, &call, &variant), 0);
}

static size_t variants_of(struct cache_store *s, struct cache_variant *ret)
{
	struct digest call = key(1);
	size_t n = 0;

	cr_assert_eq(cache_get_variants(s, &call, ret, &n), 0);
	return n;
}

Test(cache, a_result_in_the_place_of_another_is_none)
{
	struct cache_store *s = open_store(1 << 30);
	struct digest call = key(1), set = key(2), one = key(3), two = key(4), d;
	struct cache_entry e = an_entry(s), back;
	struct cache_key from = {CACHE_RESULT}, to = {CACHE_RESULT};
	_cleanup_buf_ struct buf b = BUF_INIT;

	cr_assert_eq(cache_put_entry(s, &call, &set, &one, &e), 0);
	cache_entry_key(&call, &(struct cache_variant){set, one}, &from.digest);
	cache_entry_key(&call, &(struct cache_variant){set, two}, &to.digest);
	cr_assert_eq(cache_read_object(s, &from, 1 << 20, &b), 0);
	cr_assert_eq(cache_write_object(s, &to, &b), CONCC_E_PROTO);
	cr_assert_eq(cache_write_object(s, &from, &b), 0);
	cr_assert_eq(cache_get_entry(s, &call, &set, &two, &back), -ENOENT);
	digest_of(b.data, b.len, &d);
	cr_assert_eq(cache_write_object(s, &(struct cache_key){CACHE_BYTES, d}, &b), 0);
	cr_assert_eq(cache_write_object(s, &(struct cache_key){CACHE_BYTES, one}, &b),
		     CONCC_E_PROTO);
	cr_assert_eq(cache_write_object(s, &(struct cache_key){CACHE_VARIANTS, call}, &b),
		     CONCC_E_PROTO);
	cache_entry_release(&e);
	cache_store_close(s);
}

Test(cache, sets_used_last_come_first_and_are_bounded)
{
	struct cache_store *s = open_store(1 << 30);
	struct cache_variant variants[CACHE_VARIANTS_MAX];

	for (int i = 0; i < CACHE_VARIANTS_MAX + 3; i++)
		see(s, 100 + i, 1);
	see(s, 126, 1);
	cr_assert_eq(variants_of(s, variants), CACHE_VARIANTS_MAX);
	for (int i = 0; i < CACHE_VARIANTS_MAX; i++) {
		int at = i == 0 ? 126 : i <= 8 ? 135 - i : 134 - i;
		struct digest d = key(at);

		cr_assert(digest_eq(&variants[i].set, &d), "%d is not %d", i, at);
	}
	cache_store_close(s);
}

Test(cache, states_of_one_set_push_no_other_set_out)
{
	struct cache_store *s = open_store(1 << 30);
	struct cache_variant variants[CACHE_VARIANTS_MAX];
	struct digest other = key(100);
	size_t n;

	see(s, 100, 1);
	for (int i = 0; i < 100; i++)
		see(s, 101, i);
	n = variants_of(s, variants);
	cr_assert_eq(n, CACHE_STATES_MAX + 1);
	for (int i = 0; i < CACHE_STATES_MAX; i++) {
		struct digest d = key(99 - i);

		cr_assert(digest_eq(&variants[i].state, &d));
	}
	cr_assert(digest_eq(&variants[n - 1].set, &other));
	cache_store_close(s);
}

static struct stat file_of_variants(void)
{
	struct digest call = key(1);
	_cleanup_free_ char *path = NULL;
	char hex[DIGEST_HEX];
	struct stat st;

	digest_hex(&call, hex);
	path = xasprintf("%s/w/%.1s/%s", dir, hex, hex + 1);
	cr_assert_eq(stat(path, &st), 0);
	return st;
}

/* A file system takes long to put a file in the place of another: that is seldom. */
Test(cache, variants_come_behind_each_other)
{
	struct cache_store *s = open_store(1 << 30);
	struct cache_variant variants[CACHE_VARIANTS_MAX];
	ino_t ino = 0;
	int files = 0;

	for (int i = 0; i < 500; i++) {
		struct digest newest = key(1000 + i);
		struct stat st;

		see(s, 1000 + i, 2000 + i);
		st = file_of_variants();
		files += st.st_ino != ino;
		ino = st.st_ino;
		cr_assert_leq(st.st_size, 4096);
		cr_assert_eq(variants_of(s, variants),
			     i < CACHE_VARIANTS_MAX ? (size_t)i + 1 : CACHE_VARIANTS_MAX);
		cr_assert(digest_eq(&variants[0].set, &newest));
	}
	cr_assert_leq(files, 500 / 8);
	cache_store_close(s);
}

/* All objects, by path. */
static char **objects(void)
{
	char **v = xcalloc(1, sizeof(*v)), line[512];
	_cleanup_free_ char *cmd = xasprintf("find %s/[bcrw] -type f 2>/dev/null | sort", dir);
	FILE *f = popen(cmd, "re");

	cr_assert(f);
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		strv_push(&v, xstrdup(line));
	}
	pclose(f);
	return v;
}

/* A byte of each object is wrong, or its end is missing: none of it is ever given out. */
static void damage(bool cut)
{
	struct cache_store *s = open_store(1 << 30);
	struct digest call = key(1), set = key(2), state = key(3), d;
	struct cache_variant variants[CACHE_VARIANTS_MAX];
	struct cache_entry e = an_entry(s), back;
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_strv_ char **v = NULL, **left = NULL;
	size_t n;

	d = e.effects[0].digest;
	cr_assert_eq(cache_put_entry(s, &call, &set, &state, &e), 0);
	see(s, 2, 3);
	cache_entry_release(&e);
	v = objects();
	cr_assert_eq(strv_len(v), 3);
	for (char **o = v; *o; o++) {
		struct stat st;
		int fd = open(*o, O_RDWR | O_CLOEXEC);
		char c;

		cr_assert(fd >= 0 && fstat(fd, &st) == 0);
		if (cut) {
			cr_assert_eq(ftruncate(fd, st.st_size - 1), 0);
		} else {
			cr_assert_eq(pread(fd, &c, 1, st.st_size / 2), 1);
			c ^= 1;
			cr_assert_eq(pwrite(fd, &c, 1, st.st_size / 2), 1);
		}
		close(fd);
	}
	cr_assert_eq(cache_get_variants(s, &call, variants, &n), -ENOENT);
	cr_assert_eq(cache_get_entry(s, &call, &set, &state, &back), -ENOENT);
	cr_assert_eq(cache_get_bytes(s, &d, 100, &b), -ENOENT);
	left = objects();
	cr_assert_eq(strv_len(left), 0, "what is damaged stays");
	cache_store_close(s);
}

Test(cache, a_wrong_byte)
{
	damage(false);
}

Test(cache, cut_short)
{
	damage(true);
}

/* ---- what is kept of a call first ---- */

static void put_first(struct cache_store *s, const struct digest *call, struct cache_variant *ret)
{
	struct cache_entry e = an_entry(NULL);
	struct cache_first_file files[2] = {{.bytes = {(const uint8_t *)"abc", 3}},
					    {.bytes = {(const uint8_t *)"", 0}}};
	_cleanup_buf_ struct buf entry = BUF_INIT;
	struct cache_first f = {.set = {(const uint8_t *)"names", 5}, .n_files = 2, .files = files};

	for (int i = 0; i < 2; i++)
		digest_of(files[i].bytes.p, files[i].bytes.n, &files[i].digest);
	digest_of("names", 5, &f.variant.set);
	f.variant.state = key(3);
	cache_entry_encode(&entry, &e);
	f.entry = (struct blob){entry.data, entry.len};
	cr_assert(cache_is_new(s, call));
	cr_assert_eq(cache_put_first(s, call, &f), 0);
	cr_assert_not(cache_is_new(s, call));
	cache_entry_release(&e);
	*ret = f.variant;
}

Test(cache, what_is_kept_first_is_one_object)
{
	struct cache_store *s = open_store(1 << 30);
	struct digest call = key(1), abc, other = key(5);
	struct cache_first f = {0}, none = {0};
	struct cache_variant variant, all[CACHE_VARIANTS_MAX];
	_cleanup_strv_ char **v = NULL;
	struct cache_entry back;
	size_t n = 0;

	put_first(s, &call, &variant);
	v = objects();
	cr_assert_eq(strv_len(v), 1);
	cr_assert_eq(cache_get_first(s, &call, &f), 0);
	cache_first_add(&none, all, &n);
	cr_assert_eq(n, 0);
	cache_first_add(&f, all, &n);
	cache_first_add(&f, all, &n);
	cr_assert(n == 1 && memcmp(&all[0], &variant, sizeof(variant)) == 0);
	digest_of("abc", 3, &abc);
	cr_assert(cache_first_file(&f, &abc)->n == 3 &&
		  memcmp(cache_first_file(&f, &abc)->p, "abc", 3) == 0);
	cr_assert_null(cache_first_file(&f, &other));
	cr_assert_eq(cache_first_set(&f, &variant.set)->n, 5);
	cr_assert_null(cache_first_set(&f, &other));
	cr_assert_null(cache_first_set(&none, &none.variant.set));
	cr_assert(cache_first_seems_of(s, &call, &variant.set));
	cr_assert_not(cache_first_seems_of(s, &call, &other));
	cr_assert_not(cache_first_seems_of(s, &other, &variant.set));
	cr_assert_eq(cache_first_entry(&f, &variant, &back), 0);
	cr_assert_str_eq(back.effects[0].path, "a.o");
	cache_entry_release(&back);
	variant.state = other;
	cr_assert_eq(cache_first_entry(&f, &variant, &back), -ENOENT);
	cr_assert_eq(cache_first_entry(&none, &none.variant, &back), -ENOENT);
	cache_first_release(&f);
	cr_assert_eq(cache_clear(s), 0);
	cr_assert(cache_is_new(s, &call));
	cache_store_close(s);
}

static void change_byte(const char *path, off_t at)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t c;

	cr_assert(fd >= 0 && pread(fd, &c, 1, at) == 1);
	c ^= 1;
	cr_assert_eq(pwrite(fd, &c, 1, at), 1);
	close(fd);
}

/* Whichever byte is wrong, wherever it ends, and by the name of another call, it is none. */
Test(cache, what_is_kept_first_is_whole_or_none)
{
	struct cache_store *s = open_store(1 << 30);
	struct digest call = key(1), other = key(2);
	struct cache_variant variant;
	struct cache_first f = {0};
	_cleanup_strv_ char **v = NULL;
	_cleanup_free_ char *path = NULL;
	char hex[DIGEST_HEX];
	struct stat st;

	put_first(s, &call, &variant);
	v = objects();
	cr_assert_eq(stat(v[0], &st), 0);
	for (off_t at = 0; at < 2 * st.st_size; at++) {
		if (at < st.st_size)
			change_byte(v[0], at);
		else
			cr_assert_eq(truncate(v[0], at - st.st_size), 0);
		cr_assert_eq(cache_get_first(s, &call, &f), -ENOENT, "byte %ld", (long)at);
		put_first(s, &call, &variant);
	}
	digest_hex(&other, hex);
	path = xasprintf("%s/b/%.1s", dir, hex);
	(void)mkdir(path, 0700);
	free(path);
	path = xasprintf("%s/b/%.1s/%s", dir, hex, hex + 1);
	cr_assert_eq(rename(v[0], path), 0);
	cr_assert_eq(cache_get_first(s, &other, &f), -ENOENT);
	cache_store_close(s);
}

/* Killed at whatever moment, a writer leaves a whole object or none. */
Test(cache, killed_while_it_writes)
{
	static char bytes[300000];
	struct cache_store *s = open_store(1 << 30);

	for (int round = 0; round < 30; round++) {
		_cleanup_strv_ char **v = NULL;
		int fds[2], status;
		pid_t pid;
		char c;

		cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
		pid = fork();
		if (pid == 0) {
			(void)!write(fds[1], "x", 1);
			for (unsigned i = 0;; i++) {
				struct digest d;

				memcpy(bytes, &i, sizeof(i));
				memcpy(bytes + 8, &round, sizeof(round));
				(void)cache_put_bytes(s, bytes, sizeof(bytes), &d);
			}
		}
		close(fds[1]);
		cr_assert_eq(read(fds[0], &c, 1), 1);
		/* Somewhere in its work, which differs from round to round. */
		for (int i = 0; i < round * 2000; i++)
			__asm__ volatile("" ::: "memory");
		kill(pid, SIGKILL);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		close(fds[0]);
		v = objects();
		for (char **o = v; *o; o++) {
			struct stat st;

			cr_assert_eq(stat(*o, &st), 0);
			cr_assert_eq(st.st_size, (off_t)sizeof(bytes), "%s is not whole", *o);
		}
	}
	cache_store_close(s);
}

Test(cache, two_processes_at_once)
{
	struct cache_store *s = open_store(1 << 30);
	struct digest call = key(1);
	pid_t pids[2];

	for (int p = 0; p < 2; p++) {
		pids[p] = fork();
		if (pids[p])
			continue;
		for (int i = 0; i < 200; i++) {
			struct cache_variant one = {key(i), key(i)}, variants[CACHE_VARIANTS_MAX];
			struct digest d;
			size_t n;

			if (cache_add_variant(s, &call, &one) < 0 ||
			    cache_get_variants(s, &call, variants, &n) < 0 ||
			    cache_put_bytes(s, &i, sizeof(i), &d) < 0)
				_exit(1);
			cache_count_hit(s, 1);
			cache_write_counts(s, i % 7 == 0);
		}
		cache_write_counts(s, true);
		_exit(0);
	}
	for (int p = 0; p < 2; p++) {
		int status;

		cr_assert_eq(waitpid(pids[p], &status, 0), pids[p]);
		cr_assert_eq(status, 0);
	}
	struct cache_counts c;

	cache_write_counts(s, true);
	cache_counts(s, &c);
	cr_assert_eq(c.hits, 400);
	cr_assert_eq(c.saved_us, 400);
	cache_store_close(s);
}

Test(cache, what_was_not_used_for_longest_goes)
{
	struct cache_store *s = open_store(16 * 4096);
	struct digest d[20];
	struct cache_counts c;

	for (int i = 0; i < 20; i++) {
		_cleanup_free_ char *path = NULL;
		char hex[DIGEST_HEX];
		struct timespec t[2] = {{.tv_sec = 1000 + i}, {.tv_sec = 1000 + i}};

		cr_assert_eq(cache_put_bytes(s, &i, sizeof(i), &d[i]), 0);
		digest_hex(&d[i], hex);
		path = xasprintf("%s/c/%.1s/%s", dir, hex, hex + 1);
		cr_assert_eq(utimensat(AT_FDCWD, path, t, 0), 0);
	}
	cr_assert(cache_has(s, &d[0])); /* which is a use */
	cr_assert(cache_is_full(s));
	cr_assert_eq(cache_trim(s), 0);
	cr_assert_not(cache_is_full(s));
	cache_counts(s, &c);
	cr_assert_leq(c.bytes, 16 * 4096);
	cr_assert(cache_has(s, &d[0]) && cache_has(s, &d[19]));
	cr_assert_not(cache_has(s, &d[1]));
	cr_assert_eq(cache_clear(s), 0);
	cr_assert_not(cache_has(s, &d[19]));
	cache_store_close(s);
}

Test(cache, a_folder_that_others_may_write_is_refused)
{
	struct cache_store *s = NULL;
	struct errmsg msg = {0};

	cr_assert_eq(path_mkdirs(dir, 0700), 0);
	cr_assert_eq(chmod(dir, 0777), 0);
	cr_assert_eq(cache_store_open(dir, 1 << 30, &s, &msg), CONCC_E_UNSAFE);
	cr_assert(strstr(msg.text, dir));
}

Test(cache, reasons_are_counted)
{
	struct cache_store *s = open_store(1 << 30);
	uint64_t n = 0;
	char why[32];

	cache_count_uncacheable(s, "time");
	cache_count_uncacheable(s, "script");
	cache_count_uncacheable(s, "time");
	cr_assert(cache_reason(s, 0, why, &n) && streq(why, "time") && n == 2);
	cr_assert(cache_reason(s, 1, why, &n) && streq(why, "script") && n == 1);
	cr_assert_not(cache_reason(s, 2, why, &n));
	for (int i = 0; i < 200; i++) {
		snprintf(why, sizeof(why), "reason-%d", i);
		cache_count_uncacheable(s, why);
	}
	cr_assert_not(cache_reason(s, 62, why, &n));
	cache_store_close(s);
}

/* ---- keys ---- */

static struct msg_run a_run(char **argv, char **env)
{
	return (struct msg_run){.flags = JOB_F_COMPILER,
				.umask = 022,
				.path = (char *)"/usr/bin/gcc",
				.exe = (char *)"/usr/bin/gcc",
				.cwd = (char *)"/w",
				.argv = argv,
				.env = env};
}

static struct digest call_of(const struct msg_run *m)
{
	struct cache_call c = {.run = m, .uid = 1000, .gid = 1000};
	struct digest d;

	cache_call_digest(&c, &d);
	return d;
}

Test(cache, what_makes_another_call)
{
	char *argv[] = {(char *)"gcc", (char *)"-c", (char *)"a.c", NULL};
	char *argv2[] = {(char *)"gcc", (char *)"-ca.c", NULL};
	char *env[] = {(char *)"LANG=C", (char *)"EDITOR=vi", NULL};
	char *env2[] = {(char *)"LANG=C", (char *)"EDITOR=ed", NULL};
	char *order[] = {(char *)"EDITOR=vi", (char *)"LANG=C", NULL};
	char *env3[] = {(char *)"LANG=de", (char *)"EDITOR=vi", NULL};
	char *env4[] = {(char *)"LANG=C", (char *)"CPATH=/x", NULL};
	struct msg_run m = a_run(argv, env), other = m;
	struct digest d = call_of(&m), o;

#define DIFFERS(change)                                                                            \
	do {                                                                                       \
		other = m;                                                                         \
		change;                                                                            \
		o = call_of(&other);                                                               \
		cr_assert_not(digest_eq(&d, &o), #change);                                         \
	} while (0)
	DIFFERS(other.argv = argv2);
	DIFFERS(other.cwd = (char *)"/v");
	DIFFERS(other.umask = 077);
	DIFFERS(other.env = env3);
	DIFFERS(other.env = env4);
	DIFFERS(other.flags |= JOB_F_TTY_ERR);
	DIFFERS(other.path = (char *)"gcc");
	DIFFERS(other.caller.limits[0].soft = 5);
	other = m;
	other.env = env2;
	o = call_of(&other);
	cr_assert(digest_eq(&d, &o), "no compiler reads EDITOR");
	other.env = order;
	o = call_of(&other);
	cr_assert(digest_eq(&d, &o), "no compiler sees their order");
	/* Of what is kept because its caller says so, all counts. */
	m.flags = JOB_F_KEEP | JOB_F_STDIN | JOB_F_INPUT_KNOWN;
	d = call_of(&m);
	DIFFERS(other.env = env2);
	DIFFERS(other.env = order);
	DIFFERS(other.flags |= JOB_F_NO_TIMES);
	DIFFERS(other.input = ((struct blob){(const uint8_t *)"x", 1}));
}

static const char *refuses(const char *word)
{
	char *args[] = {(char *)"-O2", (char *)word, NULL};

	return cache_refuses_args(args);
}

Test(cache, what_is_not_kept_by_what_files_say)
{
	cr_assert_null(refuses("a.c"));
	cr_assert_str_eq(refuses("-fplugin=x"), "plugin");
	cr_assert_str_eq(refuses("@gone"), "response-file");
	cr_assert_str_eq(refuses("-flto"), "response-file");
}

Test(cache, what_is_not_kept_by_its_words)
{
	static const struct {
		const char *exe, *word, *why;
	} cases[] = {
		{"/usr/bin/gcc", "-O2", NULL},
		{"/usr/bin/x86_64-linux-gnu-g++-12", "-O2", NULL},
		{"/usr/bin/clang-14", "-O2", NULL},
		{"/usr/bin/rustc", "-O", NULL},
		{"/usr/bin/javac", "-O", "unknown-program"},
		{"/bin/sh", "-c", "unknown-program"},
		{"/usr/bin/gcc", "@args", NULL}, /* what is in it is looked at later */
		{"/usr/bin/gcc", "-Wl,@args", "response-file"},
		{"/usr/bin/gcc", "-Wl,-z,@args", "response-file"},
		{"/usr/bin/gcc", "-fplugin=x.so", "plugin"},
		{"/usr/bin/gcc", "-specs=x", "specs"},
		{"/usr/bin/clang", "-fmodules", "modules"},
		{"/usr/bin/gcc", "-wrapper", "wrapper"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *argv[] = {(char *)"cc", (char *)cases[i].word, (char *)"a.c", NULL};
		char *env[] = {NULL};
		struct msg_run m = a_run(argv, env);
		const char *why;

		m.exe = (char *)cases[i].exe;
		why = cache_refuses(&m);
		if (cases[i].why)
			cr_assert(why && streq(why, cases[i].why), "%s %s: %s", cases[i].exe,
				  cases[i].word, why ? why : "kept");
		else
			cr_assert_null(why, "%s %s: %s", cases[i].exe, cases[i].word, why);
	}
	{
		char *argv[] = {(char *)"make", NULL}, *env[] = {(char *)"LD_PRELOAD=x", NULL};
		struct msg_run m = a_run(argv, env);

		m.exe = (char *)"/opt/bin/rustc";
		cr_assert(cache_is_rustc(&m) && !cache_refuses(&m));
		cr_assert(cache_reads_variable(&m, "EDITOR", 6), "a macro may");
		m.exe = (char *)"/usr/bin/make";
		m.flags = JOB_F_KEEP;
		cr_assert_null(cache_refuses(&m), "what its caller asks for");
		m.flags |= JOB_F_STDIN;
		cr_assert_str_eq(cache_refuses(&m), "stdin");
		m.flags |= JOB_F_INPUT_KNOWN;
		cr_assert_null(cache_refuses(&m));
	}
	cr_assert(cache_knows_tool("/usr/lib/gcc/x86_64-linux-gnu/12/cc1plus"));
	cr_assert(cache_knows_tool("/usr/bin/x86_64-linux-gnu-as"));
	cr_assert_not(cache_knows_tool("/usr/bin/make"));
}

/* Of what they say, for `concc why`; strings have no byte more than they need. */
Test(cache, how_calls_differ)
{
	char *longer = xcalloc(1, CACHE_SHOWN_MAX + 100), *want;
	const struct {
		const char *before, *now, *said;
	} cases[] = {
		{"b", "b", ""},
		{"a", "b", "argument b instead of a\n"},
		{NULL, "b", "argument b is new\n"},
		{"a", NULL, "argument a is missing\n"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct cache_parts before = {.argv = xcalloc(1, sizeof(char *))};
		struct cache_parts now = {.argv = xcalloc(1, sizeof(char *))};
		struct buf b = BUF_INIT;

		if (cases[i].before)
			strv_push(&before.argv, xstrdup(cases[i].before));
		if (cases[i].now)
			strv_push(&now.argv, xstrdup(cases[i].now));
		cr_assert_eq(cache_parts_compare(&before, &now, &b), *cases[i].said ? 1 : 0);
		buf_put_u8(&b, 0);
		cr_assert_str_eq((char *)b.data, cases[i].said);
		strv_free(before.argv);
		strv_free(now.argv);
		buf_release(&b);
	}
	{
		struct cache_parts before = {.argv = xcalloc(1, sizeof(char *))};
		struct cache_parts now = {.argv = xcalloc(1, sizeof(char *))};
		struct buf b = BUF_INIT;

		memset(longer, 'x', CACHE_SHOWN_MAX + 99);
		strv_push(&now.argv, longer);
		cr_assert_eq(cache_parts_compare(&before, &now, &b), 1);
		buf_put_u8(&b, 0);
		want = xasprintf("argument %.*s is new\n", CACHE_SHOWN_MAX, longer);
		cr_assert_str_eq((char *)b.data, want);
		free(want);
		strv_free(before.argv);
		strv_free(now.argv);
		buf_release(&b);
	}
}

/* ---- parts in the store ---- */

static void add_parts(struct cache_store *s, int by, int call)
{
	struct cache_parts w = {
		.call = key(call),
		.argv = xcalloc(1, sizeof(char *)),
		.names = xcalloc(1, sizeof(char *)),
	};
	struct digest d = key(by);

	strv_push(&w.argv, xasprintf("call %d", call));
	cr_assert_eq(cache_add_parts(s, &d, &w), 0);
	cache_parts_release(&w);
}

/* Those calls, the newest first; -1: no more. */
static void expect_parts(struct cache_store *s, int by, const int *calls)
{
	struct cache_parts all[CACHE_PARTS_KEPT];
	struct digest d = key(by);
	size_t n = 0;
	int r = cache_get_parts(s, &d, all, &n);

	cr_assert_eq(r, *calls < 0 ? -ENOENT : 0);
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *want = xasprintf("call %d", calls[i]);

		cr_assert_str_eq(all[i].argv[0], want);
		cache_parts_release(&all[i]);
	}
	cr_assert_eq(calls[n], -1);
}

static off_t size_of_parts(size_t *ret_n)
{
	_cleanup_free_ char *folder = xasprintf("%s/p", dir);
	DIR *d = opendir(folder);
	struct dirent *de;
	off_t size = 0;

	*ret_n = 0;
	cr_assert(d);
	while ((de = readdir(d))) {
		struct stat st;

		cr_assert_eq(fstatat(dirfd(d), de->d_name, &st, 0), 0);
		size += S_ISREG(st.st_mode) ? st.st_size : 0;
		*ret_n += S_ISREG(st.st_mode);
	}
	closedir(d);
	return size;
}

Test(cache, the_newest_parts_come_first_and_each_call_once)
{
	struct cache_store *s = open_store(1 << 30);
	off_t size;
	size_t n;

	expect_parts(s, 1, (const int[]){-1});
	for (int call = 10; call < 16; call++)
		add_parts(s, 1, call);
	add_parts(s, 2, 20);
	expect_parts(s, 1, (const int[]){15, 14, 13, 12, -1});
	add_parts(s, 1, 13);
	expect_parts(s, 1, (const int[]){13, 15, 14, 12, -1});
	expect_parts(s, 2, (const int[]){20, -1});
	size = size_of_parts(&n);
	add_parts(s, 1, 13); /* it is the newest already */
	add_parts(s, 2, 20);
	cr_assert_eq(size_of_parts(&n), size);
	cr_assert_eq(cache_clear(s), 0);
	expect_parts(s, 1, (const int[]){-1});
	add_parts(s, 1, 13);
	expect_parts(s, 1, (const int[]){13, -1});
	cache_store_close(s);
}

/* Of many calls there are few files, and no more than a share of the store. */
Test(cache, parts_are_bounded)
{
	struct cache_store *s = open_store(256 * 4096);
	size_t n;

	for (int i = 0; i < 3000; i++)
		add_parts(s, i, 10000 + i);
	cr_assert_leq(size_of_parts(&n), 32 * (4096 + 200));
	cr_assert_leq(n, 32);
	expect_parts(s, 2999, (const int[]){12999, -1});
	expect_parts(s, 0, (const int[]){-1});
	cache_store_close(s);
}

Test(cache, damaged_parts_are_none)
{
	for (int cut = 0; cut < 2; cut++) {
		struct cache_store *s = open_store(1 << 30);
		struct digest d = key(1);
		_cleanup_free_ char *path = NULL;
		struct stat st;
		char c;
		int fd;

		add_parts(s, 1, 10);
		path = xasprintf("%s/p/%x", dir, d.b[0] >> 4);
		fd = open(path, O_RDWR | O_CLOEXEC);
		cr_assert(fd >= 0 && fstat(fd, &st) == 0);
		cr_assert_eq(pread(fd, &c, 1, st.st_size - 1), 1);
		c ^= 1;
		cr_assert_eq(cut ? ftruncate(fd, st.st_size - 1)
				 : pwrite(fd, &c, 1, st.st_size - 1) - 1,
			     0);
		close(fd);
		expect_parts(s, 1, (const int[]){-1});
		cr_assert(access(path, F_OK) < 0, "what is damaged stays");
		add_parts(s, 1, 11);
		expect_parts(s, 1, (const int[]){11, -1});
		cr_assert_eq(cache_clear(s), 0);
		cache_store_close(s);
	}
}
