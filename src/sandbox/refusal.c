/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "refusal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "concc/buf.h"
#include "concc/cleanup.h"
#include "concc/io.h"

long knob_read(const char *path)
{
	_cleanup_buf_ struct buf b = BUF_INIT;

	if (read_file_at(AT_FDCWD, path, 64, &b) < 0 || b.len == 0)
		return -1;
	return strtol(buf_cstr(&b), NULL, 10);
}

void userns_knobs_read(struct userns_knobs *ret)
{
	ret->max_user_namespaces = knob_read("/proc/sys/user/max_user_namespaces");
	ret->unprivileged_userns_clone = knob_read("/proc/sys/kernel/unprivileged_userns_clone");
	ret->apparmor_restrict_unprivileged_userns = knob_read(
		"/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
}

const char *userns_remedy(int err, const struct userns_knobs *k)
{
	if (err == -ENOSPC || err == -EUSERS || k->max_user_namespaces == 0)
		return "as root, sysctl -w user.max_user_namespaces=15000, or run the worker as root";
	if (err != -EPERM && err != -EACCES)
		return "is it Linux 5.11 or newer, with CONFIG_USER_NS?";
	if (k->unprivileged_userns_clone == 0)
		return "as root, sysctl -w kernel.unprivileged_userns_clone=1, or run the worker as root";
	/* Ubuntu lets unshare(2) succeed and then denies what the capabilities are for. */
	if (k->apparmor_restrict_unprivileged_userns == 1)
		return "AppArmor restricts user namespaces here: as root, cp " CONCC_DATADIR
		       "/apparmor/concc-worker /etc/apparmor.d/ && apparmor_parser -r "
		       "/etc/apparmor.d/concc-worker (its path must be concc-worker's), or sysctl -w "
		       "kernel.apparmor_restrict_unprivileged_userns=0, or run the worker as root";
	return "in a container, start it with --cap-add SYS_ADMIN (and, where AppArmor is on, "
	       "--security-opt apparmor=unconfined); in a pod, \"securityContext\": "
	       "{\"capabilities\": {\"add\": [\"SYS_ADMIN\"]}}; in a chroot, start the worker outside "
	       "of it";
}
