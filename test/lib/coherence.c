/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * coherence DIR STEPS SEED COMMAND...: changes a tree at random and lets jobs
 * look at it at once.  COMMAND is what runs a job elsewhere ("concc-dispatch"),
 * JOBS of them at a time, so that each worker has one.
 *
 * A round is some steps (fsops.h), from one to hundreds, then two jobs that
 * tell all there is to know (fslook.h) of the paths concerned and of some
 * others, or of the whole tree.  What the same code says here, at the time the
 * jobs were sent, is true.  Now and then a job makes the steps itself: it must
 * leave what they leave in a copy of the tree here.
 *
 * The same seed repeats the same steps.  Stops at the first difference, with
 * the steps since that path was last right that had to do with it.
 *
 * With FLOOD=n in the environment every n-th round makes more events than the
 * kernel's queue takes while the server (found by its name) does not read.
 *
 * coherence look FLAGS: what a job does: reads paths, or "walk" and a path,
 * from standard input and tells of each.
 * coherence do SEED STEPS: makes steps, in a job or a copy.
 */
#include <dirent.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <time.h>

#include "fslook.h"
#include "fsops.h"

#define JOBS	     2
#define OUTPUT_MAX   (8 * 1024 * 1024)
#define JOB_LIMIT_MS 120000
#define PATHS_MAX    4096
#define LAST_LINE    "end of what there is"

static char root[PATH_MAX], shadow[PATH_MAX + 16], program[PATH_MAX + 32];
static char word_look[] = "look", word_do[] = "do";
static char **dispatch;
static bool only_looks; /* of files, as by a file system of whole seconds */
static unsigned round_no, steps_done, local_jobs, local_looks, looks, paths_seen, job_rounds,
	floods;
static unsigned long long seed_given;

/* ---- what was done ---- */

struct step {
	unsigned round;
	char *text;
};
static struct step *steps;
static size_t n_steps;

static void note(const char *fmt, ...)
{
	struct step *s;
	va_list ap;

	if (!(n_steps % 1024))
		steps = realloc(steps, (n_steps + 1024) * sizeof(*steps));
	s = &steps[n_steps++];
	s->round = round_no;
	va_start(ap, fmt);
	if (vasprintf(&s->text, fmt, ap) < 0)
		abort();
	va_end(ap);
	steps_done++;
}

static char *touched[PATHS_MAX];
static unsigned n_touched;

static void touch_path(const char *p)
{
	for (unsigned i = n_touched > 32 ? n_touched - 32 : 0; i < n_touched; i++)
		if (strcmp(touched[i], p) == 0)
			return;
	if (n_touched < PATHS_MAX)
		touched[n_touched++] = strdup(p);
}

static void forget_touched(void)
{
	while (n_touched)
		free(touched[--n_touched]);
}

static void fail_in(const char *where, const char *what)
{
	printf("FAIL: round %u: %s: %s: %s\n", round_no, where, what, strerror(errno));
	exit(1);
}

/* ---- when was a path right? ---- */

static struct {
	char *path;
	unsigned round;
} right[1 << 15];

static unsigned *right_at(const char *path)
{
	size_t i = look_hash(14695981039346656037u, path, strlen(path)) %
		   (sizeof(right) / sizeof(*right));

	while (right[i].path && strcmp(right[i].path, path) != 0)
		i = (i + 1) % (sizeof(right) / sizeof(*right));
	if (!right[i].path)
		right[i].path = strdup(path);
	return &right[i].round;
}

/* The step names path, something in it, or a directory on the way to it. */
static bool concerns(const char *text, const char *path)
{
	char word[PATH_MAX];
	int n;

	for (; sscanf(text, " %[^ ,]%n", word, &n) == 1; text += n + strspn(text + n, " ,"))
		if (word[0] == 'd' && overlap(word, path))
			return true;
	return false;
}

