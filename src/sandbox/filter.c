/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "filter.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/io.h"
#include "concc/str.h"
#include "trace.h"
#include "trace_calls.h"

/*
 * One file, since one table is read by two: the program that the kernel runs, and what decides when
 * that has told of a call.  Both must take it for the same call by the same rule.
 */

#if defined(__x86_64__) && !defined(__ILP32__)
#define OWN_ARCH AUDIT_ARCH_X86_64
#define OLD_ARCH AUDIT_ARCH_I386 /* 32-bit programs */
#elif defined(__aarch64__)
#define OWN_ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define OWN_ARCH AUDIT_ARCH_RISCV64
#else
#define OWN_ARCH 0
#endif

/* ---- what is looked for ---- */

enum who {
	ALL,
	ROOT,	  /* what fails for others here and there */
	ROOT_NOW, /* the same, unless we make such a call ourselves for the job */
	INPUT,	  /* all of a job whose input was a file, and is a pipe */
	TERMINAL, /* all of a job whose input is a terminal */
};

/* Of the lower half of one argument, which is all of an id, a mode or flags. */
enum test {
	ANY,	   /* none */
	OTHER_UID, /* not the job's own, nor -1, which changes nothing */
	OTHER_GID,
	DEVICE, /* a mode of a device node */
	BITS,	/* any of value */
	EQUAL,	/* value */
	UNEQUAL,
	NAMESPACE, /* flags of clone(2) for namespaces that take privileges */
	USER_NAMESPACE,
};

struct rule {
	int nr;
	uint8_t who, test, arg;
	bool power; /* it takes privileges, without which it fails here as there */
	bool ask;   /* else: tell */
	uint32_t value;
	const char *text;
};

#define NEW_NAMESPACES                                                                             \
	(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP)
#define NICE_MAX   19
#define STATUS_MAX (64 * 1024) /* of /proc/PID/status */

#define NAMES	 "it links one of the client's files, or moves one of its directories"
#define LOCKS	 "it locks one of the client's files, or asks who does, and the others are here"
#define WAITS	 "it waits for changes of the client's files (inotify), of which it would not hear"
#define OWNER	 "it gives a file to another user or group"
#define NODE	 "it makes a device node"
#define ATTRS	 "it sets extended attributes"
#define ASKS	 "it asks for extended attributes of many files"
#define FLAGS	 "it looks at or sets flags of a file (lsattr, chattr)"
#define RANGES	 "it clears, inserts or removes a part of a file (fallocate)"
#define MOUNT	 "it mounts or unmounts, or changes its root"
#define SPACES	 "it makes or enters namespaces"
#define BECOME	 "it becomes another user or group"
#define PRIORITY "it raises its priority"
#define SYSTEM	 "it changes the system it runs on"
#define WATCH	 "it watches system calls itself"
#define USERS	 "it makes a user namespace of its own"
#define COUNTED                                                                                    \
	"it uses the kernel's asynchronous I/O (io_setup), of which all of a host have one share"
#define SEEKS	 "it seeks in its input"
#define READS	 "it reads from the terminal"
#define CONNECTS "it connects to a network or a daemon"
#define SIGNALS	 "it signals a process that it has not started, or asks whether that is there"
#define OLD_CALL "it is a 32-bit program that makes a socket or namespace"

#define RULE(name, ...)                                                                            \
	{                                                                                          \
		.nr = SYS_##name, __VA_ARGS__                                                      \
	}

