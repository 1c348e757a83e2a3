/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "jobs.h"
#include "disk.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/str.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* since Linux 6.5 */
#endif

/* ---- observers ---- */

void jobs_observe(struct server *s, struct observer *o)
{
	list_append(&s->observers, &o->of_server);
}

static void tell(const struct job *j, enum job_event what)
{
	list_for_each (l, &j->server->observers) {
		const struct observer *o = container_of(l, struct observer, of_server);

		o->event(o->data, what, j);
	}
}

/* ---- one job ---- */

static uint64_t real_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* Never 0, which says that it did not come to that; nor before, when the clock was set. */
uint64_t jobs_age_us(const struct job *j)
{
	uint64_t now = real_us();

	return now > j->record.arrived_us ? now - j->record.arrived_us : 1;
}

static struct job *new_job(struct server *s, enum job_state state)
{
	struct job *j = xcalloc(1, sizeof(*j));

	j->server = s;
	j->state = state;
	j->pidfd = -1;
	record_init(&j->record);
	list_append(&s->jobs, &j->of_server);
	return j;
}

void jobs_drop(struct job *j)
{
	if (!j)
		return;
	list_remove(&j->of_server);
	loop_remove(j->end_source);
	if (j->pidfd >= 0)
		(void)close(j->pidfd);
	record_release(&j->record);
	free(j);
}

static void end(struct job *j)
{
	disk_record(j->server, &j->record);
	tell(j, JOB_EVENT_ENDED);
	jobs_drop(j);
}

struct job *jobs_wait(struct server *s, pid_t pid, const char *words)
{
	struct job *j = new_job(s, JOB_WAITING);

	j->record.arrived_us = real_us();
	j->record.pid = (uint32_t)pid;
	free(j->record.command);
	j->record.command = str_escape(words, strlen(words), 160);
	tell(j, JOB_EVENT_WAITS);
	return j;
}

struct job *jobs_take(struct server *s, struct job *j, pid_t pid, const struct msg_run *m)
{
	struct record *r;

	if (!j)
		j = new_job(s, JOB_WAITING);
	r = &j->record;
	r->arrived_us = m->arrived_us;
	r->slot_us = m->slot_us;
	r->pid = (uint32_t)pid;
	r->tries = m->attempt;
	record_set(&r->build, m->run_id);
	record_set(&r->cwd, m->cwd);
	record_set_words(r, m->argv);
	return j;
}

void jobs_sent(struct job *j, const struct peer *p)
{
	j->state = JOB_AT_WORKER;
	j->record.tries++;
	j->record.sent_us = jobs_age_us(j);
	j->record.worker_slots = p->slots;
	j->record.all_slots = pool_total(j->server->pool);
	record_set(&j->record.worker, p->conf->name);
	j->files_before = p->fetched_files;
	j->bytes_before = p->fetched_bytes;
	j->fuse_before = p->fuse.total;
	j->beside = (uint32_t)p->jobs.n;
	tell(j, JOB_EVENT_SENT);
}

void jobs_said(struct job *j)
{
	if (j->record.said_us)
		return;
	j->record.said_us = jobs_age_us(j);
	tell(j, JOB_EVENT_SAID);
}

void jobs_ended(struct job *j)
{
	j->record.ended_us = jobs_age_us(j);
}

void jobs_placed(struct job *j, const struct peer *p, const struct msg_exit *m, uint64_t bytes_back)
{
	struct record *r = &j->record;

	r->placed_us = jobs_age_us(j);
	r->how = m->how == EXIT_SIGNAL ? RECORD_END_SIGNAL : RECORD_END_EXIT;
	r->code = m->code;
	r->utime_us = m->utime_us;
	r->stime_us = m->stime_us;
	r->wall_us = m->wall_us;
	r->maxrss_kb = m->maxrss_kb;
	r->bytes_back = bytes_back;
	/* A second try elsewhere began later: what was asked for before it is not its own. */
	if (!streq(r->worker, p->conf->name)) {
		record_set(&r->worker, p->conf->name);
		r->worker_slots = p->slots;
	} else {
		r->files_fetched = p->fetched_files - j->files_before;
		r->bytes_fetched = p->fetched_bytes - j->bytes_before;
		r->fuse_messages = p->fuse.total - j->fuse_before;
	}
	end(j);
}

void jobs_cached(struct job *j)
{
	struct record *r = &j->record;

	r->placed_us = r->ended_us = jobs_age_us(j);
	r->how = RECORD_END_EXIT;
	record_set(&r->rule, "cache");
	record_set(&r->why, "its result was kept");
	end(j);
}

void jobs_cancel(struct job *j)
{
	if (!j)
		return;
	if (j->state == JOB_WAITING) {
		jobs_drop(j); /* it may be that another server has it */
		return;
	}
	j->record.ended_us = jobs_age_us(j);
	record_set(&j->record.rule, "cancelled");
	end(j);
}

/* ---- here ---- */

static void on_process_end(void *data, uint32_t events)
{
	struct job *j = data;

	j->record.ended_us = j->record.placed_us = jobs_age_us(j);
	end(j);
}

/* The very process, where the kernel can say so.  It can't be another one by then, unless 4 million
 * were started in between. */
static int open_process(int fd, pid_t pid)
{
	socklen_t n = sizeof(int);
	int pidfd;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &n) == 0)
		return pidfd;
	return pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

int jobs_here(struct server *s, int fd, pid_t pid, struct blob payload)
{
	struct record r;
	struct job *j;
	int err = record_decode(payload, &r);

	if (err < 0)
		return err;
	j = new_job(s, JOB_HERE);
	record_release(&j->record);
	j->record = r;
	j->record.pid = (uint32_t)pid;
	j->record.all_slots = pool_total(s->pool);
	tell(j, JOB_EVENT_SENT);
	j->pidfd = open_process(fd, pid);
	if (j->pidfd >= 0)
		j->end_source = loop_add_fd(s->loop, j->pidfd, LOOP_READ, on_process_end, j);
	else
		on_process_end(j, 0);
	return 0;
}

void jobs_close(struct server *s)
{
	list_for_each_safe (l, &s->jobs) {
		struct job *j = container_of(l, struct job, of_server);

		if (j->state == JOB_HERE)
			disk_record(s, &j->record);
		jobs_drop(j);
	}
}
