/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_PROJECT_ELF_FILE_H
#define CONCC_PROJECT_ELF_FILE_H

/*
 * What is opened with a program or a shared library, by its headers: elf(5).  Of 64-bit files of
 * this machine's byte order, from fd, whose offset stays.  They may block, and return 0; -ENOEXEC
 * when it is no such file, or not as it should be; or -errno.
 */

/* The program's loader, which the kernel opens: absolute, on the heap; NULL when it has none. */
int elf_loader(int fd, char **ret);
/* Shared libraries that the loader opens, by name (DT_NEEDED), for strv_free(). */
int elf_needed(int fd, char ***ret);

#endif