static void trace(const char *path, const char *why)
{
	unsigned since = *right_at(path), n = 0;
	char target[PATH_MAX];
	ssize_t k = readlink(path, target, sizeof(target) - 1);

	printf("--- %s: the steps since round %u, when it was right\n", why, since);
	for (size_t i = 0; i < n_steps; i++)
		if (steps[i].round >= since && concerns(steps[i].text, path) && n++ < 60)
			printf("%u: %s\n", steps[i].round, steps[i].text);
	if (k > 0) {
		target[k] = '\0';
		printf("--- it is a link to %s\n", target);
	}
}

/* ---- jobs ---- */

struct job {
	pid_t pid;
	int fd;
	size_t n;
	int status; /* as the shell's $? */
	char *out;
	char err[4096];
	bool at_home;
	FILE *err_file;
};

static struct job jobs[JOBS];

static void start(struct job *j, char *const *args, FILE *input)
{
	char *argv[64];
	size_t n = 0;
	int p[2];

	for (; dispatch[n] && n < 24; n++)
		argv[n] = dispatch[n];
	while (*args && n < 63)
		argv[n++] = *args++;
	argv[n] = NULL;
	if (pipe2(p, O_CLOEXEC) < 0)
		fail("pipe");
	j->err_file = tmpfile();
	j->n = 0;
	j->fd = p[0];
	fflush(stdout);
	j->pid = fork();
	if (j->pid < 0)
		fail("fork");
	if (j->pid == 0) {
		char again[64]; /* an offset of its own */
		int in;

		snprintf(again, sizeof(again), "/proc/self/fd/%d", input ? fileno(input) : -1);
		in = open(input ? again : "/dev/null", O_RDONLY);
		if (in < 0 || dup2(in, 0) < 0 || dup2(p[1], 1) < 0 ||
		    dup2(fileno(j->err_file), 2) < 0)
			_exit(126);
		setenv("CONCC_EXPLAIN", "1", 1);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(p[1]);
}

static void finish(struct job *j)
{
	struct pollfd p = {.fd = j->fd, .events = POLLIN};
	ssize_t k;
	int st;

	if (!j->out)
		j->out = malloc(OUTPUT_MAX);
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
	rewind(j->err_file);
	j->err[fread(j->err, 1, sizeof(j->err) - 1, j->err_file)] = '\0';
	fclose(j->err_file);
	j->at_home = !strstr(j->err, "concc: remote on ");
}

static void odd_end(const struct job *j, const char *what)
{
	printf("FAIL: round %u: %s: status %d, %zu bytes of output (repeat with SEED=%llu)\n%s\n%s\n",
	       round_no, what, j->status, j->n, seed_given, j->err, j->out);
	exit(1);
}

/* ---- looking ---- */

static int look_main(unsigned flags)
{
	static char line[PATH_MAX + 8];

	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "walk ", 5) == 0)
			look_walk(stdout, line + 5, flags);
		else
			look_at_path(stdout, line, flags);
	}
	puts(LAST_LINE);
	return fflush(stdout) == 0 ? 0 : 1;
}

/* The paths to look at; each job gets them in an order of its own. */
static FILE *list_paths(unsigned which, char **v, unsigned n, bool walk)
{
	FILE *f = tmpfile();

	if (!f)
		fail("tmpfile");
	if (walk && which)
		fprintf(f, "walk .\n");
	for (unsigned i = 0; i < n; i++)
		fprintf(f, "%s\n", v[which ? n - 1 - i : i]);
	if (walk && !which)
		fprintf(f, "walk .\n");
	fflush(f);
	return f;
}

static char *truth_of(FILE *list, unsigned flags)
{
	char *out = NULL, line[PATH_MAX + 8];
	size_t n;
	FILE *f = open_memstream(&out, &n);

	rewind(list);
	while (fgets(line, sizeof(line), list)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "walk ", 5) == 0)
			look_walk(f, line + 5, flags);
		else
			look_at_path(f, line, flags);
	}
	fprintf(f, LAST_LINE "\n");
	fclose(f);
	return out;
}

