/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * way DO [ARG...]: a command that tells what it was given, or does one thing
 * and says how that went:
 *
 *	tell [ARG...]	its name, arguments, directory, umask, limits, niceness, signals
 *	out N, err N	N lines; an error of that is told, and is status 1
 *	both N		N lines on each by turns
 *	in		how much there is to read, and what
 *	make		a file, a directory and an executable, with all rights asked for
 *	file BYTES	writes so many to a new file
 *	stack MB	uses so much of it
 *	memory MB	asks for so much, and uses it
 *	open N		so many descriptors at once
 *	burn		computes until somebody ends it
 *	exit N, die N	ends so
 *
 * or runs another command with something changed:
 *
 *	nonblock FD CMD...	what FD is does not block
 *	block SIGNAL CMD...	it is blocked
 *	ignore SIGNAL CMD...	it is ignored
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* As tools do: on the standard error there is, if any. */
static int complain(const char *what)
{
	dprintf(2, "way: %s: %s\n", what, strerrorname_np(errno));
	return 1;
}

/* All of it, however long a reader takes. */
static int put(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t k = write(fd, p, n);

		if (k < 0 && errno == EAGAIN) {
			struct pollfd out = {.fd = fd, .events = POLLOUT};

			(void)poll(&out, 1, -1);
			continue;
		}
		if (k < 0)
			return -1;
		p += k;
		n -= (size_t)k;
	}
	return 0;
}

static int lines(int fd, int n)
{
	char line[80];

	for (int i = 0; i < n; i++) {
		snprintf(line, sizeof(line), "line %d of %d of a command that prints\n", i, n);
		if (put(fd, line, strlen(line)) < 0)
			return complain("write");
	}
	/* After the last, as a mark that it came so far. */
	if (close(open("after", O_WRONLY | O_CREAT | O_CLOEXEC, 0666)) < 0)
		return complain("after");
	return 0;
}

static int both(int n)
{
	char line[80];

	for (int i = 0; i < 2 * n; i++) {
		snprintf(line, sizeof(line), "%s %d\n", i % 2 ? "error" : "output", i / 2);
		if (put(1 + i % 2, line, strlen(line)) < 0)
			return complain("write");
	}
	return 0;
}

static int in(void)
{
	uint64_t h = 14695981039346656037u, size = 0;
	char b[8192];
	ssize_t n;

	while ((n = read(0, b, sizeof(b))) > 0 || (n < 0 && errno == EAGAIN)) {
		if (n < 0)
			(void)poll(&(struct pollfd){.fd = 0, .events = POLLIN}, 1, -1);
		size += n < 0 ? 0 : (uint64_t)n;
		for (ssize_t i = 0; i < n; i++)
			h = (h ^ (uint8_t)b[i]) * 1099511628211u;
	}
	if (n < 0)
		return complain("read");
	printf("%llu bytes: %016llx\n", (unsigned long long)size, (unsigned long long)h);
	return 0;
}

