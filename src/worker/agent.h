/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_AGENT_H
#define CONCC_WORKER_AGENT_H

/*
 * The agent: one loop thread that joins the link, the mirror and the launcher.
 *
 *   agent.c    life cycle, what the mirror and the launcher have to tell
 *   agent_messages.c  the client's messages
 *   agent_disk.c  the store, and the threads that may block
 *   agent_host.c  this host: its slots, load, memory and limits;  crowd.c  who else uses it
 *   presence.c what others on this host can ask;  journal.c  the system log
 *   checkup.c  what may be wrong here, for a client that asks
 *   job.h      one job: start when the mirror is flushed, pipes, end
 *   outbox.c   what a job sends, in its one right order
 *   toolchain.c  is the client's compiler the same as ours?
 */
#include <stdbool.h>
#include <stdint.h>

#include "concc/caller.h"
#include "concc/farm.h"
#include "concc/host_slots.h"
#include "concc/link.h"
#include "concc/loop.h"
#include "concc/map.h"
#include "concc/mirror.h"
#include "concc/offload.h"
#include "concc/proto.h"
#include "concc/store.h"
#include "concc/sandbox.h"

/* How many jobs run at once on the host, of all clients. */
#define MAX_JOBS_ENV "CONCC_MAX_JOBS"
/* Where root's agents keep contents: they are not root. */
#define AGENT_ROOT_CACHE "/var/cache/concc"
#define AGENT_TOLD_TO_END                                                                          \
	"it was told to end (SIGTERM), as when its pod, container, batch job or machine is to go"
#define AGENT_JOBS_MAX 4096 /* jobs of one client at once: each has fds and processes */

struct agent {
	struct loop *loop;
	struct link *link;
	struct store *store;
	struct offload *disk; /* all that may block: see loop.h */
	struct loop_source *disk_source;
	struct offload_lane *keeping, *trimming, *comparing, *scanning;
	bool trims;	      /* a trim is in its lane */
	int storage_sent;     /* store_state(), as the client knows it */
	uint64_t n_kept;      /* jobs whose outputs were to be put into the store, ... */
	uint64_t n_kept_done; /* ... and are */
	struct mirror *mirror;
	struct launcher *launcher;
	struct loop_source *mirror_source;
	struct msg_hello client;
	struct map envs; /* id -> struct msg_env */
	size_t env_bytes;
	struct map callers;  /* id -> struct caller */
	struct map exes;     /* id -> struct toolchain */
	struct map jobs;     /* id -> struct agent_job */
	char **trees;	     /* what of the client's all jobs see, as far as it was told */
	struct list waiting; /* struct agent_job.of_waiting: for the mirror to be flushed */
	struct list queued;  /* struct agent_job.of_waiting: for a slot of the host */
	uint32_t n_queued;
	struct loop_source *queue_timer;
	struct host_slots *slots; /* of the host: shared with the agents of all clients there */
	struct loop_source *slots_source;
	uint32_t max_jobs; /* of the host */
	struct loop_source *load_timer;
	uint64_t load_ms;	  /* when it was looked at last */
	struct crowd *crowd;	  /* what this machine's others take of it */
	struct pace *pace;	  /* is it as fast as it was */
	uint32_t cpus, cpu_speed; /* as HELLO says */
	struct msg_load load;	  /* as told last */
	struct msg_limits limits; /* of each job */
	struct list
		sending; /* struct agent_job.of_sending: with something in the outbox, by turns */
	struct loop_source *pump_source; /* more of it in the next turn of the loop */
	uint64_t counts_sent;	 /* FUSE requests and own files, by the last MIRROR_COUNTS */
	struct caller own;	 /* as we were started: what our login gives */
	bool cores_leave;	 /* this machine's go to a program of its */
	int memory_fd;		 /* memory_events_open(), or -1 */
	uint64_t oom_kills;	 /* what that said last */
	struct farm farm;	 /* what the administrator allows */
	struct journal *journal; /* NULL: nothing is to be logged */
	struct presence *presence;
	char *store_dir;
	char *home;			    /* the login's, where it really is; or NULL */
	uint32_t uid;			    /* of the login */
	uint64_t n_jobs, n_refused, n_lost; /* ended; of them refused, of no use */
	bool up;
	int result;
	struct errmsg *msg;
};

