/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * race-model DIR OTHER ROUNDS SEED COMMAND: kept results while files change under the jobs.  A
 * round is a storm, JOBS processes that run commands through concc, one after the other, and
 * EDITORS that change what these look at, at any moment and in every way (every other time one
 * that leaves the tree at one of its branches for some jobs); and then quiet: each
 * command is run through concc, which may find what was kept in the storm, and here, from a copy of
 * the tree, at the state that the storm left and at those that it often went through.  What it
 * told, how it ended and the tree that it leaves must be the same.  In a storm a job may see any
 * mixture of states, but no bytes that no file ever had.
 *
 * A file has one of a few contents, of one size, by the branch that a tree is at (or is absent, a
 * directory, a symlink), so that states come back.  The commands, and what a branch is, depend on
 * SEED alone; what happens in a storm on the machine, too.  COMMAND is the program (command.c), or
 * gcc.  With RACE_KILL in the environment servers, workers and wrappers are killed in storms;
 * RACE_STORE names a store whose files are damaged; RACE_SERVER is the runtime directory of another
 * server, of the same files and store, which every other job goes to; RACE_FILL makes that one job
 * fills the store.
 *
 * Ends at the first difference; says whether the same job made it once more (then it is no result
 * that was kept wrongly, but a file that was seen wrongly).
 */
#include <ctype.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "model.h"
#include "random.h"

#define OPS_MAX	      16
#define COMMANDS      14
#define CALM_COMMANDS 4
#define JOBS	      6
#define PER_JOB	      6
#define EDITORS	      2
#define BRANCHES      3
/* At most, between two bursts of edits; and of some, so that a job may begin and end meanwhile. */
#define PAUSE_NS      6000000
#define LONG_PAUSE_NS 90000000
#define BLOCK	      4096
#define OLD	      1600000000 /* s: the time of what has one that is set */

struct command {
	char *op[OPS_MAX + 1];
	unsigned n;
	bool times;
};

static const char *dir, *other, *program;
static bool compiles;
static unsigned long long seed;
static struct command commands[COMMANDS];
static bool calm;   /* this storm: for most of the time a tree is at rest, at a branch */
static int done[2]; /* a byte for each job that has ended, when it is calm */
static atomic_uint *jobs_left, *storm_remote, *storm_here, *storm_hits, *storm_failed;

/* Takes command. */
static void run_here(char *command)
{
	if (system(command) != 0)
		fail(command);
	free(command);
}

static uint64_t mix(uint64_t a, uint64_t b)
{
	a ^= b * UINT64_C(0x9E3779B97F4A7C15);
	a ^= a >> 29;
	a *= UINT64_C(0xBF58476D1CE4E5B9);
	return a ^ a >> 32;
}

/* ---- what there may be ---- */

static const char *const names[] = {"f0",   "f1", "f2",	    "a/f0",  "a/f1", "b/f0",
				    "b/f1", "x0", "a/c/f0", "d0/f0", "d0/f1"};
static const char *const ways[] = {"f0",   "f1", "f2",	    "a/f0",    "a/f1",	"b/f0",
				   "b/f1", "x0", "a/c/f0",  "d0/f0",   "d0/f1", "l/f0",
				   "l/f1", "s0", "l/../f1", "a/../f0", "d0",	"l/c/f0"};
static const char *const dirs[] = {".", "a", "b", "a/c", "d0", "l", "out"};
static const char *const targets[] = {"a", "b", "a/c"};
#define ONE_OF(v) ((v)[random_below(N_OF(v))])

enum state { ABSENT, STATE_A, STATE_B, STATE_C };

static enum state state_of(unsigned branch, unsigned name)
{
	return (enum state)(mix(mix(seed, branch + 1), name + 1) % 4);
}

