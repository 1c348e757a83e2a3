/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* `concc-worker --status` and `--prune`: a worker as its administrator, or a login, sees it. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/farm.h"
#include "concc/io.h"
#include "concc/map.h"
#include "concc/str.h"
#include "concc/worker.h"
#include "agent.h"
#include "presence.h"

#define SOCKETS_MAX (64 << 20) /* bytes of /proc/net/unix */
#define AGENTS_MAX  1024
#define ANSWER_MAX  8192
#define ANSWER_MS   2000 /* of all together: an agent that has much to do answers between jobs */

/* ---- asking agents ---- */

static int connect_to(const char *name)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	size_t n = strlen(name);

	if (fd < 0 || n >= sizeof(sa.sun_path))
		return -1;
	memcpy(sa.sun_path + 1, name, n);
	if (connect(fd, (struct sockaddr *)&sa,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)) < 0)
		return -1;
	return steal_fd(&fd);
}

struct asked {
	struct ucred who; /* as the kernel knows it */
	char *text;
	size_t len;
};

/* False: it has said all that it says, or more than an agent does. */
static bool hear(struct asked *a, int fd)
{
	ssize_t n;

	if (!a->text)
		a->text = xmalloc(ANSWER_MAX);
	n = read(fd, a->text + a->len, ANSWER_MAX - a->len);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	a->len += (size_t)n;
	return n && a->len < ANSWER_MAX;
}

/* All at once: who says nothing keeps nobody else from being heard. */
static void hear_all(struct asked *asked, struct pollfd *polled, nfds_t n)
{
	uint64_t deadline = now_ms() + ANSWER_MS;
	nfds_t left = n;

	while (left) {
		uint64_t now = now_ms();

		if (now >= deadline || poll(polled, n, (int)(deadline - now)) == 0)
			break;
		for (nfds_t i = 0; i < n; i++) {
			if (polled[i].fd < 0 || !polled[i].revents || hear(&asked[i], polled[i].fd))
				continue;
			fd_close(&polled[i].fd);
			left--;
		}
	}
	for (nfds_t i = 0; i < n; i++)
		fd_close(&polled[i].fd);
}

/* Whose it is, is not its to say. */
static void put_answer(json_t *list, const struct asked *a)
{
	json_t *o = a->len ? json_loadb(a->text, a->len, 0, NULL) : NULL;

	if (!json_is_object(o)) {
		json_decref(o);
		return;
	}
	json_object_set_new(o, "login", json_integer(a->who.uid));
	json_object_set_new(o, "pid", json_integer(a->who.pid));
	json_array_append_new(list, o);
}

/* Anyone can take such a name and say anything: for people. */
static json_t *ask_all(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_free_ struct asked *asked = xcalloc(AGENTS_MAX, sizeof(*asked));
	_cleanup_free_ struct pollfd *polled = xcalloc(AGENTS_MAX, sizeof(*polled));
	json_t *list = json_array();
	nfds_t n = 0;

	if (read_file_at(AT_FDCWD, "/proc/net/unix", SOCKETS_MAX, &b) < 0)
		return list;
	for (const char *p = strstr(buf_cstr(&b), "@" PRESENCE_PREFIX); p && n < AGENTS_MAX;
	     p = strstr(p + 1, "@" PRESENCE_PREFIX)) {
		_cleanup_free_ char *name = xstrndup(p + 1, strcspn(p + 1, "\n"));
		socklen_t size = sizeof(asked[n].who);
		int fd = connect_to(name);

		if (fd < 0)
			continue;
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &asked[n].who, &size) < 0) {
			(void)close(fd);
			continue;
		}
		polled[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
	}
	hear_all(asked, polled, n);
	for (nfds_t i = 0; i < n; i++) {
		put_answer(list, &asked[i]);
		free(asked[i].text);
	}
	return list;
}

/* ---- stores ---- */

