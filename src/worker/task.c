/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "agent.h"
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/log.h"
#include "concc/str.h"
#include "announce.h"
#include "home.h"
#include "upper.h"

#define MISSING_MAX 8
#define OUTSIDE_MAX 4096 /* paths remembered of a job */
#define READ_CHUNK  (32 * 1024)
/* Said by a job whose scratch space here is full: our fault, and no news for the user. */
static const char no_space[] = "No space left on device";

struct output {
	struct task *task;
	uint8_t stream; /* 1 or 2 */
	int fd;		/* our end; -1 at its end */
	struct loop_source *source;
};

struct task {
	struct agent *agent;
	struct msg_job job;
	struct toolchain *tools;
	struct caller caller; /* as asked for, before it is fit to what we have */
	char **env;
	struct list of_waiting;
	struct comparison *comparing; /* of its compiler, or NULL */
	uint64_t wait_seq;	      /* the mirror must be flushed up to here, ... */
	uint64_t wait_kept;	      /* ... and so many jobs' outputs be in the store */
	uint64_t queued_ms;
	bool queued; /* in agent.queued */
	int slot;    /* of the host, -1: none */
	struct timespec started;
	uint64_t started_ms;
	struct output out[2];		     /* [1] is not used when the two are merged */
	struct announcements *announcements; /* of what it prints, or NULL */
	int stdin_fd;			     /* our end, -1 when closed */
	struct loop_source *stdin_source;
	struct buf input; /* not yet taken by the job */
	bool input_ends;
	uint32_t credit; /* output the client takes now */
	struct home **homes;
	int *upper_fds; /* borrowed by the outbox; n_homes of them */
	size_t n_homes;
	int tmp_fd;
	bool ended;
	bool launched;
	bool told;    /* its JOB_EXIT is in the outbox, or was sent */
	bool leaving; /* to be freed when the outbox is empty */
	struct job_end end;
	struct buf trace; /* as JOB_TRACE has it, but for the job; empty: none is wanted */
	char *taint;	  /* why its result can't be used, or NULL */
	uint32_t verdict; /* code of EXIT_FAILED: a limit of its own, or no way home */
	int hint;	  /* enum sign: of which limit what it said is one */
	struct loop_source *timer;
	bool holding;	    /* it said no_space: what it says is shown when it succeeds after all */
	struct buf held;    /* a u8 stream and a blob for each chunk */
	struct map outside; /* enum missing_how as a digit, and a path -> t: told */
	struct outbox outbox;
	struct list
		keep; /* struct kept: files to put in the store when the client has its answer */
};

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

static void unqueue(struct task *t)
{
	list_remove(&t->of_waiting);
	if (t->queued)
		t->agent->n_queued--;
	t->queued = false;
}

static void give_slot_back(struct task *t)
{
	if (t->slot >= 0)
		host_slots_give_back(t->agent->slots, t->slot);
	t->slot = -1;
}

static void free_kept(struct kept *k)
{
	list_remove(&k->link);
	free(k->path);
	free(k);
}

void task_free(struct task *t)
{
	if (!t)
		return;
	map_del_u64(&t->agent->tasks, t->job.job_id);
	if (t->agent->mirror) /* at the end of all, it went before */
		mirror_job_ended(t->agent->mirror, t->job.job_id);
	unqueue(t);
	give_slot_back(t);
	loop_remove(t->timer);
	outbox_release(&t->outbox);
	while (!list_empty(&t->keep))
		free_kept(list_first(&t->keep, struct kept, link));
	for (int i = 0; i < 2; i++) {
		loop_remove(t->out[i].source);
		if (t->out[i].fd >= 0)
			close(t->out[i].fd);
	}
	loop_remove(t->stdin_source);
	if (t->stdin_fd >= 0)
		close(t->stdin_fd);
	for (size_t i = 0; i < t->n_homes; i++) {
		home_free(t->homes[i]);
		if (t->upper_fds[i] >= 0)
			close(t->upper_fds[i]);
	}
	if (t->tmp_fd >= 0)
		close(t->tmp_fd);
	free(t->homes);
	free(t->upper_fds);
	announcements_free(t->announcements);
	buf_release(&t->input);
	buf_release(&t->held);
	buf_release(&t->trace);
	map_release(&t->outside);
	strv_free(t->env);
	msg_job_release(&t->job);
	free(t->taint);
	free(t);
}

static void taint(struct task *t, const char *text)
{
	if (!t->taint)
		t->taint = xstrdup(text);
}

static void stop_job(struct task *t, int signo);

/* ---- limits ---- */

static void reached(struct task *t, const char *text)
{
	if (!t->taint)
		t->verdict = FAILED_LIMIT;
	taint(t, text);
}

static void time_is_up(void *data)
{
	struct task *t = data;
	_cleanup_free_ char *text = xasprintf("it took longer than %u s, its `job-time`",
					      t->agent->limits.time_s);

	if (t->told || t->ended)
		return;
	reached(t, text);
	stop_job(t, SIGKILL);
}

static void start_clock(struct task *t)
{
	if (t->agent->limits.time_s)
		t->timer = loop_add_timer(t->agent->loop, t->agent->limits.time_s * 1000ull,
					  time_is_up, t);
}

/*
 * The kernel tells nobody that a process met one of its limits: what programs say
 * then does, as a full disk is noticed, and how much memory was used.  Mistaken, a
 * failed job runs once more at home, where it says the same.
 */