static const char *path_of(const char *line, char *buf, size_t n)
{
	snprintf(buf, n, "%.*s", (int)strcspn(line, " \n"), line);
	return strncmp(buf, "./", 2) == 0 ? buf + 2 : buf;
}

/* What is open for writing here does not run here (ETXTBSY), and does elsewhere. */
static void forgive_busy(char *t, char *s)
{
	char *here = strstr(t, " ran=:126"), *there = strstr(s, " ran=");

	if (here && there)
		*here = *there = '\0';
}

/* Says what differs, line by line, and ends. */
static void compare(char *truth, char *seen, const char *who)
{
	char buf[PATH_MAX], *t_save, *s_save;
	char *t = strtok_r(truth, "\n", &t_save), *s = strtok_r(seen, "\n", &s_save);
	unsigned wrong = 0;

	while (t && s && wrong < 5) {
		forgive_busy(t, s);
		if (strcmp(t, s) == 0) {
			*right_at(path_of(t, buf, sizeof(buf))) = round_no;
			paths_seen++;
		} else {
			wrong++;
			printf("true: %s\nseen: %s\n", t, s);
			trace(path_of(t, buf, sizeof(buf)), path_of(t, buf, sizeof(buf)));
			if (strcmp(path_of(t, buf, sizeof(buf)), path_of(s, buf, sizeof(buf))) != 0)
				break; /* a name more or less: the rest is shifted */
		}
		t = strtok_r(NULL, "\n", &t_save);
		s = strtok_r(NULL, "\n", &s_save);
	}
	if (!wrong && !t && !s)
		return;
	if (!wrong)
		printf("true: %s\nseen: %s\n", t ? t : "(end)", s ? s : "(end)");
	printf("FAIL: round %u, step %u: %s differs (repeat with SEED=%llu)\n", round_no,
	       steps_done, who, seed_given);
	exit(1);
}

static void look(void)
{
	char flags[16], other[256];
	char *const argv[] = {program, word_look, flags, NULL};
	FILE *lists[JOBS];
	char *truth[JOBS];
	bool walk = random_below(8) == 0;
	unsigned f = random_below(4) == 0 ? LOOK_EXEC : 0;

	if (only_looks)
		f |= LOOK_SFTP;

	snprintf(flags, sizeof(flags), "%u", f);
	for (unsigned i = 0; i < 12; i++) {
		random_file(other, sizeof(other));
		touch_path(other);
	}
	random_dir(other, sizeof(other));
	touch_path(other);
	for (unsigned i = 0; i < JOBS; i++) {
		lists[i] = list_paths(i, touched, n_touched, walk);
		start(&jobs[i], argv, lists[i]);
	}
	for (unsigned i = 0; i < JOBS; i++)
		truth[i] = truth_of(lists[i], f);
	for (unsigned i = 0; i < JOBS; i++) {
		finish(&jobs[i]);
		if (jobs[i].status != 0 || !strstr(jobs[i].out, LAST_LINE "\n"))
			odd_end(&jobs[i], "a job that looks did not end well");
		compare(truth[i], jobs[i].out, i ? "what the second job sees" : "what a job sees");
		free(truth[i]);
		fclose(lists[i]);
		looks++;
		if (jobs[i].at_home && !local_looks++)
			printf("note: looked at home: %s\n", jobs[i].err);
	}
}

/* ---- changes by jobs ---- */

static int do_main(uint64_t seed, unsigned n)
{
	in_job = true;
	umask(022);
	random_seed(seed);
	for (unsigned i = 0; i < n; i++)
		random_step();
	for (size_t i = 0; i < n_steps; i++)
		printf("%s\n", steps[i].text);
	puts(LAST_LINE);
	return fflush(stdout) == 0 ? 0 : 1;
}

