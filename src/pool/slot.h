/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_POOL_SLOT_H
#define CONCC_POOL_SLOT_H

/*
 * One slot is one FIFO, slots/<member>.<index>, through which no byte ever goes.
 *
 * Held means: somebody holds the write lock on its byte 0 (F_OFD_SETLK), which
 * the kernel drops at the last close.  A FIFO instead of a plain file because of
 * the order in which the kernel takes a dead holder apart (fs/open.c filp_close,
 * fs/file_table.c __fput):
 *   1. its process-owned locks (F_SETLK) go,
 *   2. the inotify event of the close is queued,
 *   3. its F_OFD_SETLK locks go,
 *   4. the pipe's writer is gone: readers see a hang-up.
 * Who is woken by the event (2) may find the lock still held (before 3), with no
 * second event to wait for.  So the holder also holds a process-owned lock, on
 * byte 1: a slot that is held without it is being closed, and then the hang-up
 * (4), which always follows the lock's end, is what to wait for.  A slot held
 * with it will still give its event.
 */
#include <stdint.h>

#include "table.h"

enum slot_probe { SLOT_FREE, SLOT_HELD, SLOT_CLOSING };

/* Makes the file when it is missing.  0 with the slot held, -EAGAIN when another holds it. */
int slot_lock(int slots_fd, const char *member, uint32_t index, int *ret_fd);
/* The same, but waits for the lock; -EINTR after a signal. */
int slot_lock_wait(int slots_fd, const char *member, uint32_t index, int *ret_fd);
void slot_unlock(int fd);
/*
 * Closes, which tells the heads of the queues.  The event of a close comes with
 * the last copy of a descriptor only, and a child that was just forked may have
 * one; so when the FIFO is still open somewhere, it is opened and closed once more.
 */
void slot_close(int fd, int slots_fd, const char *member, uint32_t index);
/* An enum slot_probe or an error; for SLOT_CLOSING *ret_fd is open and will hang up, else -1. */
int slot_probe(int slots_fd, const char *member, uint32_t index, int *ret_fd);
/* "member.index" into its parts; false for any other file name. */
bool slot_parse_name(const char *file, char *ret_member, uint32_t *ret_index);

#endif
