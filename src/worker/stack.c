/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stack.c - the life of an open disk expression.
 *
 *	stack_open()		text -> layers -> modules -> open disks
 *	stack_channel_open()	once per lane
 *	stack_activate()	a guest is there: locks
 *	    requests		disk.c
 *	stack_deactivate()	it is gone: write out, unlock
 *	stack_channel_close()
 *	stack_close()
 *
 * Opening goes from the bottom up, so that a filter finds the disks below it
 * open; closing goes the other way.  Whatever fails is undone here, and said in
 * one sentence that names the layer.  All of it runs on the main thread.
 */
#include "config.h"

#include "worker/disk.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "worker/sparse.h"
#include "worker/spin.h"
#include "worker/stack.h"
#include "worker/written.h"

/* --- From text to disks --------------------------------------------------- */

static const struct backend_info *find_backend(void *ctx, const char *name)
{
	return modules_info(ctx, name);
}

/* The text is canonical: a URI stands in the parentheses of its backend. */
static const struct backend_info *no_scheme(void *ctx, const char *scheme)
{
	(void)ctx;
	(void)scheme;
	return NULL;
}

static int parse(struct stack *stack, const char *expression, bool read_only,
		 char *ret_why)
{
	const struct expr_env env = { .ctx = stack->modules,
				      .backend = find_backend,
				      .scheme = no_scheme };
	struct expr_error error;
	int r;

	r = expr_parse(expression, read_only, &env, &stack->root, &error);
	if (r == -EINVAL && *modules_error(stack->modules))
		(void)snprintf(ret_why, MSG_TEXT_MAX, "%s",
			       modules_error(stack->modules));
	else if (r == -EINVAL)
		(void)snprintf(ret_why, MSG_TEXT_MAX, "at byte %zu: %s",
			       error.position, error.message);
	else if (r < 0)
		(void)snprintf(ret_why, MSG_TEXT_MAX, "%s", strerror(-r));
	return r;
}

/* disk(x, ...) is no layer of the stack: it sets the policy and is x. */
static struct layer *take_policy(struct stack *stack)
{
	const struct expr_value *poll_us;
	struct layer *root = stack->root;

	stack->policy.poll_ns = POLL_AUTO;
	while (root->info == expr_disk_info()) {
		if (strcmp(expr_value(root, "on-error")->text, "report") == 0)
			stack->policy.on_error = ON_ERROR_REPORT;
		if (strcmp(expr_value(root, "flush-error")->text, "hold") == 0)
			stack->policy.flush_error = FLUSH_ERROR_HOLD;
		poll_us = expr_value(root, "poll-max-us");
		if (poll_us->given)
			stack->policy.poll_ns = poll_us->number * 1000;
		root = root->below[0];
	}
	return root;
}

/* The parameter of a layer that its nth disk stands in. */
static const struct xd_param *position_of(const struct layer *layer,
					  unsigned int n)
{
	const struct xd_param *param = layer->info->params;

	for (; param->type != XD_END; param++)
		if (param->type == XD_DISK && n-- == 0)
			return param;
	return NULL;
}

static int add_disk(struct stack *stack, struct layer *layer,
		    struct host_disk **ret);

static int add_below(struct stack *stack, struct layer *layer,
		     struct xd_disk **below)
{
	struct host_disk *hd, *left = NULL;
	int r;

	for (unsigned int i = 0; i < layer->nr_below; i++) {
		r = add_disk(stack, layer->below[i], &hd);
		if (r < 0)
			return r;
		hd->left = left;
		hd->position = position_of(layer, i);
		below[i] = &hd->disk;
		left = hd;
	}
	return 0;
}

/* Puts a layer into the array, after those below it. */
static int add_disk(struct stack *stack, struct layer *layer,
		    struct host_disk **ret)
{
	cleanup_free struct xd_disk **below = NULL;
	struct host_disk *hd;
	int r;

	below = calloc(layer->nr_below + 1, sizeof(*below));
	if (!below)
		return -ENOMEM;
	r = add_below(stack, layer, below);
	if (r < 0)
		return r;
	assert(stack->nr_disks < EXPR_MAX_LAYERS);
	hd = &stack->disks[stack->nr_disks++];
	hd->stack = stack;
	hd->layer = layer;
	hd->below = TAKE_PTR(below);
	hd->disk.backend = modules_backend(stack->modules, layer->info);
	hd->disk.nr_below = layer->nr_below;
	hd->disk.below = hd->below;
	if (!hd->disk.backend) {
		xd_error(&hd->disk, "only the whole disk can be %s(...)",
			 layer->info->name);
		return -EINVAL;
	}
	*ret = hd;
	return 0;
}

