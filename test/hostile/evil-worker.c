/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A worker that lies.  evil-worker SCENARIO [SEED] speaks on standard input and output:
 * greets as a worker does, unless the scenario is about that, and answers each
 * job with what the scenario says.  Then it claims that the job ended well, so
 * that whatever was let pass would be put in place.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/link.h"
#include "concc/log.h"
#include "concc/loop.h"
#include "concc/proto.h"
#include "concc/str.h"

/* Written in frames that are as they are. */
#define TRICKLE_MS 200
#define ENDLESS	   (64 * 1024)
#define ESCAPES	   "\033[2J\033]0;owned\007\r\nconcc: \xff all is well"

struct evil {
	struct loop *loop;
	struct link *link;
	const struct scenario *scenario;
	struct loop_source *timer;
	uint32_t job;
	char *workspace;
	uint32_t dir_id; /* of the workspace, when its listing came */
	uint64_t version;
	char *name; /* of a file in it */
	uint32_t n;
	uint32_t seed; /* of what is chance; never 0 */
};

struct scenario {
	const char *name;
	void (*greet)(struct evil *e); /* instead of HELLO and READY */
	void (*job)(struct evil *e);
	void (*more)(struct evil *e); /* whenever little is queued */
	void (*tick)(struct evil *e);
	bool list_first; /* the job waits for the workspace's listing */
	bool no_exit;
};

/* ---- pieces ---- */

static void send_buf(struct evil *e, uint8_t type, const struct buf *b)
{
	link_send_buf(e->link, type, LINK_BULK, b);
}

static struct msg_file file(struct evil *e, uint8_t kind, const char *path)
{
	return (struct msg_file){
		.job_id = e->job,
		.kind = kind,
		.mode = 0644,
		.path = (char *)path,
		.target = (char *)"",
	};
}

static void send_file(struct evil *e, const struct msg_file *f)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_file_encode(&b, f);
	send_buf(e, MSG_JOB_FILE, &b);
}

static void send_data(struct evil *e, uint32_t job, const char *bytes, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_bytes_encode(&b, job, bytes, n);
	send_buf(e, MSG_JOB_DATA, &b);
}

/* A file of 6 bytes with the digest of others: nobody has to believe it. */
static void whole_file(struct evil *e, const char *path)
{
	struct msg_file f = file(e, EFFECT_FILE, path);

	f.size = 6;
	send_file(e, &f);
	send_data(e, e->job, "owned\n", 6);
}

static void make(struct evil *e, uint8_t kind, const char *path, const char *target)
{
	struct msg_file f = file(e, kind, path);

	f.target = (char *)target;
	if (kind == EFFECT_DIR)
		f.mode = 0755;
	send_file(e, &f);
}

static void send_u32(struct evil *e, uint8_t type, uint32_t v)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_u32_encode(&b, v);
	send_buf(e, type, &b);
}

static void send_exit(struct evil *e, uint32_t job)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *none[] = {NULL};
	struct msg_exit m = {.job_id = job, .outside = none};

	msg_exit_encode(&b, &m);
	send_buf(e, MSG_JOB_EXIT, &b);
}

/* Not through the link, which makes whole frames; what it has queued is written when the loop
 * waits. */
static void send_raw(const uint8_t *p, size_t n)
{
	struct pollfd pfd = {.fd = STDOUT_FILENO, .events = POLLOUT};

	while (n && poll(&pfd, 1, -1) == 1) {
		ssize_t r = write(STDOUT_FILENO, p, n);

		if (r < 0 && errno != EAGAIN)
			break;
		p += r < 0 ? 0 : r;
		n -= r < 0 ? 0 : (size_t)r;
	}
}

static void send_noise(size_t n)
{
	_cleanup_free_ uint8_t *noise = xmalloc(n);
	uint32_t x = 1;

	for (size_t i = 0; i < n; i++) {
		x = x * 1664525 + 1013904223;
		noise[i] = (uint8_t)(x >> 24);
	}
	send_raw(noise, n);
}

static void hello_with(struct evil *e, uint32_t version, const char *text, uint32_t cpus)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct utsname u = {0};
	struct msg_hello m = {
		.version = version,
		.program = (char *)text,
		.host = (char *)text,
		.arch = u.machine,
		.cpus = cpus,
		.cpu_model = (char *)text,
	};

	(void)uname(&u);
	msg_hello_encode(&b, &m);
	link_send_buf(e->link, MSG_HELLO, LINK_PRIO, &b);
}

static void ready(struct evil *e)
{
	link_send(e->link, MSG_READY, LINK_PRIO, NULL, 0);
}

/* ---- greetings ---- */

static void greet_well(struct evil *e)
{
	hello_with(e, PROTO_VERSION, "evil", 1);
	ready(e);
}

/* More than a shell's start-up files print. */
static void greet_noise(struct evil *e)
{
	send_noise(128 * 1024);
	greet_well(e);
}

static void greet_other_version(struct evil *e)
{
	hello_with(e, 77, "evil", 1);
	ready(e);
}

