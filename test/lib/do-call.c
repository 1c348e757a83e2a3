/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * One thing that a process does or is, on one line: for comparing it here and on a worker.
 *
 *	do-call WHAT ARG...	see the table at the end; exit status 1 when a call fails
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static int say(long r)
{
	puts(r < 0 ? strerrorname_np(errno) : "done");
	return r < 0;
}

static unsigned number(const char *s)
{
	return (unsigned)strtol(s, NULL, 0);
}

/* ---- what it is ---- */

static int called(char **argv)
{
	char exe[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	exe[n < 0 ? 0 : n] = '\0';
	printf("%s %s %s\n", (const char *)getauxval(AT_EXECFN), argv[0], exe);
	return 0;
}

static int signals(char **argv)
{
	sigset_t blocked;

	sigprocmask(SIG_BLOCK, NULL, &blocked);
	for (int i = 1; i < NSIG; i++) {
		struct sigaction sa;

		if (sigaction(i, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN)
			printf("ignored %d ", i);
		if (sigismember(&blocked, i) == 1)
			printf("blocked %d ", i);
	}
	puts(".");
	return 0;
}

/* blocking SIGNAL CMD...: runs it with that signal blocked. */
static int blocking(char **argv)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, (int)number(argv[2]));
	sigprocmask(SIG_BLOCK, &set, NULL);
	execvp(argv[3], argv + 3);
	return say(-1);
}

/* ---- what it uses ---- */

static __attribute__((noinline)) unsigned deep(unsigned kb)
{
	volatile char here[1024];

	memset((char *)here, (int)kb, sizeof(here));
	return kb ? deep(kb - 1) + (unsigned char)here[kb % sizeof(here)] : 0;
}

static int stack(char **argv)
{
	printf("%d\n", deep(number(argv[2])) != 1);
	return 0;
}

static int memory(char **argv)
{
	size_t n = (size_t)number(argv[2]) << 20;
	char *p = malloc(n);

	if (p)
		memset(p, 1, n);
	return say(p ? 0 : -1);
}

static int files(char **argv)
{
	unsigned n = 0;

	(void)syscall(SYS_close_range, 3U, ~0U, 0U);
	while (n < number(argv[2]) && open("/dev/null", O_RDONLY) >= 0)
		n++;
	printf("%u\n", n);
	return 0;
}

/* ---- what it does ---- */

static int do_chown(char **argv)
{
	return say(chown(argv[2], number(argv[3]), number(argv[4])));
}

static int do_lchown(char **argv)
{
	return say(lchown(argv[2], number(argv[3]), number(argv[4])));
}

static int do_fchown(char **argv)
{
	return say(fchown(open(argv[2], O_RDONLY), number(argv[3]), number(argv[4])));
}

static int do_chownat(char **argv)
{
	return say(fchownat(AT_FDCWD, argv[2], number(argv[3]), number(argv[4]), 0));
}

static int do_mknod(char **argv)
{
	mode_t type = *argv[3] == 'c'	? S_IFCHR
		      : *argv[3] == 'b' ? S_IFBLK
		      : *argv[3] == 'p' ? S_IFIFO
					: S_IFREG;

	return say(mknod(argv[2], type | 0644, makedev(number(argv[4]), number(argv[5]))));
}

static int do_setxattr(char **argv)
{
	return say(setxattr(argv[2], argv[3], argv[4], strlen(argv[4]), 0));
}

/* As cp -p does: u::rw-,g::r--,o::r--. */
static int plain_acl(char **argv)
{
	static const unsigned char acl[28] = {2,   0,	0, 0, 1,   0,	6,   0,	  255, 255,
					      255, 255, 4, 0, 4,   0,	255, 255, 255, 255,
					      32,  0,	4, 0, 255, 255, 255, 255};

	return say(setxattr(argv[2], "system.posix_acl_access", acl, sizeof(acl), 0));
}

static int do_chattr(char **argv)
{
	int flags = 0, fd = open(argv[2], O_RDONLY);

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
		return say(-1);
	flags |= FS_NODUMP_FL;
	return say(ioctl(fd, FS_IOC_SETFLAGS, &flags));
}

static int do_mount(char **argv)
{
	return say(mount("do-call", argv[2], "tmpfs", 0, NULL));
}

static int do_unshare(char **argv)
{
	return say(unshare((int)number(argv[2])));
}

