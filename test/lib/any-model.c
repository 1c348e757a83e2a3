/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * any-model DIR OTHER STEPS SEED COMMAND: what comes of a command through concc-dispatch --cache,
 * in DIR, and of the same one here, from the same files.  Each step changes files at random, and
 * runs one of the commands (COMMAND is the program, see command.c) in both: what it told, how it
 * ended and the tree that it leaves must be the same, whether or not a kept result was taken.
 * Names, contents, modes and times are few, so that states come back (and
 * each file has one name: for others there are coherence.c and limits.md), and a tree begins anew
 * from one of a few.
 *
 * The one without concc has the directory OTHER at DIR, in a mount namespace of its own, so that
 * paths are the same, too.  The steps depend on SEED alone.  Ends at the first difference; else
 * tells how many steps were answered by what was kept, and how many that should have been were not.
 */
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "model.h"
#include "random.h"

#define OPS_MAX	  16
#define COMMANDS  60
#define BASES	  8
#define OLD	  1600000000 /* s: files that no command has made are so old, and some more */
#define OLD_MAX	  (OLD + 1000)
#define SETTLE_NS 31000000 /* ns: what is older is surely older than a job that begins */
#define SEEN_MAX  (1u << 20)

struct command {
	char *op[OPS_MAX + 1];
	unsigned n;
	bool times;
};

static const char *dir, *program, *explain;
static bool ours;     /* what this process runs goes through concc */
static bool compiles; /* commands are calls of gcc */
static struct command commands[COMMANDS];
static unsigned long long seed;

static const char *one_of(const char *const *v, size_t n)
{
	return v[random_below((uint32_t)n)];
}
#define ONE_OF(v) one_of(v, N_OF(v))

/* ---- names ---- */

static const char *const places[] = {"", "", "a/", "b/", "a/c/"};
static const char *const ways[] = {"",		"",	 "a/",	    "b/",    "a/c/",
				   "l/",	"a/../", "b/../a/", "./a//", "l/../",
				   "a/c/../c/", "none/", "none/../"};
static const char *const names[] = {"f0", "f1", "f2", "s0", "s1", "x0", "d0", "d0/f0"};
static const char *const lines[] = {"",	    "one",    "two",   "longer than those",
				    "f1\n", "a/f0\n", "b/f2\n"};
static const char *const sources[] = {
	"",
	"int one;\n",
	"int two;\n",
	"#if __has_include(\"f1\")\n#include \"f1\"\n#endif\n",
	"#if __has_include(<s0>)\n#include <s0>\n#endif\nint s;\n",
	"#if __has_include(\"f2\")\nint has;\n#endif\n",
	"#if __has_include(<a/f0>)\n#include <a/f0>\n#endif\nint after;\n",
	"#pragma once\nint once;\n",
};
static const char *const modes[] = {"644", "755", "600", "444"};
static const char *const targets[] = {"f0", "a",    "b",  "a/c", "../f1",
				      "f2", "none", "s1", ".",	 "a/f0"};

static const char *content(void)
{
	return compiles ? ONE_OF(sources) : ONE_OF(lines);
}

/* Where a change is made; on the heap. */
static char *place(void)
{
	const char *in = ONE_OF(places);

	return text("%s%s", in, ONE_OF(names));
}

/* As a command names it. */
static char *way(void)
{
	const char *in = ONE_OF(ways);

	switch (random_below(12)) {
	case 0:
		return text("%s%s", in, *in ? "" : ".");
	case 1:
		return text("%s/t/%s%s", dir, in, ONE_OF(names));
	case 2:
		return text("%s%s/", in, ONE_OF(names));
	}
	return text("%s%s", in, ONE_OF(names));
}

/* ---- commands ---- */

