/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What a tree says of paths, and looks that go by it: never another state than that of a first
 * look. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cache.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "concc/tree.h"

static struct tree *tree;
static char root[] = "/tmp/concc-test-stamp.XXXXXX";
static unsigned n_digests;
static unsigned *noted; /* what is in files that are read: their first bytes */

#define N_NAMES_MAX 64

static void no_peer(void *data, unsigned peer, uint8_t type, const struct buf *payload)
{
}

static int hash_file(void *data, const char *path, const struct stat *st, struct digest *ret)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	int r = read_file_at(AT_FDCWD, path, 4096, &b);

	n_digests++;
	if (r >= 0)
		digest_of(b.data, b.len, ret);
	if (noted && r >= 0 && b.len)
		*noted |= 1u << b.data[0] % 32;
	return r < 0 ? r : 0;
}

static struct cache_place place(void *data, const char *dir, size_t n)
{
	struct tree_place p = tree_place(tree, dir, n);

	return (struct cache_place){p.dir, p.stamp, p.route};
}

static uint64_t version(void *data, const void *where, const char *name)
{
	return tree_name_version(tree, where, name);
}

static const char *served(void *data, const char *dir, size_t n)
{
	return tree_place_root(tree, dir, n);
}

static bool vouches(void *data, const void *where, const char *name, const struct stat *st)
{
	return tree_vouches(tree, where, name, st);
}

static bool is_same(void *data, const char *path, const struct stat *st)
{
	return tree_is_same(tree, path, st);
}

static bool shows_changes(void *data, const char *dir, const struct stat *st)
{
	return !stat_is_racy(st, clock_ns(), false);
}

static const struct cache_look_ops plain = {.digest = hash_file},
				   remembering = {
					   .digest = hash_file,
					   .is_same = is_same,
					   .shows_changes = shows_changes,
					   .place = place,
					   .vouches = vouches,
					   .version = version,
					   .root = served,
};

static void run(const char *what)
{
	cr_assert_eq(system(what), 0, "%s", what);
}

static void begin(void)
{
	static const struct tree_ops ops = {.send = no_peer};
	struct errmsg msg = {0};

	cr_assert(mkdtemp(root));
	cr_assert_eq(chdir(root), 0);
	cr_assert_eq(setenv("R", root, 1), 0);
	run("mkdir -p a/b/c e; echo 1 >a/f; echo 2 >a/b/g; ln -s b a/l; echo 3 >e/h");
	cr_assert_eq(tree_new(&ops, NULL, NULL, &tree, &msg), 0);
	cr_assert_eq(tree_serve(tree, root, true, &msg), 0);
}

static void know_all(void)
{
	static const char *const dirs[] = {"", "/a", "/a/b", "/a/b/c", "/e"};

	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		_cleanup_free_ char *dir = xasprintf("%s%s", root, dirs[i]);

		(void)tree_know(tree, dir);
	}
	cr_assert_eq(tree_drain(tree), 0);
}

static void end(void)
{
	tree_free(tree);
	cr_assert_eq(chdir("/"), 0);
	_cleanup_free_ char *rm = xasprintf("chmod -R u+rwx %s/; rm -rf %s %s.moved", root, root,
					    root);
	run(rm);
}

static uint64_t stamp_at(const char *rel)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", root, rel);

	cr_assert_eq(tree_drain(tree), 0);
	return tree_place(tree, path, strlen(path)).stamp;
}

/* Whatever is done there or on the way is another stamp, and what is done elsewhere is none. */
Test(stamp, is_another_one_after_each_change)
{
	static const struct {
		const char *path, *change, *elsewhere;
	} all[] = {
		{"a/b", "echo 9 >a/b/g", "echo 8 >a/f"},
		{"a/b", "chmod 600 a/b/g", "chmod 600 a/f"},
		{"a/b", "touch a/b/new", "touch a/new"},
		{"a/b", "mv a/b/new a/b/newer", "mv a/new a/newer"},
		{"a/b",
		 "mv a/b a/x && mkdir a/b && rmdir a/x/c && rm -r a/b && mv a/x a/b && mkdir a/b/c",
		 ":"},
		{"a/b/c", "chmod 700 a", "touch a/b/d"},
		{"a/b/c", "chmod 711 a/b", "rm a/b/d"},
		{"a/b/../../e", "echo 5 >e/h", "touch a/b/c/q"},
		{"a/./b//", "rm a/b/newer", "rm a/newer"},
		/* There is none. */
		{"a/no/such", "mkdir a/no", "mkdir e/no"},
		{"a/b/c/../no", "touch a/b/no", "touch a/f"},
	};

	begin();
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		uint64_t before, after;

		know_all();
		before = stamp_at(all[i].path);
		run(all[i].elsewhere);
		cr_expect_neq(before, 0, "%s", all[i].path);
		cr_expect_eq(stamp_at(all[i].path), before, "%s: %s", all[i].path,
			     all[i].elsewhere);
		run(all[i].change);
		after = stamp_at(all[i].path);
		cr_expect_neq(after, before, "%s: %s", all[i].path, all[i].change);
	}
	end();
}

