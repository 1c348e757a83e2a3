/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The system calls by which a job can look at files, or change what it looks at. */
#include "trace_calls.h"

#include <sys/syscall.h>

#include "concc/str.h"

/* Newer than the headers of many systems; on all machines of the same number. */
#ifndef SYS_statmount
#define SYS_statmount 457
#define SYS_listmount 458
#endif
#ifndef SYS_open_tree_attr
#define SYS_open_tree_attr 467
#endif
#ifndef SYS_file_getattr
#define SYS_file_getattr 468
#define SYS_file_setattr 469
#endif

#define ROW(name, kind, dir, path, flags)                                                          \
	{                                                                                          \
		SYS_##name, kind, dir, path, flags, NULL                                           \
	}
#define VOID(name, why)                                                                            \
	{                                                                                          \
		SYS_##name, CALL_SPOIL, CALL_NONE, CALL_NONE, CALL_NONE, why                       \
	}

static const struct traced_call traced[] = {
#ifdef SYS_open
	ROW(open, CALL_OPEN, CALL_NONE, 0, 1),
	ROW(creat, CALL_CREATE, CALL_NONE, 0, CALL_NONE),
	ROW(stat, CALL_FOLLOW, CALL_NONE, 0, CALL_NONE),
	ROW(lstat, CALL_LOOK, CALL_NONE, 0, CALL_NONE),
	ROW(access, CALL_FOLLOW, CALL_NONE, 0, CALL_NONE),
	ROW(readlink, CALL_READ_LINK, CALL_NONE, 0, CALL_NONE),
	ROW(mkdir, CALL_MAKE, CALL_NONE, 0, CALL_NONE),
	ROW(rmdir, CALL_REMOVE_DIR, CALL_NONE, 0, CALL_NONE),
	ROW(unlink, CALL_REMOVE, CALL_NONE, 0, CALL_NONE),
	ROW(symlink, CALL_MAKE, CALL_NONE, 1, CALL_NONE),
	ROW(mknod, CALL_MAKE, CALL_NONE, 0, CALL_NONE),
	ROW(chmod, CALL_CHANGE, CALL_NONE, 0, CALL_NONE),
	ROW(chown, CALL_CHANGE, CALL_NONE, 0, CALL_NONE),
	ROW(lchown, CALL_CHANGE_SELF, CALL_NONE, 0, CALL_NONE),
	ROW(utime, CALL_SET_TIMES, CALL_NONE, 0, CALL_NONE),
	ROW(utimes, CALL_SET_TIMES, CALL_NONE, 0, CALL_NONE),
	ROW(futimesat, CALL_SET_TIMES, 0, 1, CALL_NONE),
	ROW(link, CALL_TWO, CALL_NONE, 0, CALL_NONE),
	ROW(rename, CALL_TWO, CALL_NONE, 0, CALL_NONE),
	ROW(getdents, CALL_LIST, CALL_NONE, 0, CALL_NONE),
	VOID(uselib, "uselib"),
#endif
#ifdef SYS_renameat
	ROW(renameat, CALL_TWO, 0, 1, CALL_NONE),
#endif
	ROW(openat, CALL_OPEN, 0, 1, 2),
	ROW(openat2, CALL_OPEN2, 0, 1, 2),
#ifdef SYS_newfstatat
	ROW(newfstatat, CALL_AT, 0, 1, 3),
#endif
	ROW(statx, CALL_AT, 0, 1, 2),
	ROW(faccessat, CALL_FOLLOW, 0, 1, CALL_NONE),
	ROW(faccessat2, CALL_AT, 0, 1, 3),
	ROW(readlinkat, CALL_READ_LINK, 0, 1, CALL_NONE),
	ROW(mkdirat, CALL_MAKE, 0, 1, CALL_NONE),
	ROW(unlinkat, CALL_REMOVE, 0, 1, 2),
	ROW(symlinkat, CALL_MAKE, 1, 2, CALL_NONE),
	ROW(mknodat, CALL_MAKE, 0, 1, CALL_NONE),
	ROW(fchmodat, CALL_CHANGE, 0, 1, CALL_NONE),
	ROW(fchownat, CALL_CHANGE_AT, 0, 1, 4),
	ROW(utimensat, CALL_SET_TIMES, 0, 1, 3),
	ROW(linkat, CALL_TWO, 0, 1, CALL_NONE),
	ROW(renameat2, CALL_TWO, 0, 1, CALL_NONE),
	ROW(truncate, CALL_TRUNCATE, CALL_NONE, 0, CALL_NONE),
	ROW(execve, CALL_EXECUTE, CALL_NONE, 0, CALL_NONE),
	ROW(execveat, CALL_EXECUTE, 0, 1, CALL_NONE),
	ROW(getdents64, CALL_LIST, CALL_NONE, 0, CALL_NONE),
	ROW(chdir, CALL_CHDIR, CALL_NONE, 0, CALL_NONE),
	ROW(fchdir, CALL_FCHDIR, CALL_NONE, 0, CALL_NONE),
	ROW(getrandom, CALL_RANDOM, CALL_NONE, CALL_NONE, 2),

	ROW(statfs, CALL_STATFS, CALL_NONE, 0, CALL_NONE),
	VOID(fstatfs, "statfs"),
	VOID(getxattr, "attributes"),
	VOID(lgetxattr, "attributes"),
	VOID(fgetxattr, "attributes"),
	VOID(getxattrat, "attributes"),
	VOID(listxattr, "attributes"),
	VOID(llistxattr, "attributes"),
	VOID(flistxattr, "attributes"),
	VOID(listxattrat, "attributes"),
	VOID(setxattr, "attributes"),
	VOID(lsetxattr, "attributes"),
	VOID(fsetxattr, "attributes"),
	VOID(setxattrat, "attributes"),
	VOID(removexattr, "attributes"),
	VOID(lremovexattr, "attributes"),
	VOID(fremovexattr, "attributes"),
	VOID(removexattrat, "attributes"),
	VOID(file_getattr, "attributes"),
	VOID(file_setattr, "attributes"),
	VOID(inotify_add_watch, "watches"),
	VOID(fanotify_init, "watches"),
	VOID(name_to_handle_at, "handles"),
	VOID(open_by_handle_at, "handles"),
	VOID(ptrace, "ptrace"),
	VOID(pidfd_getfd, "descriptors"),
	VOID(socket, "socket"),
	VOID(io_uring_setup, "io_uring"),
	VOID(chroot, "namespaces"),
	VOID(pivot_root, "namespaces"),
	VOID(mount, "namespaces"),
	VOID(umount2, "namespaces"),
	VOID(open_tree, "namespaces"),
	VOID(open_tree_attr, "namespaces"),
	VOID(statmount, "namespaces"),
	VOID(listmount, "namespaces"),
	VOID(move_mount, "namespaces"),
	VOID(fsopen, "namespaces"),
	VOID(fspick, "namespaces"),
	VOID(setns, "namespaces"),
	VOID(unshare, "namespaces"),
#ifdef SYS_fchmodat2
	ROW(fchmodat2, CALL_CHANGE_AT, 0, 1, 3),
#endif
};

_Static_assert(N_OF(traced) <= TRACED_CALLS_MAX, "filter.c has room for them");

const struct traced_call *traced_calls(size_t *ret_n)
{
	*ret_n = N_OF(traced);
	return traced;
}
