/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "etc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/map.h"
#include "concc/str.h"
#include "concc/tree.h"

#define ETC_FILE_MAX  (4 * 1024 * 1024) /* ld.so.cache of a large system is a tenth of it */
#define ETC_FILES_MAX 16384		/* certificates are some 500; all are read at each change */
#define ETC_DEPTH_MAX 8			/* Java's has four levels */

struct etc {
	char **listed; /* of the user's, relative to /etc */
	char *copy;
	struct map partial; /* directories of which something is left out, relative -> e */
	unsigned n_files;   /* of this turn */
	int watch;	    /* inotify, or -1: then all is compared before each job */
	bool loose;	    /* not all of it is watched: the same */
	bool old;	    /* the copy is not what /etc is */
};

/* ---- what is shown ---- */

/*
 * What programs of a build read, and nothing that says who else uses this machine, or may hold a
 * password: so no gitconfig, npmrc, pip.conf, maven.  ld.so.preload is looked up by every program:
 * there is always one, so that the answer is remembered.
 */
static const char *const shown[] = {
	/* the C library and the dynamic linker */
	"gai.conf",
	"host.conf",
	"hostname",
	"hosts",
	"ld.so.cache",
	"ld.so.conf",
	"ld.so.conf.d",
	"ld.so.preload",
	"ld-musl-*.path",
	"locale.alias",
	"locale.conf",
	"localtime",
	"nsswitch.conf",
	"protocols",
	"resolv.conf", /* Erlang and Elixir, each time they start */
	"rpc",
	"services",
	"shells",
	"selinux",
	"timezone",
	/* whoever asks which system it is, curses, alternatives' links */
	"alternatives",
	"debian_version",
	"lsb-release",
	"os-release",
	"system-release",
	"dpkg/origins",
	"terminfo",
	/* openssl, curl, node, python, git: certificates, but no keys */
	"ssl/openssl.cnf",
	"ssl/cert.pem",
	"ssl/certs",
	"pki/tls/openssl.cnf",
	"pki/tls/cert.pem",
	"pki/tls/certs",
	"pki/ca-trust/extracted",
	"crypto-policies",
	/* language runtimes */
	"java*",
	"perl*",
	"python3*",
	"clang*",
	"dmd.conf",
	"fpc*.cfg",
	"gdb",
	"gnucobol*",
	"julia",
	"lcovrc",
	"ldc2.conf",
	"ldc2.conf.d",
	"mono/config",
	"mono/*/machine.config",
	"nim",
	"ocamlfind.conf",
	"octave.conf",
	"octaverc",
	"php/*/cli", /* of servers it may hold what they log in with */
	"php/*/mods-available",
	"R",
	"sbclrc",
	"emacs",
	"inputrc",
	"OpenCL",
	"xdg/QtProject*", /* beside pip's and others' */
	"xdg/qtchooser",
	/* mkfs, mtools, dpkg: who makes images and packages */
	"mke2fs.conf",
	"mtools.conf",
	"dpkg/shlibs.default",
	"dpkg/shlibs.override",
	/* ImageMagick, fontconfig, Ghostscript, TeX, groff, file, xsltproc */
	"ImageMagick-*",
	"fonts",
	"ghostscript",
	"LatexMk",
	"libpaper.d",
	"papersize",
	"texmf",
	"groff",
	"magic",
	"magic.mime",
	"mime.types",
	"sgml",
	"xml",
};

/* By these names a key is called, whoever may read it. */
static const char *const private_names[] = {"private", "*.key", "*.p12", "*.pfx", "*.kdbx"};
/* In PEM all kinds of them have it. */
static const char private_mark[] = "PRIVATE KEY-----";

/* Where the first n parts of a path end. */
static size_t parts_end(const char *path, size_t n)
{
	size_t end = 0;

	while (n-- && path[end])
		end += path[end] == '/' ? 1 + strcspn(path + end + 1, "/")
					: strcspn(path + end, "/");
	return end;
}