enum sign { SIGN_NONE, SIGN_MEMORY, SIGN_PROCESSES, SIGN_FILES };

static const struct {
	const char *said;
	enum sign of;
} signs[] = {
	{"Resource temporarily unavailable", SIGN_PROCESSES},
	{"annot fork", SIGN_PROCESSES},
	{"ailed to spawn", SIGN_PROCESSES},
	{"oo many open files", SIGN_FILES},
	{"ut of memory", SIGN_MEMORY},
	{"annot allocate memory", SIGN_MEMORY},
	{"emory exhausted", SIGN_MEMORY},
	{"emory allocation of", SIGN_MEMORY},
	{"bad_alloc", SIGN_MEMORY},
};

/* Would its caller have let it use more memory than `job-memory` does? */
static bool less_memory(const struct task *t)
{
	uint64_t memory = t->agent->limits.memory;

	return memory && memory < t->caller.limits[CALLER_DATA].soft &&
	       memory < t->caller.limits[CALLER_AS].soft;
}

/* And open more files than our login does? */
static bool fewer_files(const struct task *t)
{
	return t->caller.limits[CALLER_NOFILE].hard > t->agent->own.limits[CALLER_NOFILE].hard;
}

static bool matters(const struct task *t, enum sign of)
{
	return of == SIGN_MEMORY ? less_memory(t) : of == SIGN_FILES ? fewer_files(t) : true;
}

static void look_for_signs(struct task *t, const char *p, size_t n)
{
	for (size_t i = 0; !t->hint && i < sizeof(signs) / sizeof(signs[0]); i++) {
		if (matters(t, signs[i].of) && memmem(p, n, signs[i].said, strlen(signs[i].said)))
			t->hint = signs[i].of;
	}
}

/* By a signal that does not say which of its caller's limits it reached. */
static bool died_silently(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) != SIGXCPU && WTERMSIG(status) != SIGXFSZ;
}

/* It failed: for a limit of ours? */
static void blame_limit(struct task *t)
{
	const struct msg_limits *l = &t->agent->limits;
	bool much = (uint64_t)t->end.rusage.ru_maxrss * 1024 >= l->memory / 2;
	_cleanup_free_ char *text = NULL;

	if (less_memory(t) && (t->hint == SIGN_MEMORY || much || died_silently(t->end.wait_status)))
		text = xasprintf("it needs more memory than %llu MB, its `job-memory`",
				 (unsigned long long)(l->memory >> 20));
	else if (t->hint == SIGN_PROCESSES)
		text = xasprintf("it needs more than %u processes, the `job-processes` of all jobs",
				 l->processes);
	else if (t->hint == SIGN_FILES)
		text = xasprintf("it needs more open files than its login allows, %llu",
				 (unsigned long long)t->agent->own.limits[CALLER_NOFILE].hard);
	if (text)
		reached(t, text);
}

/* ---- what is outside ---- */

static void send_missing(struct task *t, enum missing_how how, char *const *paths)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_missing_encode(&b, t->job.job_id, how, paths);
	outbox_message(t->agent, &t->outbox, MSG_JOB_MISSING, &b);
	outbox_pump(t->agent);
}

static void tell_outside(struct task *t, enum missing_how how, const char *path)
{
	_cleanup_free_ char *key = xasprintf("%u%s", (unsigned)how, path);
	char *const paths[] = {(char *)path, NULL};

	if (t->told || !t->launched || map_get_str(&t->outside, key))
		return;
	/* Beyond, a path may be told again: right, and only slow. */
	if (t->outside.n < OUTSIDE_MAX)
		(void)map_put_str(&t->outside, key, t);
	send_missing(t, how, paths);
}

void task_outside(struct agent *a, int64_t job, enum missing_how how, const char *path)
{
	struct task *t;
	size_t it = 0;

	if (strlen(path) >= PROTO_PATH_MAX)
		return; /* no system call takes it on the client either */
	if (job >= 0) {
		t = map_get_u64(&a->tasks, (uint32_t)job);
		if (t)
			tell_outside(t, how, path);
		return;
	}
	while (job == JOB_UNKNOWN && (t = map_next(&a->tasks, &it, NULL)))
		tell_outside(t, how, path);
}

/* ---- the end ---- */

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
}

static void all_kept(void *arg)
{
	struct keeping *g = arg;

	while (!list_empty(&g->keep))
		free_kept(list_first(&g->keep, struct kept, link));
	for (size_t i = 0; i < g->n_fds; i++)
		(void)close(g->upper_fds[i]);
	g->agent->n_kept_done++;
	if (g->agent->disk) /* it is not the end of all */
		task_start_waiting(g->agent);
	free(g);
}

/* By a thread, as the disk may be slow.  Jobs that come wait for it: they may read these files. */
static void keep_in_store(void *data)
{
	struct task *t = data;
	struct agent *a = t->agent;
	struct keeping *g = xcalloc(1, sizeof(*g) + t->n_homes * sizeof(int));

	*g = (struct keeping){.agent = a, .store = a->store};
	list_init(&g->keep);
	while (!list_empty(&t->keep)) {
		struct list *k = t->keep.next;

		list_remove(k);
		list_append(&g->keep, k);
	}
	for (size_t i = 0; i < t->n_homes; i++) {
		g->upper_fds[g->n_fds++] = t->upper_fds[i];
		t->upper_fds[i] = -1;
	}
	task_free(t);
	a->n_kept++;
	(void)offload_put(a->keeping, keep_all, all_kept, g, 0); /* as many as jobs end */
}

