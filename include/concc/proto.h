/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROTO_H
#define CONCC_PROTO_H

/*
 * The messages between client and worker (a link) and between wrapper and
 * project server (the unix socket), as PROTOCOL.md numbers them.  Pure: encodes
 * to and decodes from memory; no fd, no clock, no log.  Every decoder takes
 * hostile bytes, and returns 0, or CONCC_E_PROTO with nothing in ret that would have to be freed
 * (of RUN also CONCC_E_VERSION).  Decoded strings and blobs marked "borrowed" point into the
 * payload; what a msg_x_release() exists for is owned by the struct, any other string or vector by
 * the caller.  From any thread; nothing blocks.
 *
 * A frame is: u32 payload length | u8 type | u8 flags | u16 zero.  A message
 * larger than PROTO_FRAME_MAX is cut into frames with PROTO_F_MORE on all but
 * the last; frames of one such message are contiguous among those of its type.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/buf.h"
#include "concc/caller.h"
#include "concc/digest.h"

#ifndef PROTO_VERSION /* a test has another */
#define PROTO_VERSION 22
#endif
/*
 * Bytes of "project.lock" that a project server has locked when it is ready: for who speaks this
 * version, and for everybody.
 */
#define PROTO_READY_BYTE (16 + PROTO_VERSION)
#define PROTO_THERE_BYTE 1
/* A client's first bytes: a PING, which one that speaks any version takes.  A worker says nothing
 * before it has heard this. */
#define PROTO_GREETING	   "\x08\0\0\0\x03\0\0\0CONCC-HI"
#define PROTO_GREETING_LEN 16
/* The worker's first bytes, after any noise. */
#define PROTO_MAGIC	 "\nCONCC-LINK/1\n"
#define PROTO_MAGIC_LEN	 14
#define PROTO_NOISE_MAX	 (64 * 1024) /* what may stand before either: login shells print */
#define PROTO_HEADER_LEN 8
#define PROTO_FRAME_MAX	 (64 * 1024)	   /* payload of one frame: bounds how long a job waits */
#define PROTO_MSG_MAX	 (8 * 1024 * 1024) /* whole message on a link: ARG_MAX is 2 MB, with room */
#define PROTO_DIR_MAX	 (256 * 1024 * 1024) /* a DIR message: a million names */
#define PROTO_PATH_MAX	 4096
/* For a slot of the worker's host: longer than others' jobs should take, shorter than a user's
 * patience.  A job waits no longer before it begins, or is given back. */
#define PROTO_TURN_MAX_S 600
#define PROTO_NAME_MAX	 255
#define PROTO_TEXT_MAX	 4096
#define PROTO_ARGS_MAX	 (4 * 1024 * 1024) /* bytes of argv or of environment: over the kernel's */

enum proto_flags {
	PROTO_F_MORE = 1 << 0, /* the message goes on in the next frame of this type */
	/* The payload is u32 raw length, at most PROTO_FRAME_MAX, and an LZ4 block; or a frame of
	 * zstd's (RFC 8878). */
	PROTO_F_LZ4 = 1 << 1,
	PROTO_F_ZSTD = 1 << 2,
};

enum msg_type {
	/* both directions of a link */
	MSG_HELLO = 1,
	MSG_BYE = 2,
	MSG_PING = 3,
	MSG_PONG = 4,
	MSG_READY = 5, /* worker -> client, once: jobs can come.  Empty */

	/* client -> worker */
	MSG_ENV = 10,
	MSG_EXE = 11,
	MSG_JOB = 12,
	MSG_JOB_INPUT = 13,
	MSG_JOB_CREDIT = 14,
	MSG_JOB_KILL = 15,
	MSG_CALLER = 16,
	MSG_BARE = 17,
	MSG_DIR = 20,
	MSG_UPDATE = 21,
	MSG_DIR_STALE = 22,
	MSG_CONTENT = 23,
	MSG_SERVE = 24,
	MSG_PREFETCH = 25,
	MSG_OUTSIDE = 26,
	MSG_LIMITS = 27,
	MSG_LINK = 28,
	MSG_GUESS = 29,

	/* worker -> client */
	MSG_LIST = 30,
	MSG_FETCH = 31,
	MSG_CHECKUP = 32,
	MSG_STORAGE = 33,
	MSG_JOB_QUEUED = 34,
	MSG_GUESSED = 35,
	MSG_JOB_TRACE = 40,
	MSG_JOB_OUTPUT = 41,
	MSG_JOB_FILE = 42,
	MSG_JOB_DATA = 43,
	MSG_JOB_COMMIT = 44,
	MSG_JOB_EXIT = 45,
	MSG_INPUT_CREDIT = 46,
	MSG_JOB_MISSING = 47,
	MSG_MIRROR_COUNTS = 48,
	MSG_LOAD = 49,