/* In order of their subject; which numbers there are depends on the architecture. */
static const struct rule rules[] = {
/* For these see moves.c. */
#ifdef SYS_link
	RULE(link, ALL, ANY, .ask = true, .text = NAMES),
	RULE(rename, ALL, ANY, .ask = true, .text = NAMES),
#endif
#ifdef SYS_renameat
	RULE(renameat, ALL, ANY, .ask = true, .text = NAMES),
#endif
	RULE(linkat, ALL, ANY, .ask = true, .text = NAMES),
	RULE(renameat2, ALL, ANY, .ask = true, .text = NAMES),
	RULE(flock, ALL, ANY, .ask = true, .text = LOCKS),
	RULE(fcntl, ALL, EQUAL, 1, .ask = true, .value = F_SETLK, .text = LOCKS),
	RULE(fcntl, ALL, EQUAL, 1, .ask = true, .value = F_SETLKW, .text = LOCKS),
	RULE(fcntl, ALL, EQUAL, 1, .ask = true, .value = F_OFD_SETLK, .text = LOCKS),
	RULE(fcntl, ALL, EQUAL, 1, .ask = true, .value = F_OFD_SETLKW, .text = LOCKS),
	RULE(fcntl, ALL, EQUAL, 1, .ask = true, .value = F_GETLK, .text = LOCKS),
	RULE(fcntl, ALL, EQUAL, 1, .ask = true, .value = F_OFD_GETLK, .text = LOCKS),
	RULE(inotify_add_watch, ALL, ANY, .ask = true, .text = WAITS),
#ifdef SYS_chown
	RULE(chown, ALL, OTHER_UID, 1, .text = OWNER),
	RULE(chown, ALL, OTHER_GID, 2, .text = OWNER),
	RULE(lchown, ALL, OTHER_UID, 1, .text = OWNER),
	RULE(lchown, ALL, OTHER_GID, 2, .text = OWNER),
#endif
	RULE(fchown, ALL, OTHER_UID, 1, .text = OWNER),
	RULE(fchown, ALL, OTHER_GID, 2, .text = OWNER),
	RULE(fchownat, ALL, OTHER_UID, 2, .text = OWNER),
	RULE(fchownat, ALL, OTHER_GID, 3, .text = OWNER),
#ifdef SYS_mknod
	RULE(mknod, ROOT, DEVICE, 1, .power = true, .text = NODE),
#endif
	RULE(mknodat, ROOT, DEVICE, 2, .power = true, .text = NODE),
	/* A pipe has no positions.  For this, the network and signals see beyond.c. */
	RULE(lseek, INPUT, EQUAL, 0, .ask = true, .value = STDIN_FILENO, .text = SEEKS),
	RULE(pread64, INPUT, EQUAL, 0, .ask = true, .value = STDIN_FILENO, .text = SEEKS),
	RULE(preadv, INPUT, EQUAL, 0, .ask = true, .value = STDIN_FILENO, .text = SEEKS),
	RULE(read, TERMINAL, EQUAL, 0, .ask = true, .value = STDIN_FILENO, .text = READS),
	RULE(readv, TERMINAL, EQUAL, 0, .ask = true, .value = STDIN_FILENO, .text = READS),
	RULE(epoll_ctl, TERMINAL, EQUAL, 2, .ask = true, .value = STDIN_FILENO, .text = READS),
/* The init is under the filter, too, and waits by ppoll(2). */
#ifdef SYS_poll
	RULE(poll, TERMINAL, ANY, .ask = true, .text = READS),
	RULE(select, TERMINAL, ANY, .ask = true, .text = READS),
#endif
	RULE(pselect6, TERMINAL, ANY, .ask = true, .text = READS),
	RULE(connect, ALL, ANY, .ask = true, .text = CONNECTS),
	RULE(sendto, ALL, UNEQUAL, 4, .ask = true, .value = 0, .text = CONNECTS),
	RULE(kill, ALL, UNEQUAL, 2, .ask = true, .value = FILTER_OURS, .text = SIGNALS),
	RULE(rt_sigqueueinfo, ALL, ANY, .ask = true, .text = SIGNALS),
	RULE(pidfd_open, ALL, ANY, .ask = true, .text = SIGNALS),
	/* What they did set is found in the end; these are for where that fails. */
	RULE(setxattr, ALL, UNEQUAL, 3, .value = FILTER_ATTR_SIZE, .text = ATTRS),
	RULE(lsetxattr, ALL, UNEQUAL, 3, .value = FILTER_ATTR_SIZE, .text = ATTRS),
	RULE(fsetxattr, ALL, UNEQUAL, 3, .value = FILTER_ATTR_SIZE, .text = ATTRS),
	RULE(getxattr, ALL, ANY, .ask = true, .text = ASKS),
	RULE(lgetxattr, ALL, ANY, .ask = true, .text = ASKS),
	RULE(fgetxattr, ALL, UNEQUAL, 4, .ask = true, .value = FILTER_OURS, .text = ASKS),
	RULE(listxattr, ALL, ANY, .ask = true, .text = ASKS),
	RULE(llistxattr, ALL, ANY, .ask = true, .text = ASKS),
	RULE(flistxattr, ALL, ANY, .ask = true, .text = ASKS),
	RULE(getxattrat, ALL, ANY, .ask = true, .text = ASKS),
	RULE(listxattrat, ALL, ANY, .ask = true, .text = ASKS),
	RULE(ioctl, ALL, EQUAL, 1, .value = (uint32_t)FS_IOC_GETFLAGS, .text = FLAGS),
	RULE(ioctl, ALL, EQUAL, 1, .value = (uint32_t)FS_IOC_SETFLAGS, .text = FLAGS),
	RULE(ioctl, ALL, EQUAL, 1, .value = (uint32_t)FS_IOC_FSGETXATTR, .text = FLAGS),
	RULE(ioctl, ALL, EQUAL, 1, .value = (uint32_t)FS_IOC_FSSETXATTR, .text = FLAGS),
	/* What a layer in memory can't do; it allocates and makes holes. */
	RULE(fallocate, ALL, BITS, 1,
	     .value = ~(uint32_t)(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE), .text = RANGES),
	RULE(seccomp, ALL, BITS, 1, .value = SECCOMP_FILTER_FLAG_NEW_LISTENER, .text = WATCH),

	RULE(mount, ROOT, ANY, .power = true, .text = MOUNT),
	RULE(umount2, ROOT, ANY, .power = true, .text = MOUNT),
	RULE(pivot_root, ROOT, ANY, .power = true, .text = MOUNT),
	RULE(chroot, ROOT, ANY, .power = true, .text = MOUNT),
	RULE(move_mount, ROOT, ANY, .power = true, .text = MOUNT),
	RULE(fsopen, ROOT, ANY, .power = true, .text = MOUNT),
	RULE(fspick, ROOT, ANY, .power = true, .text = MOUNT),
	RULE(open_tree, ROOT, BITS, 2, .value = 1 /* OPEN_TREE_CLONE */, .power = true,
	     .text = MOUNT),
#ifdef SYS_mount_setattr
	RULE(mount_setattr, ROOT, ANY, .power = true, .text = MOUNT),
#endif
	RULE(open_by_handle_at, ROOT, ANY, .power = true, .text = MOUNT),
	RULE(unshare, ALL, USER_NAMESPACE, 0, .text = USERS),
	RULE(clone, ALL, USER_NAMESPACE, 0, .text = USERS),
	RULE(io_setup, ALL, ANY, .text = COUNTED),
	RULE(unshare, ROOT, NAMESPACE, 0, .power = true, .text = SPACES),
	RULE(clone, ROOT, NAMESPACE, 0, .power = true, .text = SPACES),
	RULE(setns, ROOT, ANY, .power = true, .text = SPACES),
	RULE(setuid, ROOT, OTHER_UID, 0, .text = BECOME),
	RULE(setgid, ROOT, OTHER_GID, 0, .text = BECOME),
	RULE(setreuid, ROOT, OTHER_UID, 0, .text = BECOME),
	RULE(setreuid, ROOT, OTHER_UID, 1, .text = BECOME),
	RULE(setregid, ROOT, OTHER_GID, 0, .text = BECOME),
	RULE(setregid, ROOT, OTHER_GID, 1, .text = BECOME),
	RULE(setresuid, ROOT, OTHER_UID, 0, .text = BECOME),
	RULE(setresuid, ROOT, OTHER_UID, 1, .text = BECOME),
	RULE(setresgid, ROOT, OTHER_GID, 0, .text = BECOME),
	RULE(setresgid, ROOT, OTHER_GID, 1, .text = BECOME),
	RULE(setgroups, ROOT_NOW, ANY, .text = BECOME),
	RULE(setpriority, ROOT, ANY, .power = true, .text = PRIORITY), /* but see is_lowering() */
	RULE(sched_setscheduler, ROOT, EQUAL, 1, .value = SCHED_FIFO, .power = true,
	     .text = PRIORITY),
	RULE(sched_setscheduler, ROOT, EQUAL, 1, .value = SCHED_RR, .power = true,
	     .text = PRIORITY),
	RULE(sethostname, ROOT, ANY, .power = true, .text = SYSTEM),
	RULE(setdomainname, ROOT, ANY, .power = true, .text = SYSTEM),
	RULE(settimeofday, ROOT, ANY, .power = true, .text = SYSTEM),
	RULE(clock_settime, ROOT, ANY, .power = true, .text = SYSTEM),
	RULE(swapon, ROOT, ANY, .power = true, .text = SYSTEM),
	RULE(swapoff, ROOT, ANY, .power = true, .text = SYSTEM),
	RULE(reboot, ROOT, ANY, .power = true, .text = SYSTEM),
	RULE(init_module, ROOT, ANY, .power = true, .text = SYSTEM),
	RULE(finit_module, ROOT, ANY, .power = true, .text = SYSTEM),
	RULE(delete_module, ROOT, ANY, .power = true, .text = SYSTEM),
	RULE(acct, ROOT, ANY, .power = true, .text = SYSTEM),
	RULE(quotactl, ROOT, ANY, .power = true, .text = SYSTEM),
	RULE(bpf, ROOT, ANY, .power = true, .text = SYSTEM),
	RULE(fanotify_init, ALL, ANY, .text = WAITS),
#ifdef SYS_iopl
	RULE(iopl, ROOT, ANY, .power = true, .text = SYSTEM),
	RULE(ioperm, ROOT, ANY, .power = true, .text = SYSTEM),
#endif
};

