/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * null-launcher CMD...: compiles by putting back what the same command made
 * before.  A build with it costs what make, ninja and ar cost themselves: the
 * floor that no distribution can get below, since it has to write the outputs too.
 *
 * NULL_STORE names the directory of what is remembered.  With NULL_RECORD set
 * the command runs and its outputs and messages are remembered; without it they
 * are put back.  What is no compile is executed, and without NULL_STORE everything
 * is; a compile that is not remembered is an error, since it would not be the floor.
 *
 * An entry is one file: records of "KIND MODE SIZE NAME\n" and SIZE bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compile.h"

static void fail(const char *what)
{
	(void)fprintf(stderr, "null-launcher: %s: %s\n", what, strerror(errno));
	exit(125);
}

static uint64_t hash(uint64_t h, const char *s)
{
	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * 0x100000001b3ULL; /* FNV-1a */
	return (h ^ 0xff) * 0x100000001b3ULL;
}

static void entry_path(char *const *cmd, char *ret, size_t size)
{
	uint64_t h = 0xcbf29ce484222325ULL;
	char cwd[PATH_MAX];

	if (!getcwd(cwd, sizeof(cwd)))
		fail("the directory");
	h = hash(h, cwd);
	for (; *cmd; cmd++)
		h = hash(h, *cmd);
	(void)snprintf(ret, size, "%s/%016llx", getenv("NULL_STORE"), (unsigned long long)h);
}

/* ---- putting back ---- */

static void write_all(int fd, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, bytes, len);

		if (n < 0)
			fail("write");
		bytes += n;
		len -= (size_t)n;
	}
}

static void put_file(const char *name, unsigned int mode, const char *bytes, size_t len)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

	if (fd < 0)
		fail(name);
	write_all(fd, bytes, len);
	close(fd);
}

static int put_back(int entry, size_t size)
{
	char *bytes = malloc(size + 1), *at = bytes;

	if (!bytes || read(entry, bytes, size) != (ssize_t)size)
		fail("an entry");
	bytes[size] = 0;
	while (at < bytes + size) {
		char kind, name[PATH_MAX];
		unsigned int mode;
		size_t len;
		int head;

		if (sscanf(at, "%c %o %zu %4095[^\n]%n", &kind, &mode, &len, name, &head) != 4 ||
		    at + head + 1 + len > bytes + size)
			fail("a damaged entry");
		at += head + 1;
		if (kind == 'F')
			put_file(name, mode, at, len);
		else
			write_all(kind == 'E' ? 2 : 1, at, len);
		at += len;
	}
	free(bytes);
	return 0;
}

/* ---- recording ---- */

static void record(FILE *entry, char kind, int fd, const char *name)
{
	struct stat st;
	char *bytes;

	if (fd < 0)
		return; /* an output that this compile does not have */
	if (fstat(fd, &st) < 0)
		fail(name);
	bytes = malloc((size_t)st.st_size + 1);
	if (!bytes || pread(fd, bytes, (size_t)st.st_size, 0) != st.st_size)
		fail(name);
	(void)fprintf(entry, "%c %o %zu %s\n", kind, st.st_mode & 0777U, (size_t)st.st_size, name);
	(void)fwrite(bytes, 1, (size_t)st.st_size, entry);
	write_all(kind == 'E' ? 2 : 1, bytes, kind == 'F' ? 0 : (size_t)st.st_size);
	free(bytes);
}

static void record_file(FILE *entry, const char *name)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	record(entry, 'F', fd, name);
	if (fd >= 0)
		close(fd);
}

/* -MD and -MMD without -MF write beside the object. */
static void record_depfile_of(FILE *entry, const char *object)
{
	char name[PATH_MAX];
	const char *dot = strrchr(object, '.');

	(void)snprintf(name, sizeof(name), "%.*s.d", (int)(dot ? dot - object : 0), object);
	record_file(entry, name);
}

static void record_c(FILE *entry, char *const *cmd)
{
	const char *object = NULL, *named = NULL;
	bool depfile = false;

	for (char *const *a = cmd; *a; a++) {
		/* Kbuild's -Wp,-MMD,FILE */
		const char *joined = strncmp(*a, "-Wp,-M", 6) == 0 ? strchr(*a + 4, ',') : NULL;

		depfile = depfile || strcmp(*a, "-MD") == 0 || strcmp(*a, "-MMD") == 0;
		if (joined)
			named = joined + 1;
		else if (strcmp(*a, "-MF") == 0)
			named = a[1];
		else if (strcmp(*a, "-o") == 0)
			object = a[1];
	}
	if (!object)
		fail("a compile without -o");
	record_file(entry, object);
	if (named)
		record_file(entry, named);
	else if (depfile)
		record_depfile_of(entry, object);
}

/* rustc says for cargo which files it wrote: {"$message_type":"artifact","artifact":"PATH",... */
static void record_rust(FILE *entry, int err_fd)
{
	static const char key[] = "\"artifact\":\"";
	FILE *f = fdopen(dup(err_fd), "r");
	char *line = NULL;
	size_t size = 0;

	if (!f)
		fail("fdopen");
	rewind(f);
	while (getline(&line, &size, f) > 0) {
		char *path = strstr(line, key), *end;

		if (!path)
			continue;
		path += strlen(key);
		end = strchr(path, '"');
		if (end) {
			*end = 0;
			record_file(entry, path);
		}
	}
	free(line);
	(void)fclose(f);
}

static int run(char *const *cmd, int out_fd, int err_fd)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		if (dup2(out_fd, 1) < 0 || dup2(err_fd, 2) < 0)
			fail("dup2");
		execvp(cmd[0], cmd);
		fail(cmd[0]);
	}
	if (waitpid(pid, &status, 0) < 0)
		fail("waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}

static int temp_file(void)
{
	int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		fail("/tmp");
	return fd;
}

static int run_and_record(const char *path, char *const *cmd)
{
	int out_fd = temp_file(), err_fd = temp_file(), status = run(cmd, out_fd, err_fd);
	FILE *entry = fopen(path, "w");

	if (!entry)
		fail(path);
	if (status == 0) {
		if (strstr(cmd[0], "rustc"))
			record_rust(entry, err_fd);
		else
			record_c(entry, cmd);
	}
	record(entry, 'O', out_fd, "stdout");
	record(entry, 'E', err_fd, "stderr");
	if (fclose(entry) != 0)
		fail(path);
	if (status != 0)
		(void)unlink(path);
	return status;
}

int main(int argc, char **argv)
{
	char path[PATH_MAX];
	struct stat st;
	int fd;

	if (argc < 2) {
		(void)fprintf(stderr, "usage: null-launcher CMD...\n");
		return 125;
	}
	if (getenv("NULL_STORE") && is_compile(argv + 1)) {
		entry_path(argv + 1, path, sizeof(path));
		if (getenv("NULL_RECORD"))
			return run_and_record(path, argv + 1);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) < 0)
			fail("a compile that is not in NULL_STORE");
		return put_back(fd, (size_t)st.st_size);
	}
	execvp(argv[1], argv + 1);
	fail(argv[1]);
}