static void greet_giant(struct evil *e)
{
	_cleanup_free_ char *text = xmalloc(100000);

	memset(text, 'A', 99999);
	text[99999] = '\0';
	hello_with(e, PROTO_VERSION, text, 1);
	ready(e);
}

static void greet_escapes(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	hello_with(e, PROTO_VERSION, ESCAPES, UINT32_MAX);
	msg_bye_encode(&b, ESCAPES);
	link_send_buf(e->link, MSG_BYE, LINK_PRIO, &b);
}

static void greet_other_escapes(struct evil *e)
{
	hello_with(e, 77, ESCAPES, 1);
}

static void greet_twice(struct evil *e)
{
	greet_well(e);
	greet_well(e);
}

static void greet_ready_first(struct evil *e)
{
	ready(e);
	hello_with(e, PROTO_VERSION, "evil", 1);
}

static void greet_job_first(struct evil *e)
{
	hello_with(e, PROTO_VERSION, "evil", 1);
	send_exit(e, 1);
	send_u32(e, MSG_ENV, 1); /* only a client sends that */
}

static void storage(struct evil *e, uint32_t error, const char *dir)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_storage_encode(&b, &(struct msg_storage){.error = error, .dir = (char *)dir});
	link_send_buf(e->link, MSG_STORAGE, LINK_PRIO, &b);
}

static void greet_storage_first(struct evil *e)
{
	hello_with(e, PROTO_VERSION, "evil", 1);
	storage(e, 0, "/var/cache/concc");
}

static void checkup(struct evil *e, uint32_t fuse_error, const char *text)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_checkup m = {
		.clock_us = UINT64_MAX / 2 + 1,
		.uid = 1000,
		.fuse_error = fuse_error,
		.max_user_namespaces = 1,
		.cache_free = 1,
		.cache_size = 2,
		.kernel = (char *)text,
		.cache = (char *)text,
	};

	msg_checkup_encode(&b, &m);
	link_send_buf(e->link, MSG_CHECKUP, LINK_PRIO, &b);
}

static void greet_checkup_unasked(struct evil *e)
{
	greet_well(e);
	checkup(e, 0, "6.0");
}

/* ---- for `concc doctor`: what it advises is typed by its user ---- */

#define COMMAND "touch /srv/outside/owned"

static void bye(struct evil *e, const char *text)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_bye_encode(&b, text);
	link_send_buf(e->link, MSG_BYE, LINK_PRIO, &b);
}

static void doctor_bye(struct evil *e)
{
	hello_with(e, PROTO_VERSION, "evil", 1);
	bye(e, "the key of host evil has CHANGED: ssh-keygen -f /k -R 'evil' && " COMMAND " #");
}

static void doctor_noise(struct evil *e)
{
	static const char text[] = "the key of host evil has CHANGED: ssh-keygen -f /k$(" COMMAND
				   ") -R 'evil' && " COMMAND "\n";

	send_raw((const uint8_t *)text, sizeof(text) - 1);
	_exit(0);
}

static void doctor_cache(struct evil *e)
{
	hello_with(e, PROTO_VERSION, "evil", 1);
	checkup(e, 0, "/tmp\"; " COMMAND "; '; " COMMAND "; \"");
	bye(e, "No space left on device");
}

static void doctor_escapes(struct evil *e)
{
	hello_with(e, PROTO_VERSION, ESCAPES, 1);
	checkup(e, 13, ESCAPES);
	bye(e, ESCAPES "/dev/fuse");
}

static void doctor_twice(struct evil *e)
{
	hello_with(e, PROTO_VERSION, "evil", 1);
	checkup(e, 0, "6.0");
	checkup(e, 0, "6.0");
	ready(e);
}

static void doctor_first(struct evil *e)
{
	checkup(e, 0, "6.0");
	hello_with(e, PROTO_VERSION, "evil", 1);
	ready(e);
}

/* ---- where no file may go ---- */

static void path_dotdot(struct evil *e)
{
	whole_file(e, "../outside/owned");
}

static void path_absolute(struct evil *e)
{
	whole_file(e, "/srv/outside/owned");
}

static void path_empty_part(struct evil *e)
{
	whole_file(e, "a//owned");
}

static void path_dot(struct evil *e)
{
	whole_file(e, "./owned");
}

static void path_nul(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_file f = file(e, EFFECT_FILE, "owned_x");

	f.size = 0;
	msg_file_encode(&b, &f);
	*(uint8_t *)memmem(b.data, b.len, "_x", 2) = '\0';
	send_buf(e, MSG_JOB_FILE, &b);
}

static void path_long(struct evil *e)
{
	_cleanup_free_ char *path = xmalloc(8001);

	for (int i = 0; i < 8000; i++)
		path[i] = i % 2 ? '/' : 'a';
	path[7999] = '\0';
	whole_file(e, path);
}

static void remove_all(struct evil *e)
{
	make(e, EFFECT_REMOVE, "", "");
}

static void replace_workspace(struct evil *e)
{
	struct msg_file f = file(e, EFFECT_DIR, "");

	f.flags = EFFECT_F_OPAQUE;
	send_file(e, &f);
}

