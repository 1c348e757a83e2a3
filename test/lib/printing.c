/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Jobs that print while they make, change, move, link and remove files: what
 * they print, how they end and what they leave is what the same operations do
 * here.
 *
 * printing rounds MODE HERE THERE STEPS SEED COMMAND...
 *
 * HERE and THERE are two directories with nothing in them.  In each round some
 * random operations (printplan.h) are done in HERE, and repeated in THERE by
 * "COMMAND ../printing run ../script"; after it the two must be the same.  Each
 * begins with what the last has left.  When a job has said "sync" it waits for
 * an answer: what it did until then has had its effect, or not.
 *
 *	alone	nobody else writes: THERE is untouched until the job ends
 *	times	the same, and what is promised of files' times
 *	closed	the same, and directories get other modes
 *	linked	files that were there get further names, and are asked about, and directories
 *		that were there are moved: COMMAND may run it here then
 *	others	others change other files, in the same directories, at each sync
 *	same	once in a round somebody changes a file that the job has to do with.
 *		What is left is what the two leave in some order, without the job
 *	lost	once in a round the worker is killed; before the next the command in
 *		$PRINTING_BEFORE is run, which waits until there is one again
 *	plain	COMMAND runs it here; times too
 *
 * printing make SEED N FLAGS SCRIPT TIMES, printing run SCRIPT: one round.
 * printing tree: all there is to know of the current directory, but for times.
 *
 * The same seed repeats all of it.  Stops at the first difference.
 */
#include <poll.h>
#include <time.h>

#include "printplan.h"

#define OUTPUT_MAX (16 * 1024 * 1024)
#define LIMIT_MS   120000
#define SYNCS_MAX  64
/* Younger than this when a job begins, a time can't be told from one that the job set. */
#define YOUNG_NS 50000000

enum mode { ALONE, TIMES, CLOSED, LINKED, OTHERS, SAME, LOST, PLAIN, N_MODES };
static const char *const mode_names[N_MODES] = {"alone",  "times", "closed", "linked",
						"others", "same",  "lost",   "plain"};

static enum mode mode;
static char here[PATH_MAX], there[PATH_MAX];
static char **command;
static unsigned long long seed_given, round_seed;
static unsigned round_no, steps_done, n_killed, n_at_home, n_foreign, n_tree_looks, n_lines;

static void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void fail(const char *fmt, ...)
{
	va_list ap;

	printf("FAIL: round %u: ", round_no);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf(" (repeat with SEED=%llu)\n", seed_given);
	fflush(stdout);
	exit(1);
}

static void go_to(const char *dir)
{
	if (chdir(dir) < 0)
		fail("%s: %s", dir, strerror(errno));
}

/* One change of something that the script names, and what it returned. */
static struct {
	unsigned at; /* sync; 0: before all, one more than there are: after all */
	unsigned kind;
	uint64_t rng;
	char path[128];
	long returned;
} change;

/* ---- what a tree is ---- */

static FILE *one_files;
struct linked {
	ino_t ino;
	char first[128];
};
static struct linked linked[2000];
static size_t n_linked;

static void tell_links(const char *path, const struct stat *st)
{
	if (S_ISDIR(st->st_mode) || st->st_nlink < 2)
		return;
	for (size_t i = 0; i < n_linked; i++) {
		if (linked[i].ino != st->st_ino)
			continue;
		fprintf(one_files, "%s is %s\n", path, linked[i].first);
		return;
	}
	if (n_linked == sizeof(linked) / sizeof(*linked))
		fail("too many links");
	linked[n_linked].ino = st->st_ino;
	snprintf(linked[n_linked++].first, sizeof(linked[0].first), "%s", path);
}

/* All of it, and which names are one file; with all times when they are to be the very same. */
static char *tree_text(const char *dir, bool times)
{
	char *text = NULL;
	size_t n;

	go_to(dir);
	one_files = open_memstream(&text, &n);
	look_walk(one_files, ".", times ? LOOK_DIR_TIME : LOOK_NO_TIME);
	n_linked = 0;
	each_path(".", tell_links);
	fclose(one_files);
	n_tree_looks++;
	return text;
}

