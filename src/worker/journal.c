/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "journal.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>
#include <time.h>

#include "concc/str.h"

#define LINES	 256 /* a second of a worker's jobs; who reads more slowly has no use for all */
#define LINE_MAX 400
#define END_S	 1

struct journal {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t more;
	bool started, end; /* under lock, as all below */
	unsigned first, n;
	unsigned long n_lost;
	char lines[LINES][LINE_MAX];
};

struct journal *journal_new(void)
{
	struct journal *j = xcalloc(1, sizeof(*j));

	(void)pthread_mutex_init(&j->lock, NULL); /* never fails with these attributes */
	(void)pthread_cond_init(&j->more, NULL);
	openlog("concc-worker", LOG_PID | LOG_NDELAY, LOG_DAEMON);
	return j;
}

/* The next line and what was lost before it; false at the end. */
static bool next(struct journal *j, char *line, unsigned long *ret_lost)
{
	bool some;

	(void)pthread_mutex_lock(&j->lock);
	while (!j->n && !j->end)
		(void)pthread_cond_wait(&j->more, &j->lock);
	some = j->n > 0;
	if (some) {
		(void)snprintf(line, LINE_MAX, "%s", j->lines[j->first]);
		j->first = (j->first + 1) % LINES;
		j->n--;
	}
	*ret_lost = j->n_lost;
	j->n_lost = 0;
	(void)pthread_mutex_unlock(&j->lock);
	return some;
}

static void *run(void *data)
{
	char line[LINE_MAX];
	unsigned long lost;

	while (next(data, line, &lost)) {
		if (lost)
			syslog(LOG_WARNING, "%lu lines were lost: they came too fast", lost);
		syslog(LOG_INFO, "%s", line);
	}
	return NULL;
}

void journal_start(struct journal *j)
{
	j->started = pthread_create(&j->thread, NULL, run, j) == 0;
}

void journal_say(struct journal *j, const char *fmt, ...)
{
	va_list ap;

	(void)pthread_mutex_lock(&j->lock);
	if (j->n == LINES) {
		j->n_lost++;
	} else {
		char *line = j->lines[(j->first + j->n++) % LINES];

		va_start(ap, fmt);
		(void)vsnprintf(line, LINE_MAX, fmt, ap); /* cut when too long */
		va_end(ap);
		str_defuse(line);
		(void)pthread_cond_signal(&j->more);
	}
	(void)pthread_mutex_unlock(&j->lock);
}

void journal_free(struct journal *j)
{
	struct timespec end;

	if (!j)
		return;
	(void)pthread_mutex_lock(&j->lock);
	j->end = true;
	(void)pthread_cond_signal(&j->more);
	(void)pthread_mutex_unlock(&j->lock);
	(void)clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += END_S;
	/* A thread that waits for the log's reader ends with the process; what it uses stays. */
	if (j->started && pthread_timedjoin_np(j->thread, NULL, &end) != 0)
		return;
	closelog();
	free(j);
}