static void other_workspace(struct evil *e)
{
	struct msg_file f = file(e, EFFECT_FILE, "owned");

	f.workspace = 7;
	send_file(e, &f);
}

static void link_outside(struct evil *e)
{
	make(e, EFFECT_LINK, "owned", "../outside/precious");
}

/* ---- through symlinks: the names are clean, and nothing may be reached by them ---- */

static void through_symlink(struct evil *e)
{
	make(e, EFFECT_SYMLINK, "way", "/srv/outside");
	whole_file(e, "way/owned");
}

static void through_committed_symlink(struct evil *e)
{
	make(e, EFFECT_SYMLINK, "way", "/srv/outside");
	send_u32(e, MSG_JOB_COMMIT, e->job);
	whole_file(e, "way/owned");
}

static void through_swapped_directory(struct evil *e)
{
	make(e, EFFECT_DIR, "way", "");
	whole_file(e, "way/first");
	send_u32(e, MSG_JOB_COMMIT, e->job);
	whole_file(e, "way/owned"); /* its bytes lie in the directory ... */
	make(e, EFFECT_REMOVE, "way", "");
	make(e, EFFECT_SYMLINK, "way", "/srv/outside");
	whole_file(e, "way/owned");
}

static void remove_through_symlink(struct evil *e)
{
	make(e, EFFECT_SYMLINK, "way", "/srv/outside");
	send_u32(e, MSG_JOB_COMMIT, e->job);
	make(e, EFFECT_REMOVE, "way/precious", "");
}

static void chmod_through_symlink(struct evil *e)
{
	struct msg_file f = file(e, EFFECT_META, "way/precious");

	make(e, EFFECT_SYMLINK, "way", "/srv/outside");
	send_u32(e, MSG_JOB_COMMIT, e->job);
	f.mode = 0777;
	send_file(e, &f);
}

static void link_through_symlink(struct evil *e)
{
	make(e, EFFECT_SYMLINK, "way", "/srv/outside");
	send_u32(e, MSG_JOB_COMMIT, e->job);
	make(e, EFFECT_LINK, "owned", "way/precious");
}

static void over_symlink(struct evil *e)
{
	struct msg_file f = file(e, EFFECT_META, "way");

	make(e, EFFECT_SYMLINK, "way", "/srv/outside/precious");
	send_u32(e, MSG_JOB_COMMIT, e->job);
	f.mode = 0777;
	f.flags = EFFECT_F_TOUCHED | EFFECT_F_MTIME;
	send_file(e, &f);
	send_u32(e, MSG_JOB_COMMIT, e->job);
	whole_file(e, "way"); /* takes the symlink's place */
}

static void set_user_id(struct evil *e)
{
	struct msg_file f = file(e, EFFECT_FILE, "owned");

	f.mode = 04755;
	f.size = 6;
	send_file(e, &f);
	send_data(e, e->job, "owned\n", 6);
}

static void set_user_id_later(struct evil *e)
{
	struct msg_file f = file(e, EFFECT_META, "a.c");

	f.mode = 06755;
	send_file(e, &f);
}

static void our_temporary(struct evil *e)
{
	whole_file(e, ".concc-tmp-1.1");
}

/* Its name is in what is said of it. */
static void temporary_escapes(struct evil *e)
{
	whole_file(e, ".concc-tmp-" ESCAPES);
}

static void git_hooks(struct evil *e)
{
	make(e, EFFECT_DIR, ".git", "");
	make(e, EFFECT_DIR, ".git/hooks", "");
	whole_file(e, ".git/hooks/owned");
}

static void locked_fifo(struct evil *e)
{
	struct msg_file f = file(e, EFFECT_FILE, "fifo");

	f.flags = EFFECT_F_FIFO;
	send_file(e, &f);
	send_u32(e, MSG_JOB_COMMIT, e->job);
	make(e, EFFECT_LOCKED, "fifo", "");
}

static void exit_that_used(struct evil *e, uint64_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *none[] = {NULL};
	struct msg_exit m = {
		.job_id = e->job,
		.outside = none,
		.utime_us = n,
		.stime_us = n,
		.wall_us = n,
		.maxrss_kb = n,
	};

	whole_file(e, "a.o");
	msg_exit_encode(&b, &m);
	send_buf(e, MSG_JOB_EXIT, &b);
}

static void exit_endless(struct evil *e)
{
	exit_that_used(e, UINT64_MAX);
}

static void exit_long(struct evil *e)
{
	exit_that_used(e, PROTO_USED_MAX);
}

static void exit_escapes(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *none[] = {NULL};
	struct msg_exit m = {.job_id = e->job, .how = EXIT_FAILED, .outside = none};

	m.text = (char *)ESCAPES;
	msg_exit_encode(&b, &m);
	send_buf(e, MSG_JOB_EXIT, &b);
}

static void exit_outside(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *outside[] = {(char *)"/srv/" ESCAPES, NULL};
	struct msg_exit m = {.job_id = e->job, .outside = outside};

	msg_exit_encode(&b, &m);
	send_buf(e, MSG_JOB_EXIT, &b);
}

/* ---- of its load, by which jobs are placed ---- */