/* The operations of all rounds that name a path, or something on the way to it; or of this round.
 */
static void show_script(const char *path)
{
	char line[LINE_MAX_], copy[LINE_MAX_], *save;
	FILE *f = fopen(path ? "../history" : "../script", "r");

	if (path)
		printf("--- the operations of all rounds on %s:\n", path);
	else
		printf("--- the operations:\n");
	while (f && fgets(line, sizeof(line), f)) {
		bool named = !path;

		strcpy(copy, line);
		for (char *p = strtok_r(copy, " \n", &save); p && !named;
		     p = strtok_r(NULL, " \n", &save))
			named = *p == 'd' && strchr("/", path[strlen(p)]) && strchr(p, '/') &&
				strncmp(p, path, strlen(p)) == 0;
		if (named)
			printf("    %s", line);
	}
	if (f)
		fclose(f);
}

/* Each line with its round in front. */
static void remember_script(void)
{
	char line[LINE_MAX_];
	FILE *f = fopen("../script", "r"), *to = fopen("../history", "a");

	while (f && to && fgets(line, sizeof(line), f))
		fprintf(to, "%u: %s", round_no, line);
	if (to && change.at)
		fprintf(to, "%u: at sync %u: %u %s\n", round_no, change.at, change.kind,
			change.path);
	if (f)
		fclose(f);
	if (to)
		fclose(to);
}

/* Says where two texts differ, and ends. */
static void expect_same(const char *what, const char *want, const char *got)
{
	const char *w = want, *g = got;
	char name[256];

	while (*w && *w == *g)
		w++, g++;
	if (!*w && !*g)
		return;
	while (w > want && w[-1] != '\n')
		w--, g--;
	printf("here:  %.*s\nthere: %.*s\n", (int)strcspn(w, "\n"), w, (int)strcspn(g, "\n"), g);
	go_to(here);
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(bare(w), " \n"), bare(w));
	if (strncmp(name, "d", 1) == 0)
		show_script(name);
	show_script(NULL);
	fail("%s differs", what);
}

/* ---- times ---- */

struct dated {
	char path[128];
	struct timespec t;
};
struct dates {
	struct dated d[4000];
	size_t n;
	struct timespec began;
};
static struct dates before_here, before_there, *taking;

static void take_date(const char *path, const struct stat *st)
{
	struct dated *d = &taking->d[taking->n];

	if (taking->n == sizeof(taking->d) / sizeof(taking->d[0]))
		fail("too many names");
	taking->n++;
	snprintf(d->path, sizeof(d->path), "%s", path);
	d->t = st->st_mtim;
}

static void take_dates(const char *dir, struct dates *ret)
{
	go_to(dir);
	ret->n = 0;
	taking = ret;
	each_path(".", take_date);
	clock_gettime(CLOCK_REALTIME_COARSE, &ret->began);
}

static const struct timespec *date_of(const struct dates *d, const char *path)
{
	for (size_t i = 0; i < d->n; i++)
		if (strcmp(d->d[i].path, path) == 0)
			return &d->d[i].t;
	return NULL;
}

static int64_t ns(const struct timespec *t)
{
	return (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
}

struct tick {
	unsigned n;
	int64_t ns;
	char path[128];
};

static int by_tick(const void *a, const void *b)
{
	const struct tick *x = a, *y = b;

	return x->n < y->n ? -1 : x->n > y->n;
}

/* What was written by the clock: in order, and while the job ran. */
static void check_ticks(struct tick *t, size_t n, const char *dir, const struct dates *before)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (n)
		qsort(t, n, sizeof(*t), by_tick);
	for (size_t i = 0; i < n; i++) {
		if (t[i].ns < ns(&before->began) || t[i].ns > ns(&now))
			fail("%s/%s was written at a time when nothing ran", dir, t[i].path);
		if (i && t[i].n == t[i - 1].n && t[i].ns != t[i - 1].ns)
			fail("%s: %s has not the time of %s", dir, t[i].path, t[i - 1].path);
		if (i && t[i].ns < t[i - 1].ns)
			fail("%s: %s is older than %s, which was written before, by %lld ns", dir,
			     t[i].path, t[i - 1].path, (long long)(t[i - 1].ns - t[i].ns));
	}
}