	/* wrapper -> project server */
	MSG_RUN = 50,
	MSG_RUN_INPUT = 52,
	MSG_RUN_OUTPUT_CREDIT = 56,
	MSG_RUN_HERE = 57,
	MSG_RUN_CANCEL = 58,
	MSG_CTL = 60,

	/* project server -> wrapper */
	MSG_RUN_OUTPUT = 51,
	MSG_RUN_INPUT_CREDIT = 53,
	MSG_RUN_EXIT = 54,
	MSG_RUN_FAIL = 55,
	MSG_CTL_REPLY = 61,
};

const char *msg_name(uint8_t type); /* for logs and counters; "?" when unknown */

struct proto_header {
	uint32_t len;
	uint8_t type;
	uint8_t flags;
};

void proto_put_header(uint8_t out[PROTO_HEADER_LEN], uint8_t type, uint8_t flags, uint32_t len);
/* CONCC_E_PROTO when the length is over PROTO_FRAME_MAX or reserved bits are set. */
int proto_get_header(const uint8_t in[PROTO_HEADER_LEN], struct proto_header *ret);

/* ---- link set-up ---- */

#define PROTO_TOP_MAX	256 /* names in HELLO: each is a mount of every job */
#define PROTO_LINKS_MAX 64  /* strings in HELLO: two for each link */
#define PROTO_TREES_MAX 256 /* trees of a link: each is a mount of every job */

enum hello_flags {
	HELLO_F_CLIENT_ROOT = 1 << 0, /* from a client: jobs see its system, and nothing else */
	HELLO_F_CHECKUP = 1 << 1,     /* from a client: it wants a CHECKUP */
	HELLO_F_NEAR = 1 << 2, /* from a client: the link costs less than to compress for it */
};

/* The first five fields keep their place and meaning in every version; of another they are all that
 * is decoded. */
struct msg_hello {
	uint32_t version;
	char *program; /* "concc 0.1.0" */
	char *host;
	char *arch;	/* uname -m */
	uint32_t flags; /* enum hello_flags */
	/* client only; a worker sends zeros */
	uint32_t uid, gid;
	uint64_t store_max; /* bytes the worker's store may grow to */
	char **top;	    /* names of the directories in its root directory; NULL: none; owned */
	char **links; /* links there, that lead into its trees: name, target, name...; the same */
	/* worker only; a client sends zeros */
	uint32_t cpus;
	uint32_t cpu_speed; /* of core_speed(); 0: not measured */
	char *cpu_model;
};

void msg_hello_encode(struct buf *b, const struct msg_hello *m);
/* Of a peer whose version is not ours: what it runs, and which of the two is older; on the heap. */
char *msg_hello_other_version(const struct msg_hello *m);
int msg_hello_decode(struct blob payload, struct msg_hello *ret);
void msg_hello_release(struct msg_hello *m);

/* BYE: why the sender closes; text is for a person. */
void msg_bye_encode(struct buf *b, const char *text);
int msg_bye_decode(struct blob payload, char **ret_text);

/* PING and PONG carry the same u64 token back. */
void msg_u64_encode(struct buf *b, uint64_t v);
int msg_u64_decode(struct blob payload, uint64_t *ret);

/* ---- metadata: what a directory holds ---- */

enum entry_type {
	ENTRY_ABSENT = 0,
	ENTRY_FILE = 1,
	ENTRY_DIR = 2,
	ENTRY_SYMLINK = 3,
	ENTRY_FIFO = 4,
	ENTRY_SOCKET = 5,
	ENTRY_CHAR = 6,
	ENTRY_BLOCK = 7,
	/* There is a name, but what it stands for can't be told now (the disk fails, memory is
	 * short): nothing follows of it.  All else of its attr but the version is 0. */
	ENTRY_UNKNOWN = 8,
};

/*
 * What a name stands for, in one version.  A change of the name's file (inode,
 * size, times, mode) makes a new version; nothing about an (entry, version)
 * pair ever changes, except that its digest may become known.
 */
struct entry_attr {
	uint8_t type; /* enum entry_type */
	bool has_digest;
	uint16_t mode; /* permission bits, 07777 */
	uint32_t nlink;
	uint64_t ino;  /* unique within all that one client serves; equal for hard links */
	uint64_t size; /* bytes */
	int64_t mtime_s, ctime_s;
	uint32_t mtime_ns, ctime_ns;
	uint64_t version; /* of the client's counter; grows with every change; never 0 */
	struct digest digest;
};

struct dir_entry {
	struct blob name; /* borrowed; 1..255 bytes, no '/' or NUL, not "." or ".." */
	struct entry_attr attr;
	struct blob target; /* borrowed; symlinks only */
};