static void load(struct evil *e, uint32_t n, uint32_t speed)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_load m = {
		.running = n,
		.waiting = n,
		.others = n,
		.slots = n,
		.loadavg = n,
		.speed = speed,
		.store_bytes = (uint64_t)n << 32 | n,
		.store_max = n,
	};

	msg_load_encode(&b, &m);
	link_send_buf(e->link, MSG_LOAD, LINK_PRIO, &b);
}

static void load_false(struct evil *e)
{
	load(e, UINT32_MAX, 1);
	load(e, 0, 0);
	load(e, UINT32_MAX, LOAD_SPEED_MAX);
}

static void load_odd(struct evil *e)
{
	load(e, 1, LOAD_SPEED_MAX + 1);
}

/* Each is news. */
static void load_flood(struct evil *e)
{
	for (uint32_t i = 0; i < 70000; i++)
		load(e, i % 2 ? UINT32_MAX : 0, i % LOAD_SPEED_MAX + 1);
}

/* ---- sizes and order ---- */

static void oversize(struct evil *e)
{
	struct msg_file f = file(e, EFFECT_FILE, "owned");

	f.size = UINT64_MAX;
	send_file(e, &f);
}

static void too_few_bytes(struct evil *e)
{
	struct msg_file f = file(e, EFFECT_FILE, "owned");

	f.size = 1ull << 50;
	send_file(e, &f);
	send_data(e, e->job, "owned\n", 6);
}

static void too_many_bytes(struct evil *e)
{
	whole_file(e, "owned");
	send_data(e, e->job, "more", 4);
}

static void data_first(struct evil *e)
{
	send_data(e, e->job, "owned\n", 6);
}

static void file_in_file(struct evil *e)
{
	struct msg_file f = file(e, EFFECT_FILE, "owned");

	f.size = 100;
	send_file(e, &f);
	whole_file(e, "owned2");
}

static void unknown_job(struct evil *e)
{
	send_data(e, e->job + 1000, "owned\n", 6);
}

static void exit_unknown_job(struct evil *e)
{
	send_exit(e, e->job + 1000);
}

static void job_zero(struct evil *e)
{
	send_exit(e, 0);
}

/* A wrapper that raised it would stand still, with its build. */
static void exit_stopped(struct evil *e)
{
	static char *none[] = {NULL};
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_exit m = {
		.job_id = e->job, .how = EXIT_SIGNAL, .code = SIGSTOP, .outside = none};

	msg_exit_encode(&b, &m);
	send_buf(e, MSG_JOB_EXIT, &b);
}

static void exit_odd(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *none[] = {NULL};
	struct msg_exit m = {.job_id = e->job, .code = 100000, .outside = none};

	msg_exit_encode(&b, &m);
	send_buf(e, MSG_JOB_EXIT, &b);
}

static void unknown_message(struct evil *e)
{
	send_u32(e, 200, 1);
}

static void many_names(struct evil *e)
{
	_cleanup_free_ char *path = xmalloc(4001), *target = xmalloc(4001);

	for (int i = 0; i < 4000; i++)
		path[i] = i % 2 ? '/' : 'a';
	path[3999] = '\0';
	memset(target, 't', 4000);
	target[4000] = '\0';
	for (int i = 0; i < 32 && e->n < 20000; i++, e->n++)
		make(e, EFFECT_SYMLINK, path, target);
	if (e->n == 20000) {
		send_exit(e, e->job);
		e->n++;
	}
}

/* ---- output ---- */

static void send_output(struct evil *e, const char *bytes, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_output_encode(&b, e->job, 1, bytes, n);
	send_buf(e, MSG_JOB_OUTPUT, &b);
}

static void output_over_window(struct evil *e)
{
	_cleanup_free_ char *bytes = xcalloc(1, 2 * PROTO_OUTPUT_WINDOW);

	send_output(e, bytes, 2 * PROTO_OUTPUT_WINDOW);
}

static void output_stream_9(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_output_encode(&b, e->job, 9, "x", 1);
	send_buf(e, MSG_JOB_OUTPUT, &b);
}

static void input_credit(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_pair_encode(&b, e->job, UINT32_MAX);
	send_buf(e, MSG_INPUT_CREDIT, &b);
}

/* ---- requests ---- */

static void send_list(struct evil *e, const char *path)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_list_encode(&b, path);
	link_send_buf(e->link, MSG_LIST, LINK_PRIO, &b);
}

static void list_dotdot(struct evil *e)
{
	_cleanup_free_ char *path = xasprintf("%s/../outside", e->workspace);

	send_list(e, path);
}

static void list_relative(struct evil *e)
{
	send_list(e, "outside");
}

/* Clean, and nothing that is served. */
static void list_outside(struct evil *e)
{
	send_list(e, "/srv/outside");
	send_list(e, "/");
}

static void list_long(struct evil *e)
{
	_cleanup_free_ char *path = xmalloc(4001);

	(void)snprintf(path, 4001, "%s/" ESCAPES, e->workspace);
	for (size_t i = strlen(path); i < 4000; i++)
		path[i] = 'l';
	path[4000] = '\0';
	for (int i = 0; i < 100; i++)
		send_list(e, path);
}

