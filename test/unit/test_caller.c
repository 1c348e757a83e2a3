/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What callers have, compared, given and shed by real processes; and its way through messages. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/caller.h"
#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/proto.h"
#include "concc/str.h"

/* ---- comparing ---- */

static struct caller unlimited(void)
{
	struct caller c = {0};

	for (int i = 0; i < CALLER_N_LIMITS; i++)
		c.limits[i] = (struct caller_limit){CALLER_UNLIMITED, CALLER_UNLIMITED};
	return c;
}

static bool needs_hard(int id)
{
	return id == CALLER_CPU || id == CALLER_FSIZE || id == CALLER_DATA || id == CALLER_STACK ||
	       id == CALLER_AS;
}

Test(caller, lacking)
{
	for (int i = 0; i < CALLER_N_LIMITS; i++) {
		struct caller host = unlimited(), c = unlimited();

		cr_expect_eq(caller_lacking(&host, &c), -1);
		host.limits[i] = (struct caller_limit){50, 100};
		c.limits[i] = (struct caller_limit){100, 100};
		cr_expect_eq(caller_lacking(&host, &c), -1, "%s", caller_limit_name(i));
		c.limits[i] = (struct caller_limit){100, 101};
		cr_expect_eq(caller_lacking(&host, &c), needs_hard(i) ? i : -1, "%s",
			     caller_limit_name(i));
		c.limits[i] = (struct caller_limit){101, 101};
		cr_expect_eq(caller_lacking(&host, &c),
			     needs_hard(i) || i == CALLER_NOFILE ? i : -1, "%s",
			     caller_limit_name(i));
		cr_expect_eq(caller_lacking(&c, &host), -1);
		caller_fit(&c, &host);
		cr_expect_eq(c.limits[i].soft, 100);
		cr_expect_eq(c.limits[i].hard, 100);
		cr_expect_eq(caller_lacking(&host, &c), -1);
	}
}

Test(caller, fit_nice)
{
	struct caller host = unlimited(), c = unlimited();

	c.nice = 5;
	caller_fit(&c, &host);
	cr_expect_eq(c.nice, 5);
	host.nice = 7;
	caller_fit(&c, &host);
	cr_expect_eq(c.nice, 7);
	host.nice = c.nice = -5;
	caller_fit(&c, &host);
	cr_expect_eq(c.nice, -5);
	host.nice = -10;
	caller_fit(&c, &host);
	cr_expect_eq(c.nice, -10);
}

Test(caller, exceeds)
{
	struct caller host = unlimited(), c = unlimited();

	cr_expect_not(caller_exceeds(&c, &host), "the same is no more");
	host.limits[CALLER_FSIZE].hard = 100;
	cr_expect(caller_exceeds(&c, &host));
	cr_expect_not(caller_exceeds(&host, &c));
	c.limits[CALLER_CPU].hard = 100;
	cr_expect_not(caller_exceeds(&c, &host), "neither has all");
	cr_expect_not(caller_exceeds(&host, &c), "neither has all");
	host.limits[CALLER_CPU].hard = 100;
	cr_expect(caller_exceeds(&c, &host));
	c = host;
	host.nice = 3;
	cr_expect(caller_exceeds(&c, &host));
	c.nice = 5;
	cr_expect_not(caller_exceeds(&c, &host));
	host.nice = 0;
	c.nice = -5;
	cr_expect_not(caller_exceeds(&c, &host), "who is in a hurry can wait");
	c = host = unlimited();
	host.limits[CALLER_NPROC].hard = 100;
	cr_expect(caller_exceeds(&c, &host));
	c = host = unlimited();
	host.limits[CALLER_NOFILE] = (struct caller_limit){1000, 1000};
	c.limits[CALLER_NOFILE].soft = 1000;
	cr_expect_not(caller_exceeds(&c, &host), "as many as it uses are there");
	c.limits[CALLER_NOFILE].soft = 1001;
	cr_expect(caller_exceeds(&c, &host));
}

