/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "job.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "announce.h"
#include "home.h"
#include "upper.h"

#define READ_CHUNK (32 * 1024)

/*
 * What programs say when the sandbox, not the system of their user, stops them: our fault, and no
 * news for the user.  The kernel tells nobody else of it.
 */
static const struct {
	const char *text;
	enum holding why;
} sayings[] = {
	{"No space left on device", HOLDING_SAYS_FULL},
	{"Read-only file system", HOLDING_DENIED}, /* /usr, /opt and the like */
	/* There is no /dev/ptmx: of util-linux, Python, and expect. */
	{"failed to create pseudo-terminal", HOLDING_DENIED},
	{"out of pty devices", HOLDING_DENIED},
	{"no more ptys", HOLDING_DENIED},
	/* FICLONE across file systems: cp --reflink=always. */
	{"failed to clone", HOLDING_DENIED},
};

/* ---- output ---- */

static void close_output(struct output *o)
{
	loop_remove(o->source);
	o->source = NULL;
	close(o->fd);
	o->fd = -1;
	job_maybe_finish(o->job);
}

void job_close_outputs(struct agent_job *j)
{
	for (int i = 0; i < 2; i++) {
		loop_remove(j->out[i].source);
		j->out[i].source = NULL;
		fd_close(&j->out[i].fd);
	}
}

static void on_output(void *data, uint32_t events);

static void want_output(struct agent_job *j)
{
	/* Not watched at all without: a hang-up would be told without end. */
	for (int i = 0; i < 2; i++) {
		struct output *o = &j->out[i];

		if (!j->credit || j->announcing)
			loop_remove(steal_ptr(&o->source));
		else if (!o->source && o->fd >= 0)
			o->source = loop_add_fd(j->agent->loop, o->fd, LOOP_READ, on_output, o);
	}
}

/* ---- what it announces ---- */

/* An effect, and what holds its bytes: the job may move the file meanwhile. */
struct found {
	struct msg_file file; /* its strings are ours */
	int fd;		      /* or -1 */
};

/*
 * What it said announces files: who reads that may use them at once, so it is relayed behind them,
 * and not without.  They are read on the loop when that is little, else by a thread, and the job's
 * output waits.
 */
struct announcing {
	struct agent_job *job;
	char **paths; /* clean */
	size_t n_done;
	struct found *found;
	size_t n, cap;
	int err; /* of the first that can't be read, in: */
	struct home *home;
	uint8_t stream;
	struct buf said;
};

void job_forget_announcing(struct agent_job *j)
{
	struct announcing *g = steal_ptr(&j->announcing);

	if (!g)
		return;
	for (size_t i = 0; i < g->n; i++) {
		free(g->found[i].file.path);
		free(g->found[i].file.target);
		fd_close(&g->found[i].fd);
	}
	free(g->found);
	strv_free(g->paths);
	buf_release(&g->said);
	free(g);
}

static int note_found(void *data, const struct msg_file *f, int fd)
{
	struct announcing *g = data;
	struct found *to;

	if (g->n == g->cap) {
		g->cap = g->cap ? 2 * g->cap : 8;
		g->found = xrealloc(g->found, g->cap * sizeof(*g->found));
	}
	to = &g->found[g->n++];
	*to = (struct found){.file = *f, .fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3)};
	to->file.path = xstrdup(f->path);
	to->file.target = xstrdup(f->target);
	return fd >= 0 && to->fd < 0 ? -errno : 0;
}

static bool is_nowhere(int err)
{
	return err == -ENOENT || err == -ENOTDIR || err == -ELOOP;
}

static int find_in(struct announcing *g, size_t i, const char *rel, bool few)
{
	struct home *h = g->job->homes[i];
	int r = few ? home_announce_few(h, rel, note_found, g)
		    : home_announce(h, rel, note_found, g);

	if (r < 0 && r != CONCC_E_LATER && !is_nowhere(r)) {
		g->err = r;
		g->home = h;
	}
	return r;
}

/* A symlink leads to where it is, as it seems, which may be in another workspace. */
static int find_by_name(struct announcing *g, const char *path)
{
	const struct agent_job *j = g->job;
	int r = -ENOENT;

	for (size_t i = 0; i < j->n_homes && is_nowhere(r); i++) {
		_cleanup_free_ char *found = upper_find(j->upper_fds[i], path_base(path));

		if (found)
			r = find_in(g, i, found, false);
	}
	return r;
}

