/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "git-rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"

#define PATIENCE 6000 /* times 10 ms, until there is a commit */

void git_shell(struct rig *rig, const char *script)
{
	cleanup_free char *command = xasprintf(
		"set -e; cd '%s'; export HOME=$PWD GIT_CONFIG_NOSYSTEM=1"
		" GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org"
		" GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@example.org"
		" tool='%s/xendisk-git'; eventually() {"
		" for i in $(seq 600); do \"$@\" && return; sleep 0.1;"
		" done; return 1; }; %s",
		rig->images, BUILDDIR, script);

	assert_int_equal(system(command), 0);
}

void git_must(struct rig *rig, int r)
{
	if (r < 0) {
		/* TAP has no room for it. */
		printf("# %d: %s\n", r, rig->why);
		fail();
	}
}

void git_snapshot(struct rig *rig)
{
	char text[MSG_CONTROL_MAX] = "", id[32], state[32] = "", about[64];

	git_must(rig, stack_control(rig->stack, "snapshot", "message=hello\n",
				    text, sizeof(text), rig->why));
	assert_int_equal(xd_pair(text, "id", id, sizeof(id)), 0);
	(void)snprintf(about, sizeof(about), "id=%s\n", id);
	for (unsigned int i = 0; i < PATIENCE && strcmp(state, "committed");
	     i++) {
		usleep(10000);
		text[0] = '\0';
		git_must(rig, stack_control(rig->stack, "status", about, text,
					    sizeof(text), rig->why));
		assert_int_equal(xd_pair(text, "state", state, sizeof(state)),
				 0);
	}
	assert_string_equal(state, "committed");
}

bool git_is_there(void)
{
	if (system("git --version > /dev/null 2>&1") != 0) {
		(void)puts("1..0 # SKIP git is not installed");
		return false;
	}
	/* The committer. */
	(void)setenv("XENDISK_LIBEXEC_DIR", BUILDDIR, 1);
	return true;
}
