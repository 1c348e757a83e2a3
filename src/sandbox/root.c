/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "root.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "concc/cleanup.h"
#include "concc/io.h"
#include "concc/log.h"
#include "concc/mirror.h"
#include "concc/sandbox.h"
#include "concc/str.h"
#include "mnt.h"
#include "mountpoint.h"

/* What programs come from.  All else in a worker's root, by whatever name, holds other people's
 * things: homes, stores, data.  CONCC_WORKER_SHOW is for what is missing here. */
static const char *const system_dirs[] = {"bin",    "etc", "gnu", "lib",  "lib32", "lib64",
					  "libx32", "nix", "opt", "sbin", "usr"};

/* Of /var/lib, where packages keep what compilers and the like read.  What daemons keep is beside
 * that: homes of build users, databases, and sockets, which a read-only mount lets answer. */
static const char *const var_lib[] = {
	"R",	    "alternatives",	"aspell",     "binutils", "dictionaries-common",
	"dpkg",	    "emacsen-common",	"fonts",      "gcc",	  "gems",
	"ghc",	    "haskell-packages", "ispell",     "java",	  "mecab",
	"ocaml",    "pacman",		"python",     "python3",  "rpm",
	"ruby",	    "sgml-base",	"tex-common", "texlive",  "texmf",
	"xml-core",
};

/* Of these a job finds an empty directory. */
static const char *const emptied[] = {"boot", "dev", "home", "lost+found", "media", "mnt", "proc",
				      "root", "run", "srv",  "sys",	   "tmp",   "var"};

/* In what is shown, what answers: a daemon's sockets. */
static const char *const answering[] = {"nix/var/nix/daemon-socket", "gnu/var/guix/daemon-socket"};

/* With the client's system: what jobs have of their own nevertheless. */
static const char *const always_own[] = {"dev", "proc", "run", "sys", "tmp"};

static bool is_one_of(const char *name, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (streq(name, names[i]))
			return true;
	return false;
}

/*
 * Never the client's: the worker's system, and what every job has of its own.
 * What is missing there must be the worker's to install.
 */
static bool is_system(const char *name)
{
	return is_one_of(name, system_dirs, N_OF(system_dirs)) ||
	       is_one_of(name, always_own, N_OF(always_own)) || streq(name, "var");
}

bool root_is_system_path(const char *path)
{
	_cleanup_free_ char *top = xstrndup(path + 1, strcspn(path + 1, "/"));

	return is_one_of(top, system_dirs, N_OF(system_dirs)) && !streq(top, "etc");
}

char **root_shown(void)
{
	const char *list = getenv(ROOT_SHOW_ENV);
	_cleanup_free_ char *copy = xstrdup(list ? list : "");
	char **paths = xcalloc(1, sizeof(*paths));
	char *save = NULL;

	for (char *word = strtok_r(copy, ":", &save); word; word = strtok_r(NULL, ":", &save)) {
		if (*word == '/')
			strv_push(&paths, path_clean("/", word));
		else
			log_warn("ignoring %s of " ROOT_SHOW_ENV ": not an absolute path", word);
	}
	return paths;
}

static bool is_link(const char *name, char *const *links)
{
	for (; links && *links; links += 2)
		if (streq(name, links[0]))
			return true;
	return false;
}

/* The client's system: all that it has, for what its trees don't cover. */
static char **all_but_own(char *const *top, char *const *links)
{
	char **names = xcalloc(1, sizeof(*names));

	strv_push(&names, xstrdup("var")); /* for /var/tmp, whether the client has one or not */
	for (; top && *top; top++) {
		if (!is_one_of(*top, always_own, N_OF(always_own)) && !is_link(*top, links) &&
		    !streq(*top, "var"))
			strv_push(&names, xstrdup(*top));
	}
	return names;
}

char **root_mirrored(char *const *top, char *const *links, bool client)
{
	_cleanup_strv_ char **shown = root_shown();
	char **names;

	if (client)
		return all_but_own(top, links);
	names = xcalloc(1, sizeof(*names));
	for (; top && *top; top++) {
		bool ours = is_system(*top);

		/* A whole directory that is shown is like one of the system. */
		for (char **s = shown; *s; s++)
			ours |= streq(*s + 1, *top);
		if (!ours)
			strv_push(&names, xstrdup(*top));
	}
	return names;
}

