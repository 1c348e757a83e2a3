/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "concc/err.h"
#include "concc/str.h"

static const char *log_name = "concc";
static enum log_level log_level = LOG_LEVEL_WARN;
static int log_fd = 2;
static int log_timestamps;

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

void log_set_fd(int fd)
{
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
	(void)!write(log_fd, line, n); /* a log that can't be written is no reason to stop */
}