/* Appends one entry, as DIR and UPDATE hold them. */
void dir_entry_encode(struct buf *b, const char *name, size_t name_len, const struct entry_attr *a,
		      const char *target);
void dir_entry_decode(struct rd *r, struct dir_entry *ret); /* sets r->bad */

enum dir_state {
	DIR_LISTED = 0,	 /* the entries are all there are */
	DIR_MISSING = 1, /* nothing there, or no directory */
	DIR_DENIED = 2,	 /* the client may not read it, or does not serve it */
	/* As DIR_LISTED, but there may be more, which is not served: who looks for that is to be
	 * reported like a look-up outside every tree. */
	DIR_PARTIAL = 3,
	/* It can't be told now: the client is short of something, or its disk fails.  No fact about
	 * the directory, and forgotten when the waiting have their answer. */
	DIR_UNKNOWN = 4,
};

/*
 * DIR: the complete listing of one directory, in answer to LIST or ahead of
 * need.  dir_id (never 0) names the directory in later messages, until the
 * entry that leads to it changes; a path listed anew gets a new dir_id.
 */
struct msg_dir {
	uint32_t dir_id;
	uint8_t state; /* enum dir_state; no attr and no entries unless listed, in part or whole */
	char *path;    /* absolute, clean; owned */
	struct entry_attr attr; /* of the directory itself */
	uint32_t n;		/* entries to follow */
	struct rd entries;	/* borrowed: call dir_entry_decode() n times */
	uint32_t error;		/* of DIR_UNKNOWN: why, a positive errno */
};

/* The caller appends n entries with dir_entry_encode() after this. */
void msg_dir_encode(struct buf *b, uint32_t dir_id, uint8_t state, const char *path,
		    const struct entry_attr *attr, uint32_t n);
void msg_dir_unknown_encode(struct buf *b, uint32_t dir_id, const char *path, uint32_t error);
int msg_dir_decode(struct blob payload, struct msg_dir *ret); /* checks every entry */
void msg_dir_release(struct msg_dir *m);

/*
 * UPDATE: changes in one listed directory: its own new attributes, and names
 * with what they stand for now (ENTRY_ABSENT: gone).
 */
struct msg_update {
	uint32_t dir_id;
	struct entry_attr attr;
	uint32_t n;
	struct rd entries;
};

void msg_update_encode(struct buf *b, uint32_t dir_id, const struct entry_attr *attr, uint32_t n);
int msg_update_decode(struct blob payload, struct msg_update *ret);

/* DIR_STALE: the listing is no longer kept right; ask again before using it. */
void msg_u32_encode(struct buf *b, uint32_t v);
int msg_u32_decode(struct blob payload, uint32_t *ret);

/* LIST: ask for the directory at this path. */
void msg_list_encode(struct buf *b, const char *path);
int msg_list_decode(struct blob payload, char **ret_path);

enum serve_kind {
	SERVE_WORKSPACE = 0, /* of jobs to come, which will name it */
	SERVE_TREE = 1,	     /* with HELLO_F_CLIENT_ROOT: all jobs from now on see it, read-only */
};

/* SERVE: a tree that is served, told before the first job that uses it, since its listings may come
 * ahead of need. */
void msg_serve_encode(struct buf *b, const char *path, enum serve_kind kind);
int msg_serve_decode(struct blob payload, char **ret_path, uint8_t *ret_kind);

/* ---- outside every served tree ---- */

/*
 * OUTSIDE: names that jobs seek in a directory in vain, so that it is no news: they need not be
 * told as JOB_MISSING any more.  No names: all that was said of the directory is taken back.
 */
struct msg_outside {
	char *dir;    /* absolute, clean; owned */
	char **names; /* owned */
};

#define PROTO_OUTSIDE_MAX 4096 /* names in one message, and those a worker remembers */
void msg_outside_encode(struct buf *b, const char *dir, char *const *names);
int msg_outside_decode(struct blob payload, struct msg_outside *ret);
void msg_outside_release(struct msg_outside *m);

/*
 * LINK: a symbolic link of the client's outside every tree, by which a job calls what is in one.
 * Without a target: it is one no more.
 */
struct msg_link {
	char *path;   /* absolute, clean, not in the root directory itself; owned */
	char *target; /* owned; "": none */
};

#define PROTO_OUTSIDE_LINKS_MAX 64 /* that a worker shows */
void msg_link_encode(struct buf *b, const char *path, const char *target);
int msg_link_decode(struct blob payload, struct msg_link *ret);
void msg_link_release(struct msg_link *m);

/*
 * BARE: a directory of the client's outside every tree, which jobs see as one, without what is in
 * it: a name that they look up there is told as JOB_MISSING, and so is a listing.
 */
