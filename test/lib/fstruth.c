/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What build tools do with files, once, in the current directory:
 *
 *	fstruth prepare N	what is there before: the client's files, N of them in big/
 *	fstruth ops N [ONLY]	the operations, or one of them, each with a line that says what it
 *returned fstruth tree		what is there: a line for each name, and the order of times fstruth
 *attr KIND	sets what has no way home: user, acl, client, dir
 *	fstruth has PATH NAME	true when it is there
 *
 * Run locally and in a job, ops and tree must say the same.  Nothing printed depends on the
 * clock, on inode numbers or on the order in which processes run.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define MANY	  1000 /* entries of a directory that is summed up in one line */
#define SPARSE	  (1LL << 30)
#define SET_PAST  1500000000 /* mtimes outside of these were set on purpose */
#define SET_AHEAD 4000000000

static int n_many; /* entries of a large directory */

static void say(const char *what, long r)
{
	if (r < 0)
		printf("%s: %s\n", what, strerrorname_np(errno));
	else
		printf("%s: %ld\n", what, r);
}

static void die(const char *what)
{
	fprintf(stderr, "fstruth: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		die(path);
	close(fd);
}

static void dir(const char *path)
{
	if (mkdir(path, 0777) < 0)
		die(path);
}

static void set_time(const char *path, time_t s, long ns)
{
	struct timespec t[2] = {{s, ns}, {s, ns}};

	if (utimensat(AT_FDCWD, path, t, AT_SYMLINK_NOFOLLOW) < 0)
		die(path);
}

/* What a file says, on one line. */
static void say_text(const char *what, int fd)
{
	char buf[64] = "";
	ssize_t n = pread(fd, buf, sizeof(buf) - 1, 0);

	if (n < 0)
		say(what, n);
	else
		printf("%s: '%s'\n", what, buf);
}

static void say_file(const char *what, const char *path)
{
	int fd = open(path, O_RDONLY);

	if (fd < 0) {
		say(what, -1);
		return;
	}
	say_text(what, fd);
	close(fd);
}

/* In a process of its own; its exit status. */
static int child(int (*fn)(int), int arg)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(fn(arg));
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		die("child");
	return WEXITSTATUS(status);
}

/* ---- before ---- */

static void many(const char *path, int n)
{
	char name[64];

	dir(path);
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s/n%06d", path, i);
		int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
		if (fd < 0)
			die(name);
		close(fd);
	}
}

static void prepare(void)
{
	static const char *const files[] = {"over", "append", "chmod",	"cut",	  "grow",
					    "gone", "linked", "map",	"copied", "held",
					    "ro",   "moved",  "turned", "early",  "twice"};
	int fd;

	dir("c");
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		char path[64], text[64];

		snprintf(path, sizeof(path), "c/%s", files[i]);
		snprintf(text, sizeof(text), "the client's %s", files[i]);
		put(path, text);
	}
	chmod("c/ro", 0444);
	dir("c/dir");
	dir("c/dir/sub");
	put("c/dir/sub/f", "f");
	dir("c/todir");
	put("c/todir/x", "x");
	dir("c/timed");
	put("c/timed/f", "f");
	dir("c/sealed");
	put("c/sealed/f", "f");
	chmod("c/sealed", 0555);
	dir("c/setgid");
	chmod("c/setgid", 02775);
	fd = open("c/mapped", O_RDWR | O_CREAT, 0644);
	if (fd < 0 || ftruncate(fd, 65536) < 0)
		die("c/mapped");
	close(fd);
	many("big", n_many);
}

/* ---- operations ---- */

