/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The pool with real processes.  A test knows that a process waits in the queue
 * because it traces it up to the system call in which it will block; so nothing
 * here sleeps, and the only clock that goes on by itself is the one that ends a test that hangs.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "concc/io.h"
#include "concc/log.h"
#include "concc/pool.h"
#include "concc/str.h"
#include "pool/pick.h"
#include "pool/table.h"
#include "pool/watch.h"

static char dir[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void setup(void)
{
	(void)strcpy(dir, "/tmp/concc-test-pool-XXXXXX");
	cr_assert(mkdtemp(dir));
}

static void teardown(void)
{
	(void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(pool, .init = setup, .fini = teardown, .timeout = 300);

/* Most tests keep their pools to the end of their process, as wrappers do. */
static struct pool *open_pool(void)
{
	static struct pool *kept[256] __attribute__((unused)); /* for LeakSanitizer */
	static size_t n_kept;
	struct errmsg msg = {""};
	struct pool *p = NULL;

	cr_assert_eq(pool_open(dir, &p, &msg), 0, "%s", msg.text);
	kept[n_kept++ % 256] = p;
	return p;
}

static void set(struct pool *p, const char *name, uint32_t slots, enum pool_state state,
		uint32_t speed)
{
	struct errmsg msg = {""};

	cr_assert_eq(pool_set(p, name, slots, state, speed, &msg), 0, "%s", msg.text);
}

static const struct pool_request any = {.local_ok = true};
static const struct pool_request try_any = {.local_ok = true, .try = true};

static int taken[4096]; /* descriptors of slots that this process had */
static size_t n_taken;

static struct pool_slot take(struct pool *p, const struct pool_request *q)
{
	struct pool_slot s;
	int rc = pool_acquire(p, q, &s);

	cr_assert_eq(rc, 0, "%s", err_text(rc));
	if (n_taken < sizeof(taken) / sizeof(*taken))
		taken[n_taken++] = s.fd;
	return s;
}

/*
 * In a child that goes on without an exec: as long as it has a copy of one, the
 * FIFO of that slot has a writer, and who waits for its hang-up waits for this one.
 */
static void drop_copies(void)
{
	for (size_t i = 0; i < n_taken; i++) {
		char path[64], what[256] = "";

		/* It may be something else by now. */
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", taken[i]);
		if (readlink(path, what, sizeof(what) - 1) > 0 && strstr(what, "/slots/"))
			(void)close(taken[i]);
	}
}

static void expect(struct pool *p, const struct pool_request *q, int code)
{
	struct pool_slot s;
	int rc = pool_acquire(p, q, &s);

	cr_assert_eq(rc, code, "%s, not %s", err_text(rc), err_text(code));
	cr_assert_eq(s.fd, -1);
}

static struct pool_member find(struct pool *p, const char *name, bool verify)
{
	static struct pool_member m[POOL_MEMBERS_MAX];
	int n = pool_list(p, m, POOL_MEMBERS_MAX, verify);

	for (int i = 0; i < n; i++)
		if (streq(m[i].name, name))
			return m[i];
	cr_assert_fail("no member %s", name);
	return m[0];
}

/* ---- time ---- */

/* What all processes of a test take for the time, once it has set it. */
static uint64_t *time_us;
#define SECOND 1000000ULL

static void set_time(uint64_t us)
{
	if (!time_us)
		time_us = mmap(NULL, sizeof(*time_us), PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(time_us, MAP_FAILED);
	*time_us = us;
}

/* Instead of libc's. */
int clock_gettime(clockid_t id, struct timespec *ret)
{
	if (!time_us || id != CLOCK_MONOTONIC)
		return (int)syscall(SYS_clock_gettime, id, ret);
	*ret = (struct timespec){(time_t)(*time_us / 1000000), (long)(*time_us % 1000000) * 1000};
	return 0;
}

/* ---- processes ---- */

static void reap(pid_t pid, int status)
{
	int st = 0;

	cr_assert_eq(waitpid(pid, &st, 0), pid);
	cr_assert_eq(st, status, "process %d ended with %#x, not %#x", (int)pid, st, status);
}

/* A fork that doesn't outlive the test, however that ends. */
static pid_t fork_child(void)
{
	pid_t parent = getpid(), pid = fork();

	cr_assert_geq(pid, 0);
	if (pid == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent))
		_exit(3);
	return pid;
}

/* Ends the process with 0 when the acquire gives `code`; writes its number to out_fd first. */
static void waiter_body(struct pool_request q, int code, int out_fd, unsigned char number)
{
	struct pool *p = open_pool();
	struct pool_slot s;
	int rc = pool_acquire(p, &q, &s);

	if (out_fd >= 0 && write(out_fd, &number, 1) != 1)
		_exit(2);
	_exit(rc == code ? 0 : 1);
}

static bool will_block(const struct __ptrace_syscall_info *info)
{
	if (info->op != PTRACE_SYSCALL_INFO_ENTRY)
		return false;
	if (info->entry.nr == SYS_fcntl)
		return info->entry.args[1] == F_OFD_SETLKW;
#ifdef SYS_poll
	if (info->entry.nr == SYS_poll)
		return true;
#endif
	return info->entry.nr == SYS_ppoll;
}

static unsigned n_calls; /* system calls that run_until_waiting() has seen */

/* False when it has ended, with *ret_status; else it is stopped where it is about to wait. */
static bool run_until_waiting(pid_t pid, int *ret_status)
{
	struct __ptrace_syscall_info info = {0};

	do {
		cr_assert_eq(ptrace(PTRACE_SYSCALL, pid, 0, 0), 0);
		cr_assert_eq(waitpid(pid, ret_status, 0), pid);
		if (!WIFSTOPPED(*ret_status))
			return false;
		cr_assert_gt(ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info), 0);
		n_calls += info.op == PTRACE_SYSCALL_INFO_ENTRY;
	} while (!will_block(&info));
	return true;
}

static void run_freely(pid_t pid)
{
	cr_assert_eq(ptrace(PTRACE_DETACH, pid, 0, 0), 0);
}

/* A traced child, for run_until_waiting() or run_freely(). */
static pid_t fork_stopped(void)
{
	pid_t pid = fork_child();
	int st;

	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0)
			_exit(77);
		(void)raise(SIGSTOP);
		drop_copies();
		return 0;
	}
	cr_assert_eq(waitpid(pid, &st, 0), pid);
	cr_assert(WIFSTOPPED(st));
	cr_assert_eq(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD), 0);
	return pid;
}

/* Stopped where it is about to wait, for run_until_waiting() or run_freely(). */
static pid_t start_stopped_waiter(struct pool_request q, int code, int out_fd, unsigned char number)
{
	pid_t pid = fork_stopped();
	int st;

	if (pid == 0)
		waiter_body(q, code, out_fd, number);
	cr_assert(run_until_waiting(pid, &st), "it ended (%#x) instead of waiting", st);
	return pid;
}

static pid_t start_waiter(struct pool_request q, int code, int out_fd, unsigned char number)
{
	pid_t pid = start_stopped_waiter(q, code, out_fd, number);

	run_freely(pid);
	return pid;
}