static void run(const char *dir, char *const *argv, char **ret_out)
{
	char *out = calloc(1, OUTPUT_MAX);
	size_t n = 0;
	ssize_t k;
	int p[2], st;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		fail("pipe");
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		if (dup2(p[1], 1) < 0 || chdir(dir) < 0)
			_exit(126);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(p[1]);
	while ((k = read(p[0], out + n, OUTPUT_MAX - 1 - n)) > 0)
		n += (size_t)k;
	close(p[0]);
	if (pid < 0 || waitpid(pid, &st, 0) < 0 || st != 0) {
		printf("FAIL: round %u: %s here: status %#x\n%s\n", round_no, argv[0], st, out);
		exit(1);
	}
	if (ret_out)
		*ret_out = out;
	else
		free(out);
}

/* The same steps by a job here and in a copy: both must be the same then. */
static void by_job(void)
{
	char seed[32], count[16], *out, *truth, *seen, *line, *save;
	char cp[] = "cp", all[] = "-a";
	/* What a job does to one of several names of a file is not as it is here: see
	 * doc/limits.md. */
	char sh[] = "sh", c[] = "-c";
	char script[] = "find . -type f -links +1 | while read -r f; do "
			"cp -p \"$f\" \"$f.cp\" && mv \"$f.cp\" \"$f\" || exit 1; done";
	char *const part[] = {sh, c, script, NULL};
	char *const copy[] = {cp, all, root, shadow, NULL};
	char *const here[] = {program, word_do, seed, count, NULL};
	FILE *list = tmpfile();

	snprintf(seed, sizeof(seed), "%u", random_below(1u << 30));
	snprintf(count, sizeof(count), "%u", 1 + random_below(12));
	close_kept();
	run(root, part, NULL);
	note("no file has two names any more");
	run("/", copy, NULL);
	run(shadow, here, &out);
	start(&jobs[0], here, NULL);
	finish(&jobs[0]);
	for (line = strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (strcmp(line, LAST_LINE) != 0)
			note("job (do %s %s): %s", seed, count, line);
	if (jobs[0].status != 0 || !strstr(jobs[0].out, LAST_LINE "\n"))
		odd_end(&jobs[0], "a job that changes did not end well");
	fprintf(list, "walk .\n");
	seen = truth_of(list, LOOK_OLD_TIME);
	if (chdir(shadow) < 0)
		fail(shadow);
	truth = truth_of(list, LOOK_OLD_TIME);
	if (chdir(root) < 0)
		fail(root);
	compare(truth, seen, "what a job left");
	remove_tree(shadow);
	for (size_t i = n_steps; i-- && steps[i].round == round_no;) {
		char word[PATH_MAX];
		const char *t = strstr(steps[i].text, "): ");
		int n;

		for (t = t ? t + 3 : ""; sscanf(t, " %[^ ,]%n", word, &n) == 1;
		     t += n + strspn(t + n, " ,"))
			if (word[0] == 'd' && word[1] >= '0' && word[1] <= '3')
				touch_path(word);
	}
	free(truth);
	free(seen);
	free(out);
	fclose(list);
	job_rounds++;
	local_jobs += jobs[0].at_home;
}

/* ---- more events than the queue takes ---- */

static pid_t server_pid(void)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	pid_t pid = 0;

	while (d && !pid && (e = readdir(d))) {
		char p[300], comm[32] = "";
		FILE *f;

		snprintf(p, sizeof(p), "/proc/%s/comm", e->d_name);
		f = e->d_name[0] >= '1' && e->d_name[0] <= '9' ? fopen(p, "r") : NULL;
		if (f && fgets(comm, sizeof(comm), f) && strcmp(comm, "concc-project\n") == 0)
			pid = atoi(e->d_name);
		if (f)
			fclose(f);
	}
	if (d)
		closedir(d);
	return pid;
}

static unsigned queue_length(void)
{
	FILE *f = fopen("/proc/sys/fs/inotify/max_queued_events", "r");
	unsigned n = 16384;

	if (f && fscanf(f, "%u", &n) != 1)
		n = 16384;
	if (f)
		fclose(f);
	return n;
}

