/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The client's own concc-worker, and whether another machine can run it. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/str.h"
#include "push.h"

#define PHDRS_MAX 64 /* a program has about ten */

#if __SIZEOF_POINTER__ == 8
typedef Elf64_Ehdr elf_header;
typedef Elf64_Phdr elf_segment;
#else
typedef Elf32_Ehdr elf_header;
typedef Elf32_Phdr elf_segment;
#endif

int worker_file_open(const char *path, struct worker_file **ret, struct errmsg *msg)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct worker_file *f;
	struct digest d;
	uint64_t size;
	int err;

	if (fd < 0)
		return errmsg_set(msg, -errno, "%s: %s; install concc-worker beside concc", path,
				  err_text(-errno));
	err = digest_of_fd(fd, &d, &size);
	if (err < 0)
		return errmsg_set(msg, err, "reading %s: %s", path, err_text(err));
	f = xcalloc(1, sizeof(*f));
	f->fd = steal_fd(&fd);
	f->size = size;
	digest_hex(&d, f->hex);
	*ret = f;
	return 0;
}

/* A program that asks for no loader is static. */
static bool is_static(int fd)
{
	elf_header h;
	elf_segment p;

	if (pread(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h) ||
	    memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_phentsize != sizeof(p) ||
	    h.e_phnum > PHDRS_MAX)
		return false;
	for (unsigned i = 0; i < h.e_phnum; i++) {
		if (pread(fd, &p, sizeof(p), (off_t)(h.e_phoff + i * sizeof(p))) !=
			    (ssize_t)sizeof(p) ||
		    p.p_type == PT_INTERP)
			return false;
	}
	return true;
}

int worker_file_check(const struct worker_file *f, const char *path, struct errmsg *msg)
{
	if (is_static(f->fd))
		return 0;
	return errmsg_set(msg, -ENOEXEC,
			  "%s is linked to this machine's libraries and would not run elsewhere; "
			  "push one that was built without STATIC= and SANITIZE=",
			  path);
}

void worker_file_free(struct worker_file *f)
{
	if (!f)
		return;
	close(f->fd);
	free(f);
}
