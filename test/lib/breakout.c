/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A job that tries to get out of the sandbox.  Says a line for each attempt:
 * "refused NAME (why)" or "BROKE NAME: how", and at last "done".  Exit status 0
 * in any case, since what a failing job says is another matter.
 *
 *	breakout PATH-OF-A-SETUID-FILE HOST-ADDRESS CLIENT-ADDRESS
 *
 * or only sends SIGTERM to all that it can, but itself:
 *
 *	breakout --signal-all
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static const char *name;
static const char *setuid_file, *host_address, *client_address;

__attribute__((format(printf, 1, 2))) static void broke(const char *fmt, ...)
{
	va_list ap;

	printf("BROKE %s: ", name);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

/* The attempt failed, as it should, for errno. */
static void refused(void)
{
	/* By its name: the words of some have a job run on the client. */
	printf("refused %s (%s)\n", name, strerrorname_np(errno));
}

/* ok: what should have been refused was done. */
static void judge(bool ok, const char *what)
{
	if (ok)
		broke("%s", what);
	else
		refused();
}

/* ---- files ---- */

static void can_read(const char *path)
{
	char c;
	int fd = open(path, O_RDONLY | O_NONBLOCK);

	judge(fd >= 0 && read(fd, &c, 1) >= 0, path);
	if (fd >= 0)
		(void)close(fd);
}

/* One that may be there, and has nothing in it. */
static void says(const char *path)
{
	char c;
	int fd = open(path, O_RDONLY);

	judge(fd >= 0 && read(fd, &c, 1) > 0, path);
	if (fd >= 0)
		(void)close(fd);
}

static void can_write(const char *path)
{
	int fd = open(path, O_WRONLY | O_NONBLOCK);

	judge(fd >= 0, path);
	if (fd >= 0)
		(void)close(fd);
}

static void can_make(const char *dir)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/concc-breakout", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	judge(fd >= 0, path);
	if (fd >= 0)
		(void)close(fd);
}

static void secrets(void)
{
	can_read("/etc/shadow");
	can_read("/root/.bashrc-of-w");
	can_read("/home/builder/.bashrc-of-w");
	can_read("/mnt/etc/host_key");
	can_read("/run/sshd/secret");
	can_read("/sys/kernel/notes");
	can_read("/proc/kcore");
	can_read("/proc/kmsg");
	can_read("/proc/vmallocinfo");
	can_read("/proc/timer_list");
}

static void writes(void)
{
	static const char *const dirs[] = {"/",	    "/etc", "/usr", "/usr/bin", "/var/lib", "/dev",
					   "/proc", "/run", "/sys", "/var",	"/mnt"};
	static const char *const files[] = {
		"/etc/passwd",
		"/usr/bin/env",
		"/proc/sys/kernel/core_pattern",
		"/proc/sys/kernel/hostname",
		"/proc/sys/vm/drop_caches",
		"/proc/sys/user/max_user_namespaces",
		"/proc/sysrq-trigger",
		"/proc/self/oom_score_adj",
		"/proc/1/oom_score_adj",
		"/proc/self/uid_map",
	};

	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++)
		can_make(dirs[i]);
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		can_write(files[i]);
}

/* ---- processes ---- */

static void try_process(int pid)
{
	char path[64], buf[16];
	struct iovec here = {buf, sizeof(buf)}, there = {(void *)&name, sizeof(buf)};

	snprintf(path, sizeof(path), "/proc/%d/root/etc/passwd", pid);
	can_read(path);
	snprintf(path, sizeof(path), "/proc/%d/cwd/.", pid);
	judge(access(path, F_OK) == 0, path);
	snprintf(path, sizeof(path), "/proc/%d/fd/3", pid);
	judge(readlink(path, buf, sizeof(buf)) >= 0, path);
	snprintf(path, sizeof(path), "/proc/%d/environ", pid);
	can_read(path);
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	can_write(path);
	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	can_read(path);
	can_write(path);
	snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", pid);
	can_write(path);
	snprintf(path, sizeof(path), "/proc/%d/timerslack_ns", pid);
	can_write(path);
	judge(process_vm_readv(pid, &here, 1, &there, 1, 0) >= 0, "process_vm_readv");
	judge(ptrace(PTRACE_SEIZE, pid, 0, 0) == 0, "ptrace");
	judge(syscall(SYS_pidfd_getfd, (int)syscall(SYS_pidfd_open, pid, 0), 3, 0) >= 0,
	      "pidfd_getfd");
	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", pid);
	judge(setns(open(path, O_RDONLY), 0) == 0, "setns");
}

/* As the init itself calls it (src/sandbox/filter.h): else the job would be ended for it at once.
 */
