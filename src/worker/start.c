/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "worker/start.h"

#include <fcntl.h>
#include <string.h>

#include "common/log.h"
#include "common/util.h"
#include "worker/worker.h"

#define EXIT_USAGE 2

static int environment_u32(const char *name, uint32_t *ret)
{
	const char *text = getenv(name);

	return text ? parse_u32(text, UINT32_MAX, ret) : -ENOENT;
}

/* "5/51728" */
static int parse_disk(const char *word, struct worker_options *ret)
{
	cleanup_free char *domid = strdup(word);
	char *slash = domid ? strchr(domid, '/') : NULL;

	if (!slash)
		return -EINVAL;
	*slash = '\0';
	if (parse_u32(domid, UINT32_MAX, &ret->domid) < 0)
		return -EINVAL;
	return parse_u32(slash + 1, UINT32_MAX, &ret->devid);
}

int worker_start(const char *disk)
{
	struct worker_options worker = { 0 };
	enum log_level level = LOG_LEVEL_INFO;
	const char *word = getenv("XENDISK_WORKER_LOG_LEVEL");
	struct log_who who;
	uint32_t sock, listener;

	worker.vm = getenv("XENDISK_WORKER_VM");
	worker.backend_dir = getenv("XENDISK_WORKER_BACKEND_DIR");
	worker.state_dir = getenv("XENDISK_WORKER_STATE_DIR");
	if (parse_disk(disk, &worker) < 0 || !worker.vm ||
	    !worker.backend_dir || !worker.state_dir || !word ||
	    log_parse_level(word, &level) < 0 ||
	    environment_u32("XENDISK_WORKER_SOCKET", &sock) < 0 ||
	    environment_u32("XENDISK_WORKER_LISTENER", &listener) < 0 ||
	    environment_u32("XENDISK_WORKER_BACKEND_DOMID",
			    &worker.backend_domid) < 0 ||
	    environment_u32("XENDISK_WORKER_UID", &worker.uid) < 0) {
		fprintf(stderr, "xendiskd: --worker: only xendiskd itself "
				"starts workers\n");
		return EXIT_USAGE;
	}
	worker.sock = (int)sock;
	worker.listener = (int)listener;
	(void)fcntl(worker.sock, F_SETFD, FD_CLOEXEC);
	(void)fcntl(worker.listener, F_SETFD, FD_CLOEXEC);
	log_init("xendiskd", level);
	who = (struct log_who){ .domid = worker.domid, .devid = worker.devid };
	/* Also opens the journal, which the worker cannot do later. */
	log_disk(&who, LOG_LEVEL_INFO, "worker %d starts", (int)getpid());
	return worker_main(&worker);
}
