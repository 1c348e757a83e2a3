/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"
#include "home.h"
#include "leftover.h"
#include "journal.h"

/* ---- contents for the store ---- */

struct kept {
	struct list link;
	size_t workspace; /* whose upper it is in */
	char *path;
	struct digest digest;
};

/* The files of a job that has ended, on their way into the store. */
struct keeping {
	struct agent *agent; /* in `done` only */
	struct store *store;
	struct list keep;
	size_t n_fds;
	int upper_fds[];
};

static void kept_free(struct kept *k)
{
	list_remove(&k->link);
	free(k->path);
	free(k);
}

void job_forget_kept(struct agent_job *j)
{
	while (!list_empty(&j->keep))
		kept_free(list_first(&j->keep, struct kept, link));
}

static void keep_one(const struct keeping *g, const struct kept *k)
{
	/* Announced while it ran: by now there may be anything, a fifo or a way out by a symlink.
	 */
	_cleanup_close_ int fd = openat_beneath(g->upper_fds[k->workspace], k->path,
						O_RDONLY | O_NONBLOCK);
	struct stat st;

	/* What can't be kept is fetched when somebody needs it. */
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	    store_add_fd(g->store, fd, &k->digest) < 0)
		log_debug("can't keep %s in the store", k->path);
}

static void keep_all(void *arg)
{
	struct keeping *g = arg;

	list_for_each (l, &g->keep)
		keep_one(g, container_of(l, struct kept, link));
	for (size_t i = 0; i < g->n_fds; i++)
		(void)close(g->upper_fds[i]); /* which may be the last, see clear() */
}

static void all_kept(void *arg)
{
	struct keeping *g = arg;

	while (!list_empty(&g->keep))
		kept_free(list_first(&g->keep, struct kept, link));
	g->agent->n_kept_done++;
	if (g->agent->disk) /* it is not the end of all */
		agent_job_start_waiting(g->agent);
	free(g);
}

/* By a thread, as the disk may be slow.  Jobs that come wait for it: they may read these files. */
static void keep_in_store(void *data)
{
	struct agent_job *j = data;
	struct agent *a = j->agent;
	struct keeping *g = xcalloc(1, sizeof(*g) + j->n_homes * sizeof(int));

	*g = (struct keeping){.agent = a, .store = a->store};
	list_init(&g->keep);
	while (!list_empty(&j->keep)) {
		struct list *k = j->keep.next;

		list_remove(k);
		list_append(&g->keep, k);
	}
	for (size_t i = 0; i < j->n_homes; i++) {
		g->upper_fds[g->n_fds++] = j->upper_fds[i];
		j->upper_fds[i] = -1;
	}
	agent_job_free(j);
	a->n_kept++;
	(void)offload_put(a->keeping, keep_all, all_kept, g, 0); /* as many as jobs end */
}

/* ---- what is told ---- */

static void free_job(void *data)
{
	agent_job_free(data);
}

/* Once, when all of its processes are gone: after what is in the outbox has been sent. */
static void leave(struct agent_job *j)
{
	if (j->leaving)
		return;
	j->leaving = true;
	/* The client has its answer first; then there is time to copy. */
	outbox_then(j->agent, &j->outbox,
		    j->taint || list_empty(&j->keep) ? free_job : keep_in_store, j);
}

/* Once for each job. */
static void note_end(const struct agent_job *j, const struct msg_exit *m)
{
	static const char *const ends[] = {[EXIT_CODE] = "status",
					   [EXIT_SIGNAL] = "signal",
					   [EXIT_FAILED] = "failed",
					   [EXIT_REFUSED] = "refused"};
	struct agent *a = j->agent;

	a->n_jobs++;
	a->n_refused += m->how == EXIT_REFUSED;
	a->n_lost += m->how == EXIT_FAILED;
	if (a->farm.log != FARM_LOG_JOBS)
		return;
	journal_say(a->journal,
		    "client=%s login=%u job=%u %s=%u wall_ms=%llu cpu_ms=%llu command=%s%s%s",
		    a->client.host, a->uid, j->msg.job_id, ends[m->how], m->code,
		    (unsigned long long)m->wall_us / 1000,
		    (unsigned long long)(m->utime_us + m->stime_us) / 1000,
		    path_base(j->msg.argv[0]), m->text && *m->text ? ": " : "", m->text ?: "");
}

void job_send_exit(struct agent_job *j, struct msg_exit *m)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!j->exit_sent)
		note_end(j, m);

	m->job_id = j->msg.job_id;
	j->exit_sent = true;
	msg_exit_encode(&b, m);
	outbox_message(j->agent, &j->outbox, MSG_JOB_EXIT, &b);
	if (j->ended || !j->launched)
		leave(j);
	outbox_pump(j->agent);
}