static char *random_look(void)
{
	static const char *const looks[] = {"stat",	"lstat", "path",   "access",
					    "read",	"map",	 "follow", "list",
					    "readlink", "real",	 "run",	   "read"};
	char *a = way(), *b = way(), *op;

	switch (random_below(16)) {
	case 0:
		op = text("same:%s:%s", a, b);
		break;
	case 1:
		op = text("env:MODEL");
		break;
	case 2:
		op = text("cd:%s", ONE_OF(ways));
		break;
	case 3:
		op = text("at:%s:%s", a, ONE_OF(names));
		break;
	default:
		op = text("%s:%s", ONE_OF(looks), a);
	}
	free(a);
	free(b);
	return op;
}

static char *random_effect(void)
{
	char *a = way(), *b = way(), *op;

	switch (random_below(18)) {
	case 0:
	case 1:
		op = text("put:%s:%s", a, content());
		break;
	case 2:
	case 3:
		op = text("new:%s:%s", a, content());
		break;
	case 4:
		op = text("add:%s:%s", a, content());
		break;
	case 5:
		op = text("copy:%s:%s", a, b);
		break;
	case 6:
		op = text("mv:%s:%s", a, b);
		break;
	case 7:
		op = text("rm:%s", a);
		break;
	case 8:
		op = text("%s:%s", random_below(2) ? "mkdir" : "rmdir", a);
		break;
	case 9:
		op = text("symlink:%s:%s", ONE_OF(targets), a);
		break;
	case 10:
		op = text("chmod:%s:%s", a, ONE_OF(modes));
		break;
	case 11:
		op = text("touch:%s:%u", a, OLD + 5);
		break;
	case 12:
		op = text("put-at:%s:%s", a, ONE_OF(names));
		break;
	case 13:
		op = text("touch-open:%s:%u", a, OLD + 5);
		break;
	case 14:
		op = text("swap:%s:%s", a, b);
		break;
	case 15:
		op = text("tree:%s:%s", a, ONE_OF(targets));
		break;
	case 16:
		op = text("cut:%s:%u", a, random_below(3));
		break;
	default:
		op = text("map-write:%s:xy", a);
	}
	free(a);
	free(b);
	return op;
}

static void add_argument(struct command *c, const char *option)
{
	char *a = way();

	c->op[c->n++] = text("%s%s", option, a);
	free(a);
}

/* Whatever is there is a source; what comes of it may be another one's header. */
static void make_compile(struct command *c)
{
	static const char *const options[] = {"-I",	  "-isystem", "-iquote",
					      "-include", "-MD",      "-O1"};
	static const char *const from[] = {"f0", "f1", "a/f0", "l/f0", "b/../f0"};
	static const char *const to[] = {"o", "a/o", "l/o", "f2", "b/../a/s1", "l/../o"};
	unsigned n = random_below(5);

	c->op[c->n++] = text("-xc");
	c->op[c->n++] = text("-fmax-include-depth=5");
	while (n--) {
		const char *option = ONE_OF(options);

		if (strcmp(option, "-I") == 0 || strcmp(option, "-iquote") == 0 ||
		    strcmp(option, "-isystem") == 0)
			c->op[c->n++] = text("%s%s", option, ONE_OF(ways));
		else if (strcmp(option, "-include") == 0)
			add_argument(c, option);
		else
			c->op[c->n++] = text("%s", option);
		if (strcmp(option, "-MD") == 0)
			add_argument(c, "-MF");
	}
	c->op[c->n++] = text("-c");
	c->op[c->n++] = text("%s", ONE_OF(from));
	c->op[c->n++] = text("-o%s", ONE_OF(to));
}

static void make_command(struct command *c)
{
	unsigned n = 1 + random_below(7);

	if (compiles) {
		make_compile(c);
		return;
	}
	c->times = random_below(3) == 0;
	if (c->times)
		c->op[c->n++] = text("times:%u", OLD_MAX);
	while (c->n < n)
		c->op[c->n++] = random_below(3) ? random_look() : random_effect();
	if (random_below(8) == 0)
		c->op[c->n - 1] = text("exit:3");
}

