/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "elf_file.h"

#include <elf.h>
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

/* What is known has some ten, some hundred, and some ten of them. */
#define SEGMENTS_MAX 512
#define DYNAMIC_MAX  4096
#define NEEDED_MAX   512

#if BYTE_ORDER == LITTLE_ENDIAN
#define OUR_ORDER ELFDATA2LSB
#else
#define OUR_ORDER ELFDATA2MSB
#endif

struct segments {
	Elf64_Phdr *v; /* owned */
	size_t n;
};

/* n bytes, or -ENOEXEC: it is shorter. */
static int read_at(int fd, void *to, size_t n, uint64_t at)
{
	ssize_t got = at > INT64_MAX - n ? 0 : pread(fd, to, n, (off_t)at);

	if (got < 0)
		return -errno;
	return (size_t)got == n ? 0 : -ENOEXEC;
}

static int read_segments(int fd, struct segments *ret)
{
	Elf64_Ehdr h;
	int err = read_at(fd, &h, sizeof(h), 0);

	if (err < 0)
		return err;
	if (memcmp(h.e_ident, ELFMAG, SELFMAG) != 0 || h.e_ident[EI_CLASS] != ELFCLASS64 ||
	    h.e_ident[EI_DATA] != OUR_ORDER || h.e_phnum > SEGMENTS_MAX ||
	    (h.e_phnum && h.e_phentsize != sizeof(*ret->v)))
		return -ENOEXEC;
	ret->n = h.e_phnum;
	ret->v = xcalloc(ret->n + 1, sizeof(*ret->v));
	return read_at(fd, ret->v, ret->n * sizeof(*ret->v), h.e_phoff);
}

static const Elf64_Phdr *find_segment(const struct segments *s, uint32_t type)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->v[i].p_type == type)
			return &s->v[i];
	return NULL;
}

static int read_loader(int fd, const struct segments *s, char **ret)
{
	const Elf64_Phdr *p = find_segment(s, PT_INTERP);
	char loader[PATH_MAX];
	int err;

	if (!p)
		return 0;
	if (p->p_filesz < 2 || p->p_filesz > sizeof(loader))
		return -ENOEXEC;
	err = read_at(fd, loader, p->p_filesz, p->p_offset);
	if (err < 0)
		return err;
	if (loader[0] != '/' || loader[p->p_filesz - 1])
		return -ENOEXEC;
	*ret = xstrdup(loader);
	return 0;
}

/* Where in the file is what is loaded at this address? */
static int file_offset(const struct segments *s, uint64_t address, uint64_t *ret)
{
	for (size_t i = 0; i < s->n; i++) {
		const Elf64_Phdr *p = &s->v[i];

		if (p->p_type != PT_LOAD || address < p->p_vaddr ||
		    address - p->p_vaddr >= p->p_filesz)
			continue;
		*ret = p->p_offset + (address - p->p_vaddr);
		return 0;
	}
	return -ENOEXEC;
}

static int push_needed(int fd, uint64_t at, char ***names)
{
	char name[NAME_MAX + 1];
	ssize_t n = at > INT64_MAX - sizeof(name) ? 0 : pread(fd, name, sizeof(name), (off_t)at);

	if (n < 0)
		return -errno;
	if (!n || !memchr(name, '\0', (size_t)n))
		return -ENOEXEC;
	strv_push(names, xstrdup(name));
	return 0;
}

static int read_names(int fd, const struct segments *s, const Elf64_Dyn *d, size_t n, char ***names)
{
	uint64_t strings = 0;
	int err = -ENOEXEC;

	for (size_t i = 0; i < n && d[i].d_tag != DT_NULL; i++)
		if (d[i].d_tag == DT_STRTAB)
			err = file_offset(s, d[i].d_un.d_ptr, &strings);
	for (size_t i = 0, left = NEEDED_MAX; err == 0 && i < n && d[i].d_tag != DT_NULL; i++) {
		if (d[i].d_tag != DT_NEEDED)
			continue;
		if (!left-- || d[i].d_un.d_val > UINT64_MAX - strings)
			return -ENOEXEC;
		err = push_needed(fd, strings + d[i].d_un.d_val, names);
	}
	return err;
}

static int read_needed(int fd, const struct segments *s, char ***names)
{
	const Elf64_Phdr *p = find_segment(s, PT_DYNAMIC);
	size_t n = p ? p->p_filesz / sizeof(Elf64_Dyn) : 0;
	_cleanup_free_ Elf64_Dyn *d = NULL;
	int err;

	if (!n)
		return 0;
	if (n > DYNAMIC_MAX)
		return -ENOEXEC;
	d = xcalloc(n, sizeof(*d));
	err = read_at(fd, d, n * sizeof(*d), p->p_offset);
	return err < 0 ? err : read_names(fd, s, d, n, names);
}

int elf_loader(int fd, char **ret)
{
	struct segments s = {0};
	int err = read_segments(fd, &s);

	*ret = NULL;
	if (err == 0)
		err = read_loader(fd, &s, ret);
	free(s.v);
	return err;
}

int elf_needed(int fd, char ***ret)
{
	struct segments s = {0};
	int err = read_segments(fd, &s);

	*ret = xcalloc(1, sizeof(**ret));
	if (err == 0)
		err = read_needed(fd, &s, ret);
	free(s.v);
	if (err < 0)
		strv_free(steal_ptr(ret));
	return err;
}