static void free_task(void *data)
{
	task_free(data);
}

/* Once, when all of its processes are gone: after what is in the outbox has been sent. */
static void leave(struct task *t)
{
	if (t->leaving)
		return;
	t->leaving = true;
	/* The client has its answer first; then there is time to copy. */
	outbox_then(t->agent, &t->outbox,
		    t->taint || list_empty(&t->keep) ? free_task : keep_in_store, t);
}

/* Once for each job. */
static void note_end(const struct task *t, const struct msg_exit *m)
{
	static const char *const ends[] = {[EXIT_CODE] = "status",
					   [EXIT_SIGNAL] = "signal",
					   [EXIT_FAILED] = "failed",
					   [EXIT_REFUSED] = "refused"};
	struct agent *a = t->agent;

	a->n_jobs++;
	a->n_refused += m->how == EXIT_REFUSED;
	a->n_lost += m->how == EXIT_FAILED;
	if (a->farm.log != FARM_LOG_JOBS)
		return;
	journal_say(a->journal,
		    "client=%s login=%u job=%u %s=%u wall_ms=%llu cpu_ms=%llu command=%s%s%s",
		    a->client.host, a->uid, t->job.job_id, ends[m->how], m->code,
		    (unsigned long long)m->wall_us / 1000,
		    (unsigned long long)(m->utime_us + m->stime_us) / 1000,
		    path_base(t->job.argv[0]), m->text && *m->text ? ": " : "", m->text ?: "");
}

static void send_exit(struct task *t, struct msg_exit *m)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!t->told)
		note_end(t, m);

	m->job_id = t->job.job_id;
	t->told = true;
	msg_exit_encode(&b, m);
	outbox_message(t->agent, &t->outbox, MSG_JOB_EXIT, &b);
	if (t->ended || !t->launched)
		leave(t);
	outbox_pump(t->agent);
}

/* A file of its results changed under us: what was announced can't be sent, so nothing counts. */
void outbox_failed(struct outbox *o, const char *path)
{
	struct task *t = container_of(o, struct task, outbox);
	_cleanup_free_ char *text = xasprintf("its result %s changed while it was read", path);
	struct msg_exit m = {.how = EXIT_FAILED, .text = text};

	outbox_release(o);
	taint(t, text);
	if (t->launched && !t->ended)
		launcher_kill(t->agent->launcher, t->job.job_id, SIGKILL);
	t->leaving = false; /* what was to do so went with the outbox */
	/* Once more when it was told: that word was behind the file, and went with the outbox. */
	send_exit(t, &m);
}

static void refuse(struct task *t, enum refusal why, const char *text)
{
	struct msg_exit m = {.how = EXIT_REFUSED, .code = why, .text = (char *)text};

	send_exit(t, &m);
}

static void has_pulse(void *data)
{
	struct agent *a = data;

	link_pulse(a->link);
}

static int on_effect(void *data, const struct msg_file *f, int fd)
{
	struct task *t = data;
	struct msg_file m = *f;
	struct kept *k;

	m.job_id = t->job.job_id;
	/* Nothing can move it when all processes are gone; then it is opened in its turn, so that
	 * a job with many files needs few descriptors. */
	outbox_file(t->agent, &t->outbox, &m, t->upper_fds[f->workspace], t->ended ? -1 : fd);
	if (f->kind != EFFECT_FILE || f->size == 0 || f->flags & EFFECT_F_NO_DIGEST)
		return 0;
	k = xcalloc(1, sizeof(*k));
	k->workspace = f->workspace;
	k->path = xstrdup(f->path);
	k->digest = f->digest;
	list_append(&t->keep, &k->link);
	return 0;
}

static void unreadable(struct task *t, const char *refusal, int err)
{
	_cleanup_free_ char *text = refusal ? xasprintf("it made what can't be sent: %s", refusal)
					    : xasprintf("its results can't be read: %s",
							err_text(err));

	if (refusal && !t->taint)
		t->verdict = FAILED_NO_WAY_HOME;
	taint(t, text);
}

/* Puts what it did into the outbox; taints when that can't be told. */
static void scan(struct task *t)
{
	for (size_t i = 0; i < t->n_homes; i++) {
		int r = home_scan(t->homes[i], on_effect, t);

		if (r < 0)
			unreadable(t, home_refusal(t->homes[i]), r);
	}
}

static void fill_usage(const struct task *t, struct msg_exit *m)
{
	const struct rusage *u = &t->end.rusage;

	m->utime_us = (uint64_t)u->ru_utime.tv_sec * 1000000 + (uint64_t)u->ru_utime.tv_usec;
	m->stime_us = (uint64_t)u->ru_stime.tv_sec * 1000000 + (uint64_t)u->ru_stime.tv_usec;
	m->maxrss_kb = (uint64_t)u->ru_maxrss;
	m->wall_us = t->end.wall_us;
}

static void check_leftovers(struct task *t, struct msg_exit *m)
{
	char name[PROTO_NAME_MAX + 1];
	int r = t->tmp_fd < 0 ? 0 : home_tmp_leftover(t->tmp_fd, name, sizeof(name));

	if (r < 0)
		unreadable(t, NULL, r);
	else if (r == 1)
		strv_push(&m->outside, path_join("/tmp", name));
}