static int quiet_kill(int pid, int signo)
{
	return (int)syscall(SYS_kill, pid, signo, 0x636f6e63);
}

/* Our own init: it is the launcher's fork, with open sockets and capabilities. */
static void init_of_job(void)
{
	try_process(1);
	(void)quiet_kill(1, SIGKILL); /* the kernel ignores it, for an init from within */
	(void)quiet_kill(1, SIGTERM);
	(void)quiet_kill(1, SIGSEGV);
	refused();
}

static void others(void)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d))) {
		int pid = atoi(e->d_name);

		if (pid > 1 && pid != getpid() && pid != getppid() && getsid(pid) != getsid(0)) {
			broke("sees process %d", pid);
			n++;
		}
	}
	errno = ESRCH;
	if (!n)
		refused();
	for (int pid = 2; pid < 400; pid++)
		if (pid != getpid() && pid != getppid() && getsid(pid) != getsid(0) &&
		    quiet_kill(pid, 0) == 0)
			broke("can signal %d", pid);
}

/* ---- sockets ---- */

static void connect_to(int family, int type, const char *addr, int port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(family, type, 0);
	char what[64];

	snprintf(what, sizeof(what), "%s port %d", addr, port);
	(void)inet_pton(AF_INET, addr, &sa.sin_addr);
	if (type == SOCK_DGRAM)
		judge(sendto(fd, "x", 1, 0, (struct sockaddr *)&sa, sizeof(sa)) == 1 &&
			      strcmp(addr, "127.0.0.1"),
		      what);
	else
		judge(connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0, what);
	if (fd >= 0)
		(void)close(fd);
}

static void network(void)
{
	const char *const addrs[] = {"127.0.0.1", host_address, client_address};

	for (size_t i = 0; i < 3; i++) {
		connect_to(AF_INET, SOCK_STREAM, addrs[i], 22);
		connect_to(AF_INET, SOCK_DGRAM, addrs[i], 53);
	}
	judge(socket(AF_PACKET, SOCK_RAW, 0) >= 0, "a packet socket");
	judge(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) >= 0, "a raw socket");
}

static void unix_to(const char *path, size_t n)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memcpy(sa.sun_path, path, n);
	judge(connect(fd, (struct sockaddr *)&sa,
		      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) == 0,
	      *path ? path : path + 1);
	(void)close(fd);
}

static void unix_sockets(void)
{
	unix_to("\0host-abstract", 14);
	unix_to("\0concc/1/slot/0", 15); /* our own slot */
	unix_to("/tmp/host.sock", 14);
	unix_to("/run/host.sock", 14);
}

/* ---- devices ---- */

static void devices(void)
{
	static const struct {
		const char *path;
		mode_t type;
		unsigned major, minor;
	} nodes[] = {{"mem", S_IFCHR, 1, 1},   {"kmsg", S_IFCHR, 1, 11}, {"fuse", S_IFCHR, 10, 229},
		     {"vda", S_IFBLK, 254, 0}, {"sda", S_IFBLK, 8, 0},	 {"loop0", S_IFBLK, 7, 0}};

	for (size_t i = 0; i < sizeof(nodes) / sizeof(*nodes); i++) {
		char path[64];

		snprintf(path, sizeof(path), "/dev/%s", nodes[i].path);
		judge(open(path, O_RDONLY | O_NONBLOCK) >= 0, path);
		snprintf(path, sizeof(path), "/tmp/%s", nodes[i].path);
		judge(mknod(path, nodes[i].type | 0666, makedev(nodes[i].major, nodes[i].minor)) ==
				      0 &&
			      open(path, O_RDONLY | O_NONBLOCK) >= 0,
		      path);
		(void)unlink(path);
		judge(mknod(nodes[i].path, nodes[i].type | 0666,
			    makedev(nodes[i].major, nodes[i].minor)) == 0 &&
			      open(nodes[i].path, O_RDONLY | O_NONBLOCK) >= 0,
		      "a node in the workspace");
		(void)unlink(nodes[i].path);
	}
}

/* ---- privileges ---- */

static void setuid_program(void)
{
	FILE *p;
	unsigned before = geteuid(), after = before;
	char cmd[512];

	/* In the workspace it would come home, where it is refused. */
	snprintf(cmd, sizeof(cmd),
		 "cp %s /tmp/id; chown 1717 /tmp/id; chmod 4755 /tmp/id; /tmp/id -u; rm /tmp/id",
		 setuid_file);
	p = popen(cmd, "r");
	if (!p || fscanf(p, "%u", &after) != 1)
		after = before;
	if (p)
		(void)pclose(p);
	errno = EPERM;
	judge(after != before, "the setuid file of the job");
	judge(system("su -s /bin/sh builder -c true 2>/dev/null </dev/null") == 0 && before != 0,
	      "su");
	judge(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1, "new privileges are possible");
	judge(prctl(PR_SET_KEEPCAPS, 1) == 0 && setuid(1717) == 0 && before != 1717,
	      "becomes another user");
	judge(setgroups(0, NULL) == 0 && before != 0, "changes its groups");
}

