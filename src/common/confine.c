/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "common/confine.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/sanitized.h"
#include "common/util.h"

/* --- The user ----------------------------------------------------------------- */

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (syscall(SYS_capset, &header, none) < 0)
		return -errno;
	return 0;
}

void confine_ordinary(void)
{
	cleanup_close int fd =
		open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
		(void)!write(fd, "0", 1);
}

int confine_memory(uint64_t bytes)
{
	struct rlimit limit;

	if (SANITIZED)
		return 0;
	if (getrlimit(RLIMIT_DATA, &limit) < 0)
		return -errno;
	limit.rlim_max = MIN(limit.rlim_max, (rlim_t)bytes);
	limit.rlim_cur = MIN(limit.rlim_cur, limit.rlim_max);
	return setrlimit(RLIMIT_DATA, &limit) < 0 ? -errno : 0;
}

int confine_become(uint32_t uid, uint32_t gid)
{
	uid_t real, effective, saved;

	if (uid == 0)
		return drop_capabilities();
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 ||
	    setresuid(uid, uid, uid) < 0)
		return -errno;
	if (getresuid(&real, &effective, &saved) < 0 || real != uid ||
	    effective != uid || saved != uid)
		return -EPERM;
	return drop_capabilities();
}

/* --- Paths and the network ---------------------------------------------------- */

/* By number: the headers of older systems lack what newer kernels know. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule	    445
#define SYS_landlock_restrict_self  446
#endif
#define RULESET_VERSION 1u /* LANDLOCK_CREATE_RULESET_VERSION */
#define PATH_BENEATH	1 /* LANDLOCK_RULE_PATH_BENEATH */

struct ruleset {
	uint64_t fs; /* handled_access_fs */
	uint64_t net; /* handled_access_net */
	uint64_t scoped;
};

struct path_beneath {
	uint64_t access;
	int32_t fd;
} __attribute__((packed)); /* as the kernel has it */

#define BIT(n)	(1ull << (n))
#define BITS(n) (BIT(n) - 1)

/* LANDLOCK_ACCESS_FS_... */
#define READING	 (BIT(0) | BIT(2) | BIT(3)) /* EXECUTE, READ_FILE, READ_DIR */
#define OF_FILES (BIT(0) | BIT(1) | BIT(2) | BIT(14) | BIT(15))
/* ... WRITE_FILE, TRUNCATE, IOCTL_DEV: the only ones that files may have. */

/* All that each version of the kernel's interface can handle, and how much of
 * the struct it knows. */
static const struct {
	size_t bytes;
	struct ruleset all;
} abis[] = {
	[1] = { 8, { BITS(13), 0, 0 } },
	[2] = { 8, { BITS(14), 0, 0 } },
	[3] = { 8, { BITS(15), 0, 0 } },
	[4] = { 16, { BITS(15), BITS(2), 0 } },
	[5] = { 16, { BITS(16), BITS(2), 0 } },
	[6] = { 24, { BITS(16), BITS(2), BITS(2) } },
};

static int add_rule(int ruleset, const struct confine_path *path, uint64_t all)
{
	struct path_beneath beneath = {
		.access = path->rights == CONFINE_ALL ? all : READING,
		.fd = path->fd,
	};
	struct stat st;

	if (fstat(path->fd, &st) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		beneath.access &= OF_FILES;
	return syscall(SYS_landlock_add_rule, ruleset, PATH_BENEATH, &beneath,
		       0) < 0 ?
		       -errno :
		       0;
}

int confine_paths(const struct confine_path *paths, size_t nr)
{
	cleanup_close int fd = -1;
	long abi;
	int r = 0;

	abi = syscall(SYS_landlock_create_ruleset, NULL, 0, RULESET_VERSION);
	if (abi < 1)
		return 0;
	abi = MIN(abi, (long)ARRAY_SIZE(abis) - 1);
	fd = (int)syscall(SYS_landlock_create_ruleset, &abis[abi].all,
			  abis[abi].bytes, 0);
	if (fd < 0)
		return -errno;
	for (size_t i = 0; r == 0 && i < nr; i++)
		r = add_rule(fd, &paths[i], abis[abi].all.fs);
	if (r == 0 && syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		r = -errno;
	return r;
}