static void send_held(struct task *t)
{
	struct rd rd;

	rd_init(&rd, t->held.data, t->held.len);
	while (rd.left) {
		_cleanup_buf_ struct buf b = BUF_INIT;
		uint8_t stream = rd_u8(&rd);
		struct blob bytes = rd_blob(&rd, UINT32_MAX);

		msg_output_encode(&b, t->job.job_id, stream, bytes.p, bytes.n);
		outbox_message(t->agent, &t->outbox, MSG_JOB_OUTPUT, &b);
	}
}

static bool scratch_is_full(const struct task *t)
{
	struct statvfs v;

	return t->n_homes && fstatvfs(t->upper_fds[0], &v) == 0 && v.f_bavail == 0;
}

/* Of no job that failed: its result is not kept. */
static void send_trace(struct task *t)
{
	const char *why = (const char *)t->trace.data;
	_cleanup_buf_ struct buf b = BUF_INIT;
	size_t n;

	if (!t->trace.len || t->taint || t->end.wait_status)
		return;
	n = strnlen(why, t->trace.len);
	if (n == t->trace.len)
		return;
	msg_trace_encode(&b, t->job.job_id, why,
			 (struct blob){t->trace.data + n + 1, t->trace.len - n - 1});
	outbox_message(t->agent, &t->outbox, MSG_JOB_TRACE, &b);
}

static void take_trace(struct task *t, int fd)
{
	struct stat st;
	size_t n;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= 0 ||
	    st.st_size > 2 * PROTO_TRACE_BYTES_MAX)
		return;
	n = (size_t)st.st_size;
	if (pread(fd, buf_grow(&t->trace, n), n, 0) != (ssize_t)n)
		buf_reset(&t->trace);
}

/* All processes are gone and all output is read: say what came of it. */
static void finish(struct task *t)
{
	struct msg_exit m = {0};
	int status = t->end.wait_status;
	bool failed = status != 0;

	/* What it looked up must be told before its end. */
	mirror_dispatch(t->agent->mirror);
	fill_usage(t, &m);
	if (!t->end.started) {
		m.how = t->end.err == -ENOENT || t->end.err == -EACCES ? EXIT_REFUSED : EXIT_FAILED;
		m.code = m.how == EXIT_REFUSED ? REFUSED_SANDBOX : 0;
		m.text = t->end.text;
		send_exit(t, &m);
		return;
	}
	if (!t->taint && failed && agent_saw_oom(t->agent))
		taint(t, "the worker ran out of memory");
	/* Be it that it did not look whether its writes failed. */
	if (!t->taint && ((failed && t->holding) || scratch_is_full(t)))
		taint(t, "it ran out of scratch space on the worker");
	if (!t->taint && failed)
		blame_limit(t);
	if (!t->taint)
		scan(t);
	if (!t->taint)
		send_held(t);
	check_leftovers(t, &m);
	if (t->taint) {
		m.how = EXIT_FAILED;
		m.code = t->verdict;
		m.text = t->taint;
	} else if (WIFSIGNALED(status)) {
		m.how = EXIT_SIGNAL;
		m.code = (uint32_t)WTERMSIG(status);
	} else {
		m.how = EXIT_CODE;
		m.code = (uint32_t)WEXITSTATUS(status);
	}
	send_trace(t);
	agent_tell_counts(t->agent); /* before: they are for the job's record, too */
	send_exit(t, &m);
	strv_free(m.outside);
}

static void maybe_finish(struct task *t)
{
	if (!t->ended)
		return;
	if (t->told) {
		leave(t);
		outbox_pump(t->agent);
	} else if (t->out[0].fd < 0 && t->out[1].fd < 0) {
		finish(t);
	}
}

void task_beyond(struct agent *a, uint32_t job_id, const char *text)
{
	struct task *t = map_get_u64(&a->tasks, job_id);

	if (!t || t->told || t->ended)
		return;
	if (!t->taint)
		t->verdict = FAILED_NO_WAY_HOME;
	taint(t, text);
	stop_job(t, SIGKILL);
}

void task_ended(struct agent *a, uint32_t job_id, const struct job_end *end)
{
	struct task *t = map_get_u64(&a->tasks, job_id);

	if (!t || t->ended)
		return;
	t->ended = true;
	t->end = *end;
	take_trace(t, end->trace_fd);
	give_slot_back(t);
	maybe_finish(t);
}

/* ---- output ---- */

static void close_output(struct output *o)
{
	loop_remove(o->source);
	o->source = NULL;
	close(o->fd);
	o->fd = -1;
	maybe_finish(o->task);
}

static void set_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void close_outputs(struct task *t)
{
	for (int i = 0; i < 2; i++) {
		loop_remove(t->out[i].source);
		t->out[i].source = NULL;
		set_close(&t->out[i].fd);
	}
}

/* From here on it is of no use: what it still says must not be shown, nor waited for. */
static void stop_job(struct task *t, int signo)
{
	close_outputs(t);
	launcher_kill(t->agent->launcher, t->job.job_id, signo);
}

static void on_output(void *data, uint32_t events);

static void want_output(struct task *t)
{
	/* Not watched at all without: a hang-up would be told without end. */
	for (int i = 0; i < 2; i++) {
		struct output *o = &t->out[i];

		if (!t->credit)
			loop_remove(steal_ptr(&o->source));
		else if (!o->source && o->fd >= 0)
			o->source = loop_add_fd(t->agent->loop, o->fd, LOOP_READ, on_output, o);
	}
}

