/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_DOCTOR_DOCTOR_H
#define CONCC_DOCTOR_DOCTOR_H

/*
 * What the parts of `concc doctor` share.
 *
 *   doctor.c  the order of all, and what is printed
 *   client.c  this machine
 *   reach.c   connects to workers, and hears what they say of themselves
 *   worker.c  what follows of that
 *   cause.c   which check an error's text belongs to; pure
 *   trial.c   a job compiled there and here
 *
 * Single-threaded, but for the connecting (concc/link.h).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/conf.h"
#include "concc/doctor.h"
#include "concc/proto.h"

enum finding_state { FINDING_OK, FINDING_WARNING, FINDING_FAILED };

/* In the order in which they would bite. */
enum check {
	CHECK_CONFIGURATION,
	CHECK_RUNTIME,
	CHECK_DISK_HERE,
	CHECK_LIMITS_HERE,
	CHECK_COMPILER,
	CHECK_SSH,
	CHECK_HOST_KEY,
	CHECK_KEY,
	CHECK_AGENT,
	CHECK_PROGRAM,
	CHECK_VERSION,
	CHECK_KERNEL,
	CHECK_NAMESPACES,
	CHECK_APPARMOR,
	CHECK_FUSE,
	CHECK_DISK,
	CHECK_LIMITS,
	CHECK_CLOCK,
	CHECK_START, /* whatever else keeps a worker from becoming ready */
	CHECK_TOOLCHAIN,
	CHECK_JOB,
	CHECK_ROUND_TRIP,
	CHECK_N,
	CHECK_NONE = CHECK_N,
};

const char *check_name(enum check c);

struct doctor {
	const struct doctor_options *o;
	struct conf *conf;	  /* NULL: there is none that can be used */
	const char *where;	  /* the worker that is being looked at; NULL: this machine */
	void *findings;		  /* json_t, with --json */
	const char *compiler;	  /* a name in PATH, or NULL */
	unsigned n_failed;	  /* of `where` */
	unsigned n_tried, n_good; /* workers */
	char *first;		  /* the first failure of all: "check: text", owned */
};

/* One check is done.  text: what was seen; remedy: a command, NULL or "": none is needed or known.
 */
void say(struct doctor *d, enum check c, enum finding_state s, const char *remedy, const char *text,
	 ...) __attribute__((format(printf, 5, 6)));

/* ---- client.c ---- */

/* Reads the configuration into d->conf. */
void client_configuration(struct doctor *d);
/* All else of this machine; what a worker does not matter for. */
void client_look(struct doctor *d);
/* The user's SSH keys and agent. */
void client_agent(struct doctor *d);

/* ---- reach.c ---- */

/* What came of trying one worker. */
struct sight {
	const struct conf_worker *worker;
	char *how;    /* what carries the bytes; NULL: nothing did */
	char *error;  /* why it can't be used; NULL: it is ready */
	bool heard;   /* a worker greeted, of whatever version */
	bool greeted; /* one of our version */
	bool has_checkup;
	char *program, *host; /* of its HELLO */
	struct msg_checkup checkup;
	uint64_t asked_us, heard_us; /* CLOCK_REALTIME before and after the CHECKUP; */
	uint64_t trip_us;	     /* and how long it took */
};

/* All at once.  s has one for each of the n workers that are named in it.  0 or a negative code. */
int reach(const struct conf *conf, struct sight *s, size_t n);
void sight_release(struct sight *s);

/* ---- worker.c ---- */

/* Says what is wrong with the worker; true when jobs can be tried on it. */
bool worker_look(struct doctor *d, const struct sight *s);

/* A command for that worker's host, to be typed here: "ssh me@build1 COMMAND"; on the heap. */
char *worker_command(const struct conf_worker *w, bool root, uint32_t uid, const char *command);

/* ---- cause.c ---- */

/*
 * Of a text that says why a worker can't be used.  CHECK_NONE when it names no cause that is known
 * and can be one where the text is from: what comes before `from` was passed by then, and a worker
 * that names it would have its user mend what is right (forget a host's key, say).
 */
enum check cause_of(const char *text, enum check from);
/*
 * The command in it that forgets a host's key, as ssh and we advise it, made anew from a file and a
 * host that are plain words: the text may be of whoever is at the other end.  NULL: there is none.
 */
char *forget_key_command(const char *text);
/* The rule that kept a job here, of concc-cc(1): what it is about, and what to do; NULL: nothing.
 */
enum check cause_of_rule(const char *rule, const char **ret_remedy);

/* ---- trial.c ---- */

void trial(struct doctor *d, const struct sight *s);

#endif