/* What its directory's stamp can't tell, since that changes with each name in it. */
Test(stamp, tells_names_of_a_directory_apart)
{
	static const struct {
		const char *dir, *name, *change;
		bool another_route, another_version;
	} all[] = {
		{"a", "f", "touch a/o", false, false},
		{"a", "f", "echo 9 >a/f", false, true},
		{"a", "f", "chmod 600 a/f", false, true},
		{"a", "f", "touch a/f", false, true},
		{"a", "f", "mv a/f a/f2; echo 9 >a/f", false, true},
		{"a", "f", "rm a/f", false, true},
		{"a", "f", "touch a/o2", false, false},
		{"a", "f", "echo 1 >a/f", false, true},
		{"a", "l", "rm a/o", false, false},
		{"a", "l", "ln -sfn c a/l", false, true},
		{"a", "none", "touch a/o", false, false},
		{"a", "none", "touch a/none", false, true},
		{"a/b", "g", "chmod 700 a", true, true},
		{"a/b", "g", "touch a/o3", false, false},
		{"a/b", "g", "mv a A; cp -r A a", true, true},
		/* There is none, and of the way only what it leads through counts. */
		{"a/no/such", "f", "touch a/o4", false, false},
		{"a/no/such", "f", "mkdir a/no", true, false},
		{"a/b/../no2", "f", "touch a/b/x a/x", false, false},
		{"a/b/../../e", "h", "touch a/b/y a/y e/y", false, false},
		{"a/b/../../e", "h", "echo 1 >e/h", false, true},
		{"a/b/../../e", "h", "mv a/b a/B; mkdir a/b", true, false},
	};

	begin();
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", root, all[i].dir);
		struct tree_place before, after;
		uint64_t version;

		know_all();
		before = tree_place(tree, path, strlen(path));
		version = tree_name_version(tree, before.dir, all[i].name);
		cr_assert_neq(before.route, 0, "%s", all[i].dir);
		cr_assert_neq(version, 0, "%s in %s", all[i].name, all[i].dir);
		run(all[i].change);
		cr_assert_eq(tree_drain(tree), 0);
		know_all();
		after = tree_place(tree, path, strlen(path));
		cr_expect_eq(after.route != before.route, all[i].another_route, "%s: %s",
			     all[i].dir, all[i].change);
		cr_expect_eq(tree_name_version(tree, after.dir, all[i].name) != version,
			     all[i].another_version, "%s in %s: %s", all[i].name, all[i].dir,
			     all[i].change);
	}
	end();
}

static uint64_t stamp_of_path(const char *path, const struct dir **ret)
{
	struct tree_place place;

	cr_assert_eq(tree_drain(tree), 0);
	place = tree_place(tree, path, strlen(path));
	*ret = place.dir;
	return place.stamp;
}

/* Until no change can have the time of this one. */
static void let_it_age(const char *path)
{
	struct stat st;

	do
		cr_assert_eq(lstat(path, &st), 0);
	while (stat_is_racy(&st, clock_ns(), false));
}

static void link_to(const char *target, const char *path)
{
	(void)unlink(path);
	cr_assert_eq(symlink(target, path), 0);
	let_it_age(path);
}

