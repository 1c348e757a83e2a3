/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * coherence DIR ROUNDS SEED COMMAND...: changes files below DIR at random and at
 * once lets jobs look at them.  COMMAND is what runs a job elsewhere
 * ("concc-dispatch"), JOBS of them at a time, so that each worker has one.
 *
 * A round is one to four changes, then one script that tells all there is to
 * know about the paths concerned and some others: existence, type, mode, size,
 * mtime, link targets, bytes, listings.  The same script run here says what is
 * true.  Some changes are made by jobs.  The names are few, so that a path is
 * missing, a file, a directory and a link in turn, again and again.
 *
 * The same seed repeats the same changes.  Stops at the first difference.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define JOBS	     2
#define OUTPUT_MAX   262144
#define HISTORY	     24
#define JOB_LIMIT_MS 60000

static const char *root, *outside;
static char **dispatch;
static uint64_t rng;
static char history[HISTORY][512];
static unsigned n_history, round_no, local_jobs;
static char touched[16][256];
static unsigned n_touched;

static uint32_t random_below(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 33) % n;
}

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
	char *line = history[n_history++ % HISTORY];
	int k = snprintf(line, sizeof(history[0]), "%u: ", round_no);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line + k, sizeof(history[0]) - (size_t)k, fmt, ap);
	va_end(ap);
}

static void fail(const char *what)
{
	printf("FAIL: round %u: %s: %s\n", round_no, what, strerror(errno));
	exit(1);
}

/* ---- names ---- */

static void touch_path(const char *p)
{
	if (n_touched < sizeof(touched) / sizeof(*touched))
		snprintf(touched[n_touched++], sizeof(touched[0]), "%s", p);
}

/* One of 4 + 12 directories. */
static void random_dir(char *ret, size_t n)
{
	uint32_t d = random_below(4), s = random_below(4);

	if (s == 3)
		snprintf(ret, n, "d%u", d);
	else
		snprintf(ret, n, "d%u/s%u", d, s);
}

static void random_file(char *ret, size_t n)
{
	char dir[64];

	random_dir(dir, sizeof(dir));
	snprintf(ret, n, "%s/f%u", dir, random_below(5));
}

static void remove_tree(const char *p)
{
	pid_t pid = fork();
	int st;

	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		execlp("rm", "rm", "-rf", p, (char *)NULL);
		_exit(127);
	}
	waitpid(pid, &st, 0);
}

/* What stands in the way of a directory goes. */
static void make_dir(const char *p)
{
	struct stat st;

	if (lstat(p, &st) == 0 && S_ISDIR(st.st_mode))
		return;
	unlink(p);
	if (mkdir(p, 0755) < 0)
		fail(p);
}

static void make_parents(const char *p)
{
	char part[128];

	for (const char *s = strchr(p, '/'); s; s = strchr(s + 1, '/')) {
		snprintf(part, sizeof(part), "%.*s", (int)(s - p), p);
		make_dir(part);
	}
}

static void clear_for_file(const char *p)
{
	struct stat st;

	make_parents(p);
	if (lstat(p, &st) == 0 && !S_ISREG(st.st_mode))
		remove_tree(p);
}

static size_t random_bytes(char *buf, size_t size)
{
	for (size_t i = 0; i < size; i++)
		buf[i] = (char)('a' + random_below(26));
	if (size)
		buf[size - 1] = '\n';
	return size;
}

/* ---- changes ---- */

static void write_bytes(const char *p, int flags, const char *b, size_t n)
{
	int fd = open(p, O_WRONLY | O_CLOEXEC | flags, 0644);

	if (fd < 0 || write(fd, b, n) != (ssize_t)n)
		fail(p);
	close(fd);
}

static void op_write(const char *p)
{
	char b[8192];
	size_t n = random_bytes(b, random_below(8) == 0 ? sizeof(b) : random_below(60));

	clear_for_file(p);
	write_bytes(p, O_CREAT | O_TRUNC, b, n);
	note("write %s %zu", p, n);
}

