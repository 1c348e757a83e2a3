/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_JOURNAL_H
#define CONCC_WORKER_JOURNAL_H

/*
 * Lines for the worker's system log.  syslog(3) may wait for whoever reads it, so a thread says
 * them; whoever has something to say only puts it into a queue that has an end.
 */
struct journal;

/* Before any namespace is entered: it opens the log.  Says nothing until journal_start(). */
struct journal *journal_new(void);
/* The thread.  Without one nothing is logged. */
void journal_start(struct journal *j);
/* One line, of printable words.  Never blocks: what the queue has no room for is only counted. */
void journal_say(struct journal *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Gives what is queued a second to be said; NULL is fine. */
void journal_free(struct journal *j);

#endif
