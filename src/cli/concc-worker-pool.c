/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * concc-worker-pool: the pool of slots, by hand and for scripts.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/pool.h"
#include "concc/process.h"
#include "concc/str.h"

enum {
	EXIT_USAGE = 100,
	EXIT_FAILED = 101,    /* the pool can't be used */
	EXIT_NO_WORKER = 102, /* none is up, or not the one asked for */
	EXIT_ALL_TAKEN = 103, /* with --try */
	EXIT_UNKNOWN = 104,   /* no such worker or token */
	EXIT_NOT_RUN = 105,   /* the command can't be started */
};

static const char usage_text[] =
	"usage: concc-worker-pool COMMAND\n"
	"\n"
	"The slots of all workers, shared by every build of this user.\n"
	"\n"
	"  status [--json]        show the workers and how many slots are taken\n"
	"  limit                  print the number of slots there are: make -j$(... limit)\n"
	"  add HOST [LIMIT]       add a worker of LIMIT slots (default: this machine's cores),\n"
	"                         or change one\n"
	"  remove HOST            forget a worker; slots that are held stay held\n"
	"  reset                  forget all workers\n"
	"  allocate [--only HOST] [--try] -- CMD [ARG...]\n"
	"                         run CMD with a slot held and CONCC_SLOT set to its worker\n"
	"  allocate [--only HOST] [--try] [--owner PID]\n"
	"                         take a slot and print its worker and a token; held until\n"
	"                         `release TOKEN`, or the end of process PID (default: the caller)\n"
	"  release TOKEN          give back what allocate took\n"
	"\n"
	"--try: fail instead of waiting when all slots are taken.\n"
	"Exit status: 100 wrong usage, 101 failure, 102 no worker is up, 103 all taken (--try),\n"
	"104 no such worker or token, 105 CMD can't be run; else CMD's own.\n"
	"See concc-worker-pool(1).\n";

static int usage_error(const char *what, const char *arg)
{
	(void)fprintf(stderr, "concc-worker-pool: %s%s%s; see concc-worker-pool --help\n", what,
		      arg ? ": " : "", arg ? arg : "");
	return EXIT_USAGE;
}

static int complain(int status, const char *text)
{
	(void)fprintf(stderr, "concc-worker-pool: %s\n", text);
	return status;
}

static int open_pool(struct pool **ret, struct errmsg *msg)
{
	_cleanup_free_ char *dir = NULL;
	int rc;

	rc = runtime_dir_open(&dir, NULL, msg);
	if (rc < 0)
		return rc;
	return pool_open(dir, ret, msg);
}

/* ---- status, limit ---- */

static int list_members(struct pool *p, struct pool_member *ret)
{
	int n = pool_list(p, ret, POOL_MEMBERS_MAX, true);

	return n < POOL_MEMBERS_MAX ? n : POOL_MEMBERS_MAX;
}

static void put_json_string(const char *s)
{
	(void)putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			(void)putchar('\\');
		(void)putchar(*s); /* names are printable ASCII */
	}
	(void)putchar('"');
}

static const char *state_word(const struct pool_member *m)
{
	return m->state == POOL_UP ? "up" : m->state == POOL_ASLEEP ? "asleep" : "down";
}

static void print_json(struct pool *p, const struct pool_member *m, int n)
{
	(void)printf("{\"slots\": %u, \"waiting\": %u, \"workers\": [", pool_total(p),
		     pool_waiters(p));
	for (int i = 0; i < n; i++) {
		(void)printf("%s{\"name\": ", i ? ", " : "");
		put_json_string(m[i].name);
		(void)printf(", \"state\": \"%s\", \"slots\": %u, \"taken\": %u, \"speed\": %u, "
			     "\"acquired\": %llu}",
			     state_word(&m[i]), m[i].slots, m[i].taken, m[i].speed,
			     (unsigned long long)m[i].acquired);
	}
	(void)puts("]}");
}