static void renames(void)
{
	dir("r");
	put("r/a", "a");
	put("r/b", "b");
	say("rename new over new", rename("r/a", "r/b"));
	put("r/n", "new");
	say("rename new over the client's", rename("r/n", "c/over"));
	say("rename the client's", rename("c/moved", "r/moved"));
	say("rename of what is not there", rename("r/none", "r/x"));
	dir("r/d");
	dir("r/d/e");
	put("r/d/e/f", "f");
	say("rename new directory", rename("r/d", "r/d2"));
	dir("r/empty");
	say("rename directory over empty one", rename("r/d2", "r/empty"));
	dir("r/full");
	put("r/full/x", "x");
	say("rename directory over full one", rename("r/empty", "r/full"));
	say("rename directory into itself", rename("r/full", "r/full/y"));
	put("r/p", "p");
	put("r/q", "q");
	say("exchange", syscall(SYS_renameat2, AT_FDCWD, "r/p", AT_FDCWD, "r/q", 2));
	say("noreplace", syscall(SYS_renameat2, AT_FDCWD, "r/p", AT_FDCWD, "r/q", 1));
}

/* The client's directory: mv(1) copies it where rename(2) can't. */
static void rename_lower(void)
{
	int r = rename("c/dir", "r/dir");

	say("rename the client's directory", r);
	if (r < 0 && system("cp -a c/dir r/dir && rm -r c/dir") != 0)
		die("mv c/dir");
}

static void unlinked(void)
{
	int fd = open("u", O_RDWR | O_CREAT | O_EXCL, 0600);
	struct stat st;

	say("unlink while open", unlink("u"));
	say("write to it", pwrite(fd, "still", 5, 0));
	say_text("read it", fd);
	fstat(fd, &st);
	say("its links", (long)st.st_nlink);
	close(fd);
	fd = open("c/gone", O_RDWR);
	say("unlink the client's while open", unlink("c/gone"));
	say_text("read that", fd);
	say("write to that", pwrite(fd, "THE", 3, 0));
	say_text("read that again", fd);
	close(fd);
	say("open what is gone", open("c/gone", O_RDONLY));
}

/* A file of the client's with several names. */
static void links_lower(void)
{
	struct stat a, b;

	dir("ll");
	say("link to the client's", link("c/linked", "ll/linked"));
	stat("c/linked", &a);
	stat("ll/linked", &b);
	say("both names are one file", a.st_ino == b.st_ino && a.st_nlink == 2);
	put("ll/linked", "written by its new name");
	say_file("by its old name", "c/linked");
}

static void links(void)
{
	dir("l");
	put("l/a", "one");
	say("link", link("l/a", "l/b"));
	say("link over", link("l/a", "l/b"));
	put("l/b", "two");
	say_file("written by its other name", "l/a");
	say("symlink", symlink("a", "l/s"));
	say("symlink to nothing", symlink("../nothing", "l/dangling"));
	say("loop", symlink("loop2", "l/loop1"));
	say("loop", symlink("loop1", "l/loop2"));
	say("open loop", open("l/loop1", O_RDONLY));
	say("open dangling", open("l/dangling", O_RDONLY));
	say("create through dangling", close(open("l/dangling", O_WRONLY | O_CREAT, 0644)));
	say("open symlink nofollow", open("l/s", O_RDONLY | O_NOFOLLOW));
}

static void sparse(void)
{
	int fd = open("sparse", O_RDWR | O_CREAT, 0644);
	char c = 1;

	say("huge offset", pwrite(fd, "end", 3, SPARSE));
	say("middle", pwrite(fd, "middle", 6, SPARSE / 2 + 5));
	say("hole", pread(fd, &c, 1, SPARSE / 4));
	say("zero", c);
	say("data after the hole", lseek(fd, SPARSE / 4, SEEK_DATA) == SPARSE / 2);
	close(fd);
	fd = open("hole", O_RDWR | O_CREAT, 0644);
	say("only a hole", ftruncate(fd, 1 << 20));
	close(fd);
	fd = open("beyond", O_RDWR | O_CREAT, 0644);
	say("offset below zero", pwrite(fd, "x", 1, -1));
	say("offset beyond all", pwrite(fd, "x", 1, INT64_MAX));
	close(fd);
}

static void map_write(const char *path, size_t len)
{
	int fd = open(path, O_RDWR | O_CREAT, 0644);
	char *p;

	if (ftruncate(fd, (off_t)len) < 0)
		die(path);
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		die(path);
	for (size_t i = 0; i < len; i += 1000)
		p[i] = (char)('a' + i % 26);
	say(path, msync(p, len, MS_SYNC));
	munmap(p, len);
}

