/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "wall.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "concc/str.h"

/* The machine's own kind of programs, and that of 32 bits which it runs as well: its numbers are
 * those of the kernel's arch/x86/entry/syscalls/syscall_32.tbl and arch/arm/tools/syscall.tbl. */
#if defined(__x86_64__) && !defined(__ILP32__)
#define OWN_ARCH	AUDIT_ARCH_X86_64
#define OLD_ARCH	AUDIT_ARCH_I386
#define OLD(i386, arm)	(i386)
#define FOREIGN_NUMBERS 0x40000000 /* and above: x32 */
#elif defined(__aarch64__)
#define OWN_ARCH       AUDIT_ARCH_AARCH64
#define OLD_ARCH       AUDIT_ARCH_ARM
#define OLD(i386, arm) (arm)
#elif defined(__riscv) && __riscv_xlen == 64
#define OWN_ARCH       AUDIT_ARCH_RISCV64
#define OLD(i386, arm) (-1)
#else
#define OWN_ARCH       0
#define OLD(i386, arm) (-1)
#endif

enum when {
	ALWAYS,
	ROOT, /* for a client root the other filter tells of it, if it can */
	TOLD, /* for everybody */
};

/* Of the lower half of the first argument. */
enum test {
	ANY,
	BITS,  /* any of value */
	EQUAL, /* value */
	STRANGE_FAMILY,
};

struct wall {
	int nr, old_nr; /* -1: it has none */
	uint8_t when, test;
	uint16_t err;
	uint32_t value;
};

#define NONE	 (-1)
#define SOCKET	 1  /* of socketcall(2) */
#define ROW_MAX	 9  /* instructions of one */
#define HEAD_MAX 16 /* before and behind them */

static const struct wall walls[] = {
	{SYS_io_uring_setup, OLD(425, 425), ALWAYS, ANY, EPERM, 0},
	{SYS_io_uring_enter, OLD(426, 426), ALWAYS, ANY, EPERM, 0},
	{SYS_io_uring_register, OLD(427, 427), ALWAYS, ANY, EPERM, 0},
	{SYS_userfaultfd, OLD(374, 388), ALWAYS, ANY, EPERM, 0},
	{SYS_perf_event_open, OLD(336, 364), ALWAYS, ANY, EPERM, 0},
	{SYS_add_key, OLD(286, 309), ALWAYS, ANY, EPERM, 0},
	{SYS_request_key, OLD(287, 310), ALWAYS, ANY, EPERM, 0},
	{SYS_keyctl, OLD(288, 311), ALWAYS, ANY, EPERM, 0},
	{SYS_kexec_load, OLD(283, 347), ALWAYS, ANY, EPERM, 0},
	/* The kernel's log is the host's; with kernel.dmesg_restrict=0 it is everybody's. */
	{SYS_syslog, OLD(103, 103), ALWAYS, ANY, EPERM, 0},
#ifdef SYS_kexec_file_load
	{SYS_kexec_file_load, OLD(NONE, 401), ALWAYS, ANY, EPERM, 0},
#endif
	{SYS_bpf, OLD(357, 386), ROOT, ANY, EPERM, 0},
	{SYS_init_module, OLD(128, 128), ROOT, ANY, EPERM, 0},
	{SYS_finit_module, OLD(350, 379), ROOT, ANY, EPERM, 0},
	{SYS_delete_module, OLD(129, 129), ROOT, ANY, EPERM, 0},
	{SYS_open_by_handle_at, OLD(342, 371), ROOT, ANY, EPERM, 0},
	/* Its flags are in memory, where no filter sees them: clone(2) is called then. */
	{SYS_clone3, OLD(435, 435), ALWAYS, ANY, ENOSYS, 0},
	{SYS_socket, OLD(359, 281), ALWAYS, EQUAL, EPERM, AF_PACKET},
	{SYS_socket, OLD(359, 281), ALWAYS, STRANGE_FAMILY, EAFNOSUPPORT, 0},
	{SYS_unshare, OLD(310, 337), TOLD, BITS, EPERM, CLONE_NEWUSER},
	{SYS_clone, OLD(120, 120), TOLD, BITS, EPERM, CLONE_NEWUSER},
	{NONE, OLD(102, NONE), TOLD, EQUAL, EPERM, SOCKET},
	/* fs.aio-max-nr is the host's, and any process can take all of it. */
	{SYS_io_setup, NONE, TOLD, ANY, EAGAIN, 0},
	{NONE, OLD(245, 243), ALWAYS, ANY, EAGAIN, 0},
};