/* When it returns, the process does nothing more. */
static void suspend(pid_t pid)
{
	char command[256];

	(void)snprintf(command, sizeof(command), "\"$LAB_TOOLS/stop\" 60 %d", (int)pid);
	if (system(command) != 0) {
		fprintf(stderr, "can't stop process %d\n", (int)pid);
		exit(EXIT_FAILURE);
	}
}

/* Runs the steps while nobody reads the queue, which is full before. */
static void flood(unsigned n)
{
	pid_t pid = server_pid();
	unsigned events = queue_length() + 100;
	char name[64];

	if (pid)
		suspend(pid);
	make_dir("d0");
	for (unsigned i = 0; i < events; i += 3) {
		snprintf(name, sizeof(name), "d0/flood%u", i % 7);
		write_bytes(name, O_CREAT, "x", 1);
		unlink(name);
	}
	note("%u events in d0", events);
	while (n--)
		random_step();
	if (pid)
		kill(pid, SIGCONT);
	floods++;
}

/* ---- rounds ---- */

static unsigned steps_of_round(void)
{
	switch (random_below(10)) {
	case 0:
		return 60 + random_below(240);
	case 1:
	case 2:
	case 3:
		return 5 + random_below(55);
	default:
		return 1 + random_below(4);
	}
}

static int remove_special(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	if (!S_ISFIFO(st->st_mode) && !S_ISSOCK(st->st_mode))
		return 0;
	if (unlink(path) < 0)
		fail(path);
	touch_path(path + strlen("./"));
	note("remove %s", path);
	return 0;
}

/* A job that looks at such ends, and runs here: test/integration/fifo.sh. */
static void remove_specials(void)
{
	if (nftw(".", remove_special, 32, FTW_PHYS) < 0)
		fail("nftw");
}

static void one_round(unsigned flood_every)
{
	unsigned n = steps_of_round();

	forget_touched();
	forget_links();
	if (flood_every && round_no % flood_every == 0)
		flood(n);
	else
		while (n--)
			random_step();
	remove_specials();
	if (random_below(6) == 0 && !only_looks)
		by_job();
	remove_specials();
	look();
}

static void copy_program(char *self)
{
	char cp[] = "cp";
	char *const argv[] = {cp, self, program, NULL};

	run("/", argv, NULL);
}

int main(int argc, char **argv)
{
	char out[PATH_MAX + 16], self[PATH_MAX];
	const char *every = getenv("FLOOD");
	unsigned n;
	ssize_t k;

	if (argc == 3 && strcmp(argv[1], "look") == 0)
		return look_main((unsigned)atoi(argv[2]));
	if (argc == 4 && strcmp(argv[1], "do") == 0)
		return do_main(strtoull(argv[2], NULL, 10), (unsigned)atoi(argv[3]));
	if (argc < 5) {
		fprintf(stderr, "usage: coherence DIR STEPS SEED COMMAND...\n");
		return 125;
	}
	k = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[k > 0 ? k : 0] = '\0';
	if (!realpath(argv[1], root))
		fail(argv[1]);
	n = (unsigned)atoi(argv[2]);
	seed_given = strtoull(argv[3], NULL, 10);
	dispatch = argv + 4;
	only_looks = getenv("ONLY_LOOKS") != NULL;
	random_seed(seed_given);
	snprintf(out, sizeof(out), "%s.outside", root);
	snprintf(shadow, sizeof(shadow), "%s.shadow", root);
	snprintf(program, sizeof(program), "%s.look", root);
	outside = out;
	setvbuf(stdout, NULL, _IOLBF, 0);
	umask(022);
	copy_program(self);
	if (chdir(root) < 0)
		fail(root);
	for (round_no = 1; steps_done < n; round_no++)
		one_round(every ? (unsigned)atoi(every) : 0);
	printf("note: %u steps in %u rounds, %u jobs saw %u paths as they were, %u at home; %u jobs made "
	       "changes, %u at home; %u floods (seed %llu)\n",
	       steps_done, round_no - 1, looks, paths_seen, local_looks, job_rounds, local_jobs,
	       floods, seed_given);
	return local_looks ? 2 : 0;
}