static int excl_child(int i)
{
	int won = 0;

	for (int n = 0; n < 40; n++) {
		char name[32];

		snprintf(name, sizeof(name), "x/%d", n);
		int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
		if (fd >= 0)
			won++;
		else if (errno != EEXIST)
			_exit(255);
		(void)i;
		close(fd);
	}
	return won;
}

static void excl(void)
{
	pid_t pids[5];
	int status, won = 0;

	dir("x");
	fflush(stdout);
	for (int i = 0; i < 5; i++)
		if ((pids[i] = fork()) == 0)
			_exit(excl_child(i));
	for (int i = 0; i < 5; i++) {
		waitpid(pids[i], &status, 0);
		won += WEXITSTATUS(status);
	}
	say("exclusive creations", won);
}

static int try_flock(int unused)
{
	int fd = open("held", O_RDONLY);

	(void)unused;
	return flock(fd, LOCK_EX | LOCK_NB) < 0 ? errno : 0;
}

static int try_fcntl(int type)
{
	struct flock l = {.l_type = (short)type, .l_whence = SEEK_SET, .l_len = 10};
	int fd = open("held", O_RDWR);

	return fcntl(fd, F_SETLK, &l) < 0 ? errno == EACCES ? EAGAIN : errno : 0;
}

/* Of a file of its own: who locks what the client has runs there. */
static void locks(void)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 5};
	int fd = open("held", O_RDWR | O_CREAT, 0644);

	say("flock", flock(fd, LOCK_EX | LOCK_NB));
	say("flock of another", child(try_flock, 0) == EWOULDBLOCK);
	say("unlock", flock(fd, LOCK_UN));
	say("flock of another", child(try_flock, 0));
	say("fcntl", fcntl(fd, F_SETLK, &l));
	say("fcntl of another", child(try_fcntl, F_WRLCK) == EAGAIN);
	say("read lock of another", child(try_fcntl, F_RDLCK) == EAGAIN);
	l.l_type = F_UNLCK;
	say("fcntl unlock", fcntl(fd, F_SETLK, &l));
	say("fcntl of another", child(try_fcntl, F_WRLCK));
	say("lease", fcntl(fd, F_SETLEASE, F_WRLCK) < 0 ? -1 : 0);
	close(fd);
	unlink("held");
}

/* Names of 255 bytes, down to the longest path that a system call takes. */
static void deep(void)
{
	char path[PATH_MAX + 300] = "deep", cwd[PATH_MAX], name[NAME_MAX + 2];
	size_t room = PATH_MAX - 1 - strlen(getcwd(cwd, sizeof(cwd))) - 1;

	dir(path);
	memset(name, 'n', NAME_MAX);
	name[NAME_MAX] = '\0';
	while (strlen(path) + 1 + NAME_MAX + 2 < room) {
		strcat(strcat(path, "/"), name);
		dir(path);
	}
	strcat(path, "/");
	memset(path + strlen(path), 'f', room - strlen(path));
	put(path, "deep");
	say("longest path", (long)strlen(path) == (long)room);
	say_file("deep", path);
	strcpy(name + NAME_MAX, "x");
	say("name too long", mkdir(name, 0777));
	memset(path, 'p', PATH_MAX);
	path[PATH_MAX] = '\0';
	say("path too long", mkdir(path, 0777));
}

static long entries(DIR *d)
{
	long n = 0;

	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	return n;
}