/* printplan.h, plan_times(), says what is promised. */
static void check_times(const char *dir, const struct dates *before)
{
	static struct tick ticks[4000];
	char kind[16], path[128], arg[128];
	size_t n = 0;
	FILE *f;

	go_to(dir);
	f = fopen("../times", "r");
	while (f && fscanf(f, "%15s %127s %127s", kind, path, arg) == 3) {
		const struct timespec *was = date_of(before, arg);
		struct stat st;
		long long s = 0, part = 0;

		if (lstat(path, &st) < 0)
			fail("%s/%s: %s", dir, path, strerror(errno));
		if (strcmp(kind, "old") == 0 && was && ns(was) < ns(&before->began) - YOUNG_NS &&
		    ns(was) != ns(&st.st_mtim))
			fail("%s/%s has not the time that %s had before: %lld, not %lld", dir, path,
			     arg, (long long)ns(&st.st_mtim), (long long)ns(was));
		if (strcmp(kind, "set") == 0 &&
		    (sscanf(arg, "%lld.%lld", &s, &part) != 2 || s != st.st_mtim.tv_sec ||
		     part != st.st_mtim.tv_nsec))
			fail("%s/%s has not the time that was set", dir, path);
		if (strcmp(kind, "clock") == 0 && n < sizeof(ticks) / sizeof(*ticks)) {
			ticks[n].n = (unsigned)atoi(arg);
			ticks[n].ns = ns(&st.st_mtim);
			snprintf(ticks[n++].path, sizeof(ticks[0].path), "%s", path);
		}
	}
	if (!f)
		fail("no times");
	fclose(f);
	check_ticks(ticks, n, dir, before);
}

static unsigned age_n;

static void age_one(const char *path, const struct stat *st)
{
	struct timespec t[2] = {{.tv_nsec = UTIME_OMIT},
				{.tv_sec = 1500000000 + age_n++, .tv_nsec = 1000}};

	(void)st;
	if (utimensat(AT_FDCWD, path, t, AT_SYMLINK_NOFOLLOW) < 0)
		fail("%s: %s", path, strerror(errno));
}

/* Old times, the same in both. */
static void make_old(void)
{
	const char *const dirs[] = {here, there};

	for (int i = 0; i < 2; i++) {
		go_to(dirs[i]);
		age_n = 0;
		each_path(".", age_one);
	}
}

/* ---- runs ---- */

struct run {
	const char *dir;
	pid_t pid;
	int in;
	struct pollfd out[2]; /* the second is closed when the two are one */
	char *text[2];
	size_t n[2];
	size_t seen; /* of the first, looked at for syncs */
	unsigned syncs;
	bool answered; /* once and for all */
	int status;
	bool merged; /* both streams are the first */
	void (*on_sync)(struct run *r, unsigned n);
};

static struct run run_here, run_there, run_candidate;
static char words[1024]; /* of concc's own, in the last run that had any */

/* Lines of concc's own are not the job's. */
static void drop_words(char *text)
{
	char *to = text;

	for (char *p = text; *p;) {
		size_t n = strcspn(p, "\n");

		n += p[n] == '\n';
		if (strncmp(p, "concc: ", 7) != 0) {
			memmove(to, p, n);
			to += n;
		}
		p += n;
	}
	*to = '\0';
}