#define N_RULES (N_OF(rules))

/* ---- the program ---- */

/*
 * The kernel compiles it for each job, at some 0.1 us for each instruction, and goes through it for
 * each number there is, to learn which always pass: so it is a tree of short lists, whose calls
 * share what is returned in the end.
 */
#define LIST_MAX    6 /* calls in one list */
#define RULE_MAX    5 /* instructions of one rule */
#define PROGRAM_MAX ((N_RULES + TRACED_CALLS_MAX) * (RULE_MAX + 6) + 32)

struct filter {
	struct sock_filter code[PROGRAM_MAX];
	size_t n;
	struct filter_config conf;
	struct rule traced[TRACED_CALLS_MAX]; /* each of them ANY */
};

/* What it is built from: the rules that hold, those of one call together. */
struct plan {
	struct filter *f;
	const struct filter_config *conf;
	const struct rule *rules[N_RULES + TRACED_CALLS_MAX];
	size_t n;
};

/* In place of how far to jump, until the end of the list is known. */
#define TO_TELL UINT8_MAX

static size_t put(struct filter *f, uint16_t code, uint8_t jt, uint8_t jf, uint32_t k)
{
	assert(f->n < PROGRAM_MAX);
	f->code[f->n] = (struct sock_filter){code, jt, jf, k};
	return f->n++;
}

