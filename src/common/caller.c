/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/caller.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/io.h"
#include "concc/process.h"
#include "concc/str.h"

#define STACK_USUAL  (8ull << 20) /* _STK_LIM of the kernel */
#define FILES_ENOUGH 4096	  /* INR_OPEN_MAX, which was long the most that a login had */
#define NOFILE_RAISE (1ull << 20) /* the kernel's fs.nr_open, unless that was changed */
#define STATUS_MAX   (64 * 1024)  /* of /proc/self/status: 2 KB, and more with many groups */
/* Of those that a job of root's has: what decides by files' owners and modes. */
#define CAPS_OF_FILES (1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER)
#define WHO_PROCESS   1 /* IOPRIO_WHO_PROCESS, which no header of the C library has */

enum need {
	NEED_BOTH,
	NEED_SOME, /* as near as may be, of FILES_ENOUGH at least */
	NEED_NONE, /* both as near as may be */
	NEED_LIFE, /* not of a job, but of what starts workers and lives on */
};

static const struct {
	int resource;
	enum need need;
	const char *name;
} table[CALLER_N_LIMITS] = {
	[CALLER_CPU] = {RLIMIT_CPU, NEED_BOTH, "CPU time (ulimit -t)"},
	[CALLER_FSIZE] = {RLIMIT_FSIZE, NEED_BOTH, "size of files (ulimit -f)"},
	[CALLER_DATA] = {RLIMIT_DATA, NEED_BOTH, "data (ulimit -d)"},
	[CALLER_STACK] = {RLIMIT_STACK, NEED_BOTH, "stack (ulimit -s)"},
	[CALLER_CORE] = {RLIMIT_CORE, NEED_NONE, "core files (ulimit -c)"},
	[CALLER_RSS] = {RLIMIT_RSS, NEED_NONE, "resident memory (ulimit -m)"},
	[CALLER_NPROC] = {RLIMIT_NPROC, NEED_LIFE, "processes (ulimit -u)"},
	[CALLER_NOFILE] = {RLIMIT_NOFILE, NEED_SOME, "open files (ulimit -n)"},
	[CALLER_MEMLOCK] = {RLIMIT_MEMLOCK, NEED_NONE, "locked memory (ulimit -l)"},
	[CALLER_AS] = {RLIMIT_AS, NEED_BOTH, "address space (ulimit -v)"},
};

static uint64_t from_rlim(rlim_t v)
{
	return v == RLIM_INFINITY ? CALLER_UNLIMITED : v;
}

static rlim_t to_rlim(uint64_t v)
{
	return v == CALLER_UNLIMITED ? RLIM_INFINITY : (rlim_t)v;
}

static struct rlimit to_rlimit(const struct caller_limit *l)
{
	return (struct rlimit){.rlim_cur = to_rlim(l->soft), .rlim_max = to_rlim(l->hard)};
}

static uint64_t lesser(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* ---- reading ---- */

static uint64_t mask_of(const char *status, const char *name)
{
	const char *at = strstr(status, name);

	return at ? strtoull(at + strlen(name), NULL, 16) : 0;
}

static void read_signals(struct caller *c)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	/* One read for both; of real-time signals stat(5) in there says nothing. */
	if (read_file_at(AT_FDCWD, "/proc/self/status", STATUS_MAX, &b) < 0)
		return;
	c->blocked = mask_of(buf_cstr(&b), "\nSigBlk:") & ~CALLER_SIGNALS_NEVER;
	c->ignored = mask_of(buf_cstr(&b), "\nSigIgn:") & ~CALLER_SIGNALS_NEVER;
}

void caller_read(struct caller *ret)
{
	int persona = personality(0xffffffff);

	*ret = (struct caller){.persona = persona < 0 ? 0 : (uint32_t)persona};
	for (int i = 0; i < CALLER_N_LIMITS; i++) {
		struct rlimit rl = {RLIM_INFINITY, RLIM_INFINITY};

		(void)getrlimit(table[i].resource, &rl); /* can't fail */
		ret->limits[i].soft = from_rlim(rl.rlim_cur);
		ret->limits[i].hard = from_rlim(rl.rlim_max);
	}
	ret->nice = getpriority(PRIO_PROCESS, 0); /* can't fail of oneself */
	read_signals(ret);
}