struct msg_bare {
	char *path; /* absolute, clean, not in the root directory itself; owned */
	bool there; /* else: it is one no more */
	uint16_t mode;
	int64_t mtime_s;
	uint32_t mtime_ns;
};

#define PROTO_BARE_MAX 64 /* that a worker shows */
void msg_bare_encode(struct buf *b, const struct msg_bare *m);
int msg_bare_decode(struct blob payload, struct msg_bare *ret);
void msg_bare_release(struct msg_bare *m);

/* ---- contents ---- */

/*
 * PREFETCH: names in a listed directory whose contents will be wanted soon: those the worker
 * does not have it may FETCH now, all at once, instead of one round trip for each later.
 * GUESS, of the same form: names that may be wanted, of which it takes as much as guesses have
 * been worth so far.  GUESSED, the worker's answer: those that jobs have read.
 */
struct msg_prefetch {
	uint32_t dir_id;
	char **names; /* owned */
};

#define PROTO_PREFETCH_MAX 4096 /* names in one message */
void msg_prefetch_encode(struct buf *b, uint32_t dir_id, char *const *names);
int msg_prefetch_decode(struct blob payload, struct msg_prefetch *ret);
void msg_prefetch_release(struct msg_prefetch *m);

struct msg_fetch {
	uint32_t fetch_id; /* the worker's, not in use for another fetch */
	uint32_t dir_id;
	uint64_t version;
	char *name; /* owned */
	/* The worker has a file of this digest: when it is that version's, nothing need be sent. */
	bool offers;
	struct digest offer;
};

void msg_fetch_encode(struct buf *b, const struct msg_fetch *m);
int msg_fetch_decode(struct blob payload, struct msg_fetch *ret);
void msg_fetch_release(struct msg_fetch *m);

enum content_state {
	CONTENT_DATA = 0, /* bytes at offset; in order, without gaps */
	CONTENT_END = 1,  /* all was sent, or is what was offered; digest is over the whole */
	CONTENT_GONE = 2, /* that version is no more (an UPDATE says so too) */
	CONTENT_ERROR = 3,
};

struct msg_content {
	uint32_t fetch_id;
	uint8_t state;
	uint64_t offset;
	uint32_t error; /* positive errno with CONTENT_ERROR */
	struct digest digest;
	struct blob data; /* borrowed */
};

void msg_content_encode(struct buf *b, const struct msg_content *m);
int msg_content_decode(struct blob payload, struct msg_content *ret);

/* ---- jobs ---- */

/* ENV: an environment, sent once per link and named by id in jobs. */
struct msg_env {
	uint32_t env_id;
	char **env; /* "NAME=value", owned */
};

void msg_env_encode(struct buf *b, uint32_t env_id, char *const *env);
int msg_env_decode(struct blob payload, struct msg_env *ret);
void msg_env_release(struct msg_env *m);

/* CALLER: what jobs get from who called for them, sent once per link and named by id. */
struct msg_caller {
	uint32_t caller_id;
	struct caller caller;
};

void msg_caller_encode(struct buf *b, const struct msg_caller *m);
int msg_caller_decode(struct blob payload, struct msg_caller *ret);

/*
 * EXE: the program that jobs name by exe_id, where it is on the client, and the
 * files that make up its identity (itself, cc1, ...) with their digests: with
 * root = worker the worker's own files must be the same.
 */
struct exe_file {
	char *path;
	struct digest digest;
};

struct msg_exe {
	uint32_t exe_id;
	char *path; /* absolute */
	uint32_t n_files;
	struct exe_file *files; /* owned */
};

#define PROTO_EXE_FILES_MAX 64
void msg_exe_encode(struct buf *b, const struct msg_exe *m);
int msg_exe_decode(struct blob payload, struct msg_exe *ret);
void msg_exe_release(struct msg_exe *m);