static void put_load(struct filter *f, size_t offset)
{
	put(f, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)offset);
}

/* The next `yes` or `no` instructions are skipped. */
static size_t put_jump(struct filter *f, uint16_t condition, uint32_t k, uint8_t yes, uint8_t no)
{
	return put(f, BPF_JMP | condition | BPF_K, yes, no, k);
}

static size_t low_half(unsigned arg)
{
	return offsetof(struct seccomp_data, args) + arg * sizeof(uint64_t) +
	       (BYTE_ORDER == BIG_ENDIAN ? sizeof(uint32_t) : 0);
}

/* Leaves for TO_TELL when the argument is what is looked for, and goes on else. */
static void put_test(struct filter *f, const struct filter_config *c, const struct rule *r)
{
	put_load(f, low_half(r->arg));
	switch ((enum test)r->test) {
	case ANY:
		break; /* needs no test: see put_call() */
	case OTHER_UID:
	case OTHER_GID:
		put_jump(f, BPF_JEQ, r->test == OTHER_UID ? c->uid : c->gid, 1, 0);
		put_jump(f, BPF_JEQ, UINT32_MAX, 0, TO_TELL);
		break;
	case DEVICE:
		put(f, BPF_ALU | BPF_AND | BPF_K, 0, 0, S_IFMT);
		put_jump(f, BPF_JEQ, S_IFCHR, TO_TELL, 0);
		put_jump(f, BPF_JEQ, S_IFBLK, TO_TELL, 0);
		break;
	case BITS:
		put_jump(f, BPF_JSET, r->value, TO_TELL, 0);
		break;
	case EQUAL:
		put_jump(f, BPF_JEQ, r->value, TO_TELL, 0);
		break;
	case UNEQUAL:
		put_jump(f, BPF_JEQ, r->value, 0, TO_TELL);
		break;
	case NAMESPACE:
		/* With a user namespace of its own, a process needs no privilege. */
		put_jump(f, BPF_JSET, CLONE_NEWUSER, 1, 0);
		put_jump(f, BPF_JSET, NEW_NAMESPACES, TO_TELL, 0);
		break;
	case USER_NAMESPACE:
		put_jump(f, BPF_JSET, CLONE_NEWUSER, TO_TELL, 0);
		break;
	}
}