/* few: CONCC_E_LATER when that takes more than some milliseconds. */
static int find_one(struct announcing *g, const char *path, bool few)
{
	const struct agent_job *j = g->job;
	bool is_ours = false;
	struct entry_attr a;
	int r = -ENOENT;

	for (size_t i = 0; i < j->n_homes && is_nowhere(r); i++) {
		const char *rel = path_below(path, j->msg.workspaces[i]);

		is_ours |= rel != NULL;
		if (rel && *rel)
			r = find_in(g, i, rel, few);
	}
	if (!is_nowhere(r))
		return r;
	if (few)
		return CONCC_E_LATER; /* all that it has made has to be read */
	r = find_by_name(g, path);
	/* It need not be new, nor a file of the client's: /dev/null. */
	if (is_nowhere(r) && is_ours && mirror_peek(j->agent->mirror, path, &a) < 0)
		g->err = -ENOENT;
	return r;
}

static int find_all(struct announcing *g, bool few)
{
	for (; g->paths[g->n_done] && !g->err; g->n_done++)
		if (find_one(g, g->paths[g->n_done], few) == CONCC_E_LATER)
			return CONCC_E_LATER;
	return 0;
}

static void find_by_thread(void *arg)
{
	(void)find_all(arg, false);
}

static void send_found(struct agent_job *j, const struct announcing *g)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	for (size_t i = 0; i < g->n; i++)
		(void)job_on_effect(j, &g->found[i].file, g->found[i].fd);
	if (!g->n)
		return;
	msg_u32_encode(&b, j->msg.job_id);
	outbox_message(j->agent, &j->outbox, MSG_JOB_COMMIT, &b);
}

static void relay(struct agent_job *j, uint8_t stream, const void *p, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_output_encode(&b, j->msg.job_id, stream, p, n);
	outbox_message(j->agent, &j->outbox, MSG_JOB_OUTPUT, &b);
	outbox_pump(j->agent);
}

/* Of a job that was stopped meanwhile nothing is said any more. */
static void tell_announced(struct announcing *g)
{
	struct agent_job *j = g->job;

	if (g->err)
		job_unreadable(j, g->home ? home_refusal(g->home) : NULL, g->err);
	if (j->taint) {
		job_stop(j, SIGKILL);
	} else if (j->out[g->stream - 1].fd >= 0) {
		send_found(j, g);
		relay(j, g->stream, g->said.data, g->said.len);
	}
	job_forget_announcing(j);
}

static void found_by_thread(void *arg)
{
	struct announcing *g = arg;
	struct agent_job *j = g->job;

	if (!j->agent->disk)
		return; /* the end of all; it goes with the job */
	tell_announced(g);
	want_output(j);
	job_maybe_finish(j);
}

static void on_announced(void *data, const char *path)
{
	struct announcing *g = data;

	strv_push(&g->paths, path_clean(g->job->msg.cwd, path));
}

/* False: it announces nothing. */
static bool announce(struct agent_job *j, uint8_t stream, const void *p, size_t n)
{
	struct announcing *g;

	if (!j->announcements)
		return false;
	g = j->announcing = xcalloc(1, sizeof(*g));
	*g = (struct announcing){.job = j, .stream = stream, .paths = xcalloc(1, sizeof(char *))};
	announcements_read(j->announcements, stream, p, n, on_announced, g);
	if (!*g->paths) {
		job_forget_announcing(j);
		return false;
	}
	buf_append(&g->said, p, n);
	if (find_all(g, true) == 0) {
		tell_announced(g);
		return true;
	}
	want_output(j);
	(void)offload_put(j->agent->scanning, find_by_thread, found_by_thread, g,
			  0); /* one of each job */
	return true;
}

void job_blame_holding(struct agent_job *j)
{
	static const char *const texts[] = {
		[HOLDING_FULL_DISK] = "it ran out of scratch space on the worker",
		[HOLDING_SAYS_FULL] = "it says that a disk is full, which the worker's is not",
		[HOLDING_DENIED] =
			"it writes to a directory of the system or a `toolchain`, which a "
			"`workspace` is for, or makes a terminal",
	};

	if (j->taint)
		return;
	/* Another worker would do no better. */
	if (j->holding != HOLDING_FULL_DISK)
		j->verdict = FAILED_NO_WAY_HOME;
	job_taint(j, texts[j->holding]);
}

static enum holding why_hold(struct agent_job *j, const char *p, size_t n)
{
	if (job_scratch_is_full(j))
		return HOLDING_FULL_DISK;
	for (size_t i = 0; i < N_OF(sayings); i++) {
		if (memmem(p, n, sayings[i].text, strlen(sayings[i].text)))
			return sayings[i].why;
	}
	return HOLDING_NOTHING;
}