bool caller_has_timer(void)
{
	static const int timers[] = {ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF};

	for (size_t i = 0; i < N_OF(timers); i++) {
		struct itimerval t = {0};

		(void)getitimer(timers[i], &t); /* can't fail */
		if (t.it_value.tv_sec || t.it_value.tv_usec)
			return true;
	}
	return false;
}

bool caller_is_lesser_root(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3] = {0};

	return geteuid() == 0 && syscall(SYS_capget, &head, caps) == 0 &&
	       (caps[0].effective & CAPS_OF_FILES) != CAPS_OF_FILES;
}

/* What it is, of those whose use can't be noticed; else NULL. */
static const char *kind_beyond(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return NULL;
	switch (st.st_mode & S_IFMT) {
	case S_IFDIR:
		return "a directory";
	case S_IFSOCK:
		return "a socket";
	case 0:
		return "an object of the kernel's without a name";
	}
	return NULL;
}

static enum caller_access access_of(int flags)
{
	switch (flags & O_ACCMODE) {
	case O_RDONLY:
		return CALLER_READS;
	case O_WRONLY:
		return CALLER_WRITES;
	}
	return CALLER_READS_WRITES;
}

int caller_read_descriptors(struct caller *c, const char **ret_what)
{
	unsigned end = (unsigned)lesser(c->limits[CALLER_NOFILE].soft, CALLER_FDS);
	struct pollfd fds[CALLER_FDS];
	int beyond = -1;

	for (unsigned i = 0; i < end; i++)
		fds[i] = (struct pollfd){.fd = i < CALLER_FDS_FROM ? -1 : (int)i};
	/* One call for all tells which of them are open; of O_PATH it says nothing. */
	if (poll(fds, end, 0) < 0)
		return -1;
	for (int fd = CALLER_FDS_FROM; fd < (int)end; fd++) {
		const char *what;

		if (fds[fd].revents & POLLNVAL || fcntl(fd, F_GETFD) != 0)
			continue;
		what = kind_beyond(fd);
		if (what && beyond < 0) {
			beyond = fd;
			*ret_what = what;
		}
		if (what)
			continue;
		c->fds[fd] = access_of(fcntl(fd, F_GETFL));
		c->fds_end = (uint16_t)(fd + 1);
	}
	return beyond;
}

/* ---- comparing ---- */

static bool gives(const struct caller *host, const struct caller *c, int i)
{
	uint64_t max = host->limits[i].hard;

	switch (table[i].need) {
	case NEED_BOTH:
		return c->limits[i].hard <= max;
	case NEED_SOME:
		return lesser(c->limits[i].soft, FILES_ENOUGH) <= max;
	case NEED_NONE:
	case NEED_LIFE:
		break;
	}
	return true;
}

int caller_lacking(const struct caller *host, const struct caller *c)
{
	for (int i = 0; i < CALLER_N_LIMITS; i++)
		if (!gives(host, c, i))
			return i;
	return -1;
}

const char *caller_limit_name(int id)
{
	return table[id].name;
}

void caller_fit(struct caller *c, const struct caller *host)
{
	for (int i = 0; i < CALLER_N_LIMITS; i++) {
		c->limits[i].hard = lesser(c->limits[i].hard, host->limits[i].hard);
		c->limits[i].soft = lesser(c->limits[i].soft, c->limits[i].hard);
	}
	if (c->nice < 0 || c->nice < host->nice)
		c->nice = host->nice;
}

bool caller_cores_leave(const char *pattern)
{
	return *pattern == '|' || *pattern == '@';
}

void caller_keep_cores(struct caller *c, const struct caller *host)
{
	if (host->limits[CALLER_CORE].hard >= 1)
		c->limits[CALLER_CORE] = (struct caller_limit){1, 1};
}

/* Who is in more of a hurry than usual is content with the usual. */
static int nice_wanted(const struct caller *c)
{
	return c->nice < 0 ? 0 : c->nice;
}

