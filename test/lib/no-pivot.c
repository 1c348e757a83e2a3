/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * no-pivot CMD...: runs CMD where pivot_root(2) is refused with EPERM, as in a
 * container of Docker's: its default seccomp profile allows mount(2) to those
 * with CAP_SYS_ADMIN, and pivot_root(2) to nobody.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pivot_root, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	if (argc < 2)
		return 2;
	/* That is for those without the capability. */
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0 ||
	    (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	     prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0))
		(void)execvp(argv[1], argv + 1);
	(void)fprintf(stderr, "no-pivot: %s: %s\n", argv[1], strerror(errno));
	return 126;
}