/* Up to its end or to where it is about to wait again; false: it has a slot, and has ended. */
static bool goes_on_waiting(pid_t pid)
{
	int st;

	if (run_until_waiting(pid, &st))
		return true;
	cr_assert_eq(st, 0);
	return false;
}

static void kill_traced(pid_t pid)
{
	int st;

	cr_assert_eq(kill(pid, SIGKILL), 0);
	cr_assert_eq(waitpid(pid, &st, 0), pid);
}

/* A process that holds so many slots until it is killed. */
static pid_t start_holder_of(struct pool_request q, unsigned n)
{
	int fds[2];
	char c;
	pid_t pid;

	cr_assert_eq(pipe(fds), 0);
	pid = fork_child();
	if (pid == 0) {
		struct pool *p = open_pool();
		struct pool_slot s;

		while (n--)
			if (pool_acquire(p, &q, &s) < 0)
				_exit(1);
		if (write(fds[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			(void)pause();
	}
	(void)close(fds[1]);
	cr_assert_eq(read(fds[0], &c, 1), 1, "the holder got no slot");
	(void)close(fds[0]);
	return pid;
}

static pid_t start_holder(struct pool_request q)
{
	return start_holder_of(q, 1);
}

static void kill_and_reap(pid_t pid)
{
	cr_assert_eq(kill(pid, SIGKILL), 0);
	reap(pid, SIGKILL);
}

/* ---- one process ---- */

Test(pool, takes_every_slot_once)
{
	struct pool *p = open_pool();
	struct pool_slot s[5];

	set(p, "a", 2, POOL_UP, 1000);
	set(p, "b", 3, POOL_UP, 1000);
	cr_assert_eq(pool_total(p), 5);
	for (int i = 0; i < 5; i++) {
		s[i] = take(p, &try_any);
		for (int j = 0; j < i; j++)
			cr_assert(s[j].member != s[i].member || s[j].index != s[i].index);
	}
	expect(p, &try_any, -EAGAIN);
	cr_assert_eq(find(p, "a", true).taken, 2);
	cr_assert_eq(find(p, "b", true).taken, 3);
	for (int i = 0; i < 5; i++)
		pool_release(p, &s[i]);
	pool_release(p, &s[0]); /* holds none any more */
	cr_assert_eq(find(p, "a", false).taken, 0);
	cr_assert_eq(find(p, "b", false).acquired, 3);
	pool_close(p);
}

Test(pool, leaks_no_descriptor)
{
	int before = dup(0), after;

	(void)close(before);
	for (int i = 0; i < 3; i++) {
		struct pool *p = open_pool();
		struct pool_slot s;

		set(p, "a", 1, POOL_UP, 1000);
		s = take(p, &any);
		expect(p, &try_any, -EAGAIN);
		(void)find(p, "a", true);
		pool_release(p, &s);
		pool_close(p);
	}
	after = dup(0);
	(void)close(after);
	cr_assert_eq(before, after);
}

Test(pool, unavailable_without_member_that_is_up)
{
	struct pool *p = open_pool();
	struct pool_request only = {.only = "b", .local_ok = true};

	expect(p, &any, CONCC_E_UNAVAIL);
	set(p, "a", 1, POOL_DOWN, 1000);
	expect(p, &any, CONCC_E_UNAVAIL);
	set(p, "a", 1, POOL_UP, 1000);
	expect(p, &only, CONCC_E_UNAVAIL);
	(void)take(p, &any);
	cr_assert_eq(pool_remove(p, "a"), 0);
	cr_assert_eq(pool_remove(p, "a"), -ENOENT);
	expect(p, &any, CONCC_E_UNAVAIL);
}

Test(pool, local_only_when_it_may_be)
{
	struct pool *p = open_pool();
	struct pool_request remote = {.try = true};
	struct pool_request local = {.only = POOL_LOCAL, .local_ok = true};

	set(p, POOL_LOCAL, 4, POOL_UP, 1000);
	expect(p, &remote, CONCC_E_UNAVAIL);
	expect(p, &any, CONCC_E_UNAVAIL); /* not without a word that there is no worker */
	set(p, "a", 1, POOL_UP, 1000);
	cr_assert_str_eq(take(p, &remote).name, "a");
	expect(p, &remote, -EAGAIN);
	local.local_ok = false;
	cr_assert_str_eq(take(p, &local).name, POOL_LOCAL);
}

Test(pool, prefers_what_is_faster)
{
	struct pool *p = open_pool();

	set(p, "slow", 8, POOL_UP, 500);
	set(p, "fast", 8, POOL_UP, 1500);
	for (int i = 0; i < 8; i++)
		cr_assert_str_eq(take(p, &try_any).name, "fast");
	expect(p, &try_any, -EAGAIN); /* one of those is free sooner than a slow one is done */
}

Test(pool, spreads_over_those_that_are_as_good)
{
	struct pool *p = open_pool();
	int wide = 0;

	set(p, "narrow", 2, POOL_UP, 1000);
	set(p, "wide", 6, POOL_UP, 1000);
	for (int i = 0; i < 4; i++)
		wide += streq(take(p, &try_any).name, "wide");
	cr_assert_eq(wide, 4);
	cr_assert_str_neq(take(p, &try_any).name, take(p, &try_any).name);
}

Test(pool, what_was_measured_decides)
{
	struct sched_profile slow = {.slowdown = {4 * SCHED_ONE}};
	struct pool_request q = {.try = true, .kind = 7};
	struct pool *p = open_pool();

	set(p, "a", 1, POOL_UP, 1000);
	set(p, "b", 1, POOL_UP, 1000);
	cr_assert_eq(pool_set_profile(p, "a", &slow), 0);
	cr_assert_eq(pool_set_profile(p, "c", &slow), -ENOENT);
	cr_assert_str_eq(take(p, &q).name, "b");
	expect(p, &q, -EAGAIN);
	/* Not worth a wait any more, for a short job: the line to b costs more. */
	slow = (struct sched_profile){.overhead_us = 60000000};
	cr_assert_eq(pool_set_profile(p, "b", &slow), 0);
	pool_set_work(p, 7, 1000);
	cr_assert_str_eq(take(p, &q).name, "a");
}

/* Who waits for a better slot than a free one does so only as long as that pays. */
Test(pool, patience_ends)
{
	struct sched_profile slow = {.slowdown = {3 * SCHED_ONE}};
	struct pool_request q = {.kind = 7};
	struct pool *p = open_pool();
	struct pool_slot s;

	set(p, "a", 1, POOL_UP, 1000);
	set(p, "b", 1, POOL_UP, 1000);
	cr_assert_eq(pool_set_profile(p, "a", &slow), 0);
	pool_set_work(p, 7, 50000);
	pool_set_mean(p, 50000);
	cr_assert_str_eq(take(p, &try_any).name, "b");
	cr_assert_eq(pool_acquire(p, &q, &s), 0);
	cr_assert_str_eq(s.name, "a");
}

/* ---- what the queue costs ---- */

/* With all slots taken but for the one that is returned. */
static struct pool_slot fill(struct pool *p, unsigned members, unsigned slots)
{
	for (unsigned i = 0; i < members; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "w%u", i);
		set(p, name, slots, POOL_UP, 1000);
	}
	(void)start_holder_of(any, members * slots - 1);
	return take(p, &any);
}

/* One waits in the queue, gets the slot, and gives it back. */
static struct pool_slot serve_one(struct pool *p, struct pool_slot *s)
{
	pid_t pid = fork_stopped();

	if (pid == 0) {
		struct pool *own = open_pool();
		struct pool_slot its = take(own, &any);

		pool_release(own, &its);
		_exit(0);
	}
	cr_assert(goes_on_waiting(pid));
	pool_release(p, s);
	cr_assert_not(goes_on_waiting(pid));
	return take(p, &any);
}

/* System calls of one who comes when all are taken, until it waits. */
static unsigned calls_of_waiting(void)
{
	pid_t pid;

	n_calls = 0;
	pid = start_stopped_waiter(any, 0, -1, 0);
	kill_traced(pid);
	return n_calls;
}

/* Of those that come now and then, one after the other. */
Test(pool, waiting_costs_no_more_for_many_slots)
{
	static const unsigned sizes[][2] = {{1, 4}, {16, 8}, {125, 8}};
	struct rlimit many = {4096, 4096};
	unsigned calls[3];

	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &many), 0);
	set_time(SECOND);
	for (size_t i = 0; i < 3; i++) {
		struct pool *p = open_pool();
		struct pool_slot s = fill(p, sizes[i][0], sizes[i][1]);

		(void)serve_one(p, &s);
		calls[i] = calls_of_waiting();
		teardown();
		setup();
		n_taken = 0;
	}
	cr_expect_eq(calls[1], calls[0], "%u for 128 slots, %u for 4", calls[1], calls[0]);
	cr_expect_eq(calls[2], calls[0], "%u for 1000 slots, %u for 4", calls[2], calls[0]);
}