/* All of one size, and in one byte another. */
static char *content(unsigned name, enum state s)
{
	unsigned next = (name * 5 + 3) % N_OF(names);

	if (compiles)
		return text("#if __has_include(\"%s\")\n#include \"%s\"\n#endif\nint v%u_%c;\n",
			    names[next], names[next], name, (int)s + '@');
	return text("%s\nstate %c of %s\n", names[next], (int)s + '@', names[name]);
}

/* ---- edits ---- */

static void write_all(int fd, const char *p)
{
	if (write(fd, p, strlen(p)) < 0 && errno != ENOSPC)
		fail("write");
}

static void write_new(const char *p, int flags, const char *bytes)
{
	int fd = open(p, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, 0644);

	if (fd < 0)
		return;
	write_all(fd, bytes);
	close(fd);
}

/* Who makes it shorter meanwhile ends who stores. */
static sigjmp_buf cut_meanwhile;

static void on_cut(int signo)
{
	(void)signo;
	siglongjmp(cut_meanwhile, 1);
}

static void pause_at_random(unsigned one_long_in);

/* Mapped before and for some time after, now and then. */
static void write_mapped(const char *p, const char *bytes, bool closed_before)
{
	int fd = open(p, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	size_t n = strlen(bytes);
	struct stat st;
	char *m;

	if (fd < 0)
		return;
	if (fstat(fd, &st) < 0 || (size_t)st.st_size != n) {
		close(fd);
		return;
	}
	m = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (closed_before)
		close(fd);
	if (m == MAP_FAILED)
		fail("mmap");
	if (random_below(2))
		pause_at_random(3);
	if (sigsetjmp(cut_meanwhile, 1) == 0)
		memcpy(m, bytes, n);
	if (random_below(2))
		pause_at_random(2);
	munmap(m, n);
	if (!closed_before)
		close(fd);
}

static void write_direct(const char *p, const char *bytes)
{
	static char block[BLOCK] __attribute__((aligned(BLOCK)));
	int fd = open(p, O_WRONLY | O_CREAT | O_DIRECT | O_CLOEXEC | O_NOFOLLOW, 0644);

	if (fd < 0)
		return;
	memset(block, 0, sizeof(block));
	memcpy(block, bytes, strlen(bytes));
	if (pwrite(fd, block, sizeof(block), 0) < 0 && errno != EINVAL)
		fail(p);
	if (ftruncate(fd, (off_t)strlen(bytes)) < 0)
		fail(p);
	close(fd);
}

/* As tools do that want no other time than the one that there was. */
static void write_with_old_time(const char *p, const char *bytes)
{
	int fd = open(p, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && pwrite(fd, bytes, strlen(bytes), 0) > 0) {
		struct timespec t[2] = {st.st_atim, st.st_mtim};

		(void)futimens(fd, t);
	}
	close(fd);
}

static void put_beside(const char *p, const char *bytes, bool linked)
{
	char *new = text("%s.new%d", p, (int)getpid());

	write_new(new, O_TRUNC, bytes);
	if (linked) {
		(void)unlink(p);
		(void)link(new, p);
	} else {
		(void)rename(new, p);
	}
	(void)unlink(new);
	free(new);
}

static void set_state(unsigned name, enum state s)
{
	const char *p = names[name];
	char *bytes = content(name, s);

	if (s == ABSENT) {
		remove_tree(p);
		free(bytes);
		return;
	}
	switch (random_below(10)) {
	case 0:
		remove_tree(p);
		write_new(p, O_EXCL, bytes);
		break;
	case 1:
	case 2:
		write_new(p, 0, bytes); /* in place, never shorter */
		break;
	case 3:
		write_new(p, O_TRUNC, bytes);
		break;
	case 4:
		put_beside(p, bytes, random_below(4) == 0);
		break;
	case 5:
	case 8:
		write_mapped(p, bytes, random_below(2));
		break;
	case 6:
		write_direct(p, bytes);
		break;
	case 7:
		write_with_old_time(p, bytes);
		break;
	default:
		put_beside(p, bytes, false);
	}
	if (random_below(2))
		set_time(p, OLD + s);
	free(bytes);
}

static void set_links(unsigned branch)
{
	uint64_t h = mix(seed, branch + 77);

	(void)mkdir("a", 0755);
	(void)mkdir("b", 0755);
	(void)mkdir("a/c", 0755);
	(void)mkdir("out", 0755);
	if (h & 1)
		(void)mkdir("d0", 0755);
	else
		remove_tree("d0");
	(void)unlink("l.new");
	if (symlink(targets[(h >> 1) % N_OF(targets)], "l.new") == 0 && rename("l.new", "l") < 0) {
		remove_tree("l");
		(void)rename("l.new", "l");
	}
	remove_tree("s0");
	if (h & 16)
		(void)symlink(names[(h >> 5) % N_OF(names)], "s0");
}

static void switch_branch(unsigned branch)
{
	set_links(branch);
	for (unsigned i = 0; i < N_OF(names); i++)
		set_state(i, state_of(branch, i));
}

/* As nothing was before it. */
static void make_branch(unsigned branch)
{
	DIR *d = opendir(".");
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			remove_tree(e->d_name);
	if (d)
		closedir(d);
	set_links(branch);
	for (unsigned i = 0; i < N_OF(names); i++) {
		enum state s = state_of(branch, i);
		char *bytes = content(i, s);

		if (s != ABSENT)
			write_new(names[i], O_EXCL, bytes);
		if (s != ABSENT)
			set_time(names[i], OLD + s);
		free(bytes);
	}
}

static void damage_store(void)
{
	const char *store = getenv("RACE_STORE");
	char *find = text("find %s -type f ! -name '*.lock' 2>/dev/null", store ? store : "");
	char path[PATH_MAX], chosen[PATH_MAX] = "";
	FILE *f = store ? popen(find, "re") : NULL;
	unsigned n = 0;
	int fd;

	free(find);
	if (!f)
		return;
	while (fgets(path, sizeof(path), f))
		if (random_below(++n) == 0)
			strcpy(chosen, path);
	pclose(f);
	chosen[strcspn(chosen, "\n")] = '\0';
	fd = *chosen ? open(chosen, O_WRONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	switch (random_below(3)) {
	case 0:
		(void)unlink(chosen);
		break;
	case 1:
		(void)!ftruncate(fd, random_below(200));
		break;
	default:
		(void)!pwrite(fd, "x", 1, random_below(200));
	}
	close(fd);
}

static void edit(void)
{
	unsigned name = random_below(N_OF(names)), branch = random_below(BRANCHES);
	enum state was;

	switch (random_below(18)) {
	case 16: /* without a change of its bytes */
		set_time(names[name], OLD + state_of(branch, name));
		break;
	case 17:
		(void)unlink("x1");
		break;
	case 0:
		switch_branch(branch);
		break;
	case 1:
		set_links(branch);
		break;
	case 2: /* and back */
		was = state_of(branch, name);
		set_state(name, was);
		set_state(name, state_of((branch + 1) % BRANCHES, name));
		set_state(name, was);
		break;
	case 3:
		(void)chmod(names[name], random_below(2) ? 0600 : 0644);
		break;
	case 4:
		(void)rename(names[name], ONE_OF(names));
		break;
	case 5:
		remove_tree(names[name]);
		(void)mkdir(names[name], 0755);
		break;
	case 6:
		remove_tree("b");
		(void)rename("d0", "b");
		(void)mkdir("b", 0755);
		break;
	case 7:
		(void)unlink("x1");
		(void)link(names[name], "x1");
		break;
	case 8:
		if (getenv("RACE_STORE"))
			damage_store();
		break;
	default:
		set_state(name, state_of(branch, name));
	}
}

/* ---- commands ---- */

static char *random_op(unsigned command)
{
	static const char *const looks[] = {"read",  "read",   "read", "follow", "stat",
					    "lstat", "access", "map",  "real",	 "readlink"};
	const char *a = ONE_OF(ways), *b = ONE_OF(ways);

	switch (random_below(14)) {
	case 0:
		return text("list:%s", ONE_OF(dirs));
	case 1:
	case 2:
	case 3:
		return text("copy:%s:out/%u", a, command);
	case 4:
		return text("same:%s:%s", a, b);
	case 5:
		return text("read:out/%u", random_below(COMMANDS));
	case 6:
		return random_below(3)	 ? text("yield:%u", random_below(300))
		       : random_below(2) ? text("copy:%s:%s", a, b)
					 : text("mv:%s:%s", a, b);
	case 7:
		return random_below(3)	 ? text("yield:%u", random_below(300))
		       : random_below(2) ? text("rm:%s", a)
					 : text("put-at:%s:x0", ONE_OF(dirs));
	case 8:
		return text("yield:%u", random_below(300));
	}
	return text("%s:%s", ONE_OF(looks), a);
}

static void make_compile(struct command *c, unsigned command)
{
	static const char *const from[] = {"f0", "f1", "a/f0", "l/f0", "b/f0", "f2"};
	unsigned n = random_below(4);

	c->op[c->n++] = text("-xc");
	c->op[c->n++] = text("-fmax-include-depth=6");
	while (n--)
		c->op[c->n++] = text("-I%s", ONE_OF(dirs));
	if (random_below(3) == 0)
		c->op[c->n++] = text("-MD");
	c->op[c->n++] = text("-c");
	c->op[c->n++] = text("%s", ONE_OF(from));
	c->op[c->n++] = text("-oout/%u", random_below(4) ? command : random_below(COMMANDS));
}

static void make_command(unsigned i)
{
	struct command *c = &commands[i];
	unsigned n = 2 + random_below(6);

	if (compiles) {
		make_compile(c, i);
		return;
	}
	c->times = random_below(3) == 0;
	if (c->times)
		c->op[c->n++] = text("times");
	while (n--)
		c->op[c->n++] = random_op(i);
	c->op[c->n++] = text("copy:%s:out/%u", ONE_OF(ways), i);
}

static void exec_command(const struct command *c, bool ours, bool cached)
{
	char *argv[OPS_MAX + 5];
	size_t n = 0;

	if (ours && compiles) {
		argv[n++] = (char *)"concc-cc";
	} else if (ours) {
		argv[n++] = (char *)"concc-dispatch";
		if (cached)
			argv[n++] = (char *)(c->times ? "--cache" : "--cache=contents");
	}
	argv[n++] = (char *)program;
	for (unsigned i = 0; i < c->n; i++)
		argv[n++] = c->op[i];
	argv[n] = NULL;
	execvp(argv[0], argv);
	fail(argv[0]);
}

/* What it said, without what concc did. */
static pid_t start(const struct command *c, bool ours, bool cached, const char *explain, int *ret)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		fail("pipe");
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		if (dup2(null, 0) < 0 || dup2(fds[1], 1) < 0 || dup2(fds[1], 2) < 0)
			fail("dup2");
		if (explain)
			setenv("CONCC_EXPLAIN", explain, 1);
		if (ours && compiles && !cached)
			setenv("CONCC_DISABLE", "1", 1);
		exec_command(c, ours, cached);
	}
	close(fds[1]);
	*ret = fds[0];
	return pid;
}

