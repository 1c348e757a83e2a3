/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * What a job may leave in its overlay's upper directory, and what is said of it: three bytes for
 * each thing that is made (what, where, and something more).  A job may write the marks of
 * overlayfs itself, and whatever names and bytes it likes.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "concc/cleanup.h"
#include "concc/log.h"
#include "concc/map.h"
#include "concc/str.h"
#include "scratch.h"
#include "worker/home.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define THINGS_MAX 64

enum thing {
	DIRECTORY,
	FILE_,
	SYMLINK,
	FIFO,
	WHITEOUT,
	LINK,
	OPAQUE_USER,
	OPAQUE_TRUSTED,
	MODE,
	ATTRIBUTE,
	ODD_NAME,
	N_THINGS
};

/* One of 8 + 64 + 512 places, at most three deep. */
static void place(uint8_t b, char path[16])
{
	if (b < 64)
		(void)snprintf(path, 16, "%c", 'a' + b % 8);
	else if (b < 128)
		(void)snprintf(path, 16, "%c/%c", 'a' + b % 8, 'a' + b / 8 % 8);
	else
		(void)snprintf(path, 16, "%c/%c/%c", 'a' + b % 4, 'a' + b / 4 % 4,
			       'a' + b / 16 % 8);
}

static void make_file(int dir, const char *path, size_t size)
{
	_cleanup_close_ int fd = openat(
		dir, path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0644);

	if (fd >= 0)
		(void)!write(fd, path, size < strlen(path) ? size : strlen(path));
}

static void mark(int dir, const char *path, const char *name, const char *value, size_t n)
{
	_cleanup_free_ char *full = NULL;

	(void)dir;
	full = xasprintf("%s/upper/%s", scratch_dir, path);
	(void)lsetxattr(full, name, value, n, 0);
}

/* Whatever fails was no thing to be made there. */
static void make(int dir, const uint8_t t[3])
{
	char path[16], other[16], odd[3] = {(char)t[1], (char)t[2], '\0'};

	place(t[1], path);
	place(t[2], other);
	switch ((enum thing)(t[0] % N_THINGS)) {
	case DIRECTORY:
		(void)mkdirat(dir, path, 0755);
		break;
	case FILE_:
		make_file(dir, path, t[2]);
		break;
	case SYMLINK:
		(void)symlinkat(t[2] ? other : "..", dir, path);
		break;
	case FIFO:
		(void)mknodat(dir, path, (t[2] & 1 ? S_IFIFO : S_IFSOCK) | 0600, 0);
		break;
	case WHITEOUT:
		(void)mknodat(dir, path, S_IFCHR | 0600, t[2] & 1);
		break;
	case LINK:
		(void)linkat(dir, other, dir, path, 0);
		break;
	case OPAQUE_USER:
		mark(dir, path, "user.overlay.opaque", t[2] & 1 ? "y" : "x", 1);
		break;
	case OPAQUE_TRUSTED:
		mark(dir, path, "trusted.overlay.opaque", t[2] & 1 ? "y" : "x", 1);
		break;
	case MODE:
		(void)fchmodat(dir, path, (mode_t)t[2] << 4, 0);
		break;
	case ATTRIBUTE:
		mark(dir, path, t[2] & 1 ? "user.x" : "user.overlay.origin", path, strlen(path));
		break;
	case ODD_NAME:
		make_file(dir, odd, 1);
		break;
	case N_THINGS:
		break;
	}
}

struct said {
	struct map made; /* paths, of which a link may be made */
	unsigned n;
};

static int on_effect(void *data, const struct msg_file *f, int fd)
{
	struct said *s = data;
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_file again;

	CHECK(f->kind >= EFFECT_FILE && f->kind <= EFFECT_LINK);
	CHECK(!*f->path ? f->kind == EFFECT_DIR || f->kind == EFFECT_META
			: path_is_clean_relative(f->path));
	CHECK(f->mode <= 07777);
	if (f->kind == EFFECT_LINK)
		CHECK(map_get_str(&s->made, f->target));
	if (f->kind == EFFECT_FILE && !(f->flags & (EFFECT_F_FIFO | EFFECT_F_SOCKET)))
		CHECK(fd >= 0);
	(void)map_put_str(&s->made, f->path, s);
	/* And it can be said. */
	msg_file_encode(&b, f);
	CHECK(msg_file_decode((struct blob){b.data, b.len}, &again) == 0);
	msg_file_release(&again);
	s->n++;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct said s = {.n = 0};
	struct home_config c = {.workspace = "/w", .upper_fd = -1};
	struct home *h;
	int upper;

	log_init("fuzz", LOG_LEVEL_ERR);
	if (n > (size_t)3 * THINGS_MAX)
		return 0;
	(void)path_remove_tree(scratch(), "upper");
	CHECK(mkdirat(scratch(), "upper", 0755) == 0);
	upper = openat(scratch(), "upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(upper >= 0);
	for (size_t i = 0; i + 3 <= n; i += 3)
		make(upper, data + i);
	c.any_command = n % 2;
	c.upper_fd = upper;
	h = home_new(&c);
	CHECK(h);
	(void)home_scan(h, on_effect, &s);
	CHECK(s.n <= 2 * THINGS_MAX + 1);
	home_free(h);
	map_release(&s.made);
	return 0;
}
