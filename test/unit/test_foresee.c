/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What is foreseen of a batch is no more than that: it is looked at once more, from its begin. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/io.h"
#include "concc/str.h"
#include "concc/tree.h"

#include "../lib/unit.h"

#define MANY 10000 /* names: more than are looked at in one go */

struct bed {
	struct tree *tree;
	struct commit *job;
	char root[64], path[128];
	char *workspaces[2];
	struct errmsg msg;
};

static void on_send(void *data, unsigned peer, uint8_t type, const struct buf *b)
{
	(void)data;
	(void)peer;
	(void)type;
	(void)b;
}

static char *at(struct bed *b, const char *name)
{
	snprintf(b->path, sizeof(b->path), "%s/%s", b->root, name);
	return b->path;
}

static int rm_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void remove_by_job(struct bed *b, const char *path)
{
	const struct msg_file f = {
		.kind = EFFECT_REMOVE, .path = (char *)path, .target = (char *)""};

	cr_assert_eq(commit_file(b->job, &f), 0);
}

/* A job of any command that removes a file, a directory with many names, and another file. */
static void bed_init(struct bed *b)
{
	static const struct tree_ops ops = {.send = on_send};
	static const struct tree_limits limits = {0};
	char name[32];

	*b = (struct bed){0};
	strcpy(b->root, "/tmp/concc-test-foresee.XXXXXX");
	cr_assert(mkdtemp(b->root));
	write_file(at(b, "first"), "");
	write_file(at(b, "last"), "");
	cr_assert_eq(mkdir(at(b, "many"), 0700), 0);
	for (int i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "many/%d", i);
		write_file(at(b, name), "");
	}
	cr_assert_eq(tree_new_limited(&ops, b, NULL, &limits, &b->tree, &b->msg), 0);
	cr_assert_eq(tree_serve(b->tree, b->root, true, &b->msg), 0);
	tree_list(b->tree, 0, b->root);
	tree_list(b->tree, 0, at(b, "many"));
	tree_drain(b->tree);
	b->workspaces[0] = b->root;
	b->job = commit_new(b->tree, b->workspaces, tree_version(b->tree));
	commit_of_any_command(b->job);
	remove_by_job(b, "first");
	remove_by_job(b, "many");
	remove_by_job(b, "last");
}

static void bed_release(struct bed *b)
{
	commit_free(b->job);
	tree_free(b->tree);
	(void)nftw(b->root, rm_one, 32, FTW_DEPTH | FTW_PHYS);
}

Test(foresee, what_is_so_is_put_in_place)
{
	struct bed b;

	bed_init(&b);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(commit_foresee(b.job, &b.msg), 0, "%s", b.msg.text);
	cr_assert_eq(access(at(&b, "many/7"), F_OK), 0, "nothing is done yet");
	cr_assert_eq(commit_apply(b.job, 0, &b.msg), 0, "%s", b.msg.text);
	cr_assert_neq(access(at(&b, "many"), F_OK), 0);
	cr_assert_neq(access(at(&b, "first"), F_OK), 0);
	bed_release(&b);
}

/* Wherever it is: what was looked at, what is being looked at, and what was not yet. */
Test(foresee, what_changes_behind_it_is_seen)
{
	static const char *const names[] = {"first", "many/7", "many/9999", "many/new", "last"};
	struct bed b;

	for (size_t i = 0; i < N_OF(names); i++) {
		bed_init(&b);
		cr_assert_eq(commit_foresee(b.job, &b.msg), 0, "%s", b.msg.text);
		IN_CHILD(write_file(at(&b, names[i]), "user"));
		cr_assert_eq(commit_apply(b.job, 0, &b.msg), CONCC_E_CONFLICT, "%s", names[i]);
		cr_assert_eq(access(at(&b, "first"), F_OK), 0, "%s", names[i]);
		bed_release(&b);
	}
}

/* So that nobody is shown what such a job printed. */
Test(foresee, what_is_others_is_told)
{
	struct bed b;

	bed_init(&b);
	IN_CHILD(write_file(at(&b, "first"), "user"));
	cr_assert_eq(commit_foresee(b.job, &b.msg), CONCC_E_CONFLICT);
	cr_assert(strstr(b.msg.text, "/first changed on this machine"), "%s", b.msg.text);
	bed_release(&b);
}
