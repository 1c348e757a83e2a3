/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LOOP_H
#define CONCC_LOOP_H

/*
 * An epoll loop: fds, timers, signals, children and deferred calls.  The thread
 * that makes a loop owns it and everything registered with it, which every call
 * checks; other threads reach it only through an eventfd of their own.  A source removed while
 * events are being dispatched is parked and freed after the round, so callbacks may remove any
 * source, their own included.
 *
 * The rule for every loop with a link on it: no call on its thread takes over 50 ms.  It answers
 * PING between its callbacks, and a peer that hears nothing for 4 s is given up with all its
 * jobs.  What waits for a disk, a network home, another program, or hashes more than some
 * megabytes is given to a thread (concc/offload.h), or cut into pieces with a deferred call after
 * each (project/commits.h).  Where neither is possible, link_pulse() is called on the way, and a
 * comment says why.
 *
 * Shortages: fds, timers and deferred calls can always be added.  A timer takes
 * no descriptor, and no system call when it is set.  An fd that epoll has no room
 * for (its memory, /proc/sys/fs/epoll/max_user_watches) is given to poll(2) until
 * it has.  What needs a descriptor of its own says so.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct loop;
struct loop_source;

enum loop_events {
	LOOP_READ = 1 << 0,
	LOOP_WRITE = 1 << 1,
	LOOP_HANGUP = 1 << 2, /* reported always: EPOLLHUP or EPOLLERR */
};

typedef void (*loop_fd_fn)(void *data, uint32_t events);
typedef void (*loop_fn)(void *data);
typedef void (*loop_signal_fn)(void *data, int signo);
/* status as from waitpid(2), -1 when somebody else has reaped it; it has ended. */
typedef void (*loop_child_fn)(void *data, pid_t pid, int status);

int loop_new(struct loop **ret);
void loop_free(struct loop *l); /* removes what is left */

/* The fd stays the caller's and must outlive the source. */
struct loop_source *loop_add_fd(struct loop *l, int fd, uint32_t events, loop_fd_fn fn, void *data);
void loop_set_events(struct loop_source *s, uint32_t events);
/*
 * Fires once, delay_ms from now and never before, after the fds of its round; arm
 * again with loop_timer_set (0 disarms).
 */
struct loop_source *loop_add_timer(struct loop *l, uint64_t delay_ms, loop_fn fn, void *data);
void loop_timer_set(struct loop_source *s, uint64_t delay_ms);
/* Blocks the signal for the process and delivers it in the loop.  NULL and errno without a
 * descriptor for it. */
struct loop_source *loop_add_signal(struct loop *l, int signo, loop_signal_fn fn, void *data);
/* Watches by pidfd, reaps, calls once, then removes itself.  NULL and errno without a descriptor
 * for it: the child is the caller's to end. */
struct loop_source *loop_add_child(struct loop *l, pid_t pid, loop_child_fn fn, void *data);
/* Called once before the loop sleeps next, after the events at hand; then removes itself. */
struct loop_source *loop_defer(struct loop *l, loop_fn fn, void *data);
void loop_remove(struct loop_source *s); /* NULL is fine */

int loop_run(struct loop *l); /* until loop_quit(); 0 or -errno */
/* Until no child is watched, but at most this long.  -ETIMEDOUT: some still are. */
int loop_run_children(struct loop *l, uint64_t limit_ms);
void loop_quit(struct loop *l);
/* CLOCK_MONOTONIC when it last woke: since then its owner is busy with what it woke for. */
uint64_t loop_woke_ms(const struct loop *l);

/* How the rule is kept.  By the clock: a machine that is busy with others counts as well. */
struct loop_counts {
	uint64_t n_long;     /* calls of over 50 ms; each is told at the level "debug" */
	uint64_t longest_us; /* of all calls */
};
void loop_counts(const struct loop *l, struct loop_counts *ret);

#endif
