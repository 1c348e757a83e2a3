/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/job.h"
#include "concc/process.h"
#include "concc/str.h"
#include "doctor.h"

#define DISK_LITTLE (16ull << 20) /* results and the server's files */
#define DISK_SHORT  (512ull << 20)
#define FILES_FEW   4096 /* of the server: a descriptor for each file on its way, and others */
#define WATCHES_FEW 8192 /* a directory each: a large project's */
#define ASK_MS	    5000 /* for a program of this machine to answer */
#define ANSWER_MAX  65536

/* ---- configuration ---- */

/* A file's name as it is typed. */
static char *typed(const char *file)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
				    "_./+@%:,-";
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (!file[strspn(file, plain)])
		return xstrdup(file);
	job_put_quoted(&b, file);
	return xstrdup(buf_cstr(&b));
}

/* Where the number of a line is between colons, as "FILE:LINE: ..."; NULL: nowhere. */
static const char *find_line(const char *text, unsigned *ret)
{
	char colon;

	for (const char *at = text; (at = strchr(at, ':')); at++)
		if (sscanf(at, ":%u%c", ret, &colon) == 2 && colon == ':')
			return at;
	return NULL;
}

/* "FILE: Permission denied", of one's own file; else NULL. */
static char *readable_again(const char *text)
{
	static const char refused[] = ": Permission denied";
	const char *end = strstr(text, refused);
	_cleanup_free_ char *file = end ? xstrndup(text, (size_t)(end - text)) : NULL;
	_cleanup_free_ char *word = file ? typed(file) : NULL;
	struct stat st;

	if (!end || stat(file, &st) < 0 || st.st_uid != geteuid())
		return NULL;
	return xasprintf("chmod u+r %s", word);
}

/* The command for what conf_load() complained of: a line, a mode, or the file as a whole. */
static char *conf_remedy(const char *text)
{
	static const char chmod[] = "chmod o-w ";
	const char *mode = strstr(text, chmod);
	unsigned n = 0;
	const char *line = find_line(text, &n);
	_cleanup_free_ char *file = mode   ? typed(mode + strlen(chmod))
				    : line ? xstrndup(text, (size_t)(line - text))
					   : NULL;
	_cleanup_free_ char *word = line && !mode ? typed(file) : NULL;

	if (mode)
		return xasprintf("%s%s", chmod, file);
	if (line)
		return xasprintf("${EDITOR:-vi} +%u %s", n, word);
	return readable_again(text)
		       ?: getenv("CONCC_CONFIG") ? xstrdup("unset CONCC_CONFIG")
						 : NULL;
}

/* Where the file can be made; a home need not be there, or be ours. */
static char *workers_remedy(const char *file)
{
	_cleanup_free_ char *dir = path_parent(file), *word = typed(file);
	bool ours = access(file, F_OK) == 0 ? access(file, W_OK) == 0
					    : access(dir, W_OK | X_OK) == 0;

	if (!ours)
		return xstrdup("export CONCC_WORKERS=ssh://HOST");
	return xasprintf("printf '[worker HOST]\\naddress = ssh://HOST\\n' >>%s", word);
}

static bool names_workers(const struct doctor *d)
{
	const char *list = getenv("CONCC_WORKERS");

	return d->o->workers || (list && *list) || d->conf->n_known;
}

void client_configuration(struct doctor *d)
{
	struct errmsg msg = {0};
	int r = conf_load(d->o->config, &d->conf, &msg);
	const char *file;

	if (r == 0)
		r = conf_check_workspaces(d->conf, &msg);
	if (r == 0 && d->o->workers)
		r = conf_set_workers(d->conf, d->o->workers, &msg);
	if (r < 0) {
		_cleanup_free_ char *remedy = conf_remedy(msg.text);

		say(d, CHECK_CONFIGURATION, FINDING_FAILED, remedy, "%s", msg.text);
		conf_free(steal_ptr(&d->conf));
		return;
	}
	file = d->conf->path ? d->conf->path : d->conf->file;
	if (!names_workers(d)) {
		_cleanup_free_ char *remedy = workers_remedy(file);

		say(d, CHECK_CONFIGURATION, FINDING_FAILED, remedy,
		    "%s names no worker, so all jobs run on this machine; HOST is one that you can "
		    "ssh to",
		    file);
		return;
	}
	say(d, CHECK_CONFIGURATION, FINDING_OK, NULL, "%s, %zu worker%s",
	    d->conf->path ? file : "no file", d->conf->n_workers, str_plural(d->conf->n_workers));
}

/* ---- directories ---- */

static void look_at_runtime(struct doctor *d)
{
	_cleanup_free_ char *dir = NULL, *remedy = NULL;
	_cleanup_close_ int fd = -1;
	struct errmsg msg = {0};
	bool bad = runtime_dir_open(&dir, &fd, &msg) < 0;

	if (!bad && faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS) < 0) {
		errmsg_set(&msg, -errno, "%s can't be written to: %s", dir, err_text(-errno));
		bad = true;
	}
	if (!bad) {
		say(d, CHECK_RUNTIME, FINDING_OK, NULL, "%s", dir);
		return;
	}
	/* Another one is right whatever was wrong with this. */
	remedy = xstrdup("export CONCC_RUNTIME_DIR=$(mktemp -d)");
	say(d, CHECK_RUNTIME, FINDING_FAILED, remedy, "%s", msg.text);
}

