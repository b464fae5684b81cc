/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The file system is FAT32 as in Microsoft's "FAT: General Overview of On-Disk
 * Format" 1.03, from front to back: maybe a partition table, the boot sector and
 * FSInfo (and their copies), two FATs, the clusters.  Each file and folder lies
 * in one piece, folders first, so that the table of who begins where (`order`
 * and the nodes' `cluster`) is all that is needed: an entry of the FAT is the
 * next cluster, or the end.
 *
 * What is not used is at the end, and reads as zeroes.  It is there because a
 * file system with fewer than 65525 clusters would not be FAT32; it costs
 * nothing.
 */
#include "config.h"

#include "fat.h"

#include <inttypes.h>
#include <string.h>

#include "common/util.h"
#include "names.h"

#define FIRST_CLUSTER  2u
#define LEAST_CLUSTERS 65600u /* FAT32 has at least 65525 */
#define MOST_CLUSTERS  0x0ffffff0u
#define RESERVED       32u
#define BACKUP	       6u /* sector of the boot sector's copy */
#define PARTITION_AT   2048u /* sector */
#define END_OF_CHAIN   0x0fffffffu
#define ENTRY	       32u
#define PER_SLOT       13u

#define ATTR_READ_ONLY 0x01
#define ATTR_LABEL     0x08
#define ATTR_FOLDER    0x10
#define ATTR_LONG      0x0f

static void put16(uint8_t *p, uint32_t value)
{
	p[0] = (uint8_t)value;
	p[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *p, uint32_t value)
{
	put16(p, value & 0xffff);
	put16(p + 2, value >> 16);
}

/* --- Layout --------------------------------------------------------------- */

static int measure_folder(struct vtree *tree, uint32_t folder, char *ret_why)
{
	struct vnode *dir = &tree->nodes[folder];
	uint64_t slots = folder == 0 ? 1 : 2; /* the label; "." and ".." */
	char path[200];

	for (uint32_t i = dir->first; i < dir->first + dir->nr; i++) {
		int n = name_slots(vtree_name(tree, i));

		if (n < 0)
			return why(ret_why, n,
				   "%s: the name has more than %d characters",
				   vtree_path(tree, i, path, sizeof(path)),
				   NAME_UNITS_MAX);
		slots += (unsigned int)n;
	}
	dir->size = slots * ENTRY;
	if (dir->size > FAT_DIR_MAX)
		return why(ret_why, -E2BIG,
			   "%s: %u names are more than FAT has room for in one "
			   "folder (%u entries)",
			   vtree_path(tree, folder, path, sizeof(path)),
			   dir->nr, FAT_DIR_MAX / ENTRY);
	return 0;
}

static int measure(struct vtree *tree, uint64_t *ret_bytes, char *ret_why)
{
	char path[200];
	int r = 0;

	*ret_bytes = 0;
	for (uint32_t i = 0; i < tree->nr && r == 0; i++) {
		if (tree->nodes[i].kind == VNODE_DIR)
			r = measure_folder(tree, i, ret_why);
		else if (tree->nodes[i].size > UINT32_MAX)
			r = why(ret_why, -EFBIG,
				"%s: %" PRIu64 " bytes are more than a file on "
				"FAT can have (4 GiB)",
				vtree_path(tree, i, path, sizeof(path)),
				tree->nodes[i].size);
		*ret_bytes += tree->nodes[i].size;
	}
	return r;
}

static uint64_t count_clusters(const struct vtree *tree, uint32_t cluster)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < tree->nr; i++)
		n += DIV_ROUND_UP(tree->nodes[i].size, cluster);
	return n;
}

/* As mkfs.fat chooses for what has to be stored; smaller where that fills a
 * FAT32. */
static uint32_t choose_cluster(const struct vtree *tree, uint64_t bytes)
{
	uint32_t cluster = 4096;

	while (cluster < 32768 && bytes > ((uint64_t)cluster << 21))
		cluster *= 2;
	while (cluster > FAT_SECTOR &&
	       count_clusters(tree, cluster) < LEAST_CLUSTERS)
		cluster /= 2;
	return cluster;
}

static void place(struct fat *fat, struct vtree *tree, bool folders)
{
	for (uint32_t i = 0; i < tree->nr; i++) {
		struct vnode *node = &tree->nodes[i];

		if ((node->kind == VNODE_DIR) != folders || node->size == 0)
			continue;
		node->cluster = FIRST_CLUSTER + fat->used;
		fat->used += (uint32_t)DIV_ROUND_UP(node->size, fat->cluster);
		fat->order[fat->nr_order++] = i;
	}
}