/* Its holder is killed while nobody watches, and who comes next has reason to take it for held. */
static pid_t start_mistaken(struct pool *p)
{
	struct pool_slot s = fill(p, 1, 1);
	pid_t holder;

	set_time(SECOND);
	s = serve_one(p, &s);
	pool_release(p, &s);
	holder = start_holder(any);
	kill_and_reap(holder);
	return start_stopped_waiter(any, 0, -1, 0);
}

Test(pool, who_has_ended_is_seen_by_who_verifies)
{
	struct pool *p = open_pool();
	pid_t one, two;

	set(p, "a", 3, POOL_UP, 1000);
	one = start_holder(any);
	two = start_holder(any);
	kill_and_reap(one);
	cr_expect_eq(find(p, "a", false).taken, 2);
	pool_verify(p, "a");
	cr_expect_eq(find(p, "a", false).taken, 1);
	pool_verify(p, "b"); /* there is none */
	kill_and_reap(two);
}

Test(pool, mistakes_of_who_does_not_verify_last_a_moment)
{
	pid_t waiter = start_mistaken(open_pool());

	set_time(2 * SECOND);
	cr_expect_not(goes_on_waiting(waiter));
}

Test(pool, a_change_of_members_has_waiters_verify)
{
	struct pool *p = open_pool();
	pid_t waiter = start_mistaken(p);

	set(p, "w0", 1, POOL_UP, 1000);
	cr_expect_not(goes_on_waiting(waiter));
}

Test(pool, a_change_of_members_is_known_to_who_comes_later)
{
	struct pool *p = open_pool();

	kill_traced(start_mistaken(p));
	set(p, "w0", 1, POOL_UP, 1000);
	(void)take(p, &any);
}

/* ---- slots here, which nobody gives back ---- */

/* System calls of one who comes and takes a slot. */
static unsigned calls_of_taking(void)
{
	pid_t pid = fork_stopped();

	if (pid == 0) {
		(void)take(open_pool(), &try_any);
		_exit(0);
	}
	n_calls = 0;
	cr_assert_not(goes_on_waiting(pid));
	return n_calls;
}

static struct pool *here_and_a_slower_worker(void)
{
	struct pool *p = open_pool();

	set_time(SECOND);
	set(p, POOL_LOCAL, 2, POOL_UP, 1000);
	set(p, "slow", 8, POOL_UP, 700); /* too little to wait for */
	return p;
}

Test(pool, a_job_here_that_has_ended_makes_room_for_the_next)
{
	struct pool *p = here_and_a_slower_worker();
	pid_t one = start_holder(try_any), two = start_holder(try_any);

	cr_assert_eq(find(p, POOL_LOCAL, false).taken, 2);
	kill_and_reap(one);
	cr_expect_str_eq(take(p, &try_any).name, POOL_LOCAL);
	cr_expect_str_eq(take(p, &try_any).name, "slow");
	kill_and_reap(two);
	cr_expect_str_eq(take(p, &try_any).name, "slow", "those were right, a moment ago");
	set_time(2 * SECOND);
	cr_expect_str_eq(take(p, &try_any).name, POOL_LOCAL);
}

Test(pool, slots_here_are_asked_seldom)
{
	struct pool *p = here_and_a_slower_worker();
	unsigned asked, not_asked;

	(void)start_holder(try_any);
	(void)start_holder(try_any);
	asked = calls_of_taking();
	not_asked = calls_of_taking();
	cr_expect_gt(asked, not_asked);
	cr_expect_eq(calls_of_taking(), not_asked);
	set_time(2 * SECOND);
	cr_expect_eq(calls_of_taking(), asked);
	cr_expect_eq(find(p, "slow", false).acquired, 4);
}

/* ---- patience ---- */

/*
 * Jobs take 1000 s on "fast", which is taken, and 3000 s on "slow", which is free.  So the first in
 * the queue has patience for the 2000 s that it gains, and the second, who came with it and is
 * stopped, has no less.
 */
struct patient {
	struct pool *pool;
	struct pool_slot fast;
	pid_t first, second;
};

static struct patient two_patient_ones(void)
{
	struct pool_request q = {.kind = 7};
	struct patient ret = {.pool = open_pool()};

	set_time(SECOND);
	set(ret.pool, "slow", 1, POOL_UP, 333);
	set(ret.pool, "fast", 1, POOL_UP, 1000);
	pool_set_work(ret.pool, 7, 1000000000);
	pool_set_mean(ret.pool, 1000000000);
	ret.fast = take(ret.pool, &any);
	cr_assert_str_eq(ret.fast.name, "fast");
	ret.first = start_stopped_waiter(q, 0, -1, 0);
	ret.second = start_stopped_waiter(q, 0, -1, 0);
	return ret;
}

Test(pool, who_got_what_it_waited_for_gives_the_next_new_patience)
{
	struct patient two = two_patient_ones();

	set_time(1500 * SECOND);
	pool_release(two.pool, &two.fast);
	cr_assert_not(goes_on_waiting(two.first));
	cr_assert_eq(find(two.pool, "fast", false).acquired, 2);
	two.fast = take(two.pool, &(struct pool_request){.only = "fast"});
	set_time(3400 * SECOND);
	cr_expect(goes_on_waiting(two.second), "it has waited for 1900 s since then, not for 3400");
	set_time(3600 * SECOND);
	set(two.pool, "slow", 2, POOL_UP, 333); /* so that it looks again */
	cr_expect_not(goes_on_waiting(two.second));
	cr_expect_eq(find(two.pool, "slow", false).acquired, 1);
}