/* Nobody is told of the root directory; where its links lead, others are. */
Test(stamp, goes_through_links_of_the_root)
{
	const struct dir *there, *through;
	int out = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	uint64_t lib, other;
	struct errmsg msg = {0};

	if (geteuid() != 0)
		return;
	begin();
	run("mkdir -p usr/lib/x usr/lib64 proc; cp a/f usr/lib/x/f");
	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	cr_assert_eq(mount("/proc", "proc", NULL, MS_BIND, NULL), 0); /* mountinfo */
	tree_free(tree);
	cr_assert_eq(chroot(root), 0);
	cr_assert_eq(tree_new(&(struct tree_ops){.send = no_peer}, NULL, NULL, &tree, &msg), 0);
	cr_assert_eq(tree_serve(tree, "/usr", true, &msg), 0);
	for (const char *const *d =
		     (const char *const[]){"/usr", "/usr/lib", "/usr/lib/x", "/usr/lib64", NULL};
	     *d; d++)
		(void)tree_know(tree, *d);
	cr_expect_eq(stamp_of_path("/lib/x/", &through), 0, "there is none");
	link_to("usr/lib", "/l");
	lib = stamp_of_path("/l/x/", &through);
	cr_expect(stamp_of_path("/usr/lib/x/", &there) && there == through);
	cr_expect_neq(lib, 0);
	cr_expect_eq(stamp_of_path("/l/x/", &through), lib);
	cr_expect_neq(stamp_of_path("/l/no/such/", &through), 0, "nor there");
	cr_expect_null(through);
	cr_expect_neq(stamp_of_path("/l/../lib64/", &through), 0);
	cr_expect(stamp_of_path("/usr/lib64/", &there) && there == through);

	link_to("/usr/lib64/../lib", "/l");
	other = stamp_of_path("/l/x/", &through);
	cr_expect(other && other != lib, "another link, to the same");
	link_to("usr/lib64", "/l");
	lib = stamp_of_path("/l/x/", &through);
	cr_expect(lib && lib != other, "to where there is none");
	cr_expect_null(through);
	(void)unlink("/l");
	cr_expect_eq(stamp_of_path("/l/x/", &through), 0);
	cr_expect_eq(mkdir("/l", 0755), 0);
	cr_expect_eq(stamp_of_path("/l/x/", &through), 0, "a directory that nobody is told of");
	cr_assert_eq(umount2("/proc", MNT_DETACH), 0);
	cr_assert(fchdir(out) == 0 && chroot(".") == 0 && close(out) == 0);
	end();
}

Test(stamp, is_of_no_use_where_links_lead)
{
	begin();
	know_all();
	cr_expect_eq(stamp_at("a/l"), 0);
	cr_expect_eq(stamp_at("a/l/.."), 0);
	cr_expect_eq(stamp_at("a/f/x"), 0, "a file is no directory");
	cr_expect_eq(stamp_at("../concc-test-nobody"), 0, "nobody looks there");
	end();
}

static struct cache_names names(void)
{
	static const char *const list[] = {
		"r/a/f",
		"r/a/b/g",
		"l/a/b",
		"k/a/b",
		"k/a/l",
		"r/a/l/g",
		"r/a/b/../f",
		"s/a/b/c/.",
		"l/a/b/c",
		"s/e",
		"r/e/h",
		"l/e/absent",
		"r/e/x/y",
		"l/a/b/c/z",
		"l/a/no/such",
		"r/a/b/../../e/h",
		"w/a/o",
		"m/a/o",
		"d/e",
		"o/a/o",
		"s/a/o",
		"l/a/l/../b",
		"t/a/f",
		"r/a/b/c/../g",
		"s/a/./b",
		"r/a//f",
		"l/a/b/.",
		"s/a/b/..",
		"l/a/.",
		"s/e/.",
		"l/e/..",
		"r/a/b/.concc-tmp-x",
		"r/a/b/none",
		"r/a/b/nobody",
		"r/a/n",
		"l/a/n",
		"k/a/n",
		"s/a/n2",
		"y/a/no/such",
		"y/a/no/such/x/y",
		"m/a/b/x",
		"m/a/l/x",
		"y/e/x/y",
		"y/a/l/none/q",
		"m/e/x",
		"y/a/b/c/z",
		"m/a/b/../q",
		"y/a/b/../no/q",
		"p/a/b",
		"y/a/n",
		"y/a/b/c/../../no/q",
	};
	size_t n = sizeof(list) / sizeof(list[0]);
	char **v = xcalloc(n + 1, sizeof(*v));
	struct cache_names s = {0};

	for (size_t i = 0; i < n; i++)
		v[i] = xasprintf("%c%s%s", list[i][0], root, list[i] + 1);
	cache_names_add(&s, v, n);
	cr_assert_leq(s.n, N_NAMES_MAX);
	return s;
}

