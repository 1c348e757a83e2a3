/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "concc/str.h"

/* Static, and safe in threads: in glibc strerror() is not (2.32 has this one), in musl it is. */
static const char *describe(int err)
{
#ifdef __GLIBC__
	return strerrordesc_np(err);
#else
	return strerror(err);
#endif
}

bool err_is_fact(int err)
{
	static const int facts[] = {-ENOENT, -ENOTDIR, -ELOOP, -ENAMETOOLONG, -EACCES};

	for (size_t i = 0; i < sizeof(facts) / sizeof(*facts); i++) {
		if (err == facts[i])
			return true;
	}
	return false;
}

const char *err_text(int err)
{
	const char *s;

	switch (err) {
	case 0:
		return "success";
	case CONCC_E_PROTO:
		return "the peer broke the protocol";
	case CONCC_E_VERSION:
		return "the peer speaks another version";
	case CONCC_E_TOOBIG:
		return "too large";
	case CONCC_E_CONF:
		return "the configuration is wrong";
	case CONCC_E_UNSAFE:
		return "not safe to use: wrong owner, type or mode";
	case CONCC_E_CLOSED:
		return "the connection was closed";
	case CONCC_E_TIMEOUT:
		return "timed out";
	case CONCC_E_AUTH:
		return "authentication failed";
	case CONCC_E_CONFLICT:
		return "changed while the job ran";
	case CONCC_E_STALE:
		return "that version is gone";
	case CONCC_E_UNAVAIL:
		return "not available";
	case CONCC_E_NO_WAY:
		return "can't be repeated as it is";
	case CONCC_E_SPECIAL:
		return "a fifo, socket or device";
	case CONCC_E_DESCRIPTOR:
		return "an open file of the caller's";
	case CONCC_E_LATER:
		return "not known yet";
	}
	s = describe(err < 0 ? -err : err);
	return s ? s : "unknown error";
}

__attribute__((format(printf, 2, 0))) static void set_text(struct errmsg *msg, const char *fmt,
							   va_list ap)
{
	(void)vsnprintf(msg->text, sizeof(msg->text), fmt, ap); /* cut when too long */
	str_defuse(msg->text);
}

int errmsg_set(struct errmsg *msg, int err, const char *fmt, ...)
{
	va_list ap;

	if (!msg)
		return err;
	va_start(ap, fmt);
	set_text(msg, fmt, ap);
	va_end(ap);
	return err;
}

void err_say(const char *fmt, ...)
{
	struct errmsg msg;
	va_list ap;

	va_start(ap, fmt);
	set_text(&msg, fmt, ap);
	va_end(ap);
	fprintf(stderr, "concc: %s\n", msg.text);
}