static int send_announced(struct task *t, size_t i, const char *rel)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct list *before = t->outbox.items.prev;
	int r = home_announce(t->homes[i], rel, on_effect, t);

	if (r < 0 || t->outbox.items.prev == before)
		return r;
	msg_u32_encode(&b, t->job.job_id);
	outbox_message(t->agent, &t->outbox, MSG_JOB_COMMIT, &b);
	return 0;
}

/* The path of workspace i that a symlink leads elsewhere, as it seems; or there is no such file. */
static int send_announced_by_name(struct task *t, size_t i, const char *rel)
{
	_cleanup_free_ char *found = upper_find(t->upper_fds[i], path_base(rel));

	return found ? send_announced(t, i, found) : -ENOENT;
}

/* Who reads the line may use the file at once: without it, the line must not be relayed. */
static void on_announced(void *data, const char *path)
{
	struct task *t = data;
	_cleanup_free_ char *clean = path_clean(t->job.cwd, path);

	for (size_t i = 0; i < t->n_homes && !t->taint; i++) {
		const char *rel = path_below(clean, t->job.workspaces[i]);
		struct entry_attr a;
		int r;

		if (!rel || !*rel)
			continue;
		r = send_announced(t, i, rel);
		if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
			r = send_announced_by_name(t, i, rel);
		/* It need not be new. */
		if (r == -ENOENT && mirror_peek(t->agent->mirror, clean, &a) == 0)
			r = 0;
		if (r < 0)
			unreadable(t, home_refusal(t->homes[i]), r);
	}
}

static void send_output(struct task *t, uint8_t stream, const void *p, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (t->announcements)
		announcements_read(t->announcements, stream, p, n, on_announced, t);
	if (t->taint) {
		stop_job(t, SIGKILL);
		return;
	}
	msg_output_encode(&b, t->job.job_id, stream, p, n);
	outbox_message(t->agent, &t->outbox, MSG_JOB_OUTPUT, &b);
	outbox_pump(t->agent);
}

/* Holds back from the first chunk that speaks of a full disk, at most one window. */
static void take_output(struct task *t, uint8_t stream, const char *p, size_t n)
{
	if (!t->holding && !memmem(p, n, no_space, sizeof(no_space) - 1) && !scratch_is_full(t)) {
		send_output(t, stream, p, n);
		return;
	}
	t->holding = true;
	buf_put_u8(&t->held, stream);
	buf_put_blob(&t->held, p, n);
	/* Nobody gives credit for what is not sent: it would wait for ever. */
	if (!t->credit) {
		taint(t, "it ran out of scratch space on the worker");
		stop_job(t, SIGKILL);
		buf_reset(&t->held);
	}
}

static void on_output(void *data, uint32_t events)
{
	struct output *o = data;
	struct task *t = o->task;
	static char chunk[READ_CHUNK];
	size_t max = t->credit < sizeof(chunk) ? t->credit : sizeof(chunk);
	ssize_t n;

	if (!max)
		return; /* a hang-up without credit: what is left in the pipe waits */
	n = read(o->fd, chunk, max);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) { /* a pty says EIO when its last user is gone */
		close_output(o);
		return;
	}
	t->credit -= (uint32_t)n;
	look_for_signs(t, chunk, (size_t)n);
	/* What it looked up before it said this must be told before. */
	mirror_dispatch(t->agent->mirror);
	if (t->taint)
		return; /* by a read that failed, before it said this */
	take_output(t, o->stream, chunk, (size_t)n);
	if (!t->credit)
		want_output(t);
}

int task_credit(struct agent *a, struct blob payload)
{
	uint32_t id, n;
	struct task *t;
	int r;

	r = msg_pair_decode(payload, &id, &n);
	if (r < 0)
		return r;
	t = map_get_u64(&a->tasks, id);
	if (!t)
		return 0;
	if (n > PROTO_OUTPUT_WINDOW || t->credit + n > PROTO_OUTPUT_WINDOW)
		return CONCC_E_PROTO;
	t->credit += n;
	want_output(t);
	return 0;
}

/* ---- input ---- */

static void give_input_credit(struct task *t, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!n)
		return;
	msg_pair_encode(&b, t->job.job_id, (uint32_t)n);
	link_send_buf(t->agent->link, MSG_INPUT_CREDIT, LINK_PRIO, &b);
}

static void close_input(struct task *t)
{
	loop_remove(t->stdin_source);
	t->stdin_source = NULL;
	if (t->stdin_fd >= 0)
		close(t->stdin_fd);
	t->stdin_fd = -1;
	buf_reset(&t->input);
}

static void pump_input(void *data, uint32_t events)
{
	struct task *t = data;
	size_t given = 0;
	ssize_t n = 0;

	while (t->input.len) {
		n = write(t->stdin_fd, t->input.data, t->input.len);
		if (n <= 0)
			break;
		buf_consume(&t->input, (size_t)n);
		given += (size_t)n;
	}
	if ((n < 0 && errno != EAGAIN && errno != EINTR) ||
	    (!t->input.len && events & LOOP_HANGUP)) {
		/* The job reads no more; let the rest come and go. */
		given += t->input.len;
		close_input(t);
	}
	give_input_credit(t, given);
	if (t->stdin_fd < 0)
		return;
	if (!t->input.len && t->input_ends)
		close_input(t);
	else
		loop_set_events(t->stdin_source, t->input.len ? LOOP_WRITE : 0);
}

