/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/*
 * Every message's decoder: the first byte is the type, the rest the payload.
 * What was accepted is encoded again: that must give the same bytes, or, where
 * several forms mean the same, something that is decoded and encoded to itself.
 */
#include <stdlib.h>
#include <string.h>

#include "concc/cleanup.h"
#include "concc/err.h"
#include "concc/io.h"
#include "concc/proto.h"
#include "concc/record.h"
#include "concc/str.h"
#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_clean(const char *path)
{
	_cleanup_free_ char *clean = path_clean("/", path);

	CHECK(path[0] == '/' && streq(clean, path) && strlen(path) <= PROTO_PATH_MAX);
}

/* Beneath whatever directory it is put: it must not lead out of it. */
static void check_relative(const char *path)
{
	_cleanup_free_ char *abs = xasprintf("/w/%s", path), *clean = path_clean("/", abs);

	CHECK(streq(clean, abs) && path_is_below(abs, "/w"));
}

static void put_entries(struct buf *out, struct rd entries, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct dir_entry e;
		_cleanup_free_ char *target = NULL;

		dir_entry_decode(&entries, &e);
		CHECK(!entries.bad);
		CHECK(e.name.n >= 1 && e.name.n <= PROTO_NAME_MAX);
		CHECK(!memchr(e.name.p, '/', e.name.n) && !memchr(e.name.p, 0, e.name.n));
		if (e.attr.type == ENTRY_SYMLINK)
			target = xstrndup((const char *)e.target.p, e.target.n);
		dir_entry_encode(out, (const char *)e.name.p, e.name.n, &e.attr, target);
	}
	CHECK(entries.left == 0);
}

/* Each of these: false when the payload is refused, else *out holds it encoded again. */

static bool hello(struct blob in, struct buf *out)
{
	struct msg_hello m;

	if (msg_hello_decode(in, &m) < 0)
		return false;
	CHECK(strlen(m.program) <= 256 && strlen(m.host) <= 256 && strlen(m.arch) <= 64);
	CHECK(m.version != PROTO_VERSION || strv_len(m.top) <= PROTO_TOP_MAX);
	CHECK(m.version != PROTO_VERSION ||
	      (strv_len(m.links) <= PROTO_LINKS_MAX && strv_len(m.links) % 2 == 0));
	msg_hello_encode(out, &m);
	msg_hello_release(&m);
	return true;
}

static bool bye(struct blob in, struct buf *out)
{
	_cleanup_free_ char *text = NULL;

	if (msg_bye_decode(in, &text) < 0)
		return false;
	msg_bye_encode(out, text);
	return true;
}

static bool u64(struct blob in, struct buf *out)
{
	uint64_t v;

	if (msg_u64_decode(in, &v) < 0)
		return false;
	msg_u64_encode(out, v);
	return true;
}

static bool u32(struct blob in, struct buf *out)
{
	uint32_t v;

	if (msg_u32_decode(in, &v) < 0)
		return false;
	msg_u32_encode(out, v);
	return true;
}

static bool pair(struct blob in, struct buf *out)
{
	uint32_t id, v;

	if (msg_pair_decode(in, &id, &v) < 0)
		return false;
	msg_pair_encode(out, id, v);
	return true;
}

static bool bytes(struct blob in, struct buf *out)
{
	struct blob b;
	uint32_t id;

	if (msg_bytes_decode(in, &id, &b) < 0)
		return false;
	msg_bytes_encode(out, id, b.p, b.n);
	return true;
}

static bool output(struct blob in, struct buf *out)
{
	struct blob b;
	uint8_t stream;
	uint32_t id;

	if (msg_output_decode(in, &id, &stream, &b) < 0)
		return false;
	CHECK(stream == 1 || stream == 2);
	msg_output_encode(out, id, stream, b.p, b.n);
	return true;
}

static bool dir(struct blob in, struct buf *out)
{
	struct msg_dir m;

	if (msg_dir_decode(in, &m) < 0)
		return false;
	check_clean(m.path);
	if (m.state == DIR_UNKNOWN) {
		CHECK(m.error > 0 && m.error < 4096);
		msg_dir_unknown_encode(out, m.dir_id, m.path, m.error);
		msg_dir_release(&m);
		return true;
	}
	msg_dir_encode(out, m.dir_id, m.state, m.path, &m.attr, m.n);
	if (m.state == DIR_LISTED || m.state == DIR_PARTIAL)
		put_entries(out, m.entries, m.n);
	msg_dir_release(&m);
	return true;
}