Test(pool, who_leaves_the_queue_gives_the_next_no_patience)
{
	struct patient two = two_patient_ones();

	set_time(1500 * SECOND);
	kill_traced(two.first);
	set_time(2500 * SECOND);
	cr_expect_not(goes_on_waiting(two.second));
	cr_expect_eq(find(two.pool, "slow", false).acquired, 1);
}

/* It has got it too late to show that what it waited for comes as expected. */
Test(pool, who_had_no_patience_left_gives_the_next_none)
{
	struct patient two = two_patient_ones();

	set_time(2500 * SECOND);
	pool_release(two.pool, &two.fast);
	cr_assert_not(goes_on_waiting(two.first));
	cr_assert_eq(find(two.pool, "fast", false).acquired, 2);
	two.fast = take(two.pool, &(struct pool_request){.only = "fast"});
	cr_expect_not(goes_on_waiting(two.second));
	cr_expect_eq(find(two.pool, "slow", false).acquired, 1);
}

Test(pool, directory_stays_with_its_member_while_that_is_free)
{
	struct pool *p = open_pool();
	struct pool_request q = {.cwd = "/src/x", .local_ok = true, .try = true};
	struct pool_slot first;

	set(p, "a", 8, POOL_UP, 1000);
	set(p, "b", 8, POOL_UP, 1000);
	first = take(p, &q);
	for (int i = 0; i < 4; i++)
		cr_assert_str_eq(take(p, &q).name, first.name);
	cr_assert_str_neq(take(p, &q).name, first.name); /* 3 free there, 8 here */
	q.cwd = "/src/y";
	cr_assert_str_neq(take(p, &q).name, first.name);
}

Test(pool, avoids_unless_there_is_no_other)
{
	struct pool *p = open_pool();
	struct pool_request q = {.avoid = "big", .local_ok = true, .try = true};

	set(p, "big", 100, POOL_UP, 1000);
	cr_assert_str_eq(take(p, &q).name, "big");
	set(p, "small", 1, POOL_UP, 1000);
	cr_assert_str_eq(take(p, &q).name, "small");
	expect(p, &q, -EAGAIN);
	set(p, "small", 1, POOL_DOWN, 1000);
	cr_assert_str_eq(take(p, &q).name, "big");
}

Test(pool, names_and_sizes_are_checked)
{
	struct pool *p = open_pool();
	struct errmsg msg;
	char name[80];

	cr_assert_eq(pool_set(p, "a/b", 1, POOL_UP, 1, &msg), -EINVAL);
	cr_assert_eq(pool_set(p, "..", 1, POOL_UP, 1, &msg), -EINVAL);
	cr_assert_eq(pool_set(p, "", 1, POOL_UP, 1, &msg), -EINVAL);
	cr_assert_eq(pool_set(p, "a b", 1, POOL_UP, 1, &msg), -EINVAL);
	cr_assert_eq(pool_set(p, "a", POOL_SLOTS_MAX + 1, POOL_UP, 1, &msg), -EINVAL);
	memset(name, 'n', sizeof(name));
	name[64] = '\0';
	cr_assert_eq(pool_set(p, name, 1, POOL_UP, 1, &msg), -EINVAL);
	name[63] = '\0';
	set(p, name, POOL_SLOTS_MAX, POOL_UP, 1000);
	cr_assert_str_eq(take(p, &any).name, name);
	for (int i = 1; i < POOL_MEMBERS_MAX; i++) {
		(void)snprintf(name, sizeof(name), "w.%d", i);
		set(p, name, 1, POOL_UP, 1000);
	}
	cr_assert_eq(pool_set(p, "more", 1, POOL_UP, 1, &msg), -ENOSPC);
	cr_assert_eq(pool_list(p, NULL, 0, false), POOL_MEMBERS_MAX);
}

Test(pool, held_slots_outlive_remove_and_reset)
{
	struct pool *p = open_pool();
	struct pool_slot s;

	set(p, "a", 1, POOL_UP, 1000);
	s = take(p, &any);
	cr_assert_eq(pool_reset(p), 0);
	cr_assert_eq(pool_list(p, NULL, 0, false), 0);
	set(p, "other", 1, POOL_DOWN, 1000); /* takes over the record */
	set(p, "a", 1, POOL_UP, 1000);
	expect(p, &try_any, -EAGAIN);
	cr_assert_eq(find(p, "a", true).taken, 1);
	pool_release(p, &s);
	s = take(p, &try_any);
	cr_assert_str_eq(s.name, "a");
	set(p, "a", 0, POOL_UP, 1000);
	pool_release(p, &s);
	expect(p, &try_any, CONCC_E_UNAVAIL);
}

/* ---- death ---- */

Test(pool, killed_holder_frees_its_slot)
{
	struct pool *p = open_pool();
	struct pool_slot s;

	set(p, "a", 1, POOL_UP, 1000);
	for (int i = 0; i < 3; i++) {
		pid_t pid = start_holder(any);

		expect(p, &try_any, -EAGAIN);
		kill_and_reap(pid);
		cr_assert_eq(find(p, "a", false).taken, 1, "the hint went by itself");
		s = take(p, &try_any);
		pool_release(p, &s);
	}
}

Test(pool, waiter_gets_slot_of_killed_holder)
{
	struct pool *p = open_pool();

	set(p, "a", 3, POOL_UP, 1000);
	set(p, "b", 3, POOL_UP, 1000);
	for (int round = 0; round < 30; round++) {
		pid_t holders[6], waiter;

		for (int i = 0; i < 6; i++)
			holders[i] = start_holder(any);
		waiter = start_waiter(any, 0, -1, 0);
		kill_and_reap(holders[round % 6]);
		reap(waiter, 0);
		for (int i = 0; i < 6; i++)
			if (i != round % 6)
				kill_and_reap(holders[i]);
	}
}

/* Its open file lives on in the child, which is only seen by the pipe's hang-up. */
Test(pool, slot_is_held_until_last_copy_is_closed)
{
	struct pool *p = open_pool();
	int fds[2], go[2];
	pid_t holder, waiter;
	char c;

	set(p, "a", 1, POOL_UP, 1000);
	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(pipe(go), 0);
	holder = fork_child();
	if (holder == 0) {
		struct pool *own = open_pool();
		struct pool_slot s = take(own, &any);

		if (fork() == 0) { /* outlives its parent, not the pipe */
			(void)close(go[1]);
			_exit(read(go[0], &c, 1) != 1 || s.fd < 0);
		}
		_exit(write(fds[1], "x", 1) != 1);
	}
	cr_assert_eq(read(fds[0], &c, 1), 1);
	reap(holder, 0);
	expect(p, &try_any, -EAGAIN);
	waiter = start_waiter(any, 0, -1, 0);
	cr_assert_eq(write(go[1], "x", 1), 1);
	reap(waiter, 0);
}

/*
 * A holder that is just being closed may have given its event already while its
 * lock is still there.  The kernel can't be stopped at that point, so the watch is
 * made deaf to events: what is left is the hang-up.
 */
