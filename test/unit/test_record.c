/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/record.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

static char dir[64], path[96], old[112];

static void setup(void)
{
	strcpy(dir, "/tmp/concc-test-record.XXXXXX");
	cr_assert(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/jobs", dir);
	snprintf(old, sizeof(old), "%s.old", path);
}

static void teardown(void)
{
	_cleanup_free_ char *cmd = xasprintf("rm -rf %s", dir);

	cr_assert_eq(system(cmd), 0);
}

TestSuite(record, .init = setup, .fini = teardown);

static void fill(struct record *r, uint32_t pid)
{
	char *argv[] = {(char *)"/usr/bin/gcc", (char *)"-c",  (char *)"-o",
			(char *)"x.o",		(char *)"x.c", NULL};

	record_init(r);
	r->pid = pid;
	r->arrived_us = 1795876522945119 + pid;
	r->fuse_messages = UINT64_MAX;
	r->how = RECORD_END_SIGNAL;
	r->code = 11;
	record_set(&r->worker, "w1");
	record_set(&r->cwd, "/home/u/proj");
	record_set_words(r, argv);
}

Test(record, round_trip)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct record r, got;

	fill(&r, 7);
	cr_assert_str_eq(r.program, "gcc");
	cr_assert_str_eq(r.subject, "x.o");
	cr_assert_str_eq(r.command, "/usr/bin/gcc -c -o x.o x.c");
	record_encode(&b, &r);
	cr_assert_eq(record_decode((struct blob){b.data, b.len}, &got), 0);
	cr_assert_eq(got.pid, 7);
	cr_assert_eq(got.arrived_us, r.arrived_us);
	cr_assert_eq(got.fuse_messages, UINT64_MAX);
	cr_assert_eq(got.code, 11);
	cr_assert_str_eq(got.subject, "x.o");
	cr_assert_str_eq(got.rule, "");
	record_release(&got);
	/* Each cut, and each with more behind it. */
	for (size_t n = 0; n < b.len; n++)
		cr_assert_eq(record_decode((struct blob){b.data, n}, &got), CONCC_E_PROTO);
	buf_put_u8(&b, 0);
	cr_assert_eq(record_decode((struct blob){b.data, b.len}, &got), CONCC_E_PROTO);
	b.data[0] = 3;
	cr_assert_eq(record_decode((struct blob){b.data, b.len - 1}, &got), CONCC_E_PROTO);
	record_release(&r);
}

/* What is in the file since before there were slots in it. */
Test(record, first_format)
{
	_cleanup_buf_ struct buf b = BUF_INIT, before = BUF_INIT;
	size_t begin = 1 + 4 + 4 + 1 + 4, numbers = 14 * 8;
	struct record r, got;

	fill(&r, 7);
	r.all_slots = 32;
	record_encode(&b, &r);
	buf_put_u8(&before, 1);
	buf_append(&before, b.data + 1, begin - 1 + numbers);
	buf_append(&before, b.data + begin + numbers + 16, b.len - begin - numbers - 16);
	cr_assert_eq(record_decode((struct blob){before.data, before.len}, &got), 0);
	cr_assert_eq(got.fuse_messages, UINT64_MAX);
	cr_assert_eq(got.all_slots, 0);
	cr_assert_str_eq(got.subject, "x.o");
	record_release(&got);
	record_release(&r);
}

/* Whatever it is of, it is no larger than the file takes. */
Test(record, long_words)
{
	_cleanup_free_ char *word = xcalloc(1, 100001);
	char *argv[] = {word, word, (char *)"--crate-name", word, NULL};
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct record r, got;

	memset(word, '\x1b', 100000);
	record_init(&r);
	record_set_words(&r, argv);
	record_set(&r.worker, word);
	record_set(&r.rule, word);
	record_set(&r.why, word);
	record_set(&r.build, word);
	record_set(&r.cwd, word);
	record_encode(&b, &r);
	cr_assert_leq(b.len, RECORD_MAX);
	cr_assert_eq(record_decode((struct blob){b.data, b.len}, &got), 0);
	cr_assert_null(strchr(got.command, '\x1b'));
	record_release(&got);
	record_release(&r);
}