/* Below a root that another process' directory is above, ".." knows no end; is the worker's there?
 */
static bool climbs(void)
{
	int top = open("/", O_PATH | O_DIRECTORY);

	if (top < 0 || (mkdir("/tmp/below", 0755) < 0 && errno != EEXIST) ||
	    chroot("/tmp/below") < 0 || fchdir(top) < 0)
		return false;
	for (int i = 0; i < 64; i++)
		if (chdir("..") < 0)
			return false;
	return access("run/sshd/secret", F_OK) == 0 || access("mnt/etc/host_key", F_OK) == 0 ||
	       access("home/builder/.bashrc-of-w", F_OK) == 0;
}

static void namespaces(void)
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0) {
		/* Within a user namespace of its own anyone has all capabilities. */
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
			_exit(errno == ENOSPC || errno == EPERM ? 0 : 1);
		if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL) == 0)
			_exit(10);
		if (mount(NULL, "/usr", NULL, MS_REMOUNT | MS_BIND, NULL) == 0)
			_exit(11);
		if (mount(NULL, "/etc", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID, NULL) == 0)
			_exit(12);
		if (umount2("/tmp", MNT_DETACH) == 0)
			_exit(13);
		if (umount2("/proc", 0) == 0)
			_exit(14);
		if (mount("none", "/mnt", "tmpfs", 0, NULL) == 0 &&
		    mknod("/mnt/mem", S_IFCHR | 0666, makedev(1, 1)) == 0)
			_exit(15);
		if (mount("proc", "/mnt", "proc", 0, NULL) == 0 &&
		    open("/mnt/sys/kernel/core_pattern", O_WRONLY) >= 0)
			_exit(16);
		if (mount("sysfs", "/mnt", "sysfs", 0, NULL) == 0 &&
		    open("/mnt/kernel/uevent_helper", O_WRONLY) >= 0)
			_exit(17);
		if (umount2("/", MNT_DETACH) == 0)
			_exit(18);
		if (climbs())
			_exit(19);
		_exit(0);
	}
	(void)waitpid(pid, &status, 0);
	(void)rmdir("/tmp/below");
	if (status)
		broke("status %d in a user namespace of its own", WEXITSTATUS(status));
	else
		refused();
	judge(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL) == 0, "remount /");
	judge(mount(NULL, "/usr", NULL, MS_REMOUNT | MS_BIND, NULL) == 0, "remount /usr");
	judge(mount("none", "/mnt", "tmpfs", 0, NULL) == 0, "mount a tmpfs");
	judge(umount2("/tmp", MNT_DETACH) == 0, "unmount /tmp");
	judge(chroot("/tmp") == 0, "chroot");
	judge(syscall(SYS_open_by_handle_at, AT_FDCWD, &(struct {
			      unsigned n;
			      int t;
			      char b[8];
		      }){8, 1, {2}},
		      O_RDONLY) >= 0,
	      "open_by_handle_at");
}

/* ---- what the kernel keeps outside of files ---- */

static void ipc(void)
{
	struct mq_attr at = {.mq_maxmsg = 1, .mq_msgsize = 1};

	judge(shmget(0x636f6e63, 1, 0) >= 0, "the host's shared memory");
	judge(syscall(SYS_mq_open, "host-queue", O_RDWR, 0600, &at) >= 0, "the host's queue");
	judge(open("/dev/shm/host-shm", O_RDWR) >= 0, "the host's /dev/shm");
	judge(open("/dev/mqueue/host-queue", O_RDWR) >= 0, "/dev/mqueue");
	judge(syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_USER_KEYRING, "user", "host-key", 0) >= 0,
	      "the host user's key");
	judge(syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", "host-key", 0) >=
		      0,
	      "the host session's key");
}

/* ---- calls that no job has any business with ---- */

/* By the numbers of 32-bit programs, which any program may use. */
static long old_call(long nr, long a, long b)
{
#ifdef __x86_64__
	long r = nr;

	__asm__ volatile("int $0x80" : "+a"(r) : "b"(a), "c"(b), "d"(0), "S"(0) : "memory");
	errno = r < 0 ? (int)-r : 0;
	return r < 0 ? -1 : r;
#else
	errno = ENOSYS;
	return -1;
#endif
}