enum job_flags {
	JOB_F_STDIN = 1 << 0, /* JOB_INPUT will come; otherwise stdin is /dev/null */
	JOB_F_MERGED =
		1 << 1, /* stdout and stderr are one file for the caller: one stream, exact order */
	JOB_F_TTY_OUT = 1 << 2, /* the caller's stdout is a terminal */
	JOB_F_TTY_ERR = 1 << 3,
	/* It came through concc-cc: a compiler, or it runs some.  Of others nobody knows what they
	 * look at. */
	JOB_F_COMPILER = 1 << 4,
	/* A JOB_TRACE is wanted: what it looks at decides whether its result can be used again. */
	JOB_F_TRACE = 1 << 5,
	/* Of a look-up: only what would come of it is asked for, in words (RUN_FAIL_MISS). */
	JOB_F_WHY = 1 << 6,
	/* Of a RUN: who called asks for its result to be kept, whatever command it is. */
	JOB_F_KEEP = 1 << 7,
	/* The same, and says that it does not go by the times of files. */
	JOB_F_NO_TIMES = 1 << 8,
	/* Of a RUN with JOB_F_STDIN: it says what all of the input is. */
	JOB_F_INPUT_KNOWN = 1 << 9,
	/* With JOB_F_STDIN: the input is a file's, less than a window and from its start.  The job
	 * begins when all of it has come, and finds a file. */
	JOB_F_STDIN_FILE = 1 << 10,
	/* With JOB_F_STDIN: the input is another file's.  The job finds a pipe, and is ended when
	 * it seeks in that. */
	JOB_F_STDIN_SEEKS = 1 << 11,
	/* Without JOB_F_STDIN: the input is a terminal.  So is the job's, which is ended when it
	 * reads. */
	JOB_F_TTY_IN = 1 << 12,
	/* The caller has a terminal, whatever its descriptors are: a job that uses /dev/tty is
	 * ended.  Not of a compiler. */
	JOB_F_TERMINAL = 1 << 13,
	/* With one of the former two: who may read, write and execute that file, from this bit on.
	 * cp(1) gives it to a copy. */
	JOB_F_STDIN_MODE_SHIFT = 16,
	JOB_F_STDIN_MODE = 0777 << JOB_F_STDIN_MODE_SHIFT,
};

/* What a worker need not know. */
#define JOB_F_OF_RUN (JOB_F_WHY | JOB_F_KEEP | JOB_F_NO_TIMES | JOB_F_INPUT_KNOWN)

struct msg_job {
	uint32_t job_id; /* the client's, not in use for another job */
	uint32_t env_id;
	uint32_t exe_id;
	uint32_t caller_id;
	uint32_t flags; /* enum job_flags */
	uint32_t umask;
	uint16_t rows, cols; /* of the terminal, 0 when there is none */
	char *path; /* what to give to execve(2) for the program: scripts see it as $0, so it may be
		     * relative to cwd */
	char *cwd;  /* absolute, clean, below a workspace */
	char **workspaces; /* absolute, clean, none below another; owned */
	char **argv;	   /* owned, at least one */
};

#define PROTO_WORKSPACES_MAX 64
void msg_job_encode(struct buf *b, const struct msg_job *m);
int msg_job_decode(struct blob payload, struct msg_job *ret);
void msg_job_release(struct msg_job *m);

/* JOB_INPUT, JOB_DATA and RUN_INPUT (id 0): bytes for one job; none means end of file (INPUT). */
void msg_bytes_encode(struct buf *b, uint32_t id, const void *p, size_t n);
int msg_bytes_decode(struct blob payload, uint32_t *ret_id, struct blob *ret);

/* JOB_OUTPUT and RUN_OUTPUT (id 0): stream is 1 or 2. */
void msg_output_encode(struct buf *b, uint32_t id, uint8_t stream, const void *p, size_t n);
int msg_output_decode(struct blob payload, uint32_t *ret_id, uint8_t *ret_stream, struct blob *ret);

/* JOB_QUEUED (1: it waits for a slot of its host, 0: not any more), JOB_CREDIT (bytes that may
 * follow), INPUT_CREDIT and RUN_INPUT_CREDIT (bytes that the job has read, and so many may follow),
 * RUN_OUTPUT_CREDIT (bytes that the caller has), JOB_KILL (signal number). */
void msg_pair_encode(struct buf *b, uint32_t id, uint32_t value);
int msg_pair_decode(struct blob payload, uint32_t *ret_id, uint32_t *ret_value);

#define PROTO_OUTPUT_WINDOW                                                                        \
	(256 * 1024) /* output of one job on its way at first, before credit                       \
		      */
#define PROTO_INPUT_WINDOW (256 * 1024)

enum effect_kind {
	EFFECT_FILE = 1,    /* a regular file; JOB_DATA with size bytes follows */
	EFFECT_SYMLINK = 2, /* target */
	EFFECT_DIR = 3,	    /* make the directory, or set its mode */
	EFFECT_REMOVE = 4,  /* the name, and all beneath it when a directory */
	EFFECT_META = 5,    /* same bytes as before: set mode; with EFFECT_F_TOUCHED the time too */
	EFFECT_LINK = 6, /* a hard link to target, a path relative to the workspace sent before */
	/* Nothing was done to it, but the client is to look whether the job saw what is so: */
	EFFECT_LOCKED = 7, /* it had the file locked to read it (F_RDLCK) */
	EFFECT_ASKED = 8,  /* it asked for extended attributes, of which it was shown none */
};

static inline bool effect_is_look(uint8_t kind)
{
	return kind == EFFECT_LOCKED || kind == EFFECT_ASKED;
}