int root_name_places(struct mirror *m, char *const *mirrored)
{
	static const char *const in_var[] = {"/var/tmp", "/var/run", "/var/lock"};
	int r = 0;

	for (; *mirrored && r == 0; mirrored++) {
		_cleanup_free_ char *path = path_join("/", *mirrored);

		r = mirror_outside(m, path, true);
	}
	for (size_t i = 0; i < N_OF(in_var) && r == 0; i++)
		r = mirror_outside(m, in_var[i], true);
	return r;
}

/* ---- building ---- */

static int show_top(int base, char *const *mirrored, struct errmsg *msg)
{
	_cleanup_close_ int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int r = root < 0 ? -errno : 0;

	for (size_t i = 0; r == 0 && i < N_OF(system_dirs); i++) {
		const char *name = system_dirs[i];

		if (is_one_of(name, (const char *const *)mirrored, strv_len(mirrored)))
			continue;
		r = mnt_show(root, name, base);
		if (r == -ENOENT)
			r = 0;
		if (r < 0)
			errmsg_set(msg, r, "can't show /%s to jobs: %s", name, err_text(r));
	}
	return r;
}

static int make_empty(int base, struct errmsg *msg)
{
	for (size_t i = 0; i < N_OF(emptied); i++)
		if (mkdirat(base, emptied[i], 0755) < 0)
			return errmsg_set(msg, -errno, "can't make /%s of the jobs' root: %s",
					  emptied[i], err_text(-errno));
	return 0;
}