int task_input(struct agent *a, struct blob payload)
{
	struct blob bytes;
	struct task *t;
	uint32_t id;
	int r;

	r = msg_bytes_decode(payload, &id, &bytes);
	if (r < 0)
		return r;
	t = map_get_u64(&a->tasks, id);
	if (!t)
		return 0;
	if (t->input.len + bytes.n > PROTO_INPUT_WINDOW)
		return CONCC_E_PROTO;
	if (t->stdin_fd < 0 && list_empty(&t->of_waiting)) {
		give_input_credit(t, bytes.n);
		return 0;
	}
	buf_append(&t->input, bytes.p, bytes.n);
	if (!bytes.n)
		t->input_ends = true;
	/* Before it has started there is nobody to take it. */
	if (t->stdin_fd >= 0)
		pump_input(t, 0);
	return 0;
}

/* ---- the start ---- */

/* A terminal for a job whose caller has one: compilers colour their messages only then. */
static int open_pty(const struct msg_job *j, int *ret_ours, int *ret_job)
{
	struct winsize ws = {.ws_row = j->rows, .ws_col = j->cols};
	_cleanup_close_ int m = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios tio;
	int s;

	if (m < 0 || unlockpt(m) < 0)
		return -errno;
	s = ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (s < 0)
		return -errno;
	/* Bytes as they are: the caller's own terminal makes CR LF of LF. */
	if (tcgetattr(s, &tio) == 0) {
		cfmakeraw(&tio);
		(void)tcsetattr(s, TCSANOW, &tio);
	}
	(void)ioctl(m, TIOCSWINSZ, &ws); /* width is a nicety */
	*ret_ours = steal_fd(&m);
	*ret_job = s;
	return 0;
}

static int open_output(struct task *t, int i, bool tty, int *ret_job)
{
	struct output *o = &t->out[i];
	int fds[2];

	o->task = t;
	o->stream = (uint8_t)(i + 1);
	if (!tty || open_pty(&t->job, &o->fd, ret_job) < 0) {
		if (pipe2(fds, O_CLOEXEC) < 0)
			return -errno;
		o->fd = fds[0];
		*ret_job = fds[1];
	}
	(void)fd_set_nonblock(o->fd, true); /* then a spurious wake-up would block: it has none */
	o->source = loop_add_fd(t->agent->loop, o->fd, LOOP_READ, on_output, o);
	return 0;
}

static int open_input(struct task *t, int *ret_job)
{
	int fds[2];

	if (!(t->job.flags & JOB_F_STDIN)) {
		*ret_job = open("/dev/null", O_RDONLY | O_CLOEXEC);
		return *ret_job < 0 ? -errno : 0;
	}
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	*ret_job = fds[0];
	t->stdin_fd = fds[1];
	(void)fd_set_nonblock(t->stdin_fd, true);
	t->stdin_source = loop_add_fd(t->agent->loop, t->stdin_fd,
				      t->input.len || t->input_ends ? LOOP_WRITE : 0, pump_input,
				      t);
	return 0;
}

static int launch(struct task *t)
{
	uint32_t flags = t->job.flags;
	_cleanup_close_ int in = -1, out = -1, err = -1;
	struct launch l = {
		.job_id = t->job.job_id,
		.path = t->job.path,
		.exe = toolchain_exe(t->tools),
		.argv = t->job.argv,
		.env = t->env,
		.cwd = t->job.cwd,
		.workspaces = t->job.workspaces,
		.trees = t->agent->trees,
		.umask = (mode_t)t->job.umask,
		.caller = t->caller,
		.memory = t->agent->limits.memory,
		.processes = t->agent->limits.processes,
		.trace = flags & JOB_F_TRACE,
	};
	int r;

	caller_fit(&l.caller, &t->agent->own);
	r = open_input(t, &in);
	if (r == 0)
		r = open_output(t, 0, flags & JOB_F_TTY_OUT, &out);
	if (r == 0 && !(flags & JOB_F_MERGED))
		r = open_output(t, 1, flags & JOB_F_TTY_ERR, &err);
	if (r < 0)
		return r;
	l.stdin_fd = in;
	l.stdout_fd = out;
	l.stderr_fd = err >= 0 ? err : out;
	clock_gettime(CLOCK_REALTIME, &t->started);
	t->started_ms = now_ms();
	r = launcher_run(t->agent->launcher, &l);
	t->launched = r == 0;
	if (r == 0)
		start_clock(t);
	return r;
}

static void start_now(struct task *t)
{
	int r;

	unqueue(t);
	r = launch(t);
	if (r < 0) {
		struct msg_exit m = {.how = EXIT_FAILED};
		_cleanup_free_ char *text = xasprintf("can't start a job: %s", err_text(r));

		m.text = text;
		give_slot_back(t);
		close_outputs(t);
		send_exit(t, &m);
	}
}

/* ---- slots of the host ---- */

static void arm_queue_timer(struct agent *a);

/* Every wait has an end; at home it goes on. */
void task_queue_timeout(void *data)
{
	struct agent *a = data;
	uint64_t now = now_ms();

	list_for_each_safe (e, &a->queued) {
		struct task *t = container_of(e, struct task, of_waiting);
		_cleanup_free_ char *text = NULL;

		if (t->queued_ms + PROTO_TURN_MAX_S * 1000 > now)
			break; /* the others came later */
		text = xasprintf(
			"its host runs at most %u jobs at once and none has made room in %d s; "
			"set " MAX_JOBS_ENV " there if it can run more",
			a->max_jobs, PROTO_TURN_MAX_S);
		unqueue(t);
		refuse(t, REFUSED_BUSY, text);
	}
	host_slots_waiting(a->slots, a->n_queued);
	arm_queue_timer(a);
}