/* Same size, and half the time the same mtime too: only the ctime tells. */
static void op_same_size(const char *p)
{
	struct timespec t[2];
	struct stat st;
	char b[8192];

	clear_for_file(p);
	if (lstat(p, &st) < 0 || (size_t)st.st_size > sizeof(b)) {
		op_write(p);
		return;
	}
	write_bytes(p, 0, b, random_bytes(b, (size_t)st.st_size));
	t[0] = st.st_atim;
	t[1] = st.st_mtim;
	bool same_time = random_below(2);
	if (same_time && utimensat(AT_FDCWD, p, t, 0) < 0)
		fail(p);
	note("same size%s %s %ld", same_time ? " and time" : "", p, (long)st.st_size);
}

static void op_append(const char *p)
{
	char b[16];

	clear_for_file(p);
	write_bytes(p, O_CREAT | O_APPEND, b, random_bytes(b, 9));
	note("append %s", p);
}

static void op_replace(const char *p)
{
	char b[200], tmp[160];

	clear_for_file(p);
	snprintf(tmp, sizeof(tmp), "%s.tmp", p);
	write_bytes(tmp, O_CREAT | O_TRUNC, b, random_bytes(b, 1 + random_below(199)));
	if (rename(tmp, p) < 0)
		fail(p);
	touch_path(tmp);
	note("replace %s", p);
}

static void op_mmap(const char *p)
{
	char b[300], *m;
	int fd;

	clear_for_file(p);
	write_bytes(p, O_CREAT | O_TRUNC, b, random_bytes(b, sizeof(b)));
	fd = open(p, O_RDWR | O_CLOEXEC);
	m = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(b), PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		fail(p);
	close(fd);
	random_bytes(m, sizeof(b));
	munmap(m, sizeof(b));
	note("mmap %s", p);
}

static int kept = -1; /* a file that a writer keeps open, opened as kept_path */
static char kept_path[128];

static void close_kept(void)
{
	if (kept >= 0)
		close(kept);
	kept = -1;
}

