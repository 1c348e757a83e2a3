/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LOG_H
#define CONCC_LOG_H

#include <stddef.h>

/*
 * One line per message on stderr (or in the file given), with the program's name.
 * err: we gave up something.  warn: we went on, say what was ignored.  info:
 * state changes.  debug: the rest.  Text from a peer goes through str_escape()
 * first.  Callable from any thread; a line is one write(2).
 */
enum log_level { LOG_LEVEL_ERR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

struct errmsg;

/* CONCC_E_CONF when CONCC_LOG has another word than err, warn, info or debug. */
int log_check(struct errmsg *msg);
/* name must outlive the program.  The level comes from CONCC_LOG, which is ignored with a warning
 * when it has another word. */
void log_init(const char *name, enum log_level default_level);
/* To a regular file instead, open for reading and appending, borrowed: of a program that lives for
 * weeks, the last `max` bytes, or half as many.  `max` is at least that of a few lines. */
void log_set_file(int fd, size_t max);
void log_set_timestamps(int on);
int log_enabled(enum log_level level);
void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_err(...)  log_write(LOG_LEVEL_ERR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
	do {                                                                                       \
		if (log_enabled(LOG_LEVEL_DEBUG))                                                  \
			log_write(LOG_LEVEL_DEBUG, __VA_ARGS__);                                   \
	} while (0)

#endif
