/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_CLEANUP_H
#define CONCC_CLEANUP_H

/*
 * Locals that free themselves when they leave scope, and the explicit
 * hand-over of what they hold.  Define and initialise in one statement; order
 * of release is the reverse of definition.  errno survives every cleanup.
 * A function uses either these or `goto out`, never both.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *pp)
{
	int saved = errno;

	free(*(void **)pp);
	errno = saved;
}

static inline void cleanup_close(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;

		/* Not retried: on Linux the number is free even after EINTR. */
		(void)close(*fd);
		errno = saved;
	}
}

#define _cleanup_(fn)	__attribute__((cleanup(fn)))
#define _cleanup_free_	_cleanup_(cleanup_free)
#define _cleanup_close_ _cleanup_(cleanup_close)

/* Defines cleanup_NAME() for a type with a `void free_fn(type *)`. */
#define DEFINE_CLEANUP(type, name, free_fn)                                                        \
	static inline void cleanup_##name(type **pp)                                               \
	{                                                                                          \
		int saved = errno;                                                                 \
                                                                                                   \
		if (*pp)                                                                           \
			free_fn(*pp);                                                              \
		errno = saved;                                                                     \
	}                                                                                          \
	struct concc_swallow_semicolon_##name

static inline int steal_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

static inline void *steal_ptr_(void *pp)
{
	void *taken = *(void **)pp;

	*(void **)pp = NULL;
	return taken;
}

/* Takes what *pp owns; *pp is NULL afterwards. */
#define steal_ptr(pp) ((__typeof__(*(pp)))steal_ptr_(pp))

#endif
