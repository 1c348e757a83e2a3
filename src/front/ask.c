/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/front.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/pool.h"
#include "concc/process.h"
#include "concc/proto.h"
#include "concc/str.h"
#include "concc/wrapper.h"

#define ANSWER_S 10  /* it answers at once; one that somebody has stopped never does */
#define END_S	 600 /* once it has begun to end: a job's many files are put in place before */

/* "settled" is answered when workers are up, which has an end of its own. */
static void limit_answer(int fd, const char *word)
{
	struct timeval limit = {.tv_sec = streq(word, "settled") ? 0 : ANSWER_S};

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

int front_ask(const char *dir, const char *word, const char *arg, char **ret_text)
{
	char *words[] = {(char *)word, (char *)arg, NULL};
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct conn c = {.fd = -1};
	char *text = NULL;
	uint32_t status;
	uint8_t type;
	int r;

	r = server_connect(dir, &c);
	if (r < 0)
		return r;
	limit_answer(c.fd, word);
	msg_ctl_encode(&b, words);
	r = conn_send(&c, MSG_CTL, &b);
	if (r == 0)
		r = conn_recv(&c, &type, &b);
	if (r == 0)
		r = type == MSG_CTL_REPLY
			    ? msg_ctl_reply_decode((struct blob){b.data, b.len}, &status, &text)
			    : CONCC_E_PROTO;
	conn_release(&c);
	if (r < 0)
		return r;
	str_defuse_lines(text); /* what is JSON is ASCII */
	if (ret_text)
		*ret_text = text;
	else
		free(text);
	return 0;
}

static int fail(const char *text)
{
	err_say("%s", text);
	return WRAPPER_EXIT_SERVER;
}

/* Builds that it holds up go on with another. */
static int no_answer(const char *dir)
{
	_cleanup_free_ char *text = NULL;
	struct conn c = {.fd = -1};
	struct ucred server;
	socklen_t n = sizeof(server);

	if (server_connect(dir, &c) < 0 ||
	    getsockopt(c.fd, SOL_SOCKET, SO_PEERCRED, &server, &n) < 0)
		text = xstrdup("the project server does not answer");
	else
		text = xasprintf("the project server does not answer; `kill -9 %d` ends it, and "
				 "builds start another",
				 (int)server.pid);
	conn_release(&c);
	return fail(text);
}

static bool has_prefix(const struct counter *e, const char *prefix)
{
	return str_starts(e->name, prefix) && e->n;
}

/* Which rules kept jobs here, since the runtime directory was made. */
static void print_counters(const char *dir)
{
	static const struct {
		const char *prefix, *title;
	} kinds[] = {
		{"local:", "ran here, by rule"},
		{"fallback:", "ran here after a failure"},
		{"retry:", "tried again"},
	};
	_cleanup_free_ char *path = path_join(dir, "tally");
	struct counter e[COUNTERS_MAX];
	size_t n = counters_read(path, e, COUNTERS_MAX);

	for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
		bool titled = false;

		for (size_t i = 0; i < n; i++) {
			if (!has_prefix(&e[i], kinds[k].prefix))
				continue;
			if (!titled)
				printf("%s:\n", kinds[k].title);
			titled = true;
			printf("  %-16s %llu\n", e[i].name + strlen(kinds[k].prefix),
			       (unsigned long long)e[i].n);
		}
	}
}

#define SAID_LINES    10	    /* enough to see what goes wrong */
#define SAID_READ_MAX (1024 * 1024) /* far more than wrappers keep there */

/* The last lines that wrappers could not say to anybody. */
static void print_notes(const char *dir)
{
	_cleanup_free_ char *path = wrapper_notes_path(dir);
	_cleanup_buf_ struct buf b = BUF_INIT;
	const char *text, *from;
	unsigned lines = 0;

	if (read_file_at(AT_FDCWD, path, SAID_READ_MAX, &b) < 0 || !b.len)
		return;
	text = buf_cstr(&b);
	for (from = text + b.len - 1; from > text; from--) {
		if (from[-1] == '\n' && ++lines == SAID_LINES)
			break;
	}
	printf("said where others keep what they read:\n");
	fputs(from, stdout); /* of words_say() */
}

/* ---- all servers ---- */