static size_t n_parts(const char *path)
{
	size_t n = *path != '\0';

	for (; *path; path++)
		n += *path == '/';
	return n;
}

static enum etc_rule rule_by(const char *pattern, const char *path)
{
	size_t n = n_parts(pattern), m = n_parts(path);
	_cleanup_free_ char *of_pattern = xstrndup(pattern, parts_end(pattern, m));
	_cleanup_free_ char *of_path = xstrndup(path, parts_end(path, n));

	if (fnmatch(of_pattern, of_path, FNM_PATHNAME) != 0)
		return ETC_LEFT_OUT;
	return m < n ? ETC_ON_THE_WAY : ETC_SHOWN;
}

enum etc_rule etc_rule_of(const char *path, char *const *listed)
{
	enum etc_rule best = *path ? ETC_LEFT_OUT : ETC_ON_THE_WAY;

	for (size_t i = 0; i < N_OF(shown) && best != ETC_SHOWN; i++) {
		enum etc_rule rule = rule_by(shown[i], path);

		best = rule > best ? rule : best;
	}
	for (; listed && *listed && best != ETC_SHOWN; listed++) {
		if (!**listed || path_is_below(path, *listed))
			best = ETC_SHOWN;
		else if (path_is_below(*listed, path))
			best = ETC_ON_THE_WAY;
	}
	return best;
}

bool etc_is_private(const char *name, const char *bytes, size_t n)
{
	for (size_t i = 0; i < N_OF(private_names); i++) {
		if (fnmatch(private_names[i], name, FNM_CASEFOLD) == 0)
			return true;
	}
	return memmem(bytes, n, private_mark, strlen(private_mark)) != NULL;
}

/* What others may not read is not for other machines, whoever we are. */
static bool is_for_all(const struct stat *st)
{
	mode_t wanted = S_ISDIR(st->st_mode) ? S_IROTH | S_IXOTH : S_IROTH;

	return S_ISLNK(st->st_mode) || (st->st_mode & wanted) == wanted;
}

bool etc_may_show(const char *path)
{
	_cleanup_free_ char *at = xstrdup(path);
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct stat st;

	for (; !streq(at, "/etc") && !streq(at, "/"); *strrchr(at, '/') = '\0') {
		if (stat(at, &st) < 0 || !is_for_all(&st) || etc_is_private(path_base(at), "", 0))
			return false;
	}
	if (streq(path, "/etc") || stat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return !streq(path, "/etc");
	return read_file_at(AT_FDCWD, path, ETC_FILE_MAX, &b) == 0 &&
	       !etc_is_private(path_base(path), (const char *)b.data, b.len);
}

/* ---- one file ---- */

static int write_copy(int dir, const char *name, const struct buf *b, const struct timespec *mtime)
{
	static const char temp[] = TEMP_PREFIX "etc";
	_cleanup_close_ int fd = openat(dir, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	const struct timespec times[2] = {
		{.tv_nsec = UTIME_OMIT}, mtime ? *mtime : (struct timespec){.tv_nsec = UTIME_OMIT}};
	int r;

	if (fd < 0)
		return -errno;
	r = write_full(fd, b->data, b->len);
	if (r < 0)
		return r;
	if (fchmod(fd, 0644) < 0 || futimens(fd, times) < 0 || renameat(dir, temp, dir, name) < 0)
		return -errno;
	return 0;
}

static bool same_bytes(int dir, const char *name, const struct buf *b)
{
	_cleanup_buf_ struct buf old = BUF_INIT;
	struct stat st;

	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
	       read_file_at(dir, name, ETC_FILE_MAX, &old) == 0 && old.len == b->len &&
	       (b->len == 0 || memcmp(old.data, b->data, b->len) == 0);
}

static int put_copy(int dir, const char *name, const struct buf *b, const struct timespec *mtime)
{
	return same_bytes(dir, name, b) ? 0 : write_copy(dir, name, b, mtime);
}

static DIR *open_listing(int fd)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);

	if (!dir && copy >= 0)
		close(copy);
	return dir;
}