static bool update(struct blob in, struct buf *out)
{
	struct msg_update m;

	if (msg_update_decode(in, &m) < 0)
		return false;
	msg_update_encode(out, m.dir_id, &m.attr, m.n);
	put_entries(out, m.entries, m.n);
	return true;
}

static bool path(struct blob in, struct buf *out)
{
	_cleanup_free_ char *p = NULL;

	if (msg_list_decode(in, &p) < 0)
		return false;
	check_clean(p);
	msg_list_encode(out, p);
	return true;
}

static bool serve(struct blob in, struct buf *out)
{
	_cleanup_free_ char *p = NULL;
	uint8_t kind;

	if (msg_serve_decode(in, &p, &kind) < 0)
		return false;
	check_clean(p);
	msg_serve_encode(out, p, kind);
	return true;
}

static bool prefetch(struct blob in, struct buf *out)
{
	struct msg_prefetch m;

	if (msg_prefetch_decode(in, &m) < 0)
		return false;
	CHECK(strv_len(m.names) <= PROTO_PREFETCH_MAX);
	for (char **n = m.names; *n; n++)
		CHECK(**n && !strchr(*n, '/') && !streq(*n, ".."));
	msg_prefetch_encode(out, m.dir_id, m.names);
	msg_prefetch_release(&m);
	return true;
}

static bool outside(struct blob in, struct buf *out)
{
	struct msg_outside m;

	if (msg_outside_decode(in, &m) < 0)
		return false;
	check_clean(m.dir);
	CHECK(strv_len(m.names) <= PROTO_OUTSIDE_MAX);
	for (char **n = m.names; *n; n++)
		CHECK(**n && !strchr(*n, '/') && !streq(*n, ".."));
	msg_outside_encode(out, m.dir, m.names);
	msg_outside_release(&m);
	return true;
}

static bool symlink_of(struct blob in, struct buf *out)
{
	struct msg_link m;

	if (msg_link_decode(in, &m) < 0)
		return false;
	check_clean(m.path);
	CHECK(strchr(m.path + 1, '/') && strlen(m.target) <= PROTO_PATH_MAX);
	msg_link_encode(out, m.path, m.target);
	msg_link_release(&m);
	return true;
}

static bool bare(struct blob in, struct buf *out)
{
	struct msg_bare m;

	if (msg_bare_decode(in, &m) < 0)
		return false;
	check_clean(m.path);
	CHECK(strchr(m.path + 1, '/') && m.mode <= 07777 && m.mtime_ns < 1000000000);
	msg_bare_encode(out, &m);
	msg_bare_release(&m);
	return true;
}

static bool fetch(struct blob in, struct buf *out)
{
	struct msg_fetch m;

	if (msg_fetch_decode(in, &m) < 0)
		return false;
	CHECK(*m.name && !strchr(m.name, '/') && !streq(m.name, ".."));
	msg_fetch_encode(out, &m);
	msg_fetch_release(&m);
	return true;
}

static bool content(struct blob in, struct buf *out)
{
	struct msg_content m;

	if (msg_content_decode(in, &m) < 0)
		return false;
	msg_content_encode(out, &m);
	return true;
}

static bool env(struct blob in, struct buf *out)
{
	struct msg_env m;

	if (msg_env_decode(in, &m) < 0)
		return false;
	msg_env_encode(out, m.env_id, m.env);
	msg_env_release(&m);
	return true;
}

static bool exe(struct blob in, struct buf *out)
{
	struct msg_exe m;

	if (msg_exe_decode(in, &m) < 0)
		return false;
	check_clean(m.path);
	for (uint32_t i = 0; i < m.n_files; i++)
		check_clean(m.files[i].path);
	msg_exe_encode(out, &m);
	msg_exe_release(&m);
	return true;
}

static void check_caller(const struct caller *c)
{
	for (int i = 0; i < CALLER_N_LIMITS; i++)
		CHECK(c->limits[i].soft <= c->limits[i].hard);
	CHECK(c->nice >= -20 && c->nice <= 19);
	CHECK(!((c->ignored | c->blocked) & CALLER_SIGNALS_NEVER));
	CHECK(c->fds_end <= CALLER_FDS);
	for (int fd = 0; fd < CALLER_FDS; fd++)
		CHECK(c->fds[fd] == CALLER_CLOSED || (fd >= CALLER_FDS_FROM && fd < c->fds_end &&
						      c->fds[fd] <= CALLER_READS_WRITES));
}

static bool caller(struct blob in, struct buf *out)
{
	struct msg_caller m;

	if (msg_caller_decode(in, &m) < 0)
		return false;
	check_caller(&m.caller);
	msg_caller_encode(out, &m);
	return true;
}

