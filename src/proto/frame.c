/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "concc/proto.h"

#include <endian.h>
#include <string.h>

#include "concc/err.h"

const char *msg_name(uint8_t type)
{
	static const char *const names[256] = {
		[MSG_HELLO] = "HELLO",
		[MSG_BYE] = "BYE",
		[MSG_PING] = "PING",
		[MSG_PONG] = "PONG",
		[MSG_READY] = "READY",
		[MSG_ENV] = "ENV",
		[MSG_CALLER] = "CALLER",
		[MSG_EXE] = "EXE",
		[MSG_JOB] = "JOB",
		[MSG_JOB_INPUT] = "JOB_INPUT",
		[MSG_JOB_CREDIT] = "JOB_CREDIT",
		[MSG_JOB_KILL] = "JOB_KILL",
		[MSG_DIR] = "DIR",
		[MSG_UPDATE] = "UPDATE",
		[MSG_DIR_STALE] = "DIR_STALE",
		[MSG_CONTENT] = "CONTENT",
		[MSG_SERVE] = "SERVE",
		[MSG_PREFETCH] = "PREFETCH",
		[MSG_OUTSIDE] = "OUTSIDE",
		[MSG_LINK] = "LINK",
		[MSG_BARE] = "BARE",
		[MSG_GUESS] = "GUESS",
		[MSG_LIMITS] = "LIMITS",
		[MSG_LIST] = "LIST",
		[MSG_FETCH] = "FETCH",
		[MSG_JOB_OUTPUT] = "JOB_OUTPUT",
		[MSG_JOB_FILE] = "JOB_FILE",
		[MSG_JOB_DATA] = "JOB_DATA",
		[MSG_JOB_COMMIT] = "JOB_COMMIT",
		[MSG_JOB_EXIT] = "JOB_EXIT",
		[MSG_INPUT_CREDIT] = "INPUT_CREDIT",
		[MSG_JOB_MISSING] = "JOB_MISSING",
		[MSG_JOB_TRACE] = "JOB_TRACE",
		[MSG_MIRROR_COUNTS] = "MIRROR_COUNTS",
		[MSG_LOAD] = "LOAD",
		[MSG_CHECKUP] = "CHECKUP",
		[MSG_STORAGE] = "STORAGE",
		[MSG_JOB_QUEUED] = "JOB_QUEUED",
		[MSG_GUESSED] = "GUESSED",
		[MSG_RUN] = "RUN",
		[MSG_RUN_OUTPUT] = "RUN_OUTPUT",
		[MSG_RUN_INPUT] = "RUN_INPUT",
		[MSG_RUN_INPUT_CREDIT] = "RUN_INPUT_CREDIT",
		[MSG_RUN_OUTPUT_CREDIT] = "RUN_OUTPUT_CREDIT",
		[MSG_RUN_CANCEL] = "RUN_CANCEL",
		[MSG_RUN_HERE] = "RUN_HERE",
		[MSG_RUN_EXIT] = "RUN_EXIT",
		[MSG_RUN_FAIL] = "RUN_FAIL",
		[MSG_CTL] = "CTL",
		[MSG_CTL_REPLY] = "CTL_REPLY",
	};

	return names[type] ? names[type] : "?";
}

void proto_put_header(uint8_t out[PROTO_HEADER_LEN], uint8_t type, uint8_t flags, uint32_t len)
{
	len = htole32(len);
	memcpy(out, &len, sizeof(len));
	out[4] = type;
	out[5] = flags;
	out[6] = out[7] = 0;
}

int proto_get_header(const uint8_t in[PROTO_HEADER_LEN], struct proto_header *ret)
{
	uint32_t len;

	memcpy(&len, in, sizeof(len));
	len = le32toh(len);
	if (len > PROTO_FRAME_MAX || in[5] & ~(PROTO_F_MORE | PROTO_F_LZ4 | PROTO_F_ZSTD) ||
	    in[6] || in[7])
		return CONCC_E_PROTO;
	*ret = (struct proto_header){.len = len, .type = in[4], .flags = in[5]};
	return 0;
}