/* A writer that does not close for a while; the file may get another name meanwhile. */
static void op_keep_open(const char *p)
{
	struct stat st;
	char b[32];

	if (kept >= 0) {
		if (write(kept, b, random_bytes(b, 20)) != 20)
			fail(kept_path);
		touch_path(kept_path);
		note("write through the open file once %s", kept_path);
		if (random_below(3) == 0)
			close_kept();
		return;
	}
	clear_for_file(p);
	if (lstat(p, &st) == 0 && st.st_nlink > 1)
		remove_tree(p);
	kept = open(p, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (kept < 0 || write(kept, b, random_bytes(b, 20)) != 20)
		fail(p);
	snprintf(kept_path, sizeof(kept_path), "%s", p);
	note("open and write %s", p);
}

/*
 * The one thing left out: a write through a descriptor that was opened by one of several names of
 * a file, when that name is gone and the directory of the last one was read since.  The kernel
 * tells nobody of it, and nothing about the file is special any more.
 */
static void close_kept_if(const char *p)
{
	struct stat st, open_st;

	if (kept >= 0 && lstat(p, &st) == 0 && fstat(kept, &open_st) == 0 &&
	    st.st_ino == open_st.st_ino)
		close_kept();
}

static void op_remove(const char *p)
{
	remove_tree(p);
	note("remove %s", p);
}

static void op_chmod(const char *p)
{
	static const mode_t modes[] = {0644, 0755, 0600, 0700, 0444, 0555, 0664};
	mode_t m = modes[random_below(sizeof(modes) / sizeof(*modes))];
	struct stat st;

	if (lstat(p, &st) < 0 || S_ISLNK(st.st_mode)) {
		op_write(p);
		return;
	}
	if (chmod(p, S_ISDIR(st.st_mode) ? m | 0500 : m) < 0)
		fail(p);
	note("chmod %o %s", m, p);
}

static void op_touch(const char *p)
{
	struct timespec t[2] = {
		{.tv_nsec = UTIME_OMIT},
		{.tv_sec = 1600000000 + random_below(1000), .tv_nsec = random_below(999999999)}};

	clear_for_file(p);
	if (access(p, F_OK) < 0)
		op_write(p);
	if (utimensat(AT_FDCWD, p, t, 0) < 0)
		fail(p);
	note("touch %s", p);
}

static void op_symlink(const char *p)
{
	char target[160], other[128];

	random_file(other, sizeof(other));
	if (random_below(4) == 0)
		random_dir(other, sizeof(other));
	if (random_below(3) == 0)
		snprintf(target, sizeof(target), "f%u", random_below(5));
	else
		snprintf(target, sizeof(target), "%s/%s", root, other);
	make_parents(p);
	remove_tree(p);
	if (symlink(target, p) < 0)
		fail(p);
	note("symlink %s -> %s", p, target);
}

static void op_rename(const char *p)
{
	char to[128];

	random_file(to, sizeof(to));
	clear_for_file(p);
	if (access(p, F_OK) < 0)
		op_write(p);
	make_parents(to);
	make_parents(p);
	if (access(p, F_OK) < 0 || strcmp(p, to) == 0)
		return;
	remove_tree(to);
	if (rename(p, to) < 0)
		fail(p);
	touch_path(to);
	note("rename %s %s", p, to);
}

static void op_exchange(const char *p)
{
	char to[128];

	random_file(to, sizeof(to));
	clear_for_file(p);
	clear_for_file(to);
	write_bytes(p, O_CREAT, "one\n", 4);
	write_bytes(to, O_CREAT, "two\n", 4);
	if (renameat2(AT_FDCWD, p, AT_FDCWD, to, RENAME_EXCHANGE) < 0)
		fail(p);
	touch_path(to);
	note("exchange %s %s", p, to);
}

static void op_rename_dir(const char *p)
{
	char from[64], to[64];

	(void)p;
	snprintf(from, sizeof(from), "d%u", random_below(4));
	snprintf(to, sizeof(to), "d%u/s%u", random_below(4), random_below(3));
	if (strncmp(from, to, strlen(from)) == 0)
		return;
	if (random_below(2))
		snprintf(to, sizeof(to), "d%u", random_below(4));
	make_dir(from);
	make_parents(to);
	if (access(from, F_OK) < 0 || strcmp(from, to) == 0)
		return;
	remove_tree(to);
	if (rename(from, to) < 0)
		fail(from);
	touch_path(from);
	touch_path(to);
	note("rename directory %s %s", from, to);
}

/* Leaves the workspace, is changed there, where nobody watches, and comes back. */
static void op_out_and_back(const char *p)
{
	char b[40], inside[200];
	char dir[64];

	(void)p;
	snprintf(dir, sizeof(dir), "d%u", random_below(4));
	make_dir(dir);
	if (rename(dir, outside) < 0)
		fail(dir);
	snprintf(inside, sizeof(inside), "%s/f%u", outside, random_below(5));
	remove_tree(inside);
	write_bytes(inside, O_CREAT | O_TRUNC, b, random_bytes(b, sizeof(b)));
	if (rename(outside, dir) < 0)
		fail(dir);
	snprintf(inside, sizeof(inside), "%s/f%u", dir, random_below(5));
	touch_path(dir);
	touch_path(inside);
	note("out, edit, back %s", dir);
}

static void op_hard_link(const char *p)
{
	char to[128], b[64];

	random_file(to, sizeof(to));
	clear_for_file(p);
	if (access(p, F_OK) < 0)
		op_write(p);
	make_parents(to);
	make_parents(p);
	if (access(p, F_OK) < 0 || strcmp(p, to) == 0)
		return;
	remove_tree(to);
	close_kept_if(p);
	if (link(p, to) < 0)
		fail(p);
	write_bytes(p, O_TRUNC, b, random_bytes(b, sizeof(b)));
	touch_path(to);
	note("link %s %s, write through the first", p, to);
}

static void op_make_tree(const char *p)
{
	char dir[64], f[128], b[64];

	(void)p;
	random_dir(dir, sizeof(dir));
	make_parents(dir);
	remove_tree(dir);
	make_dir(dir);
	for (unsigned i = 0; i < 5; i++) {
		snprintf(f, sizeof(f), "%s/f%u", dir, i);
		write_bytes(f, O_CREAT | O_TRUNC, b, random_bytes(b, sizeof(b)));
		touch_path(f);
	}
	touch_path(dir);
	note("new tree %s", dir);
}

/* ---- jobs ---- */

struct job {
	pid_t pid;
	int fd;
	size_t n;
	int status; /* as the shell's $? */
	char out[OUTPUT_MAX];
};

static struct job jobs[JOBS], truth;

static void start(struct job *j, char *const *argv)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		fail("pipe");
	j->n = 0;
	j->fd = p[0];
	j->pid = fork();
	if (j->pid < 0)
		fail("fork");
	if (j->pid == 0) {
		int null = open("/dev/null", O_RDONLY);

		dup2(null, 0);
		dup2(p[1], 1);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(p[1]);
}

static void start_job(struct job *j, const char *script)
{
	char *argv[32];
	size_t n = 0;

	for (; dispatch[n] && n < 24; n++)
		argv[n] = dispatch[n];
	argv[n++] = "sh";
	argv[n++] = "-c";
	argv[n++] = (char *)script;
	argv[n] = NULL;
	start(j, argv);
}

static void start_here(struct job *j, const char *script)
{
	char *argv[] = {"sh", "-c", (char *)script, NULL};

	start(j, argv);
}

static int finish(struct job *j)
{
	struct pollfd p = {.fd = j->fd, .events = POLLIN};
	ssize_t k;
	int st;

	for (;;) {
		if (poll(&p, 1, JOB_LIMIT_MS) == 0) {
			printf("FAIL: round %u: a job hangs\n", round_no);
			kill(j->pid, SIGTERM);
			exit(1);
		}
		k = read(j->fd, j->out + j->n, OUTPUT_MAX - 1 - j->n);
		if (k < 0)
			fail("read");
		if (k == 0)
			break;
		j->n += (size_t)k;
	}
	j->out[j->n] = 0;
	close(j->fd);
	if (waitpid(j->pid, &st, 0) < 0)
		fail("waitpid");
	j->status = WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
	return j->status;
}

/* A change that a job makes; what it is to leave is checked on the client's disk. */
static void op_by_job(const char *p)
{
	char script[1024], b[40], got[64] = "";
	unsigned what = random_below(3);
	int fd, rc;
	ssize_t k;

	b[random_bytes(b, 20) - 1] = 0;
	clear_for_file(p);
	if (what == 0)
		snprintf(script, sizeof(script), "printf %%s %s >%s", b, p);
	else if (what == 1)
		snprintf(script, sizeof(script), "printf %%s %s >%s.new && mv %s.new %s", b, p, p,
			 p);
	else
		snprintf(script, sizeof(script),
			 "d=$(dirname %s); rm -rf $d; mkdir $d; printf %%s %s >%s", p, b, p);
	note("job: %s", script);
	start_job(&jobs[0], script);
	rc = finish(&jobs[0]);
	fd = open(p, O_RDONLY | O_CLOEXEC);
	k = fd < 0 ? 0 : read(fd, got, sizeof(got) - 1);
	if (fd >= 0)
		close(fd);
	if (rc != 0 || k != (ssize_t)strlen(b) || strcmp(got, b) != 0) {
		printf("FAIL: round %u: a job (status %d) was to leave '%s' in %s, which has '%s'\n",
		       round_no, rc, b, p, got);
		exit(1);
	}
}

typedef void (*op_fn)(const char *p);

static const op_fn ops[] = {op_write,	  op_write,	op_same_size,  op_same_size,
			    op_append,	  op_replace,	op_mmap,       op_remove,
			    op_remove,	  op_chmod,	op_touch,      op_symlink,
			    op_rename,	  op_exchange,	op_rename_dir, op_out_and_back,
			    op_hard_link, op_make_tree, op_by_job,     op_keep_open};

/* ---- looking ---- */

/*
 * Not told of directories: size and times, which no build depends on.  Not of anything: inode,
 * number of links, ctime.
 */
static void look_script(char *ret, size_t n)
{
	char paths[2048] = "", other[128];
	size_t k = 0;

	for (unsigned i = 0; i < 4; i++) {
		random_file(other, sizeof(other));
		touch_path(other);
	}
	for (unsigned i = 0; i < n_touched; i++)
		k += (size_t)snprintf(paths + k, sizeof(paths) - k, " %s", touched[i]);
	random_dir(other, sizeof(other));
	snprintf(
		ret, n,
		"for p in%s; do [ -e $p ] && echo there $p; [ -L $p ] && echo link $p; "
		"[ -x $p ] && echo x $p; done\n"
		"LC_ALL=C; export LC_ALL; find . %s -maxdepth %u \\( -type d -printf '%%p dir %%m\\n' -o "
		"-printf '%%p %%y %%m %%s %%T@ %%l\\n' \\) 2>&1 | sort\n"
		"cat%s 2>&1\n:",
		paths, other, 1 + random_below(3), paths);
}

static void differ(const char *script, const struct job *j)
{
	FILE *f;

	printf("FAIL: round %u: a job (status %d) sees something else\n--- the last changes\n",
	       round_no, j->status);
	for (unsigned i = n_history > HISTORY ? n_history - HISTORY : 0; i < n_history; i++)
		printf("%s\n", history[i % HISTORY]);
	printf("--- looked with\n%s\n", script);
	fflush(stdout);
	f = popen("cat >/srv/truth", "w");
	if (f) {
		fputs(truth.out, f);
		pclose(f);
	}
	f = popen("diff /srv/truth -", "w");
	if (f) {
		fputs(j->out, f);
		pclose(f);
	}
	exit(1);
}

static void look(void)
{
	static char script[8192], marked[8300];

	look_script(script, sizeof(script));
	/* Where it ran: a worker says so in the environment. */
	snprintf(marked, sizeof(marked),
		 "[ -z \"$CONCC_WORKER\" ] && echo at home || echo away\n%s", script);
	for (unsigned i = 0; i < JOBS; i++)
		start_job(&jobs[i], marked);
	start_here(&truth, script);
	finish(&truth);
	for (unsigned i = 0; i < JOBS; i++) {
		char *rest;

		finish(&jobs[i]);
		rest = strchr(jobs[i].out, '\n');
		if (strncmp(jobs[i].out, "at home\n", 8) == 0)
			local_jobs++;
		if (!rest || jobs[i].status != 0)
			differ(script, &jobs[i]);
		memmove(jobs[i].out, rest + 1, strlen(rest + 1) + 1);
		if (strcmp(jobs[i].out, truth.out) != 0)
			differ(script, &jobs[i]);
	}
}

int main(int argc, char **argv)
{
	char path[128], out[256];
	unsigned rounds;
	uint64_t seed;

	if (argc < 5) {
		fprintf(stderr, "usage: coherence DIR ROUNDS SEED COMMAND...\n");
		return 125;
	}
	root = argv[1];
	rounds = (unsigned)atoi(argv[2]);
	seed = strtoull(argv[3], NULL, 10);
	dispatch = argv + 4;
	rng = seed * 0x9E3779B97F4A7C15u + 1;
	snprintf(out, sizeof(out), "%s.outside", root);
	outside = out;
	setvbuf(stdout, NULL, _IOLBF, 0);
	umask(022);
	if (chdir(root) < 0)
		fail(root);
	for (round_no = 1; round_no <= rounds; round_no++) {
		unsigned n = 1 + random_below(4);

		n_touched = 0;
		while (n--) {
			random_file(path, sizeof(path));
			touch_path(path);
			ops[random_below(sizeof(ops) / sizeof(*ops))](path);
		}
		look();
	}
	printf("note: %u rounds, %u jobs looked, %u of them at home (seed %llu)\n", rounds,
	       rounds * JOBS, local_jobs, (unsigned long long)seed);
	return local_jobs ? 2 : 0;
}