/* Systems differ much, and what is enough everywhere is given as it is. */
Test(caller, files)
{
	struct caller host = unlimited(), c = unlimited();

	host.limits[CALLER_NOFILE].hard = 4096;
	cr_expect_eq(caller_lacking(&host, &c), -1);
	cr_expect_not(caller_exceeds(&c, &host));
	host.limits[CALLER_NOFILE].hard = 4095;
	cr_expect_eq(caller_lacking(&host, &c), CALLER_NOFILE);
	cr_expect(caller_exceeds(&c, &host));
	c.limits[CALLER_NOFILE].soft = 4000;
	cr_expect_eq(caller_lacking(&host, &c), -1);
	caller_fit(&c, &host);
	cr_expect_eq(c.limits[CALLER_NOFILE].soft, 4000);
	cr_expect_eq(c.limits[CALLER_NOFILE].hard, 4095);
}

/* However callers come, one server follows the other a few times at the most: no way leads back. */
Test(caller, exceeds_is_an_order)
{
	srand(1);
	for (int n = 0; n < 200000; n++) {
		struct caller c[3];

		for (int k = 0; k < 3; k++) {
			c[k] = unlimited();
			for (int i = 0; i < CALLER_N_LIMITS; i++) {
				c[k].limits[i].hard = (uint64_t)(rand() % 3);
				c[k].limits[i].soft = (uint64_t)rand() % (c[k].limits[i].hard + 1);
			}
			c[k].nice = rand() % 5 - 2;
		}
		/* Random ones hardly ever have all of another: make it likely. */
		for (int k = 1; k < 3 && n % 2; k++) {
			for (int i = 0; i < CALLER_N_LIMITS; i++)
				if (rand() % 8)
					c[k].limits[i].hard = c[k - 1].limits[i].hard +
							      (uint64_t)(rand() % 2);
			c[k].nice = c[k - 1].nice - rand() % 2;
		}
		cr_assert(!caller_exceeds(&c[0], &c[1]) || !caller_exceeds(&c[1], &c[0]));
		cr_assert(!caller_exceeds(&c[1], &c[0]) || !caller_exceeds(&c[2], &c[1]) ||
			  !caller_exceeds(&c[0], &c[2]));
	}
}

/* ---- real processes ---- */

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			_exit(__LINE__ % 250 + 1);                                                 \
	} while (0)

/* Runs body in a process of its own, which is altered for good. */
static void in_child(void (*body)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		body();
		_exit(0);
	}
	cr_assert(pid > 0 && waitpid(pid, &status, 0) == pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "line %% 250 + 1: %d, status %x",
		  WEXITSTATUS(status), status);
}

static void lower(int resource, rlim_t soft, rlim_t hard)
{
	struct rlimit rl;

	CHECK(getrlimit((__rlimit_resource_t)resource, &rl) == 0);
	rl.rlim_max = hard < rl.rlim_max ? hard : rl.rlim_max;
	rl.rlim_cur = soft < rl.rlim_max ? soft : rl.rlim_max;
	CHECK(setrlimit((__rlimit_resource_t)resource, &rl) == 0);
}

static void becomes(void)
{
	struct caller own, c, now;
	const char *what;

	caller_read(&own);
	CHECK(caller_become(&own, &own, &what) == 0);
	c = own;
	c.limits[CALLER_FSIZE] = (struct caller_limit){1000, 2000};
	c.limits[CALLER_STACK].soft = 1 << 20;
	c.limits[CALLER_NOFILE] = (struct caller_limit){20, 30};
	c.limits[CALLER_CORE] = (struct caller_limit){0, 0};
	c.nice = own.nice + 3 > 19 ? 19 : own.nice + 3;
	c.persona = ADDR_NO_RANDOMIZE;
	c.ignored = 1ull << (SIGHUP - 1) | 1ull << (SIGCHLD - 1) | 1ull << 31 | 1ull << 63;
	c.blocked = 1ull << (SIGTERM - 1) | 1ull << 63;
	CHECK(caller_become_nice(&c, &own, &what) == 0);
	CHECK(caller_become(&c, &own, &what) == 0);
	caller_read(&now);
	CHECK(memcmp(now.limits, c.limits, sizeof(c.limits)) == 0);
	CHECK(now.nice == c.nice && now.persona == c.persona);
	CHECK(now.ignored == c.ignored && now.blocked == c.blocked);
}

