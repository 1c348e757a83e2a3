/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * refuse-call NAME[,NAME] CMD...: runs CMD where these system calls are refused with EPERM, as
 * in containers.  Docker's default seccomp profile allows mount(2) to those with CAP_SYS_ADMIN, and
 * pivot_root(2) to nobody.
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

static const struct {
	const char *name;
	unsigned nr;
} calls[] = {
	{"pivot_root", SYS_pivot_root},
	{"seccomp", SYS_seccomp},
};

#define N_CALLS (sizeof(calls) / sizeof(calls[0]))

/* -1: not one of those. */
static long number(const char *name)
{
	for (size_t i = 0; i < N_CALLS; i++)
		if (strcmp(calls[i].name, name) == 0)
			return calls[i].nr;
	return -1;
}

int main(int argc, char **argv)
{
	struct sock_filter code[2 * N_CALLS + 2] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	};
	struct sock_fprog prog = {.len = 1, .filter = code};

	if (argc < 3)
		return 2;
	for (char *name = strtok(argv[1], ","); name; name = strtok(NULL, ",")) {
		long nr = number(name);

		if (nr < 0 || prog.len > 2 * N_CALLS)
			return 2;
		code[prog.len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
								(unsigned)nr, 0, 1);
		code[prog.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
								SECCOMP_RET_ERRNO | EPERM);
	}
	code[prog.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	/* That is for those without the capability. */
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0 ||
	    (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	     prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0))
		(void)execvp(argv[2], argv + 2);
	(void)fprintf(stderr, "refuse-call: %s: %s\n", argv[2], strerror(errno));
	return 126;
}
