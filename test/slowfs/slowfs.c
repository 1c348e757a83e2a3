/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * slowfs MS DIR MOUNTPOINT [nfs | GATE]: shows DIR, and takes MS milliseconds for the first write
 * to each file, and for each look at a directory.  Like NFS it has no locks then, and a file that
 * another mount of DIR has removed can't be read any more (ours are renamed, while they are open).
 * With a GATE, all files look as old as their bytes; and while that is a fifo, each read is held
 * until somebody has opened it for writing, and closed it.  In the foreground until it is
 * unmounted.  Needs nothing of libfuse's but its high-level interface.
 */
#define FUSE_USE_VERSION 31
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int delay_ms;
static int base_fd;
static int is_nfs;
static const char *gate;

static int result(int r)
{
	return r < 0 ? -errno : 0;
}

static const char *rel(const char *path)
{
	return path[1] ? path + 1 : ".";
}

static void wait_long(void)
{
	(void)poll(NULL, 0, delay_ms);
}

static void *init(struct fuse_conn_info *c, struct fuse_config *f)
{
	f->use_ino = 1;
	f->nullpath_ok = 0;
	puts("ready");
	fflush(stdout);
	return NULL;
}

static int get_attr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	int r = result(fstatat(base_fd, rel(path), st, AT_SYMLINK_NOFOLLOW));

	if (gate)
		st->st_ctim = st->st_mtim;
	return r;
}

static int read_dir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off,
		    struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	int fd = openat(base_fd, rel(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d)
		return -errno;
	wait_long();
	while ((e = readdir(d)))
		fill(buf, e->d_name, NULL, 0, 0);
	closedir(d);
	return 0;
}

static int open_flags(const char *path, int flags, mode_t mode, struct fuse_file_info *fi)
{
	int fd = openat(base_fd, rel(path), flags, mode);

	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	fi->direct_io = is_nfs || gate; /* so that no read is answered by a cache */
	return 0;
}

/* We are root, and who asked is not. */
static int give(const char *path)
{
	const struct fuse_context *c = fuse_get_context();

	return result(fchownat(base_fd, rel(path), c->uid, c->gid, AT_SYMLINK_NOFOLLOW));
}

static int open_file(const char *path, struct fuse_file_info *fi)
{
	return open_flags(path, fi->flags & ~O_APPEND, 0, fi);
}

static int create_file(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	int r = open_flags(path, (fi->flags & ~O_APPEND) | O_CREAT, mode, fi);

	return r < 0 ? r : give(path);
}

static int release_file(const char *path, struct fuse_file_info *fi)
{
	return result(close((int)fi->fh));
}

static void wait_at_gate(void)
{
	int fd = gate ? open(gate, O_RDONLY | O_CLOEXEC) : -1;
	char c;

	if (fd < 0)
		return;
	while (read(fd, &c, 1) > 0)
		;
	close(fd);
}

static int read_file(const char *path, char *buf, size_t n, off_t at, struct fuse_file_info *fi)
{
	struct stat st;
	ssize_t r;

	if (is_nfs && fstat((int)fi->fh, &st) == 0 && st.st_nlink == 0)
		return -ESTALE;
	wait_at_gate();
	r = pread((int)fi->fh, buf, n, at);

	return r < 0 ? -errno : (int)r;
}

static int write_file(const char *path, const char *buf, size_t n, off_t at,
		      struct fuse_file_info *fi)
{
	ssize_t r;

	if (at == 0)
		wait_long();
	r = pwrite((int)fi->fh, buf, n, at);
	return r < 0 ? -errno : (int)r;
}

static int make_dir(const char *path, mode_t mode)
{
	return mkdirat(base_fd, rel(path), mode) < 0 ? -errno : give(path);
}

static int remove_file(const char *path)
{
	return result(unlinkat(base_fd, rel(path), 0));
}

static int remove_dir(const char *path)
{
	return result(unlinkat(base_fd, rel(path), AT_REMOVEDIR));
}

static int rename_file(const char *from, const char *to, unsigned flags)
{
	return flags ? -EINVAL : result(renameat(base_fd, rel(from), base_fd, rel(to)));
}

static int lock_file(const char *path, struct fuse_file_info *fi, int how)
{
	return is_nfs ? -ENOLCK : result(flock((int)fi->fh, how));
}

static int change_mode(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	return result(fchmodat(base_fd, rel(path), mode, 0));
}

static int change_owner(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *fi)
{
	return result(fchownat(base_fd, rel(path), uid, gid, AT_SYMLINK_NOFOLLOW));
}

static int change_times(const char *path, const struct timespec t[2], struct fuse_file_info *fi)
{
	return result(utimensat(base_fd, rel(path), t, AT_SYMLINK_NOFOLLOW));
}

static int change_size(const char *path, off_t size, struct fuse_file_info *fi)
{
	int fd = openat(base_fd, rel(path), O_WRONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = result(ftruncate(fd, size));
	close(fd);
	return r;
}

static int stat_fs(const char *path, struct statvfs *st)
{
	return result(fstatvfs(base_fd, st));
}

static const struct fuse_operations ops = {
	.init = init,
	.getattr = get_attr,
	.readdir = read_dir,
	.open = open_file,
	.create = create_file,
	.release = release_file,
	.read = read_file,
	.write = write_file,
	.mkdir = make_dir,
	.unlink = remove_file,
	.rmdir = remove_dir,
	.rename = rename_file,
	.flock = lock_file,
	.chmod = change_mode,
	.chown = change_owner,
	.utimens = change_times,
	.truncate = change_size,
	.statfs = stat_fs,
};

int main(int argc, char **argv)
{
	char *args[] = {argv[0],      (char *)"-f",
			(char *)"-o", (char *)"allow_other,default_permissions",
			NULL,	      NULL};

	is_nfs = argc == 5 && strcmp(argv[4], "nfs") == 0;
	gate = argc == 5 && !is_nfs ? argv[4] : NULL;
	if (argc != 4 && argc != 5) {
		fprintf(stderr, "usage: slowfs MS DIR MOUNTPOINT [nfs | GATE]\n");
		return 2;
	}
	delay_ms = atoi(argv[1]);
	base_fd = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (base_fd < 0) {
		perror(argv[2]);
		return 1;
	}
	args[4] = argv[3];
	umask(0);
	return fuse_main(5, args, &ops, NULL);
}
