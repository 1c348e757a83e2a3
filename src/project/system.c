/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * This machine's system, as jobs of workers with root = client see it: the
 * toolchain trees, the links that lead into them from the root directory, and
 * of /etc a few files.
 *
 * What is shown of /etc is a copy in the runtime directory: so nothing else can
 * be asked for, and the user database can be one that names nobody but the
 * user.  The copy is made anew before a job when inotify tells of a change.
 */
#include "server.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/str.h"

#define ETC_FILE_MAX  (4 * 1024 * 1024) /* ld.so.cache of a large system is a tenth of it */
#define ETC_DEPTH_MAX 8			/* Java's has four levels */

struct system {
	char **wanted; /* trees, whether they are there or not */
	char **trees;  /* those that are served: grows only, in the order in which peers are told */
	char **links;  /* of the root directory: name, target, name... */
	char *etc;     /* the copy */
	int etc_watch; /* inotify, or -1: then all is compared before each job */
	bool etc_loose; /* not all of it is watched: the same */
	bool etc_old;	/* the copy is not what /etc is: no job may see it */
};

/* ---- /etc ---- */

/*
 * What compilers, the C library and ncurses read, and nothing that says who else
 * uses this machine.  ld.so.preload is looked up by every program: there is
 * always one, so that the answer is remembered.
 */
static const char *const etc_files[] = {
	"alternatives", "debian_version", "gai.conf",	"host.conf",	"hostname",
	"hosts",	"ld.so.cache",	  "ld.so.conf", "ld.so.conf.d", "ld.so.preload",
	"locale.alias", "locale.conf",	  "localtime",	"lsb-release",	"nsswitch.conf",
	"os-release",	"protocols",	  "rpc",	"services",	"shells",
	"selinux",	"system-release", "terminfo",	"timezone",
};
/* Those of language runtimes begin like this. */
static const char *const etc_prefixes[] = {"java", "perl", "python3"};

static bool is_shown(const char *name)
{
	for (size_t i = 0; i < sizeof(etc_files) / sizeof(*etc_files); i++) {
		if (streq(name, etc_files[i]))
			return true;
	}
	for (size_t i = 0; i < sizeof(etc_prefixes) / sizeof(*etc_prefixes); i++) {
		if (str_starts(name, etc_prefixes[i]))
			return true;
	}
	return false;
}

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

static int copy_file(int from, int to, const char *name, const struct stat *st)
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	int r = read_file_at(from, name, ETC_FILE_MAX, &b);

	/* What the user can't read, no job of the user's can. */
	if (r == -EACCES || r == -ENOENT) {
		remove_copy(to, name);
		return 0;
	}
	return r < 0 ? r : put_copy(to, name, &b, &st->st_mtim);
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

static bool is_made(const char *name)
{
	return streq(name, "passwd") || streq(name, "group") || streq(name, "ld.so.preload");
}

