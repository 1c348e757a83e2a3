/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "beat.h"

#define TICKS 16 /* in the time after which a peer is dead */
/* Of a frame that is not whole yet, this much is a sign of life; a slow line brings it in seconds.
 */
#define ALIVE_BYTES 1024

void beat_alive(struct beat *b, uint64_t now_ms)
{
	b->alive_ms = now_ms;
	b->silence_ms = 0;
	b->pinged = false;
}

void beat_unasked(struct beat *b, size_t bytes)
{
	b->unasked_bytes += bytes;
	b->unasked_frames++;
}

void beat_hear(struct beat *b, uint64_t bytes, uint64_t frames, uint64_t now_ms)
{
	uint64_t heard = bytes - b->unasked_bytes, whole = frames - b->unasked_frames;

	/* Signed: of a PING that is half here, the rest is still to be taken off. */
	if (whole == b->frames_heard && (int64_t)(heard - b->heard) < ALIVE_BYTES)
		return;
	b->heard = heard;
	b->frames_heard = whole;
	beat_alive(b, now_ms);
}

void beat_ping(struct beat *b, uint64_t now_us, uint8_t ret_token[BEAT_TOKEN_LEN])
{
	b->token++;
	for (int i = 0; i < BEAT_TOKEN_LEN; i++)
		ret_token[i] = (uint8_t)(b->token >> (8 * i));
	b->pinged = true;
	b->pinged_us = now_us;
}

bool beat_is_answer(const struct beat *b, const uint8_t token[BEAT_TOKEN_LEN])
{
	uint64_t got = 0;

	for (int i = 0; i < BEAT_TOKEN_LEN; i++)
		got |= (uint64_t)token[i] << (8 * i);
	return b->pinged_us && got == b->token;
}

uint64_t beat_next_ms(struct beat *b, uint64_t dead_ms, uint64_t ping_ms)
{
	uint64_t tick = dead_ms / TICKS + 1, at = ping_ms;

	if (ping_ms && (!dead_ms || tick > ping_ms))
		tick = ping_ms;
	if (!ping_ms || b->pinged)
		at = b->silence_ms + tick;
	if (dead_ms && at > dead_ms)
		at = dead_ms;
	b->armed_ms = at > b->silence_ms ? at - b->silence_ms : 1;
	return b->armed_ms;
}

void beat_tick(struct beat *b, uint64_t now_ms)
{
	uint64_t idle = now_ms - b->alive_ms;

	b->silence_ms += b->armed_ms;
	if (b->silence_ms > idle)
		b->silence_ms = idle;
}
