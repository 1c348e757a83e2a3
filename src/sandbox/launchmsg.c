/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "launchmsg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/proto.h"
#include "concc/str.h"

union fd_space {
	char room[CMSG_SPACE(LM_FDS_MAX * sizeof(int))];
	struct cmsghdr align;
};

int lm_send(int sock, const struct lm_packet *p, const int *fds, size_t n_fds, int flags)
{
	struct iovec iov = {(void *)p, sizeof(*p)};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	union fd_space space;

	if (n_fds > LM_FDS_MAX)
		return CONCC_E_TOOBIG;
	if (n_fds > 0) {
		struct cmsghdr *c;

		memset(&space, 0, sizeof(space));
		mh.msg_control = &space;
		mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	while (sendmsg(sock, &mh, flags | MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

static size_t take_fds(struct msghdr *mh, int *fds)
{
	size_t n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		size_t k = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(fds + n, CMSG_DATA(c), k * sizeof(int));
		n += k;
	}
	return n;
}

int lm_recv(int sock, struct lm_packet *p, int *fds, size_t *ret_n_fds, int flags)
{
	struct iovec iov = {p, sizeof(*p)};
	union fd_space space;
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &space,
			    .msg_controllen = sizeof(space)};
	ssize_t n;

	do {
		n = recvmsg(sock, &mh, flags | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	*ret_n_fds = take_fds(&mh, fds);
	if (n == sizeof(*p) && !(mh.msg_flags & MSG_CTRUNC))
		return 0;
	for (size_t i = 0; i < *ret_n_fds; i++)
		(void)close(fds[i]);
	/* Descriptors are cut off when the receiver may open no more. */
	return n == 0 ? CONCC_E_CLOSED : -EMFILE;
}

static void put_strv(struct buf *b, char *const *v)
{
	buf_put_u32(b, (uint32_t)strv_len(v));
	for (size_t i = 0; v[i]; i++)
		buf_append(b, v[i], strlen(v[i]) + 1);
}

int lm_request_pack(const struct launch *j)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	_cleanup_close_ int fd = memfd_create("concc-job", MFD_CLOEXEC);
	char *const none[] = {NULL};
	int r;

	if (fd < 0)
		return -errno;
	if (strv_len(j->workspaces) > PROTO_WORKSPACES_MAX)
		return CONCC_E_TOOBIG;
	buf_put_u32(&b, j->umask);
	buf_append(&b, &j->caller, sizeof(j->caller)); /* read by a fork of this program */
	buf_put_u64(&b, j->memory);
	buf_put_u32(&b, j->processes);
	buf_put_u8(&b, j->trace);
	buf_put_u8(&b, j->seeks);
	buf_put_u8(&b, j->reads);
	buf_put_u8(&b, j->terminal);
	buf_append(&b, j->exe, strlen(j->exe) + 1);
	buf_append(&b, j->path, strlen(j->path) + 1);
	buf_append(&b, j->cwd, strlen(j->cwd) + 1);
	put_strv(&b, j->workspaces);
	put_strv(&b, j->trees ? j->trees : none);
	put_strv(&b, j->argv);
	put_strv(&b, j->env);
	r = write_full(fd, b.data, b.len);
	return r < 0 ? r : steal_fd(&fd);
}

static char *get_cstr(struct rd *rd)
{
	size_t len = strnlen((const char *)rd->p, rd->left);

	if (len == rd->left)
		rd->bad = true;
	return rd->bad ? NULL : (char *)rd_bytes(rd, len + 1);
}

static char **get_strv(struct rd *rd)
{
	uint32_t n = rd_count(rd, 1);
	char **v = xcalloc((size_t)n + 1, sizeof(*v));

	for (uint32_t i = 0; i < n && !rd->bad; i++)
		v[i] = get_cstr(rd);
	return v;
}

/* Strings stay where they are: in a private mapping of the memfd. */
int lm_request_unpack(int memfd, struct lm_request *ret)
{
	struct lm_request r = {0};
	const uint8_t *caller;
	struct stat st;
	struct rd rd;
	int err;

	if (fstat(memfd, &st) < 0)
		return -errno;
	r.size = (size_t)st.st_size;
	r.memory = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, memfd, 0);
	if (r.memory == MAP_FAILED)
		return -errno;
	rd_init(&rd, r.memory, (size_t)st.st_size);
	r.umask = (mode_t)rd_u32(&rd);
	caller = rd_bytes(&rd, sizeof(r.caller));
	if (caller)
		memcpy(&r.caller, caller, sizeof(r.caller));
	r.max_memory = rd_u64(&rd);
	r.max_processes = rd_u32(&rd);
	r.trace = rd_u8(&rd);
	r.seeks = rd_u8(&rd);
	r.reads = rd_u8(&rd);
	r.terminal = rd_u8(&rd);
	r.exe = get_cstr(&rd);
	r.path = get_cstr(&rd);
	r.cwd = get_cstr(&rd);
	r.workspaces = get_strv(&rd);
	r.trees = get_strv(&rd);
	r.argv = get_strv(&rd);
	r.env = get_strv(&rd);
	err = rd_done(&rd);
	if (err < 0)
		lm_request_release(&r);
	else
		*ret = r;
	return err;
}

void lm_request_release(struct lm_request *r)
{
	free(r->workspaces);
	free(r->trees);
	free(r->argv);
	free(r->env);
	if (r->memory)
		(void)munmap(r->memory, r->size);
	*r = (struct lm_request){0};
}