static void directories(void)
{
	DIR *d = opendir("big");
	long at, rest, kept = 0;

	say("entries", entries(d));
	rewinddir(d);
	for (int i = 0; i < 100; i++)
		readdir(d);
	at = telldir(d);
	rest = entries(d);
	seekdir(d, at);
	say("the rest again", entries(d) == rest);
	closedir(d);
	say("an entry", access("big/n000100", F_OK));
	say("no entry", access("big/m000100", F_OK));
	many("made", n_many);
	d = opendir("made");
	say("made", entries(d));
	closedir(d);
	/* What stays is seen once, whatever comes and goes meanwhile. */
	many("changing", 600);
	d = opendir("changing");
	for (int i = 0; i < 600; i++) {
		struct dirent *e = readdir(d);
		char name[64];

		if (!e)
			break;
		kept += e->d_name[0] == 'n' && atoi(e->d_name + 1) >= 300;
		if (i >= 300)
			continue;
		snprintf(name, sizeof(name), "changing/n%06d", i);
		unlink(name);
		snprintf(name, sizeof(name), "changing/o%d", i);
		put(name, "");
	}
	for (struct dirent *e; (e = readdir(d));)
		kept += e->d_name[0] == 'n' && atoi(e->d_name + 1) >= 300;
	closedir(d);
	say("seen of what stays", kept);
	say("remove a full directory", rmdir("changing"));
}

static void modes(void)
{
	mode_t mask = umask(027);
	struct stat st;
	int fd;

	dir("m");
	dir("m/masked");
	put("m/file", "x");
	umask(mask);
	fd = open("m/exec", O_WRONLY | O_CREAT, 0755);
	say("write a file", write(fd, "#!/bin/sh\nexit 7\n", 17));
	close(fd);
	say("run it", system("m/exec") >> 8);
	put("m/ro", "ro");
	say("chmod", chmod("m/ro", 0444));
	say("write to read-only", open("m/ro", O_WRONLY));
	say("write to the client's", open("c/ro", O_WRONLY));
	say("make writable", chmod("c/ro", 0644));
	put("c/ro", "writable");
	say("read-only again", chmod("c/ro", 0400));
	dir("m/rodir");
	put("m/rodir/x", "x");
	chmod("m/rodir", 0555);
	say("create in read-only", open("m/rodir/y", O_WRONLY | O_CREAT, 0644));
	say("remove in read-only", unlink("m/rodir/x"));
	say("create in the client's", open("c/sealed/y", O_WRONLY | O_CREAT, 0644));
	dir("m/setgid");
	say("setgid", chmod("m/setgid", 02775));
	dir("m/setgid/sub");
	stat("m/setgid/sub", &st);
	printf("inherited: %o\n", st.st_mode & 07777);
	dir("c/setgid/sub");
	stat("c/setgid/sub", &st);
	printf("inherited from the client's: %o\n", st.st_mode & 07777);
	dir("m/sticky");
	say("sticky", chmod("m/sticky", 01777));
	say("chmod the client's", chmod("c/chmod", 0750));
}

static void specials(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX, .sun_path = "s/socket"};
	int fd, s = socket(AF_UNIX, SOCK_STREAM, 0);

	dir("s");
	say("fifo", mkfifo("s/fifo", 0640));
	fd = open("s/fifo", O_RDWR);
	say("through it", write(fd, "x", 1));
	close(fd);
	say("nobody reads", open("s/fifo", O_WRONLY | O_NONBLOCK));
	say("socket", bind(s, (struct sockaddr *)&sa, sizeof(sa)));
	say("open socket", open("s/socket", O_RDWR));
	close(s);
	say("device", mknod("s/null", S_IFCHR | 0666, 259));
	fd = open("s", O_TMPFILE | O_RDWR, 0640);
	say("tmpfile", fd < 0 ? -1 : 0);
	if (fd >= 0) {
		char proc[64];

		snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
		say("write", write(fd, "tmp", 3));
		say("linkat", linkat(AT_FDCWD, proc, AT_FDCWD, "s/linked", AT_SYMLINK_FOLLOW));
		close(fd);
	}
}

static int out(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	if (fd < 0)
		die(path);
	return fd;
}

static void copies(void)
{
	int from = open("c/copied", O_RDONLY), to, p[2];
	off_t at = 0;

	dir("k");
	to = out("k/range");
	say("copy_file_range of the client's", copy_file_range(from, NULL, to, NULL, 100, 0));
	at = 0;
	if (ftruncate(to, 0) < 0 || lseek(to, 0, SEEK_SET) < 0)
		die("k/range");
	say("sendfile", sendfile(to, from, &at, 100) < 0 ? -1 : 0);
	close(to);
	to = out("k/send");
	at = 0;
	say("sendfile", sendfile(to, from, &at, 100));
	close(from);
	from = to;
	to = out("k/range2");
	at = 0;
	say("copy_file_range of a new one", copy_file_range(from, &at, to, NULL, 100, 0));
	close(to);
	to = out("k/splice");
	if (pipe(p) < 0)
		die("pipe");
	at = 0;
	say("splice in", splice(from, &at, p[1], NULL, 100, 0));
	close(p[1]);
	say("splice out", splice(p[0], NULL, to, NULL, 100, 0));
	say("fallocate", posix_fallocate(to, 0, 100));
	close(to);
	close(from);
}