static void keeps_cores(void)
{
	struct caller own, c;

	CHECK(caller_cores_leave("|/usr/share/apport/apport -p%p"));
	CHECK(caller_cores_leave("@/run/cores"));
	CHECK(!caller_cores_leave("core") && !caller_cores_leave("/var/cores/%p|") &&
	      !caller_cores_leave(""));
	caller_read(&own);
	own.limits[CALLER_CORE] = (struct caller_limit){0, CALLER_UNLIMITED};
	for (int i = 0; i < 2; i++) {
		c = own;
		c.limits[CALLER_CORE] = (struct caller_limit){0, i ? CALLER_UNLIMITED : 0};
		caller_keep_cores(&c, &own);
		CHECK(c.limits[CALLER_CORE].soft == 1 && c.limits[CALLER_CORE].hard == 1);
	}
	/* What is not there can't be given. */
	own.limits[CALLER_CORE] = c.limits[CALLER_CORE] = (struct caller_limit){0, 0};
	caller_keep_cores(&c, &own);
	CHECK(c.limits[CALLER_CORE].hard == 0);
}

Test(caller, keeps_cores)
{
	in_child(keeps_cores);
}

Test(caller, becomes)
{
	in_child(becomes);
}

/* What can't be given is said. */
static void refused(void)
{
	struct caller own, c;
	const char *what = "";

	lower(RLIMIT_NOFILE, 20, 20);
	if (geteuid() == 0)
		CHECK(setresuid(1717, 1717, 1717) == 0);
	caller_read(&own);
	c = own;
	c.limits[CALLER_NOFILE] = (struct caller_limit){30, 30};
	CHECK(caller_become(&c, &own, &what) == -EPERM);
	CHECK(strstr(what, "open files"));
}

Test(caller, refused)
{
	in_child(refused);
}

static void sheds(void)
{
	struct caller before, after;
	sigset_t set;

	lower(RLIMIT_CPU, 1000, 2000);
	lower(RLIMIT_FSIZE, 1000, 2000);
	lower(RLIMIT_STACK, 1 << 20, RLIM_INFINITY);
	lower(RLIMIT_NOFILE, 20, 100);
	lower(RLIMIT_NPROC, 20, 1000);
	lower(RLIMIT_CORE, 0, RLIM_INFINITY);
	(void)umask(077);
	CHECK(signal(SIGCHLD, SIG_IGN) != SIG_ERR && signal(SIGHUP, SIG_IGN) != SIG_ERR);
	sigfillset(&set);
	CHECK(sigprocmask(SIG_SETMASK, &set, NULL) == 0);
	CHECK(personality(ADDR_NO_RANDOMIZE) >= 0);
	CHECK(sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0}) == 0);
	caller_read(&before);
	CHECK(before.blocked && before.ignored && before.persona);
	caller_shed();
	caller_read(&after);
	for (int i = 0; i < CALLER_N_LIMITS; i++) {
		CHECK(after.limits[i].hard >= before.limits[i].hard);
		if (i == CALLER_CORE)
			CHECK(after.limits[i].soft == 0);
		else if (i == CALLER_STACK)
			CHECK(after.limits[i].soft == (8 << 20));
		else
			CHECK(after.limits[i].soft == after.limits[i].hard);
	}
	CHECK(!after.blocked && !after.ignored && !after.persona);
	CHECK(umask(0) == 022);
	CHECK(sched_getscheduler(0) == SCHED_OTHER);
}

Test(caller, sheds)
{
	in_child(sheds);
}

/* ---- descriptors ---- */

/* Takes fd. */
static void put_at(int fd, int at)
{
	CHECK(fd >= 0 && dup2(fd, at) == at);
	CHECK(fd == at || close(fd) == 0);
}

static int read_all(struct caller *c, const char **ret_what)
{
	caller_read(c);
	return caller_read_descriptors(c, ret_what);
}

static void descriptors(void)
{
	const char *what = "";
	struct caller c;
	int pipes[2];

	(void)syscall(SYS_close_range, 3U, ~0U, 0U);
	CHECK(read_all(&c, &what) == -1 && c.fds_end == 0);
	put_at(open("/dev/null", O_RDONLY), 5);
	put_at(open("/dev/null", O_WRONLY | O_APPEND), 7);
	put_at(open("/dev/null", O_RDWR), 200);
	CHECK(pipe(pipes) == 0);
	put_at(pipes[1], CALLER_FDS - 1);
	put_at(pipes[0], CALLER_FDS); /* further ones are not looked at */
	CHECK(open("/dev/null", O_RDONLY | O_CLOEXEC) == 3);
	CHECK(read_all(&c, &what) == -1 && c.fds_end == CALLER_FDS);
	for (int fd = 0; fd < CALLER_FDS; fd++) {
		enum caller_access want = fd == 5		 ? CALLER_READS
					  : fd == 7		 ? CALLER_WRITES
					  : fd == 200		 ? CALLER_READS_WRITES
					  : fd == CALLER_FDS - 1 ? CALLER_WRITES
								 : CALLER_CLOSED;

		CHECK(c.fds[fd] == want);
	}
	lower(RLIMIT_NOFILE, 6, 6);
	CHECK(read_all(&c, &what) == -1 && c.fds_end == 6);
}