/* --- Limits --------------------------------------------------------------- */

/* NULL when they make sense.  An author may have got them wrong: not our bug,
 * so no assert. */
static const char *find_fault(const struct xd_limits *l)
{
	if (!is_power_of_2(l->sector_size) || l->sector_size < 512 ||
	    l->sector_size > 4096)
		return "sector_size is not 512, 1024, 2048 or 4096";
	if (l->size == 0 || l->size % l->sector_size)
		return "size is not a multiple of sector_size";
	if (l->size > INT64_MAX)
		return "size is more than a file offset can be";
	if (l->physical_sector_size % l->sector_size)
		return "physical_sector_size is not a multiple of sector_size";
	if (l->discard_granularity % l->sector_size)
		return "discard_granularity is not a multiple of sector_size";
	if (l->discard_granularity &&
	    (l->discard_alignment % l->sector_size ||
	     l->discard_alignment >= l->discard_granularity))
		return "discard_alignment is no offset within a piece";
	if (!is_power_of_2(l->memory_alignment))
		return "memory_alignment is not a power of two";
	if (l->max_transfer % l->sector_size)
		return "max_transfer is not a multiple of sector_size";
	return NULL;
}

static int set_limits(struct host_disk *hd, const struct xd_limits *given)
{
	struct xd_limits limits = *given;
	const char *fault;

	if (limits.physical_sector_size == 0)
		limits.physical_sector_size = limits.sector_size;
	if (limits.memory_alignment == 0)
		limits.memory_alignment = 1;
	if (hd->layer->read_only)
		limits.readonly = true;
	fault = find_fault(&limits);
	if (fault) {
		xd_error(&hd->disk, "its open() gave wrong limits: %s", fault);
		return -EINVAL;
	}
	hd->disk.limits = limits;
	return 0;
}

/* The parser has seen to it where the expression tells; a file without write
 * permission shows only now. */
static int check_writable(struct host_disk *hd)
{
	if (!hd->disk.limits.readonly || hd->layer->read_only ||
	    !hd->position || !(hd->position->flags & XD_WRITTEN))
		return 0;
	xd_error(&hd->disk,
		 "is read-only, but stands where it is written to "
		 "(%s)",
		 hd->position->name);
	return -EROFS;
}

/* --- Open and close ------------------------------------------------------- */

static void take_size_of_sibling(struct host_disk *hd)
{
	for (unsigned int i = 0; i < hd->layer->info->nr_params; i++) {
		struct expr_value *value = &hd->layer->values[i];

		if (value->set || !hd->left ||
		    !(hd->layer->info->params[i].flags & XD_SIZE_OF_SIBLING))
			continue;
		value->number = hd->left->disk.limits.size;
		value->set = true;
	}
}

static void close_disk(struct host_disk *hd)
{
	if (!hd->is_open)
		return;
	hd->disk.backend->close(&hd->disk);
	hd->is_open = false;
}

static int open_disk(struct host_disk *hd)
{
	struct xd_limits limits = { 0 };
	int r;

	hd->stack->why[0] = '\0';
	take_size_of_sibling(hd);
	r = hd->disk.backend->open(&hd->disk, &limits);
	if (r < 0) {
		if (!hd->stack->why[0])
			xd_error(&hd->disk, "%s", strerror(-r));
		return r;
	}
	hd->is_open = true;
	r = set_limits(hd, &limits);
	return r < 0 ? r : check_writable(hd);
}