static void start(struct run *r, char *const *argv, bool merged, mode_t mask)
{
	int in[2], out[2], err[2];

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
		fail("pipe: %s", strerror(errno));
	fflush(stdout);
	r->pid = fork();
	if (r->pid < 0)
		fail("fork: %s", strerror(errno));
	if (r->pid == 0) {
		if (chdir(r->dir) < 0 || dup2(in[0], 0) < 0 || dup2(out[1], 1) < 0 ||
		    dup2(merged ? out[1] : err[1], 2) < 0)
			_exit(126);
		umask(mask);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	close(err[1]);
	r->in = in[1];
	r->merged = merged;
	r->out[0] = (struct pollfd){.fd = out[0], .events = POLLIN};
	r->out[1] = (struct pollfd){.fd = err[0], .events = POLLIN};
	for (int i = 0; i < 2; i++)
		if (!r->text[i])
			r->text[i] = malloc(OUTPUT_MAX);
	r->n[0] = r->n[1] = r->seen = 0;
	r->syncs = 0;
	r->answered = false;
}

static void answer(struct run *r, unsigned times)
{
	while (times--)
		if (write(r->in, "\n", 1) < 0 && errno != EPIPE)
			fail("write: %s", strerror(errno));
}

/* Whatever it asks from now on is answered. */
static void answer_all(struct run *r)
{
	answer(r, SYNCS_MAX);
	r->answered = true;
}

static void look_for_syncs(struct run *r)
{
	const char *p, *nl;

	r->text[0][r->n[0]] = '\0';
	while ((nl = strchr(r->text[0] + r->seen, '\n'))) {
		p = r->text[0] + r->seen;
		r->seen = (size_t)(nl - r->text[0]) + 1;
		if (strncmp(p, "sync ", 5) != 0)
			continue;
		r->syncs++;
		if (r->on_sync)
			r->on_sync(r, r->syncs);
		if (!r->answered)
			answer(r, 1);
	}
}

static void finish(struct run *r)
{
	const char *told;

	while (r->out[0].fd >= 0 || r->out[1].fd >= 0) {
		if (poll(r->out, 2, LIMIT_MS) == 0) {
			kill(r->pid, SIGTERM);
			show_script(NULL);
			fail("it hangs in %s after %u syncs", r->dir, r->syncs);
		}
		for (int i = 0; i < 2; i++) {
			ssize_t k;

			if (!r->out[i].revents)
				continue;
			k = read(r->out[i].fd, r->text[i] + r->n[i], OUTPUT_MAX - 1 - r->n[i]);
			if (k > 0) {
				r->n[i] += (size_t)k;
				continue;
			}
			close(r->out[i].fd);
			r->out[i].fd = -1;
		}
		look_for_syncs(r);
	}
	close(r->in);
	if (waitpid(r->pid, &r->status, 0) < 0)
		fail("waitpid: %s", strerror(errno));
	r->text[0][r->n[0]] = r->text[1][r->n[1]] = '\0';
	told = strstr(r->text[r->merged ? 0 : 1], "concc: ");
	if (r == &run_there && told) {
		snprintf(words, sizeof(words), "%s", told);
		n_at_home++;
	}
	if (mode == LOST || mode == SAME || mode == LINKED)
		drop_words(r->text[r->merged ? 0 : 1]);
}

static void run_tool(char *const *argv)
{
	int st;
	pid_t pid = fork();

	if (pid == 0) {
		execvp(argv[0], argv);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &st, 0) < 0 || st != 0)
		fail("%s %s %s: status %#x", argv[0], argv[1], argv[2], st);
}

static void copy_tree(char *from, char *to)
{
	char cp[] = "cp", all[] = "-aT", rm[] = "rm", rf[] = "-rf";

	go_to("/");
	run_tool((char *const[]){rm, rf, to, NULL});
	run_tool((char *const[]){cp, all, from, to, NULL});
}

/* ---- somebody else ---- */

static char expected[OUTPUT_MAX]; /* what THERE is, while a job runs */

static void expect_tree(void)
{
	char *text = tree_text(there, true);

	snprintf(expected, sizeof(expected), "%s", text);
	free(text);
}