enum effect_flags {
	EFFECT_F_MTIME = 1 << 0,   /* the job set this time itself: keep it.  Else: now, in order */
	EFFECT_F_TOUCHED = 1 << 1, /* META: the modification time changed */
	EFFECT_F_OPAQUE = 1 << 2,  /* DIR: replaces what was there, with all beneath it */
	EFFECT_F_FIFO = 1 << 3,	   /* FILE of size 0: make a fifo */
	/* FILE in the place of another: whose other names keep their bytes; and owner and
	 * attributes go with it */
	EFFECT_F_REPLACED = 1 << 4,
	EFFECT_F_SOCKET = 1 << 5, /* FILE of size 0: make a socket, as one whose owner has ended */
	EFFECT_F_NO_DIGEST = 1 << 6, /* FILE: too large to be hashed in passing; digest is zeros */
	EFFECT_F_ATIME = 1 << 7,     /* the job set the time of access itself: keep it */
};

/* JOB_FILE: one thing the job did to a workspace, in the order it must be repeated. */
struct msg_file {
	uint32_t job_id;
	uint8_t kind; /* enum effect_kind */
	uint8_t flags;
	uint16_t mode;
	uint32_t workspace; /* index into the job's */
	uint64_t size;
	int64_t mtime_s, atime_s;
	uint32_t mtime_ns, atime_ns;
	struct digest digest; /* FILE: of the bytes that follow; META of a file: of those it has */
	char *path;	      /* relative, clean, never empty for FILE; owned */
	char *target;	      /* SYMLINK, LINK; owned, "" otherwise */
};

void msg_file_encode(struct buf *b, const struct msg_file *m);
int msg_file_decode(struct blob payload,
		    struct msg_file *ret); /* refuses "..", absolute, empty parts */
void msg_file_release(struct msg_file *m);

enum exit_how {
	EXIT_CODE = 0,	  /* code is the exit status */
	EXIT_SIGNAL = 1,  /* code is the signal */
	EXIT_REFUSED = 2, /* never started: code is enum refusal, text says more */
	EXIT_FAILED = 3,  /* ours: started or not, its result can't be used; text says why, code is
			   * enum failure */
};

enum failure {
	FAILED_HERE = 0,	/* may be tried elsewhere */
	FAILED_LIMIT = 1,	/* it has reached one of its limits */
	FAILED_NO_WAY_HOME = 2, /* it did what can't be repeated on the client as it is, or could
				 * not see what the client's user may not read */
	FAILED_SPECIAL = 3,	/* it looked up a fifo, socket or device of the client's */
	FAILED_DESCRIPTOR = 4,	/* it used an open file of its caller's */
};

enum refusal {
	REFUSED_TOOLCHAIN = 1, /* the program or one of its files differs or is missing here */
	REFUSED_CWD = 2,
	REFUSED_SANDBOX = 3,
	REFUSED_BUSY = 4,   /* others have had all slots of its host for too long */
	REFUSED_CALLER = 5, /* its login can't give a process what the caller has */
};

/* JOB_EXIT: the last message of a job; commits what JOB_FILEs came since the last JOB_COMMIT
 * when how is EXIT_CODE or EXIT_SIGNAL, drops them otherwise. */
struct msg_exit {
	uint32_t job_id;
	uint8_t how;
	uint32_t code;
	char *text; /* owned */
	/* Each at most PROTO_USED_MAX. */
	uint64_t utime_us, stime_us, wall_us;
	uint64_t maxrss_kb;
	char **outside; /* owned: paths the job wrote outside every workspace (at most 8) */
};

/* 142 years, or 4 EB: no job has used more, and sums of them are numbers still. */
#define PROTO_USED_MAX (1ull << 52)

void msg_exit_encode(struct buf *b, const struct msg_exit *m);
int msg_exit_decode(struct blob payload, struct msg_exit *ret);
void msg_exit_release(struct msg_exit *m);

/*
 * JOB_MISSING: absolute paths that the worker does not have (at most 8): named
 * in the job's arguments, told before it starts; or outside every workspace looked
 * up by the job, or to be made, removed or otherwise changed, in vain, told before
 * any output that came after.  When the client has what was looked up, or could
 * have changed it, the job did something else than it would at home.  When it has
 * what was named, its failure may come of it: the output is held back until the
 * exit decides.
 */
enum missing_how {
	MISSING_NAMED = 0,
	MISSING_LOOKED_UP = 1,
	MISSING_CHANGED = 2,
	MISSING_LISTED = 3, /* a directory, of which only the names of what is served were there */
};
struct msg_missing {
	uint32_t job_id;
	uint8_t how;  /* enum missing_how */
	char **paths; /* owned */
};

