/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "pack.h"

#include <lz4.h>
#include <stdlib.h>
#include <zstd.h>

#include "concc/err.h"
#include "concc/str.h"

#define PACK_MIN 1024 /* below this a frame fits a packet or two anyway */
#define LEN_SIZE 4    /* the raw length before the packed bytes */
/* Of a compiler's bytes in frames of 64 KB it leaves 40 % at some 100 MB/s, LZ4 55 % at 250; the
 * next levels leave 39 % at half that. */
#define ZSTD_LEVEL 3

struct packer {
	ZSTD_CCtx *zstd; /* made on the first slow line */
	uint8_t out[PROTO_FRAME_MAX];
};

struct packer *packer_new(void)
{
	return xcalloc(1, sizeof(struct packer));
}

void packer_free(struct packer *p)
{
	if (p)
		(void)ZSTD_freeCCtx(p->zstd);
	free(p);
}

static size_t by_lz4(struct packer *p, const void *payload, size_t n, size_t max)
{
	int got = LZ4_compress_default(payload, (char *)p->out + LEN_SIZE, (int)n, (int)max);

	return got > 0 ? (size_t)got : 0;
}

static size_t by_zstd(struct packer *p, const void *payload, size_t n, size_t max)
{
	size_t got;

	if (!p->zstd)
		p->zstd = ZSTD_createCCtx();
	if (!p->zstd)
		return 0;
	got = ZSTD_compressCCtx(p->zstd, p->out + LEN_SIZE, max, payload, n, ZSTD_LEVEL);
	return ZSTD_isError(got) ? 0 : got; /* it would be more than max */
}

size_t packer_pack(struct packer *p, bool small, const void *payload, size_t n,
		   const uint8_t **ret_packed, uint8_t *ret_flag)
{
	/* A sixteenth saved at least: less is not worth the other side's time. */
	size_t max = n - n / 16 - LEN_SIZE, got;

	if (n < PACK_MIN || n > PROTO_FRAME_MAX)
		return 0;
	got = small ? by_zstd(p, payload, n, max) : by_lz4(p, payload, n, max);
	if (!got)
		return 0;
	for (int i = 0; i < LEN_SIZE; i++)
		p->out[i] = (uint8_t)(n >> (8 * i));
	*ret_packed = p->out;
	*ret_flag = small ? PROTO_F_ZSTD : PROTO_F_LZ4;
	return got + LEN_SIZE;
}

struct unpacker {
	ZSTD_DCtx *zstd; /* made with the first frame of its kind */
	uint8_t out[PROTO_FRAME_MAX];
};

void unpacker_free(struct unpacker *u)
{
	if (u)
		(void)ZSTD_freeDCtx(u->zstd);
	free(u);
}

/* A whole frame of zstd's at once needs no window: what it may take is the payload's size. */
static bool of_zstd(struct unpacker *u, struct rd *r, uint32_t raw_len)
{
	if (!u->zstd)
		u->zstd = ZSTD_createDCtx();
	return u->zstd && ZSTD_decompressDCtx(u->zstd, u->out, raw_len, r->p, r->left) == raw_len;
}

static bool of_lz4(struct unpacker *u, struct rd *r, uint32_t raw_len)
{
	return LZ4_decompress_safe((const char *)r->p, (char *)u->out, (int)r->left,
				   (int)raw_len) == (int)raw_len;
}

int unpacker_unpack(struct unpacker **u, uint8_t flags, struct blob packed, struct blob *ret)
{
	uint8_t how = flags & (PROTO_F_LZ4 | PROTO_F_ZSTD);
	uint32_t raw_len;
	struct rd r;

	rd_init(&r, packed.p, packed.n);
	raw_len = rd_u32(&r);
	if (r.bad || raw_len == 0 || raw_len > PROTO_FRAME_MAX ||
	    how == (PROTO_F_LZ4 | PROTO_F_ZSTD))
		return CONCC_E_PROTO;
	if (!*u)
		*u = xcalloc(1, sizeof(**u));
	if (!(how == PROTO_F_ZSTD ? of_zstd : of_lz4)(*u, &r, raw_len))
		return CONCC_E_PROTO;
	*ret = (struct blob){.p = (*u)->out, .n = raw_len};
	return 0;
}