static void print_table(struct pool *p, const struct pool_member *m, int n)
{
	if (n == 0) {
		(void)puts(
			"no workers; `concc run` brings them up, `concc-worker-pool add` adds one");
		return;
	}
	(void)printf("%-24s %-6s %6s %6s %6s %10s\n", "WORKER", "STATE", "SLOTS", "TAKEN", "SPEED",
		     "JOBS");
	for (int i = 0; i < n; i++)
		(void)printf("%-24s %-6s %6u %6u %6u %10llu\n", m[i].name, state_word(&m[i]),
			     m[i].slots, m[i].taken, m[i].speed, (unsigned long long)m[i].acquired);
	(void)printf("%u slots up, %u waiting\n", pool_total(p), pool_waiters(p));
}

static int flush_stdout(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	return complain(EXIT_FAILED, "can't write to standard output");
}

static int cmd_status(struct pool *p, int argc, char **argv)
{
	static struct pool_member members[POOL_MEMBERS_MAX];
	bool json = argc == 1 && streq(argv[0], "--json");
	int n;

	if (argc > 0 && !json)
		return usage_error("status takes only --json, not", argv[0]);
	n = list_members(p, members);
	if (json)
		print_json(p, members, n);
	else
		print_table(p, members, n);
	return flush_stdout();
}

static int cmd_limit(struct pool *p, int argc, char **argv)
{
	if (argc > 0)
		return usage_error("limit takes no argument", argv[0]);
	(void)printf("%u\n", pool_total(p));
	return flush_stdout();
}

/* ---- add, remove, reset ---- */

static int cmd_add(struct pool *p, int argc, char **argv)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned long long slots = cores > 0 ? (unsigned long long)cores : 1;
	struct errmsg msg = {""};

	if (argc < 1 || argc > 2)
		return usage_error("add takes a worker and a number of slots", NULL);
	if (argc == 2 && (!str_to_u64(argv[1], POOL_SLOTS_MAX, &slots) || slots == 0))
		return usage_error("the number of slots is 1 to 1024, not", argv[1]);
	if (slots > POOL_SLOTS_MAX)
		slots = POOL_SLOTS_MAX;
	if (pool_set(p, argv[0], (uint32_t)slots, POOL_UP, 1000, &msg) < 0)
		return complain(EXIT_FAILED, msg.text);
	return 0;
}

static int cmd_remove(struct pool *p, int argc, char **argv)
{
	int rc;

	if (argc != 1)
		return usage_error("remove takes one worker", NULL);
	rc = pool_remove(p, argv[0]);
	if (rc == -ENOENT) {
		(void)fprintf(stderr,
			      "concc-worker-pool: no worker '%s'; `concc-worker-pool status` lists "
			      "them\n",
			      argv[0]);
		return EXIT_UNKNOWN;
	}
	return rc < 0 ? complain(EXIT_FAILED, err_text(rc)) : 0;
}

static int cmd_reset(struct pool *p, int argc, char **argv)
{
	int rc;

	if (argc > 0)
		return usage_error("reset takes no argument", argv[0]);
	rc = pool_reset(p);
	return rc < 0 ? complain(EXIT_FAILED, err_text(rc)) : 0;
}

/* ---- allocate ---- */

struct allocate_opts {
	struct pool_request q;
	pid_t owner;
	char **cmd; /* NULL: hold in the background */
};