static bool ask_status(const char *dir, bool json, char **ret_text)
{
	_cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd >= 0 && server_is_there(fd) &&
	       front_ask(dir, "status", json ? "json" : NULL, ret_text) == 0;
}

static void print_others(const char *mine)
{
	_cleanup_strv_ char **dirs = server_other_dirs(mine);

	for (char **d = dirs; d && *d; d++) {
		_cleanup_free_ char *text = NULL;

		if (ask_status(*d, false, &text))
			printf("\nA build with workers of its own, in %s:\n%s", *d, text);
	}
}

static void print_json(const char *mine, const char *text)
{
	_cleanup_strv_ char **dirs = server_other_dirs(mine);
	json_t *all = json_loads(text, 0, NULL), *others = json_array();
	char *out;

	for (char **d = dirs; d && *d; d++) {
		_cleanup_free_ char *other = NULL;

		if (ask_status(*d, true, &other))
			json_array_append_new(others, json_loads(other, 0, NULL));
	}
	json_object_set_new(all, "others", others);
	out = json_dumps(all, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII);
	puts(out ? out : text);
	free(out);
	json_decref(all);
}

/* ---- what `concc doctor` would say, in one line ---- */

#define BRIEF_MS  5000 /* no connection is made for it */
#define BRIEF_MAX 4096

/* Of the workers of a server that runs. */
static void verdict_of_server(const char *text)
{
	json_t *o = json_loads(text, 0, NULL), *w;
	const char *why = NULL;
	size_t i, n = 0, good = 0, here = 0;

	json_array_foreach(json_object_get(o, "workers"), i, w)
	{
		const char *state = json_string_value(json_object_get(w, "state")) ?: "";

		n++;
		good += streq(state, "up") || streq(state, "asleep");
		here += streq(json_string_value(json_object_get(w, "how")) ?: "", "local");
		if (!why && (streq(state, "down") || streq(state, "unable")))
			why = json_string_value(json_object_get(w, "error"));
	}
	if (n && here == n)
		printf("builds run on this machine only: `concc doctor` says how to name others\n");
	else if (good)
		printf("builds are distributed: %zu of %zu worker%s can be used\n", good, n,
		       str_plural(n));
	else
		printf("builds are not distributed: %s; `concc doctor` says what to do\n",
		       why ? why : "no worker is up yet");
	json_decref(o);
}

/* Without one, of what can be told without connecting. */
static void verdict_without_server(void)
{
	_cleanup_free_ char *program = program_path("concc-project");
	char *argv[] = {program, (char *)"--doctor=brief", NULL};
	_cleanup_buf_ struct buf out = BUF_INIT;
	int status;

	if (process_ask(argv, NULL, BRIEF_MAX, now_ms() + BRIEF_MS, &out, &status) == 0)
		fputs(buf_cstr(&out), stdout);
}

static void print_verdict(const char *dir, const char *running)
{
	_cleanup_free_ char *text = NULL;

	if (!running)
		verdict_without_server();
	else if (front_ask(dir, "status", "json", &text) == 0)
		verdict_of_server(text);
}

int front_status(bool json)
{
	_cleanup_free_ char *dir = NULL, *text = NULL;
	_cleanup_close_ int dir_fd = -1;
	struct errmsg msg = {0};

	if (runtime_dir_open(&dir, &dir_fd, &msg) < 0)
		return fail(msg.text);
	if (!server_is_there(dir_fd)) {
		if (json)
			print_json(dir, "{\"workers\": [], \"running\": 0}");
		else
			puts("No project server is running; the first concc-cc starts it.");
	} else {
		int r = front_ask(dir, "status", json ? "json" : NULL, &text);

		if (r < 0)
			return no_answer(dir);
		if (json)
			print_json(dir, text);
		else
			fputs(text, stdout);
	}
	if (json)
		return 0;
	print_verdict(dir, text);
	print_counters(dir);
	print_notes(dir);
	print_others(dir);
	return 0;
}