static void expect_untouched(unsigned sync)
{
	char what[64], *text = tree_text(there, true);

	snprintf(what, sizeof(what), "before the job's end, at sync %u, the tree", sync);
	expect_same(what, expected, text);
	free(text);
}

static long write_to(const char *p, int flags, uint64_t *rng)
{
	char len[16], seed[32], *w[] = {len, seed};

	snprintf(len, sizeof(len), "%u", (unsigned)(1 + next_random(rng) % 300));
	snprintf(seed, sizeof(seed), "%u", (unsigned)next_random(rng) % 1000000);
	return put_bytes(open(p, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644), w);
}

static long replace_by_name(const char *p, const char *tmp, uint64_t *rng)
{
	long r = write_to(tmp, O_TRUNC, rng);
	int err;

	if (r < 0 || rename(tmp, p) == 0)
		return r < 0 ? -errno : 0;
	err = errno;
	unlink(tmp);
	return -err;
}

/* Other files, in the directories where the job has its own. */
static void change_others(const char *dir, unsigned sync)
{
	uint64_t rng = (round_seed * 977 + sync) * 0x9E3779B97F4A7C15u + 1;
	char a[64], b[64], sub[64];

	go_to(dir);
	for (unsigned i = 0; i < 4; i++) {
		unsigned in = (unsigned)next_random(&rng) % 4;

		snprintf(sub, sizeof(sub), "d%u/xd", in);
		snprintf(a, sizeof(a), "d%u/x%u", in, (unsigned)next_random(&rng) % 4);
		snprintf(b, sizeof(b), "d%u/%sx%u", (unsigned)next_random(&rng) % 4,
			 next_random(&rng) % 3 ? "" : "xd/", (unsigned)next_random(&rng) % 4);
		n_foreign++;
		switch (next_random(&rng) % 8) {
		case 0:
			(void)unlink(a);
			break;
		case 1:
			(void)rename(a, b);
			break;
		case 2:
			(void)mkdir(sub, 0755);
			break;
		case 4:
			(void)replace_by_name(a, "d0/xtmp", &rng);
			break;
		case 5:
			(void)write_to(b, O_TRUNC, &rng);
			break;
		default:
			(void)write_to(a, O_APPEND, &rng);
		}
	}
}

static long change_same(const char *dir)
{
	uint64_t rng = change.rng;
	const char *p = change.path;

	go_to(dir);
	umask(022);
	switch (change.kind) {
	case 0:
		return unlink(p) < 0 ? -errno : 0;
	case 1: /* no mkdir: of directories made by several at once all are pleased with one */
		return is_dir(p) ? -EISDIR : chmod(p, 0640) < 0 ? -errno : 0;
	case 2:
	case 3:
		return write_to(p, O_EXCL, &rng) < 0 ? -errno : 0;
	case 4:
	case 5:
		return write_to(p, O_APPEND, &rng) < 0 ? -errno : 0;
	default:
		return replace_by_name(p, "d0/xtmp", &rng);
	}
}

/* ---- the worker is lost ---- */

static pid_t parent_of(pid_t pid, char *ret_comm, size_t n)
{
	char path[64], line[512], *end;
	pid_t parent = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (f && fgets(line, sizeof(line), f) && (end = strrchr(line, ')'))) {
		*end = '\0';
		snprintf(ret_comm, n, "%s", strchr(line, '(') + 1);
		parent = atoi(end + 4);
	}
	if (f)
		fclose(f);
	return parent;
}

/* The agent whose job this is: the topmost concc-worker above a process of our name. */
static pid_t find_agent(void)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	pid_t agent = 0;

	while (d && !agent && (e = readdir(d))) {
		char comm[64] = "";
		pid_t pid = atoi(e->d_name);

		if (!pid || !(pid = parent_of(pid, comm, sizeof(comm))) ||
		    strcmp(comm, "printing") != 0)
			continue;
		while (pid > 1) {
			pid_t at = pid;

			pid = parent_of(at, comm, sizeof(comm));
			if (strcmp(comm, "concc-worker") == 0)
				agent = at;
		}
	}
	if (d)
		closedir(d);
	return agent;
}