/* Holds back from the first chunk that speaks of such a thing, at most one window. */
static void take_output(struct agent_job *j, uint8_t stream, const char *p, size_t n)
{
	if (!j->holding)
		j->holding = why_hold(j, p, n);
	if (!j->holding) {
		if (!announce(j, stream, p, n))
			relay(j, stream, p, n);
		return;
	}
	buf_put_u8(&j->held, stream);
	buf_put_blob(&j->held, p, n);
	/* Nobody gives credit for what is not sent: it would wait for ever. */
	if (!j->credit) {
		job_blame_holding(j);
		job_stop(j, SIGKILL);
		buf_reset(&j->held);
	}
}

static void on_output(void *data, uint32_t events)
{
	struct output *o = data;
	struct agent_job *j = o->job;
	static char chunk[READ_CHUNK];
	size_t max = j->credit < sizeof(chunk) ? j->credit : sizeof(chunk);
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
	j->credit -= (uint32_t)n;
	job_look_for_signs(j, chunk, (size_t)n);
	/* What it looked up before it said this must be told before. */
	mirror_dispatch(j->agent->mirror);
	if (j->taint)
		return; /* by a read that failed, before it said this */
	take_output(j, o->stream, chunk, (size_t)n);
	if (!j->credit)
		want_output(j);
}

int agent_job_credit(struct agent *a, struct blob payload)
{
	uint32_t id, n;
	struct agent_job *j;
	int r;

	r = msg_pair_decode(payload, &id, &n);
	if (r < 0)
		return r;
	j = map_get_u64(&a->jobs, id);
	if (!j)
		return 0;
	if (n > PROTO_OUTPUT_WINDOW || j->credit + n > PROTO_OUTPUT_WINDOW)
		return CONCC_E_PROTO;
	j->credit += n;
	want_output(j);
	return 0;
}

/* ---- input ----
 *
 * Others may read the caller's input after the job, so the client takes no more of it than
 * the job has read.  A pipe of one page tells: there is room in it when all that was in it was
 * read.
 */

#define TELL_CHUNK (32 * 1024)

static bool finds_file(const struct agent_job *j)
{
	return j->msg.flags & JOB_F_STDIN_FILE;
}

bool job_has_input(const struct agent_job *j)
{
	return !finds_file(j) || j->input_ends;
}

static void tell_read(struct agent_job *j)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	uint32_t n = (uint32_t)(j->input_read - j->input_acked); /* at most a window */

	if (!n)
		return;
	j->input_acked = j->input_read;
	msg_pair_encode(&b, j->msg.job_id, n);
	link_send_buf(j->agent->link, MSG_INPUT_CREDIT, LINK_PRIO, &b);
}

/* That is its end for the job. */
static void close_ours(struct agent_job *j)
{
	loop_remove(steal_ptr(&j->stdin_source));
	fd_close(&j->stdin_fd);
}

void job_close_input(struct agent_job *j)
{
	close_ours(j);
	fd_close(&j->stdin_job);
}

static void see_read(struct agent_job *j)
{
	int left;

	if (j->stdin_job >= 0 && finds_file(j)) {
		off_t at = lseek(j->stdin_job, 0, SEEK_CUR);

		j->input_read = (uint64_t)at < j->input_put ? (uint64_t)at : j->input_put;
	} else if (j->stdin_job >= 0 && ioctl(j->stdin_job, FIONREAD, &left) == 0)
		j->input_read = j->input_put - (uint64_t)left;
}

void job_tell_input(struct agent_job *j)
{
	see_read(j);
	tell_read(j);
	job_close_input(j);
}

static void fill_input(struct agent_job *j)
{
	while (j->input.len) {
		size_t max = j->input.len < PIPE_BUF ? j->input.len : PIPE_BUF;
		ssize_t n = write(j->stdin_fd, j->input.data, max);

		if (n <= 0) /* full: a reader it has, which is us */
			break;
		buf_consume(&j->input, (size_t)n);
		j->input_put += (uint64_t)n;
	}
	if (!j->input.len && j->input_ends)
		close_ours(j);
	else
		loop_set_events(j->stdin_source, j->input_put > j->input_read ? LOOP_WRITE : 0);
}

static void on_input_room(void *data, uint32_t events)
{
	struct agent_job *j = data;

	see_read(j); /* the event may be older than what was put there last */
	fill_input(j);
	/* The client may have more to send when it is told. */
	if (!j->input.len || j->input_read - j->input_acked >= TELL_CHUNK)
		tell_read(j);
}