/* Whole clusters of 4096 bytes, at multiples of that. */
static void set_sizes(struct fat *fat)
{
	uint32_t before;

	fat->nr_clusters = MAX(fat->used, LEAST_CLUSTERS);
	fat->nr_clusters = ALIGN_UP(fat->nr_clusters, 8u);
	fat->fat_sectors = DIV_ROUND_UP((fat->nr_clusters + FIRST_CLUSTER) * 4,
					FAT_SECTOR);
	before = RESERVED + 2 * fat->fat_sectors;
	fat->reserved = RESERVED + ALIGN_UP(before, 8u) - before;
	fat->hidden = fat->options.partition ? PARTITION_AT : 0;
	fat->data =
		(uint64_t)(fat->hidden + fat->reserved + 2 * fat->fat_sectors) *
		FAT_SECTOR;
	fat->size = fat->data + (uint64_t)fat->nr_clusters * fat->cluster;
}

int fat_layout(struct fat *ret, struct vtree *tree,
	       const struct fat_options *options, char *ret_why)
{
	struct fat fat = { .tree = tree, .options = *options };
	uint64_t bytes, clusters;
	int r = measure(tree, &bytes, ret_why);

	if (r < 0)
		return r;
	fat.cluster = choose_cluster(tree, bytes);
	clusters = count_clusters(tree, fat.cluster);
	if (clusters > MOST_CLUSTERS - LEAST_CLUSTERS ||
	    clusters * fat.cluster > (1ull << 41) - (8ull << 30))
		return why(ret_why, -EFBIG,
			   "%" PRIu64 " bytes are more than FAT32 can hold "
			   "(2 TiB)",
			   bytes);
	fat.order = calloc(tree->nr, sizeof(*fat.order));
	if (!fat.order)
		return why(ret_why, -ENOMEM, "the layout: no memory");
	place(&fat, tree, true);
	place(&fat, tree, false);
	set_sizes(&fat);
	*ret = fat;
	return 0;
}

void fat_free(struct fat *fat)
{
	free(TAKE_PTR(fat->order));
}

/* --- Boot sector, FSInfo, partition table ----------------------------------- */

static uint32_t nr_sectors(const struct fat *fat)
{
	return (uint32_t)(fat->size / FAT_SECTOR - fat->hidden);
}

static void sign(uint8_t *sector)
{
	sector[510] = 0x55;
	sector[511] = 0xaa;
}

static void partition_table(const struct fat *fat, uint8_t *ret)
{
	uint8_t *entry = ret + 446;

	put32(ret + 440, fat->options.serial);
	/* Cylinders, heads and sectors that say: look at the numbers. */
	memcpy(entry + 1, "\xfe\xff\xff", 3);
	entry[4] = fat->options.partition;
	memcpy(entry + 5, "\xfe\xff\xff", 3);
	put32(entry + 8, fat->hidden);
	put32(entry + 12, nr_sectors(fat));
	sign(ret);
}

static void boot_sector(const struct fat *fat, uint8_t *ret)
{
	memcpy(ret, "\xeb\x58\x90XENDISK ", 11);
	put16(ret + 11, FAT_SECTOR);
	ret[13] = (uint8_t)(fat->cluster / FAT_SECTOR);
	put16(ret + 14, fat->reserved);
	ret[16] = 2; /* FATs */
	ret[21] = 0xf8; /* a hard disk */
	put16(ret + 24, 63); /* geometry, which nobody uses any more */
	put16(ret + 26, 255);
	put32(ret + 28, fat->hidden);
	put32(ret + 32, nr_sectors(fat));
	put32(ret + 36, fat->fat_sectors);
	put32(ret + 44, fat->tree->nodes[0].cluster);
	put16(ret + 48, 1); /* FSInfo */
	put16(ret + 50, BACKUP);
	ret[64] = 0x80;
	ret[66] = 0x29;
	put32(ret + 67, fat->options.serial);
	memcpy(ret + 71, fat->options.label, FAT_LABEL_BYTES);
	memcpy(ret + 82, "FAT32   ", 8);
	ret[90] = 0xeb; /* there is nothing to boot: an endless loop */
	ret[91] = 0xfe;
	sign(ret);
}

static void fs_info(const struct fat *fat, uint8_t *ret)
{
	uint32_t left = fat->nr_clusters - fat->used;

	put32(ret, 0x41615252);
	put32(ret + 484, 0x61417272);
	put32(ret + 488, left);
	put32(ret + 492, left ? FIRST_CLUSTER + fat->used : UINT32_MAX);
	sign(ret);
}

