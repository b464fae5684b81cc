/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* stats: what the disks' rings have done. */
#include "config.h"

#include "command/stats.h"

#include <string.h>

#include "command/client.h"
#include "command/device.h"
#include "command/tables.h"
#include "common/vdev.h"

#define TIMEOUT_S 10
#define BAR_WIDTH 40

static const char *const operations[] = { "read", "write", "flush", "discard" };

/* --- The table ------------------------------------------------------------ */

static int add_operation(struct table *table, json_t *disk, json_t *queue,
			 const char *name)
{
	json_t *op = json_object_get(queue, name);
	json_t *latency = json_object_get(op, "latency_us");
	const long long numbers[] = {
		member_number(op, "requests"), member_number(op, "bytes"),
		member_number(op, "errors"),   member_number(latency, "p50"),
		member_number(latency, "p99"), member_number(latency, "p999"),
	};
	char cells[4 + ARRAY_SIZE(numbers)][32];
	const char *pointers[ARRAY_SIZE(cells)];

	(void)snprintf(cells[0], sizeof(cells[0]), "%lld",
		       member_number(disk, "domid"));
	vdev_print(cells[1], sizeof(cells[1]),
		   (uint32_t)member_number(disk, "devid"));
	(void)snprintf(cells[2], sizeof(cells[2]), "%lld",
		       member_number(queue, "queue"));
	(void)snprintf(cells[3], sizeof(cells[3]), "%s", name);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		(void)snprintf(cells[4 + i], sizeof(cells[0]), "%lld",
			       numbers[i]);
	for (size_t i = 0; i < ARRAY_SIZE(cells); i++)
		pointers[i] = cells[i];
	return table_add(table, pointers);
}

/* So that nobody wonders where the disk is. */
static int add_unused(struct table *table, json_t *disk)
{
	char domid[24], vdev[32];
	const char *const cells[] = { domid, vdev, "-", "-", "0",
				      "0",   "0",  "-", "-", "-" };

	(void)snprintf(domid, sizeof(domid), "%lld",
		       member_number(disk, "domid"));
	vdev_print(vdev, sizeof(vdev), (uint32_t)member_number(disk, "devid"));
	return table_add(table, cells);
}

/* A line for each ring and kind of request that came; one for a disk that no request
 * has come for. */
static int add_disk(struct table *table, json_t *disk)
{
	bool used = false;
	json_t *queue;
	size_t i;

	json_array_foreach(json_object_get(disk, "queues"), i, queue)
	{
		for (size_t k = 0; k < ARRAY_SIZE(operations); k++) {
			json_t *op = json_object_get(queue, operations[k]);
			int r;

			if (member_number(op, "requests") == 0)
				continue;
			used = true;
			r = add_operation(table, disk, queue, operations[k]);
			if (r < 0)
				return r;
		}
	}
	return used ? 0 : add_unused(table, disk);
}

static enum status print_stats(json_t *disks)
{
	static const struct column columns[] = {
		{ .title = "ID", .right = true },
		{ .title = "VDEV" },
		{ .title = "RING", .right = true },
		{ .title = "OPERATION" },
		{ .title = "REQUESTS", .right = true },
		{ .title = "BYTES", .right = true },
		{ .title = "ERRORS", .right = true },
		{ .title = "P50us", .right = true },
		{ .title = "P99us", .right = true },
		{ .title = "P99.9us", .right = true },
	};
	struct table *table;
	json_t *disk;
	size_t i;
	int r = table_new(&table, columns, ARRAY_SIZE(columns));

	if (r < 0)
		return fail(STATUS_FAILED, "stats: %s", strerror(-r));
	json_array_foreach(disks, i, disk)
	{
		r = add_disk(table, disk);
		if (r < 0)
			break;
	}
	return table_print(table);
}

/* --- Histograms ----------------------------------------------------------- */

/* Over all rings; the keys are numbers. */
static json_t *add_up(json_t *disk, const char *name)
{
	json_t *sum = json_object();
	json_t *queue, *count;
	const char *key;
	size_t i;

	json_array_foreach(json_object_get(disk, "queues"), i, queue)
	{
		json_object_foreach(json_object_get(queue, name), key, count)
		{
			long long n = json_integer_value(count);

			(void)json_object_set_new(
				sum, key,
				json_integer(member_number(sum, key) + n));
		}
	}
	return sum;
}

static void print_histogram(json_t *disk, const char *name, const char *title)
{
	json_t *sum = add_up(disk, name);
	long long most = 1;
	json_t *count;
	const char *key;

	if (json_object_size(sum) > 0)
		printf("\n%s\n", title);
	json_object_foreach(sum, key, count)
		most = MAX(most, (long long)json_integer_value(count));
	for (unsigned int i = 0; i <= 512; i++) {
		char number[16];
		long long n;
		int width;

		(void)snprintf(number, sizeof(number), "%u", i);
		n = member_number(sum, number);
		width = (int)((double)n / (double)most * BAR_WIDTH + 0.5);
		if (n > 0)
			printf("%6u %12lld%s%.*s\n", i, n, width ? " " : "",
			       width,
			       "########################################");
	}
	json_decref(sum);
}

static void print_totals(json_t *disk)
{
	long long requests = 0, errors = 0;
	json_t *queue;
	size_t i;

	json_array_foreach(json_object_get(disk, "queues"), i, queue)
	{
		for (size_t k = 0; k < ARRAY_SIZE(operations); k++) {
			json_t *op = json_object_get(queue, operations[k]);

			requests += member_number(op, "requests");
			errors += member_number(op, "errors");
		}
	}
	printf("%srequests %lld, OK %lld, errors %lld\n",
	       requests > 0 ? "\n" : "", requests, requests - errors, errors);
}

void stats_print_histograms(json_t *disk)
{
	print_histogram(disk, "ring_occupancy",
			"ring occupancy: requests, how often");
	print_histogram(disk, "segments", "segments per request, how often");
	print_totals(disk);
}

/* --- The verb ------------------------------------------------------------- */

enum status verb_stats(const struct invocation *call)
{
	json_t *params = NULL, *reply = NULL, *disks;
	enum status status = STATUS_DONE;

	if (call->nr_args == 1)
		return fail(STATUS_USAGE, "stats: usage: xendisk stats %s",
			    call->verb->synopsis);
	if (call->nr_args == 2)
		status = device_params(call, &params);
	if (status == STATUS_DONE)
		status = client_call(call, "Stats", params, TIMEOUT_S, &reply);
	if (status != STATUS_DONE)
		return status;
	if (call->json)
		return print_json(reply);
	disks = json_object_get(reply, "disks");
	status = print_stats(disks);
	if (status == STATUS_DONE && call->nr_args == 2)
		stats_print_histograms(json_array_get(disks, 0));
	json_decref(reply);
	return status;
}