static void list_flood(struct evil *e)
{
	for (int i = 0; i < 70000; i++)
		send_list(e, e->workspace);
}

static void storage_escapes(struct evil *e)
{
	storage(e, 28, ESCAPES);
	storage(e, 0, ESCAPES);
}

static void storage_odd(struct evil *e)
{
	storage(e, UINT32_MAX, "/var/cache/concc");
}

static void storage_flood(struct evil *e)
{
	for (int i = 0; i < 70000; i++)
		storage(e, i % 2 ? 28 : 0, "/var/cache/concc");
}

static void send_fetch(struct evil *e, uint32_t id, const char *name)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_fetch f = {
		.fetch_id = id,
		.dir_id = e->dir_id,
		.version = e->version,
		.name = (char *)name,
	};

	msg_fetch_encode(&b, &f);
	link_send_buf(e->link, MSG_FETCH, LINK_PRIO, &b);
}

static void fetch_dotdot(struct evil *e)
{
	send_fetch(e, 1, "..");
}

static void fetch_slash(struct evil *e)
{
	send_fetch(e, 1, "../outside/precious");
}

static void fetch_twice(struct evil *e)
{
	send_fetch(e, 1, e->name);
	send_fetch(e, 1, e->name);
}

/* Far more than are served at once; the big file is among them. */
static void fetch_flood(struct evil *e)
{
	for (uint32_t i = 1; i <= 70000; i++)
		send_fetch(e, i, e->name);
}

static void send_missing(struct evil *e, const char *path, int n)
{
	_cleanup_strv_ char **paths = xcalloc(1, sizeof(*paths));
	_cleanup_buf_ struct buf b = BUF_INIT;

	while (n--)
		strv_push(&paths, xstrdup(path));
	msg_missing_encode(&b, e->job, MISSING_LOOKED_UP, paths);
	send_buf(e, MSG_JOB_MISSING, &b);
}

/* The same directory of 1000 names, 1000 times. */
static void missing_lists(struct evil *e)
{
	char *many = (char *)"/srv/outside/many";
	char *const paths[] = {many, many, many, many, many, many, many, many, NULL};

	for (int i = 0; i < 125; i++) {
		_cleanup_buf_ struct buf b = BUF_INIT;

		msg_missing_encode(&b, e->job, MISSING_LISTED, paths);
		send_buf(e, MSG_JOB_MISSING, &b);
	}
}

static void missing_escapes(struct evil *e)
{
	char *const paths[] = {(char *)"/srv/outside/" ESCAPES, NULL};
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_missing_encode(&b, e->job, MISSING_CHANGED, paths);
	send_buf(e, MSG_JOB_MISSING, &b);
}

static void missing_huge(struct evil *e)
{
	_cleanup_free_ char *path = xmalloc(500001);

	memset(path, '/', 500000);
	path[500000] = '\0';
	send_missing(e, path, 8);
}

/* As if the job had been about to write there, which makes it run at home and nothing else. */
static void send_trace(struct evil *e, const char *names, size_t n)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_trace_encode(&b, e->job, "", (struct blob){(const uint8_t *)names, n});
	send_buf(e, MSG_JOB_TRACE, &b);
}

static void trace_relative(struct evil *e)
{
	send_trace(e, "retc/passwd", sizeof("retc/passwd"));
}

static void trace_without_end(struct evil *e)
{
	send_trace(e, "r/etc/passwd", sizeof("r/etc/passwd") - 1);
}

/* Nothing else is there to be read: it has no end, whatever is said of its size. */
static void trace_endless(struct evil *e)
{
	static const char names[] = "r/usr/../proc/self/pagemap";

	send_trace(e, names, sizeof(names));
}

/* Where the kernel mounts what is looked for; see hostile-worker.sh. */
static void trace_automount(struct evil *e)
{
	static const char names[] = "s/media/box/x";

	send_trace(e, names, sizeof(names));
}

static void trace_automount_behind(struct evil *e)
{
	static const char names[] = "s/usr/../media//other/x";

	send_trace(e, names, sizeof(names));
}

/* A symlink that is there leads to it. */
static void trace_automount_link(struct evil *e)
{
	_cleanup_free_ char *name = xasprintf("r%s/to-media/box/x", e->workspace);

	send_trace(e, name, strlen(name) + 1);
}

/* What is in it is nobody's business: a key that goes by it tells who can guess. */
static void trace_closed_file(struct evil *e)
{
	static const char names[] = "r/srv/outside/precious";

	send_trace(e, names, sizeof(names));
}

static void trace_closed_link(struct evil *e)
{
	_cleanup_free_ char *name = xasprintf("r%s/to-precious", e->workspace);

	send_trace(e, name, strlen(name) + 1);
}

static void trace_closed_dir(struct evil *e)
{
	static const char names[] = "d/srv/outside/closed";

	send_trace(e, names, sizeof(names));
}