int agent_job_input(struct agent *a, struct blob payload)
{
	struct blob bytes;
	struct agent_job *j;
	uint32_t id;
	int r;

	r = msg_bytes_decode(payload, &id, &bytes);
	if (r < 0)
		return r;
	j = map_get_u64(&a->jobs, id);
	if (!j)
		return 0;
	if (j->input.len + bytes.n > PROTO_INPUT_WINDOW)
		return CONCC_E_PROTO;
	buf_append(&j->input, bytes.p, bytes.n);
	if (!bytes.n)
		j->input_ends = true;
	/* Before it has started there is nobody to take it. */
	if (j->stdin_fd >= 0)
		fill_input(j);
	else if (finds_file(j) && j->input_ends)
		agent_job_start_waiting(a);
	return 0;
}

/* ---- opening ---- */

/* A terminal for a job whose caller has one: compilers colour their messages only then. */
static int open_pty(const struct msg_job *m, int *ret_ours, int *ret_job)
{
	struct winsize ws = {.ws_row = m->rows, .ws_col = m->cols};
	_cleanup_close_ int pty = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios tio;
	int s;

	if (pty < 0 || unlockpt(pty) < 0)
		return -errno;
	s = ioctl(pty, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (s < 0)
		return -errno;
	/* Bytes as they are: the caller's own terminal makes CR LF of LF. */
	if (tcgetattr(s, &tio) == 0) {
		cfmakeraw(&tio);
		(void)tcsetattr(s, TCSANOW, &tio);
	}
	(void)ioctl(pty, TIOCSWINSZ, &ws); /* width is a nicety */
	*ret_ours = steal_fd(&pty);
	*ret_job = s;
	return 0;
}

int job_open_output(struct agent_job *j, int i, bool tty, int *ret_job)
{
	struct output *o = &j->out[i];
	int fds[2];

	o->job = j;
	o->stream = (uint8_t)(i + 1);
	if (!tty || open_pty(&j->msg, &o->fd, ret_job) < 0) {
		if (pipe2(fds, O_CLOEXEC) < 0)
			return -errno;
		o->fd = fds[0];
		*ret_job = fds[1];
	}
	(void)fd_set_nonblock(o->fd, true); /* then a spurious wake-up would block: it has none */
	o->source = loop_add_fd(j->agent->loop, o->fd, LOOP_READ, on_output, o);
	return 0;
}

/* The mode that it has there; of a pipe it changes nothing but what is seen. */
static int like_callers(const struct agent_job *j, int fd)
{
	mode_t mode = (j->msg.flags & JOB_F_STDIN_MODE) >> JOB_F_STDIN_MODE_SHIFT;

	return fchmod(fd, mode) < 0 ? -errno : 0;
}

/* Its position, which is the job's, is that of our descriptor, too. */
static int open_input_file(struct agent_job *j, int *ret_job)
{
	_cleanup_close_ int fd = memfd_create("stdin", MFD_CLOEXEC);
	_cleanup_free_ char *path = xasprintf("/proc/self/fd/%d", fd);
	int r = fd < 0 ? -errno : write_full(fd, j->input.data, j->input.len);

	if (r < 0)
		return r;
	*ret_job = open(path, O_RDONLY | O_CLOEXEC);
	if (*ret_job < 0)
		return -errno;
	r = like_callers(j, fd);
	if (r < 0)
		return r;
	j->stdin_job = fcntl(*ret_job, F_DUPFD_CLOEXEC, 0);
	j->input_put = j->input.len;
	buf_release(&j->input);
	return j->stdin_job < 0 ? -errno : 0;
}

int job_open_input(struct agent_job *j, int *ret_job)
{
	int fds[2];

	/* Ours stays open: without it, to read would be to fail. */
	if (j->msg.flags & JOB_F_TTY_IN && open_pty(&j->msg, &j->tty_fd, ret_job) == 0)
		return 0;
	if (!(j->msg.flags & JOB_F_STDIN)) {
		*ret_job = open("/dev/null", O_RDONLY | O_CLOEXEC);
		return *ret_job < 0 ? -errno : 0;
	}
	if (finds_file(j))
		return open_input_file(j, ret_job);
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	*ret_job = fds[0];
	j->stdin_fd = fds[1];
	if (j->msg.flags & JOB_F_STDIN_SEEKS && like_callers(j, fds[0]) < 0)
		return -errno;
	if (fcntl(fds[1], F_SETPIPE_SZ, PIPE_BUF) < 0 || fd_set_nonblock(fds[1], true) < 0)
		return -errno;
	j->stdin_job = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
	if (j->stdin_job < 0)
		return -errno;
	j->stdin_source = loop_add_fd(j->agent->loop, j->stdin_fd, 0, on_input_room, j);
	fill_input(j);
	return 0;
}