static const char *const edits[] = {
	"echo 1 >a/f",
	"echo 2 >a/f",
	"echo 2 >a/f.new; mv a/f.new a/f",
	"rm -f a/f",
	"echo 1 >a/b/g",
	"echo 4 >a/b/g",
	"touch -d 2001-01-01 a/b/g",
	"chmod 600 a/b/g",
	"chmod 644 a/b/g",
	"ln -f a/b/g e/h",
	"rm -f e/h; echo 3 >e/h",
	"ln -sfn c a/l",
	"ln -sfn b a/l",
	"rm -f a/l; mkdir a/l",
	"rm -rf a/l; ln -s b a/l",
	"mkdir -p a/b/c",
	"rmdir a/b/c",
	"touch a/b/c/z",
	"rm -f a/b/c/z",
	"mkdir -p e/x; touch e/x/y",
	"rm -rf e/x",
	"touch e/absent",
	"rm -f e/absent",
	"mv a/b a/B; mkdir a/b",
	"rm -rf a/b; mv a/B a/b",
	"rm -rf a/b; ln -s ../e a/b",
	"rm -rf a/b; mkdir -p a/b/c; echo 2 >a/b/g",
	"mkdir -p a/no; touch a/no/such",
	"rm -rf a/no",
	"ln -sfn nowhere a/no",
	"echo o >a/o",
	"chmod 600 a/o",
	"chmod 644 a/o",
	"rm -f a/o",
	"chmod 700 a/b",
	"chmod 755 a/b",
	"chmod 000 e",
	"chmod 755 e",
	"mv a A; mkdir a",
	"rm -rf a; mv A a",
	"mkdir -p a/b/c; ln -sfn b a/l",
	"ln -sfn f a/n",
	"ln -sfn b/g a/n",
	"ln -sfn n2 a/n; ln -sfn f a/n2",
	"ln -sfn n2 a/n; ln -sfn o a/n2",
	"ln -sfn b a/n2",
	"ln -sfn n a/n2",
	"rm -f a/n2; touch a/n2",
	"rm -f a/n",
	/* Above what is served, which is the same directory then. */
	"[ -L $R ] || { mv $R $R.moved; ln -s $R.moved $R; }",
	"[ ! -L $R ] || { rm $R; mv $R.moved $R; }",
	"[ ! -L $R ] || ln -sfn ${R##*/}.moved $R",
	"true",
};

/* A set that was looked at before, and one of which only names were: some of them are not in it. */
static void compare(struct cache_look *l, const struct cache_names *s, const char *after)
{
	static const struct digest set = {.b = {1}};
	struct cache_look *fresh = cache_look_new(&plain, NULL);
	uint64_t known[N_NAMES_MAX], found[N_NAMES_MAX];
	unsigned facts = 0, all = 0;
	struct cache_names some = {.v = s->v + 1, .n = s->n - 1 - (size_t)rand() % 5};
	struct digest now, again;
	int err, first;

	cache_look_umask(fresh, 022);
	cr_assert_eq(tree_drain(tree), 0);
	err = cache_look_again(l, &set, s, &again);
	first = cache_look_state(fresh, s, &now, NULL);
	cr_assert_eq(err, first, "after %s", after);
	cr_assert(err < 0 || digest_eq(&now, &again), "after %s", after);
	noted = &facts;
	cache_look_facts(l, &facts);
	err = cache_look_state(l, &some, &again, known);
	cache_look_facts(l, NULL);
	noted = &all;
	first = cache_look_state(fresh, &some, &now, found);
	noted = NULL;
	cr_assert_eq(err, first, "after %s", after);
	cr_assert(err < 0 || digest_eq(&now, &again), "names known before, after %s", after);
	for (size_t i = 0; err == 0 && i < some.n; i++)
		cr_assert_eq(known[i], found[i], "%s after %s", some.v[i], after);
	cr_assert(err < 0 || facts == all, "facts after %s", after);
	cache_look_free(fresh);
}

/* As an ordinary user, too, who may not look everywhere. */
static void follow_edits(unsigned seed, uid_t uid)
{
	struct cache_look *l;
	struct cache_names s;

	begin();
	if (uid)
		cr_assert_eq(chown(root, uid, uid), 0);
	run(uid ? "chown -R 1717 ." : ":");
	if (uid)
		cr_assert_eq(seteuid(uid), 0);
	l = cache_look_new(&remembering, NULL);
	cache_look_umask(l, 022);
	s = names();
	srand(seed);
	for (unsigned i = 0; i < 300; i++) {
		const char *edit = edits[(size_t)rand() % (sizeof(edits) / sizeof(edits[0]))];

		(void)!system(edit); /* it may not fit */
		if (i % 3 == 0)
			know_all();
		compare(l, &s, edit);
		compare(l, &s, "nothing");
	}
	cr_assert_eq(seteuid(0), 0);
	cache_look_free(l);
	cache_names_release(&s);
	end();
}