/* ---- the tree ---- */

static void write_bytes(const char *p, int flags, const char *bytes, mode_t mode)
{
	int fd = open(p, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, mode);

	if (fd >= 0 && write(fd, bytes, strlen(bytes)) < 0)
		fail(p);
	if (fd >= 0)
		close(fd);
}

static void make_script(const char *p)
{
	char *a = random_look(), *b = random_below(2) ? random_look() : random_effect();
	char *s = text("#!%s -\n%s\n%s\n", program, a, b);

	(void)unlink(p);
	write_bytes(p, O_EXCL, s, 0755);
	set_time(p, OLD + random_below(2));
	free(a);
	free(b);
	free(s);
}

static void edit(void)
{
	char *p = place(), *q = place(), *new = text("%s.new", p);
	uint32_t time = random_below(2);

	switch (random_below(14)) {
	case 0:
	case 1:
		(void)unlink(p);
		write_bytes(p, O_EXCL, content(), 0644);
		set_time(p, OLD + time);
		break;
	case 2: /* in place */
		write_bytes(p, O_TRUNC, content(), 0644);
		set_time(p, OLD + time);
		break;
	case 3:
		write_bytes(new, O_TRUNC, content(), 0644);
		set_time(new, OLD + time);
		(void)rename(new, p);
		break;
	case 4:
	case 5:
		remove_tree(p);
		break;
	case 6:
		(void)mkdir(p, 0755);
		break;
	case 7:
		remove_tree("l");
		(void)symlink(ONE_OF(targets), "l");
		set_time("l", OLD);
		break;
	case 8:
		(void)unlink(p);
		(void)symlink(ONE_OF(targets), p);
		set_time(p, OLD);
		break;
	case 9:
		(void)fchmodat(AT_FDCWD, p, (mode_t)strtoul(ONE_OF(modes), NULL, 8), 0);
		break;
	case 10:
		(void)rename(p, q);
		break;
	case 11:
		make_script(p);
		break;
	case 12:
		remove_tree("a");
		(void)mkdir("a", 0755);
		break;
	default:
		set_time(p, OLD + time);
	}
	(void)unlink(new);
	free(p);
	free(q);
	free(new);
}

/* What was made by a name like l/../d0, where l leads to the tree itself. */
static void remove_beside(void)
{
	struct dirent *e;
	DIR *d = opendir("..");

	while (d && (e = readdir(d))) {
		char *sub = text("../%s", e->d_name);

		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
		    strcmp(e->d_name, "t") != 0)
			remove_tree(sub);
		free(sub);
	}
	if (d)
		closedir(d);
}

/* One of few. */
static void begin_anew(uint64_t which)
{
	static const char *const all[] = {"a",	"b",  "l",  "f0", "f1", "f2",
					  "s0", "s1", "x0", "d0", "o"};
	uint64_t saved = rng;

	random_seed(which);
	for (size_t i = 0; i < N_OF(all); i++)
		remove_tree(all[i]);
	remove_beside();
	(void)mkdir("a", 0755);
	(void)mkdir("b", 0755);
	(void)mkdir("a/c", 0755);
	(void)symlink("a", "l");
	set_time("l", OLD);
	if (compiles) {
		write_bytes("f0", O_EXCL, content(), 0644);
		write_bytes("f1", O_EXCL, content(), 0644);
		write_bytes("a/f0", O_EXCL, content(), 0644);
	}
	for (int i = 0; i < 20; i++)
		edit();
	rng = saved;
}

static void tell_time(struct side *s, const struct stat *st)
{
	if (S_ISDIR(st->st_mode))
		return;
	if (st->st_mtim.tv_sec > OLD_MAX)
		tell(s, " new");
	else
		tell(s, " %lld", (long long)st->st_mtim.tv_sec - OLD);
}

