/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "jobs.h"
#include "client.h"
#include "disk.h"
#include "peer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* since Linux 6.5 */
#endif

/* ---- observers ---- */

void jobs_observe(struct server *s, struct observer *o)
{
	list_append(&s->observers, &o->of_server);
}

static void tell(struct job *j, enum job_event what)
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

static struct job *new_job(struct server *s, struct client *c, enum job_state state)
{
	struct job *j = xcalloc(1, sizeof(*j));

	j->server = s;
	j->client = c;
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
	if (j->client && j->client->job == j)
		j->client->job = NULL;
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

struct job *jobs_wait(struct client *c, const char *words)
{
	struct job *j = new_job(c->server, c, JOB_WAITING);

	j->record.arrived_us = real_us();
	j->record.pid = (uint32_t)c->pid;
	free(j->record.command);
	j->record.command = str_escape(words, strlen(words), 160);
	tell(j, JOB_EVENT_WAITS);
	return j;
}

struct job *jobs_take(struct client *c, const struct msg_run *m)
{
	struct job *j = c->job ?: new_job(c->server, c, JOB_WAITING);
	struct record *r = &j->record;

	r->arrived_us = m->arrived_us;
	r->slot_us = m->slot_us;
	r->pid = (uint32_t)c->pid;
	r->tries = m->attempt;
	record_set(&r->build, m->run_id);
	record_set(&r->cwd, m->cwd);
	record_set_words(r, m->argv);
	return j;
}

void jobs_sent(struct job *j, struct peer *p)
{
	j->state = JOB_AT_WORKER;
	j->peer = p;
	j->began_ms = j->noted_ms = now_ms();
	j->done_us = 0;
	j->server->counts.n_sent++;
	j->record.tries++;
	j->record.sent_us = jobs_age_us(j);
	j->record.worker_slots = p->slots;
	j->record.all_slots = pool_total(j->server->pool);
	record_set(&j->record.worker, p->conf->name);
	j->files_before = p->fetched_files;
	j->bytes_before = p->fetched_bytes;
	j->fuse_before = p->fuse.total;
	j->beside = (uint32_t)p->jobs.n;
	j->lists_before = p->lists;
	tell(j, JOB_EVENT_SENT);
}

void jobs_begun(struct job *j)
{
	j->began_ms = j->noted_ms = now_ms();
	j->done_us = 0;
}

void jobs_sent_again(struct job *j, struct peer *p)
{
	j->second = p;
	j->second_us = jobs_age_us(j);
	j->server->counts.n_sent++;
	j->server->counts.n_twice++;
	j->record.tries++;
	tell(j, JOB_EVENT_SENT_AGAIN);
}

void jobs_one_left(struct job *j, struct peer *p)
{
	j->second = NULL;
	if (p != j->peer) {
		j->overtaken = true;
		j->peer = p;
		jobs_begun(j);
		j->server->counts.n_twice_won++;
		j->record.sent_us = j->second_us;
		j->record.worker_slots = p->slots;
		record_set(&j->record.worker, p->conf->name);
	}
	tell(j, JOB_EVENT_ONE_LEFT);
}

void jobs_back(struct job *j, bool elsewhere, const char *rule, const char *why)
{
	struct job_counts *k = &j->server->counts;
	uint64_t *n = map_get_str(&k->reasons, rule);

	if (!n) {
		n = xcalloc(1, sizeof(*n));
		map_put_str(&k->reasons, rule, n);
	}
	++*n;
	if (elsewhere)
		k->n_elsewhere++;
	else
		k->n_home++;
	record_set(&j->record.rule, rule);
	record_set(&j->record.why, why);
	tell(j, JOB_EVENT_BACK);
	jobs_drop(j);
}

void jobs_output(struct job *j)
{
	if (j->record.first_output_us)
		return;
	j->record.first_output_us = jobs_age_us(j);
	tell(j, JOB_EVENT_OUTPUT);
}

void jobs_ended(struct job *j)
{
	j->record.ended_us = jobs_age_us(j);
}

/* A worker may say anything, but no longer than it was waited for. */
static uint64_t there_us(const struct record *r, const struct msg_exit *m)
{
	uint64_t here_us = r->ended_us > r->sent_us ? r->ended_us - r->sent_us : 0;

	return m->wall_us < here_us ? m->wall_us : here_us;
}

void jobs_placed(struct job *j, const struct peer *p, const struct msg_exit *m, uint64_t bytes_back)
{
	struct record *r = &j->record;

	r->committed_us = jobs_age_us(j);
	r->how = m->how == EXIT_SIGNAL ? RECORD_END_SIGNAL : RECORD_END_EXIT;
	r->code = m->code;
	r->utime_us = m->utime_us;
	r->stime_us = m->stime_us;
	r->wall_us = there_us(r, m);
	r->maxrss_kb = m->maxrss_kb;
	r->bytes_back = bytes_back;
	/* A second one began later: what was asked for before is not its own. */
	if (!j->overtaken) {
		r->files_fetched = p->fetched_files - j->files_before;
		r->bytes_fetched = p->fetched_bytes - j->bytes_before;
		r->fuse_messages = p->fuse.total - j->fuse_before;
	}
	end(j);
}

void jobs_cached(struct job *j)
{
	struct record *r = &j->record;

	r->committed_us = r->ended_us = jobs_age_us(j);
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

	j->record.ended_us = j->record.committed_us = jobs_age_us(j);
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

int jobs_local(struct server *s, int fd, pid_t pid, struct blob payload)
{
	struct record r;
	struct job *j;
	int err = record_decode(payload, &r);

	if (err < 0)
		return err;
	j = new_job(s, NULL, JOB_LOCAL);
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
	size_t it = 0;
	void *n;

	list_for_each_safe (l, &s->jobs) {
		struct job *j = container_of(l, struct job, of_server);

		if (j->state == JOB_LOCAL)
			disk_record(s, &j->record);
		jobs_drop(j);
	}
	while ((n = map_next(&s->counts.reasons, &it, NULL)))
		free(n);
	map_release(&s->counts.reasons);
}

void jobs_counts_reset(struct server *s)
{
	struct job_counts *k = &s->counts;
	const char *rule;
	uint64_t *n;
	size_t it = 0;

	k->n_sent_before = k->n_sent;
	k->n_home = k->n_elsewhere = k->n_twice = k->n_twice_won = 0;
	while ((n = map_next(&k->reasons, &it, &rule)))
		*n = 0;
}