/* 0, or the exit status. */
static int parse_allocate(int argc, char **argv, struct allocate_opts *o)
{
	unsigned long long pid;
	int i;

	*o = (struct allocate_opts){.q.local_ok = true, .owner = getppid()};
	for (i = 0; i < argc && !streq(argv[i], "--"); i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (streq(argv[i], "--try")) {
			o->q.try = true;
		} else if (streq(argv[i], "--only") && value) {
			o->q.only = argv[++i];
		} else if (streq(argv[i], "--owner") && value) {
			if (!str_to_u64(value, INT32_MAX, &pid) || pid == 0)
				return usage_error("--owner takes a process id, not", value);
			o->owner = (pid_t)pid;
			i++;
		} else {
			return usage_error("allocate: unknown option, or its value is missing",
					   argv[i]);
		}
	}
	if (i == argc)
		return 0;
	if (i + 1 == argc)
		return usage_error("allocate: no command after --", NULL);
	o->cmd = argv + i + 1;
	return 0;
}

/* The exit status for a failed pool_acquire(), and its explanation. */
static int explain(int rc, const struct pool_request *q, struct errmsg *msg)
{
	if (rc == -EAGAIN) {
		(void)errmsg_set(msg, rc, "all slots are taken");
		return EXIT_ALL_TAKEN;
	}
	if (rc == CONCC_E_UNAVAIL) {
		(void)errmsg_set(msg, rc,
				 "%s%s is up; `concc-worker-pool status` lists the workers",
				 q->only ? "no worker " : "no worker", q->only ? q->only : "");
		return EXIT_NO_WORKER;
	}
	(void)errmsg_set(msg, rc, "taking a slot: %s", err_text(rc));
	return EXIT_FAILED;
}

static void restore_signals(const sigset_t *old)
{
	(void)sigprocmask(SIG_SETMASK, old, NULL);
}

static int die_like(int status)
{
	/* Whoever waits for us sees the same death; without a second core dump. */
	struct rlimit no_core = {0, 0};
	int sig = WTERMSIG(status);
	sigset_t set;

	(void)setrlimit(RLIMIT_CORE, &no_core);
	(void)signal(sig, SIG_DFL);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, sig);
	(void)sigprocmask(SIG_UNBLOCK, &set, NULL);
	(void)raise(sig);
	return 128 + sig;
}

/* Signals sent to us alone go on to the command; the terminal's reach it by themselves. */
static int wait_command(pid_t child, int sig_fd)
{
	struct signalfd_siginfo si;
	int status;

	for (;;) {
		if (read_full(sig_fd, &si, sizeof(si)) != sizeof(si))
			return EXIT_FAILED;
		if (si.ssi_signo == SIGCHLD) {
			if (waitpid(child, &status, WNOHANG) == child)
				break;
		} else if (si.ssi_code == SI_USER || si.ssi_code == SI_TKILL) {
			(void)kill(child, (int)si.ssi_signo);
		}
	}
	return WIFSIGNALED(status) ? die_like(status) : WEXITSTATUS(status);
}

static void exec_command(char **cmd, const struct pool_slot *s, const sigset_t *mask, pid_t parent)
{
	restore_signals(mask);
	/* Without the slot it would be one job too many. */
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(EXIT_NOT_RUN);
	if (setenv("CONCC_SLOT", s->name, 1) == 0)
		(void)process_exec(NULL, cmd);
	(void)fprintf(stderr, "concc-worker-pool: can't run %s: %s\n", cmd[0], strerror(errno));
	_exit(EXIT_NOT_RUN);
}

static int run_with_slot(struct pool *p, const struct allocate_opts *o)
{
	struct pool_slot s = {.fd = -1};
	pid_t self = getpid(), child;
	struct errmsg msg = {""};
	sigset_t set, old;
	int rc, sig_fd;

	rc = pool_acquire(p, &o->q, &s);
	if (rc < 0) {
		int status = explain(rc, &o->q, &msg);

		return complain(status, msg.text);
	}
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGQUIT);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGHUP);
	(void)sigprocmask(SIG_BLOCK, &set, &old);
	sig_fd = signalfd(-1, &set, SFD_CLOEXEC);
	child = sig_fd < 0 ? -errno : process_fork();
	if (child == 0)
		exec_command(o->cmd, &s, &old, self);
	rc = child < 0 ? complain(EXIT_FAILED, err_text(child)) : wait_command(child, sig_fd);
	pool_release(p, &s);
	return rc;
}