static int do_setuid(char **argv)
{
	return say(setresuid(number(argv[2]), number(argv[2]), number(argv[2])));
}

static int do_setgroups(char **argv)
{
	return say(syscall(SYS_setgroups, 0, NULL));
}

static int priority(char **argv)
{
	return say(setpriority(PRIO_PROCESS, 0, (int)number(argv[2])));
}

static int exchange(char **argv)
{
	return say(renameat2(AT_FDCWD, argv[2], AT_FDCWD, argv[3], RENAME_EXCHANGE));
}

static int listener(char **argv)
{
	struct sock_filter pass = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog prog = {1, &pass};

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return say(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
			   &prog));
}

/* A system call of 32-bit programs, of which no filter knows: chown32(NULL, 1, 1). */
static int old_call(char **argv)
{
#ifdef __x86_64__
	int r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(212), "b"(0), "c"(1), "d"(1) : "memory");
	errno = -r;
	return say(r);
#else
	return say(0);
#endif
}

/* The same: socketcall(SYS_SOCKET, ...), whose arguments are in memory. */
static int old_socket(char **argv)
{
#if defined(__x86_64__) && defined(MAP_32BIT)
	unsigned *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	int r;

	if (at == MAP_FAILED)
		return say(-1);
	at[0] = number(argv[2]);
	at[1] = SOCK_STREAM;
	at[2] = 0;
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(102), "b"(1), "c"(at) : "memory");
	errno = -r;
	return say(r < 0 ? -1 : 0);
#else
	return say(0);
#endif
}

/* Of all of the host's that are left, or as many as it says. */
static int do_io_setup(char **argv)
{
	unsigned long context = 0;

	return say((int)syscall(SYS_io_setup, number(argv[2]), &context));
}

/* Makes READY when it listens. */
static int watch(char **argv)
{
	int fd = inotify_init1(IN_CLOEXEC);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (fd < 0 || inotify_add_watch(fd, argv[2], IN_CREATE | IN_MODIFY) < 0)
		return say(-1);
	(void)close(open(argv[3], O_WRONLY | O_CREAT | O_EXCL, 0666));
	puts(poll(&p, 1, 20000) > 0 ? "changed" : "nothing");
	return 0;
}

static int call(char **argv);

/* Without what root may do, as long as nothing is executed. */
static int bare(char **argv)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {0};

	return syscall(SYS_capset, &h, none) < 0 ? say(-1) : call(argv + 1);
}

static const struct {
	const char *name;
	int (*fn)(char **argv);
	int n_args;
} table[] = {
	{"called", called, 0},
	{"signals", signals, 0},
	{"blocking", blocking, 2},
	{"stack", stack, 1},	      /* KB */
	{"memory", memory, 1},	      /* MB */
	{"files", files, 1},	      /* at most so many: how many it may open */
	{"chown", do_chown, 3},	      /* FILE UID GID */
	{"lchown", do_lchown, 3},     /* the same */
	{"fchown", do_fchown, 3},     /* the same */
	{"chownat", do_chownat, 3},   /* the same */
	{"mknod", do_mknod, 4},	      /* FILE c|b|p|f MAJOR MINOR */
	{"setxattr", do_setxattr, 3}, /* FILE NAME VALUE */
	{"acl", plain_acl, 1},	      /* FILE */
	{"chattr", do_chattr, 1},     /* FILE */
	{"mount", do_mount, 1},	      /* DIR */
	{"unshare", do_unshare, 1},   /* FLAGS */
	{"setuid", do_setuid, 1},     /* UID */
	{"setgroups", do_setgroups, 0},
	{"io-setup", do_io_setup, 1}, /* N */
	{"priority", priority, 1},    /* NICE */
	{"exchange", exchange, 2},    /* FILE FILE */
	{"watch", watch, 2},	      /* PATH READY */
	{"listener", listener, 0},
	{"old-call", old_call, 0},
	{"old-socket", old_socket, 1}, /* FAMILY */
	{"bare", bare, 1},	       /* WHAT ARG... */
};

static int call(char **argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	for (size_t i = 0; argc > 1 && i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(argv[1], table[i].name) == 0 && argc - 2 >= table[i].n_args)
			return table[i].fn(argv);
	fprintf(stderr, "do-call: see its source\n");
	return 2;
}

int main(int argc, char **argv)
{
	return call(argv);
}
