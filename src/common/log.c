/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/str.h"

static const char *log_name = "concc";
static enum log_level log_level = LOG_LEVEL_WARN;
static int log_fd = 2;
static int log_timestamps;
static pthread_mutex_t log_file_lock = PTHREAD_MUTEX_INITIALIZER;
static size_t log_file_max; /* 0: no file of ours */

static const char *const level_names[] = {"err", "warn", "info", "debug"};

#define N_LEVELS (sizeof(level_names) / sizeof(*level_names))

/* What CONCC_LOG says: a level, -1 when nothing, N_LEVELS when there is no such level. */
static int wanted_level(const char **ret_word)
{
	const char *word = getenv("CONCC_LOG");
	int i = 0;

	*ret_word = word;
	if (!word || !*word)
		return -1;
	while (i < (int)N_LEVELS && strcmp(word, level_names[i]) != 0)
		i++;
	return i;
}

int log_check(struct errmsg *msg)
{
	const char *word;

	if (wanted_level(&word) < (int)N_LEVELS)
		return 0;
	return errmsg_set(msg, CONCC_E_CONF, "CONCC_LOG: %.32s is none of err, warn, info, debug",
			  word);
}

void log_init(const char *name, enum log_level default_level)
{
	const char *word;
	int level = wanted_level(&word);

	log_name = name;
	log_level = level >= 0 && level < (int)N_LEVELS ? (enum log_level)level : default_level;
	if (level == (int)N_LEVELS)
		log_warn("ignoring CONCC_LOG=%.32s: none of err, warn, info, debug", word);
}

void log_set_file(int fd, size_t max)
{
	log_file_max = max;
	log_fd = fd;
}

void log_set_timestamps(int on)
{
	log_timestamps = on;
}

int log_enabled(enum log_level level)
{
	return level <= log_level;
}

/* The latter half of what the file holds, from a line's begin. */
static void file_halve(size_t size)
{
	size_t half = log_file_max / 2, at = 0;
	_cleanup_free_ char *kept = malloc(half);
	ssize_t n = kept ? pread(log_fd, kept, half, (off_t)(size - half)) : -1;
	const char *line = n > 0 ? memchr(kept, '\n', (size_t)n) : NULL;

	if (line)
		at = (size_t)(line - kept) + 1;
	if (ftruncate(log_fd, 0) == 0 && line)
		(void)!write(log_fd, kept + at, (size_t)n - at);
}

static void file_write(const char *line, size_t n)
{
	struct stat st;

	pthread_mutex_lock(&log_file_lock);
	if (fstat(log_fd, &st) == 0 && (size_t)st.st_size + n > log_file_max)
		file_halve((size_t)st.st_size);
	(void)!write(log_fd, line, n);
	pthread_mutex_unlock(&log_file_lock);
}

void log_write(enum log_level level, const char *fmt, ...)
{
	char line[2048];
	size_t n = 0;
	va_list ap;
	int k;

	if (!log_enabled(level))
		return;
	if (log_timestamps) {
		struct timespec ts;
		struct tm tm;

		clock_gettime(CLOCK_REALTIME, &ts);
		localtime_r(&ts.tv_sec, &tm);
		n = strftime(line, sizeof(line), "%H:%M:%S", &tm);
		n += (size_t)snprintf(line + n, sizeof(line) - n, ".%03ld %s ",
				      ts.tv_nsec / 1000000, level_names[level]);
	}
	n += (size_t)snprintf(line + n, sizeof(line) - n, "%s: ", log_name);
	va_start(ap, fmt);
	k = vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	va_end(ap);
	n += k > 0 ? (size_t)k : 0;
	if (n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n] = '\0';
	str_defuse(line);
	line[n++] = '\n';
	/* A log that can't be written is no reason to stop. */
	if (log_file_max)
		file_write(line, n);
	else
		(void)!write(log_fd, line, n);
}