/* --- The FAT --------------------------------------------------------------- */

/* Which of `order` has this cluster, which is used? */
static uint32_t owner_of(const struct fat *fat, uint32_t cluster)
{
	uint32_t low = 0, high = fat->nr_order;

	while (high - low > 1) {
		uint32_t mid = low + (high - low) / 2;

		if (fat->tree->nodes[fat->order[mid]].cluster <= cluster)
			low = mid;
		else
			high = mid;
	}
	return low;
}

/* The cluster after the last one of it. */
static uint32_t end_of(const struct fat *fat, uint32_t index)
{
	if (index + 1 == fat->nr_order)
		return FIRST_CLUSTER + fat->used;
	return fat->tree->nodes[fat->order[index + 1]].cluster;
}

static void fat_entries(const struct fat *fat, uint32_t first, uint8_t *ret)
{
	uint32_t end = FIRST_CLUSTER + fat->used;
	uint32_t index = owner_of(fat, MAX(first, FIRST_CLUSTER));

	for (uint32_t c = first; c < first + FAT_SECTOR / 4 && c < end; c++) {
		if (c < FIRST_CLUSTER) { /* the medium; "clean, no errors" */
			put32(ret, c == 0 ? 0x0ffffff8 : END_OF_CHAIN);
		} else {
			if (c == end_of(fat, index))
				index++;
			put32(ret, c + 1 == end_of(fat, index) ? END_OF_CHAIN :
								 c + 1);
		}
		ret += 4;
	}
}

void fat_sector(const struct fat *fat, uint64_t sector, uint8_t ret[FAT_SECTOR])
{
	uint64_t n = sector - fat->hidden;

	memset(ret, 0, FAT_SECTOR);
	if (sector < fat->hidden) {
		if (sector == 0)
			partition_table(fat, ret);
	} else if (n == 0 || n == BACKUP) {
		boot_sector(fat, ret);
	} else if (n == 1 || n == BACKUP + 1) {
		fs_info(fat, ret);
	} else if (n == 2 || n == BACKUP + 2) {
		sign(ret);
	} else if (n >= fat->reserved) {
		n = (n - fat->reserved) % fat->fat_sectors;
		fat_entries(fat, (uint32_t)n * (FAT_SECTOR / 4), ret);
	}
}

/* --- Folders --------------------------------------------------------------- */

/* Days since 1970 to a date (Howard Hinnant, "chrono-compatible low-level date
 * algorithms"). */
static uint32_t fat_date(int64_t days)
{
	int64_t z = days + 719468;
	int64_t era = z / 146097;
	int64_t doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;
	int64_t day = doy - (153 * mp + 2) / 5 + 1;
	int64_t month = mp < 10 ? mp + 3 : mp - 9;
	int64_t year = yoe + era * 400 + (month <= 2);

	return (uint32_t)((year - 1980) << 9 | month << 5 | day);
}

struct stamp {
	uint32_t date;
	uint32_t time;
};

/* From 1980 to 2107, UTC, every two seconds. */
static struct stamp make_stamp(int64_t time)
{
	int64_t t = MIN(MAX(time, 315532800), 4354819198);
	int64_t s = t % 86400;

	return (struct stamp){
		.date = fat_date(t / 86400),
		.time = (uint32_t)(s / 3600 << 11 | s / 60 % 60 << 5 |
				   s % 60 / 2),
	};
}

static void entry(uint8_t *ret, const uint8_t name[SHORT_BYTES], uint8_t attr,
		  uint32_t cluster, uint32_t size, struct stamp stamp)
{
	memset(ret, 0, ENTRY);
	memcpy(ret, name, SHORT_BYTES);
	ret[11] = attr;
	put16(ret + 14, stamp.time); /* made */
	put16(ret + 16, stamp.date);
	put16(ret + 18, stamp.date); /* read */
	put16(ret + 20, cluster >> 16);
	put16(ret + 22, stamp.time); /* written */
	put16(ret + 24, stamp.date);
	put16(ret + 26, cluster & 0xffff);
	put32(ret + 28, size);
}

static uint8_t sum_short(const uint8_t name[SHORT_BYTES])
{
	uint8_t sum = 0;

	for (int i = 0; i < SHORT_BYTES; i++)
		sum = (uint8_t)((sum & 1 ? 0x80 : 0) + (sum >> 1) + name[i]);
	return sum;
}

