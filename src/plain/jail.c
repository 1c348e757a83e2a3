/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * OpenSSH's SFTP server gives its peer all that its user may read and write.
 * The peer is a worker, which is to see one workspace and nothing of our
 * homes and keys: so the server gets a root with that directory and, read-only,
 * the system's libraries.
 */
#include "plain.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/process.h"
#include "concc/str.h"

static const char *const servers[] = {
	"/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server",
	"/usr/lib/ssh/sftp-server",	"/usr/libexec/sftp-server",
	"/usr/lib/sftp-server",
};

/* What a program needs to run at all. */
static const char *const system_dirs[] = {"/usr",    "/lib", "/lib32", "/lib64",
					  "/libx32", "/nix", "/gnu"};
static const char *const system_files[] = {"/etc/ld.so.cache", "/dev/null"};

static const char *find_server(void)
{
	for (size_t i = 0; i < N_OF(servers); i++) {
		if (access(servers[i], X_OK) == 0)
			return servers[i];
	}
	return NULL;
}

static int write_file(const char *path, const char *text)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	return fd < 0 ? -errno : write_full(fd, text, strlen(text));
}

/* As root a namespace of users would make other users' files nobody's. */
static int new_namespaces(void)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	char line[64];
	int r;

	if (uid == 0)
		return unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC) < 0 ? -errno : 0;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC) < 0)
		return -errno;
	r = write_file("/proc/self/setgroups", "deny");
	snprintf(line, sizeof(line), "%u %u 1", (unsigned)uid, (unsigned)uid);
	r = r < 0 ? r : write_file("/proc/self/uid_map", line);
	snprintf(line, sizeof(line), "%u %u 1", (unsigned)gid, (unsigned)gid);
	return r < 0 ? r : write_file("/proc/self/gid_map", line);
}

/* The kernel keeps the flags of mounts that another namespace made. */
static int make_read_only(const char *path)
{
	unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID;
	struct statvfs st;

	if (statvfs(path, &st) < 0)
		return -errno;
	flags |= (st.f_flag & ST_NODEV ? MS_NODEV : 0) | (st.f_flag & ST_NOEXEC ? MS_NOEXEC : 0) |
		 (st.f_flag & ST_NOATIME ? MS_NOATIME : 0) |
		 (st.f_flag & ST_RELATIME ? MS_RELATIME : 0);
	return mount(NULL, path, NULL, flags, NULL) < 0 ? -errno : 0;
}

/* path of ours, at the same place below the new root, which is the cwd. */
static int bind(const char *path, bool is_dir, bool writable)
{
	const char *to = path + 1;
	_cleanup_free_ char *parent = path_clean(path, "..");
	int r = path_mkdirs(is_dir ? to : *(parent + 1) ? parent + 1 : ".", 0755);

	if (r < 0)
		return r;
	if (!is_dir && (r = write_file(to, "")) < 0)
		return r;
	if (mount(path, to, NULL, MS_BIND | (writable ? MS_REC : 0), NULL) < 0)
		return -errno;
	return writable ? 0 : make_read_only(to);
}

/* Merged systems have links in their root. */
static int bind_system_dir(const char *path)
{
	char target[256];
	struct stat st;
	ssize_t n;

	if (lstat(path, &st) < 0)
		return 0;
	if (!S_ISLNK(st.st_mode))
		return bind(path, true, false);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	return symlink(target, path + 1) < 0 ? -errno : 0;
}

static int fill_root(const char *workspace, const char *passwd)
{
	int r = 0;

	for (size_t i = 0; i < sizeof(system_dirs) / sizeof(*system_dirs) && r == 0; i++)
		r = bind_system_dir(system_dirs[i]);
	for (size_t i = 0; i < sizeof(system_files) / sizeof(*system_files) && r == 0; i++) {
		if (access(system_files[i], F_OK) == 0)
			r = bind(system_files[i], false, streq(system_files[i], "/dev/null"));
	}
	r = r < 0 ? r : path_mkdirs("etc", 0755);
	r = r < 0 ? r : write_file("etc/passwd", passwd);
	r = r < 0 ? r : write_file("etc/nsswitch.conf", "passwd: files\ngroup: files\n");
	/* Last: it may lie within one of those. */
	return r < 0 ? r : bind(workspace, true, true);
}

static int enter_root(void)
{
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return -errno;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

/* ---- no set-user-id ---- */

#if defined(__x86_64__) && !defined(__ILP32__)
#define OWN_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define OWN_ARCH AUDIT_ARCH_RISCV64
#endif

/* Calls that give a mode, and in which argument. */
static const struct {
	int nr;
	unsigned mode;
} mode_calls[] = {
#ifdef SYS_chmod
	{SYS_chmod, 1},	 {SYS_creat, 1},    {SYS_open, 2},
	{SYS_mkdir, 1},	 {SYS_mknod, 1},
#endif
	{SYS_fchmod, 1}, {SYS_fchmodat, 2}, {452 /* fchmodat2 */, 2},
	{SYS_openat, 3}, {SYS_mkdirat, 2},  {SYS_mknodat, 2},
};

#define N_MODE_CALLS (N_OF(mode_calls))
#define SET_IDS	     (S_ISUID | S_ISGID)

static void put(struct sock_fprog *p, struct sock_filter f)
{
	p->filter[p->len++] = f;
}

static void put_return(struct sock_fprog *p, uint32_t what)
{
	put(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, what));
}

