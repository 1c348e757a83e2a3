/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_WORKER_SPEC_H
#define CONCC_WORKER_SPEC_H

/* How a worker is named and reached: what configuration, pool and link must agree on. */

#define POOL_MEMBERS_MAX 256 /* workers */
#define POOL_NAME_MAX	 63
#define POOL_SLOTS_MAX	 1024	 /* of one member */
#define POOL_LOCAL	 "local" /* the member that stands for this machine itself */

/* What carries an ssh:// address: the library, the program, or whichever can. */
enum ssh_mode { SSH_AUTO, SSH_LIBSSH2, SSH_OPENSSH };

/* Whether this machine's concc-worker is put on a host that has not the same one: never, before
 * the link begins, or without beginning one. */
enum install { INSTALL_NO, INSTALL_YES, INSTALL_ONLY };

#endif
