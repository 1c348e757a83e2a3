/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "agent.h"
#include "crowd.h"
#include "job.h"
#include "pace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/cores.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

#define LOAD_MS	     3000 /* how old the host's load may be that the client knows */
#define LOAD_BUSY_MS 1000 /* and that while it has jobs here, which are chosen by it */
#define MORE_JOBS    2	  /* than cores: some wait for a file's bytes */

/* ---- slots ---- */

/* What the user set, or 0. */
static uint32_t wished_jobs(void)
{
	const char *text = getenv(MAX_JOBS_ENV);
	unsigned long long wish;

	if (!text || !*text)
		return 0;
	if (str_to_u64(text, HOST_SLOTS_MAX, &wish) && wish > 0)
		return (uint32_t)wish;
	log_warn("ignoring " MAX_JOBS_ENV "=%s: not a number from 1 to %d", text, HOST_SLOTS_MAX);
	return 0;
}

/* A fork bomb must end; the largest build must not.  Linkers have a thread for each core. */
static uint32_t processes_default(void)
{
	return 1024 + 128 * cores_usable();
}

static uint32_t max_jobs(void)
{
	uint32_t wish = wished_jobs(), n = cores_usable() + MORE_JOBS;

	if (wish)
		return wish;
	return n < HOST_SLOTS_MAX ? n : HOST_SLOTS_MAX;
}

uint32_t agent_max_jobs(const struct farm *f)
{
	uint32_t n = max_jobs();

	return f->slots && f->slots < n ? f->slots : n;
}

static void on_slots(void *data, uint32_t events)
{
	struct agent *a = data;

	host_slots_dispatch(a->slots);
	agent_job_start_queued(a);
}

/* ---- load ---- */

static uint32_t read_loadavg(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	double load = 0;

	if (read_file_at(-1, "/proc/loadavg", 4096, &b) == 0)
		load = strtod(buf_cstr(&b), NULL);
	return load > 0 && load < 1e6 ? (uint32_t)(load * 100) : 0;
}