int front_reset(void)
{
	_cleanup_free_ char *dir = NULL, *counters = NULL, *notes = NULL;
	_cleanup_close_ int dir_fd = -1;
	struct errmsg msg = {0};

	if (runtime_dir_open(&dir, &dir_fd, &msg) < 0)
		return fail(msg.text);
	counters = path_join(dir, "tally");
	notes = wrapper_notes_path(dir);
	(void)unlink(counters); /* who has it open counts on, for nobody */
	(void)unlink(notes);
	if (server_is_there(dir_fd) && front_ask(dir, "reset", NULL, NULL) < 0)
		return no_answer(dir);
	return 0;
}

/* It does not answer, but ends the connection when all is down.  That may take long on a busy
 * machine; that it has begun is seen at its locks. */
static int ask_to_stop(const char *dir, int dir_fd)
{
	char *words[] = {(char *)"stop", NULL};
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct conn c = {.fd = -1};
	uint8_t type;
	int r, n = 0;

	r = server_connect(dir, &c);
	if (r < 0)
		return r;
	limit_answer(c.fd, words[0]);
	msg_ctl_encode(&b, words);
	r = conn_send(&c, MSG_CTL, &b);
	while (r == 0 && (r = conn_recv(&c, &type, &b)) == -EAGAIN && !server_is_there(dir_fd) &&
	       ++n < END_S / ANSWER_S)
		r = 0;
	conn_release(&c);
	return r;
}

int front_stop(void)
{
	_cleanup_free_ char *dir = NULL;
	_cleanup_close_ int dir_fd = -1;
	struct errmsg msg = {0};
	int r;

	if (runtime_dir_open(&dir, &dir_fd, &msg) < 0)
		return fail(msg.text);
	if (!server_is_there(dir_fd)) {
		fprintf(stderr, "concc: no project server is running\n");
		return 0;
	}
	r = ask_to_stop(dir, dir_fd);
	return r == CONCC_E_CLOSED || r == 0 ? 0 : no_answer(dir);
}

/* "--workers=a,b" on the heap. */
static char *workers_option(char *const *names)
{
	_cleanup_buf_ struct buf list = BUF_INIT;

	buf_putf(&list, "--workers=");
	for (; *names; names++)
		buf_putf(&list, "%s%s", *names, names[1] ? "," : "");
	return xstrdup(buf_cstr(&list));
}

/* The transports are the server's, and so is what the configuration says of a worker. */
static int become_server(const char *option, char *workers)
{
	_cleanup_free_ char *program = program_path("concc-project");

	execlp(program, "concc", option, workers, (char *)NULL);
	fprintf(stderr, "concc: %s can't be executed: %s\n", program, err_text(-errno));
	return WRAPPER_EXIT_SERVER;
}

int front_push(char *const *names)
{
	_cleanup_free_ char *workers = workers_option(names);

	return become_server("--push", workers);
}

int front_doctor(char *const *names, bool json)
{
	_cleanup_free_ char *workers = *names ? workers_option(names) : NULL;

	return become_server(json ? "--doctor=json" : "--doctor", workers);
}

/* Slots of workers and here; 0: none can be had, and msg says why. */
static uint32_t ask_slots(struct errmsg *msg)
{
	_cleanup_free_ char *dir = NULL, *why = NULL;
	_cleanup_close_ int dir_fd = -1;
	struct pool *pool;
	uint32_t n;
	int r;

	r = runtime_dir_open(&dir, &dir_fd, msg);
	if (r == 0)
		r = server_ensure(dir, dir_fd, msg);
	if (r < 0)
		return 0;
	r = front_ask(dir, "settled", NULL, NULL);
	if (r == 0)
		r = pool_open(dir, &pool, msg);
	if (r < 0) {
		if (!*msg->text)
			errmsg_set(msg, r, "%s", err_text(r));
		return 0;
	}
	n = pool_total(pool);
	pool_close(pool);
	if (!n && front_ask(dir, "why", NULL, &why) == 0)
		errmsg_set(msg, 0, "no worker can be reached%s%s", *why ? ": " : "", why);
	return n;
}

int front_slots(void)
{
	struct errmsg msg = {0};
	uint32_t n = ask_slots(&msg);

	/* Never nothing: `make -j` has no limit at all. */
	if (!n) {
		n = front_cores();
		fprintf(stderr, "concc: %s; %u core%s here\n", msg.text, n, str_plural(n));
	}
	printf("%u\n", n);
	return 0;
}