static void run_and_tell(const struct command *c, struct side *s, bool ours, bool cached,
			 const char *explain)
{
	size_t from = s->n;
	int fd;
	pid_t pid = start(c, ours, cached, explain, &fd);

	tell_output(s, fd);
	cut_our_words(s, from);
	if (waitpid(pid, &s->status, 0) < 0)
		fail("waitpid");
}

/* ---- the storm ---- */

static void pause_at_random(unsigned one_long_in)
{
	const uint32_t most = random_below(one_long_in) ? PAUSE_NS : LONG_PAUSE_NS;

	if (random_below(3))
		(void)nanosleep(&(struct timespec){.tv_nsec = random_below(most)}, NULL);
	else
		sched_yield();
}

/* Bytes are those of one state: no file ever had others. */
static void check_words(const struct command *c, const char *said)
{
	for (const char *at = said; (at = strstr(at, "state ")); at++) {
		size_t len = 0;

		if (at[6] >= 'A' && at[6] <= 'C' && strncmp(at + 7, " of ", 4) == 0)
			for (unsigned i = 0; i < N_OF(names) && !len; i++)
				if (strncmp(at + 11, names[i], strlen(names[i])) == 0 &&
				    strchr("\n", at[11 + strlen(names[i])]))
					len = 1;
		if (len || !strchr(at, '\n'))
			continue;
		fprintf(stderr, "seed %llu: a job in a storm said %.40s\n", seed, at);
		for (unsigned i = 0; i < c->n; i++)
			fprintf(stderr, " %s", c->op[i]);
		fprintf(stderr, "\n");
		exit(1);
	}
}