static int open_disks(struct stack *stack)
{
	int r;

	for (unsigned int i = 0; i < stack->nr_disks; i++) {
		r = open_disk(&stack->disks[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Those of the top, but as many lanes as the least of all layers can take: not
 * every filter passes that on. */
static void combine_limits(struct stack *stack)
{
	uint32_t most, least = 0;

	for (unsigned int i = 0; i < stack->nr_disks; i++) {
		most = stack->disks[i].disk.limits.max_channels;
		if (most && (!least || most < least))
			least = most;
	}
	stack->limits = stack->disks[stack->nr_disks - 1].disk.limits;
	stack->limits.max_channels = least;
}

static bool has_identity(const struct host_disk *hd)
{
	return hd->identity && !hd->layer->read_only;
}

/* Written to in one place, and the same in another: what the guest writes would
 * change what it reads there. */
static int check_twice(const struct stack *stack, const struct host_disk *hd,
		       char *ret_why)
{
	for (unsigned int i = 0; i < stack->nr_disks; i++) {
		const struct host_disk *other = &stack->disks[i];

		if (other == hd || !other->identity ||
		    strcmp(other->identity, hd->identity) != 0)
			continue;
		return msg_why(ret_why, -EINVAL,
			       "%s: %s is used twice in the expression, and "
			       "written to",
			       hd->layer->info->name,
			       hd->layer->values[0].text);
	}
	return 0;
}

static int check_identities(const struct stack *stack, char *ret_why)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < stack->nr_disks; i++) {
		const struct host_disk *hd = &stack->disks[i];

		if (!has_identity(hd))
			continue;
		if (check_twice(stack, hd, ret_why) < 0)
			return -EINVAL;
		n++;
	}
	if (n <= MSG_MAX_IDENTITIES)
		return 0;
	return msg_why(ret_why, -E2BIG,
		       "it is written to %u places, more than %d", n,
		       MSG_MAX_IDENTITIES);
}

int stack_open(struct stack **ret, const struct stack_spec *spec,
	       struct services *services, char *ret_why)
{
	struct stack *stack = sparse_new(sizeof(*stack));
	struct host_disk *top;
	int r = -ENOMEM;

	(void)snprintf(ret_why, MSG_TEXT_MAX, "no memory");
	if (!stack)
		return r;
	stack->services = services;
	pause_init(&stack->pause, services);
	pthread_mutex_init(&stack->now_lock, NULL);
	stack->state_dir = spec->state_dir;
	stack->modules = modules_new(spec->backend_dir);
	if (stack->modules)
		r = parse(stack, spec->expression, spec->read_only, ret_why);
	if (r == 0) {
		r = add_disk(stack, take_policy(stack), &top);
		if (r == 0)
			r = open_disks(stack);
		if (r < 0 && stack->why[0])
			(void)snprintf(ret_why, MSG_TEXT_MAX, "%s", stack->why);
	}
	if (r == 0)
		r = check_identities(stack, ret_why);
	if (r < 0) {
		stack_close(stack);
		return r;
	}
	combine_limits(stack);
	stack->state_dir = NULL; /* it is the caller's */
	*ret = stack;
	return 0;
}

void stack_close(struct stack *stack)
{
	if (!stack)
		return;
	for (unsigned int i = stack->nr_disks; i-- > 0;) {
		close_disk(&stack->disks[i]);
		layer_forget(&stack->disks[i]);
		free(stack->disks[i].below);
	}
	written_close(stack);
	pause_destroy(&stack->pause);
	pthread_mutex_destroy(&stack->now_lock);
	expr_free(stack->root);
	modules_free(stack->modules);
	sparse_free(stack, sizeof(*stack));
}

/* --- What it is ----------------------------------------------------------- */

const struct xd_limits *stack_limits(const struct stack *stack)
{
	return &stack->limits;
}

const struct stack_policy *stack_policy(const struct stack *stack)
{
	return &stack->policy;
}

struct pause *stack_pause(struct stack *stack)
{
	return &stack->pause;
}

/* Whole lines only: the broker reads them by the line. */
static void add_notes(struct msg_opened *opened, const char *notes)
{
	size_t used = strlen(opened->notes);

	while (*notes) {
		size_t length = strcspn(notes, "\n") + 1;

		if (used + length >= sizeof(opened->notes))
			return;
		memcpy(opened->notes + used, notes, length);
		used += length;
		opened->notes[used] = '\0';
		notes += length;
	}
}

void stack_describe(const struct stack *stack, struct msg_opened *opened)
{
	opened->limits = stack->limits;
	opened->nr_identities = 0;
	opened->notes[0] = '\0';
	for (unsigned int i = stack->nr_disks; i-- > 0;) {
		const struct host_disk *hd = &stack->disks[i];

		if (has_identity(hd))
			(void)snprintf(
				opened->identity[opened->nr_identities++],
				MSG_IDENTITY_MAX, "%s", hd->identity);
		if (hd->notes)
			add_notes(opened, hd->notes);
	}
}

/* --- A guest comes and goes ----------------------------------------------- */

static void say_why(struct host_disk *hd, int err, char *ret_why)
{
	if (!hd->stack->why[0])
		xd_error(&hd->disk, "%s", strerror(-err));
	(void)snprintf(ret_why, MSG_TEXT_MAX, "%s", hd->stack->why);
}

static int activate_disk(struct host_disk *hd, bool recover, char *ret_why)
{
	int r = 0;

	hd->stack->why[0] = '\0';
	if (hd->disk.backend->activate)
		r = hd->disk.backend->activate(&hd->disk, recover);
	if (r < 0) {
		say_why(hd, r, ret_why);
		return r;
	}
	hd->is_active = true;
	return 0;
}

int stack_activate(struct stack *stack, bool recover, char *ret_why)
{
	char ignored[MSG_TEXT_MAX];
	int r;

	for (unsigned int i = 0; i < stack->nr_disks; i++) {
		r = activate_disk(&stack->disks[i], recover, ret_why);
		if (r < 0) {
			(void)stack_deactivate(stack, ignored);
			return r;
		}
	}
	return 0;
}

static int deactivate_disk(struct host_disk *hd)
{
	if (!hd->is_active)
		return 0;
	hd->is_active = false;
	hd->stack->why[0] = '\0';
	if (!hd->disk.backend->deactivate)
		return 0;
	return hd->disk.backend->deactivate(&hd->disk);
}

/* All are told, whatever the first one says; its error is the one reported. */
int stack_deactivate(struct stack *stack, char *ret_why)
{
	int r, first = 0;

	for (unsigned int i = stack->nr_disks; i-- > 0;) {
		r = deactivate_disk(&stack->disks[i]);
		if (r < 0 && first == 0) {
			first = r;
			say_why(&stack->disks[i], r, ret_why);
		}
	}
	return first;
}

/* --- Lanes ---------------------------------------------------------------- */

static void close_lane(struct stack_lane *lane)
{
	/* Polls and timers of the layers must not come back to what is gone. */
	engine_cancel(lane->engine);
	for (unsigned int i = lane->stack->nr_disks; i-- > 0;) {
		struct host_channel *hc = &lane->channels[i];

		if (hc->is_open && hc->ch.disk->backend->channel_close)
			hc->ch.disk->backend->channel_close(&hc->ch);
		if (hc->is_paused)
			xd_paused(&hc->ch, NULL);
		free(hc->below);
	}
	disk_free_children(lane);
	free(lane);
}

/* The channels stand like the disks, so the index of one is that of the
 * other. */
static int link_channel(struct stack_lane *lane, struct host_channel *hc,
			struct host_disk *hd)
{
	hc->below = calloc(hd->disk.nr_below + 1, sizeof(*hc->below));
	if (!hc->below)
		return -ENOMEM;
	for (unsigned int i = 0; i < hd->disk.nr_below; i++) {
		struct host_disk *below = host_disk_of(hd->below[i]);
		struct host_channel *to =
			&lane->channels[below - lane->stack->disks];

		to->above = hc;
		hc->below[i] = &to->ch;
	}
	hc->ch.disk = &hd->disk;
	hc->ch.below = hc->below;
	return 0;
}

static int open_channel(struct host_channel *hc)
{
	const struct xd_backend *backend = hc->ch.disk->backend;
	int r = 0;

	hc->lane->stack->why[0] = '\0';
	if (backend->channel_open)
		r = backend->channel_open(&hc->ch);
	hc->is_open = r == 0;
	return r;
}

int stack_channel_open(struct stack *stack, struct engine *engine,
		       unsigned int lane_nr, struct xd_channel **ret_top,
		       char *ret_why)
{
	struct stack_lane *lane = calloc(1, sizeof(*lane));
	int r = 0;

	(void)snprintf(ret_why, MSG_TEXT_MAX, "no memory");
	if (!lane)
		return -ENOMEM;
	assert(!stack->limits.max_channels ||
	       lane_nr < stack->limits.max_channels);
	lane->stack = stack;
	lane->engine = engine;
	if (stack->stamps)
		lane->stamp = &stack->stamps->lane[lane_nr % STAMP_LANES];
	for (unsigned int i = 0; r == 0 && i < stack->nr_disks; i++) {
		struct host_channel *hc = &lane->channels[i];

		hc->lane = lane;
		hc->ch.lane = lane_nr;
		hc->stamped = lane->stamp && stack->disks[i].is_temporary;
		r = link_channel(lane, hc, &stack->disks[i]);
		if (r < 0)
			break;
		r = open_channel(hc);
		if (r < 0)
			say_why(&stack->disks[i], r, ret_why);
	}
	if (r < 0) {
		close_lane(lane);
		return r;
	}
	*ret_top = &lane->channels[stack->nr_disks - 1].ch;
	return 0;
}

void stack_channel_close(struct xd_channel *top)
{
	if (top)
		close_lane(host_channel_of(top)->lane);
}