/* Ends the agent; text goes to the client when the link still stands. */
void agent_fail(struct agent *a, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Jobs that run at once on this host, as far as this user's environment goes. */
uint32_t agent_max_jobs(const struct farm *f);
/* Whoever ends all that runs here may have ended a job first. */
bool agent_is_told_to_end(void);
void agent_tell_counts(struct agent *a);
void agent_tell_guessed(struct agent *a);

/* ---- agent_messages.c ---- */

/* One after READY: 0 or a negative code, which ends the link. */
int agent_message(struct agent *a, uint8_t type, struct blob payload);

/* ---- agent_disk.c ---- */

/* The threads; from then on the loop hears of them. */
void agent_disk_start(struct agent *a);
/* Opens or makes it where the login's cache is, with what both sides allow. */
int agent_store_open(struct agent *a, struct errmsg *msg);
/* Bounds it while it is used, and tells a client whose contents can't be kept. */
void agent_store_look(struct agent *a);
/* Can it be written to again?  By a thread; STORAGE tells the client. */
void agent_store_probe(struct agent *a);

/* ---- agent_host.c ---- */

void host_say_hello(struct agent *a);
/* Those shared with the agents of all clients.  Without them jobs run all the same. */
void host_open_slots(struct agent *a);
/* Tells the client of the load from now on. */
void host_begin_load(struct agent *a);
void host_has_jobs(struct agent *a); /* and had none */
/* What was killed for lack of memory until now is no job's. */
void host_begin_memory(struct agent *a);
/*
 * When the kernel has killed a process for lack of memory since the last look, any of the jobs that
 * there are may have lost one; whether what waited for it took that for an answer, nobody knows.
 */
void host_look_at_oom(struct agent *a);
/* What a client asks for, as far as the administrator allows it. */
void agent_set_limits(struct agent *a, const struct msg_limits *m);

/* ---- checkup.c ---- */

/* Looks, and tells the client.  Before the agent moves into its namespaces. */
void checkup_send(struct agent *a);

/* ---- job.h ---- */

struct agent_job;

int agent_job_start(struct agent *a, struct blob payload);
int agent_job_input(struct agent *a, struct blob payload);
int agent_job_credit(struct agent *a, struct blob payload);
int agent_job_kill(struct agent *a, struct blob payload);
/* The mirror may have been flushed: start what waits for that. */
void agent_job_start_waiting(struct agent *a);
/* A slot of the host may be free. */
void agent_job_start_queued(struct agent *a);
void agent_job_queue_timeout(void *agent); /* of its queue_timer */
void agent_job_prepared(struct agent *a, uint32_t job_id, int *upper_fds, size_t n, int tmp_fd);
void agent_job_ended(struct agent *a, uint32_t job_id, const struct job_end *end);
/* A job got an error from the mirror that it would not have got on the client: its result can't be
 * used.  JOB_UNKNOWN: it may be any. */
void agent_job_failed(struct agent *a, int64_t job, enum failure why, const char *text);
/* That it used one of its caller's descriptors, for a person; on the heap. */
char *agent_job_descriptors(struct agent *a, int64_t job);
/* A job is about to do what only the client can do as it is meant: text says what. */
void agent_job_beyond(struct agent *a, uint32_t job_id, const char *text);
/* A job has locked a file of the client's to read it, or asked for its attributes, which the client
 * is to look at: kind is EFFECT_LOCKED or EFFECT_ASKED. */
void agent_job_looks(struct agent *a, uint32_t job_id, uint8_t kind, size_t workspace,
		     const char *path);
/* What a job did outside every workspace; JOB_UNKNOWN: it may be any. */
void agent_job_outside(struct agent *a, int64_t job, enum missing_how how, const char *path);
void agent_job_free(struct agent_job *j);

/* ---- outbox.c ---- */

struct home;

struct outbox {
	struct list items;
	struct list of_sending; /* in agent.sending while there are items */
	uint32_t job_id;
};

void outbox_init(struct outbox *o, uint32_t job_id);
void outbox_release(struct outbox *o);
/*
 * A file: its bytes are read when its turn comes, from fd (duplicated; while the
 * job may still rename or remove it) or, when fd is -1, from f->path in dir_fd (borrowed until
 * sent).  When they can't be read to the announced size, outbox_failed() is called.
 */
void outbox_file(struct agent *a, struct outbox *o, const struct msg_file *f, int dir_fd, int fd);
/* In job_end.c: the outbox is of no use any more. */
void outbox_failed(struct outbox *o, const char *path);
void outbox_message(struct agent *a, struct outbox *o, uint8_t type, const struct buf *b);
/* Called from the loop after all that was put in before has been sent. */
void outbox_then(struct agent *a, struct outbox *o, void (*fn)(void *data), void *data);
/* Little is queued in the link: send more, one frame of each job by turns. */
void outbox_pump(struct agent *a);

/* ---- toolchain.c ---- */

struct toolchain;

/* NULL when the payload is wrong. */
struct toolchain *toolchain_new(struct blob payload);
void toolchain_free(struct toolchain *t);
const char *toolchain_exe(const struct toolchain *t);
uint32_t toolchain_id(const struct toolchain *t);
/*
 * Were all its files the same here when they were read, and does none of them look changed?  For
 * each job; does not read them.  False while a check is under way.
 */
bool toolchain_is_right(const struct toolchain *t);
/*
 * Reads those that have to be: 0 when all are the same here; CONCC_E_UNAVAIL and what differs; or
 * another code: it can't be told now.  Blocks: by one thread at a time, between the other two.
 */
int toolchain_check(struct toolchain *t, struct errmsg *msg);
void toolchain_begin_check(struct toolchain *t);
void toolchain_end_check(struct toolchain *t);

#endif