static uint64_t apart(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

/* A quarter of a process more or less is no news, nor is this much on a disk. */
#define STORE_NEWS (16 * 1024 * 1024)

static bool is_news(const struct msg_load *now, const struct msg_load *told)
{
	return now->running != told->running || now->waiting != told->waiting ||
	       now->others != told->others || now->speed != told->speed ||
	       now->slots != told->slots || apart(now->loadavg, told->loadavg) >= 25 ||
	       now->store_max != told->store_max || !now->store_bytes != !told->store_bytes ||
	       apart(now->store_bytes, told->store_bytes) >= STORE_NEWS;
}

/* The kernel has no event for this. */
static void tell_load(void *data)
{
	struct agent *a = data;
	struct msg_load m = {.slots = a->max_jobs, .loadavg = read_loadavg()};
	struct store_counts store = {0};
	struct host_load host;

	if (a->store)
		store_counts(a->store, &store);
	m.store_bytes = store.bytes;
	m.store_max = store.max;
	host_slots_load(a->slots, &host);
	m.running = host.running;
	m.waiting = host.waiting;
	m.others = crowd_look(a->crowd, launcher_pid(a->launcher), a->jobs.n - a->n_queued);
	m.others = host.others > m.others ? host.others : m.others;
	m.speed = pace_look(a->pace, a->jobs.n > a->n_queued);
	if (is_news(&m, &a->load)) {
		_cleanup_buf_ struct buf b = BUF_INIT;

		msg_load_encode(&b, &m);
		link_send_buf(a->link, MSG_LOAD, LINK_PRIO, &b);
		a->load = m;
	}
	/* Nor for room on a disk. */
	if (a->storage_sent)
		agent_store_probe(a);
	a->load_ms = now_ms();
	loop_timer_set(a->load_timer, a->jobs.n ? LOAD_BUSY_MS : LOAD_MS);
}

static void on_pace(void *data)
{
	struct agent *a = data;

	loop_timer_set(a->load_timer, 1);
}

void host_has_jobs(struct agent *a)
{
	uint64_t next = a->load_ms + LOAD_BUSY_MS, now = now_ms();

	if (a->load_timer)
		loop_timer_set(a->load_timer, next > now ? next - now : 1);
}

/* Without the guard jobs run all the same. */
void host_open_slots(struct agent *a)
{
	struct errmsg msg = {0};

	a->max_jobs = agent_max_jobs(&a->farm);
	if (host_slots_new(a->max_jobs, &a->slots, &msg) < 0)
		log_warn("%s", msg.text);
	else
		a->slots_source = loop_add_fd(a->loop, host_slots_event_fd(a->slots), LOOP_READ,
					      on_slots, a);
}

void host_begin_load(struct agent *a)
{
	a->crowd = crowd_new(a->cpus);
	a->pace = pace_new(a->cpu_speed, a->disk, on_pace, a);
	a->load_timer = loop_add_timer(a->loop, LOAD_MS, tell_load, a);
	tell_load(a);
}

/* ---- memory ---- */

/* 0, or -errno: then the counter is as it was. */
static int read_oom_kills(const struct agent *a, uint64_t *ret)
{
	char room[16 * 1024]; /* of /proc/vmstat, the longest, a third */
	const char *line;
	ssize_t n;

	if (a->memory_fd < 0 || lseek(a->memory_fd, 0, SEEK_SET) < 0)
		return 0; /* nobody tells */
	n = read_full(a->memory_fd, room, sizeof(room) - 1);
	if (n < 0)
		return (int)n;
	room[n] = '\0';
	line = strstr(room, "oom_kill ");
	*ret = line ? strtoull(line + 9, NULL, 10) : 0;
	return 0;
}

void host_look_at_oom(struct agent *a)
{
	uint64_t before = a->oom_kills;
	int r = read_oom_kills(a, &a->oom_kills);
	struct agent_job *j;
	size_t it = 0;

	/* A worker that can't even read this is short of something in any case. */
	if (a->oom_kills <= before && (r == 0 || err_is_fact(r)))
		return;
	while ((j = map_next(&a->jobs, &it, NULL)))
		j->starved = true;
}

void host_begin_memory(struct agent *a)
{
	a->memory_fd = memory_events_open();
	(void)read_oom_kills(a, &a->oom_kills);
}

/* ---- limits ---- */

static uint64_t lower(uint64_t asked, uint64_t allowed)
{
	return allowed && (!asked || asked > allowed) ? allowed : asked;
}

void agent_set_limits(struct agent *a, const struct msg_limits *m)
{
	const struct farm *f = &a->farm;

	a->limits.memory = lower(m->memory, f->memory);
	a->limits.processes = (uint32_t)lower(m->processes ? m->processes : processes_default(),
					      f->processes);
	a->limits.time_s = (uint32_t)lower(m->time_s, f->job_time_s);
}

/* ---- who we are ---- */

static void read_cpu_model(char *out, size_t size)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	const char *p;

	out[0] = '\0';
	if (read_file_at(-1, "/proc/cpuinfo", 16 << 20, &b) < 0)
		return;
	p = strstr(buf_cstr(&b), "model name");
	p = p ? strchr(p, ':') : NULL;
	if (p)
		(void)snprintf(out, size, "%.*s", (int)strcspn(p + 2, "\n"), p + 2);
}

/* By its number of cores a client takes slots: no more than can run. */
static uint32_t allowed_cpus(uint32_t n)
{
	struct farm f;

	if (farm_load(FARM_FILE, &f, NULL) == 0 && f.slots && f.slots < n)
		n = f.slots;
	farm_release(&f);
	return n;
}

void host_say_hello(struct agent *a)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char model[128], host[256] = "worker";
	struct utsname u = {0};
	struct msg_hello m = {
		.version = PROTO_VERSION,
		.program = (char *)"concc " CONCC_VERSION,
		.host = host,
		.arch = u.machine,
		.cpus = wished_jobs() ?: cores_usable(),
		.cpu_speed = core_speed(),
		.cpu_model = model,
	};

	(void)uname(&u);
	(void)gethostname(host, sizeof(host) - 1);
	read_cpu_model(model, sizeof(model));
	m.cpus = a->cpus = allowed_cpus(m.cpus);
	a->cpu_speed = m.cpu_speed;
	msg_hello_encode(&b, &m);
	link_send_buf(a->link, MSG_HELLO, LINK_PRIO, &b);
}