/* ---- allocate in the background, release ---- */

#define HOLDER_NAME "concc-slot" /* as the kernel shows it: at most 15 characters */

/*
 * The clock tick at which a holder started: with the pid, its identity.  0 when
 * the process is gone, or is no holder.
 */
static unsigned long long holder_start_time(pid_t pid)
{
	static const char name[] = " (" HOLDER_NAME ") ";
	_cleanup_free_ char *path = xasprintf("/proc/%d/stat", (int)pid);
	_cleanup_buf_ struct buf b = BUF_INIT;
	unsigned long long ticks;
	const char *at;
	char state;

	if (read_file_at(AT_FDCWD, path, 4096, &b) < 0)
		return 0;
	at = strstr(buf_cstr(&b), name);
	if (!at || sscanf(at + sizeof(name) - 1,
			  "%c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
			  "%*d %llu",
			  &state, &ticks) != 2)
		return 0;
	return state == 'Z' || state == 'X' ? 0 : ticks;
}

/* What the holder tells the foreground process; one write, smaller than PIPE_BUF. */
struct report {
	int status;
	char text[600];
};

static void send_report(int fd, int status, const char *text)
{
	struct report r = {.status = status};

	(void)snprintf(r.text, sizeof(r.text), "%s", text);
	/* Nobody there to read it: then nobody got the token, and the owner's end frees the slot.
	 */
	(void)write_full(fd, &r, sizeof(r));
	(void)close(fd);
}

static int pidfd_of(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

static void hold_until_told(int owner_fd, int sig_fd)
{
	struct pollfd fds[] = {{owner_fd, POLLIN, 0}, {sig_fd, POLLIN, 0}};

	while (poll(fds, 2, -1) < 0 && errno == EINTR)
		;
}

static void holder_main(const struct allocate_opts *o, int report_fd, pid_t foreground)
{
	_cleanup_free_ char *line = NULL;
	struct pool_slot s = {.fd = -1};
	struct errmsg msg = {""};
	int owner_fd, sig_fd, rc, status;
	struct pool *p;
	sigset_t set;

	/* While it waits it is part of what the user sees, and ends with it. */
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != foreground)
		_exit(EXIT_FAILED);
	fd_detach_all(&report_fd, 1);
	owner_fd = pidfd_of(o->owner);
	if (owner_fd < 0) {
		send_report(report_fd, EXIT_UNKNOWN, "the owning process does not exist");
		_exit(EXIT_UNKNOWN);
	}
	rc = open_pool(&p, &msg);
	status = EXIT_FAILED;
	if (rc == 0) {
		rc = pool_acquire(p, &o->q, &s);
		if (rc < 0)
			status = explain(rc, &o->q, &msg);
	}
	if (rc < 0) {
		send_report(report_fd, status, msg.text);
		_exit(status);
	}
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	sig_fd = signalfd(-1, &set, SFD_CLOEXEC);
	(void)prctl(PR_SET_PDEATHSIG, 0);
	(void)prctl(PR_SET_NAME, HOLDER_NAME);
	(void)setsid();
	(void)chdir("/");
	line = xasprintf("%s %d.%llu", s.name, (int)getpid(), holder_start_time(getpid()));
	send_report(report_fd, 0, line);
	hold_until_told(owner_fd, sig_fd);
	pool_release(p, &s);
	pool_close(p);
	_exit(0);
}