Test(pool, slot_being_closed_is_followed_to_its_end)
{
	struct pool *p = open_pool();
	struct pool_watch w = {0};
	bool recheck = false;
	int go[2];
	pid_t holder, copy;
	char c;

	set(p, "a", 2, POOL_UP, 1000);
	(void)start_holder(any); /* keeps its beacon: nothing to follow */
	cr_assert_eq(pipe(go), 0);
	holder = fork_child();
	if (holder == 0) {
		(void)take(open_pool(), &any);
		copy = fork();
		if (copy == 0)
			_exit(read(go[0], &c, 1) != 1);
		_exit(0); /* and with it the lock that belongs to the process */
	}
	reap(holder, 0);
	cr_assert_eq(pool_watch_open(&w, p), 0);
	cr_assert_eq(pool_watch_verify_member(p, 0, &w), 0);
	cr_assert_eq(w.n, 2, "one slot to follow, not %zu", w.n - 1);
	cr_assert_eq(poll(&w.fds[1], 1, 0), 0);
	cr_assert_geq(dup3(inotify_init1(IN_NONBLOCK), w.fds[0].fd, O_CLOEXEC), 0);
	cr_assert_eq(write(go[1], "x", 1), 1);
	cr_assert_eq(pool_watch_wait(&w, p, UINT64_MAX, &recheck), 0);
	cr_assert_eq(w.n, 1);
	cr_assert_not(recheck);
	pool_watch_close(&w);
	cr_assert_eq(find(p, "a", false).taken, 1);
}

Test(pool, exec_gives_the_slot_back)
{
	struct pool *p = open_pool();
	struct pool_slot s;
	int fds[2];
	pid_t pid;
	char c;

	set(p, "a", 1, POOL_UP, 1000);
	cr_assert_eq(pipe(fds), 0);
	pid = fork_child();
	if (pid == 0) {
		s = take(open_pool(), &any);
		(void)dup2(fds[1], 1);
		(void)execlp("sh", "sh", "-c", "echo x; exec sleep 1000", NULL);
		_exit(1);
	}
	cr_assert_eq(read(fds[0], &c, 1), 1); /* by now it is another program */
	s = take(p, &try_any);
	pool_release(p, &s);
	kill_and_reap(pid);
}

/* ---- the queue ---- */

Test(pool, waiters_are_served_in_order_of_arrival)
{
	enum { N = 20 };
	struct pool *p = open_pool();
	unsigned char order[N];
	struct pool_slot s;
	pid_t pids[N];
	int fds[2];

	set(p, "a", 1, POOL_UP, 1000);
	s = take(p, &any);
	cr_assert_eq(pipe(fds), 0);
	for (int i = 0; i < N; i++) {
		pids[i] = start_waiter(any, 0, fds[1], (unsigned char)i);
		cr_assert_eq(pool_waiters(p), i + 1);
	}
	expect(p, &try_any, -EAGAIN);
	/* Some leave the queue: neither a gap nor the end of the second may disturb the rest. */
	kill_and_reap(pids[1]);
	kill_and_reap(pids[7]);
	kill_and_reap(pids[8]);
	kill_and_reap(pids[N - 1]);
	cr_assert_eq(pool_waiters(p), N - 4);
	pool_release(p, &s);
	cr_assert_eq(read_full(fds[0], order, N - 4), N - 4);
	for (int i = 0, at = 0; i < N; i++) {
		if (i == 1 || i == 7 || i == 8 || i == N - 1)
			continue;
		cr_assert_eq(order[at], i, "place %d went to %d, not to %d", at, order[at], i);
		at++;
		reap(pids[i], 0);
	}
	cr_assert_eq(pool_waiters(p), 0);
}

Test(pool, killed_head_passes_on)
{
	struct pool *p = open_pool();
	struct pool_slot s;
	pid_t head, second;

	set(p, "a", 1, POOL_UP, 1000);
	s = take(p, &any);
	head = start_waiter(any, 0, -1, 0);
	second = start_waiter(any, 0, -1, 0);
	kill_and_reap(head);
	pool_release(p, &s);
	reap(second, 0);
}

Test(pool, newcomer_does_not_overtake)
{
	struct pool *p = open_pool();
	struct pool_slot s;
	pid_t waiter;

	set(p, "a", 1, POOL_UP, 1000);
	s = take(p, &any);
	waiter = start_waiter(any, 0, -1, 0);
	/* Stopped, so that it can't take what is free: nobody else may either. */
	cr_assert_eq(kill(waiter, SIGSTOP), 0);
	cr_assert_eq(waitpid(waiter, NULL, WUNTRACED), waiter);
	pool_release(p, &s);
	expect(p, &try_any, -EAGAIN);
	cr_assert_eq(kill(waiter, SIGCONT), 0);
	reap(waiter, 0);
	s = take(p, &try_any);
}

Test(pool, who_waits_for_one_member_does_not_hold_up_others)
{
	struct pool *p = open_pool();
	struct pool_request only = {.only = "a", .local_ok = true};
	struct pool_slot s;
	pid_t waiter;

	set(p, "a", 1, POOL_UP, 1000);
	s = take(p, &any);
	set(p, "b", 1, POOL_UP, 1000);
	waiter = start_waiter(only, 0, -1, 0);
	cr_assert_str_eq(take(p, &try_any).name, "b");
	pool_release(p, &s);
	reap(waiter, 0);
}

Test(pool, waiters_learn_of_new_capacity)
{
	struct pool *p = open_pool();
	pid_t waiter;

	set(p, "a", 1, POOL_UP, 1000);
	set(p, "b", 1, POOL_DOWN, 1000);
	(void)take(p, &any);
	waiter = start_waiter(any, 0, -1, 0);
	set(p, "a", 2, POOL_UP, 1000);
	reap(waiter, 0);
	(void)take(p, &try_any);
	waiter = start_waiter(any, 0, -1, 0);
	set(p, "b", 1, POOL_UP, 1000);
	reap(waiter, 0);
	(void)take(p, &try_any);
	waiter = start_waiter(any, 0, -1, 0);
	set(p, "c", 1, POOL_UP, 1000);
	reap(waiter, 0);
}

/* Holders that died while their member was down: nobody saw it. */
Test(pool, member_that_comes_up_again_is_verified)
{
	struct pool *p = open_pool();
	pid_t holder, waiter;

	set(p, "a", 1, POOL_UP, 1000);
	holder = start_holder(any);
	set(p, "b", 1, POOL_UP, 1000);
	(void)take(p, &any);
	set(p, "a", 1, POOL_DOWN, 1000);
	kill_and_reap(holder);
	waiter = start_waiter(any, 0, -1, 0);
	set(p, "a", 1, POOL_UP, 1000);
	reap(waiter, 0);
}

Test(pool, all_waiters_leave_when_all_members_are_down)
{
	struct pool *p = open_pool();
	pid_t pids[10];

	set(p, "a", 1, POOL_UP, 1000);
	set(p, "b", 1, POOL_UP, 1000);
	(void)take(p, &any);
	(void)take(p, &any);
	for (int i = 0; i < 10; i++)
		pids[i] = start_waiter(any, CONCC_E_UNAVAIL, -1, 0);
	set(p, "a", 1, POOL_DOWN, 1000);
	cr_assert_eq(pool_remove(p, "b"), 0);
	for (int i = 0; i < 10; i++)
		reap(pids[i], 0);
}

/* ---- members that are asleep ---- */

