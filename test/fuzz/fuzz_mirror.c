/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * A mounted mirror, told well-formed things by a client in any order, four bytes each, while
 * somebody looks at the files.  Skipped where nothing can be mounted.
 *
 * What must hold: what makes no sense is CONCC_E_PROTO and harms nothing; whoever waits has an
 * answer when the mirror stops; a file has the bytes of its size, or an error.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>

#include "concc/cleanup.h"
#include "concc/log.h"
#include "concc/mirror.h"
#include "concc/store.h"
#include "concc/str.h"
#include "scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define N_OF(a)	  (sizeof(a) / sizeof((a)[0]))
#define STEPS_MAX 64

enum step {
	SERVE,
	OUTSIDE,
	LINK,
	ABSENT,
	DIR_,
	UPDATE,
	STALE,
	CONTENT,
	PREFETCH,
	JOB_START,
	JOB_END,
	LEARN,
	PEEK,
	LOOK,
	DISPATCH,
	N_STEPS
};

static const char *const paths[] = {"/w", "/w/d", "/w/d/e", "/w/a", "/x", "/x/d", "/", "/home/u"};
static const char *const names[] = {"a", "b", "d", "e", "l"};

static struct {
	struct mirror *mirror;
	struct store *store;
	char mountpoint[64];
	uint32_t fetch_id; /* asked for last */
	char *wanted;	   /* the listing asked for last */
	uint64_t version;
	bool can_mount;
} bed;

/* ---- who looks ---- */

static struct {
	pthread_t thread;
	int fds[2]; /* a byte for each path that is to be looked at; nobody waits for it */
} looker;

static void look_at_file(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	char bytes[256];
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	n = read(fd, bytes, sizeof(bytes));
	CHECK(n < 0 ||
	      n == (st.st_size < (off_t)sizeof(bytes) ? st.st_size : (off_t)sizeof(bytes)));
}

static void look_at(uint8_t b)
{
	char path[160], target[64];
	struct stat st;
	DIR *dir;

	(void)snprintf(path, sizeof(path), "%s%s/%s", bed.mountpoint, paths[b % N_OF(paths)],
		       names[b / 8 % N_OF(names)]);
	if (b & 64)
		*strrchr(path, '/') = '\0';
	if (lstat(path, &st) < 0)
		return;
	if (S_ISLNK(st.st_mode))
		(void)!readlink(path, target, sizeof(target));
	else if (!S_ISDIR(st.st_mode))
		look_at_file(path);
	else if ((dir = opendir(path))) {
		while (readdir(dir))
			;
		(void)closedir(dir);
	}
}

static void *look_all(void *data)
{
	uint8_t b;

	while (read(looker.fds[0], &b, 1) == 1)
		look_at(b);
	return NULL;
}

/* ---- what the mirror asks ---- */

static void want_dir(void *data, const char *path)
{
	free(bed.wanted);
	bed.wanted = xstrdup(path);
}

static void want_file(void *data, const struct msg_fetch *f)
{
	bed.fetch_id = f->fetch_id;
}

static void failed(void *data, int64_t job, const char *path, int err)
{
	CHECK(err < 0);
}

static int64_t job_of(void *data, pid_t pid)
{
	return 1;
}

static void outside(void *data, int64_t job, enum missing_how how, const char *path)
{
	CHECK(path && *path == '/');
}

/* ---- what the client says ---- */

static void put_entry(struct buf *b, uint8_t x)
{
	static const uint8_t types[] = {ENTRY_FILE,   ENTRY_DIR,  ENTRY_SYMLINK, ENTRY_FIFO,
					ENTRY_ABSENT, ENTRY_FILE, ENTRY_DIR,	 ENTRY_UNKNOWN};
	const char *name = names[x % N_OF(names)];
	struct entry_attr a = {.type = types[x / 8 % 8],
			       .mode = 0755,
			       .nlink = 1,
			       .ino = 1000 + x % 16,
			       .size = x % 7,
			       .version = x & 128 ? bed.version : ++bed.version};

	if (a.type == ENTRY_ABSENT || a.type == ENTRY_UNKNOWN)
		a = (struct entry_attr){.type = a.type, .version = a.version};
	dir_entry_encode(b, name, strlen(name), &a, a.type == ENTRY_SYMLINK ? "a" : NULL);
}