Test(caller, descriptors)
{
	in_child(descriptors);
}

static void beyond(void)
{
	const char *what = "";
	struct caller c;

	(void)syscall(SYS_close_range, 3U, ~0U, 0U);
	put_at(open("/dev/null", O_RDONLY), 5);
	put_at(eventfd(0, 0), 9);
	CHECK(read_all(&c, &what) == 9 && strstr(what, "without a name"));
	put_at(socket(AF_UNIX, SOCK_STREAM, 0), 8);
	CHECK(read_all(&c, &what) == 8 && strstr(what, "a socket"));
	put_at(open("/", O_RDONLY | O_DIRECTORY), 7);
	CHECK(read_all(&c, &what) == 7 && strstr(what, "a directory"));
	/* The others are there all the same. */
	CHECK(c.fds_end == 6 && c.fds[5] == CALLER_READS);
}

Test(caller, descriptors_that_nothing_can_stand_for)
{
	in_child(beyond);
}

/* ---- messages ---- */

static struct caller sample(void)
{
	struct caller c = unlimited();

	c.limits[CALLER_STACK] = (struct caller_limit){8 << 20, CALLER_UNLIMITED};
	c.limits[CALLER_CPU] = (struct caller_limit){0, 1};
	c.nice = -20;
	c.persona = 0x0040000;
	c.ignored = 1;
	c.blocked = 1ull << 63;
	c.fds[3] = CALLER_READS;
	c.fds[CALLER_FDS - 1] = CALLER_READS_WRITES;
	c.fds_end = CALLER_FDS;
	return c;
}

static void expect_same(const struct caller *a, const struct caller *b)
{
	cr_expect_arr_eq(a->limits, b->limits, sizeof(a->limits));
	cr_expect_eq(a->nice, b->nice);
	cr_expect_eq(a->persona, b->persona);
	cr_expect_eq(a->ignored, b->ignored);
	cr_expect_eq(a->blocked, b->blocked);
	cr_expect_eq(a->fds_end, b->fds_end);
	cr_expect_arr_eq(a->fds, b->fds, sizeof(a->fds));
}

static int decode(const struct buf *b, size_t n, struct msg_caller *ret)
{
	return msg_caller_decode((struct blob){b->data, n}, ret);
}

Test(caller, message)
{
	struct msg_caller m = {.caller_id = 7, .caller = sample()}, got;
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_caller_encode(&b, &m);
	cr_assert_eq(decode(&b, b.len, &got), 0);
	cr_expect_eq(got.caller_id, 7);
	expect_same(&got.caller, &m.caller);
	for (size_t n = 0; n < b.len; n++)
		cr_expect_eq(decode(&b, n, &got), CONCC_E_PROTO, "%zu bytes", n);
	buf_put_u8(&b, 0);
	cr_expect_eq(decode(&b, b.len, &got), CONCC_E_PROTO, "a byte too many");
}

/* Where niceness is, behind the id and the limits; and what comes after it. */
#define NICE_AT	   (4 + CALLER_N_LIMITS * 16)
#define IGNORED_AT (NICE_AT + 1 + 4)
#define BLOCKED_AT (IGNORED_AT + 8)
#define FDS_AT	   (BLOCKED_AT + 8)

static void expect_refused(size_t at, uint8_t byte, const char *why)
{
	struct msg_caller m = {.caller_id = 7, .caller = sample()}, got;
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_caller_encode(&b, &m);
	b.data[at] = byte;
	cr_expect_eq(decode(&b, b.len, &got), CONCC_E_PROTO, "%s", why);
}