/* A file of its results changed under us: what was announced can't be sent, so nothing counts. */
void outbox_failed(struct outbox *o, const char *path)
{
	struct agent_job *j = container_of(o, struct agent_job, outbox);
	_cleanup_free_ char *text = xasprintf("its result %s changed while it was read", path);
	struct msg_exit m = {.how = EXIT_FAILED, .text = text};

	outbox_release(o);
	job_taint(j, text);
	if (j->launched && !j->ended)
		launcher_kill(j->agent->launcher, j->msg.job_id, SIGKILL);
	j->leaving = false; /* what was to do so went with the outbox */
	if (j->scanning || j->announcing)
		return; /* it is told then */
	/* Once more when it was told: that word was behind the file, and went with the outbox. */
	job_send_exit(j, &m);
}

void job_refuse(struct agent_job *j, enum refusal why, const char *text)
{
	struct msg_exit m = {.how = EXIT_REFUSED, .code = why, .text = (char *)text};

	job_send_exit(j, &m);
}

int job_on_effect(void *data, const struct msg_file *f, int fd)
{
	struct agent_job *j = data;
	struct msg_file m = *f;
	struct kept *k;

	m.job_id = j->msg.job_id;
	/* Nothing can move it when all processes are gone; then it is opened in its turn, so that
	 * a job with many files needs few descriptors. */
	outbox_file(j->agent, &j->outbox, &m, j->upper_fds[f->workspace], j->ended ? -1 : fd);
	if (f->kind != EFFECT_FILE || f->size == 0 || f->flags & EFFECT_F_NO_DIGEST)
		return 0;
	k = xcalloc(1, sizeof(*k));
	k->workspace = f->workspace;
	k->path = xstrdup(f->path);
	k->digest = f->digest;
	list_append(&j->keep, &k->link);
	return 0;
}

void job_unreadable(struct agent_job *j, const char *refusal, int err)
{
	_cleanup_free_ char *text = NULL;

	/* It is reached by steps only, and so it would be on any worker. */
	if (!refusal && err == -ENAMETOOLONG)
		refusal = "a path that is too long";
	text = refusal ? xasprintf("it made what can't be sent: %s", refusal)
		       : xasprintf("its results can't be read: %s", err_text(err));
	if (refusal && !j->taint)
		j->verdict = FAILED_NO_WAY_HOME;
	job_taint(j, text);
}

/* ---- what it did ---- */

/* As leftover_in_tmp() told; of a job that is of no use nobody asks. */
struct leftover {
	int err;
	char name[PROTO_NAME_MAX + 1];
};

/* A scan for which the loop's thread has no time. */
struct scanning {
	struct agent_job *job; /* in `done` only */
	struct home **homes;   /* borrowed: from this one on */
	size_t n_homes;
	int tmp_fd; /* borrowed */
	struct leftover left;
	struct msg_file *effects; /* their strings are ours */
	size_t n, cap, told;
	struct loop_source *turn;
	struct home *failed; /* NULL: none */
	int err;
};

/* So many effects are put into the outbox at once. */
#define TOLD_AT_ONCE 2000

static void scanning_free(struct scanning *g)
{
	if (!g)
		return;
	loop_remove(g->turn);
	for (size_t i = 0; i < g->n; i++) {
		free(g->effects[i].path);
		free(g->effects[i].target);
	}
	free(g->effects);
	free(g);
}

static int collect(void *data, const struct msg_file *f, int fd)
{
	struct scanning *g = data;
	struct msg_file *to;

	if (g->n == g->cap) {
		g->cap = g->cap ? 2 * g->cap : 1024;
		g->effects = xrealloc(g->effects, g->cap * sizeof(*g->effects));
	}
	to = &g->effects[g->n++];
	*to = *f;
	to->path = xstrdup(f->path);
	to->target = xstrdup(f->target);
	return 0;
}

static void scan_by_thread(void *arg)
{
	struct scanning *g = arg;

	for (size_t i = 0; i < g->n_homes && !g->failed; i++) {
		g->err = home_scan(g->homes[i], collect, g);
		if (g->err < 0)
			g->failed = g->homes[i];
	}
	if (!g->failed)
		g->left.err = leftover_in_tmp(g->tmp_fd, g->left.name, sizeof(g->left.name));
}

static void tell(struct agent_job *j, const struct leftover *left);