static void remove_copy(int to, const char *name)
{
	_cleanup_close_ int fd = -1;
	struct dirent *e;
	DIR *dir;

	if (unlinkat(to, name, 0) == 0 || errno != EISDIR)
		return;
	fd = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	dir = fd < 0 ? NULL : open_listing(fd);
	while (dir && (e = readdir(dir))) {
		/* As deep as it was made. */
		if (!streq(e->d_name, ".") && !streq(e->d_name, ".."))
			remove_copy(fd, e->d_name);
	}
	if (dir)
		(void)closedir(dir);
	(void)unlinkat(to, name, AT_REMOVEDIR); /* tried again at the next change */
}

/* *ret_out: it is left out. */
static int copy_file(struct etc *e, int from, int to, const char *name, const struct stat *st,
		     bool *ret_out)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	int r = ++e->n_files > ETC_FILES_MAX ? CONCC_E_TOOBIG
					     : read_file_at(from, name, ETC_FILE_MAX, &b);

	if (r < 0 && r != CONCC_E_TOOBIG && !err_is_fact(r))
		return r;
	*ret_out = r < 0 || etc_is_private(name, (const char *)b.data, b.len);
	return *ret_out ? 0 : put_copy(to, name, &b, &st->st_mtim);
}

static int copy_link(int from, int to, const char *name)
{
	char target[PROTO_PATH_MAX], old[PROTO_PATH_MAX];
	ssize_t n = readlinkat(from, name, target, sizeof(target) - 1);
	ssize_t n_old = readlinkat(to, name, old, sizeof(old) - 1);

	if (n < 0) /* it went away: its event comes */
		return errno == ENOENT || errno == EINVAL ? 0 : -errno;
	target[n] = '\0';
	if (n == n_old && memcmp(target, old, (size_t)n) == 0)
		return 0;
	if (unlinkat(to, name, 0) < 0 && errno != ENOENT)
		return -errno;
	return symlinkat(target, to, name) < 0 ? -errno : 0;
}

/* ---- all ---- */

static bool is_made(const char *path)
{
	return streq(path, "passwd") || streq(path, "group") || streq(path, "ld.so.preload");
}

static char *join(const char *dir, const char *name)
{
	return *dir ? path_join(dir, name) : xstrdup(name);
}

/* whole: all of the directory that it is in is shown, so that the table need not be asked. */
static bool is_wanted(const struct etc *e, const char *path, bool whole, const struct stat *st)
{
	enum etc_rule rule = whole ? ETC_SHOWN : etc_rule_of(path, e->listed);

	return rule != ETC_LEFT_OUT && (rule == ETC_SHOWN || !S_ISREG(st->st_mode)) &&
	       !is_made(path) && is_for_all(st) && !etc_is_private(path_base(path), "", 0);
}

static bool is_whole(const struct etc *e, const char *path)
{
	return etc_rule_of(path, e->listed) == ETC_SHOWN;
}

