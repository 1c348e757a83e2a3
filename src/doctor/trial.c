/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A job for one worker, with a project server and a runtime directory of its own, as any build has
 * it: compiled there twice (the first one fetches the compiler), compared with the same compiled
 * here, and then a file that has to go there and back.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/process.h"
#include "concc/record.h"
#include "concc/str.h"
#include "doctor.h"

#define LIMIT_MS   60000 /* all of it: a compiler of 100 MB, over 2 MB/s, and some */
#define STOP_MS	   10000
#define SAID_MAX   (256 * 1024)
#define BIG_BYTES  (2u << 20) /* there and back */
#define OBJECT_MAX (4u << 20)

static const char source[] = "#include <stdio.h>\n"
			     "#include <stdlib.h>\n"
			     "#include <string.h>\n"
			     "int main(int argc, char **argv)\n"
			     "{\n"
			     "\tchar *s = strdup(argc > 1 ? argv[1] : \"doctor\");\n"
			     "\tint n = printf(\"%s\\n\", s);\n"
			     "\tfree(s);\n"
			     "\treturn n < 0;\n"
			     "}\n";

struct
try {
	struct doctor *d;
	const struct sight *s;
	char *dir; /* of the trial, removed after it */
	char *explain;
	struct record warm, big; /* of the jobs, when `done` says that they were */
	unsigned n_records;
};

static int write_file(const char *dir, const char *name, const void *p, size_t n)
{
	_cleanup_free_ char *path = path_join(dir, name);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : write_full(fd, p, n);
}

/* Bytes that no worker has seen before. */
static int write_big(const char *dir)
{
	_cleanup_free_ uint8_t *bytes = xmalloc(BIG_BYTES);

	for (size_t at = 0; at < BIG_BYTES;) {
		ssize_t n = getrandom(bytes + at, BIG_BYTES - at, 0);

		if (n < 0 && errno != EINTR)
			return -errno;
		at += n > 0 ? (size_t)n : 0;
	}
	return write_file(dir, "big", bytes, BIG_BYTES);
}

/* Beside the cache, and not in /tmp, whose files stay here. */
static int make_dir(struct try *t, struct errmsg *msg)
{
	_cleanup_free_ char *cache = NULL;
	int r = cache_dir(&cache, msg);

	if (r < 0)
		return r;
	t->dir = xasprintf("%s/doctor-XXXXXX", cache);
	if (!mkdtemp(t->dir)) {
		r = errmsg_set(msg, -errno, "can't make a directory in %s: %s", cache,
			       err_text(-errno));
		free(steal_ptr(&t->dir));
		return r;
	}
	t->explain = path_join(t->dir, "explain");
	r = write_file(t->dir, "t.c", source, strlen(source));
	if (r == 0)
		r = write_big(t->dir);
	return r < 0 ? errmsg_set(msg, r, "can't write to %s: %s", t->dir, err_text(r)) : 0;
}

/* ---- running it ---- */

static char *program(const char *name)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	self[n > 0 ? n : 0] = '\0';
	slash = strrchr(self, '/');
	if (slash)
		*slash = '\0';
	return slash ? path_join(self, name) : xstrdup(name);
}