static void tell_scanned(void *data)
{
	struct scanning *g = data;
	struct agent_job *j = g->job;
	struct leftover left = g->left;

	g->turn = NULL;
	for (size_t n = 0; n < TOLD_AT_ONCE && g->told < g->n && !j->taint; n++)
		(void)job_on_effect(j, &g->effects[g->told++], -1);
	if (g->told < g->n && !j->taint) {
		g->turn = loop_defer(j->agent->loop, tell_scanned, g);
		return;
	}
	scanning_free(steal_ptr(&j->scanning));
	tell(j, &left);
}

static void scanned(void *arg)
{
	struct scanning *g = arg;
	struct agent_job *j = g->job;

	if (!j->agent->disk)
		return; /* the end of all; it goes with the job */
	if (g->failed)
		job_unreadable(j, home_refusal(g->failed), g->err);
	tell_scanned(g);
}

static void scan_later(struct agent_job *j, size_t from)
{
	struct scanning *g = xcalloc(1, sizeof(*g));

	g->job = j;
	g->homes = j->homes + from;
	g->n_homes = j->n_homes - from;
	g->tmp_fd = j->tmp_fd;
	j->scanning = g;
	j->large = true;
	(void)offload_put(j->agent->scanning, scan_by_thread, scanned, g, 0); /* one of each job */
}

/* What it locked to read it, or asked for attributes: the client sees what it should have got. */
static void tell_looks(struct agent_job *j)
{
	static char none[1];
	struct rd rd;

	rd_init(&rd, j->looks.data, j->looks.len);
	while (rd.left) {
		struct msg_file f = {.kind = rd_u8(&rd), .target = none};

		f.workspace = rd_u32(&rd);
		f.path = rd_strdup(&rd, PROTO_PATH_MAX);
		(void)job_on_effect(j, &f, -1);
		free(f.path);
	}
}

/* Puts what it did into the outbox; taints when that can't be told.  False: tell() comes later. */
static bool scan(struct agent_job *j, struct leftover *left)
{
	tell_looks(j);
	for (size_t i = 0; i < j->n_homes; i++) {
		int r = home_scan_few(j->homes[i], job_on_effect, j);

		if (r == CONCC_E_LATER) {
			scan_later(j, i);
			return false;
		}
		if (r < 0)
			job_unreadable(j, home_refusal(j->homes[i]), r);
	}
	if (j->taint)
		return true;
	left->err = leftover_in_tmp_few(j->tmp_fd, left->name, sizeof(left->name));
	if (left->err == CONCC_E_LATER)
		scan_later(j, j->n_homes);
	return left->err != CONCC_E_LATER;
}

/* What is left of a job when all was told. */
struct remains {
	struct home **homes;
	size_t n_homes;
	int *upper_fds;
	int tmp_fd;
};

/* The last that leads to its files: on a disk each is removed, and of memory the kernel takes long
 * to get much back. */
static void clear(void *arg)
{
	struct remains *r = arg;

	for (size_t i = 0; i < r->n_homes; i++) {
		home_free(r->homes[i]);
		fd_close(&r->upper_fds[i]);
	}
	fd_close(&r->tmp_fd);
	free(r->homes);
	free(r->upper_fds);
	free(r);
}

void job_clear(struct agent_job *j)
{
	struct remains *r = xmalloc(sizeof(*r));

	*r = (struct remains){j->homes, j->n_homes, j->upper_fds, j->tmp_fd};
	scanning_free(steal_ptr(&j->scanning));
	if (j->agent->disk && (j->large || j->taint))
		(void)offload_put(j->agent->scanning, clear, NULL, r, 0); /* one of each job */
	else
		clear(r);
}

static void fill_usage(const struct agent_job *j, struct msg_exit *m)
{
	const struct rusage *u = &j->end.rusage;

	m->utime_us = (uint64_t)u->ru_utime.tv_sec * 1000000 + (uint64_t)u->ru_utime.tv_usec;
	m->stime_us = (uint64_t)u->ru_stime.tv_sec * 1000000 + (uint64_t)u->ru_stime.tv_usec;
	m->maxrss_kb = (uint64_t)u->ru_maxrss;
	m->wall_us = j->end.wall_us;
}

static void take_leftover(struct agent_job *j, const struct leftover *left, struct msg_exit *m)
{
	if (left->err < 0)
		job_unreadable(j, NULL, left->err);
	else if (left->err == 1)
		strv_push(&m->outside, path_join("/tmp", left->name));
}

static void send_held(struct agent_job *j)
{
	struct rd rd;

	rd_init(&rd, j->held.data, j->held.len);
	while (rd.left) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		uint8_t stream = rd_u8(&rd);
		struct blob bytes = rd_blob(&rd, UINT32_MAX);

		msg_output_encode(&b, j->msg.job_id, stream, bytes.p, bytes.n);
		outbox_message(j->agent, &j->outbox, MSG_JOB_OUTPUT, &b);
	}
}