/* One directory by many names, each of which is listed. */
static void trace_lists(struct evil *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	for (unsigned i = 0; i < 15000; i++) {
		_cleanup_free_ char *name = xasprintf("d/usr/bin%*s", (int)(i % 120) + 1, "");

		for (char *p = name; *p; p++)
			*p = *p == ' ' ? '/' : *p;
		buf_append(&b, name, strlen(name));
		buf_putf(&b, "%.*s", (int)(2 * (i / 120)),
			 "././././././././././././././././././././././././././././././././././././"
			 "././././././././././././././././././././././././././././././././././././"
			 "././././././././././././././././././././././././././././././././././././"
			 "././././././././././././././././././././././");
		buf_put_u8(&b, '\0');
	}
	send_trace(e, (const char *)b.data, b.len);
}

static void missing_changed(struct evil *e)
{
	char *const paths[] = {(char *)"/srv/outside/precious", (char *)"/srv/outside/owned", NULL};
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_missing_encode(&b, e->job, MISSING_CHANGED, paths);
	send_buf(e, MSG_JOB_MISSING, &b);
}

static void missing_how(struct evil *e)
{
	char *const paths[] = {(char *)"/srv/x", NULL};
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_missing_encode(&b, e->job, MISSING_LISTED + 1, paths);
	send_buf(e, MSG_JOB_MISSING, &b);
}

static void missing_many(struct evil *e)
{
	send_missing(e, "/srv/x", 9);
}

static void missing_relative(struct evil *e)
{
	send_missing(e, "../../x", 1);
}

/* ---- endless ---- */

static void half_frame(struct evil *e)
{
	static const uint8_t header[] = {0xff, 0xff, 0, 0, MSG_JOB_OUTPUT, 0, 0, 0};

	send_raw(header, sizeof(header));
}

static void trickle(struct evil *e)
{
	send_raw((const uint8_t *)"", 1);
}

static void noise_frames(struct evil *e)
{
	send_noise(128 * 1024);
}

/* Right, and without end. */
static void pings(struct evil *e)
{
	static const char token[8];

	for (int i = 0; i < 1000; i++)
		link_send(e->link, MSG_PING, LINK_BULK, token, sizeof(token));
}

static void killed_job_goes_on(struct evil *e)
{
	/* It has that, so the job is of no use and is to be killed. */
	send_missing(e, "/srv/outside/precious", 1);
}

static void endless_data(struct evil *e)
{
	static char bytes[ENDLESS];

	send_data(e, e->job, bytes, sizeof(bytes) - 64);
}

/* ---- any order ---- */

/*
 * Messages that are well-formed each, and that an honest worker sends at some time, in an order and
 * about things that are chance: names of its own only, so the job's source stays.
 */
static uint32_t chance(struct evil *e, uint32_t below)
{
	e->seed ^= e->seed << 13;
	e->seed ^= e->seed >> 17;
	e->seed ^= e->seed << 5;
	return e->seed % below;
}

static const char *any_name(struct evil *e)
{
	static const char *const names[] = {"r", "r/r", "r/s", "s", "s/r", "s/r/t", "t"};

	return names[chance(e, sizeof(names) / sizeof(names[0]))];
}

static void any_file(struct evil *e)
{
	static const uint8_t flags[] = {0, 0, EFFECT_F_MTIME, EFFECT_F_REPLACED,
					EFFECT_F_NO_DIGEST};
	/* What the job is to make is made as a file only: in a directory the same command here
	 * would make another. */
	struct msg_file f = file(e, EFFECT_FILE, chance(e, 4) ? any_name(e) : "a.o");

	f.flags = flags[chance(e, sizeof(flags))];
	f.size = chance(e, 3) ? 6 : 0;
	send_file(e, &f);
	if (f.size && chance(e, 8))
		send_data(e, e->job, "owned\n", 6);
}

static void any_effect(struct evil *e)
{
	static const char *const targets[] = {"/srv/outside", "../../outside", "r", "s/r", "."};
	struct msg_file f = file(e, EFFECT_DIR, any_name(e));

	switch (chance(e, 5)) {
	case 0:
		f.mode = 0755;
		f.flags = chance(e, 3) ? 0 : EFFECT_F_OPAQUE;
		send_file(e, &f);
		break;
	case 1:
		make(e, EFFECT_REMOVE, any_name(e), "");
		break;
	case 2:
		make(e, EFFECT_SYMLINK, any_name(e), targets[chance(e, 5)]);
		break;
	case 3:
		make(e, EFFECT_LINK, any_name(e), any_name(e));
		break;
	case 4:
		f.kind = EFFECT_META;
		f.flags = chance(e, 2) ? EFFECT_F_TOUCHED : 0;
		send_file(e, &f);
		break;
	}
}

/* That it has read what nobody has told it of. */
static void send_guessed(struct evil *e)
{
	char *names[] = {(char *)any_name(e), (char *)"main.c", NULL};
	_cleanup_buf_ struct buf b = BUF_INIT;

	msg_prefetch_encode(&b, chance(e, 4), names);
	send_buf(e, MSG_GUESSED, &b);
}

