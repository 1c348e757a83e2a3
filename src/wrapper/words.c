/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "words.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"
#include "concc/wrapper.h"
#include "output.h"

#define TEXT_MAX    1024
#define COMMAND_MAX 200		/* bytes of the command in a line */
#define SAID_MAX    (64 * 1024) /* of the file for `concc status`, which then begins anew */

void words_init(struct words *w, char *const *argv)
{
	const char *v = getenv("CONCC_EXPLAIN");

	*w = (struct words){.explain = v && *v && !streq(v, "0"), .argv = argv};
	if (w->explain && !streq(v, "1"))
		w->file = v;
}

char *wrapper_notes_path(const char *path)
{
	struct stat st;
	bool dir = stat(path, &st) == 0 && S_ISDIR(st.st_mode);

	return dir ? path_join(path, "said") : xasprintf("%s.said", path);
}

char *wrapper_file_id(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return NULL;
	return xasprintf("%llx:%llx", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
}

/* ---- who listens ---- */

int words_uncached_fd(void)
{
	const char *v = getenv("UNCACHED_ERR_FD");
	unsigned long long fd;
	int flags;

	if (!v || !str_to_u64(v, 1 << 20, &fd))
		return -1;
	flags = fcntl((int)fd, F_GETFL);
	return flags < 0 || flags & O_PATH || (flags & O_ACCMODE) == O_RDONLY ? -1 : (int)fd;
}

/* Within `concc run`? */
static bool is_run(void)
{
	const char *run = getenv("CONCC_RUN_TALLY");

	return run && *run;
}

/* Is stderr another than that of the build itself? */
static bool is_captured(void)
{
	const char *own = getenv("CONCC_RUN_STDERR");
	_cleanup_free_ char *id = own && *own ? wrapper_file_id(2) : NULL;

	return id && !streq(own, id);
}

static bool is_cargo(void)
{
	return getenv("CARGO") && getenv("CARGO_PKG_NAME");
}

enum ear {
	EAR_NONE,
	EAR_STDERR,
	EAR_UNCACHED,
	EAR_FILE, /* that CONCC_EXPLAIN names */
	EAR_RUN,  /* what `concc run` says at its end */
	EAR_DIR,  /* what `concc status` says */
};

static enum ear ear_for(const struct words *w, enum words_kind kind)
{
	if (kind == WORDS_ERROR)
		return EAR_STDERR;
	if (kind != WORDS_TROUBLE && !w->explain)
		return EAR_NONE;
	if (kind != WORDS_TROUBLE && w->file)
		return EAR_FILE;
	if (words_uncached_fd() >= 0)
		return EAR_UNCACHED;
	if (is_run() && (is_captured() || (kind == WORDS_TROUBLE && is_cargo())))
		return EAR_RUN;
	if (kind == WORDS_TROUBLE && is_cargo())
		return w->dir ? EAR_DIR : EAR_NONE;
	return kind == WORDS_OF_TRY ? EAR_NONE : EAR_STDERR;
}

/* ---- saying ---- */

/* One write for each line, so that those of many jobs don't mix. */
static void write_line(int fd, struct buf *line)
{
	size_t n;

	buf_putf(line, "\n");
	(void)output_write(fd, line->data, line->len, &n); /* who can't be told is not */
}

static void put_time(struct buf *b)
{
	time_t now = time(NULL);
	char when[32];
	struct tm tm;

	if (localtime_r(&now, &tm) && strftime(when, sizeof(when), "%F %T ", &tm))
		buf_putf(b, "%s", when);
}

/* What is read without the command's own words around it says which command that was. */
static void put_command(struct buf *b, char *const *argv)
{
	_cleanup_buf_ struct buf words = BUF_INIT;
	_cleanup_free_ char *text = NULL;

	for (; *argv && words.len < COMMAND_MAX; argv++)
		buf_putf(&words, "%s%.*s", words.len ? " " : "", COMMAND_MAX, *argv);
	text = str_escape(words.data, words.len, COMMAND_MAX);
	buf_putf(b, ": %s", text);
}

static void append(const struct words *w, const char *path, struct buf *line, uint64_t max)
{
	/* A FIFO that nobody reads is nothing to wait for. */
	_cleanup_close_ int fd = open(
		path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
	struct stat st;

	if (fd < 0)
		return;
	if (max && fstat(fd, &st) == 0 && (uint64_t)st.st_size > max)
		(void)!ftruncate(fd, 0);
	put_command(line, w->argv);
	write_line(fd, line);
}

static void append_for(const struct words *w, const char *file, struct buf *line, uint64_t max)
{
	_cleanup_free_ char *path = wrapper_notes_path(file);

	append(w, path, line, max);
}

bool words_say(const struct words *w, enum words_kind kind, const char *fmt, ...)
{
	enum ear ear = ear_for(w, kind);
	_cleanup_buf_ struct buf line = BUF_INIT;
	char text[TEXT_MAX];
	va_list ap;

	if (ear == EAR_NONE)
		return false;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	str_defuse(text);
	if (ear == EAR_DIR)
		put_time(&line);
	buf_putf(&line, "concc: %s", text);
	switch (ear) {
	case EAR_FILE:
		append(w, w->file, &line, 0);
		break;
	case EAR_RUN:
		append_for(w, getenv("CONCC_RUN_TALLY"), &line, 0);
		break;
	case EAR_DIR:
		append_for(w, w->dir, &line, SAID_MAX);
		break;
	default:
		write_line(ear == EAR_UNCACHED ? words_uncached_fd() : 2, &line);
	}
	return ear != EAR_FILE;
}