/* Removes from the copy what stands in the way of another type, and what has gone. */
static int drop_stale(const struct etc *e, int from, int to, const char *path)
{
	bool whole = is_whole(e, path);
	DIR *dir = open_listing(to);
	struct dirent *d;
	int r;

	if (!dir)
		return -errno;
	while ((errno = 0, d = readdir(dir))) {
		_cleanup_free_ char *sub = join(path, d->d_name);
		struct stat was, is = {0};

		if (streq(d->d_name, ".") || streq(d->d_name, "..") || is_made(sub) ||
		    fstatat(to, d->d_name, &was, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (fstatat(from, d->d_name, &is, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !is_wanted(e, sub, whole, &is) ||
		    (was.st_mode & S_IFMT) != (is.st_mode & S_IFMT))
			remove_copy(to, d->d_name);
	}
	r = -errno;
	(void)closedir(dir);
	return r;
}

static void watch_it(struct etc *e, int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (e->watch >= 0 &&
	    inotify_add_watch(e->watch, path,
			      IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE |
				      IN_ATTRIB | IN_ONLYDIR) < 0) {
		log_debug("can't watch a directory of /etc: %s: compared before each job",
			  err_text(-errno));
		e->loose = true;
	}
}

static int copy_dir(struct etc *e, int from, int to, const char *path);

/* The directory `from` of that name, in a copy of its own. */
static int copy_into(struct etc *e, int from, int to, const char *name, const char *path)
{
	_cleanup_close_ int to_sub = -1;

	(void)mkdirat(to, name, 0755); /* is there, or the next line fails */
	to_sub = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return to_sub < 0 ? -errno : copy_dir(e, from, to_sub, path);
}

static int copy_sub(struct etc *e, int from, int to, const char *name, const char *path,
		    bool *ret_out)
{
	_cleanup_close_ int sub = openat(from, name,
					 O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	bool was_partial = map_get_str(&e->partial, path);
	int r;

	*ret_out = sub < 0 || n_parts(path) > ETC_DEPTH_MAX;
	if (sub < 0 && !err_is_fact(-errno))
		return -errno;
	if (*ret_out)
		return 0;
	r = copy_into(e, sub, to, name, path);
	if (r < 0 || was_partial == (bool)map_get_str(&e->partial, path))
		return r;
	/* Who has listed it knows it by the other word: this is another directory. */
	remove_copy(to, name);
	return copy_into(e, sub, to, name, path);
}

static int copy_name(struct etc *e, int from, int to, const char *name, const char *path,
		     bool whole, bool *ret_out)
{
	struct stat st;
	int r = 0;

	if (is_made(path) || fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	*ret_out = !is_wanted(e, path, whole, &st);
	if (*ret_out)
		return 0;
	if (S_ISLNK(st.st_mode))
		return copy_link(from, to, name);
	if (S_ISREG(st.st_mode))
		r = copy_file(e, from, to, name, &st, ret_out);
	else if (S_ISDIR(st.st_mode))
		r = copy_sub(e, from, to, name, path, ret_out);
	if (*ret_out)
		remove_copy(to, name);
	return r;
}

/* The directory `from`, which is path in /etc, as the directory `to`. */
static int copy_dir(struct etc *e, int from, int to, const char *path)
{
	bool partial = !*path, whole = is_whole(e, path);
	struct dirent *d;
	DIR *dir;
	int r;

	watch_it(e, from); /* first, so that no change falls between */
	r = drop_stale(e, from, to, path);
	if (r < 0)
		return r;
	dir = open_listing(from);
	if (!dir)
		return -errno;
	while (r == 0 && (errno = 0, d = readdir(dir))) {
		_cleanup_free_ char *sub = join(path, d->d_name);
		bool out = false;

		if (streq(d->d_name, ".") || streq(d->d_name, ".."))
			continue;
		r = copy_name(e, from, to, d->d_name, sub, whole, &out);
		partial |= out;
	}
	if (r == 0)
		r = -errno; /* of readdir(3) */
	(void)closedir(dir);
	if (partial)
		(void)map_put_str(&e->partial, path, e);
	else
		(void)map_del_str(&e->partial, path);
	return r;
}

/* As it is, since git and others write down by it who made something; or what can't be told. */
static void put_user(struct buf *users, uid_t uid, gid_t gid, const char *home)
{
	const struct passwd *pw = getpwuid(uid);
	const char *unnamed = uid ? "user" : "root";

	buf_putf(users, "%s:x:%u:%u:%s:%s:%s\n", pw ? pw->pw_name : unnamed, (unsigned)uid,
		 (unsigned)gid, pw ? pw->pw_gecos : "", home, pw ? pw->pw_shell : "/bin/sh");
}

/* The user database: root, the user, nobody. */
static int write_users(int to)
{
	_cleanup_buf_ struct buf users = BUF_INIT, groups = BUF_INIT;
	_cleanup_free_ char *home = path_expand_home("~");
	const struct group *gr;
	uid_t uid = getuid();
	gid_t gid = getgid();
	int r;

	if (uid)
		buf_putf(&users, "root:x:0:0:root:/root:/bin/sh\n");
	put_user(&users, uid, gid, home);
	buf_putf(&users, "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
	buf_putf(&groups, "root:x:0:\n");
	gr = gid ? getgrgid(gid) : NULL;
	if (gid)
		buf_putf(&groups, "%s:x:%u:\n", gr ? gr->gr_name : "user", (unsigned)gid);
	buf_putf(&groups, "nogroup:x:65534:\n");
	r = put_copy(to, "passwd", &users, NULL);
	return r < 0 ? r : put_copy(to, "group", &groups, NULL);
}

/* The client's may be empty or gone. */
static int write_preload(int from, int to)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	int r = read_file_at(from, "ld.so.preload", ETC_FILE_MAX, &b);

	if (r < 0 && !err_is_fact(r))
		return r;
	return put_copy(to, "ld.so.preload", &b, NULL);
}

static int copy_all(struct etc *e)
{
	_cleanup_close_ int from = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int to = open(e->copy, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int r;

	if (from < 0 || to < 0)
		return -errno;
	e->n_files = 0;
	r = copy_dir(e, from, to, "");
	if (r == 0)
		r = write_users(to);
	return r < 0 ? r : write_preload(from, to);
}

/* ---- for the owner ---- */

static bool has_changed(const struct etc *e)
{
	char events[4096];
	bool changed = e->watch < 0 || e->loose || e->old;

	while (e->watch >= 0 && read(e->watch, events, sizeof(events)) > 0)
		changed = true;
	return changed;
}

static int make_it(struct etc *e, struct errmsg *msg)
{
	int r;

	e->loose = false;
	r = copy_all(e);
	e->old = r < 0;
	return r < 0 ? errmsg_set(msg, r, "can't copy files of /etc to %s: %s", e->copy,
				  err_text(r))
		     : 0;
}

int etc_new(const char *dir, int dir_fd, char *const *listed, struct etc **ret, struct errmsg *msg)
{
	struct etc *e = xcalloc(1, sizeof(*e));
	int r = 0;

	e->copy = path_join(dir, "etc");
	e->watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	for (; listed && *listed; listed++) {
		const char *path = path_below(*listed, "/etc");

		if (path)
			strv_push(&e->listed, xstrdup(path));
	}
	if (mkdirat(dir_fd, "etc", 0755) < 0 && errno != EEXIST)
		r = errmsg_set(msg, -errno, "can't make %s: %s", e->copy, err_text(-errno));
	if (r == 0)
		r = make_it(e, msg);
	if (r < 0)
		etc_free(e);
	else
		*ret = e;
	return r;
}

void etc_free(struct etc *e)
{
	if (!e)
		return;
	if (e->watch >= 0)
		close(e->watch);
	map_release(&e->partial);
	strv_free(e->listed);
	free(e->copy);
	free(e);
}

int etc_refresh(struct etc *e, struct errmsg *msg)
{
	return has_changed(e) ? make_it(e, msg) : 0;
}

const char *etc_copy(const struct etc *e)
{
	return e->copy;
}

bool etc_shows(const struct etc *e, const char *path)
{
	_cleanup_free_ char *copy = path_join(e->copy, path_below(path, "/etc"));
	struct stat st;

	return lstat(copy, &st) == 0;
}

bool etc_is_partial(const struct etc *e, const char *path)
{
	return map_get_str(&e->partial, path_below(path, "/etc"));
}