static void any_question(struct evil *e)
{
	_cleanup_free_ char *below = xasprintf("%s/%s", e->workspace, any_name(e));

	switch (chance(e, 6)) {
	case 5:
		send_guessed(e);
		break;
	case 0:
		send_list(e, e->workspace);
		break;
	case 1:
		send_list(e, below);
		break;
	case 2:
		send_fetch(e, chance(e, 3), any_name(e));
		break;
	case 3:
		send_missing(e, "/srv/nothing/here", 1);
		break;
	case 4:
		send_output(e, "said\n", 5);
		break;
	}
}

static void any_order(struct evil *e)
{
	for (uint32_t n = chance(e, 40); n > 0; n--) {
		switch (chance(e, 12)) {
		case 0:
			send_u32(e, MSG_JOB_COMMIT, e->job);
			break;
		case 1:
			send_exit(e, chance(e, 4) ? e->job : e->job + 1);
			break;
		case 2:
		case 3:
			any_question(e);
			break;
		case 4:
		case 5:
		case 6:
		case 7:
			any_effect(e);
			break;
		default:
			any_file(e);
			break;
		}
	}
}

/* ---- the table ---- */

static const struct scenario scenarios[] = {
	{.name = "honest-but-wrong", .job = NULL},
	{.name = "noise-first", .greet = greet_noise},
	{.name = "other-version", .greet = greet_other_version},
	{.name = "giant-hello", .greet = greet_giant},
	{.name = "escapes", .greet = greet_escapes},
	{.name = "other-escapes", .greet = greet_other_escapes},
	{.name = "hello-twice", .greet = greet_twice},
	{.name = "ready-first", .greet = greet_ready_first},
	{.name = "job-before-ready", .greet = greet_job_first},
	{.name = "storage-first", .greet = greet_storage_first},
	{.name = "checkup-unasked", .greet = greet_checkup_unasked},
	{.name = "doctor-bye", .greet = doctor_bye},
	{.name = "doctor-noise", .greet = doctor_noise},
	{.name = "doctor-cache", .greet = doctor_cache},
	{.name = "doctor-escapes", .greet = doctor_escapes},
	{.name = "doctor-twice", .greet = doctor_twice},
	{.name = "doctor-first", .greet = doctor_first},
	{.name = "path-dotdot", .job = path_dotdot},
	{.name = "path-absolute", .job = path_absolute},
	{.name = "path-empty-part", .job = path_empty_part},
	{.name = "path-dot", .job = path_dot},
	{.name = "path-nul", .job = path_nul},
	{.name = "path-long", .job = path_long},
	{.name = "remove-all", .job = remove_all},
	{.name = "replace-workspace", .job = replace_workspace},
	{.name = "other-workspace", .job = other_workspace},
	{.name = "link-outside", .job = link_outside},
	{.name = "through-symlink", .job = through_symlink},
	{.name = "through-committed-symlink", .job = through_committed_symlink},
	{.name = "through-swapped-directory", .job = through_swapped_directory},
	{.name = "remove-through-symlink", .job = remove_through_symlink},
	{.name = "chmod-through-symlink", .job = chmod_through_symlink},
	{.name = "link-through-symlink", .job = link_through_symlink},
	{.name = "over-symlink", .job = over_symlink},
	{.name = "set-user-id", .job = set_user_id},
	{.name = "set-user-id-later", .job = set_user_id_later},
	{.name = "our-temporary", .job = our_temporary},
	{.name = "our-temporary-escapes", .job = temporary_escapes},
	{.name = "git-hooks", .job = git_hooks},
	{.name = "locked-fifo", .job = locked_fifo},
	{.name = "oversize", .job = oversize},
	{.name = "too-few-bytes", .job = too_few_bytes},
	{.name = "too-many-bytes", .job = too_many_bytes},
	{.name = "data-first", .job = data_first},
	{.name = "file-in-file", .job = file_in_file},
	{.name = "unknown-job", .job = unknown_job},
	{.name = "exit-unknown-job", .job = exit_unknown_job},
	{.name = "job-zero", .job = job_zero},
	{.name = "exit-odd", .job = exit_odd},
	{.name = "exit-stopped", .job = exit_stopped},
	{.name = "exit-endless", .job = exit_endless, .no_exit = true},
	{.name = "exit-long", .job = exit_long, .no_exit = true},
	{.name = "exit-escapes", .job = exit_escapes, .no_exit = true},
	{.name = "exit-outside", .job = exit_outside, .no_exit = true},
	{.name = "load-false", .job = load_false},
	{.name = "load-odd", .job = load_odd},
	{.name = "load-flood", .job = load_flood},
	{.name = "missing-escapes", .job = missing_escapes},
	{.name = "unknown-message", .job = unknown_message},
	{.name = "many-names", .job = many_names, .more = many_names, .no_exit = true},
	{.name = "output-over-window", .job = output_over_window},
	{.name = "output-stream-9", .job = output_stream_9},
	{.name = "input-credit", .job = input_credit},
	{.name = "list-dotdot", .job = list_dotdot},
	{.name = "list-relative", .job = list_relative},
	{.name = "list-outside", .job = list_outside},
	{.name = "list-long", .job = list_long},
	{.name = "list-flood", .job = list_flood},
	{.name = "storage-escapes", .job = storage_escapes},
	{.name = "storage-odd", .job = storage_odd},
	{.name = "storage-flood", .job = storage_flood},
	{.name = "fetch-dotdot", .job = fetch_dotdot, .list_first = true},
	{.name = "fetch-slash", .job = fetch_slash, .list_first = true},
	{.name = "fetch-twice", .job = fetch_twice, .list_first = true},
	{.name = "fetch-flood", .job = fetch_flood, .list_first = true},
	{.name = "missing-huge", .job = missing_huge},
	{.name = "trace-relative", .job = trace_relative},
	{.name = "trace-without-end", .job = trace_without_end},
	{.name = "trace-endless", .job = trace_endless},
	{.name = "trace-automount", .job = trace_automount},
	{.name = "trace-automount-behind", .job = trace_automount_behind},
	{.name = "trace-automount-link", .job = trace_automount_link},
	{.name = "trace-closed-file", .job = trace_closed_file},
	{.name = "trace-closed-link", .job = trace_closed_link},
	{.name = "trace-closed-dir", .job = trace_closed_dir},
	{.name = "trace-lists", .job = trace_lists},
	{.name = "missing-many", .job = missing_many},
	{.name = "missing-changed", .job = missing_changed},
	{.name = "missing-lists", .job = missing_lists},
	{.name = "missing-how", .job = missing_how},
	{.name = "missing-relative", .job = missing_relative},
	{.name = "noise-frames", .job = noise_frames},
	{.name = "pings", .job = pings, .more = pings},
	{.name = "half-frame", .job = half_frame, .tick = trickle, .no_exit = true},
	{.name = "any-order", .job = any_order},
	{.name = "never-ends", .job = NULL, .no_exit = true},
	{.name = "killed-job-goes-on",
	 .job = killed_job_goes_on,
	 .more = endless_data,
	 .no_exit = true},
};