void msg_missing_encode(struct buf *b, uint32_t job_id, enum missing_how how, char *const *paths);
int msg_missing_decode(struct blob payload, struct msg_missing *ret);
void msg_missing_release(struct msg_missing *m);

/* How a name was used, by the letter that it begins with in JOB_TRACE. */
enum trace_how {
	TRACE_LOOK = 'l',  /* what is there, a symlink itself: lstat(2), mkdir(2), unlink(2) ... */
	TRACE_STAT = 's',  /* what it leads to */
	TRACE_LINK = 'k',  /* what a symlink says */
	TRACE_READ = 'r',  /* opened: its bytes, when it is a file */
	TRACE_EXEC = 'x',  /* executed */
	TRACE_LIST = 'd',  /* the names in a directory */
	TRACE_PLACE = 'p', /* asked for the path of what it leads to */
	TRACE_WAY = 'y',   /* where what is not there would be; told by no worker */
	TRACE_TIMES = 't', /* when a file was changed last, how many names it has */
	TRACE_WRITE = 'w', /* opened for writing: what it held was not read, unless 'r' says so */
	TRACE_MAKE = 'm',  /* made, removed or replaced: in which directory is what counts */
	/* Written anew by a compiler or linker, which leaves a file there with the mode that the
	 * umask gives a file, or a program, whatever there was; told by no worker. */
	TRACE_OUTPUT = 'o',
	TRACE_OUTPUT_EXEC = 'e',
	/* The same, made by another name, and moved here in the place of what there was. */
	TRACE_OUTPUT_MOVED = 'v',
};

/* As what a symlink says: random bytes were asked for, by getrandom(2). */
#define TRACE_GETRANDOM "/dev/random"

#define PROTO_TRACE_NAMES_MAX (32 * 1024)
#define PROTO_TRACE_BYTES_MAX (4 * 1024 * 1024)

/*
 * JOB_TRACE, before JOB_EXIT: every name that a process of the job has passed to the kernel, once
 * for each way; absolute, but as it was passed otherwise (with "..", symlinks, double slashes).
 * Names that were created by the job itself are among them.
 */
struct msg_trace {
	uint32_t job_id;
	char *why;    /* it is not all there is, or not enough: a word; "" otherwise.  Owned */
	char **names; /* a letter of enum trace_how and a path; they are in: */
	size_t n;
	char *all; /* both owned */
};

/* names: as they are in the message, each ended by NUL. */
void msg_trace_encode(struct buf *b, uint32_t job_id, const char *why, struct blob names);
int msg_trace_decode(struct blob payload, struct msg_trace *ret);
void msg_trace_release(struct msg_trace *m);
bool trace_name_is_valid(const char *name, size_t len);
static inline bool trace_is_output(char how)
{
	return how == TRACE_OUTPUT || how == TRACE_OUTPUT_EXEC || how == TRACE_OUTPUT_MOVED;
}

/* MIRROR_COUNTS: FUSE requests the worker's kernel has sent so far, by FUSE opcode, what the
 * worker took from its own disk, and how its disk keeps up; told before the end of a job when they
 * have grown, so that a cold cache can be seen from the client. */
#define PROTO_FUSE_OPS 64
struct msg_mirror_counts {
	uint64_t total;
	uint64_t own_files, own_bytes;
	/* Calls to its disk, made on threads: see concc/offload.h. */
	uint64_t disk_done, disk_refused, disk_most_queued, disk_most_bytes, disk_longest_us;
	uint64_t by_opcode[PROTO_FUSE_OPS];
};

void msg_mirror_counts_encode(struct buf *b, const struct msg_mirror_counts *m);
int msg_mirror_counts_decode(struct blob payload, struct msg_mirror_counts *ret);

/* LIMITS: of each job; told after READY, before the first job, when there are any.  0: none. */
struct msg_limits {
	uint64_t memory;    /* bytes of data of one process */
	uint32_t processes; /* and threads, of all jobs together */
	uint32_t time_s;
};

void msg_limits_encode(struct buf *b, const struct msg_limits *m);
int msg_limits_decode(struct blob payload, struct msg_limits *ret);

/*
 * CHECKUP: what may keep the worker from working, looked at before it sets itself up, so that it is
 * told whether or not that fails.  Only to a client that asked for it.
 */
struct msg_checkup {
	uint64_t clock_us;   /* CLOCK_REALTIME, when it was sent */
	uint32_t uid;	     /* of the login */
	uint32_t fuse_error; /* errno of opening /dev/fuse; 0: it can be */
	/* Settings of the kernel; CHECKUP_NONE: it has none such. */
	uint64_t max_user_namespaces, unprivileged_userns_clone, apparmor_restricts;
	uint64_t cache_free, cache_size; /* bytes of the file system of the cache; 0, 0: none */
	char *kernel;			 /* uname -r; owned */
	char *cache;			 /* "" when there can be none; owned */
	struct caller own;		 /* what the login gives */
};

