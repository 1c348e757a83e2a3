/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "concc/io.h"

/* Opened once, not twice: then one position moves for both.  True when that can't be told. */
static bool is_one_description(int a, int b)
{
	return syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, (unsigned long)a,
		       (unsigned long)b) <= 0;
}

/* Does what is written to one of them follow what was written to the other? */
static bool is_one_stream(int a, int b)
{
	struct stat sa, sb;

	if (fstat(a, &sa) < 0 || fstat(b, &sb) < 0 || !stat_is_same_file(&sa, &sb))
		return false;
	return !S_ISREG(sa.st_mode) || (fcntl(a, F_GETFL) & fcntl(b, F_GETFL) & O_APPEND) ||
	       is_one_description(a, b);
}

void output_init(struct output *o)
{
	*o = (struct output){.merged = is_one_stream(1, 2),
			     .outlets = {{.start = -1}, {.start = -1}}};
}

const char *output_name(unsigned stream)
{
	return stream ? "standard error" : "standard output";
}

/* ---- writing ---- */

static ssize_t write_or_wait(int fd, const void *p, size_t n)
{
	for (;;) {
		struct pollfd w = {.fd = fd, .events = POLLOUT};
		ssize_t k = write(fd, p, n);

		if (k >= 0)
			return k;
		if (errno == EINTR)
			continue;
		/* The caller's O_NONBLOCK is for himself.  Its end: room, or that the reader is
		 * gone. */
		if (errno != EAGAIN || (poll(&w, 1, -1) < 0 && errno != EINTR))
			return -errno;
	}
}

/* Those that write(2) raises, for this thread, with an error: they are the command's to die of. */
static void block_signals(sigset_t *ret_raised, sigset_t *ret_old)
{
	sigemptyset(ret_raised);
	sigaddset(ret_raised, SIGPIPE);
	sigaddset(ret_raised, SIGXFSZ);
	(void)sigprocmask(SIG_BLOCK, ret_raised, ret_old); /* fails for a bad `how` only */
}

static void unblock_signals(const sigset_t *raised, const sigset_t *old, int err)
{
	static const struct timespec at_once;

	if (err == -EPIPE || err == -EFBIG)
		(void)sigtimedwait(raised, NULL, &at_once);
	(void)sigprocmask(SIG_SETMASK, old, NULL);
}

int output_write(int fd, const void *p, size_t n, size_t *ret_n)
{
	sigset_t raised, old;
	size_t done = 0;
	int err = 0;

	block_signals(&raised, &old);
	while (done < n && !err) {
		ssize_t k = write_or_wait(fd, (const char *)p + done, n - done);

		if (k < 0)
			err = (int)k;
		else
			done += (size_t)k;
	}
	unblock_signals(&raised, &old, err);
	*ret_n = done;
	return err;
}

/* After the first bytes: where they are.  That holds for O_APPEND, too. */
static void find_start(struct outlet *out, int fd)
{
	off_t at = lseek(fd, 0, SEEK_CUR);

	out->start = at < 0 ? -1 : at - (off_t)out->n_gone;
}

int output_show(struct output *o, unsigned stream, struct blob bytes)
{
	struct blob left = shown_next(&o->shown, stream, bytes);
	struct outlet *out = &o->outlets[stream];
	int fd = (int)stream + 1;
	bool first = !out->n_gone;
	size_t n = 0;

	if (!left.n)
		return 0;
	if (!out->err)
		out->err = output_write(fd, left.p, left.n, &n);
	out->n_gone += n;
	if (first && n)
		find_start(out, fd);
	if (n < left.n)
		shown_cut(&o->shown, stream, left.n - n);
	return out->err;
}

bool output_is_over(const struct output *o, unsigned stream)
{
	return o->outlets[stream].err && !shown_left(&o->shown, stream);
}

bool output_has_shown(const struct output *o, unsigned stream)
{
	return o->shown.streams[stream].n > 0;
}

/* ---- taking back ---- */

/*
 * Nobody who shares the descriptor or appends to the file has written since.  Between this look and
 * what follows it a line of another could come, and be lost: so it is for errors only, after which
 * nobody else can write there either.
 */
static bool is_all_ours(const struct outlet *out, int fd, struct stat *ret)
{
	return out->start >= 0 && lseek(fd, 0, SEEK_CUR) == out->start + (off_t)out->n_gone &&
	       fstat(fd, ret) == 0 && S_ISREG(ret->st_mode);
}

bool output_take_back(struct output *o, unsigned stream)
{
	struct outlet *out = &o->outlets[stream];
	int fd = (int)stream + 1;
	struct stat st;

	if (!is_all_ours(out, fd, &st))
		return false;
	if (st.st_size == out->start + (off_t)out->n_gone) {
		if (ftruncate(fd, out->start) < 0)
			return false;
	} else if (fcntl(fd, F_GETFL) & O_APPEND) {
		return false;
	}
	if (lseek(fd, out->start, SEEK_SET) < 0)
		return false;
	*out = (struct outlet){.start = -1};
	shown_cut(&o->shown, stream, o->shown.streams[stream].n);
	return true;
}