static void expect_call(struct pool *p, int fd, const char *name)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	char got[POOL_NAME_MAX + 1];

	cr_assert_eq(poll(&pfd, 1, 20000), 1, "nobody calls");
	cr_assert_eq(pool_next_call(p, got), 0);
	cr_assert_str_eq(got, name);
}

static void drain_calls(struct pool *p)
{
	char name[POOL_NAME_MAX + 1];

	while (pool_next_call(p, name) == 0)
		;
}

Test(pool, waiters_call_for_who_is_asleep)
{
	struct pool_request only = {.only = "b", .local_ok = true};
	struct pool *p = open_pool();
	struct errmsg msg = {""};
	pid_t first, second;
	int fd;

	cr_assert_eq(pool_listen(p, &fd, &msg), 0, "%s", msg.text);
	set(p, "a", 1, POOL_ASLEEP, 1000);
	set(p, "b", 1, POOL_ASLEEP, 1000);
	cr_expect_eq(pool_total(p), 2);
	expect(p, &try_any, -EAGAIN);
	first = start_waiter(any, 0, -1, 0);
	expect_call(p, fd, "");
	drain_calls(p);
	second = start_waiter(only, 0, -1, 0);
	expect_call(p, fd, "b");
	cr_expect_eq(pool_waiters(p), 2);
	set(p, "a", 1, POOL_UP, 1000);
	reap(first, 0);
	set(p, "b", 1, POOL_UP, 1000);
	reap(second, 0);
	/* While others have room, nobody is called. */
	drain_calls(p);
	set(p, "b", 1, POOL_ASLEEP, 1000);
	cr_assert_str_eq(take(p, &any).name, "a");
	cr_expect_eq(pool_next_call(p, msg.text), -EAGAIN);
	cr_expect_eq(pool_held(p, "a"), 1);
	cr_expect_eq(pool_held(p, "b"), 0);
}

/* Were just the other one started, it would wait for ever. */
Test(pool, who_avoids_one_calls_for_another)
{
	struct pool_request q = {.avoid = "a"};
	struct pool *p = open_pool();
	struct errmsg msg = {""};
	pid_t pid;
	int fd;

	cr_assert_eq(pool_listen(p, &fd, &msg), 0, "%s", msg.text);
	set(p, "a", 1, POOL_ASLEEP, 1000);
	set(p, "b", 1, POOL_ASLEEP, 1000);
	pid = start_waiter(q, 0, -1, 0);
	expect_call(p, fd, "b");
	set(p, "a", 1, POOL_UP, 1000);
	cr_expect_eq(pool_waiters(p), 1);
	set(p, "b", 1, POOL_UP, 1000);
	reap(pid, 0);
	/* Where another one is up, whichever is started will do. */
	drain_calls(p);
	set(p, "c", 1, POOL_ASLEEP, 1000);
	(void)take(p, &(struct pool_request){.only = "b"});
	pid = start_waiter(q, 0, -1, 0);
	expect_call(p, fd, "");
	set(p, "c", 1, POOL_UP, 1000);
	reap(pid, 0);
}

