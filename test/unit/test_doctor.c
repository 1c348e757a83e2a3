/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "doctor/doctor.h"

static void expect(const char *text, enum check want)
{
	cr_expect_eq(cause_of(text), want, "%s: %s, not %s", text, check_name(cause_of(text)),
		     check_name(want));
}

Test(doctor, words_of_ssh_tell_the_check)
{
	expect("w: Permission denied (publickey).", CHECK_KEY);
	expect("ssh://w: user me was not let in with a key (tried: none, there is no key; ...)",
	       CHECK_KEY);
	expect("exit status 255: \"Host key verification failed.\"", CHECK_HOST_KEY);
	/* Both are said of a changed key, and the first counts. */
	expect("ssh-keygen -R w; Host key for w has changed; Host key verification failed.",
	       CHECK_HOST_KEY);
	expect("ssh: Could not resolve hostname w: Name or service not known", CHECK_SSH);
}

Test(doctor, words_of_ours_tell_the_check)
{
	expect("no concc-worker answered: it printed \"sh: concc-worker: not found\"",
	       CHECK_PROGRAM);
	expect("it runs concc 9, which speaks protocol 9, and this is protocol 10", CHECK_VERSION);
	expect("it is a aarch64 machine and this is x86_64", CHECK_VERSION);
	expect("/dev/fuse is not accessible to uid 1000: as root, chmod 0666 /dev/fuse",
	       CHECK_FUSE);
	/* The remedy names user namespaces, too. */
	expect("can't make a user namespace: Permission denied: AppArmor restricts user namespaces",
	       CHECK_APPARMOR);
	expect("can't make a user namespace: No space left on device: as root, sysctl",
	       CHECK_NAMESPACES);
	expect("/usr/bin/gcc could not be read by the job: No space left on device", CHECK_DISK);
	expect("worker w refused the job: its /usr/bin/cc is another version than yours; install the "
	       "same compiler there",
	       CHECK_TOOLCHAIN);
	expect("something nobody has heard of", CHECK_NONE);
}

Test(doctor, commands_for_a_host)
{
	struct conf_worker w = {.name = (char *)"w", .address = (char *)"ssh://me@w:2222"};
	char *root = there_command(&w, true, 0, "modprobe fuse");
	char *user = there_command(&w, true, 1000, "echo 'a b'");

	cr_expect_str_eq(root, "ssh -p 2222 me@w 'modprobe fuse'");
	cr_expect(strstr(user, "sudo sh -c 'echo '\\''a b'\\'''"), "%s", user);
	free(root);
	free(user);
	w.address = (char *)"local:";
	root = there_command(&w, false, 1000, "true");
	cr_expect_str_eq(root, "true");
	free(root);
}