static bool job(struct blob in, struct buf *out)
{
	struct msg_job m;

	if (msg_job_decode(in, &m) < 0)
		return false;
	check_clean(m.cwd);
	CHECK(m.path[0] && strlen(m.path) <= PROTO_PATH_MAX);
	CHECK(m.argv[0] && m.workspaces[0] && m.umask <= 0777);
	for (char **w = m.workspaces; *w; w++)
		check_clean(*w);
	msg_job_encode(out, &m);
	msg_job_release(&m);
	return true;
}

static bool file(struct blob in, struct buf *out)
{
	struct msg_file m;

	if (msg_file_decode(in, &m) < 0)
		return false;
	if (m.path[0])
		check_relative(m.path);
	CHECK(m.path[0] || m.kind == EFFECT_DIR);
	if (m.kind == EFFECT_LINK)
		check_relative(m.target);
	CHECK(m.mode <= 07777 && m.size <= INT64_MAX);
	msg_file_encode(out, &m);
	msg_file_release(&m);
	return true;
}

static bool exit_(struct blob in, struct buf *out)
{
	struct msg_exit m;

	if (msg_exit_decode(in, &m) < 0)
		return false;
	CHECK(strv_len(m.outside) <= 8);
	msg_exit_encode(out, &m);
	msg_exit_release(&m);
	return true;
}

static bool missing(struct blob in, struct buf *out)
{
	struct msg_missing m;

	if (msg_missing_decode(in, &m) < 0)
		return false;
	for (char **p = m.paths; *p; p++)
		CHECK(**p == '/' && strlen(*p) < PROTO_PATH_MAX);
	msg_missing_encode(out, m.job_id, m.how, m.paths);
	msg_missing_release(&m);
	return true;
}

static bool trace(struct blob in, struct buf *out)
{
	_cleanup_buf_ struct buf names = BUF_INIT;
	struct msg_trace m;

	if (msg_trace_decode(in, &m) < 0)
		return false;
	for (size_t i = 0; i < m.n; i++) {
		CHECK(m.names[i][1] == '/' && strlen(m.names[i]) <= PROTO_PATH_MAX);
		buf_append(&names, m.names[i], strlen(m.names[i]) + 1);
	}
	msg_trace_encode(out, m.job_id, m.why, (struct blob){names.data, names.len});
	msg_trace_release(&m);
	return true;
}

static bool counts(struct blob in, struct buf *out)
{
	struct msg_mirror_counts m;

	if (msg_mirror_counts_decode(in, &m) < 0)
		return false;
	msg_mirror_counts_encode(out, &m);
	return true;
}

static bool checkup(struct blob in, struct buf *out)
{
	struct msg_checkup m;

	if (msg_checkup_decode(in, &m) < 0)
		return false;
	msg_checkup_encode(out, &m);
	msg_checkup_release(&m);
	return true;
}

static bool load(struct blob in, struct buf *out)
{
	struct msg_load m;

	if (msg_load_decode(in, &m) < 0)
		return false;
	msg_load_encode(out, &m);
	return true;
}

static bool storage(struct blob in, struct buf *out)
{
	struct msg_storage m;

	if (msg_storage_decode(in, &m) < 0)
		return false;
	msg_storage_encode(out, &m);
	msg_storage_release(&m);
	return true;
}

static bool limits(struct blob in, struct buf *out)
{
	struct msg_limits m;

	if (msg_limits_decode(in, &m) < 0)
		return false;
	msg_limits_encode(out, &m);
	return true;
}

static bool run(struct blob in, struct buf *out)
{
	struct msg_run m;

	if (msg_run_decode(in, &m) < 0)
		return false;
	check_clean(m.exe);
	check_clean(m.cwd);
	check_caller(&m.caller);
	CHECK(m.path[0] && m.argv[0] && m.env);
	msg_run_encode(out, &m);
	msg_run_release(&m);
	return true;
}

static bool run_exit(struct blob in, struct buf *out)
{
	_cleanup_free_ char *worker = NULL;
	uint32_t code;
	uint8_t how;

	if (msg_run_exit_decode(in, &how, &code, &worker) < 0)
		return false;
	msg_run_exit_encode(out, how, code, worker);
	return true;
}

static bool run_fail(struct blob in, struct buf *out)
{
	struct msg_run_fail m;

	if (msg_run_fail_decode(in, &m) < 0)
		return false;
	msg_run_fail_encode(out, &m);
	msg_run_fail_release(&m);
	return true;
}