static void sizes(void)
{
	int fd;

	say("cut the client's", truncate("c/cut", 3));
	say("grow the client's", truncate("c/grow", 5000));
	fd = open("c/append", O_WRONLY | O_APPEND);
	say("append", write(fd, ", and more", 10));
	close(fd);
	fd = out("t");
	say("write", write(fd, "0123456789", 10));
	say("cut", ftruncate(fd, 4));
	say("grow", ftruncate(fd, 8));
	say("write beyond", pwrite(fd, "x", 1, 20));
	close(fd);
	say("cut a directory", truncate("c", 0));
	say("cut below zero", truncate("t", -1));
}

static void replaced(void)
{
	say("remove a full directory", rmdir("c/todir"));
	say("its file", unlink("c/todir/x"));
	say("remove it", rmdir("c/todir"));
	put("c/todir", "a file now");
	say("a file to a directory", unlink("c/turned"));
	dir("c/turned");
	put("c/turned/x", "x");
	say("file", unlink("c/twice"));
	dir("c/twice");
	say("directory", rmdir("c/twice"));
	put("c/twice", "a file again");
	say("rmdir a file", rmdir("c/twice"));
	say("unlink a directory", unlink("c/turned"));
}

/* A descriptor from before the first write to one of the client's files. */
static void held_open(void)
{
	int fd = open("c/early", O_RDONLY), to;

	to = open("c/early", O_WRONLY);
	say("write", pwrite(to, "NEW", 3, 0));
	close(to);
	say_text("opened before the first write", fd);
	close(fd);
	say_file("opened after", "c/early");
}

static void times(void)
{
	static const char *const order[] = {"order/z", "order/y", "order/x", "order/w", "order/v"};
	struct timespec t[2];
	struct stat st;

	dir("order");
	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		/* Apart: 20 ms are more than a tick of any kernel's clock.  No wait for anything:
		 * the time that passes is what is tested. */
		if (i && i != 3)
			nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
		put(order[i], "x");
		/* as cp -p */
		if (i == 3) {
			stat("order/y", &st);
			t[0] = t[1] = st.st_mtim;
			utimensat(AT_FDCWD, order[i], t, 0);
		}
	}
	symlink("z", "order/s");
	stat("order/z", &st);
	t[0] = t[1] = st.st_mtim;
	utimensat(AT_FDCWD, "order/s", t, AT_SYMLINK_NOFOLLOW);
	dir("times");
	dir("times/dir");
	put("times/dir/f", "x");
	set_time("times/dir/f", 1000000000, 123456789);
	set_time("times/dir", 1000000001, 987654321);
	put("times/ahead", "x");
	set_time("times/ahead", 4102444800, 1);
	symlink("f", "times/link");
	set_time("times/link", 1000000002, 5);
	put("times/before", "x");
	set_time("times/before", -5, 7);
	set_time("c/timed", 1000000003, 3);
	set_time("c/map", 1000000004, 4);
	set_time("times", 1000000005, 5);
	dir("times2");
	dir("times2/closed");
	dir("times2/closed/in");
	set_time("times2/closed/in", 1000000006, 6);
	set_time("times2/closed", 1000000007, 7);
	chmod("times2/closed", 0500);
}

/* root of the client has powers which a job's has not. */
static void drop_powers(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {0};

	if (syscall(SYS_capset, &h, d) < 0)
		die("capset");
}

static void maps(void)
{
	map_write("mapped", 100000);
	map_write("c/mapped", 65536);
}

struct op {
	const char *name;
	void (*fn)(void);
};