static json_t *store_json(const char *dir)
{
	uint64_t bytes, objects;
	json_t *o = json_object();

	store_measure(dir, &bytes, &objects);
	json_object_set_new(o, "directory", json_string(dir));
	json_object_set_new(o, "bytes", json_integer((json_int_t)bytes));
	json_object_set_new(o, "objects", json_integer((json_int_t)objects));
	return o;
}

/* Where this user's agents keep contents. */
static char *own_store(void)
{
	const char *set = getenv("CONCC_CACHE_DIR");
	_cleanup_free_ char *cache = NULL;

	if (getuid() == 0 && (!set || !*set))
		return xstrdup(AGENT_ROOT_CACHE "/store");
	return cache_dir(&cache, NULL) < 0 ? NULL : path_join(cache, "store");
}

static json_t *stores_json(const json_t *agents)
{
	_cleanup_free_ char *own = own_store();
	struct map seen = MAP_INIT;
	json_t *list = json_array(), *a;
	size_t i;

	if (own && access(own, R_OK | X_OK) == 0) {
		map_put_str(&seen, own, list);
		json_array_append_new(list, store_json(own));
	}
	json_array_foreach(agents, i, a)
	{
		const char *dir = json_string_value(json_object_get(a, "store")) ?: "";

		if (*dir != '/' || map_get_str(&seen, dir) || access(dir, R_OK | X_OK) < 0)
			continue;
		map_put_str(&seen, dir, list);
		json_array_append_new(list, store_json(dir));
	}
	map_release(&seen);
	return list;
}

/* ---- all of it ---- */

static json_t *collect(const struct farm *f)
{
	struct host_load load;
	json_t *o = json_object(), *agents = ask_all();

	host_slots_load(NULL, &load);
	json_object_set_new(o, "version", json_string(CONCC_VERSION));
	json_object_set_new(o, "slots", json_integer(agent_max_jobs(f)));
	json_object_set_new(o, "running", json_integer(load.running));
	json_object_set_new(o, "waiting", json_integer(load.waiting));
	json_object_set_new(o, "stores", stores_json(agents));
	json_object_set_new(o, "agents", agents);
	return o;
}

static long long get(const json_t *o, const char *key)
{
	return (long long)json_integer_value(json_object_get(o, key));
}

/* Of others' words; on the heap. */
static char *get_text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key)) ?: "";

	return str_escape(s, strlen(s), 256);
}

static void print_text(const json_t *o)
{
	json_t *a, *s;
	size_t i;

	printf("%lld slot%s, %lld running, %lld waiting\n", get(o, "slots"),
	       str_plural((unsigned long long)get(o, "slots")), get(o, "running"),
	       get(o, "waiting"));
	if (json_array_size(json_object_get(o, "agents")))
		printf("%-20s %8s %8s %8s %8s %8s %8s %10s\n", "client", "login", "running",
		       "waiting", "jobs", "refused", "lost", "hits");
	json_array_foreach(json_object_get(o, "agents"), i, a)
	{
		_cleanup_free_ char *client = get_text(a, "client");
		long long hits = get(a, "store_hits"), all = hits + get(a, "store_added");

		printf("%-20s %8lld %8lld %8lld %8lld %8lld %8lld %9lld%%\n", client,
		       get(a, "login"), get(a, "running"), get(a, "waiting"), get(a, "jobs"),
		       get(a, "refused"), get(a, "lost"), all ? hits * 100 / all : 0);
	}
	json_array_foreach(json_object_get(o, "stores"), i, s)
	{
		_cleanup_free_ char *dir = get_text(s, "directory");

		printf("%s: %.1f MB in %lld files\n", dir, (double)get(s, "bytes") / 1e6,
		       get(s, "objects"));
	}
}