/* What was made just now is old from then on. */
static void make_old(const char *p)
{
	struct dirent *e;
	DIR *d = opendir(p);

	while (d && (e = readdir(d))) {
		char *sub = text("%s/%s", p, e->d_name);
		struct stat st;

		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
		    lstat(sub, &st) == 0) {
			if (S_ISDIR(st.st_mode))
				make_old(sub);
			else if (st.st_mtim.tv_sec > OLD_MAX)
				set_time(sub, OLD + 7);
		}
		free(sub);
	}
	if (d)
		closedir(d);
}

/* ---- a step of one side ---- */

static void run(const struct command *c)
{
	char *argv[OPS_MAX + 4];
	size_t n = 0;

	if (ours && compiles) {
		argv[n++] = (char *)"concc-cc";
	} else if (ours) {
		argv[n++] = (char *)"concc-dispatch";
		argv[n++] = (char *)(c->times ? "--cache" : "--cache=contents");
	}
	argv[n++] = (char *)program;
	memcpy(argv + n, c->op, (c->n + 1) * sizeof(*argv));
	execvp(argv[0], argv);
	fail(argv[0]);
}

static void run_and_tell(const struct command *c)
{
	size_t from = side[ours]->n;
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		fail("pipe");
	pid = fork();
	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		if (dup2(null, 0) < 0 || dup2(fds[1], 1) < 0 || dup2(fds[1], 2) < 0)
			fail("dup2");
		run(c);
	}
	close(fds[1]);
	tell_output(side[ours], fds[0]);
	cut_our_words(side[ours], from);
	if (waitpid(pid, &side[ours]->status, 0) < 0)
		fail("waitpid");
}

static void settle(void)
{
	(void)nanosleep(&(struct timespec){.tv_nsec = SETTLE_NS}, NULL);
}

/* What is done in a step, and by which command, depends on its number. */
struct plan {
	bool anew, settled;
	unsigned edits, base, command, umask, value;
};

static struct plan plan_of(uint64_t step)
{
	struct plan p;

	random_seed(seed ^ step * UINT64_C(0xD1342543DE82EF95));
	p.anew = random_below(3) == 0;
	p.base = random_below(BASES);
	p.edits = random_below(3) ? 0 : random_below(3);
	p.command = random_below(COMMANDS);
	p.umask = random_below(4) ? 022 : 027;
	p.value = random_below(4);
	p.settled = random_below(2);
	return p;
}

static void do_step(uint64_t step)
{
	struct plan p = plan_of(step);

	side[ours]->n = 0;
	side[ours]->done_again = false;
	umask(022);
	if (p.anew)
		begin_anew(seed + p.base);
	while (p.edits--)
		edit();
	tell_tree(side[ours], "..", tell_time);
	side[ours]->before = side[ours]->n;
	if (p.settled && ours)
		settle();
	if (p.value)
		setenv("MODEL", p.value == 1 ? "one" : "other", 1);
	else
		unsetenv("MODEL");
	umask(p.umask);
	run_and_tell(&commands[p.command]);
	tell(side[ours], "--- it left\n");
	tell_tree(side[ours], "..", tell_time);
	make_old("..");
}

/* ---- both ---- */

/* Does the steps that it is told, until nobody tells. */
static void be_the_other(int fd, const char *other)
{
	uint64_t step;

	become_other(other, dir);
	while (read(fd, &step, sizeof(step)) == sizeof(step)) {
		do_step(step);
		if (write(fd, &step, sizeof(step)) != sizeof(step))
			break;
	}
	exit(0);
}

static uint64_t key_of(const struct plan *p)
{
	unsigned more[] = {p->command, p->umask, p->value < 2 ? p->value : 2};
	uint64_t h = hash_of(side[1]->text, side[1]->before, UINT64_C(14695981039346656037));

	return hash_of((const char *)more, sizeof(more), h);
}