static const struct op all[] = {
	{"renames", renames}, {"unlinked", unlinked}, {"links", links},
	{"sparse", sparse},   {"maps", maps},	      {"excl", excl},
	{"locks", locks},     {"deep", deep},	      {"directories", directories},
	{"modes", modes},     {"specials", specials}, {"copies", copies},
	{"sizes", sizes},     {"replaced", replaced}, {"held_open", held_open},
	{"times", times},
};

/* By their names only: a job that does so runs on the client. */
static const struct op odd[] = {
	{"links_lower", links_lower},
	{"rename_lower", rename_lower},
};

static void run(const struct op *o, size_t n, const char *only)
{
	for (size_t i = 0; i < n; i++)
		if (!only || strcmp(only, o[i].name) == 0)
			o[i].fn();
}

static void ops(const char *only)
{
	drop_powers();
	umask(022);
	run(all, sizeof(all) / sizeof(all[0]), only);
	if (only)
		run(odd, sizeof(odd) / sizeof(odd[0]), only);
}

/* ---- the tree ---- */

static uint64_t sum(uint64_t h, const void *p, size_t n)
{
	for (const uint8_t *b = p; n; n--)
		h = (h ^ *b++) * 0x100000001b3;
	return h;
}

/* Of what is not zero, with its place, so that holes cost nothing. */
static uint64_t sum_file(int dir_fd, const char *name)
{
	static const char zero[4096];
	int fd = openat(dir_fd, name, O_RDONLY);
	uint64_t h = 0xcbf29ce484222325;
	char page[4096];
	off_t at = 0;
	ssize_t n;

	while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
		off_t end = lseek(fd, at, SEEK_HOLE);

		for (at &= ~4095; at < end && (n = pread(fd, page, sizeof(page), at)) > 0; at += n)
			if (memcmp(page, zero, (size_t)n) != 0)
				h = sum(sum(h, &at, sizeof(at)), page, (size_t)n);
	}
	close(fd);
	return h;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int not_dots(const struct dirent *e)
{
	return strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
}

static void look_entry(FILE *to, int fd, const char *path, const char *name);

static void look(FILE *to, int fd, const char *path)
{
	struct dirent **names;
	int n = scandirat(fd, ".", &names, not_dots, by_name);
	uint64_t h = 0;
	char *text = NULL;
	size_t len = 0;
	FILE *out = n < MANY ? to : open_memstream(&text, &len);

	for (int i = 0; i < n; i++) {
		look_entry(out, fd, path, names[i]->d_name);
		free(names[i]);
	}
	free(names);
	if (out == to)
		return;
	fclose(out);
	h = sum(h, text, len);
	fprintf(to, "%s: %d names, %016jx\n", path, n, (uintmax_t)h);
	free(text);
}

