/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * A main() for fuzz targets that are not built by a fuzzer's compiler: calls
 * the target once for each file named, or each file in a directory named.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"

#define INPUT_MAX (64 * 1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv)
	__attribute__((weak)); /* not every target has one */

static size_t n_replayed;

static int replay_file(const char *path)
{
	_cleanup_buf_ struct buf input = BUF_INIT;
	_cleanup_free_ uint8_t *exact = NULL;
	int r = read_file_at(AT_FDCWD, path, INPUT_MAX, &input);

	if (r < 0) {
		fprintf(stderr, "%s: %s\n", path, err_text(r));
		return r;
	}
	/* Not a byte more than the input, so that a sanitizer sees a read beyond it. */
	exact = malloc(input.len ? input.len : 1);
	if (!exact)
		return -ENOMEM;
	if (input.len)
		memcpy(exact, input.data, input.len);
	n_replayed++;
	(void)LLVMFuzzerTestOneInput(exact, input.len);
	return 0;
}

static int replay_dir(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	int r = 0;

	if (!d) {
		r = -errno;
		fprintf(stderr, "%s: %s\n", path, err_text(r));
		return r;
	}
	while (r == 0 && (e = readdir(d))) {
		_cleanup_free_ char *file = path_join(path, e->d_name);

		if (e->d_name[0] != '.')
			r = replay_file(file);
	}
	closedir(d);
	return r;
}

int main(int argc, char **argv)
{
	struct stat st;

	if (LLVMFuzzerInitialize)
		(void)LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 1; i < argc; i++) {
		int r;

		if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode))
			r = replay_dir(argv[i]);
		else
			r = replay_file(argv[i]);
		if (r < 0)
			return 1;
	}
	printf("%zu inputs replayed\n", n_replayed);
	return n_replayed ? 0 : 1;
}