static void arm_queue_timer(struct agent *a)
{
	uint64_t now = now_ms(), at;

	if (list_empty(&a->queued))
		return;
	at = list_first(&a->queued, struct task, of_waiting)->queued_ms + PROTO_TURN_MAX_S * 1000;
	loop_timer_set(a->queue_timer, at > now ? at - now : 1);
}

void task_start_queued(struct agent *a)
{
	bool waited = a->n_queued > 0;

	while (!list_empty(&a->queued)) {
		struct task *t = list_first(&a->queued, struct task, of_waiting);
		int slot = a->slots ? host_slots_take(a->slots) : -1;

		if (slot == -EAGAIN)
			break;
		t->slot = slot < 0 ? -1 : slot; /* no guard: none is better than no job */
		start_now(t);
	}
	if (a->slots && (waited || a->n_queued))
		host_slots_waiting(a->slots, a->n_queued);
	if (a->n_queued)
		arm_queue_timer(a);
}

/* The mirror is ready for it; its cores may not be. */
static void queue(struct task *t)
{
	struct agent *a = t->agent;

	list_remove(&t->of_waiting);
	t->queued_ms = now_ms();
	t->queued = true;
	list_append(&a->queued, &t->of_waiting);
	a->n_queued++;
	task_start_queued(a);
}

static bool may_start(const struct task *t)
{
	const struct agent *a = t->agent;

	return !t->comparing && a->n_kept_done >= t->wait_kept &&
	       mirror_flushed(a->mirror, t->wait_seq);
}

void task_start_waiting(struct agent *a)
{
	list_for_each_safe (e, &a->waiting) {
		struct task *t = container_of(e, struct task, of_waiting);

		if (may_start(t))
			queue(t);
	}
}

void task_prepared(struct agent *a, uint32_t job_id, int *upper_fds, size_t n, int tmp_fd)
{
	struct task *t = map_get_u64(&a->tasks, job_id);

	if (!t || t->n_homes || n != strv_len(t->job.workspaces)) {
		for (size_t i = 0; i < n; i++)
			close(upper_fds[i]);
		close(tmp_fd);
		return;
	}
	t->tmp_fd = tmp_fd;
	t->homes = xcalloc(n, sizeof(*t->homes));
	t->upper_fds = xcalloc(n, sizeof(*t->upper_fds));
	for (size_t i = 0; i < n; i++) {
		struct home_config c = {
			.mirror = a->mirror,
			.workspace = t->job.workspaces[i],
			.any_command = !(t->job.flags & JOB_F_COMPILER),
			.index = (uint32_t)i,
			.upper_fd = upper_fds[i],
			.started = t->started,
			.started_ms = t->started_ms,
			.busy = has_pulse,
			.data = a,
		};

		t->upper_fds[i] = fcntl(upper_fds[i], F_DUPFD_CLOEXEC, 3);
		t->homes[i] = home_new(&c);
		t->n_homes++;
	}
}

/* Absolute paths of the command that are not here; the client knows whether it has them. */
static void tell_missing(struct task *t)
{
	_cleanup_strv_ char **missing = xcalloc(1, sizeof(*missing));

	for (char **a = t->job.argv + 1; *a && strv_len(missing) < MISSING_MAX; a++) {
		const char *p = job_arg_path(*a);
		_cleanup_free_ char *clean = p ? path_clean("/", p) : NULL;
		bool served = false;
		struct stat st;

		if (!clean || strlen(clean) >= PROTO_PATH_MAX)
			continue;
		for (char **w = t->job.workspaces; *w; w++)
			served |= path_is_below(clean, *w);
		if (!served && lstat(clean, &st) < 0)
			strv_push(&missing, steal_ptr(&clean));
	}
	if (missing[0])
		send_missing(t, MISSING_NAMED, missing);
}

static struct task *task_new(struct agent *a, struct msg_job *job)
{
	struct task *t = xcalloc(1, sizeof(*t));
	struct msg_env *env = map_get_u64(&a->envs, job->env_id);

	t->agent = a;
	t->job = *job;
	t->tools = map_get_u64(&a->exes, job->exe_id);
	t->announcements = announcements_new(job->argv);
	t->caller = *(struct caller *)map_get_u64(&a->callers, job->caller_id);
	if (t->caller.nice < (int)a->farm.nice)
		t->caller.nice = (int)a->farm.nice;
	t->env = strv_copy(env->env);
	strv_push(&t->env, xstrdup("CONCC_WORKER=1"));
	t->out[0].fd = t->out[1].fd = -1;
	t->stdin_fd = -1;
	t->tmp_fd = -1;
	t->slot = -1;
	t->credit = PROTO_OUTPUT_WINDOW;
	list_init(&t->of_waiting);
	list_init(&t->keep);
	outbox_init(&t->outbox, job->job_id);
	map_put_u64(&a->tasks, job->job_id, t);
	return t;
}

static char *lower_limit(const struct task *t, int id)
{
	return xasprintf("the hard limit of its login for %s is %llu, which is less than this call "
			 "has; raise it there (limits.conf(5))",
			 caller_limit_name(id), (unsigned long long)t->agent->own.limits[id].hard);
}