#define CHECKUP_NONE UINT64_MAX
void msg_checkup_encode(struct buf *b, const struct msg_checkup *m);
int msg_checkup_decode(struct blob payload, struct msg_checkup *ret);
void msg_checkup_release(struct msg_checkup *m);

/*
 * LOAD: what runs on the worker's host, of all clients; told with the period of the
 * heartbeat when it has changed, never for a job.
 */
struct msg_load {
	uint32_t running, waiting; /* jobs */
	uint32_t others;	   /* that run for other clients, and such clients that wait */
	uint32_t slots;		   /* how many run at once there */
	uint32_t loadavg;	   /* of the last minute, in hundredths */
	uint32_t speed; /* of its processors, in thousandths of what HELLO says; 0: not known */
	uint64_t store_bytes, store_max; /* contents of files that it keeps; about; 0: not known */
};

#define LOAD_SPEED_MAX 1000
void msg_load_encode(struct buf *b, const struct msg_load *m);
int msg_load_decode(struct blob payload, struct msg_load *ret);

/* STORAGE: contents can't be written there any more, or can again. */
struct msg_storage {
	uint32_t error; /* errno, 0: they can */
	char *dir;	/* where; owned */
};

void msg_storage_encode(struct buf *b, const struct msg_storage *m);
int msg_storage_decode(struct blob payload, struct msg_storage *ret);
void msg_storage_release(struct msg_storage *m);

/* ---- wrapper and project server ---- */

struct msg_run {
	uint32_t version; /* PROTO_VERSION */
	uint32_t flags;	  /* enum job_flags */
	uint32_t umask;
	uint16_t rows, cols;
	uint32_t attempt;    /* 0 for the first */
	uint64_t arrived_us; /* when the wrapper began, by CLOCK_REALTIME */
	uint64_t slot_us;    /* since then, when it had its slot */
	char *worker;	     /* the pool member whose slot the wrapper holds; "": none yet, it only
			      * asks whether a result is kept */
	char *run_id;	     /* of `concc run`, "" otherwise */
	char *path; /* what execvp(3) would give to execve(2) here, relative to cwd or not */
	char *exe;  /* the same file, by an absolute path */
	char *cwd;
	char *workspace; /* where the wrapper thinks the cwd's workspace is; "" to let the server
			    say */
	struct caller caller;
	char **argv;
	char **env;
	struct blob input; /* with JOB_F_INPUT_KNOWN, else empty; owned */
};

/* Of input that is part of what a result is found by.  It is all sent before the job has read any.
 */
#define PROTO_KNOWN_INPUT_MAX (256 * 1024)

void msg_run_encode(struct buf *b, const struct msg_run *m);
int msg_run_decode(struct blob payload, struct msg_run *ret);
void msg_run_release(struct msg_run *m);

enum run_fail {
	RUN_FAIL_LOCAL = 1,  /* run it here */
	RUN_FAIL_RETRY = 2,  /* this worker can't: try another, then here */
	RUN_FAIL_SERVER = 3, /* this server ends: start another, and try again */
	RUN_FAIL_MISS = 4,   /* it was a look-up (no worker was named), and nothing is kept: take a
			      * slot, and ask again over this connection */
};

struct msg_run_fail {
	uint8_t what;
	bool quiet; /* a policy rule and no failure: nothing to say */
	char *rule; /* short name, for the counters */
	char *text; /* one line for a person */
};

void msg_run_fail_encode(struct buf *b, const struct msg_run_fail *m);
int msg_run_fail_decode(struct blob payload, struct msg_run_fail *ret);
void msg_run_fail_release(struct msg_run_fail *m);

/* RUN_HERE: a record (concc/record.h) of a command that the wrapper is about to become, or to
 * start: its end is that of the process at the other end.  No reply. */

/* RUN_EXIT: how (EXIT_CODE or EXIT_SIGNAL) and code; which worker did it (a second one may have).
 */
void msg_run_exit_encode(struct buf *b, uint8_t how, uint32_t code, const char *worker);
int msg_run_exit_decode(struct blob payload, uint8_t *ret_how, uint32_t *ret_code,
			char **ret_worker);

/* CTL: words of a command; CTL_REPLY: exit status and text to print. */
void msg_ctl_encode(struct buf *b, char *const *words);
int msg_ctl_decode(struct blob payload, char ***ret_words);
void msg_ctl_reply_encode(struct buf *b, uint32_t status, const char *text);
int msg_ctl_reply_decode(struct blob payload, uint32_t *ret_status, char **ret_text);

#endif