static const struct entry_attr dir_attr = {
	.type = ENTRY_DIR, .mode = 0755, .nlink = 2, .ino = 7, .version = 1};

static void say_dir(const uint8_t s[4])
{
	const char *path = s[1] & 128 && bed.wanted ? bed.wanted : paths[s[1] % N_OF(paths)];
	uint8_t state = s[1] / 8 % 5;
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct entry_attr a = dir_attr;
	bool listed = state == DIR_LISTED || state == DIR_PARTIAL;
	struct msg_dir m;

	a.version = ++bed.version;
	if (state == DIR_UNKNOWN) {
		msg_dir_unknown_encode(&b, 1 + s[2] % 8, path, ENFILE);
	} else {
		msg_dir_encode(&b, 1 + s[2] % 8, state, path, &a, listed ? 2 : 0);
		for (int i = 2; listed && i < 4; i++)
			put_entry(&b, s[i]);
	}
	if (msg_dir_decode((struct blob){b.data, b.len}, &m) < 0)
		return;
	(void)mirror_dir(bed.mirror, &m);
	msg_dir_release(&m);
}

static void say_update(const uint8_t s[4])
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct entry_attr a = dir_attr;
	struct msg_update m;

	a.version = ++bed.version;
	msg_update_encode(&b, 1 + s[1] % 8, &a, 2);
	put_entry(&b, s[2]);
	put_entry(&b, s[3]);
	if (msg_update_decode((struct blob){b.data, b.len}, &m) == 0)
		(void)mirror_update(bed.mirror, &m);
}

static void say_content(const uint8_t s[4])
{
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_content m = {
		.fetch_id = bed.fetch_id + s[3] % 2,
		.state = s[1] % 4,
		.offset = s[2] / 8 % 8,
		.error = s[1] % 4 ? EIO : 0,
		.data = {(const uint8_t *)"abcdefgh", s[2] % 8},
	};

	digest_of("abcdefgh", s[3] / 2 % 8, &m.digest);
	msg_content_encode(&b, &m);
	if (msg_content_decode((struct blob){b.data, b.len}, &m) == 0)
		(void)mirror_content(bed.mirror, &m);
}

static void say_prefetch(const uint8_t s[4])
{
	char *list[] = {(char *)names[s[2] % N_OF(names)], (char *)names[s[3] % N_OF(names)], NULL};
	struct msg_prefetch m = {.dir_id = 1 + s[1] % 8, .names = list};

	if (s[1] & 128)
		mirror_guess(bed.mirror, &m);
	else
		mirror_prefetch(bed.mirror, &m);
	if (s[1] & 64)
		strv_free(mirror_guessed(bed.mirror, &m.dir_id));
}

static void say_of_outside(enum step what, const uint8_t s[4])
{
	char *list[] = {(char *)names[s[3] % N_OF(names)], NULL}, *none[] = {NULL};
	char *path = (char *)paths[s[1] % N_OF(paths)];
	_cleanup_buf_ struct buf b = BUF_INIT;
	struct msg_outside o;
	struct msg_link l;

	if (what == OUTSIDE) {
		(void)mirror_outside(bed.mirror, path, s[2] & 1);
	} else if (what == ABSENT) {
		msg_outside_encode(&b, path, s[2] & 1 ? list : none);
		if (msg_outside_decode((struct blob){b.data, b.len}, &o) < 0)
			return;
		mirror_outside_absent(bed.mirror, &o);
		msg_outside_release(&o);
	} else if (s[2] & 2) {
		(void)mirror_bare(bed.mirror, &(struct msg_bare){path, s[2] & 1, 0700, s[3], s[3]});
	} else {
		msg_link_encode(&b, path, s[2] & 1 ? paths[s[3] % N_OF(paths)] : "");
		if (msg_link_decode((struct blob){b.data, b.len}, &l) < 0)
			return;
		(void)mirror_link(bed.mirror, &l);
		msg_link_release(&l);
	}
}

