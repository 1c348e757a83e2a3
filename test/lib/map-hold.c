/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * map-hold FILE: for each line of standard input, stores it into the file through a mapping that
 * stays, and says "stored".
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int fd = argc > 1 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;
	char line[4096], *m;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return 1;
	m = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		return 1;
	while (fgets(line, sizeof(line), stdin)) {
		size_t n = strlen(line);

		memcpy(m, line, n < (size_t)st.st_size ? n : (size_t)st.st_size);
		puts("stored");
		fflush(stdout);
	}
	return 0;
}
