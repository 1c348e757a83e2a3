/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_BEAT_H
#define CONCC_LINK_BEAT_H

/*
 * Is the peer of a link alive?  When to send a PING, what is a sign of life, and how long there was
 * none.  Pure: times and counts are the caller's.
 *
 * A sign of life is anything but what the peer sends unasked, again and again: PING and LOAD.  When
 * the way to it is cut and the one back is not, those still come; only an answer to our own PING
 * says that it hears us.  Nor is a byte now and then one: a peer that is stuck inside a frame could
 * go on for ever.
 *
 * Silence is counted in ticks, and however late a tick is, it counts for no more than it was to
 * last.  When this machine is too busy to run us, or was suspended, or we were stopped, then the
 * silence was ours: the peer gets the same number of ticks.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BEAT_TOKEN_LEN 8 /* of PING and PONG */

struct beat {
	uint64_t alive_ms;   /* the last sign of life */
	uint64_t silence_ms; /* since, but for the time in which we did not run ourselves */
	uint64_t armed_ms;   /* what the timer was set to */
	uint64_t unasked_bytes, unasked_frames;
	uint64_t heard, frames_heard; /* at the last sign of life, but for what came unasked */
	uint64_t pinged_us;	      /* when the last PING was given to the stream's queue */
	bool pinged;		      /* since the last sign of life */
	uint64_t token;
};

void beat_alive(struct beat *b, uint64_t now_ms);
/* A message of so many bytes came that the peer sends unasked. */
void beat_unasked(struct beat *b, size_t bytes);
/* So much has come on this link in all. */
void beat_hear(struct beat *b, uint64_t bytes, uint64_t frames, uint64_t now_ms);

/* A PING is sent now, with this token. */
void beat_ping(struct beat *b, uint64_t now_us, uint8_t ret_token[BEAT_TOKEN_LEN]);
/* Is it to the last PING, not to one that it was late for? */
bool beat_is_answer(const struct beat *b, const uint8_t token[BEAT_TOKEN_LEN]);

/*
 * Until the next time that matters, at which beat_tick() is called: an answer moves it on when it
 * comes, not before.  While one is awaited there are ticks.  The peer is dead after dead_ms of
 * silence, a PING is sent after ping_ms; 0: never.
 */
uint64_t beat_next_ms(struct beat *b, uint64_t dead_ms, uint64_t ping_ms);
void beat_tick(struct beat *b, uint64_t now_ms);

#endif