bool caller_exceeds(const struct caller *c, const struct caller *host)
{
	bool more = nice_wanted(c) < host->nice;

	if (nice_wanted(c) > nice_wanted(host))
		return false;
	for (int i = 0; i < CALLER_N_LIMITS; i++) {
		uint64_t hard = c->limits[i].hard, theirs = host->limits[i].hard;

		if (table[i].need != NEED_NONE && hard < theirs)
			return false;
		more |= table[i].need == NEED_LIFE ? hard > theirs : !gives(host, c, i);
	}
	return more;
}

/* ---- becoming ---- */

static bool same(const struct caller_limit *a, const struct caller_limit *b)
{
	return a->soft == b->soft && a->hard == b->hard;
}

static int set_limits(const struct caller *c, const struct caller *own, const char **ret_what)
{
	for (int i = 0; i < CALLER_N_LIMITS; i++) {
		struct rlimit rl = to_rlimit(&c->limits[i]);

		if (table[i].need == NEED_LIFE || same(&c->limits[i], &own->limits[i]))
			continue;
		*ret_what = table[i].name;
		if (setrlimit(table[i].resource, &rl) < 0)
			return -errno;
	}
	return 0;
}

/* Not through glibc, which refuses to touch the two of its own that posix_spawn(3) leaves so. */
static void set_action(int signo, void (*handler)(int))
{
	struct {
		void (*handler)(int);
		unsigned long rest[3]; /* flags and more, in whatever order: none */
	} sa = {.handler = handler};

	(void)syscall(SYS_rt_sigaction, signo, &sa, NULL, 8); /* refused for KILL and STOP only */
}

static int block(uint64_t mask)
{
	return syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask)) < 0 ? -errno : 0;
}

int caller_become_nice(const struct caller *c, const struct caller *own, const char **ret_what)
{
	*ret_what = "niceness";
	return c->nice != own->nice && setpriority(PRIO_PROCESS, 0, c->nice) < 0 ? -errno : 0;
}

int caller_become(const struct caller *c, const struct caller *own, const char **ret_what)
{
	int r = set_limits(c, own, ret_what);

	if (r < 0)
		return r;
	*ret_what = "personality (setarch)";
	if (c->persona != own->persona && personality(c->persona) < 0)
		return -errno;
	for (int signo = 1; signo < NSIG; signo++)
		if (c->ignored >> (signo - 1) & 1)
			set_action(signo, SIG_IGN);
	*ret_what = "blocked signals";
	return block(c->blocked);
}

/* ---- shedding ---- */

void caller_reset_signals(void)
{
	for (int signo = 1; signo < NSIG; signo++)
		set_action(signo, SIG_DFL);
}

/* Privileged, it could do this at any time as well; who is not keeps what there is. */
static void raise_hard(int resource)
{
	rlim_t wanted = resource == RLIMIT_NOFILE ? NOFILE_RAISE : RLIM_INFINITY;
	struct rlimit rl;

	if (getrlimit(resource, &rl) < 0 || rl.rlim_max >= wanted)
		return;
	rl.rlim_max = wanted;
	(void)setrlimit(resource, &rl);
}

static void raise_soft(int resource)
{
	struct rlimit rl;

	if (getrlimit(resource, &rl) < 0)
		return;
	rl.rlim_cur = rl.rlim_max;
	if (resource == RLIMIT_STACK && rl.rlim_cur > STACK_USUAL)
		rl.rlim_cur = STACK_USUAL;
	(void)setrlimit(resource, &rl); /* the old limit does for most */
}

/* Not core files, which would surprise, nor the rights to priorities, of which no use is made. */
static bool is_widened(int resource)
{
	return resource != RLIMIT_CORE && resource != RLIMIT_NICE && resource != RLIMIT_RTPRIO;
}

void caller_widen(void)
{
	for (int i = 0; i < RLIM_NLIMITS; i++)
		if (is_widened(i))
			raise_soft(i);
}

void caller_shed(void)
{
	for (int i = 0; i < CALLER_N_LIMITS; i++)
		raise_hard(table[i].resource);
	caller_widen();
	caller_reset_signals();
	(void)block(0);
	(void)umask(022);
	(void)personality(PER_LINUX);
	/* Each of these may be refused, who was lowered can't rise again: then it is only slow. */
	process_set_policy(SCHED_OTHER);
	(void)syscall(SYS_ioprio_set, WHO_PROCESS, 0, 0);
	(void)setpriority(PRIO_PROCESS, 0, 0);
}
