/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/cpu_share.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

#define SMALL 4096 /* bytes of a file of the kernel's */
/* A job of more is a build of its own. */
#define THREADS_MAX 256

static bool read_small(int dir_fd, const char *thread, const char *name, struct buf *b)
{
	_cleanup_free_ char *path = path_join(thread, name);

	b->len = 0;
	return read_file_at(dir_fd, path, SMALL, b) == 0;
}

struct walk {
	unsigned left;		   /* threads */
	struct map *seen, *before; /* or NULL: of any time */
	struct cpu_share sum;
};

static bool add(pid_t pid, struct walk *w);

/* "12 34 ": those that this thread has started. */
static void add_children(int dir_fd, const char *thread, struct walk *w)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	char *end;
	long pid;

	if (!read_small(dir_fd, thread, "children", &b))
		return;
	for (const char *at = buf_cstr(&b); (pid = strtol(at, &end, 10)) > 0; at = end)
		(void)add((pid_t)pid, w); /* it may have ended */
}

/* What is remembered of it; an id may be another thread's by now, which has had less. */
static struct cpu_share since(struct walk *w, uint64_t id, struct cpu_share now)
{
	struct cpu_share *before = map_get_u64(w->before, id);
	struct cpu_share ret = now;

	if (before && now.ran_us >= before->ran_us && now.waited_us >= before->waited_us) {
		ret.ran_us -= before->ran_us;
		ret.waited_us -= before->waited_us;
	}
	free(map_put_u64(w->seen, id, xmemdup(&now, sizeof(now))));
	return ret;
}

/* Nanoseconds on a processor, nanoseconds in its queue, how often:
 * Documentation/scheduler/sched-stats.rst */
static bool add_thread(int dir_fd, const char *thread, struct walk *w)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	unsigned long long ran, waited;
	struct cpu_share had;

	if (!read_small(dir_fd, thread, "schedstat", &b) ||
	    sscanf(buf_cstr(&b), "%llu %llu", &ran, &waited) != 2)
		return false;
	had = (struct cpu_share){.ran_us = ran / 1000, .waited_us = waited / 1000};
	if (w->seen)
		had = since(w, strtoull(thread, NULL, 10), had);
	w->sum.ran_us += had.ran_us;
	w->sum.waited_us += had.waited_us;
	return true;
}

static bool add(pid_t pid, struct walk *w)
{
	char path[64];
	bool any = false;
	DIR *dir;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		return false;
	for (struct dirent *e; w->left && (e = readdir(dir));) {
		if (e->d_name[0] == '.')
			continue;
		w->left--;
		any |= add_thread(dirfd(dir), e->d_name, w);
		add_children(dirfd(dir), e->d_name, w);
	}
	closedir(dir);
	return any;
}

bool cpu_share_of(pid_t pid, struct cpu_share *ret)
{
	struct walk w = {.left = THREADS_MAX};

	if (pid <= 0 || !add(pid, &w))
		return false;
	*ret = w.sum;
	return true;
}

bool cpu_share_since(struct cpu_look *l, pid_t pid, struct cpu_share *ret)
{
	struct map seen = MAP_INIT;
	struct walk w = {.left = THREADS_MAX, .seen = &seen, .before = &l->threads};
	bool any = pid > 0 && add(pid, &w);

	cpu_look_release(l);
	l->threads = seen;
	if (any)
		*ret = w.sum;
	return any;
}

void cpu_look_release(struct cpu_look *l)
{
	struct cpu_share *s;
	size_t it = 0;

	while ((s = map_next(&l->threads, &it, NULL)))
		free(s);
	map_release(&l->threads);
	l->threads = MAP_INIT;
}

struct cpu_stolen cpu_stolen_parse(const char *stat)
{
	unsigned long long user, nice, system, irq, softirq, stolen;

	if (sscanf(stat, "cpu %llu %llu %llu %*u %*u %llu %llu %llu", &user, &nice, &system, &irq,
		   &softirq, &stolen) != 6)
		return (struct cpu_stolen){0};
	return (struct cpu_stolen){user + nice + system + irq + softirq + stolen, stolen};
}

struct cpu_share cpu_share_less_stolen(const struct cpu_share *got, const struct cpu_stolen *before,
				       const struct cpu_stolen *now)
{
	double all = (double)now->all - (double)before->all;
	double stolen = (double)now->stolen - (double)before->stolen;
	struct cpu_share ret = *got;

	if (stolen > 0 && stolen <= all)
		ret.ran_us -= (uint64_t)((double)got->ran_us * stolen / all);
	ret.waited_us += got->ran_us - ret.ran_us;
	return ret;
}

/* Who gets so much of what it wants has hardly anybody beside it. */
#define HARDLY_LESS 0.9

/*
 * Where all are served alike, each of n beside x others on c cores has the part c / (n + x).
 * Those that ended meanwhile are not among what ran, so n is at least the jobs that there are.
 */
uint32_t cpu_share_others(uint32_t cores, uint32_t jobs, const struct cpu_share *got,
			  uint64_t elapsed_us)
{
	double wanted = (double)got->ran_us + (double)got->waited_us;
	double had = wanted > 0 ? (double)(got->ran_us ?: 1) / wanted : 1;
	double n = elapsed_us ? wanted / (double)elapsed_us : 0, others;

	if (had >= HARDLY_LESS)
		return 0;
	others = cores / had - (n > jobs ? n : jobs);
	if (others <= 0)
		return 0;
	return others < CPU_SHARE_OTHERS_MAX ? (uint32_t)(others + 0.5) : CPU_SHARE_OTHERS_MAX;
}