static int hold_in_background(const struct allocate_opts *o)
{
	struct report r;
	pid_t self = getpid(), child;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return complain(EXIT_FAILED, strerror(errno));
	child = process_fork();
	if (child < 0)
		return complain(EXIT_FAILED, err_text(child));
	if (child == 0)
		holder_main(o, fds[1], self);
	(void)close(fds[1]);
	if (read_full(fds[0], &r, sizeof(r)) != sizeof(r))
		return complain(EXIT_FAILED, "the process that should hold the slot ended");
	r.text[sizeof(r.text) - 1] = '\0';
	if (r.status != 0)
		return complain(r.status, r.text);
	(void)puts(r.text);
	if (flush_stdout() == 0)
		return 0;
	(void)kill(child, SIGTERM); /* nobody knows its token */
	return EXIT_FAILED;
}

static int cmd_allocate(struct pool *p, int argc, char **argv)
{
	struct allocate_opts o;
	int status = parse_allocate(argc, argv, &o);

	if (status)
		return status;
	return o.cmd ? run_with_slot(p, &o) : hold_in_background(&o);
}

static int no_such_token(const char *token)
{
	(void)fprintf(stderr,
		      "concc-worker-pool: no slot is held with the token '%s'; it was released, or "
		      "its owner ended\n",
		      token);
	return EXIT_UNKNOWN;
}

static int cmd_release(struct pool *p, int argc, char **argv)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *pid_text = NULL;
	unsigned long long pid, started;
	struct pollfd pfd;
	const char *dot;

	if (argc != 1)
		return usage_error("release takes one token, as printed by allocate", NULL);
	dot = strchr(argv[0], '.');
	pid_text = dot ? xstrndup(argv[0], (size_t)(dot - argv[0])) : xstrdup("");
	if (!dot || !str_to_u64(pid_text, INT32_MAX, &pid) || pid == 0 ||
	    !str_to_u64(dot + 1, UINT64_MAX, &started) || started == 0)
		return usage_error("not a token that allocate prints", argv[0]);
	fd = pidfd_of((pid_t)pid);
	/* Compared after the pidfd is open: from here the pid can't mean another process. */
	if (fd < 0 || holder_start_time((pid_t)pid) != started)
		return no_such_token(argv[0]);
	if (syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0) < 0)
		return no_such_token(argv[0]);
	pfd = (struct pollfd){.fd = fd, .events = POLLIN};
	while (poll(&pfd, 1, -1) < 0 && errno == EINTR)
		;
	return 0;
}

/* ---- main ---- */

static const struct {
	const char *name;
	int (*run)(struct pool *p, int argc, char **argv);
} commands[] = {
	{"status", cmd_status},	  {"limit", cmd_limit}, {"add", cmd_add},
	{"remove", cmd_remove},	  {"reset", cmd_reset}, {"allocate", cmd_allocate},
	{"release", cmd_release},
};
#define N_COMMANDS (N_OF(commands))

static int unknown_command(const char *word)
{
	const char *names[N_COMMANDS], *near;

	for (size_t i = 0; i < N_COMMANDS; i++)
		names[i] = commands[i].name;
	near = str_nearest(word, names, N_COMMANDS);
	(void)fprintf(stderr,
		      "concc-worker-pool: no command '%s'%s%s%s; see concc-worker-pool --help\n",
		      word, near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	struct errmsg msg = {""};
	struct pool *p;
	int status;

	fd_hold_stdio();
	log_init("concc-worker-pool", LOG_LEVEL_WARN);
	if (argc < 2)
		return usage_error("no command given", NULL);
	if (streq(argv[1], "--help") || streq(argv[1], "-h") || streq(argv[1], "help")) {
		(void)fputs(usage_text, stdout);
		return flush_stdout();
	}
	if (streq(argv[1], "--version")) {
		(void)puts("concc-worker-pool " CONCC_VERSION);
		return flush_stdout();
	}
	for (size_t i = 0; i < N_COMMANDS; i++) {
		if (!streq(argv[1], commands[i].name))
			continue;
		if (open_pool(&p, &msg) < 0)
			return complain(EXIT_FAILED, msg.text);
		status = commands[i].run(p, argc - 2, argv + 2);
		pool_close(p);
		return status;
	}
	return unknown_command(argv[1]);
}