/* The end of the call that rules[at] is of. */
static size_t call_end(const struct plan *p, size_t at)
{
	size_t end = at + 1;

	while (end < p->n && p->rules[end]->nr == p->rules[at]->nr)
		end++;
	return end;
}

static size_t count_calls(const struct plan *p, size_t from, size_t end)
{
	size_t n = 0;

	for (; from < end; from = call_end(p, from))
		n++;
	return n;
}

/* All rules of one call; returns the jump behind them that leads to where it may pass, or 0. */
static size_t put_call(struct plan *p, size_t from, size_t end)
{
	struct filter *f = p->f;
	uint32_t nr = (uint32_t)p->rules[from]->nr;
	size_t jump;

	if (p->rules[from]->test == ANY) {
		put_jump(f, BPF_JEQ, nr, TO_TELL, 0);
		return 0;
	}
	jump = put_jump(f, BPF_JEQ, nr, 0, 0);
	for (size_t i = from; i < end; i++)
		put_test(f, p->conf, p->rules[i]);
	f->code[jump].jf = (uint8_t)(f->n - jump);
	return put(f, BPF_JMP | BPF_JA, 0, 0, 0);
}

/* Its two ends, and what leads there. */
static void end_list(struct filter *f, size_t from, const size_t *passes, size_t n)
{
	size_t pass = put(f, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
	size_t tell = put(f, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF);

	assert(tell - from < TO_TELL);
	for (size_t i = 0; i < n; i++)
		if (passes[i])
			f->code[passes[i]].k = (uint32_t)(pass - passes[i] - 1);
	for (size_t i = from; i < pass; i++) {
		struct sock_filter *s = &f->code[i];

		if (s->jt == TO_TELL)
			s->jt = (uint8_t)(tell - i - 1);
		if (s->jf == TO_TELL)
			s->jf = (uint8_t)(tell - i - 1);
	}
}

static void put_list(struct plan *p, size_t from, size_t end)
{
	size_t began = p->f->n, passes[LIST_MAX], n = 0;

	for (size_t i = from; i < end; i = call_end(p, i))
		passes[n++] = put_call(p, i, call_end(p, i));
	end_list(p->f, began, passes, n);
}

static void put_calls(struct plan *p, size_t from, size_t end)
{
	size_t n = count_calls(p, from, end), mid = from, far;
	struct filter *f = p->f;

	if (n <= LIST_MAX) {
		put_list(p, from, end);
		return;
	}
	for (size_t i = 0; i < n / 2; i++)
		mid = call_end(p, mid);
	put_jump(f, BPF_JGE, (uint32_t)p->rules[mid]->nr, 0, 1);
	far = put(f, BPF_JMP | BPF_JA, 0, 0, 0);
	put_calls(p, from, mid);
	f->code[far].k = (uint32_t)(f->n - far - 1);
	put_calls(p, mid, end);
}

static bool holds(const struct rule *r, const struct filter_config *c)
{
	if (r->who == INPUT || r->who == TERMINAL)
		return r->who == INPUT ? c->seeks : c->reads;
	return r->who == ALL || (c->uid == 0 && (r->who == ROOT || !c->becomes));
}

static int by_number(const void *a, const void *b)
{
	const struct rule *x = *(const struct rule *const *)a, *y = *(const struct rule *const *)b;

	return x->nr != y->nr ? (x->nr < y->nr ? -1 : 1) : (x < y ? -1 : x > y);
}

/* ---- programs of 32 bits ---- */

/*
 * Theirs pass, but those by which one could do what wall.h refuses: socketcall(2) has its arguments
 * in memory, and a user namespace is one by whatever number.
 */
#if defined(OLD_ARCH)
static const struct {
	uint32_t nr, value;
	uint16_t condition;
} old[] = {
	{102 /* socketcall */, 1 /* SYS_SOCKET */, BPF_JEQ},
	{120 /* clone */, CLONE_NEWUSER, BPF_JSET},
	{310 /* unshare */, CLONE_NEWUSER, BPF_JSET},
};
#endif

static void put_old_calls(struct filter *f)
{
#if defined(OLD_ARCH)
	for (size_t i = 0; i < N_OF(old); i++) {
		put_load(f, offsetof(struct seccomp_data, nr));
		put_jump(f, BPF_JEQ, old[i].nr, 0, 3);
		put_load(f, low_half(0));
		put_jump(f, old[i].condition, old[i].value, 0, 1);
		put(f, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF);
	}
#endif
}

/* What those lead to the listener for. */
static bool is_old_call(const struct seccomp_data *d)
{
#if defined(OLD_ARCH)
	for (size_t i = 0; i < N_OF(old); i++) {
		uint32_t arg = (uint32_t)d->args[0];

		if (d->nr == (int)old[i].nr &&
		    (old[i].condition == BPF_JEQ ? arg == old[i].value : arg & old[i].value))
			return true;
	}
#endif
	(void)d;
	return false;
}

/* All that is not of the machine's own kind. */
static void put_foreign(struct filter *f)
{
	size_t over;

	put_load(f, offsetof(struct seccomp_data, arch));
	put_jump(f, BPF_JEQ, OWN_ARCH, 0, 1);
	over = put(f, BPF_JMP | BPF_JA, 0, 0, 0);
	if (!f->conf.traces)
		put_old_calls(f);
	put(f, BPF_RET | BPF_K, 0, 0, f->conf.traces ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ALLOW);
	f->code[over].k = (uint32_t)(f->n - over - 1);
}

/* ---- in use ---- */

static bool is_traced(const struct traced_call *calls, size_t n, int nr)
{
	for (size_t i = 0; i < n; i++)
		if (calls[i].nr == nr)
			return true;
	return false;
}

/* Calls that are traced are told of whatever their arguments; filter_traced() tests those. */
static void plan_rules(struct plan *p)
{
	size_t n = 0;
	const struct traced_call *calls = traced_calls(&n);

	if (!p->conf->traces)
		n = 0;
	for (size_t i = 0; i < N_RULES; i++)
		if (holds(&rules[i], p->conf) && !is_traced(calls, n, rules[i].nr))
			p->rules[p->n++] = &rules[i];
	for (size_t i = 0; i < n; i++) {
		p->f->traced[i] = (struct rule){.nr = calls[i].nr, .test = ANY};
		p->rules[p->n++] = &p->f->traced[i];
	}
	qsort(p->rules, p->n, sizeof(p->rules[0]), by_number);
}

int filter_new(const struct filter_config *c, struct filter **ret)
{
	struct plan p = {.conf = c};

	if (!OWN_ARCH)
		return -ENOTSUP;
	p.f = xcalloc(1, sizeof(*p.f));
	p.f->conf = *c;
	plan_rules(&p);
	put_foreign(p.f);
	put_load(p.f, offsetof(struct seccomp_data, nr));
	put_calls(&p, 0, p.n);
	*ret = p.f;
	return 0;
}

void filter_free(struct filter *f)
{
	free(f);
}

int filter_install(const struct filter *f)
{
	struct sock_fprog program = {(unsigned short)f->n, (struct sock_filter *)f->code};
	/* What is told of is no attempt to get at secrets: nothing is to be slowed down for it. */
	long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
			  SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_SPEC_ALLOW,
			  &program);

	return fd < 0 ? -errno : (int)fd;
}