static void put_load(struct sock_fprog *p, size_t offset)
{
	put(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void put_jump(struct sock_fprog *p, uint16_t how, uint32_t k, uint8_t yes, uint8_t no)
{
	put(p, (struct sock_filter)BPF_JUMP((uint16_t)(BPF_JMP | how | BPF_K), k, yes, no));
}

/*
 * A file that is the user's, set-user-id and holds what a worker chose would be the user's rights
 * for whoever runs it.  The server needs no such mode, and starts no program.
 */
static int refuse_set_ids(void)
{
#ifdef OWN_ARCH
	struct sock_filter code[8 + 5 * N_MODE_CALLS];
	struct sock_fprog p = {0, code};

	put_load(&p, offsetof(struct seccomp_data, arch));
	put_jump(&p, BPF_JEQ, OWN_ARCH, 1, 0);
	put_return(&p, SECCOMP_RET_ERRNO | ENOSYS);
	put_load(&p, offsetof(struct seccomp_data, nr));
	/* Its modes are in memory. */
	put_jump(&p, BPF_JEQ, SYS_openat2, 0, 1);
	put_return(&p, SECCOMP_RET_ERRNO | ENOSYS);
	for (size_t i = 0; i < N_MODE_CALLS; i++) {
		put_jump(&p, BPF_JEQ, (uint32_t)mode_calls[i].nr, 0, 4);
		put_load(&p, offsetof(struct seccomp_data, args) +
				     mode_calls[i].mode * sizeof(uint64_t));
		put_jump(&p, BPF_JSET, SET_IDS, 0, 1);
		put_return(&p, SECCOMP_RET_ERRNO | EPERM);
		put_load(&p, offsetof(struct seccomp_data, nr));
	}
	put_return(&p, SECCOMP_RET_ALLOW);
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p) < 0 ? -errno : 0;
#else
	return -ENOTSUP;
#endif
}

/* ---- the jail ---- */

struct jail {
	const char *workspace, *root_dir, *passwd;
	pid_t parent;
};

static int make_jail(const char *workspace, const char *root_dir, const char *passwd)
{
	int r = new_namespaces();

	if (r < 0)
		return r;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("concc", root_dir, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m") < 0 ||
	    chdir(root_dir) < 0)
		return -errno;
	r = fill_root(workspace, passwd);
	if (r == 0)
		r = enter_root();
	return r < 0 ? r : refuse_set_ids();
}

/* In the child. */
static int enter_jail(void *data)
{
	const struct jail *j = data;
	int r;

	umask(0);
	r = make_jail(j->workspace, j->root_dir, j->passwd);
	/* Only now: a change of identity would clear it. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != j->parent && getppid() != 0)
		return -ESRCH;
	return r;
}

static char *passwd_line(void)
{
	struct passwd *pw = getpwuid(geteuid());

	return xasprintf("%s:x:%u:%u::/:/bin/false\n", pw ? pw->pw_name : "client",
			 (unsigned)geteuid(), (unsigned)getegid());
}

int jail_sftp(const char *workspace, const char *root_dir, int in, int out, pid_t *ret,
	      struct errmsg *msg)
{
	const char *server = find_server();
	_cleanup_free_ char *passwd = passwd_line();
	char *const argv[] = {(char *)server, (char *)"-u",	 (char *)"0",
			      (char *)"-d",   (char *)workspace, NULL};
	char *const env[] = {NULL};
	struct jail j = {workspace, root_dir, passwd, getpid()};
	struct process p = {
		.exe = server,
		.argv = argv,
		.env = env,
		.fds = {in, out, 2},
		.n_fds = 3,
		.prepare = enter_jail,
		.data = &j,
	};
	int r;

	if (!server)
		return errmsg_set(
			msg, -ENOENT,
			"this machine has no SFTP server; install openssh-sftp-server here");
	/* They were ours, and not to be waited for. */
	r = fd_set_nonblock(in, false);
	if (r == 0)
		r = fd_set_nonblock(out, false);
	if (r == 0)
		r = process_start(&p, ret);
	if (r == 0)
		return 0;
	return errmsg_set(
		msg, r,
		"can't confine the SFTP server to %s here: %s; are user namespaces allowed "
		"(kernel.unprivileged_userns_clone, AppArmor)?",
		workspace, err_text(r));
}