static int make(void)
{
	if (close(open("file", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) < 0 ||
	    close(open("program", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0777)) < 0 ||
	    mkdir("directory", 0777) < 0 || mkfifo("fifo", 0666) < 0)
		return complain("make");
	return 0;
}

static int file(long n)
{
	static char b[1 << 16];
	int fd = open("file", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	memset(b, 'x', sizeof(b));
	for (; n > 0; n -= (long)sizeof(b))
		if (put(fd, b, n < (long)sizeof(b) ? (size_t)n : sizeof(b)) < 0)
			return complain("file");
	return close(fd) < 0;
}

/* Not as deep as the stack: each call's part of it is touched. */
static int use_stack(int mb)
{
	volatile char part[1 << 20];

	for (size_t i = 0; i < sizeof(part); i += 4096)
		part[i] = (char)mb;
	return mb > 1 ? use_stack(mb - 1) + part[4096] * 0 : 0;
}

static int use_memory(size_t mb)
{
	char *p = mmap(NULL, mb << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return complain("memory");
	for (size_t i = 0; i < mb << 20; i += 4096)
		p[i] = 1;
	puts("enough");
	return 0;
}

static int open_many(int n)
{
	int last = 0;

	/* What was inherited counts too, so it is the number that matters. */
	while (last < n && (last = open("/dev/null", O_RDONLY)) >= 0)
		;
	return last < 0 ? complain("open") : 0;
}

static void tell_limit(const char *name, int resource)
{
	struct rlimit r;

	if (getrlimit(resource, &r) == 0)
		printf("%s %lld %lld\n", name, (long long)r.rlim_cur, (long long)r.rlim_max);
}

static void tell_signals(void)
{
	struct sigaction sa;
	sigset_t blocked;

	sigprocmask(SIG_BLOCK, NULL, &blocked);
	for (int s = 1; s < 32; s++) {
		if (sigaction(s, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN)
			printf("ignored: %s\n", sigabbrev_np(s));
		if (sigismember(&blocked, s) == 1)
			printf("blocked: %s\n", sigabbrev_np(s));
	}
}

static int tell(int argc, char **argv)
{
	char cwd[4096];
	mode_t mask = umask(0);

	umask(mask);
	for (int i = 0; i < argc; i++)
		printf("argument %d: '%s'\n", i, argv[i]);
	printf("in %s, PWD %s\n", getcwd(cwd, sizeof(cwd)) ? cwd : strerrorname_np(errno),
	       getenv("PWD") ? getenv("PWD") : "none");
	printf("variable: %s\n", getenv("WAY") ? getenv("WAY") : "none");
	printf("umask %03o, nice %d\n", mask, getpriority(PRIO_PROCESS, 0));
	tell_limit("stack", RLIMIT_STACK);
	tell_limit("cpu", RLIMIT_CPU);
	tell_limit("fsize", RLIMIT_FSIZE);
	tell_limit("as", RLIMIT_AS);
	tell_limit("data", RLIMIT_DATA);
	tell_limit("nofile", RLIMIT_NOFILE);
	tell_limit("core", RLIMIT_CORE);
	tell_signals();
	return fflush(stdout) != 0 && complain("write");
}

static int nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static int block(int signo)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	return sigprocmask(SIG_BLOCK, &set, NULL);
}

static int run(char **argv, int r)
{
	if (r < 0)
		return complain(argv[0]);
	execvp(argv[0], argv);
	return complain(argv[0]);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	int n = argc > 2 ? atoi(argv[2]) : 0;

	if (strcmp(what, "tell") == 0)
		return tell(argc, argv);
	if (strcmp(what, "out") == 0)
		return lines(1, n);
	if (strcmp(what, "err") == 0)
		return lines(2, n);
	if (strcmp(what, "both") == 0)
		return both(n);
	if (strcmp(what, "in") == 0)
		return in();
	if (strcmp(what, "make") == 0)
		return make();
	if (strcmp(what, "file") == 0)
		return file(n);
	if (strcmp(what, "stack") == 0)
		return use_stack(n);
	if (strcmp(what, "memory") == 0)
		return use_memory((size_t)n);
	if (strcmp(what, "open") == 0)
		return open_many(n);
	if (strcmp(what, "exit") == 0)
		return n;
	if (strcmp(what, "die") == 0)
		return raise(n);
	while (strcmp(what, "burn") == 0)
		n++;
	if (argc > 3 && strcmp(what, "nonblock") == 0)
		return run(argv + 3, nonblock(n));
	if (argc > 3 && strcmp(what, "block") == 0)
		return run(argv + 3, block(n));
	if (argc > 3 && strcmp(what, "ignore") == 0)
		return run(argv + 3, signal(n, SIG_IGN) == SIG_ERR ? -1 : 0);
	fprintf(stderr, "usage: way DO [ARG...]\n");
	return 125;
}