/* Of those rows of a call that can go on and those that can't, the right one. */
static bool is_of(const struct rule *r, const struct seccomp_data *d)
{
	return r->nr == d->nr && (r->test != USER_NAMESPACE || (d->args[0] & CLONE_NEWUSER));
}

static const struct rule *rule_of(const struct seccomp_data *d)
{
	for (size_t i = 0; i < N_RULES; i++)
		if (is_of(&rules[i], d))
			return &rules[i];
	return NULL;
}

/* A root that has shed all that the client's root may do in here. */
static bool is_powerless(pid_t pid)
{
	static const char field[] = "\nCapEff:";
	_cleanup_buf_ struct buf b = BUF_INIT;
	char path[32];
	const char *at;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	if (read_file_at(AT_FDCWD, path, STATUS_MAX, &b) < 0)
		return false;
	at = strstr(buf_cstr(&b), field);
	return at && strtoull(at + strlen(field), NULL, 16) == 0;
}

/* To be nicer than before is for everybody, and the arguments alone don't tell. */
static bool is_lowering(const struct seccomp_notif *n)
{
	int wanted = (int)n->data.args[2];

	return n->data.args[0] == PRIO_PROCESS && n->data.args[1] == 0 &&
	       getpriority(PRIO_PROCESS, n->pid) <= (wanted < NICE_MAX ? wanted : NICE_MAX);
}