/* ---- a round ---- */

static void at_sync_here(struct run *r, unsigned n)
{
	(void)r;
	if (mode == OTHERS)
		change_others(here, n);
}

static void at_sync_there(struct run *r, unsigned n)
{
	pid_t agent;

	if (r->answered || mode == PLAIN || mode == LINKED)
		return;
	agent = mode == LOST ? find_agent() : 0;
	if (mode == LOST && !agent)
		return; /* here: no worker is up again */
	expect_untouched(n);
	if (mode == OTHERS) {
		change_others(there, n);
		expect_tree();
	}
	if (mode == SAME && n == change.at) {
		change.returned = change_same(there);
		answer_all(r);
	}
	if (mode == LOST && n == change.at) {
		kill(agent, SIGKILL);
		n_killed++;
		answer_all(r);
	}
}

static void at_sync_candidate(struct run *r, unsigned n)
{
	if (n == change.at)
		(void)change_same(r->dir);
}

static unsigned count_lines(const char *file, const char *word)
{
	char line[LINE_MAX_];
	unsigned n = 0;
	FILE *f = fopen(file, "r");

	while (f && fgets(line, sizeof(line), f))
		n += strncmp(line, word, strlen(word)) == 0;
	if (f)
		fclose(f);
	return n;
}

/* What is to be changed and when; false: the script gives no occasion. */
static bool choose_change(unsigned syncs)
{
	char line[LINE_MAX_], *save;
	unsigned n = 0;
	FILE *f = fopen("../script", "r");

	if (!f || !syncs)
		return false;
	*change.path = '\0';
	while (fgets(line, sizeof(line), f))
		for (char *p = strtok_r(line, " \n", &save); p; p = strtok_r(NULL, " \n", &save))
			if (p[0] == 'd' && strchr(p, '/') && strlen(p) < sizeof(change.path) &&
			    below(++n) == 0)
				strcpy(change.path, p);
	fclose(f);
	change.at = 1 + below(syncs);
	change.kind = below(9);
	change.rng = round_seed * 31 + 7;
	return *change.path;
}

static bool same_end(const struct run *a, const struct run *b)
{
	return a->status == b->status;
}

static char word_run[] = "run", word_make[] = "make", program[] = "../printing";
static char script[] = "../script", times[] = "../times";

static void run_script_there(bool merged, mode_t mask)
{
	char *argv[64];
	size_t n = 0;

	for (; command[n] && n < 48; n++)
		argv[n] = command[n];
	argv[n++] = program;
	argv[n++] = word_run;
	argv[n++] = script;
	argv[n] = NULL;
	run_there.dir = there;
	run_there.on_sync = at_sync_there;
	start(&run_there, argv, merged, mask);
	finish(&run_there);
}

static void run_script_here(struct run *r, unsigned ops, unsigned flags, bool merged, mode_t mask)
{
	char seed[32], count[16], flag[16];
	char *argv[] = {program, word_make, seed, count, flag, script, times, NULL};

	snprintf(seed, sizeof(seed), "%llu", round_seed);
	snprintf(count, sizeof(count), "%u", ops);
	snprintf(flag, sizeof(flag), "%u", flags);
	r->dir = here;
	r->on_sync = at_sync_here;
	start(r, argv, merged, mask);
	finish(r);
}

static void check_status(const struct run *a, const struct run *b)
{
	if (same_end(a, b))
		return;
	printf("%s\n", words);
	fail("wait status %#x here, %#x there", a->status, b->status);
}

static void check_output(const struct run *a, const struct run *b)
{
	expect_same("what it printed", a->text[0], b->text[0]);
	expect_same("what it printed as errors", a->text[1], b->text[1]);
	for (const char *p = a->text[0]; *p; p++)
		n_lines += *p == '\n';
}

