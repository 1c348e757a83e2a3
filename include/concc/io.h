/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_IO_H
#define CONCC_IO_H

/*
 * File descriptors, paths and clocks: the small things every folder needs.
 * An fd is >= 0 or -1, and is CLOEXEC from birth.
 *
 * From any thread.  0 or -errno, where no more is said.  What opens, reads, writes or looks at
 * files may block as long as their disk does; the other path_* functions work on text alone.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct buf;
struct errmsg;
struct stat;
struct timespec;

/* Loop over EINTR and short counts.  read_full returns the bytes read, less than n only at EOF. */
ssize_t read_full(int fd, void *p, size_t n);
int write_full(int fd, const void *p, size_t n); /* 0 or -errno */
/* A file of this user's only that has these bytes, all or as it was: written beside and renamed,
 * not synced.  0 or -errno. */
int replace_file(const char *path, const void *p, size_t n);
/* The whole file, at most max bytes (CONCC_E_TOOBIG beyond); appends to b. */
int read_file_at(int dirfd, const char *path, size_t max, struct buf *b);
/* A descriptor to read a regular file, the caller's, or -errno; -EINVAL for others, of which
 * nothing is read, nor waited for anybody at their other end.  For whatever a project may have
 * made. */
int open_regular_file(const char *path);
/* As read_file_at(), of what open_regular_file() opens. */
int read_regular_file(const char *path, size_t max, struct buf *b);
/* Without following any symlink, nor leaving dirfd; path is relative, "" for dirfd itself.  A new
 * descriptor, or -errno.  Since Linux 5.6. */
int openat_beneath(int dirfd, const char *path, int flags);
/* Blocks of the disk for the first n bytes, whose contents stay, of a file that is open for both: a
 * store to a mapped page that finds the disk full is a SIGBUS.  0 or -errno. */
int fd_allocate(int fd, size_t n);
int fd_set_nonblock(int fd, bool on);
int fd_set_cloexec(int fd, bool on);
/*
 * First in each main(): what the caller left closed of 0, 1 and 2 is held, so that nothing we open
 * lands there.  As before, to read, write or poll it is an error (O_PATH), and it is closed in what
 * we execute.
 */
void fd_hold_stdio(void);
/*
 * For who speaks to a peer over 0 and 1: both move to other numbers, the caller's; 0 is /dev/null
 * then and 1 standard error, so that what anything prints by mistake does not get to the peer.
 */
int fd_take_stdio(int *ret_in, int *ret_out);
/*
 * pipe2(2) with both ends above 2: what its caller left closed of a program's standard ones stays
 * closed, and no dup2(2) to one of them in a child overwrites what is needed later.  0 or -errno.
 */
int pipe_above_stdio(int ret[2]);
void fd_close(int *fd);		     /* unless it is -1, which it is then */
void fd_close_from(unsigned lowest); /* this one and all above; system calls only */
/*
 * For daemons: 0, 1 and 2 become /dev/null, everything from 3 up is closed but
 * keep[] (sorted by no order).  ninja waits until its pipe has no writer, so a
 * background process must not inherit one.
 */
void fd_detach_all(const int *keep, size_t n_keep);

uint64_t now_ms(void); /* CLOCK_MONOTONIC */
uint64_t now_us(void);

/* "a" + "b" with one slash between; a copy on the heap. */
char *path_join(const char *a, const char *b);
/* Absolute and lexically clean: no "." or "..", no double or trailing slash.  base is absolute. */
char *path_clean(const char *base, const char *path);
/*
 * Is it absolute and clean already, each part at most NAME_MAX bytes, and short enough for a
 * system call (PATH_MAX)?  What a peer may name.  The other: the same of one without a first
 * slash, not empty.
 */
bool path_is_clean(const char *path);
bool path_is_clean_relative(const char *path);
/* True for path == dir and everything beneath it; both clean. */
bool path_is_below(const char *path, const char *dir);
/* What follows "dir/" in path, "" for dir itself; NULL when path is not below dir.  Borrowed. */
const char *path_below(const char *path, const char *dir);
const char *path_base(const char *path); /* after the last slash; borrowed */
char *path_parent(const char *path);	 /* of a clean one, "/" of "/"; on the heap */