/* A label's value, by the rules of the text format. */
static char *label(const json_t *o, const char *key)
{
	_cleanup_free_ char *text = get_text(o, key);
	_cleanup_buf_ struct buf b = BUF_INIT;

	for (const char *p = text; *p; p++)
		buf_putf(&b, *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
	return xstrdup(buf_cstr(&b));
}

static void print_agents_metric(const json_t *agents, const char *name, const char *type,
				const char *key, const char *help)
{
	json_t *a;
	size_t i;

	printf("# HELP concc_worker_%s %s\n# TYPE concc_worker_%s %s\n", name, help, name, type);
	json_array_foreach(agents, i, a)
	{
		_cleanup_free_ char *client = label(a, "client");

		printf("concc_worker_%s{client=\"%s\",login=\"%lld\",pid=\"%lld\"} %lld\n", name,
		       client, get(a, "login"), get(a, "pid"), get(a, key));
	}
}

static void print_prometheus(const json_t *o)
{
	static const struct {
		const char *name, *type, *key, *help;
	} of_agents[] = {
		{"client_running", "gauge", "running", "Jobs of a client that run."},
		{"client_waiting", "gauge", "waiting", "Jobs of a client that wait for a slot."},
		{"client_jobs_total", "counter", "jobs", "Jobs of a client that ended."},
		{"client_refused_total", "counter", "refused",
		 "Jobs of a client that were refused."},
		{"client_lost_total", "counter", "lost", "Jobs whose result was of no use."},
		{"store_hits_total", "counter", "store_hits", "Contents that were there."},
		{"store_added_total", "counter", "store_added", "Contents that had to be fetched."},
		{"own_disk_files_total", "counter", "own_disk_files",
		 "Files of this system that a client's were the same as."},
		{"own_disk_bytes_total", "counter", "own_disk_bytes", "Bytes of these."},
	};
	static const char *const of_host[] = {"slots", "running", "waiting"};
	json_t *s;
	size_t i;

	for (i = 0; i < sizeof(of_host) / sizeof(*of_host); i++)
		printf("# TYPE concc_worker_%s gauge\nconcc_worker_%s %lld\n", of_host[i],
		       of_host[i], get(o, of_host[i]));
	for (i = 0; i < sizeof(of_agents) / sizeof(*of_agents); i++)
		print_agents_metric(json_object_get(o, "agents"), of_agents[i].name,
				    of_agents[i].type, of_agents[i].key, of_agents[i].help);
	printf("# HELP concc_worker_store_bytes Size of a store.\n"
	       "# TYPE concc_worker_store_bytes gauge\n");
	json_array_foreach(json_object_get(o, "stores"), i, s)
	{
		_cleanup_free_ char *dir = label(s, "directory");

		printf("concc_worker_store_bytes{directory=\"%s\"} %lld\n", dir, get(s, "bytes"));
	}
}

int worker_status(enum worker_format format)
{
	struct errmsg msg = {0};
	struct farm f;
	json_t *o;
	bool wrong = farm_load(FARM_FILE, &f, &msg) < 0;

	if (wrong)
		fprintf(stderr, "concc-worker: %s\n", msg.text);
	o = collect(&f);
	farm_release(&f);
	if (format == WORKER_TEXT)
		print_text(o);
	else if (format == WORKER_PROMETHEUS)
		print_prometheus(o);
	else if (json_dumpf(o, stdout, JSON_INDENT(1) | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII) ==
		 0)
		(void)putchar('\n');
	json_decref(o);
	return wrong || fflush(stdout) == EOF ? 1 : 0;
}

int worker_prune(uint64_t max_bytes)
{
	_cleanup_free_ char *dir = own_store();
	uint64_t before, after, objects;
	struct errmsg msg = {0};
	struct store *s;
	int r;

	if (!dir || access(dir, F_OK) < 0) {
		printf("there is nothing to remove\n");
		return 0;
	}
	store_measure(dir, &before, &objects);
	r = store_open(dir, max_bytes ? max_bytes : 1, &s, &msg);
	if (r == 0) {
		r = store_trim(s);
		store_close(s);
	}
	if (r < 0) {
		fprintf(stderr, "concc-worker: %s: %s\n", dir, *msg.text ? msg.text : err_text(r));
		return 1;
	}
	store_measure(dir, &after, &objects);
	printf("%s: %.1f MB removed, %.1f MB stay\n", dir,
	       (double)(before > after ? before - after : 0) / 1e6, (double)after / 1e6);
	return 0;
}