static void check_trees(void)
{
	char *want = tree_text(here, false), *got = tree_text(there, false);

	expect_same("what it left", want, got);
	free(want);
	free(got);
}

/*
 * The script in a copy, with the change at some point of it: is it what the job left?  Which of the
 * two was first is not asked of the output: what a job has printed before it ran again stays.
 */
static bool is_candidate(char *base, char *copy, unsigned at, mode_t mask, const char *got)
{
	char *argv[] = {program, word_run, script, NULL}, *text;
	unsigned chosen = change.at;
	long returned = change.returned;
	bool same;

	copy_tree(base, copy);
	if (at == 0)
		returned = change_same(copy);
	change.at = at;
	run_candidate.dir = copy;
	run_candidate.on_sync = at_sync_candidate;
	start(&run_candidate, argv, false, mask);
	finish(&run_candidate);
	if (at > run_candidate.syncs)
		returned = change_same(copy);
	change.at = chosen;
	text = tree_text(copy, false);
	same = returned == change.returned && strcmp(text, got) == 0 &&
	       same_end(&run_candidate, &run_there);
	free(text);
	return same;
}

static void check_some_order(char *base, mode_t mask, unsigned syncs)
{
	char copy[PATH_MAX + 16], *got = tree_text(there, false), *want;

	snprintf(copy, sizeof(copy), "%s.copy", here);
	/* After all and before all are what there is as a rule. */
	for (unsigned i = 0; i <= syncs + 1; i++) {
		if (!is_candidate(base, copy, i ? syncs + 2 - i : 0, mask, got))
			continue;
		free(got);
		copy_tree(copy, here);
		return;
	}
	printf("the other one's change, at sync %u: kind %u of %s returned %ld\nsaid: %s\nstatus %#x, and all it printed:\n%s\n",
	       change.at, change.kind, change.path, change.returned, words, run_there.status,
	       run_there.text[0]);
	want = tree_text(here, false);
	expect_same("what both left, from what the job alone leaves,", want, got);
	fail("only the status differs: %#x", run_there.status);
}

static void share_script(void)
{
	char from[PATH_MAX + 16], to[PATH_MAX + 16], cp[] = "cp";

	snprintf(from, sizeof(from), "%s/../script", here);
	snprintf(to, sizeof(to), "%s/../script", there);
	run_tool((char *const[]){cp, from, to, NULL});
	snprintf(from, sizeof(from), "%s/../times", here);
	snprintf(to, sizeof(to), "%s/../times", there);
	run_tool((char *const[]){cp, from, to, NULL});
}

static void one_round(void)
{
	static const mode_t masks[] = {022, 022, 022, 077, 02, 0};
	bool merged = below(2) && mode != LOST && mode != SAME;
	unsigned ops = 6 + below(30), flags = 0, syncs;
	mode_t mask = masks[below(6)];
	const char *before = getenv("PRINTING_BEFORE");
	char base[PATH_MAX + 16];
	bool changing;

	if (before && system(before) != 0)
		fail("%s", before);
	round_seed = ((uint64_t)below(1u << 30) << 16) + round_no;
	if (mode == OTHERS)
		flags |= PLAN_SHARED;
	if (mode == CLOSED || mode == PLAIN)
		flags |= PLAN_CLOSED;
	if (mode == LINKED || mode == PLAIN)
		flags |= PLAN_LINKED;
	if (mode != LINKED && mode != PLAIN)
		flags |= PLAN_AT_WORKER;
	/* A wrapper that dies of a signal can't tell why. */
	if (mode == SAME)
		flags |= PLAN_ENDS_WELL;
	snprintf(base, sizeof(base), "%s.base", here);
	if (mode == SAME)
		copy_tree(here, base);
	take_dates(here, &before_here);
	run_script_here(&run_here, ops, flags, merged, mask);
	share_script();
	go_to(here);
	syncs = count_lines(script, "sync ");
	steps_done += count_lines(script, "");
	if (syncs >= SYNCS_MAX)
		fail("too many syncs");
	change.at = 0;
	changing = (mode == SAME || mode == LOST) && choose_change(syncs);
	if (!changing)
		change.at = 0;
	remember_script();
	take_dates(there, &before_there);
	expect_tree();
	*words = '\0';
	run_script_there(merged, mask);
	if (changing && mode == SAME) {
		n_foreign++;
		check_some_order(base, mask, syncs);
		return;
	}
	check_output(&run_here, &run_there);
	check_status(&run_here, &run_there);
	check_trees();
	if (mode != TIMES && mode != PLAIN)
		return;
	check_times(here, &before_here);
	check_times(there, &before_there);
}