static bool ctl(struct blob in, struct buf *out)
{
	_cleanup_strv_ char **words = NULL;

	if (msg_ctl_decode(in, &words) < 0)
		return false;
	CHECK(words[0] && strv_len(words) <= 64);
	msg_ctl_encode(out, words);
	return true;
}

static bool ctl_reply(struct blob in, struct buf *out)
{
	_cleanup_free_ char *text = NULL;
	uint32_t status;

	if (msg_ctl_reply_decode(in, &status, &text) < 0)
		return false;
	msg_ctl_reply_encode(out, status, text);
	return true;
}

static bool run_here(struct blob in, struct buf *out)
{
	struct record r;

	if (record_decode(in, &r) < 0)
		return false;
	record_encode(out, &r);
	record_release(&r);
	return true;
}

static const struct codec {
	bool (*again)(struct blob in, struct buf *out);
	bool many_forms; /* other bytes can mean the same */
} codecs[256] = {
	[MSG_HELLO] = {hello, true}, /* what a later version adds is dropped */
	[MSG_BYE] = {bye},
	[MSG_PING] = {u64},
	[MSG_PONG] = {u64},
	[MSG_ENV] = {env},
	[MSG_CALLER] = {caller},
	[MSG_EXE] = {exe},
	[MSG_JOB] = {job},
	[MSG_JOB_INPUT] = {bytes},
	[MSG_JOB_CREDIT] = {pair},
	[MSG_JOB_KILL] = {pair},
	[MSG_DIR] = {dir},
	[MSG_UPDATE] = {update},
	[MSG_DIR_STALE] = {u32},
	[MSG_CONTENT] = {content},
	[MSG_SERVE] = {serve},
	[MSG_PREFETCH] = {prefetch},
	[MSG_GUESS] = {prefetch},
	[MSG_GUESSED] = {prefetch},
	[MSG_OUTSIDE] = {outside},
	[MSG_LINK] = {symlink_of},
	[MSG_BARE] = {bare},
	[MSG_LIST] = {path},
	[MSG_FETCH] = {fetch},
	[MSG_JOB_OUTPUT] = {output},
	[MSG_JOB_FILE] = {file},
	[MSG_JOB_DATA] = {bytes},
	[MSG_JOB_COMMIT] = {u32},
	[MSG_JOB_EXIT] = {exit_},
	[MSG_INPUT_CREDIT] = {pair},
	[MSG_JOB_QUEUED] = {pair},
	[MSG_JOB_MISSING] = {missing},
	[MSG_JOB_TRACE] = {trace},
	[MSG_LIMITS] = {limits},
	[MSG_MIRROR_COUNTS] = {counts, true}, /* the order of the counts, and zeros */
	[MSG_CHECKUP] = {checkup},
	[MSG_LOAD] = {load},
	[MSG_STORAGE] = {storage},
	[MSG_RUN] = {run},
	[MSG_RUN_HERE] = {run_here, true}, /* records of before are read, too */
	[MSG_RUN_INPUT] = {bytes},
	[MSG_RUN_OUTPUT] = {output},
	[MSG_RUN_INPUT_CREDIT] = {pair},
	[MSG_RUN_OUTPUT_CREDIT] = {pair},
	[MSG_RUN_EXIT] = {run_exit},
	[MSG_RUN_FAIL] = {run_fail, true}, /* any number but 0 says quiet */
	[MSG_CTL] = {ctl},
	[MSG_CTL_REPLY] = {ctl_reply},
};

static bool same(const struct buf *b, struct blob in)
{
	return b->len == in.n && (!in.n || memcmp(b->data, in.p, in.n) == 0);
}

/* A RUN of version 0 means the one of today, or none in the corpus would be looked at for long. */
static struct blob of_today(uint8_t type, struct blob in, struct buf *room)
{
	static const uint8_t zero[4];

	if (type != MSG_RUN || in.n < 4 || memcmp(in.p, zero, 4) != 0)
		return in;
	buf_append(room, in.p, in.n);
	buf_set_u32(room, 0, PROTO_VERSION);
	return (struct blob){room->data, room->len};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_buf_ struct buf once = BUF_INIT, twice = BUF_INIT, room = BUF_INIT;
	const struct codec *c;
	struct blob in;

	if (n < 1)
		return 0;
	c = &codecs[data[0]];
	in = of_today(data[0], (struct blob){data + 1, n - 1}, &room);
	if (!c->again || !c->again(in, &once))
		return 0;
	CHECK(c->many_forms || same(&once, in));
	CHECK(c->again((struct blob){once.data, once.len}, &twice));
	CHECK(same(&twice, (struct blob){once.data, once.len}));
	return 0;
}
