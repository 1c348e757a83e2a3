/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>

#include "project/elf_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/str.h"

TestSuite(elf_file, .timeout = 300);

static int open_bytes(const void *p, size_t n)
{
	int fd = memfd_create("elf", MFD_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write_full(fd, p, n), 0);
	return fd;
}

static bool has(char **names, const char *name)
{
	for (; *names; names++)
		if (streq(*names, name))
			return true;
	return false;
}

Test(elf_file, tells_what_a_program_opens)
{
	_cleanup_close_ int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	_cleanup_strv_ char **needed = NULL;
	_cleanup_free_ char *loader = NULL;

	cr_assert_eq(elf_loader(fd, &loader), 0);
	cr_assert(loader && access(loader, X_OK) == 0, "%s", loader);
	cr_assert_eq(elf_needed(fd, &needed), 0);
	cr_expect(has(needed, "libc.so.6"));
	cr_expect_eq(lseek(fd, 0, SEEK_CUR), 0);
}

Test(elf_file, is_not_each_file)
{
	static const char *const others[] = {"", "\177ELF", "#!/bin/sh\n", "\177ELF\1\1\1"};

	for (size_t i = 0; i < N_OF(others); i++) {
		_cleanup_close_ int fd = open_bytes(others[i], strlen(others[i]));
		char *loader, **needed;

		cr_expect_eq(elf_loader(fd, &loader), -ENOEXEC, "%s", others[i]);
		cr_expect_eq(elf_needed(fd, &needed), -ENOEXEC, "%s", others[i]);
		cr_expect(!loader && !needed);
	}
}

/* Whoever wrote it: the answer may be wrong, and nothing else is. */
static void read_both(const void *p, size_t n)
{
	_cleanup_close_ int fd = open_bytes(p, n);
	char *loader, **needed;
	int err = elf_loader(fd, &loader);

	cr_assert(err == 0 || err == -ENOEXEC);
	cr_assert(err == 0 || !loader);
	free(loader);
	err = elf_needed(fd, &needed);
	cr_assert(err == 0 || err == -ENOEXEC);
	cr_assert((err == 0) == (needed != NULL));
	strv_free(needed);
}

Test(elf_file, is_read_with_care)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	cr_assert_geq(read_file_at(AT_FDCWD, "/bin/true", 1 << 20, &b), 0);
	for (size_t n = 0; n < 2048; n++)
		read_both(b.data, n);
	srand(1);
	for (int i = 0; i < 5000; i++) {
		size_t at = (size_t)rand() % (i % 2 ? 1024 : b.len);
		uint8_t was = b.data[at];

		b.data[at] = (uint8_t)rand();
		read_both(b.data, b.len);
		if (i % 8)
			b.data[at] = was;
	}
}