/* ---- the tree at first ---- */

static void first_tree(void)
{
	char p[128], to[128];

	go_to(here);
	umask(022);
	for (unsigned d = 0; d < 4; d++) {
		snprintf(p, sizeof(p), "d%u", d);
		if (mkdir(p, 0755) < 0)
			fail("%s: %s", p, strerror(errno));
		for (unsigned s = 0; s < 2; s++) {
			snprintf(p, sizeof(p), "d%u/s%u", d, s);
			(void)mkdir(p, 0755);
		}
	}
	for (unsigned i = 0; i < 60; i++) {
		some_file(p, sizeof(p));
		if (write_to(p, O_TRUNC, &plan_rng) < 0)
			continue;
		some_file(to, sizeof(to));
		if (below(3) == 0 && (mode == LINKED || mode == PLAIN))
			(void)!link(p, to);
		if (below(6) == 0)
			(void)!symlink("../d0/f1", to);
	}
	go_to("/");
	copy_tree(here, there);
}

static void copy_program(const char *dir)
{
	char self[PATH_MAX], to[PATH_MAX + 16], cp[] = "cp";
	ssize_t k = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[k > 0 ? k : 0] = '\0';
	snprintf(to, sizeof(to), "%s/../printing", dir);
	run_tool((char *const[]){cp, self, to, NULL});
}

static int rounds(unsigned steps)
{
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	plan_seed(seed_given);
	copy_program(here);
	copy_program(there);
	first_tree();
	for (round_no = 1; steps_done < steps; round_no++) {
		one_round();
		if (below(3) == 0)
			make_old();
	}
	printf("note: %s: %u operations in %u rounds; %u lines of output and %u looks at the tree the same; "
	       "%u changes by others, %u workers killed, %u jobs told something (seed %llu)\n",
	       mode_names[mode], steps_done, round_no - 1, n_lines, n_tree_looks, n_foreign,
	       n_killed, n_at_home, seed_given);
	return 0;
}

static int repeat(const char *from)
{
	char line[LINE_MAX_];
	FILE *f = fopen(from, "re");

	if (!f) {
		perror(from);
		return 2;
	}
	drop_powers();
	while (fgets(line, sizeof(line), f))
		operate(line);
	flush_results();
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "run") == 0)
		return repeat(argv[2]);
	if (argc == 2 && strcmp(argv[1], "tree") == 0) {
		fputs(tree_text(".", false), stdout);
		return 0;
	}
	if (argc == 7 && strcmp(argv[1], "make") == 0)
		return plan(strtoull(argv[2], NULL, 10), (unsigned)atoi(argv[3]),
			    (unsigned)atoi(argv[4]), argv[5], argv[6]);
	if (argc < 8 || strcmp(argv[1], "rounds") != 0) {
		fprintf(stderr, "usage: printing rounds MODE HERE THERE STEPS SEED COMMAND...\n");
		return 125;
	}
	while (mode < N_MODES && strcmp(mode_names[mode], argv[2]) != 0)
		mode++;
	if (mode == N_MODES || !realpath(argv[3], here) || !realpath(argv[4], there)) {
		perror(argv[3]);
		return 125;
	}
	seed_given = strtoull(argv[6], NULL, 10);
	command = argv + 7;
	return rounds((unsigned)atoi(argv[5]));
}