/* Its exit status, or a negative code; what it says is in out. */
static int run(const struct try *t, char *const *argv, uint64_t limit_ms, struct buf *out)
{
	struct process p = {.argv = argv,
			    .dir = t->dir,
			    .fds = {PROCESS_FD_NULL, PROCESS_FD_KEPT, PROCESS_FD_KEPT},
			    .n_fds = 3,
			    .flags = PROCESS_SESSION};
	int status, r = process_capture(&p, SAID_MAX, now_ms() + limit_ms, -1, out, &status);

	if (r < 0)
		return r;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* What a trial changes of the environment, for itself and what it starts. */
static const char *const changed[] = {"CONCC_RUNTIME_DIR",
				      "CONCC_WORKERS",
				      "CONCC_WORKSPACE",
				      "CONCC_EXPLAIN",
				      "CONCC_LOCAL_SLOTS",
				      "CONCC_STRAGGLER_AFTER",
				      "CONCC_CACHE",
				      "CONCC_CACHE_URL",
				      "PATH",
				      "PWD"};

static void set_environment(const struct try *t)
{
	_cleanup_free_ char *run_dir = path_join(t->dir, "run");

	(void)setenv("CONCC_RUNTIME_DIR", run_dir, 1);
	(void)setenv("CONCC_WORKERS", t->s->worker->name, 1);
	(void)setenv("CONCC_WORKSPACE", t->dir, 1);
	(void)setenv("CONCC_EXPLAIN", t->explain, 1);
	(void)setenv("PWD", t->dir, 1);
	/* What is asked is whether the worker can do it, not whether it would be the first to. */
	(void)setenv("CONCC_LOCAL_SLOTS", "0", 1);
	(void)setenv("CONCC_STRAGGLER_AFTER", "0", 1);
	(void)setenv("CONCC_CACHE", "off", 1);
	(void)setenv("CONCC_CACHE_URL", "off", 1);
}

static int run_there(struct try *t, struct buf *out)
{
	_cleanup_free_ char *concc = program("concc");
	_cleanup_free_ char *command = xasprintf(
		"concc-cc %s -g -O2 -c t.c -o there.o && rm there.o && "
		"concc-cc %s -g -O2 -c t.c -o there.o && concc-dispatch cp big back && cmp big back",
		t->d->compiler, t->d->compiler);
	_cleanup_free_ char *path = NULL, *dir = path_parent(concc);
	char *argv[] = {concc,	      (char *)"run", (char *)"-j",
			(char *)"1",  (char *)"--",  (char *)"/bin/sh",
			(char *)"-c", command,	     NULL};
	char *stop[] = {concc, (char *)"stop", NULL};
	_cleanup_buf_ struct buf ignored = BUF_INIT;
	int r;

	path = xasprintf("%s:%s", dir, getenv("PATH") ?: "/usr/bin:/bin");
	(void)setenv("PATH", path, 1);
	r = run(t, argv, LIMIT_MS, out);
	if (r < 0) /* one that was killed leaves its server */
		(void)run(t, stop, STOP_MS, &ignored);
	return r;
}

static int run_local(struct try *t, struct buf *out)
{
	_cleanup_free_ char *command = xasprintf("%s -g -O2 -c t.c -o here.o", t->d->compiler);
	char *argv[] = {(char *)"/bin/sh", (char *)"-c", command, NULL};

	return run(t, argv, LIMIT_MS, out);
}

static bool same_objects(const struct try *t)
{
	_cleanup_free_ char *here = path_join(t->dir, "here.o"),
			    *there = path_join(t->dir, "there.o");
	_cleanup_buf_ struct buf a = BUF_INIT, b = BUF_INIT;

	return read_file_at(AT_FDCWD, here, OBJECT_MAX, &a) == 0 &&
	       read_file_at(AT_FDCWD, there, OBJECT_MAX, &b) == 0 && a.len == b.len &&
	       memcmp(a.data, b.data, a.len) == 0;
}

/* ---- what came of it ---- */

static bool take_record(void *data, struct record *r)
{
	struct try *t = data;
	struct record *to = streq(r->program, "cp") ? &t->big : &t->warm;

	if (!streq(r->cwd, t->dir) || !*r->worker)
		return true;
	t->n_records++;
	record_release(to);
	*to = *r;
	*r = (struct record){0};
	return true;
}

static void read_records(struct try *t)
{
	_cleanup_free_ char *path = NULL;

	if (record_find(&path, NULL) == 0)
		(void)record_read(path, take_record, t); /* without them there are no numbers */
}

/* Its first line, up to end where that is in it. */
static char *text_before(const char *text, const char *end)
{
	size_t n = strcspn(text, "\n");
	const char *to = memmem(text, n, end, strlen(end));

	return xstrndup(text, to ? (size_t)(to - text) : n);
}

/* Why a worker did not do it: "concc: WHY; trying another worker: COMMAND". */
static char *worker_error(const char *text)
{
	const char *end = strstr(text, "; trying another worker"), *from = end;

	while (from && from > text && from[-1] != '\n')
		from--;
	if (!from)
		return NULL;
	from += str_starts(from, "concc: ") ? strlen("concc: ") : 0;
	return xstrndup(from, (size_t)(end - from));
}

/* Of "concc: local: RULE (WHY): COMMAND"; and of a worker that failed, what it said. */
static bool find_local(const struct try *t, char **ret_rule, char **ret_why)
{
	static const char local[] = "concc: local: ";
	_cleanup_buf_ struct buf b = BUF_INIT;
	const char *text;
	char *failed;
	size_t n;

	if (read_file_at(AT_FDCWD, t->explain, SAID_MAX, &b) < 0)
		return false;
	text = strstr(buf_cstr(&b), local);
	if (!text)
		return false;
	text += strlen(local);
	n = strcspn(text, " :\n");
	*ret_rule = xstrndup(text, n);
	/* There need not be one. */
	*ret_why = str_starts(text + n, " (") ? text_before(text + n + 2, "): ") : xstrdup("");
	text = buf_cstr(&b);
	failed = worker_error(text);
	if (failed) {
		free(*ret_why);
		*ret_why = failed;
	}
	return true;
}

/* True when a job ran here, and why is said. */
static bool say_local(struct try *t)
{
	_cleanup_free_ char *rule = NULL, *why = NULL, *what = NULL;
	const char *remedy;
	enum check c;

	if (!find_local(t, &rule, &why))
		return false;
	c = cause_of_rule(rule, &remedy);
	/* What a job fails by is beyond the way to the worker. */
	if (c == CHECK_JOB && cause_of(why, CHECK_KERNEL) != CHECK_NONE)
		c = cause_of(why, CHECK_KERNEL);
	if (c == CHECK_TOOLCHAIN && t->s->worker->root == ROOT_WORKER)
		what = xasprintf("sed -i '/^root *= *worker/d' %s   # of [worker %s]",
				 t->d->conf->path ?: "~/.concc.ini",
				 conf_worker_word(t->s->worker));
	say(t->d, c, FINDING_FAILED, what ? what : remedy,
	    "a job stays here, by the rule \"%s\"%s%s", rule, *why ? ": " : "", why);
	return true;
}

static void say_numbers(struct try *t)
{
	const struct record *w = &t->warm, *b = &t->big;
	uint64_t warm = w->committed_us > w->sent_us ? w->committed_us - w->sent_us : 0;
	uint64_t moved = b->committed_us > b->sent_us ? b->committed_us - b->sent_us : 0;

	if (!t->n_records || !warm)
		return;
	say(t->d, CHECK_ROUND_TRIP, FINDING_OK, NULL,
	    "a compile takes %.1f ms, %.1f ms of them on the way; %.1f MB/s there and back",
	    (double)warm / 1000, warm > w->wall_us ? (double)(warm - w->wall_us) / 1000 : 0.0,
	    moved ? 2.0 * BIG_BYTES / (double)moved : 0.0);
}

static const char *last_line(struct buf *b)
{
	char *s, *nl;

	while (b->len && b->data[b->len - 1] == '\n')
		b->len--;
	s = (char *)buf_cstr(b);
	str_defuse(s);
	nl = memrchr(s, '\n', strlen(s));
	return nl ? nl + 1 : s;
}

static void judge(struct try *t)
{
	_cleanup_buf_ struct buf there = BUF_INIT, here = BUF_INIT;
	int r = run_there(t, &there);

	if (r == -ETIMEDOUT || r == CONCC_E_TIMEOUT) {
		say(t->d, CHECK_JOB, FINDING_FAILED, NULL,
		    "a job did not end within %d s; `concc status` during a build says where it "
		    "hangs",
		    LIMIT_MS / 1000);
		return;
	}
	if (say_local(t))
		return;
	if (r != 0) {
		say(t->d, CHECK_JOB, FINDING_FAILED, NULL, "a job failed: %s",
		    r < 0 ? err_text(r) : last_line(&there));
		return;
	}
	if (run_local(t, &here) != 0) {
		say(t->d, CHECK_COMPILER, FINDING_FAILED, NULL, "%s fails here: %s", t->d->compiler,
		    last_line(&here));
		return;
	}
	if (!same_objects(t)) {
		say(t->d, CHECK_TOOLCHAIN, FINDING_FAILED, NULL,
		    "what %s makes there is not byte for byte what it makes here", t->d->compiler);
		return;
	}
	say(t->d, CHECK_TOOLCHAIN, FINDING_OK, NULL, "%s, the same there as here", t->d->compiler);
	say(t->d, CHECK_JOB, FINDING_OK, NULL, "compiled there, byte for byte as here");
	read_records(t);
	say_numbers(t);
}

void trial(struct doctor *d, const struct sight *s)
{
	char *saved[N_OF(changed)];
	struct try t = {.d = d, .s = s};
	struct errmsg msg = {0};

	record_init(&t.warm);
	record_init(&t.big);
	for (size_t i = 0; i < N_OF(changed); i++)
		saved[i] = getenv(changed[i]) ? xstrdup(getenv(changed[i])) : NULL;
	if (make_dir(&t, &msg) < 0) {
		say(d, CHECK_DISK_HERE, FINDING_FAILED, NULL, "%s", msg.text);
	} else {
		set_environment(&t);
		judge(&t);
	}
	for (size_t i = 0; i < N_OF(changed); i++) {
		saved[i] ? (void)setenv(changed[i], saved[i], 1) : (void)unsetenv(changed[i]);
		free(saved[i]);
	}
	if (t.dir)
		(void)path_remove_tree(AT_FDCWD, t.dir); /* a cache's remains are no harm */
	record_release(&t.warm);
	record_release(&t.big);
	free(t.explain);
	free(t.dir);
}