/* The directory is wrong as a whole, or others may write to it. */
static char *cache_remedy(const char *text)
{
	static const char chmod[] = "chmod go-w ";
	const char *mode = strstr(text, chmod);
	_cleanup_free_ char *dir = mode ? typed(mode + strlen(chmod)) : NULL;

	if (dir)
		return xasprintf("%s%s", chmod, dir);
	return getenv("CONCC_CACHE_DIR") ? xstrdup("unset CONCC_CACHE_DIR") : NULL;
}

static void look_at_disk(struct doctor *d)
{
	_cleanup_free_ char *cache = NULL;
	struct errmsg msg = {0};
	unsigned long long left;
	struct statvfs fs;
	bool little;

	if (cache_dir(&cache, &msg) < 0) {
		_cleanup_free_ char *remedy = cache_remedy(msg.text);

		say(d, CHECK_DISK_HERE, FINDING_WARNING, remedy, "%s", msg.text);
		return;
	}
	if (statvfs(cache, &fs) < 0) {
		say(d, CHECK_DISK_HERE, FINDING_WARNING, NULL, "%s: %s", cache, err_text(-errno));
		return;
	}
	left = (unsigned long long)fs.f_bavail * fs.f_frsize;
	little = left < DISK_LITTLE;
	say(d, CHECK_DISK_HERE,
	    little		? FINDING_FAILED
	    : left < DISK_SHORT ? FINDING_WARNING
				: FINDING_OK,
	    NULL, "%llu MB free for %s%s", left >> 20, cache,
	    left < DISK_SHORT ? ": make room there, or set CONCC_CACHE_DIR" : "");
}

/* ---- limits ---- */

static unsigned long long read_number(const char *path)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	return read_file_at(AT_FDCWD, path, 64, &b) < 0 ? 0 : strtoull(buf_cstr(&b), NULL, 10);
}

static void look_at_limits(struct doctor *d)
{
	unsigned long long watches = read_number("/proc/sys/fs/inotify/max_user_watches");
	struct rlimit files = {0};

	(void)getrlimit(RLIMIT_NOFILE, &files); /* fails for a bad address only */
	if (files.rlim_max < FILES_FEW)
		say(d, CHECK_LIMITS_HERE, FINDING_WARNING, NULL,
		    "a process may open %llu files at once, which is few: raise `nofile` in "
		    "/etc/security/limits.conf",
		    (unsigned long long)files.rlim_max);
	else if (watches && watches < WATCHES_FEW)
		say(d, CHECK_LIMITS_HERE, FINDING_WARNING,
		    "sudo sysctl -w fs.inotify.max_user_watches=524288",
		    "%llu directories can be watched, which is few for a large project", watches);
	else
		say(d, CHECK_LIMITS_HERE, FINDING_OK, NULL, "%llu open files, %llu watches",
		    (unsigned long long)files.rlim_max, watches);
}

/* ---- the compiler ---- */

static bool in_path(const char *name)
{
	const char *path = getenv("PATH") ?: "/usr/local/bin:/usr/bin:/bin";

	for (const char *p = path; *p; p += strcspn(p, ":"), p += *p == ':') {
		_cleanup_free_ char *dir = xstrndup(p, strcspn(p, ":"));
		_cleanup_free_ char *file = path_join(*dir ? dir : ".", name);

		if (access(file, X_OK) == 0)
			return true;
	}
	return false;
}

static void look_at_compiler(struct doctor *d)
{
	static const char *const names[] = {"cc", "gcc", "clang"};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names) && !d->compiler; i++) {
		if (in_path(names[i]))
			d->compiler = names[i];
	}
	if (d->compiler)
		say(d, CHECK_COMPILER, FINDING_OK, NULL, "%s, which is tried", d->compiler);
	else
		say(d, CHECK_COMPILER, FINDING_WARNING, "sudo apt-get install gcc",
		    "no C compiler is in PATH, so no job is tried");
}

/* ---- ssh ---- */

/* The exit status of ssh-add -l: 0 keys, 1 none, 2 no agent; -1: it can't be told. */
static int ask_agent(void)
{
	char *argv[] = {(char *)"ssh-add", (char *)"-l", NULL};
	_cleanup_buf_ struct buf out = BUF_INIT;
	int status;

	if (process_ask(argv, NULL, ANSWER_MAX, now_ms() + ASK_MS, &out, &status) < 0)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void client_agent(struct doctor *d)
{
	const char *sock = getenv("SSH_AUTH_SOCK");

	if (!sock || !*sock) {
		say(d, CHECK_AGENT, FINDING_OK, NULL,
		    "there is none: keys without a passphrase are used");
		return;
	}
	switch (ask_agent()) {
	case 0:
		say(d, CHECK_AGENT, FINDING_OK, NULL, "%s has keys", sock);
		break;
	case 1:
		say(d, CHECK_AGENT, FINDING_WARNING, "ssh-add", "%s has no key", sock);
		break;
	default:
		say(d, CHECK_AGENT, FINDING_WARNING, "eval \"$(ssh-agent -s)\" && ssh-add",
		    "SSH_AUTH_SOCK names %s, which does not answer within %d s", sock,
		    ASK_MS / 1000);
	}
}

void client_look(struct doctor *d)
{
	look_at_runtime(d);
	look_at_disk(d);
	look_at_limits(d);
	look_at_compiler(d);
}