static int make_var(int base, struct errmsg *msg)
{
	_cleanup_close_ int from = open("/var/lib", O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int var = openat(base, "var", O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int lib = -1;
	int r = 0;

	if (var < 0 || mkdirat(var, "tmp", 0755) < 0 || mkdirat(var, "lib", 0755) < 0)
		return errmsg_set(msg, -errno, "can't make /var of the jobs' root: %s",
				  err_text(-errno));
	lib = openat(var, "lib", O_PATH | O_DIRECTORY | O_CLOEXEC);
	(void)symlinkat("/run", var, "run");	   /* conveniences: */
	(void)symlinkat("/run/lock", var, "lock"); /* jobs hardly use them */
	for (size_t i = 0; from >= 0 && i < N_OF(var_lib); i++) {
		r = mnt_show(from, var_lib[i], lib);
		if (r < 0 && r != -ENOENT)
			return errmsg_set(msg, r, "can't show /var/lib/%s to jobs: %s", var_lib[i],
					  err_text(r));
	}
	return 0;
}

/* Covers a directory of what is shown, if it is there. */
static int cover_shown(int base, const char *path)
{
	_cleanup_close_ int fd = openat(base, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char at[64];

	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? 0 : -errno;
	snprintf(at, sizeof(at), "/proc/self/fd/%d", fd);
	return mount("concc-root", at, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0 ? -errno : 0;
}

/* The login's own home, where it is in what is shown (below /opt, say): not one of a system
 * account, which is somebody else's directory. */
static int cover_home(int base)
{
	_cleanup_free_ char *home = path_expand_home("~"), *real = realpath(home, NULL);
	struct stat st;

	if (!real || !strchr(real + 1, '/') || stat(real, &st) < 0 || st.st_uid != geteuid())
		return 0;
	return cover_shown(base, real + 1);
}

static int cover_private(int base, struct errmsg *msg)
{
	int r = cover_home(base);

	if (r < 0)
		return errmsg_set(msg, r, "can't hide the login's home from jobs: %s", err_text(r));
	for (size_t i = 0; i < N_OF(answering); i++) {
		r = cover_shown(base, answering[i]);
		if (r < 0)
			return errmsg_set(msg, r, "can't hide /%s from jobs: %s", answering[i],
					  err_text(r));
	}
	return 0;
}

static int make_dev(int base, struct errmsg *msg)
{
	static const char *const nodes[] = {"null", "zero", "full", "random", "urandom", "tty"};
	static const char *const links[][2] = {
		{"/proc/self/fd", "fd"},
		{"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"},
		{"/tmp", "shm"}, /* each job's own, and looked at when it ends */
	};
	_cleanup_close_ int from = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int dev = openat(base, "dev", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (from < 0 || dev < 0)
		return errmsg_set(msg, -errno, "can't open /dev: %s", err_text(-errno));
	for (size_t i = 0; i < N_OF(nodes); i++) {
		int r = mnt_show(from, nodes[i], dev);

		if (r < 0 && i == 0)
			return errmsg_set(msg, r, "can't show /dev/null to jobs: %s", err_text(r));
		if (r < 0)
			log_warn("jobs get no /dev/%s: %s", nodes[i], err_text(r));
	}
	for (size_t i = 0; i < N_OF(links); i++)
		if (symlinkat(links[i][0], dev, links[i][1]) < 0)
			return errmsg_set(msg, -errno, "can't make /dev/%s: %s", links[i][1],
					  err_text(-errno));
	return 0;
}

static int make_proc(int base, struct errmsg *msg)
{
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d/proc", base);
	if (mount("proc", path, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0)
		return 0;
	/* Refused in containers that hide parts of their /proc: theirs will do. */
	log_info("no /proc of our own (%s): jobs see this container's", err_text(-errno));
	r = mnt_bind_at(AT_FDCWD, "/proc", true, base, "proc");
	if (r < 0)
		return errmsg_set(msg, r, "can't mount /proc for jobs: %s", err_text(r));
	return 0;
}

static void show_extra(int base)
{
	_cleanup_strv_ char **shown = root_shown();

	for (char **s = shown; *s; s++) {
		int r = (*s)[1] ? mnt_make_dirs(base, *s + 1) : -EINVAL;

		/* Seen already when a top-level directory that holds it is, or there is a place
		 * for it in the mirror. */
		if (r == 0 || r == -EROFS)
			r = mnt_bind_at(AT_FDCWD, *s, true, base, *s + 1);
		if (r < 0)
			log_warn("ignoring %s of " ROOT_SHOW_ENV ": %s", *s, err_text(r));
	}
}

/* What the client has besides a system; the worker's own of that name stays out of sight. */
static int show_mirrored(int mirror, int base, char *const *names, struct errmsg *msg)
{
	_cleanup_close_ int from = -1;

	if (!*names)
		return 0;
	from = openat(mirror, MIRROR_OUTSIDE, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (from < 0)
		return errmsg_set(msg, -errno, "can't open the mirror's " MIRROR_OUTSIDE ": %s",
				  err_text(-errno));
	for (; *names; names++) {
		int r = mkdirat(base, *names, 0755) < 0 && errno != EEXIST ? -errno : 0;

		if (r == 0)
			r = mnt_bind_at(from, *names, false, base, *names);
		if (r < 0)
			return errmsg_set(msg, r, "can't show the client's /%s to jobs: %s", *names,
					  err_text(r));
	}
	return 0;
}

/*
 * Docker lets a container with CAP_SYS_ADMIN mount, but not call pivot_root(2) (its default seccomp
 * profile).  This is what switch_root(8) does: the new root covers the old one as a whole, so that
 * no path leads there, ".." neither (choose_mountpoint() in the kernel's fs/namei.c).
 */
static int move_over(void)
{
	return mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ? -errno : 0;
}

/* The new root is the working directory. */
static int enter_root(void)
{
	/* With "." for both, the old root ends up on top of the new one, ready to be detached. */
	if (syscall(SYS_pivot_root, ".", ".") == 0)
		return umount2(".", MNT_DETACH) < 0 ? -errno : 0;
	/* Only when nothing has happened yet: "." is the old root from then on. */
	return errno == EPERM ? move_over() : -errno;
}

/* From here on / is the new root, read-only but for the clone kept in the first tmpfs. */
static int change_root(struct root *r, int base, struct errmsg *msg)
{
	int fd, err = fchdir(base) < 0 ? -errno : enter_root();

	if (err == 0 && chdir("/") < 0)
		err = -errno;
	if (err < 0)
		return errmsg_set(msg, err, "can't enter the jobs' root: %s", err_text(err));
	fd = mnt_clone(base);
	if (fd < 0)
		return errmsg_set(msg, fd, "can't clone the jobs' root: %s", err_text(fd));
	err = root_add_tmpfs(r, "/", fd);
	if (err == 0)
		err = mnt_seal("/");
	if (err < 0)
		return errmsg_set(msg, err, "can't make the jobs' root read-only: %s",
				  err_text(err));
	return 0;
}

static int mount_base(const char *mirror, int *ret_base, struct errmsg *msg)
{
	_cleanup_free_ char *parent = xstrdup(mirror);
	char *slash = strrchr(parent, '/');
	int fd;

	if (!slash || slash == parent)
		return errmsg_set(msg, -EINVAL, "%s must not be in the root directory", mirror);
	*slash = '\0';
	if (mount("concc-root", parent, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0)
		return errmsg_set(msg, -errno, "can't mount a tmpfs on %s: %s", parent,
				  err_text(-errno));
	fd = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errmsg_set(msg, -errno, "can't open %s: %s", parent, err_text(-errno));
	*ret_base = fd;
	return 0;
}

static int bind_for_jobs(int from, int base, const char *place, struct errmsg *msg)
{
	int r = from < 0 ? 0 : mnt_bind_at(from, "", false, base, place + 1);

	if (r < 0)
		return errmsg_set(msg, r, "can't bind %s of the jobs' root: %s", place,
				  err_text(r));
	return 0;
}

/* For what stands in for the client's in a job.  A mirror that is no mount has none. */
static int bind_outside(int mirror, int base, struct errmsg *msg)
{
	_cleanup_close_ int fd = openat(mirror, MIRROR_OUTSIDE, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 && errno != ENOENT)
		return errmsg_set(msg, -errno, "can't open the mirror's " MIRROR_OUTSIDE ": %s",
				  err_text(-errno));
	return bind_for_jobs(fd, base, ROOT_OUTSIDE, msg);
}

/* What a job seeks in vain in its /tmp is told by that.  The same. */
static int bind_lower(int mirror, int scratch, int base, struct errmsg *msg)
{
	const char *place = scratch < 0 ? ROOT_SCRATCH : ROOT_LOWER;
	_cleanup_close_ int tmp = openat(mirror, MIRROR_OUTSIDE "/" MIRROR_TMP,
					 O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (tmp < 0 && errno == ENOENT)
		return 0;
	if (tmp < 0 || (scratch >= 0 && mkdirat(scratch, path_base(ROOT_LOWER), 0700) < 0))
		return errmsg_set(msg, -errno, "can't make %s of the jobs' root: %s", place,
				  err_text(-errno));
	return bind_for_jobs(tmp, base, place, msg);
}

/* The one thing that jobs' inits write to, before they hide it. */
static int open_scratch(struct errmsg *msg)
{
	_cleanup_close_ int fd = open(ROOT_SCRATCH, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int r = fd < 0 ? -errno : mnt_set_readonly(fd, false);

	if (r < 0)
		return errmsg_set(msg, r, "can't make the scratch directory writable: %s",
				  err_text(r));
	return 0;
}

/*
 * Writable for the kernel only, so that it asks the mirror, which tells and refuses
 * (mirror.h); nothing else would.
 */
static int open_place(const char *path)
{
	_cleanup_close_ int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct statfs fs;

	if (fd < 0 || fstatfs(fd, &fs) < 0)
		return -errno;
	return fs.f_type == FUSE_SUPER_MAGIC ? mnt_set_readonly(fd, false) : 0;
}

static int open_places(char *const *mirrored, struct errmsg *msg)
{
	int r;

	for (; *mirrored; mirrored++) {
		_cleanup_free_ char *path = path_join("/", *mirrored);

		r = open_place(path);
		if (r < 0)
			return errmsg_set(msg, r, "can't open the client's %s for jobs: %s", path,
					  err_text(r));
	}
	r = open_place(ROOT_OUTSIDE);
	return r == -ENOENT || r >= 0
		       ? 0
		       : errmsg_set(msg, r, "can't open " ROOT_OUTSIDE ": %s", err_text(r));
}

/* The worker's own system. */
static int show_worker(int base, int mirror, const struct root_config *c, struct errmsg *msg)
{
	int err = make_empty(base, msg);

	if (err == 0)
		err = show_top(base, c->mirrored, msg);
	if (err == 0)
		err = show_mirrored(mirror, base, c->mirrored, msg);
	if (err == 0)
		err = make_var(base, msg);
	if (err == 0)
		err = cover_private(base, msg);
	return err;
}

static int make_links(int base, char *const *links, struct errmsg *msg)
{
	for (; links && *links; links += 2)
		if (symlinkat(links[1], base, links[0]) < 0)
			return errmsg_set(msg, -errno, "can't make the client's /%s: %s", links[0],
					  err_text(-errno));
	return 0;
}

/* What programs look for in /var/run is no news, as in /run itself. */
static int show_run(int base, struct errmsg *msg)
{
	int err = mnt_bind_at(base, "run", false, base, "var/run");

	if (err == 0)
		err = mnt_bind_at(base, "run/lock", false, base, "var/lock");
	if (err < 0)
		errmsg_set(msg, err, "can't make /var/run of the jobs' root: %s", err_text(err));
	return err;
}

/* Of the client's system all but its trees, which come with the first job. */
static int show_client(int base, int mirror, const struct root_config *c, struct errmsg *msg)
{
	int err = 0;

	for (size_t i = 0; i < N_OF(always_own); i++)
		if (mkdirat(base, always_own[i], 0755) < 0)
			err = -errno;
	if (mkdirat(base, "run/lock", 0755) < 0)
		err = -errno;
	if (err < 0)
		return errmsg_set(msg, err, "can't make the jobs' root: %s", err_text(err));
	err = make_links(base, c->links, msg);
	if (err == 0)
		err = show_mirrored(mirror, base, c->mirrored, msg);
	if (err == 0)
		err = show_run(base, msg);
	return err;
}

int root_build(struct root *r, const struct root_config *c, struct errmsg *msg)
{
	/* Opened before the base covers them. */
	_cleanup_close_ int mirror_fd = open(c->mirror, O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int scratch_fd = c->scratch ? open(c->scratch,
							   O_PATH | O_DIRECTORY | O_CLOEXEC)
						    : -1;
	_cleanup_close_ int base = -1;
	int err;

	if (mirror_fd < 0)
		return errmsg_set(msg, -errno, "can't open %s: %s", c->mirror, err_text(-errno));
	if (c->scratch && scratch_fd < 0)
		return errmsg_set(msg, -errno, "can't open %s: %s", c->scratch, err_text(-errno));
	err = mount_base(c->mirror, &base, msg);
	if (err < 0)
		return err;
	err = c->client ? show_client(base, mirror_fd, c, msg)
			: show_worker(base, mirror_fd, c, msg);
	if (err < 0 || (err = make_dev(base, msg)) < 0 ||
	    (err = bind_for_jobs(mirror_fd, base, ROOT_MIRROR, msg)) < 0 ||
	    (err = bind_outside(mirror_fd, base, msg)) < 0 ||
	    (err = bind_for_jobs(scratch_fd, base, ROOT_SCRATCH, msg)) < 0 ||
	    (err = bind_lower(mirror_fd, scratch_fd, base, msg)) < 0)
		return err;
	if (!c->client)
		show_extra(base);
	/* Last, since the binds above still go through the worker's /proc. */
	err = make_proc(base, msg);
	if (err == 0)
		err = change_root(r, base, msg);
	if (err == 0)
		err = open_places(c->mirrored, msg);
	if (err == 0 && c->scratch)
		err = open_scratch(msg);
	return err;
}

int root_show_tree(struct root *r, const char *path, struct errmsg *msg)
{
	_cleanup_close_ int mirror = open(ROOT_MIRROR, O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int tree = -1;
	int err;

	tree = openat(mirror, path + 1, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (mirror < 0 || tree < 0)
		return errmsg_set(msg, -errno, "can't open the client's %s in the mirror: %s", path,
				  err_text(-errno));
	err = root_mountpoint(r, path, msg);
	if (err < 0)
		return err;
	/* As read-only as the mirror's mount that it is a clone of. */
	err = mnt_bind_at(tree, "", false, AT_FDCWD, path);
	if (err < 0)
		return errmsg_set(msg, err, "can't show the client's %s to jobs: %s", path,
				  err_text(err));
	return 0;
}