/* Removes from the copy what stands in the way of another type, and what has gone. */
static int drop_stale(int from, int to, bool top)
{
	DIR *dir = open_listing(to);
	struct dirent *e;
	int r;

	if (!dir)
		return -errno;
	while ((errno = 0, e = readdir(dir))) {
		struct stat was, is = {0};
		const char *name = e->d_name;

		if (streq(name, ".") || streq(name, "..") || (top && is_made(name)) ||
		    fstatat(to, name, &was, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (!top || is_shown(name))
			(void)fstatat(from, name, &is, AT_SYMLINK_NOFOLLOW); /* else no type */
		if ((was.st_mode & S_IFMT) != (is.st_mode & S_IFMT))
			remove_copy(to, name);
	}
	r = -errno;
	(void)closedir(dir);
	return r;
}

static void watch_etc(struct system *y, int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (y->etc_watch >= 0 &&
	    inotify_add_watch(y->etc_watch, path,
			      IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE |
				      IN_ATTRIB | IN_ONLYDIR) < 0) {
		log_debug("can't watch a directory of /etc: %s: compared before each job",
			  err_text(-errno));
		y->etc_loose = true;
	}
}

/* The directory `from` as the directory `to`; of /etc itself (depth 0) what is shown. */
static int copy_dir(struct system *y, int from, int to, unsigned depth)
{
	struct dirent *e;
	DIR *dir;
	int r;

	watch_etc(y, from); /* first, so that no change falls between */
	r = drop_stale(from, to, depth == 0);
	if (r < 0)
		return r;
	dir = open_listing(from);
	if (!dir)
		return -errno;
	while (r == 0 && (errno = 0, e = readdir(dir))) {
		_cleanup_close_ int from_sub = -1, to_sub = -1;
		const char *name = e->d_name;
		struct stat st;

		if (streq(name, ".") || streq(name, "..") || (depth == 0 && !is_shown(name)) ||
		    fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISLNK(st.st_mode))
			r = copy_link(from, to, name);
		else if (S_ISREG(st.st_mode))
			r = copy_file(from, to, name, &st);
		if (!S_ISDIR(st.st_mode) || depth >= ETC_DEPTH_MAX)
			continue;
		from_sub = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (from_sub < 0 && !err_is_fact(-errno))
			r = -errno;
		else if (from_sub < 0) /* what the user may not read, no job of the user's can */
			remove_copy(to, name);
		if (from_sub < 0)
			continue;
		(void)mkdirat(to, name, 0755); /* is there, or the next line fails */
		to_sub = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		r = to_sub < 0 ? -errno : copy_dir(y, from_sub, to_sub, depth + 1);
	}
	if (r == 0)
		r = -errno; /* of readdir(3) */
	(void)closedir(dir);
	return r;
}

/* The user database: root, the user, nobody. */
static int write_users(int to)
{
	_cleanup_buf_ struct buf users = BUF_INIT, groups = BUF_INIT;
	_cleanup_free_ char *home = path_expand_home("~");
	const struct passwd *pw;
	const struct group *gr;
	uid_t uid = getuid();
	gid_t gid = getgid();
	int r;

	buf_putf(&users, "root:x:0:0:root:%s:/bin/sh\n", uid ? "/root" : home);
	pw = uid ? getpwuid(uid) : NULL;
	if (uid)
		buf_putf(&users, "%s:x:%u:%u::%s:/bin/sh\n", pw ? pw->pw_name : "user",
			 (unsigned)uid, (unsigned)gid, home);
	buf_putf(&users, "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n");
	buf_putf(&groups, "root:x:0:\n");
	gr = gid ? getgrgid(gid) : NULL;
	if (gid)
		buf_putf(&groups, "%s:x:%u:\n", gr ? gr->gr_name : "user", (unsigned)gid);
	buf_putf(&groups, "nogroup:x:65534:\n");
	r = put_copy(to, "passwd", &users, NULL);
	return r < 0 ? r : put_copy(to, "group", &groups, NULL);
}

static int copy_etc(struct system *y)
{
	_cleanup_close_ int from = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int to = open(y->etc, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct buf none = BUF_INIT;
	int r;

	if (from < 0 || to < 0)
		return -errno;
	r = copy_dir(y, from, to, 0);
	if (r == 0)
		r = write_users(to);
	/* The client's may be empty or gone. */
	if (r == 0 && faccessat(from, "ld.so.preload", R_OK, 0) < 0)
		r = err_is_fact(-errno) ? put_copy(to, "ld.so.preload", &none, NULL) : -errno;
	return r;
}

static bool etc_changed(const struct system *y)
{
	char events[4096];
	bool changed = y->etc_watch < 0 || y->etc_loose || y->etc_old;

	while (y->etc_watch >= 0 && read(y->etc_watch, events, sizeof(events)) > 0)
		changed = true;
	return changed;
}

static int set_up_etc(struct server *s, struct errmsg *msg)
{
	struct system *y = s->system;
	int r;

	y->etc = path_join(s->dir, "etc");
	y->etc_watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (mkdirat(s->dir_fd, "etc", 0700) < 0 && errno != EEXIST)
		return errmsg_set(msg, -errno, "can't make %s: %s", y->etc, err_text(-errno));
	r = copy_etc(y);
	if (r < 0)
		return errmsg_set(msg, r, "can't copy files of /etc to %s: %s", y->etc,
				  err_text(r));
	r = tree_serve_part(s->tree, "/etc", y->etc, msg);
	if (r == 0)
		strv_push(&y->trees, xstrdup("/etc"));
	return r;
}

/* ---- trees ---- */

static bool is_in(char *const *dirs, const char *path)
{
	for (; dirs && *dirs; dirs++)
		if (path_is_below(path, *dirs))
			return true;
	return false;
}

static bool is_real_dir(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static void want(struct system *y, const char *path)
{
	_cleanup_free_ char *full = path_expand_home(path);
	_cleanup_free_ char *clean = path_clean("/", full);
	_cleanup_free_ char *secret = path_secret(clean);

	if (secret)
		log_warn("workers don't see %s, since %s would be in it", clean, secret);
	else if (!is_in(y->wanted, clean))
		strv_push(&y->wanted, steal_ptr(&clean));
}

static void want_all(struct system *y, char *const *listed)
{
	static const char *const usual[] = {"/usr",
					    "/bin",
					    "/sbin",
					    "/lib",
					    "/lib32",
					    "/lib64",
					    "/libx32",
					    "/opt",
					    "/nix/store",
					    "/gnu/store",
					    "~/.rustup",
					    "~/.cargo/bin",
					    "~/.cargo/registry",
					    "~/.cargo/git",
					    "~/go/pkg/mod",
					    "~/.local/lib"};

	for (size_t i = 0; i < sizeof(usual) / sizeof(*usual); i++) {
		/* Of the root directory only what is no link: those are told as such. */
		if (*usual[i] == '~' || is_real_dir(usual[i]))
			want(y, usual[i]);
	}
	for (; listed && *listed; listed++)
		want(y, *listed);
}

const char *system_tree_of(const struct server *s, const char *path)
{
	for (char **w = s->system->wanted; w && *w; w++) {
		if (path_is_below(path, *w))
			return *w;
	}
	return NULL;
}

/* Serves what is there by now: a first `cargo fetch` makes its registry in mid-session. */
static void serve_trees(struct server *s)
{
	struct system *y = s->system;

	for (char **w = y->wanted; w && *w; w++) {
		struct errmsg msg = {0};

		if (is_in(y->trees, *w) || access(*w, F_OK) < 0)
			continue;
		if (strv_len(y->trees) >= PROTO_TREES_MAX || strlen(*w) >= PROTO_PATH_MAX)
			continue;
		if (tree_serve(s->tree, *w, false, &msg) == 0)
			strv_push(&y->trees, xstrdup(*w));
		else
			log_debug("%s", msg.text);
	}
}

/* Links of the root directory into trees, as /bin is one where /usr holds all. */
static void find_links(struct system *y)
{
	DIR *dir = opendir("/");
	struct dirent *e;

	while (dir && strv_len(y->links) + 2 <= PROTO_LINKS_MAX && (e = readdir(dir))) {
		_cleanup_free_ char *path = path_join("/", e->d_name);
		_cleanup_free_ char *real = NULL;
		char target[PROTO_PATH_MAX];
		ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);

		if (n <= 0)
			continue;
		target[n] = '\0';
		real = realpath(path, NULL);
		if (!real || !is_in(y->trees, real))
			continue;
		strv_push(&y->links, xstrdup(e->d_name));
		strv_push(&y->links, xstrdup(target));
	}
	if (dir)
		(void)closedir(dir);
}

/* ---- for the server ---- */

static bool any_wants_it(const struct server *s)
{
	for (size_t i = 0; i < s->conf->n_workers; i++) {
		if (s->conf->workers[i].root == ROOT_CLIENT)
			return true;
	}
	return false;
}

int system_set_up(struct server *s, struct errmsg *msg)
{
	s->system = xcalloc(1, sizeof(*s->system));
	s->system->etc_watch = -1;
	want_all(s->system, s->conf->toolchains);
	if (!any_wants_it(s))
		return 0;
	serve_trees(s);
	find_links(s->system);
	return set_up_etc(s, msg);
}

void system_free(struct system *y)
{
	if (!y)
		return;
	if (y->etc_watch >= 0)
		close(y->etc_watch);
	strv_free(y->wanted);
	strv_free(y->trees);
	strv_free(y->links);
	free(y->etc);
	free(y);
}

static void tell_trees(struct peer *p)
{
	char **trees = p->server->system->trees;
	size_t n = strv_len(trees);

	for (; p->n_trees < n; p->n_trees++) {
		_cleanup_buf_ struct buf b = BUF_INIT;

		msg_serve_encode(&b, trees[p->n_trees], SERVE_TREE);
		link_send_buf(p->link, MSG_SERVE, LINK_PRIO, &b);
		if (p->state == PEER_UP)
			working_set_push(p, trees[p->n_trees]);
	}
}

int system_refresh(struct peer *p, struct errmsg *msg)
{
	struct system *y = p->server->system;
	int r;

	serve_trees(p->server);
	tell_trees(p);
	if (!etc_changed(y))
		return 0;
	y->etc_loose = false;
	r = copy_etc(y);
	y->etc_old = r < 0;
	return r < 0 ? errmsg_set(msg, r, "can't copy files of /etc to %s: %s", y->etc, err_text(r))
		     : 0;
}

void system_greet(struct peer *p)
{
	tell_trees(p);
}

void system_push(struct peer *p)
{
	for (char **t = p->server->system->trees; *t; t++)
		working_set_push(p, *t);
}

char *const *system_links(const struct server *s)
{
	return s->system->links;
}

/* As jobs get there: through the links of the root directory. */
static char *follow_link(const struct system *y, const char *path)
{
	size_t n = strcspn(path + 1, "/");

	for (char **l = y->links; l && *l; l += 2) {
		_cleanup_free_ char *target = NULL, *full = NULL;

		if (strlen(l[0]) != n || strncmp(path + 1, l[0], n) != 0)
			continue;
		target = path_clean("/", l[1]);
		full = path_join(target, path + 1 + n);
		return path_clean("/", full);
	}
	return path_clean("/", path);
}

bool system_shows(const struct server *s, const char *path)
{
	_cleanup_free_ char *there = follow_link(s->system, path), *copy = NULL;
	const char *root = tree_root_of(s->tree, there, NULL);
	struct stat st;

	if (!root || !streq(root, "/etc"))
		return root || path_is_below(there, "/dev") || path_is_below(there, "/proc");
	copy = path_join(s->system->etc, path_below(there, "/etc"));
	return lstat(copy, &st) == 0;
}
