/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_SANDBOX_REFUSAL_H
#define CONCC_SANDBOX_REFUSAL_H

/*
 * Why a kernel or distribution refuses namespaces and mounts to an
 * unprivileged user, and what its administrator can do about it.
 */
#include "concc/sandbox.h"

/* A number of /proc/sys; -1: it can't be read. */
long knob_read(const char *path);
/* The remedy for a negative errno of unshare(2), an id map or a mount; static. */
const char *userns_remedy(int err, const struct userns_knobs *k);

#endif