bool job_scratch_is_full(const struct agent_job *j)
{
	struct statvfs v;

	return j->n_homes && fstatvfs(j->upper_fds[0], &v) == 0 && v.f_bavail == 0;
}

/* Of no job that failed: its result is not kept. */
static void send_trace(struct agent_job *j)
{
	const char *why = (const char *)j->trace.data;
	_cleanup_buf_ struct buf b = BUF_INIT;
	size_t n;

	if (!j->trace.len || j->taint || j->end.wait_status)
		return;
	n = strnlen(why, j->trace.len);
	if (n == j->trace.len)
		return;
	msg_trace_encode(&b, j->msg.job_id, why,
			 (struct blob){j->trace.data + n + 1, j->trace.len - n - 1});
	outbox_message(j->agent, &j->outbox, MSG_JOB_TRACE, &b);
}

static void take_trace(struct agent_job *j, int fd)
{
	struct stat st;
	size_t n;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= 0 ||
	    st.st_size > 2 * PROTO_TRACE_BYTES_MAX)
		return;
	n = (size_t)st.st_size;
	if (pread(fd, buf_grow(&j->trace, n), n, 0) != (ssize_t)n)
		buf_reset(&j->trace);
}

/* A server, a daemon: only on the client can it be of use to whoever comes next. */
static void blame_left(struct agent_job *j)
{
	j->verdict = FAILED_NO_WAY_HOME;
	job_taint(j, "it left processes in the background, which can only go on here");
}

/* Behind what it did. */
static void tell(struct agent_job *j, const struct leftover *left)
{
	struct msg_exit m = {0};
	int status = j->end.wait_status;

	fill_usage(j, &m);
	if (!j->taint)
		send_held(j);
	take_leftover(j, left, &m);
	if (j->taint) {
		m.how = EXIT_FAILED;
		m.code = j->verdict;
		m.text = j->taint;
	} else if (WIFSIGNALED(status)) {
		m.how = EXIT_SIGNAL;
		m.code = (uint32_t)WTERMSIG(status);
	} else {
		m.how = EXIT_CODE;
		m.code = (uint32_t)WEXITSTATUS(status);
	}
	job_tell_input(j);
	send_trace(j);
	agent_tell_guessed(j->agent);
	agent_tell_counts(j->agent); /* before: they are for the job's record, too */
	job_send_exit(j, &m);
	strv_free(m.outside);
}

/* All processes are gone and all output is read: say what came of it. */
static void finish(struct agent_job *j)
{
	bool failed = j->end.wait_status != 0;
	bool full = j->end.started && job_scratch_is_full(j);
	struct leftover left = {0};

	/* What it looked up must be told before its end. */
	mirror_dispatch(j->agent->mirror);
	if (!j->end.started) {
		struct msg_exit m = {0};

		fill_usage(j, &m);
		m.how = j->end.err == -ENOENT || j->end.err == -EACCES ? EXIT_REFUSED : EXIT_FAILED;
		m.code = m.how == EXIT_REFUSED ? REFUSED_SANDBOX : 0;
		m.text = j->end.text;
		job_send_exit(j, &m);
		return;
	}
	host_look_at_oom(j->agent);
	if (!j->taint && j->starved)
		job_taint(j, "the worker ran out of memory");
	if (!j->taint && failed && agent_is_told_to_end())
		job_taint(j, AGENT_TOLD_TO_END);
	/* Be it that it did not look whether its writes failed. */
	if (full)
		j->holding = HOLDING_FULL_DISK;
	if (full || j->holding == HOLDING_DENIED || (failed && j->holding))
		job_blame_holding(j);
	if (!j->taint && failed)
		job_blame_limit(j);
	if (!j->taint && j->end.left)
		blame_left(j);
	if (j->taint || scan(j, &left))
		tell(j, &left);
}

void job_maybe_finish(struct agent_job *j)
{
	if (!j->ended || j->scanning || j->announcing)
		return;
	if (j->exit_sent) {
		leave(j);
		outbox_pump(j->agent);
	} else if (j->out[0].fd < 0 && j->out[1].fd < 0) {
		finish(j);
	}
}

void agent_job_ended(struct agent *a, uint32_t job_id, const struct job_end *end)
{
	struct agent_job *j = map_get_u64(&a->jobs, job_id);

	if (!j || j->ended)
		return;
	j->ended = true;
	j->end = *end;
	take_trace(j, end->trace_fd);
	job_give_slot_back(j);
	job_maybe_finish(j);
}