/* What a network namespace and a file system hold. */
static const uint32_t families[] = {AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};

#define N_WALLS	   (N_OF(walls))
#define N_FAMILIES (N_OF(families))

struct program {
	struct sock_filter code[2 * N_WALLS * ROW_MAX + HEAD_MAX];
	size_t n;
};

static size_t put(struct program *p, uint16_t code, uint8_t jt, uint8_t jf, uint32_t k)
{
	assert(p->n < sizeof(p->code) / sizeof(p->code[0]));
	p->code[p->n] = (struct sock_filter){code, jt, jf, k};
	return p->n++;
}

static void put_jump(struct program *p, uint16_t condition, uint32_t k, uint8_t yes, uint8_t no)
{
	put(p, BPF_JMP | condition | BPF_K, yes, no, k);
}

static void put_load(struct program *p, size_t offset)
{
	put(p, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)offset);
}

static void put_error(struct program *p, uint16_t err)
{
	put(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | err);
}

/* Goes on with the next instruction when the argument is what is refused, else past that. */
static void put_test(struct program *p, const struct wall *w)
{
	put_load(p, offsetof(struct seccomp_data, args) +
			    (BYTE_ORDER == BIG_ENDIAN ? sizeof(uint32_t) : 0));
	if (w->test == BITS)
		put_jump(p, BPF_JSET, w->value, 0, 1);
	else if (w->test == EQUAL)
		put_jump(p, BPF_JEQ, w->value, 0, 1);
	for (uint8_t i = 0; w->test == STRANGE_FAMILY && i < N_FAMILIES; i++)
		put_jump(p, BPF_JEQ, families[i], (uint8_t)(N_FAMILIES - i), 0);
}

static void put_row(struct program *p, const struct wall *w, int nr)
{
	size_t jump = put(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 0, (uint32_t)nr);

	if (w->test != ANY)
		put_test(p, w);
	put_error(p, w->err);
	if (w->test != ANY)
		put_load(p, offsetof(struct seccomp_data, nr));
	p->code[jump].jf = (uint8_t)(p->n - jump - 1);
}

static bool holds(const struct wall *w, bool client_root, bool untold)
{
	switch ((enum when)w->when) {
	case ALWAYS:
		return !untold;
	case ROOT:
		return untold == client_root;
	case TOLD:
		return untold;
	}
	return true;
}

/* For the programs of one kind, by their numbers. */
static void put_arch(struct program *p, uint32_t arch, bool client_root, bool untold)
{
	size_t over;

	put_jump(p, BPF_JEQ, arch, 1, 0);
	over = put(p, BPF_JMP | BPF_JA, 0, 0, 0);
	put_load(p, offsetof(struct seccomp_data, nr));
#ifdef FOREIGN_NUMBERS
	if (arch == OWN_ARCH) {
		put_jump(p, BPF_JGE, FOREIGN_NUMBERS, 0, 1);
		put_error(p, ENOSYS);
	}
#endif
	for (size_t i = 0; i < N_WALLS; i++) {
		int nr = arch == OWN_ARCH ? walls[i].nr : walls[i].old_nr;

		if (nr >= 0 && holds(&walls[i], client_root, untold))
			put_row(p, &walls[i], nr);
	}
	put(p, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
	p->code[over].k = (uint32_t)(p->n - over - 1);
}

static int install(bool client_root, bool untold)
{
	struct program p = {.n = 0};
	struct sock_fprog prog = {.filter = p.code};

	if (!OWN_ARCH)
		return -ENOTSUP;
	put_load(&p, offsetof(struct seccomp_data, arch));
	put_arch(&p, OWN_ARCH, client_root, untold);
#ifdef OLD_ARCH
	put_arch(&p, OLD_ARCH, client_root, untold);
#endif
	put_error(&p, ENOSYS);
	prog.len = (unsigned short)p.n;
	/* Not to be slowed down for it, as in filter.c; an older kernel, or a container that
	 * refuses that call, has the other. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &prog) ==
	    0)
		return 0;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0 ? -errno : 0;
}

int wall_install(bool client_root)
{
	return install(client_root, false);
}

int wall_install_untold(bool client_root)
{
	return install(client_root, true);
}