/* socketcall(2): AF_VSOCK is of no network namespace. */
static long old_socket(void)
{
	unsigned *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	if (at == MAP_FAILED)
		return -1;
	at[0] = AF_VSOCK;
	at[1] = SOCK_STREAM;
	return old_call(102, 1, (long)at);
}

static void calls(void)
{
	char room[256] = {0}; /* for any struct of theirs */

	judge(syscall(SYS_io_uring_setup, 1, room) >= 0, "io_uring");
	judge(syscall(SYS_bpf, 0, room, sizeof(room)) >= 0, "bpf");
	judge(syscall(SYS_userfaultfd, 1) >= 0, "userfaultfd");
	judge(syscall(SYS_perf_event_open, room, 0, -1, -1, 0) >= 0, "perf_event_open");
	judge(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 1) >= 0, "keyctl");
	judge(syscall(SYS_add_key, "user", "k", "x", 1, KEY_SPEC_PROCESS_KEYRING) >= 0, "add_key");
	judge(syscall(SYS_kexec_load, 0, 0, NULL, 0) >= 0, "kexec_load");
	judge(syscall(SYS_syslog, 3, room, sizeof(room)) >= 0, "the kernel's log");
	judge(old_call(103, 10, 0) >= 0, "the kernel's log, 32 bits");
	judge(socket(AF_VSOCK, SOCK_STREAM, 0) >= 0, "a vsock socket");
	judge(socket(AF_ALG, SOCK_SEQPACKET, 0) >= 0, "a socket of the kernel's cryptography");
	judge(unshare(CLONE_NEWUSER) == 0, "a user namespace");
	judge(old_call(425, 1, 0) >= 0 || errno == EFAULT, "io_uring, 32 bits");
	judge(old_call(288, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING) >= 0, "keyctl, 32 bits");
	judge(old_call(374, 1, 0) >= 0, "userfaultfd, 32 bits");
	judge(old_call(359, AF_VSOCK, SOCK_STREAM) >= 0, "a vsock socket, 32 bits");
	judge(old_socket() >= 0, "a vsock socket by socketcall");
	judge(old_call(310, CLONE_NEWUSER, 0) == 0, "a user namespace, 32 bits");
	says("/proc/keys");
	says("/proc/key-users");
}

/* By the descriptors of mounts, which newer kernels have. */
static void mounts_by_descriptor(void)
{
	struct {
		uint64_t set, clear, propagation, userns_fd;
	} writable = {.clear = 1};					    /* MOUNT_ATTR_RDONLY */
	int tree = (int)syscall(428, AT_FDCWD, "/usr", 1u | O_CLOEXEC), fs; /* open_tree */

	judge(tree >= 0, "a clone of /usr by open_tree");
	judge(syscall(429, tree, "", AT_FDCWD, "/mnt", 4) == 0, "move_mount");
	fs = (int)syscall(430, "tmpfs", 0); /* fsopen */
	judge(fs >= 0 && syscall(431, fs, 6, NULL, NULL, 0) == 0, "a tmpfs by fsopen");
	judge(fs >= 0 && syscall(432, fs, 0, 0) >= 0, "fsmount");
	judge(syscall(442, AT_FDCWD, "/usr", 0, &writable, sizeof(writable)) == 0,
	      "/usr to be written to by mount_setattr");
	judge(syscall(442, AT_FDCWD, "/", 0x8000, &writable, sizeof(writable)) == 0,
	      "all of / by mount_setattr");
}

/* What is of the machine, and no namespace has one of its own. */
static void machine(void)
{
	struct timespec t = {.tv_sec = 1};
	struct sched_param rt = {.sched_priority = 1};
	uint64_t args[11] = {CLONE_NEWUSER};

	judge(clock_settime(CLOCK_REALTIME, &t) == 0, "the clock");
	judge(sethostname("owned", 5) == 0, "the host's name");
	judge(syscall(SYS_swapon, "/tmp", 0) == 0, "swapon");
	judge(syscall(SYS_acct, "/tmp/acct") == 0, "acct");
	judge(syscall(SYS_fanotify_init, 0, 0) >= 0, "fanotify with a class of its own");
	judge(sched_setscheduler(0, SCHED_FIFO, &rt) == 0, "real time");
	judge(syscall(SYS_ioprio_set, 1, 0, 1 << 13) == 0, "real time of disks");
	judge(setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) - 1) == 0, "niceness");
	judge(syscall(435, args, sizeof(args)) >= 0, "a user namespace by clone3");
	judge(syscall(0x40000000 | SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 1) >=
		      0,
	      "keyctl by its number of x32");
