/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "broker/image-roots.h"

#include <fcntl.h>
#include <string.h>

#include "broker/broker.h"
#include "broker/errand.h"
#include "common/log.h"
#include "common/util.h"

#define TIMEOUT_S 10

static void look_work(const void *arg)
{
	const struct settings *settings = arg;

	for (size_t i = 0; i < settings->nr_image_roots; i++) {
		int fd = open(settings->image_roots[i].path,
			      O_PATH | O_DIRECTORY | O_CLOEXEC);

		errand_report((uint32_t)i, fd < 0 ? -errno : 0, -1);
		if (fd >= 0)
			(void)close(fd);
	}
}

static void looked(void *ctx, struct errand_result *results)
{
	struct broker *broker = ctx;
	const struct settings *settings = broker->settings;

	broker->looking = NULL;
	for (size_t i = 0; i < settings->nr_image_roots; i++)
		if (results[i].err < 0)
			log_warning("%s: image-roots: %s: %s; no image in it "
				    "can be attached",
				    settings->image_roots[i].where,
				    settings->image_roots[i].path,
				    strerror(-results[i].err));
}

int image_roots_look(struct broker *broker)
{
	const struct errand_spec spec = {
		.work = look_work,
		.arg = broker->settings,
		.fd = -1,
		.nr_results = broker->settings->nr_image_roots,
		.timeout_s = TIMEOUT_S,
		.done = looked,
		.ctx = broker,
	};
	int r;

	r = spec.nr_results ? errand_start(&broker->looking, broker, &spec) : 0;
	if (r < 0)
		log_warning("image-roots: not looked at: %s", strerror(-r));
	return 0;
}

void image_roots_stop(struct broker *broker)
{
	errand_cancel(TAKE_PTR(broker->looking));
}