static void say_learn(const uint8_t s[4])
{
	struct digest d;

	digest_of("abcdefgh", s[2] % 8, &d);
	mirror_learn(bed.mirror, paths[s[1] % N_OF(paths)], bed.version - s[3] % 4, &d);
}

static void do_step(const uint8_t s[4])
{
	struct entry_attr attr;
	uint8_t look = s[1];

	switch ((enum step)(s[0] % N_STEPS)) {
	case SERVE:
		(void)mirror_serve(bed.mirror, paths[s[1] % N_OF(paths)]);
		break;
	case OUTSIDE:
	case LINK:
	case ABSENT:
		say_of_outside((enum step)(s[0] % N_STEPS), s);
		break;
	case DIR_:
		say_dir(s);
		break;
	case UPDATE:
		say_update(s);
		break;
	case STALE:
		(void)mirror_dir_stale(bed.mirror, 1 + s[1] % 8);
		break;
	case CONTENT:
		say_content(s);
		break;
	case PREFETCH:
		say_prefetch(s);
		break;
	case JOB_START:
		mirror_job_started(bed.mirror, s[1] % 4, mirror_seq(bed.mirror));
		break;
	case JOB_END:
		mirror_job_ended(bed.mirror, s[1] % 4);
		break;
	case LEARN:
		say_learn(s);
		break;
	case PEEK:
		(void)mirror_peek(bed.mirror, paths[s[1] % N_OF(paths)], &attr);
		break;
	case LOOK:
		(void)!write(looker.fds[1], &look, 1);
		break;
	default:
		mirror_dispatch(bed.mirror);
	}
}

/* ---- one input ---- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct errmsg msg = {0};
	char dir[64];

	log_init("fuzz", LOG_LEVEL_ERR);
	(void)scratch();
	(void)snprintf(dir, sizeof(dir), "%s/store", scratch_dir);
	(void)snprintf(bed.mountpoint, sizeof(bed.mountpoint), "%s/m", scratch_dir);
	CHECK(mkdir(bed.mountpoint, 0755) == 0);
	CHECK(store_open(dir, 0, &bed.store, &msg) == 0);
	/* What is mounted goes with this process. */
	bed.can_mount = unshare(CLONE_NEWNS) == 0 &&
			mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const struct mirror_ops ops = {.want_dir = want_dir,
					      .want_file = want_file,
					      .failed = failed,
					      .job_of = job_of,
					      .outside = outside};
	const struct mirror_config c = {.mountpoint = bed.mountpoint, .store = bed.store};
	struct errmsg msg = {0};

	if (!bed.can_mount || n > 4 * STEPS_MAX ||
	    mirror_start(&c, &ops, NULL, &bed.mirror, &msg) < 0)
		return 0;
	CHECK(pipe2(looker.fds, O_CLOEXEC) == 0);
	CHECK(pthread_create(&looker.thread, NULL, look_all, NULL) == 0);
	for (size_t i = 0; i + 4 <= n; i += 4) {
		struct pollfd p = {.fd = mirror_event_fd(bed.mirror), .events = POLLIN};

		do_step(data + i);
		if (poll(&p, 1, data[i] < 64 ? 1 : 0) == 1)
			mirror_dispatch(bed.mirror);
	}
	(void)close(looker.fds[1]);
	mirror_stop(bed.mirror);
	CHECK(pthread_join(looker.thread, NULL) == 0);
	(void)close(looker.fds[0]);
	free(bed.wanted);
	bed.wanted = NULL;
	bed.version = bed.fetch_id = 0;
	return 0;
}