/*
 * Where an absolute path leads, as far as there is something: the kernel's path of that, and behind
 * it what is not there, as it was named, or as the symlinks on the way say it.  follow: a symlink
 * at its end, too.  On the heap; NULL with errno set.  May block.
 */
char *path_way(const char *path, bool follow);
/* The same.  *ret_n: so many bytes of path are the first name that is not there, with the way to
 * it, when no symlink said where that would be; else 0. */
char *path_way_missing(const char *path, bool follow, size_t *ret_n);
/* mkdir -p with mode for what is missing. */
int path_mkdirs(const char *path, mode_t mode);
/* rm -rf name in dirfd, whatever its modes, through no symlink and no mount; missing is fine.
 * 0 or -errno. */
int path_remove_tree(int dirfd, const char *name);
/* The same for what is in dirfd, which itself stays. */
int path_empty_dir(int dirfd);
/* ~ and ~/x through $HOME or the passwd entry; others unchanged.  A copy on the heap. */
char *path_expand_home(const char *path);
/* The same by the password file, which is what ssh goes by, whatever HOME says. */
char *path_expand_login_home(const char *path);

bool time_is_same(const struct timespec *a, const struct timespec *b);
/* Are they of one file or directory, whatever became of it between? */
bool stat_is_same_file(const struct stat *a, const struct stat *b);
/* The same, and its size and times (of change, too) are equal: nobody wrote to it between, unless
 * within one tick of the clock (stat_is_racy()). */
bool stat_is_unchanged(const struct stat *a, const struct stat *b);
/* Is the same file or directory at path that was seen there as `was`, unchanged by all its times?
 */
bool file_is_unchanged(const char *path, const struct stat *was);
int64_t clock_ns(void); /* of the clock that stamps files, in nanoseconds */
/*
 * May a change leave these times?  since: clock_ns() before that was read which holds while the
 * times are the same (bytes, names, what a link says): whatever this process was kept from
 * meanwhile.  network: the clock is another machine's.
 */
bool stat_is_racy(const struct stat *st, int64_t since, bool network);

/*
 * The runtime directory, $CONCC_RUNTIME_DIR or /tmp/concc-<uid>: made 0700 when
 * missing, refused with CONCC_E_UNSAFE when it is a symlink, no directory, of
 * another owner or open to others.  ret_fd may be NULL.
 */
int runtime_dir_open(char **ret_path, int *ret_fd, struct errmsg *msg);
/*
 * As whom root's agent and jobs run: root's files are readable to root, and
 * /proc/sys writable, in whatever namespace, by the number alone.  An id that no
 * account has: of the range that systemd.io/UIDS-GIDS lists as unused.  Where it does
 * not exist (rootless containers), nobody.
 */
#define SANDBOX_UID	2000000000
#define SANDBOX_UID_ALT 65534
/*
 * $CONCC_CACHE_DIR, $XDG_CACHE_HOME/concc or ~/.cache/concc; made when missing, but for the home
 * itself: -ENOENT.  CONCC_E_UNSAFE when it is another user's or others may write to it: what is
 * kept there is believed and run.
 */
int cache_dir(char **ret_path, struct errmsg *msg);
/*
 * Root's workers on this machine give their cache to the user whom jobs run as.  So
 * CONCC_CACHE_DIR, if root has set it, is another one from here on, for what we start: in ours are
 * digests and records that are believed.  What it was, on the heap; NULL: it is as it was.
 */
char *cache_dir_of_workers(void);
/*
 * Is this there, and by somebody who may say that the directory it is in is a project's?  Where all
 * make files (/tmp, /scratch) a mark says nothing of what is beside it; else it is its owner's,
 * ours or root's.  .git/HEAD is in the directory above.
 */
bool path_is_mark(const char *path);
/* Has this directory far more in it than a project: the home, or what holds it, /tmp and the like?
 */
bool path_is_too_wide(const char *dir);
/*
 * What of the user's secrets whoever sees the tree `path` would see as well, or what it lies in,
 * symlinks or not: ~/.ssh, ~/.gnupg, and those of a list in home.c that are there.  On the heap;
 * NULL: none.
 */
char *path_secret(const char *path);

#endif