/* Its compiler is the client's. */
static void admit(struct task *t)
{
	struct agent *a = t->agent;
	int r = caller_lacking(&a->own, &t->caller);

	if (r >= 0) {
		_cleanup_free_ char *text = lower_limit(t, r);

		refuse(t, REFUSED_CALLER, text);
		return;
	}
	for (char **w = t->job.workspaces; *w; w++) {
		r = mirror_serve(a->mirror, *w);
		if (r < 0) {
			refuse(t, REFUSED_CWD, err_text(r));
			return;
		}
	}
	/* A client that shows its own system knows what of it jobs see. */
	if (!(a->client.flags & HELLO_F_CLIENT_ROOT))
		tell_missing(t);
	t->wait_seq = mirror_seq(a->mirror);
	t->wait_kept = a->n_kept;
	mirror_job_started(a->mirror, t->job.job_id, t->wait_seq);
	list_append(&a->waiting, &t->of_waiting);
	if (may_start(t))
		queue(t);
}

/* For one task, by a thread: it may have to read all of the compiler. */
struct comparison {
	struct agent *agent; /* in `done` only */
	struct toolchain *tools;
	uint32_t job_id;
	int result;
	struct errmsg msg;
};

static void compare(void *arg)
{
	struct comparison *c = arg;

	c->result = toolchain_check(c->tools, &c->msg);
}

static void compared(void *arg)
{
	struct comparison *c = arg;
	struct task *t = map_get_u64(&c->agent->tasks, c->job_id);

	toolchain_end_check(c->tools);
	/* It may have been killed, and its number given to another one. */
	if (t && t->comparing == c && c->agent->disk) {
		t->comparing = NULL;
		unqueue(t);
		if (c->result == CONCC_E_UNAVAIL) {
			refuse(t, REFUSED_TOOLCHAIN, c->msg.text);
		} else if (c->result < 0) {
			struct msg_exit m = {.how = EXIT_FAILED, .text = c->msg.text};

			send_exit(t, &m);
		} else {
			admit(t);
		}
	}
	free(c);
}

static void begin_comparison(struct task *t)
{
	struct comparison *c = xcalloc(1, sizeof(*c));

	*c = (struct comparison){.agent = t->agent, .tools = t->tools, .job_id = t->job.job_id};
	t->comparing = c;
	list_append(&t->agent->waiting, &t->of_waiting);
	toolchain_begin_check(t->tools);
	(void)offload_put(t->agent->comparing, compare, compared, c, 0); /* as many as jobs */
}

int task_start(struct agent *a, struct blob payload)
{
	struct msg_job job;
	struct task *t;
	int r;

	r = msg_job_decode(payload, &job);
	if (r < 0)
		return r;
	if (map_get_u64(&a->tasks, job.job_id) || !map_get_u64(&a->envs, job.env_id) ||
	    !map_get_u64(&a->exes, job.exe_id) || !map_get_u64(&a->callers, job.caller_id) ||
	    a->tasks.n >= TASKS_MAX) {
		msg_job_release(&job);
		return CONCC_E_PROTO;
	}
	t = task_new(a, &job);
	if (toolchain_is_right(t->tools))
		admit(t);
	else
		begin_comparison(t);
	return 0;
}

/* The client waits for the end, and on a slow line what is queued could take minutes. */
static void drop_results(struct task *t)
{
	struct msg_exit m = {.how = EXIT_FAILED, .text = t->taint};

	if (list_empty(&t->outbox.items))
		return;
	outbox_release(&t->outbox);
	t->leaving = false; /* what was to do so went with the outbox */
	if (t->told)
		send_exit(t, &m);
}

/* It ends now: the next attempt leaves out as much output as was shown, so none may come of what it
 * made of the failure. */
static void fail(struct task *t, enum failure why, const char *text)
{
	if (!t->launched || t->told)
		return;
	if (!t->taint)
		t->verdict = why;
	taint(t, text);
	if (!t->ended) {
		stop_job(t, SIGKILL);
	} else if (t->out[0].fd >= 0 || t->out[1].fd >= 0) {
		close_outputs(t);
		maybe_finish(t);
	}
}

void task_failed(struct agent *a, int64_t job, enum failure why, const char *text)
{
	struct task *t;
	size_t it = 0;

	if (job >= 0) {
		t = map_get_u64(&a->tasks, (uint32_t)job);
		if (t)
			fail(t, why, text);
		return;
	}
	while (job == JOB_UNKNOWN && (t = map_next(&a->tasks, &it, NULL)))
		fail(t, why, text);
}

int task_kill(struct agent *a, struct blob payload)
{
	uint32_t id, signo;
	struct task *t;
	int r;

	r = msg_pair_decode(payload, &id, &signo);
	if (r < 0 || signo < 1 || signo > 64)
		return r < 0 ? r : CONCC_E_PROTO;
	t = map_get_u64(&a->tasks, id);
	if (!t)
		return 0;
	/* What it still says and does is of no use: nobody would give credit for it. */
	taint(t, "it was killed");
	if (!list_empty(&t->of_waiting)) {
		struct msg_exit m = {.how = EXIT_FAILED, .text = t->taint};

		unqueue(t);
		send_exit(t, &m);
		if (a->slots)
			host_slots_waiting(a->slots, a->n_queued);
		return 0;
	}
	drop_results(t);
	if (t->told)
		return 0;
	if (!t->ended) {
		stop_job(t, (int)signo);
		return 0;
	}
	close_outputs(t); /* only its last words were missing, and nobody gives credit for them */
	maybe_finish(t);
	return 0;
}