Test(stamp, a_look_that_goes_by_it_is_right, .timeout = 1000)
{
	follow_edits(1, 0);
}

Test(stamp, a_look_of_others_that_goes_by_it_is_right, .timeout = 1000)
{
	if (geteuid() == 0)
		follow_edits(2, 1717);
}

/* Nothing changed, so no file is read, however often it is looked at. */
Test(stamp, what_is_the_same_is_not_looked_at)
{
	static const struct digest set = {.b = {1}};
	struct cache_look *l = cache_look_new(&remembering, NULL);
	struct cache_names s = {0};
	char **v = xcalloc(3, sizeof(*v));
	struct digest first, now;

	begin();
	know_all();
	v[0] = xasprintf("r%s/a/f", root);
	v[1] = xasprintf("r%s/a/b/g", root);
	cache_names_add(&s, v, 2);
	cr_assert_eq(cache_look_again(l, &set, &s, &first), 0);
	n_digests = 0;
	for (unsigned i = 0; i < 5; i++) {
		run("echo x >e/h");
		cr_assert_eq(tree_drain(tree), 0);
		cr_assert_eq(cache_look_again(l, &set, &s, &now), 0);
		cr_expect(digest_eq(&now, &first));
	}
	cr_expect_eq(n_digests, 0);
	cr_assert_eq(cache_look_state(l, &s, &now, NULL), 0);
	cr_expect(digest_eq(&now, &first));
	cr_expect_eq(n_digests, 0, "of another set, either");
	cr_expect(cache_look_stamp(l, 0) && cache_look_stamp(l, 1));
	run("touch a/out a/b/out");
	cr_assert_eq(tree_drain(tree), 0);
	cr_assert_eq(cache_look_again(l, &set, &s, &now), 0);
	cr_expect(digest_eq(&now, &first));
	cr_expect_eq(n_digests, 0, "what is made beside them");
	run("echo 7 >a/b/g");
	cr_assert_eq(tree_drain(tree), 0);
	cr_assert_eq(cache_look_again(l, &set, &s, &now), 0);
	cr_expect_not(digest_eq(&now, &first));
	cr_expect_gt(n_digests, 0);
	cache_names_release(&s);
	cache_look_free(l);
	end();
}

/* Where a directory would be the kernel is not asked before something is heard of what is on its
 * way. */
Test(stamp, where_a_name_would_be_is_known)
{
	struct cache_look *l = cache_look_new(&remembering, NULL);
	char **v = xcalloc(3, sizeof(*v));
	struct cache_names s = {0};
	struct digest first, now;

	begin();
	know_all();
	v[0] = xasprintf("y%s/a/no/x", root);
	v[1] = xasprintf("m%s/e/y", root);
	cache_names_add(&s, v, 2);
	cr_assert_eq(cache_look_state(l, &s, &first, NULL), 0);
	run("ln -s b a/no; mv e E; ln -s E e");
	cr_assert_eq(cache_look_state(l, &s, &now, NULL), 0);
	cr_expect(digest_eq(&now, &first), "it was asked");
	cr_assert_eq(tree_drain(tree), 0);
	cr_assert_eq(cache_look_state(l, &s, &now, NULL), 0);
	cr_expect_not(digest_eq(&now, &first));
	cache_names_release(&s);
	cache_look_free(l);
	end();
}

/* What a symlink leads to counts, so the stamp must tell of that as well. */
Test(stamp, tells_of_what_a_link_beside_it_leads_to)
{
	static const struct {
		const char *make;
		bool is_told;
	} all[] = {
		{"ln -sfn f a/n", true},  {"ln -sfn n2 a/n; ln -s f a/n2", true},
		{"rm -f a/n2", false},	  {"ln -sfn n a/n2", false},
		{"ln -sfn b a/n", false}, {"ln -sfn b/g a/n", false},
		{"ln -sfn . a/n", false}, {"ln -sfn f a/n; ln a/f e/f", false},
	};

	begin();
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		struct cache_look *l = cache_look_new(&remembering, NULL);
		char **v = xcalloc(2, sizeof(*v));
		struct cache_names s = {0};
		struct digest d;

		run(all[i].make);
		know_all();
		v[0] = xasprintf("r%s/a/n", root);
		cache_names_add(&s, v, 1);
		cr_assert_eq(cache_look_state(l, &s, &d, NULL), 0);
		cr_expect_eq(cache_look_stamp(l, 0) != 0, all[i].is_told, "%s", all[i].make);
		cache_names_release(&s);
		cache_look_free(l);
	}
	end();
}