/* A process that hears the calls until it is killed. */
static pid_t start_listener(void)
{
	struct errmsg msg;
	int fds[2], fd;
	pid_t pid;
	char c;

	cr_assert_eq(pipe(fds), 0);
	pid = fork_child();
	if (pid == 0) {
		if (pool_listen(open_pool(), &fd, &msg) < 0 || write(fds[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			(void)pause();
	}
	(void)close(fds[1]);
	cr_assert_eq(read(fds[0], &c, 1), 1, "it can't listen");
	(void)close(fds[0]);
	return pid;
}

static uint32_t in_queue(struct pool *p, enum pool_queue which)
{
	struct sched_job j;

	pool_queue(p, which, &j);
	return j.waiting;
}

Test(pool, who_waits_is_counted_by_what_it_can_have)
{
	struct pool_request away = {0}, avoid = {.local_ok = true, .avoid = "a"},
			    only = {.only = "b", .local_ok = true};
	struct pool *p = open_pool();
	struct errmsg msg = {""};
	struct sched_place place;
	pid_t pids[4];
	int fd;

	cr_assert_eq(pool_listen(p, &fd, &msg), 0, "%s", msg.text);
	set(p, "a", 3, POOL_ASLEEP, 1000);
	set(p, "b", 1, POOL_ASLEEP, 1000);
	cr_expect_not(pool_is_wanted(p, "b"));
	pids[0] = start_waiter(any, 0, -1, 0);
	pids[1] = start_waiter(away, 0, -1, 0);
	pids[2] = start_waiter(avoid, 0, -1, 0);
	pids[3] = start_waiter(only, 0, -1, 0);
	cr_expect_eq(in_queue(p, POOL_QUEUE_ALL), 3);
	cr_expect_eq(in_queue(p, POOL_QUEUE_AWAY), 1);
	cr_expect_eq(in_queue(p, POOL_QUEUE_AVOID), 1);
	cr_expect(pool_is_wanted(p, "b"));
	cr_expect_not(pool_is_wanted(p, "a"));
	cr_expect(pool_place_of(p, "a", &place));
	cr_expect_eq(place.slots, 3);
	cr_expect_not(pool_place_of(p, "c", &place));
	set(p, "a", 3, POOL_UP, 1000);
	set(p, "b", 1, POOL_UP, 1000);
	for (int i = 0; i < 4; i++)
		reap(pids[i], 0);
}

Test(pool, waiters_leave_when_who_is_asleep_can_not_come)
{
	struct pool *p = open_pool();
	pid_t listener = start_listener(), waiter;

	set(p, "a", 1, POOL_ASLEEP, 1000);
	waiter = start_waiter(any, CONCC_E_UNAVAIL, -1, 0);
	set(p, "a", 1, POOL_DOWN, 1000);
	reap(waiter, 0);
	/* Who would wake it dies: first while one waits, then before one comes. */
	set(p, "a", 1, POOL_ASLEEP, 1000);
	waiter = start_waiter(any, CONCC_E_CLOSED, -1, 0);
	kill_and_reap(listener);
	reap(waiter, 0);
	expect(p, &any, CONCC_E_CLOSED);
	/* Not so while slots are held: those will be free some day. */
	set(p, "b", 1, POOL_UP, 1000);
	(void)take(p, &any);
	waiter = start_waiter(any, 0, -1, 0);
	set(p, "b", 2, POOL_UP, 1000);
	reap(waiter, 0);
	pool_close(p);
}

static void on_signal(int sig)
{
}

Test(pool, signal_ends_the_wait)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct pool *p = open_pool();
	pid_t head, second;

	set(p, "a", 1, POOL_UP, 1000);
	(void)take(p, &any);
	cr_assert_eq(sigaction(SIGUSR1, &sa, NULL), 0); /* inherited by the waiters */
	head = start_waiter(any, -EINTR, -1, 0);
	second = start_waiter(any, -EINTR, -1, 0);
	/* Both are past the last instruction before their system call: it ends with EINTR. */
	cr_assert_eq(kill(second, SIGUSR1), 0);
	reap(second, 0);
	cr_assert_eq(kill(head, SIGUSR1), 0);
	reap(head, 0);
	cr_assert_eq(pool_waiters(p), 0);
}

/* ---- many ---- */

struct counters {
	int inside, most, served;
};

static void enter_and_leave(struct counters *c, bool die)
{
	struct pool *p = open_pool();
	struct pool_slot s;
	int now, most;

	if (pool_acquire(p, &any, &s) < 0)
		_exit(1);
	now = __atomic_add_fetch(&c->inside, 1, __ATOMIC_SEQ_CST);
	most = __atomic_load_n(&c->most, __ATOMIC_SEQ_CST);
	while (now > most && !__atomic_compare_exchange_n(&c->most, &most, now, false,
							  __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	(void)sched_yield(); /* gives the others a chance to be wrong */
	__atomic_add_fetch(&c->served, 1, __ATOMIC_SEQ_CST);
	__atomic_sub_fetch(&c->inside, 1, __ATOMIC_SEQ_CST);
	if (die)
		(void)raise(SIGKILL);
	pool_release(p, &s);
	_exit(0);
}

static struct counters *crowd(int n, int die_of_8)
{
	struct counters *c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t *pids = xcalloc((size_t)n, sizeof(*pids));

	cr_assert_neq(c, MAP_FAILED);
	for (int i = 0; i < n; i++) {
		bool die = i % 8 < die_of_8;

		pids[i] = fork_child();
		if (pids[i] == 0)
			enter_and_leave(c, die);
	}
	for (int i = 0; i < n; i++)
		reap(pids[i], i % 8 < die_of_8 ? SIGKILL : 0);
	free(pids);
	return c;
}

/* Each is worth one job: who comes at the same moment as another is to know of it. */
Test(pool, of_those_who_see_the_same_one_has_the_slot)
{
	const struct sched_profile one_core = {.slowdown = {SCHED_ONE}, .cores = 1};
	struct pool *p = open_pool();
	struct pick_wish wish = pick_wish(p->table, &try_any);
	struct pick first, second;
	struct pool_slot s;

	set(p, "a", 8, POOL_UP, 1000);
	set(p, "b", 8, POOL_UP, 1000);
	cr_assert_eq(pool_set_profile(p, "a", &one_core), 0);
	cr_assert_eq(pool_set_profile(p, "b", &one_core), 0);
	cr_assert_eq(pick(p->table, &try_any, &wish, &first), 0);
	cr_assert_eq(pick(p->table, &try_any, &wish, &second), 0);
	cr_assert_eq(first.index, second.index);
	cr_assert_eq(pool_take_picked(p, &try_any, &first, &s), 0);
	cr_assert_eq(pool_take_picked(p, &try_any, &second, &s), -EAGAIN);
	cr_assert_eq(pick(p->table, &try_any, &wish, &second), 0);
	cr_assert_neq(first.index, second.index);
}

Test(pool, five_hundred_over_four_slots)
{
	struct pool *p = open_pool();
	struct counters *c;

	set(p, "a", 2, POOL_UP, 1000);
	set(p, "b", 2, POOL_UP, 1000);
	c = crowd(500, 0);
	cr_assert_eq(c->served, 500);
	cr_assert_leq(c->most, 4);
	cr_assert_eq(find(p, "a", false).taken + find(p, "b", false).taken, 0);
}

Test(pool, five_hundred_that_are_all_killed)
{
	struct pool *p = open_pool();
	struct counters *c;

	set(p, "a", 2, POOL_UP, 1000);
	set(p, "b", 2, POOL_UP, 1000);
	c = crowd(500, 8);
	cr_assert_eq(c->served, 500);
	cr_assert_leq(c->most, 4);
	c = crowd(500, 3);
	cr_assert_eq(c->served, 500);
	cr_assert_leq(c->most, 4);
}

struct usage {
	unsigned long long switches, ticks;
};

static struct usage usage_of(pid_t pid)
{
	struct usage u = {0, 0};
	unsigned long long utime = 0, stime = 0, n;
	char path[64], line[512];
	const char *at;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	cr_assert(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "voluntary_ctxt_switches: %llu", &n) == 1)
			u.switches = n;
	(void)fclose(f);
	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	cr_assert(f && fgets(line, sizeof(line), f));
	(void)fclose(f);
	at = strrchr(line, ')');
	cr_assert(at && sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
			       &utime, &stime) == 2);
	u.ticks = utime + stime;
	return u;
}

/* Takes so many bytes: who writes one more stands still. */
static int pipe_for(int n)
{
	int fds[2], room = n;
	char some[4096] = {0};

	cr_assert_eq(pipe2(fds, O_NONBLOCK), 0);
	while (write(fds[1], some, sizeof(some)) == (ssize_t)sizeof(some))
		;
	cr_assert_eq(errno, EAGAIN);
	cr_assert_eq(read_full(fds[0], some, sizeof(some)), sizeof(some));
	cr_assert_eq(write(fds[1], some, sizeof(some) - (size_t)room),
		     (ssize_t)sizeof(some) - room);
	cr_assert_eq(fcntl(fds[1], F_SETFL, 0), 0);
	return fds[1]; /* the other end is closed with this process */
}

/*
 * While 100 of 2000 are served, one after the other, those behind must not even
 * wake up: each may be seen going to sleep, once, and its clock stands still.
 * But for the next few, and those whom somebody has stopped and continued, by
 * which they lose their place as well.
 */
Test(pool, two_thousand_waiters_use_no_cpu, .timeout = 1000)
{
	enum { N = 2000, SERVED = 100, WOKEN_MAX = 100 };
	struct pool *p = open_pool();
	static pid_t pids[N];
	static struct usage before[N];
	unsigned long long ticks = 0;
	int out = pipe_for(SERVED); /* the one after the last keeps the slot */
	unsigned woken = 0;
	struct pool_slot s;

	set(p, "a", 1, POOL_UP, 1000);
	s = take(p, &any);
	for (int i = 0; i < N; i++)
		pids[i] = start_waiter(any, 0, out, 0);
	cr_assert_eq(pool_waiters(p), N);
	for (int i = 0; i < N; i++)
		before[i] = usage_of(pids[i]);
	pool_release(p, &s);
	for (int n = 0; n < SERVED; n++) {
		int i = 0, st;
		pid_t pid = wait(&st);

		cr_assert_eq(st, 0);
		while (pids[i] != pid)
			cr_assert_lt(++i, N);
		pids[i] = 0;
	}
	for (int i = 0; i < N; i++) {
		struct usage now = pids[i] ? usage_of(pids[i]) : before[i];

		if (now.switches > before[i].switches + 1)
			woken++;
		else
			ticks += now.ticks - before[i].ticks;
	}
	cr_assert_leq(woken, WOKEN_MAX);
	cr_assert_eq(ticks, 0);
	for (int i = 0; i < N; i++)
		cr_assert(!pids[i] || kill(pids[i], SIGKILL) == 0);
	for (int i = 0; i < N; i++)
		if (pids[i])
			reap(pids[i], SIGKILL);
	cr_assert_eq(pool_waiters(p), 0);
	s = take(p, &try_any);
}

/* ---- a directory that is not as it should be ---- */

static void expect_refused(int code)
{
	struct errmsg msg = {""};
	struct pool *p;

	cr_assert_eq(pool_open(dir, &p, &msg), code, "%s", msg.text);
	cr_assert(strstr(msg.text, dir), "no path in: %s", msg.text);
}

static void in_dir(char *ret, const char *name)
{
	(void)snprintf(ret, 128, "%s/%s", dir, name);
}

Test(pool, refuses_what_is_not_its_own)
{
	char pool[128], slots[128], other[128];
	int fd;

	in_dir(pool, "pool");
	in_dir(slots, "slots");
	in_dir(other, "other");
	cr_assert_eq(mkdir(other, 0700), 0);
	cr_assert_eq(symlink(other, slots), 0);
	expect_refused(CONCC_E_UNSAFE);
	cr_assert_eq(unlink(slots), 0);
	fd = creat(slots, 0600);
	expect_refused(CONCC_E_UNSAFE);
	(void)close(fd);
	cr_assert_eq(unlink(slots), 0);
	cr_assert_eq(mkdir(slots, 0700), 0);
	cr_assert_eq(chmod(slots, 0777), 0);
	expect_refused(CONCC_E_UNSAFE);
	cr_assert_eq(chmod(slots, 0700), 0);

	cr_assert_eq(symlink("other/file", pool), 0);
	expect_refused(CONCC_E_UNSAFE);
	in_dir(other, "other/file");
	cr_assert_eq(access(other, F_OK), -1, "the link was followed");
	cr_assert_eq(unlink(pool), 0);
	cr_assert_eq(mkfifo(pool, 0600), 0);
	expect_refused(CONCC_E_UNSAFE);
	cr_assert_eq(unlink(pool), 0);
	cr_assert_eq(mkdir(pool, 0700), 0);
	expect_refused(CONCC_E_UNSAFE);
	cr_assert_eq(rmdir(pool), 0);
	pool_close(open_pool());
	in_dir(other, "link");
	cr_assert_eq(link(pool, other), 0);
	expect_refused(CONCC_E_UNSAFE);
	cr_assert_eq(unlink(other), 0);
	if (geteuid() == 0) {
		cr_assert_eq(chown(pool, 12345, 12345), 0);
		expect_refused(CONCC_E_UNSAFE);
	}
}

Test(pool, refuses_slot_files_that_are_not_its_own)
{
	struct pool *p = open_pool();
	char path[128];
	int fd;

	set(p, "a", 1, POOL_UP, 1000);
	in_dir(path, "slots/a.0");
	cr_assert_eq(symlink("/dev/null", path), 0);
	expect(p, &any, CONCC_E_UNSAFE);
	cr_assert_eq(unlink(path), 0);
	fd = creat(path, 0600);
	cr_assert_geq(fd, 0);
	(void)close(fd);
	expect(p, &any, CONCC_E_UNSAFE);
	cr_assert_eq(unlink(path), 0);
	(void)take(p, &any);
}

static void overwrite(off_t at, const void *bytes, size_t n)
{
	char path[128];
	int fd;

	in_dir(path, "pool");
	fd = open(path, O_RDWR | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	cr_assert_eq(pwrite(fd, bytes, n, at), (ssize_t)n);
	(void)close(fd);
}

Test(pool, rebuilds_a_damaged_table_that_nobody_uses)
{
	struct pool *p = open_pool();
	char path[128];

	set(p, "a", 1, POOL_UP, 1000);
	pool_close(p);
	log_init("test_pool", LOG_LEVEL_ERR); /* no warnings */
	overwrite(0, "damaged!", 8);
	p = open_pool();
	cr_assert_eq(pool_list(p, NULL, 0, false), 0);
	set(p, "a", 1, POOL_UP, 1000);
	pool_close(p);
	in_dir(path, "pool");
	cr_assert_eq(truncate(path, 100), 0);
	p = open_pool();
	set(p, "a", 1, POOL_UP, 1000);
	(void)take(p, &any);
}

Test(pool, leaves_another_version_in_use_alone)
{
	struct pool *p = open_pool(), *second;
	uint32_t version = 99;
	struct errmsg msg = {""};

	overwrite(8, &version, sizeof(version));
	cr_assert_eq(pool_open(dir, &second, &msg), CONCC_E_VERSION);
	cr_assert(strstr(msg.text, dir));
	pool_close(p);
	log_init("test_pool", LOG_LEVEL_ERR); /* no warning */
	second = open_pool();
	cr_assert_eq(pool_list(second, NULL, 0, false), 0);
}

Test(pool, opened_first_by_many_at_once)
{
	pid_t pids[32];

	for (int i = 0; i < 32; i++) {
		pids[i] = fork_child();
		if (pids[i] == 0) {
			struct errmsg msg;
			struct pool *p;

			_exit(pool_open(dir, &p, &msg) == 0 ? 0 : 1);
		}
	}
	for (int i = 0; i < 32; i++)
		reap(pids[i], 0);
}

/* Garbage behind a good header: any answer will do, but for a crash or a hang. */
Test(pool, survives_garbage_in_the_table)
{
	struct pool *p = open_pool();
	unsigned char *bytes = (unsigned char *)p->table;
	unsigned int seed = 1;

	for (int round = 0; round < 50; round++) {
		struct pool_slot s;
		struct errmsg msg;

		for (size_t i = 16; i < sizeof(*p->table); i++) {
			seed = seed * 1103515245 + 12345;
			/* Some rounds with likely states, so that records count as members. */
			bytes[i] = round % 2 ? (unsigned char)(seed >> 16) : seed >> 16 & 1;
		}
		if (pool_acquire(p, &try_any, &s) == 0)
			pool_release(p, &s);
		(void)pool_total(p);
		(void)pool_waiters(p);
		(void)pool_list(p, NULL, 0, false);
		cr_assert_eq(pool_reset(p), 0);
		cr_assert_eq(pool_set(p, "a", 1, POOL_UP, 1000, &msg), 0);
		s = take(p, &any);
		pool_release(p, &s);
	}
}

static void write_proc(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	cr_assert(fd >= 0 && write_full(fd, text, strlen(text)) == 0, "%s", path);
	(void)close(fd);
}

/* Using up what this user may have would disturb whatever else wants one meanwhile. */
static void forbid_inotify(void)
{
	char map[32];

	(void)snprintf(map, sizeof(map), "%u %u 1", geteuid(), geteuid());
	if (unshare(CLONE_NEWUSER) < 0)
		_exit(77);
	write_proc("/proc/self/uid_map", map);
	write_proc("/proc/sys/user/max_inotify_instances", "0");
	cr_assert_eq(inotify_init1(IN_CLOEXEC), -1);
}

/* Without inotify a waiter is slower, not wrong. */
Test(pool, waits_without_inotify)
{
	struct pool *p = open_pool();
	pid_t pid;
	int st;

	set(p, "a", 1, POOL_UP, 1000);
	pid = fork_child();
	if (pid == 0) {
		struct pool_slot s;
		pid_t waiter;

		forbid_inotify();
		p = open_pool();
		s = take(p, &any);
		waiter = start_waiter(any, 0, -1, 0);
		pool_release(p, &s);
		reap(waiter, 0);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &st, 0), pid);
	if (WIFEXITED(st) && WEXITSTATUS(st) == 77)
		cr_skip_test("no user namespaces here");
	cr_assert_eq(st, 0, "it ended with %#x", st);
}