Test(caller, hostile)
{
	expect_refused(4 + CALLER_CPU * 16, 2, "more than the hard limit");
	expect_refused(NICE_AT, 0, "nicer than can be");
	expect_refused(NICE_AT, 41, "less nice than can be");
	expect_refused(NICE_AT, 255, "no niceness");
	expect_refused(IGNORED_AT + 1, 1 << (SIGKILL - 9), "SIGKILL is ignored");
	expect_refused(BLOCKED_AT + 2, 1 << (SIGSTOP - 17), "SIGSTOP is blocked");
}

Test(caller, in_run_and_job)
{
	char *words[] = {(char *)"gcc", NULL}, *ws[] = {(char *)"/w", NULL};
	struct msg_run run = {.version = PROTO_VERSION,
			      .worker = (char *)"w",
			      .run_id = (char *)"",
			      .path = (char *)"../bin/gcc",
			      .exe = (char *)"/bin/gcc",
			      .cwd = (char *)"/w",
			      .workspace = (char *)"",
			      .caller = sample(),
			      .argv = words,
			      .env = words},
		       got;
	struct msg_job job = {.job_id = 1,
			      .env_id = 2,
			      .exe_id = 3,
			      .caller_id = 4,
			      .path = (char *)"x/../gcc",
			      .cwd = (char *)"/w",
			      .workspaces = ws,
			      .argv = words},
		       got_job;
	_cleanup_buf_ struct buf b = BUF_INIT, c = BUF_INIT;

	msg_run_encode(&b, &run);
	cr_assert_eq(msg_run_decode((struct blob){b.data, b.len}, &got), 0);
	cr_expect_str_eq(got.path, run.path);
	expect_same(&got.caller, &run.caller);
	msg_run_release(&got);
	for (size_t n = 0; n < b.len; n++)
		cr_expect_lt(msg_run_decode((struct blob){b.data, n}, &got), 0);
	/* Input that it says, and input of which it doesn't say so. */
	run.input = (struct blob){(const uint8_t *)"a\0b", 3};
	buf_reset(&b);
	msg_run_encode(&b, &run);
	cr_expect_eq(msg_run_decode((struct blob){b.data, b.len}, &got), CONCC_E_PROTO);
	run.flags = JOB_F_STDIN | JOB_F_KEEP | JOB_F_INPUT_KNOWN;
	buf_reset(&b);
	msg_run_encode(&b, &run);
	cr_assert_eq(msg_run_decode((struct blob){b.data, b.len}, &got), 0);
	cr_expect(got.input.n == 3 && memcmp(got.input.p, "a\0b", 3) == 0);
	msg_run_release(&got);
	msg_job_encode(&c, &job);
	cr_assert_eq(msg_job_decode((struct blob){c.data, c.len}, &got_job), 0);
	cr_expect_str_eq(got_job.path, job.path);
	cr_expect_eq(got_job.caller_id, 4);
	msg_job_release(&got_job);
	for (size_t n = 0; n < c.len; n++)
		cr_expect_lt(msg_job_decode((struct blob){c.data, n}, &got_job), 0);
	/* A path of no bytes is none. */
	job.path = (char *)"";
	buf_reset(&c);
	msg_job_encode(&c, &job);
	cr_expect_eq(msg_job_decode((struct blob){c.data, c.len}, &got_job), CONCC_E_PROTO);
}

/* Two descriptors, each the low byte of a number, then the high one, then how it is open. */
Test(caller, bad_descriptors_in_a_message)
{
	static const uint8_t bad[][6] = {
		{2, 0, CALLER_READS, 9, 0, CALLER_READS},
		{9, 0, CALLER_READS, 9, 0, CALLER_READS},
		{9, 0, CALLER_READS, 8, 0, CALLER_READS},
		{9, 0, CALLER_READS, 0, 4, CALLER_READS},
		{9, 0, CALLER_CLOSED, 10, 0, CALLER_READS},
		{9, 0, CALLER_READS, 10, 0, 4},
	};
	static const uint8_t good[] = {3, 0, CALLER_READS, 255, 3, CALLER_READS_WRITES};
	struct msg_caller m = {.caller_id = 7, .caller = sample()}, got;
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_caller_encode(&b, &m);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		memcpy(b.data + FDS_AT + 2, bad[i], sizeof(bad[i]));
		cr_expect_eq(decode(&b, b.len, &got), CONCC_E_PROTO, "%zu", i);
	}
	memcpy(b.data + FDS_AT + 2, good, sizeof(good));
	cr_expect_eq(decode(&b, b.len, &got), 0);
}
