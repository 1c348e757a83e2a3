/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_LINK_SSH_COMMAND_H
#define CONCC_LINK_SSH_COMMAND_H

/* Words only: how OpenSSH's client is called, and what the shell of a host is told to start. */
#include <stdint.h>

#include "push.h"

struct ssh_address;

struct ssh_command {
	const char *ssh; /* the client's program; NULL: as PATH has it */
	const struct ssh_address *target;
	const char *program; /* these three as for ssh_command_remote() */
	enum install install;
	const struct worker_file *file;
	uint32_t timeout_ms; /* of the connection */
};

/* On the heap, with all its words. */
char **ssh_command_argv(const struct ssh_command *c);
/* For the shell of the host, which starts program, or without one what push.h has it do; ~/ is its
 * home there.  On the heap. */
char *ssh_command_remote(const char *program, enum install install, const struct worker_file *file);
/* Appends which host, port and user; they are the last options. */
void ssh_command_push_target(char ***argv, const struct ssh_address *a);
const char *ssh_command_program(const char *ssh);

#endif