Test(record, subjects)
{
	static const struct {
		const char *words[6], *subject;
	} rows[] = {
		{{"cc", "-c", "a.c"}, "a.c"},
		{{"cc", "-c", "a.c", "-oa.o"}, "a.o"},
		{{"cc", "a.c", "-o", "a"}, "a"},
		{{"cc", "a.c", "-o"}, "a.c"},
		{{"rustc", "--crate-name", "x", "src/lib.rs"}, "x"},
		{{"javac", "A.java", "B.java"}, "B.java"},
		{{"true"}, ""},
		{{"cc", "-v"}, ""},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct record r;

		record_init(&r);
		record_set_words(&r, (char *const *)rows[i].words);
		cr_expect_str_eq(r.subject, rows[i].subject, "row %zu: %s", i, r.subject);
		record_release(&r);
	}
}

/* ---- the file ---- */

struct seen {
	unsigned n;
	uint64_t sum;
	uint32_t last;
	unsigned max;
};

static bool see(void *data, struct record *r)
{
	struct seen *s = data;

	cr_assert_str_eq(r->subject, "x.o");
	s->n++;
	s->sum += r->pid;
	s->last = r->pid;
	return !s->max || s->n < s->max;
}

static struct seen read_all(unsigned max)
{
	struct seen s = {.max = max};

	cr_assert_eq(record_read(path, see, &s), 0);
	return s;
}

static void append(struct record_file *f, uint32_t pid)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct record r;

	fill(&r, pid);
	record_put(&b, &r);
	cr_assert_eq(record_append(f, &b, 1), 0);
	record_release(&r);
}

Test(record, appended_and_read)
{
	struct record_file *f;

	cr_assert_eq(read_all(0).n, 0);
	cr_assert_eq(record_file_open(path, &f), 0);
	for (uint32_t i = 1; i <= 200; i++)
		append(f, i);
	record_file_close(f);
	cr_assert_eq(read_all(0).n, 200);
	cr_assert_eq(read_all(0).last, 200);
	cr_assert_eq(read_all(3).last, 3);
}

/* What a process that was killed, or a full disk, has left is passed over. */
Test(record, halves_and_noise)
{
	struct record_file *f;
	struct stat st;
	int fd;

	cr_assert_eq(record_file_open(path, &f), 0);
	append(f, 1);
	cr_assert_eq(stat(path, &st), 0);
	for (off_t cut = 1; cut < st.st_size; cut += 7) {
		fd = open(path, O_RDWR | O_APPEND);
		append(f, 1);
		cr_assert_eq(ftruncate(fd, st.st_size * 2 - cut), 0);
		append(f, 2);
		cr_assert_eq(read_all(0).sum, 3, "cut %ld", (long)cut);
		cr_assert_eq(ftruncate(fd, st.st_size), 0);
		close(fd);
	}
	fd = open(path, O_WRONLY | O_APPEND);
	cr_assert_eq(write(fd, "cncRcncR\xff\xff\xff\xff----", 16), 16);
	close(fd);
	append(f, 3);
	cr_assert_eq(read_all(0).sum, 4);
	record_file_close(f);
}

/* Several processes: no record is lost or cut, and there are never more than two files. */
Test(record, turned_over_by_many)
{
	enum { PROCESSES = 4, EACH = 40000 };
	struct stat st;
	struct seen s;

	for (uint32_t i = 0; i < PROCESSES; i++) {
		if (fork() == 0) {
			struct record_file *f;

			if (record_file_open(path, &f) < 0)
				_exit(1);
			for (uint32_t k = 0; k < EACH; k++)
				append(f, k);
			_exit(0);
		}
	}
	for (int i = 0; i < PROCESSES; i++) {
		int status;

		cr_assert(wait(&status) > 0 && status == 0);
	}
	cr_assert_eq(stat(old, &st), 0);
	cr_assert_geq(st.st_size, RECORD_FILE_MAX);
	cr_assert_leq(st.st_size, RECORD_FILE_MAX + PROCESSES * 65 * RECORD_MAX);
	s = read_all(0);
	/* The newest are there, all of them. */
	cr_assert_gt(s.n, RECORD_FILE_MAX / 400);
	cr_assert_eq(s.last, EACH - 1);
	cr_assert_eq(access(old, F_OK), 0);
}

Test(record, not_of_others)
{
	struct record_file *f;

	cr_assert_eq(symlink("/etc/passwd", path), 0);
	cr_assert_lt(record_file_open(path, &f), 0);
	unlink(path);
	cr_assert_eq(mkfifo(path, 0600), 0);
	cr_assert_lt(record_file_open(path, &f), 0);
	unlink(path);
	if (geteuid() != 0)
		return;
	cr_assert_eq(close(open(path, O_CREAT | O_WRONLY, 0666)), 0);
	cr_assert_eq(chown(path, 7, 7), 0);
	cr_assert_eq(record_file_open(path, &f), CONCC_E_UNSAFE);
}