static void kill_one(const char *const *comms, size_t n_comms)
{
	const char *comm = comms[random_below((uint32_t)n_comms)];
	DIR *d = opendir("/proc");
	struct dirent *e;
	pid_t chosen = 0;
	unsigned n = 0;

	while (d && (e = readdir(d))) {
		char *path = text("/proc/%s/comm", e->d_name), now[32] = "";
		FILE *f = isdigit((unsigned char)e->d_name[0]) ? fopen(path, "re") : NULL;

		free(path);
		if (!f)
			continue;
		if (fgets(now, sizeof(now), f) && strncmp(now, comm, strlen(comm)) == 0 &&
		    random_below(++n) == 0)
			chosen = atoi(e->d_name);
		fclose(f);
	}
	if (d)
		closedir(d);
	if (chosen > 1)
		(void)kill(chosen, SIGKILL);
}

/* A few commands end in each state, so that what they kept may be found in the quiet. */
static void be_a_calm_editor(void)
{
	char one;

	close(done[1]);
	for (;;) {
		unsigned n = JOBS + random_below(JOBS);

		switch_branch(random_below(BRANCHES));
		while (n--)
			if (read(done[0], &one, 1) != 1)
				exit(0); /* no job is left */
	}
}

static void be_an_editor(uint64_t s)
{
	static const char *const comms[] = {"concc-project", "concc-worker", "concc-dispatch",
					    "concc-cc"};
	unsigned kills = getenv("RACE_KILL") ? 1 : 0;

	random_seed(s);
	if (calm)
		be_a_calm_editor();
	while (atomic_load(jobs_left)) {
		unsigned n = 1 + random_below(4);

		while (n--)
			edit();
		if (kills && random_below(8) == 0 && kills--)
			kill_one(comms, N_OF(comms));
		pause_at_random(8);
	}
	exit(0);
}