/* Has it the same effect here as on the client, or none in both? */
static bool is_the_same(const struct rule *r, const struct seccomp_notif *n, filter_ask_fn *ask,
			const void *data)
{
	struct filter_call c = {.pid = (pid_t)n->pid, .nr = n->data.nr};

	if (r->ask) {
		for (int i = 0; i < 6; i++)
			c.args[i] = n->data.args[i];
		return !ask(data, &c);
	}
	if (r->power && is_powerless(c.pid))
		return true;
	return r->nr == SYS_setpriority && is_lowering(n);
}

/* Since Linux 5.5. */
static bool let_go_on(int listener, uint64_t id)
{
	struct seccomp_notif_resp r = {.id = id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};

	return ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &r) == 0;
}

int filter_kill(pid_t pid, int signo)
{
	return syscall(SYS_kill, pid, signo, FILTER_OURS) < 0 ? -errno : 0;
}

ssize_t filter_fgetxattr(int fd, const char *name, void *value, size_t size)
{
	return syscall(SYS_fgetxattr, fd, name, value, size, FILTER_OURS);
}

const char *filter_notified(int listener, filter_ask_fn *ask, const void *data)
{
	/* The kernel writes as much as it knows, which may be more than we do. */
	union {
		struct seccomp_notif notif;
		char room[1024];
	} u;
	const struct rule *r;

	memset(&u, 0, sizeof(u));
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &u) < 0)
		return NULL;
	if (u.notif.data.arch != OWN_ARCH)
		return OLD_CALL;
	r = rule_of(&u.notif.data);
	if (!r || (is_the_same(r, &u.notif, ask, data) && let_go_on(listener, u.notif.id)))
		return NULL;
	return r->text;
}

/* ---- with a trace ---- */

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS	   SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#endif

void filter_take_turns(int listener)
{
	(void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
}

/* As put_test() has the kernel do. */
static bool matches(const struct rule *r, const struct filter_config *c,
		    const struct seccomp_data *d)
{
	uint32_t arg = (uint32_t)d->args[r->arg];

	switch ((enum test)r->test) {
	case ANY:
		return true;
	case OTHER_UID:
		return arg != c->uid && arg != UINT32_MAX;
	case OTHER_GID:
		return arg != c->gid && arg != UINT32_MAX;
	case DEVICE:
		return S_ISCHR(arg) || S_ISBLK(arg);
	case BITS:
		return arg & r->value;
	case EQUAL:
		return arg == r->value;
	case UNEQUAL:
		return arg != r->value;
	case NAMESPACE:
		return !(arg & CLONE_NEWUSER) && arg & NEW_NAMESPACES;
	case USER_NAMESPACE:
		return arg & CLONE_NEWUSER;
	}
	return true;
}

static const struct rule *rule_that_matches(const struct filter_config *c,
					    const struct seccomp_data *d)
{
	for (size_t i = 0; i < N_RULES; i++)
		if (rules[i].nr == d->nr && holds(&rules[i], c) && matches(&rules[i], c, d))
			return &rules[i];
	return NULL;
}

static const char *foreign_traced(const struct seccomp_notif *n, int listener, struct trace *t)
{
	if (is_old_call(&n->data))
		return OLD_CALL;
	trace_spoil(t, "32-bit");
	(void)let_go_on(listener, n->id);
	return NULL;
}

const char *filter_traced(const struct filter *f, int listener, filter_ask_fn *ask,
			  const void *data, struct trace *t)
{
	union {
		struct seccomp_notif notif;
		char room[1024];
	} u;
	struct filter_call c;
	const struct rule *r;

	memset(&u, 0, sizeof(u));
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &u) < 0)
		return NULL;
	if (u.notif.data.arch != OWN_ARCH)
		return foreign_traced(&u.notif, listener, t);
	c = (struct filter_call){.pid = (pid_t)u.notif.pid, .nr = u.notif.data.nr};
	for (int i = 0; i < 6; i++)
		c.args[i] = u.notif.data.args[i];
	trace_call(t, &c);
	r = rule_that_matches(&f->conf, &u.notif.data);
	if (r && !is_the_same(r, &u.notif, ask, data))
		return r->text;
	/* Else it is gone; or this kernel has no such answer, and the job can't go on. */
	(void)let_go_on(listener, u.notif.id);
	return NULL;
}