#ifdef __x86_64__
	judge(syscall(SYS_iopl, 3) == 0, "iopl");
	judge(syscall(SYS_ioperm, 0x70, 2, 1) == 0, "ioperm");
#endif
}

/* Nothing of the kernel's settings, whatever the namespace that it is of. */
static void settings(const char *dir, unsigned depth)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char path[512];
		struct stat st;
		int fd;

		if (*e->d_name == '.' ||
		    snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) >= (int)sizeof(path))
			continue;
		if (e->d_type == DT_DIR && depth)
			settings(path, depth - 1);
		fd = e->d_type == DT_REG ? open(path, O_WRONLY) : -1;
		if (fd < 0)
			continue;
		if (fstat(fd, &st) < 0 || S_ISREG(st.st_mode)) /* else /dev/null is there */
			broke("%s", path);
		(void)close(fd);
	}
	if (d)
		(void)closedir(d);
}

static void all_settings(void)
{
	settings("/proc/sys", 8);
	settings("/proc/irq", 2);
	settings("/proc/bus", 3);
	settings("/proc/fs", 4);
	settings("/proc", 0);
	errno = EROFS;
	refused();
}

/* ---- what is inherited ---- */

/* What stands for an open file of the caller's, by its name: to look at more would be a use. */
static bool is_stand_in(const char *target, size_t n)
{
	static const char name_of[] = "/.descriptor";
	const size_t len = sizeof(name_of) - 1;

	return n >= len && memcmp(target + n - len, name_of, len) == 0;
}

static void from_stand_in(int fd, const char *path)
{
	char up[96];

	judge(openat(fd, "..", O_PATH) >= 0, "openat by a stand-in");
	judge(fchdir(fd) == 0, "fchdir to a stand-in");
	snprintf(up, sizeof(up), "%s/../../mnt/etc/host_key", path);
	judge(open(up, O_RDONLY) >= 0, "through a stand-in");
}

static void descriptors(void)
{
	for (int fd = 3; fd < 1024; fd++) {
		char path[64], target[256];
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n = readlink(path, target, sizeof(target) - 1);
		if (n > 0 && is_stand_in(target, (size_t)n))
			from_stand_in(fd, path);
		else if (n > 0)
			broke("descriptor %d: %.*s", fd, (int)n, target);
	}
	/* Up through our own ones. */
	judge(open("/proc/self/fd/0/../../../../etc/shadow", O_RDONLY) >= 0, "fd 0");
	judge(openat(open("/", O_PATH), "../../../../mnt/etc/host_key", O_RDONLY) >= 0, "..");
}

static void terminal(void)
{
	char c = '\n';

	judge(ioctl(0, TIOCSTI, &c) == 0, "TIOCSTI on stdin");
	judge(ioctl(1, TIOCSTI, &c) == 0, "TIOCSTI on stdout");
	judge(ioctl(open("/dev/tty", O_RDWR), TIOCSTI, &c) == 0, "TIOCSTI on /dev/tty");
	judge(open("/dev/ptmx", O_RDWR) >= 0, "a terminal of its own from the host");
}

static const struct {
	const char *name;
	void (*run)(void);
} attempts[] = {
	{"descriptors", descriptors},
	{"secrets", secrets},
	{"writes", writes},
	{"init", init_of_job},
	{"others", others},
	{"network", network},
	{"unix", unix_sockets},
	{"devices", devices},
	{"namespaces", namespaces},
	{"ipc", ipc},
	{"calls", calls},
	{"mounts", mounts_by_descriptor},
	{"machine", machine},
	{"settings", all_settings},
	{"terminal", terminal},
	{"setuid", setuid_program},
};

int main(int argc, char **argv)
{
	/* Outside it would succeed. */
	if (!getenv("CONCC_WORKER")) {
		fprintf(stderr, "breakout: only on a worker\n");
		return 1;
	}
	if (argc == 2 && strcmp(argv[1], "--signal-all") == 0) {
		(void)quiet_kill(-1, SIGTERM); /* which leaves out who sends it */
		return 0;
	}
	setuid_file = argc > 1 ? argv[1] : "/bin/su";
	host_address = argc > 2 ? argv[2] : "127.0.0.1";
	client_address = argc > 3 ? argv[3] : "127.0.0.1";
	(void)setvbuf(stdout, NULL, _IONBF, 0); /* nothing said twice by forks */
	for (size_t i = 0; i < sizeof(attempts) / sizeof(*attempts); i++) {
		name = attempts[i].name;
		attempts[i].run();
	}
	puts("done");
	return 0;
}