/* A job whose results fill the store. */
static void fill_store(uint64_t s)
{
	static struct command big = {.op = {(char *)"big:out/big:3000"}, .n = 1};
	struct side *said = malloc(sizeof(*said));

	for (unsigned i = 0; i < PER_JOB; i++) {
		char *value = text("%llu", (unsigned long long)s + i);

		setenv("MODEL", value, 1);
		said->n = 0;
		run_and_tell(&big, said, true, true, "/dev/null");
		free(value);
	}
	(void)unlink("out/big");
	atomic_fetch_sub(jobs_left, 1);
	exit(0);
}

static void be_a_job(uint64_t s, unsigned which)
{
	char *explain = text("%s.explain%u", other, which), where[4096];
	struct side *said = malloc(sizeof(*said));

	random_seed(s);
	if (!which && getenv("RACE_FILL"))
		fill_store(s);
	if (which % 2 && getenv("RACE_SERVER"))
		setenv("CONCC_RUNTIME_DIR", getenv("RACE_SERVER"), 1);
	for (unsigned i = 0; i < PER_JOB; i++) {
		const struct command *c = &commands[random_below(calm ? CALM_COMMANDS : COMMANDS)];

		said->n = 0;
		run_and_tell(c, said, true, true, explain);
		take_explanation(explain, where, sizeof(where));
		if (strstr(where, "remote on (cache)"))
			atomic_fetch_add(storm_hits, 1);
		else if (strstr(where, "remote on"))
			atomic_fetch_add(storm_remote, 1);
		else
			atomic_fetch_add(storm_here, 1);
		if (said->status)
			atomic_fetch_add(storm_failed, 1);
		if (!compiles && strstr(where, "remote on"))
			check_words(c, said->text);
		if (calm && write(done[1], "", 1) != 1)
			fail("who waits for jobs to end");
	}
	atomic_fetch_sub(jobs_left, 1);
	exit(0);
}