/* Was it there?  It is from now on. */
static bool was_seen(uint64_t key)
{
	static uint64_t seen[SEEN_MAX];
	size_t i = key & (SEEN_MAX - 1);

	for (; seen[i]; i = (i + 1) & (SEEN_MAX - 1))
		if (seen[i] == key)
			return true;
	seen[i] = key;
	return false;
}

static void tell_difference(uint64_t step, const struct plan *p, const char *where)
{
	const struct command *c = &commands[p->command];

	fprintf(stderr, "step %llu, seed %llu (%s%s), MODEL %u, umask %o: %s\n--cache%s",
		(unsigned long long)step, seed, p->anew ? "anew, " : "",
		p->settled ? "settled" : "not settled", p->value, p->umask, where,
		c->times ? "" : "=contents");
	for (unsigned i = 0; i < c->n; i++)
		fprintf(stderr, " %s", c->op[i]);
	fprintf(stderr,
		"\n=== the tree\n%.*s=== here, ended with %x\n%s=== by concc, ended with %x\n%s",
		(int)side[1]->before, side[1]->text, (unsigned)side[0]->status, first_difference(0),
		(unsigned)side[1]->status, first_difference(1));
	exit(1);
}

static struct {
	unsigned done_again, here, hits, again, missed;
} count;

/* Kept: what began when nothing was so young that it may have been done after that. */
static void count_step(uint64_t step, const struct plan *p, const char *where)
{
	bool hit = strstr(where, "remote on (cache)") != NULL;

	count.done_again += side[1]->done_again;
	count.here += !strstr(where, "remote on ");
	count.hits += hit;
	if (!p->settled || side[1]->status || !strstr(where, "remote on "))
		return;
	if (!was_seen(key_of(p)))
		return;
	count.again++;
	if (hit)
		return;
	count.missed++;
	if (getenv("MODEL_MISSED"))
		printf("missed: step %llu, command %u: %s", (unsigned long long)step, p->command,
		       where);
}

static void both_sides(uint64_t step, int fd)
{
	struct plan p = plan_of(step);
	char where[4096];

	if (write(fd, &step, sizeof(step)) != sizeof(step))
		fail("the other side");
	do_step(step);
	if (read(fd, &step, sizeof(step)) != sizeof(step))
		fail("the other side has ended");
	take_explanation(explain, where, sizeof(where));
	if (sides_differ())
		tell_difference(step, &p, where);
	count_step(step, &p, where);
}

static void make_dirs(const char *a, const char *b)
{
	const char *const roots[] = {a, b};

	for (int i = 0; i < 2; i++) {
		char *t = text("%s/t", roots[i]);

		if (mkdir(roots[i], 0755) < 0 || mkdir(t, 0755) < 0)
			fail(t);
		free(t);
	}
}

int main(int argc, char **argv)
{
	unsigned long long steps;
	int fds[2];

	if (argc != 6) {
		fprintf(stderr, "usage: any-model DIR OTHER STEPS SEED COMMAND\n");
		return 2;
	}
	dir = argv[1];
	steps = strtoull(argv[3], NULL, 10);
	seed = strtoull(argv[4], NULL, 10);
	program = argv[5];
	compiles = strcmp(program, "gcc") == 0;
	explain = text("%s.explain", argv[2]);
	random_seed(seed);
	for (int i = 0; i < COMMANDS; i++)
		make_command(&commands[i]);
	share_sides();
	make_dirs(dir, argv[2]);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		fail("socketpair");
	if (fork() == 0) {
		close(fds[0]);
		be_the_other(fds[1], argv[2]);
	}
	close(fds[1]);
	ours = true;
	setenv("CONCC_EXPLAIN", explain, 1);
	enter_tree(dir);
	for (uint64_t i = 1; i <= steps; i++)
		both_sides(i, fds[0]);
	printf("%u hits in %llu steps, %u ran here, %u were done again; %u seen before, %u of them not found\n",
	       count.hits, steps, count.here, count.done_again, count.again, count.missed);
	return 0;
}