/* ---- the worker ---- */

static void lie(struct evil *e)
{
	if (e->scenario->job)
		e->scenario->job(e);
	if (!e->scenario->no_exit)
		send_exit(e, e->job);
}

static int on_job(struct evil *e, struct blob payload)
{
	struct msg_job m;

	if (msg_job_decode(payload, &m) < 0)
		return CONCC_E_PROTO;
	e->job = m.job_id;
	free(e->workspace);
	e->workspace = xstrdup(m.workspaces[0]);
	msg_job_release(&m);
	if (e->scenario->list_first)
		send_list(e, e->workspace);
	else
		lie(e);
	return 0;
}

static int on_dir(struct evil *e, struct blob payload)
{
	struct msg_dir m;

	if (msg_dir_decode(payload, &m) < 0)
		return CONCC_E_PROTO;
	for (uint32_t i = 0; e->scenario->list_first && !e->name && i < m.n; i++) {
		struct dir_entry d;

		dir_entry_decode(&m.entries, &d);
		if (d.attr.type != ENTRY_FILE || d.attr.size < 1000000)
			continue;
		e->dir_id = m.dir_id;
		e->version = d.attr.version;
		e->name = xstrndup((const char *)d.name.p, d.name.n);
	}
	msg_dir_release(&m);
	if (e->name)
		lie(e);
	return 0;
}

static int on_message(void *data, uint8_t type, struct blob payload)
{
	struct evil *e = data;

	switch (type) {
	case MSG_JOB:
		return on_job(e, payload);
	case MSG_DIR:
		return on_dir(e, payload);
	}
	return 0; /* a JOB_KILL too */
}

static void on_closed(void *data, int err, const char *text)
{
	loop_quit(((struct evil *)data)->loop);
}

static void on_drained(void *data)
{
	struct evil *e = data;

	if (e->job && e->scenario->more)
		e->scenario->more(e);
}

static void on_tick(void *data)
{
	struct evil *e = data;

	if (e->job)
		e->scenario->tick(e);
	loop_timer_set(e->timer, TRICKLE_MS);
}

static const struct scenario *find(const char *name)
{
	for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
		if (streq(scenarios[i].name, name))
			return &scenarios[i];
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static const struct link_ops ops = {
		.message = on_message,
		.closed = on_closed,
		.drained = on_drained,
	};
	static const struct link_config conf = {.end = LINK_WORKER};
	struct evil e = {.scenario = argc > 1 ? find(argv[1]) : NULL};

	e.seed = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) * 2654435761u | 1 : 1;
	if (argc == 2 && streq(argv[1], "list")) {
		for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++)
			puts(scenarios[i].name);
		return 0;
	}
	log_init("evil-worker", LOG_LEVEL_ERR);
	if (!e.scenario || loop_new(&e.loop) < 0)
		return 2;
	e.link = link_new(e.loop, stream_from_fds(0, 1), &conf, &ops, &e);
	if (e.scenario->greet)
		e.scenario->greet(&e);
	else
		greet_well(&e);
	if (e.scenario->tick)
		e.timer = loop_add_timer(e.loop, TRICKLE_MS, on_tick, &e);
	(void)loop_run(e.loop);
	link_free(e.link);
	free(e.workspace);
	free(e.name);
	loop_free(e.loop);
	return 0;
}