static void storm(uint64_t s)
{
	const unsigned n_editors = calm ? 1 : EDITORS;
	int status, bad = 0;

	atomic_store(jobs_left, JOBS);
	if (calm && pipe2(done, O_CLOEXEC) < 0)
		fail("pipe");
	for (unsigned i = 0; i < JOBS; i++)
		if (fork() == 0)
			be_a_job(mix(s, i), i);
	for (unsigned i = 0; i < n_editors; i++)
		if (fork() == 0)
			be_an_editor(mix(s, 100 + i));
	if (calm) {
		close(done[0]);
		close(done[1]);
	}
	for (unsigned i = 0; i < JOBS + n_editors; i++)
		if (wait(&status) < 0 || status) {
			bad = 1;
			atomic_store(jobs_left, 0);
		}
	if (bad)
		exit(1);
}

/* ---- quiet ---- */

/* What is no older was made by the command. */
static struct timespec since;

static void tell_time(struct side *s, const struct stat *st)
{
	if (!S_ISREG(st->st_mode))
		return;
	if (st->st_mtim.tv_sec > since.tv_sec ||
	    (st->st_mtim.tv_sec == since.tv_sec && st->st_mtim.tv_nsec >= since.tv_nsec))
		tell(s, " new");
	else
		tell(s, " %lld.%09ld", (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
}

struct order {
	unsigned command;
	struct timespec since;
};

static void do_order(const struct order *o, struct side *s, bool ours, bool cached,
		     const char *explain)
{
	enter_tree(dir);
	s->n = 0;
	run_and_tell(&commands[o->command], s, ours, cached, explain);
	tell(s, "--- it left\n");
	since = o->since;
	tell_tree(s, ".", tell_time);
}

static void be_the_other(int fd)
{
	struct order o;

	become_other(other, dir);
	while (read(fd, &o, sizeof(o)) == sizeof(o)) {
		do_order(&o, side[0], false, false, NULL);
		if (write(fd, &o, sizeof(o)) != sizeof(o))
			break;
	}
	exit(0);
}

static void tell_difference(unsigned long long round, unsigned sweep, const struct order *o,
			    const char *where)
{
	const struct command *c = &commands[o->command];

	fprintf(stderr, "seed %llu, round %llu, sweep %u, command %u: %s\n%s%s", seed, round, sweep,
		o->command, where, program, c->times ? " (--cache)" : "");
	for (unsigned i = 0; i < c->n; i++)
		fprintf(stderr, " %s", c->op[i]);
	fprintf(stderr, "\n=== here, ended with %x\n%s=== by concc, ended with %x\n%s",
		(unsigned)side[0]->status, first_difference(0), (unsigned)side[1]->status,
		first_difference(1));
	/* Back to what it began with, and without what is kept. */
	run_here(text("rm -rf '%s'/t && cp -a '%s.before' '%s'/t", dir, other, dir));
	do_order(o, side[1], true, false, NULL);
	fprintf(stderr, "=== without what is kept it is %s\n",
		sides_differ() ? "wrong, too: a file was seen wrongly"
			       : "right: it was kept wrongly");
	if (getenv("RACE_STOP"))
		pause();
	exit(1);
}

static struct {
	unsigned hits, remote, here;
} count;

static void compare(int fd, unsigned long long round, unsigned sweep, unsigned command)
{
	char *explain = text("%s.explain", other), where[4096];
	struct order o = {.command = command};

	run_here(
		text("rm -rf '%s'/t '%s.before' && cp -a '%s'/t '%s'/t && cp -a '%s'/t '%s.before'",
		     other, other, dir, other, dir, other));
	/* By the clock that the file system goes by. */
	(void)clock_gettime(CLOCK_REALTIME_COARSE, &o.since);
	if (write(fd, &o, sizeof(o)) != sizeof(o) || read(fd, &o, sizeof(o)) != sizeof(o))
		fail("the other side");
	do_order(&o, side[1], true, true, explain);
	take_explanation(explain, where, sizeof(where));
	if (sides_differ())
		tell_difference(round, sweep, &o, where);
	if (strstr(where, "remote on (cache)"))
		count.hits++;
	else if (strstr(where, "remote on"))
		count.remote++;
	else
		count.here++;
	free(explain);
}

/* What was begun by who is dead has come to its end. */
static void settle(void)
{
	run_here(text("concc cache >/dev/null"));
}

static void quiet(int fd, unsigned long long round)
{
	settle();
	for (unsigned sweep = 0; sweep <= BRANCHES; sweep++) {
		unsigned from = random_below(COMMANDS);

		enter_tree(dir);
		if (sweep && random_below(2))
			switch_branch(sweep - 1);
		else if (sweep)
			make_branch(sweep - 1);
		for (unsigned i = 0; i < COMMANDS; i++)
			compare(fd, round, sweep, (from + i) % COMMANDS);
	}
}

static void share_all(void)
{
	atomic_uint *counts = shared(5 * sizeof(*counts));

	share_sides();
	jobs_left = counts;
	storm_remote = counts + 1;
	storm_here = counts + 2;
	storm_hits = counts + 3;
	storm_failed = counts + 4;
}

int main(int argc, char **argv)
{
	unsigned long long rounds;
	int fds[2];

	if (argc != 6) {
		fprintf(stderr, "usage: race-model DIR OTHER ROUNDS SEED COMMAND\n");
		return 2;
	}
	dir = argv[1];
	other = argv[2];
	rounds = strtoull(argv[3], NULL, 10);
	seed = strtoull(argv[4], NULL, 10);
	program = argv[5];
	compiles = strcmp(program, "gcc") == 0;
	(void)signal(SIGBUS, on_cut);
	(void)setrlimit(RLIMIT_CORE, &(struct rlimit){0});
	random_seed(seed);
	for (unsigned i = 0; i < COMMANDS; i++)
		make_command(i);
	share_all();
	run_here(text("mkdir -p '%s'/t '%s'/t", dir, other));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		fail("socketpair");
	if (fork() == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fds[0]);
		be_the_other(fds[1]);
	}
	close(fds[1]);
	enter_tree(dir);
	make_branch(0);
	for (unsigned long long i = 1; i <= rounds; i++) {
		enter_tree(dir);
		calm = i % 2;
		storm(mix(seed, i));
		random_seed(mix(seed, i + 1000000));
		quiet(fds[0], i);
	}
	printf("%u hits of %u in quiet, %u here; in storms %u hits, %u by workers, %u here, %u failed\n",
	       count.hits, count.hits + count.remote + count.here, count.here,
	       atomic_load(storm_hits), atomic_load(storm_remote), atomic_load(storm_here),
	       atomic_load(storm_failed));
	return 0;
}