/* One entry of 13 units; the last piece of a name comes first. */
static void long_entry(uint8_t *ret, const uint16_t *units, unsigned int n,
		       unsigned int piece, uint8_t sum)
{
	static const uint8_t places[PER_SLOT] = { 1,  3,  5,  7,  9,  14, 16,
						  18, 20, 22, 24, 28, 30 };
	unsigned int pieces = DIV_ROUND_UP(n, PER_SLOT);

	memset(ret, 0, ENTRY);
	ret[0] = (uint8_t)((piece + 1) | (piece + 1 == pieces ? 0x40 : 0));
	ret[11] = ATTR_LONG;
	ret[13] = sum;
	for (unsigned int i = 0; i < PER_SLOT; i++) {
		unsigned int at = piece * PER_SLOT + i;

		put16(ret + places[i], at < n  ? units[at] :
				       at == n ? 0 :
						 0xffff);
	}
}

/* Returns where the next one goes. */
static uint8_t *child_entries(const struct fat *fat, uint32_t child,
			      uint32_t number, struct stamp stamp, uint8_t *ret)
{
	const struct vnode *node = &fat->tree->nodes[child];
	const char *name = vtree_name(fat->tree, child);
	uint16_t units[NAME_UNITS_MAX];
	uint8_t bytes[SHORT_BYTES], lower = 0;
	bool is_dir = node->kind == VNODE_DIR;
	int n = 0;

	if (!name_is_short(name, bytes, &lower)) {
		lower = 0;
		n = name_units(name, units);
		name_short(name, number, bytes);
	}
	for (unsigned int piece = DIV_ROUND_UP((unsigned int)n, PER_SLOT);
	     piece-- > 0; ret += ENTRY)
		long_entry(ret, units, (unsigned int)n, piece,
			   sum_short(bytes));
	entry(ret, bytes, is_dir ? ATTR_FOLDER : ATTR_READ_ONLY, node->cluster,
	      is_dir ? 0 : (uint32_t)node->size, stamp);
	ret[12] = lower;
	return ret + ENTRY;
}

void fat_folder(const struct fat *fat, uint32_t node, uint8_t *ret)
{
	const struct vnode *dir = &fat->tree->nodes[node];
	struct stamp stamp = make_stamp(fat->tree->time);
	uint8_t label[SHORT_BYTES];

	if (node == 0) {
		memcpy(label, fat->options.label, sizeof(label));
		entry(ret, label, ATTR_LABEL, 0, 0, stamp);
		ret += ENTRY;
	} else {
		/* The root is written as 0 there, wherever it is. */
		uint32_t up =
			dir->parent ? fat->tree->nodes[dir->parent].cluster : 0;

		entry(ret, (const uint8_t *)".          ", ATTR_FOLDER,
		      dir->cluster, 0, stamp);
		entry(ret + ENTRY, (const uint8_t *)"..         ", ATTR_FOLDER,
		      up, 0, stamp);
		ret += 2 * ENTRY;
	}
	for (uint32_t i = 0; i < dir->nr; i++)
		ret = child_entries(fat, dir->first + i, i + 1, stamp, ret);
}

/* --- What is where ---------------------------------------------------------- */

/* Of a cluster that is used. */
static struct fat_piece find_node(const struct fat *fat, uint64_t offset,
				  uint64_t length)
{
	uint64_t in_data = offset - fat->data;
	uint32_t cluster = FIRST_CLUSTER + (uint32_t)(in_data / fat->cluster);
	uint32_t index = owner_of(fat, cluster);
	const struct vnode *node = &fat->tree->nodes[fat->order[index]];
	uint64_t end =
		(uint64_t)(end_of(fat, index) - node->cluster) * fat->cluster;
	uint64_t at = in_data -
		      (uint64_t)(node->cluster - FIRST_CLUSTER) * fat->cluster;

	if (at >= node->size)
		return (struct fat_piece){ FAT_ZERO, MIN(length, end - at), 0,
					   0 };
	return (struct fat_piece){ FAT_NODE, MIN(length, node->size - at),
				   fat->order[index], at };
}

struct fat_piece fat_find(const struct fat *fat, uint64_t offset,
			  uint64_t length)
{
	uint64_t used = fat->data + (uint64_t)fat->used * fat->cluster;

	if (offset < fat->data)
		return (struct fat_piece){ FAT_META,
					   MIN(length, fat->data - offset), 0,
					   0 };
	if (offset < used)
		return find_node(fat, offset, length);
	return (struct fat_piece){ FAT_ZERO, length, 0, 0 };
}