static void look_entry(FILE *to, int fd, const char *path, const char *name)
{
	char target[PATH_MAX] = "", *child;
	struct stat st;
	ssize_t n;

	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		die(name);
	if (asprintf(&child, "%s/%s", path, name) < 0)
		die("memory");
	fprintf(to, "%s %o", child, st.st_mode);
	if (!S_ISDIR(st.st_mode))
		fprintf(to, " links %ju size %jd", (uintmax_t)st.st_nlink, (intmax_t)st.st_size);
	if (S_ISREG(st.st_mode))
		fprintf(to, " %016jx%s", (uintmax_t)sum_file(fd, name),
			st.st_size > 65536 && st.st_blocks * 512 < st.st_size / 2 ? " sparse" : "");
	n = S_ISLNK(st.st_mode) ? readlinkat(fd, name, target, sizeof(target) - 1) : 0;
	if (n > 0)
		fprintf(to, " -> %.*s", (int)n, target);
	if (st.st_mtim.tv_sec < SET_PAST || st.st_mtim.tv_sec > SET_AHEAD)
		fprintf(to, " at %jd.%09ld", (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	fprintf(to, "\n");
	if (S_ISDIR(st.st_mode)) {
		int sub = openat(fd, name, O_RDONLY | O_DIRECTORY);

		if (sub < 0)
			die(name);
		look(to, sub, child);
		close(sub);
	}
	free(child);
}

struct dated {
	const char *name;
	struct timespec t;
};

static int by_time(const void *a, const void *b)
{
	const struct dated *x = a, *y = b;

	if (x->t.tv_sec != y->t.tv_sec)
		return x->t.tv_sec < y->t.tv_sec ? -1 : 1;
	if (x->t.tv_nsec != y->t.tv_nsec)
		return x->t.tv_nsec < y->t.tv_nsec ? -1 : 1;
	return strcmp(x->name, y->name);
}

static void look_order(void)
{
	struct dirent **names;
	int n = scandir("order", &names, not_dots, by_name);
	struct dated *d = calloc((size_t)(n > 0 ? n : 1), sizeof(*d));
	struct timespec now;
	struct stat st;
	int fd;

	if (n <= 0) {
		free(d);
		return;
	}
	for (int i = 0; i < n; i++) {
		fd = open("order", O_RDONLY);
		fstatat(fd, names[i]->d_name, &st, AT_SYMLINK_NOFOLLOW);
		close(fd);
		d[i] = (struct dated){names[i]->d_name, st.st_mtim};
	}
	qsort(d, (size_t)n, sizeof(*d), by_time);
	printf("order: %s", d[0].name);
	for (int i = 1; i < n; i++)
		printf(" %c %s",
		       d[i].t.tv_sec == d[i - 1].t.tv_sec && d[i].t.tv_nsec == d[i - 1].t.tv_nsec
			       ? '='
			       : '<',
		       d[i].name);
	clock_gettime(CLOCK_REALTIME, &now);
	printf("\nin the future: %d\n", d[n - 1].t.tv_sec > now.tv_sec);
}

/* ---- what has no way home ---- */

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};

static int set_acl(const char *path, const char *name)
{
	struct {
		uint32_t version;
		struct acl_entry e[5];
	} acl = {2,
		 {{1, 6, UINT32_MAX},
		  {2, 4, 0},
		  {4, 4, UINT32_MAX},
		  {16, 4, UINT32_MAX},
		  {32, 4, UINT32_MAX}}};

	return setxattr(path, name, &acl, sizeof(acl), 0);
}

static int attr(const char *kind)
{
	int r = -1;

	put("attributed", "x");
	if (strcmp(kind, "user") == 0)
		r = setxattr("attributed", "user.concc-test", "value", 5, 0);
	else if (strcmp(kind, "acl") == 0)
		r = set_acl("attributed", "system.posix_acl_access");
	else if (strcmp(kind, "client") == 0)
		r = setxattr("c/held", "user.concc-test", "value", 5, 0);
	else if (strcmp(kind, "dir") == 0) {
		dir("attributed-dir");
		r = set_acl("attributed-dir", "system.posix_acl_default");
	}
	say(kind, r);
	return r < 0;
}

/* Attributes of both kinds for a file that is there. */
static int give(const char *path)
{
	return setxattr(path, "user.concc-test", "value", 5, 0) < 0 ||
	       set_acl(path, "system.posix_acl_access") < 0;
}

int main(int argc, char **argv)
{
	n_many = argc > 2 ? atoi(argv[2]) : 0;

	if (argc > 2 && strcmp(argv[1], "prepare") == 0)
		prepare();
	else if (argc > 2 && strcmp(argv[1], "ops") == 0)
		ops(argv[3]);
	else if (argc > 2 && strcmp(argv[1], "attr") == 0)
		return attr(argv[2]);
	else if (argc > 2 && strcmp(argv[1], "give") == 0)
		return give(argv[2]);
	else if (argc > 3 && strcmp(argv[1], "has") == 0)
		return getxattr(argv[2], argv[3], NULL, 0) <= 0;
	else if (argc > 1 && strcmp(argv[1], "tree") == 0) {
		look(stdout, open(".", O_RDONLY), ".");
		look_order();
	} else {
		fprintf(stderr,
			"usage: fstruth prepare N|ops N [ONLY]|tree|attr KIND|give PATH|has PATH NAME\n");
		return 2;
	}
	return 0;
}
