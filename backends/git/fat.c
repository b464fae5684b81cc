/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Theory of operation
 *
 * The file system is FAT32 as in Microsoft's "FAT: General Overview of On-Disk
 * Format" 1.03, from front to back: maybe a partition table, the boot sector and
 * FSInfo (and their copies), two FATs, the clusters.  Each file and folder lies
 * in one piece, folders first, so that the table of who begins where (`used`) is
 * all that is needed: an entry of the FAT is the next cluster, or the end.
 *
 * What is not used is at the end, and reads as zeroes.  It is there because a
 * file system with fewer than 65525 clusters would not be FAT32; it costs
 * nothing.
 */
#include "config.h"

#include "fat.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "common/util.h"
#include "names.h"

#define FIRST_CLUSTER  2u
#define LEAST_CLUSTERS 65600u /* FAT32 has at least 65525 */
#define MOST_CLUSTERS  0x0ffffff0u
#define MOST_BYTES     ((1ull << 41) - (8ull << 30)) /* with room for FATs */
#define RESERVED       32u
#define BACKUP	       6u /* sector of the boot sector's copy */
#define END_OF_CHAIN   0x0fffffffu
#define ENTRY	       32u
#define PER_SLOT       13u
#define TYPE_FAT32     0x0c /* in a partition table: with LBA */
#define TYPE_ESP       0xef

#define ATTR_READ_ONLY 0x01
#define ATTR_LABEL     0x08
#define ATTR_FOLDER    0x10
#define ATTR_ARCHIVE   0x20
#define ATTR_LONG      0x0f

static const struct fat *fat_of(const struct layout *layout)
{
	return (const struct fat *)(const void *)layout;
}

/* Clusters that are used. */
static uint32_t nr_used(const struct fat *fat)
{
	return fat->used.end - FIRST_CLUSTER;
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
 * FAT32.  size: of the disk; 0: it is not given. */
static uint32_t choose_cluster(const struct vtree *tree, uint64_t bytes,
			       uint64_t size)
{
	uint64_t room = size - size / 32; /* the rest is for the FATs */
	uint32_t cluster = 4096;

	while (cluster < 32768 && MAX(bytes, size) > ((uint64_t)cluster << 21))
		cluster *= 2;
	while (cluster > FAT_SECTOR && room / cluster < LEAST_CLUSTERS &&
	       count_clusters(tree, cluster) < LEAST_CLUSTERS)
		cluster /= 2;
	return cluster;
}

static void place(struct fat *fat, struct vtree *tree, bool folders)
{
	for (uint32_t i = 0; i < tree->nr; i++) {
		const struct vnode *node = &tree->nodes[i];

		if ((node->kind == VNODE_DIR) == folders && node->size > 0)
			extents_place(&fat->used, tree, i);
	}
}

/* Whole clusters of 4096 bytes, at multiples of that. */
static void set_sizes(struct fat *fat, uint32_t clusters)
{
	uint32_t before;

	fat->nr_clusters = ALIGN_UP(clusters, 8u);
	fat->fat_sectors = DIV_ROUND_UP((fat->nr_clusters + FIRST_CLUSTER) * 4,
					FAT_SECTOR);
	before = RESERVED + 2 * fat->fat_sectors;
	fat->reserved = RESERVED + ALIGN_UP(before, 8u) - before;
	fat->hidden = fat->type ? LAYOUT_PARTITION_AT : 0;
	fat->data =
		(uint64_t)(fat->hidden + fat->reserved + 2 * fat->fat_sectors) *
		FAT_SECTOR;
	fat->layout.size =
		fat->data + (uint64_t)fat->nr_clusters * fat->cluster;
}

/* As many clusters as a disk of that size has room for. */
static int use_size(struct fat *fat, uint64_t size, char *ret_why)
{
	uint64_t clusters;

	if (size < fat->layout.size)
		return why(ret_why, -ENOSPC,
			   "size: %" PRIu64
			   " bytes are too few: the tree needs "
			   "a disk of %" PRIu64,
			   size, fat->layout.size);
	if (size > MOST_BYTES)
		return why(ret_why, -EFBIG,
			   "size: %" PRIu64 " bytes are more than FAT32 can "
			   "have (2 TiB)",
			   size);
	clusters = (size - fat->data) / fat->cluster;
	do {
		set_sizes(fat, (uint32_t)clusters & ~7u);
		clusters -= 8; /* those, the FATs are larger by now */
	} while (fat->layout.size > size);
	return 0;
}

static int lay_out(struct fat *fat, struct vtree *tree, uint64_t size,
		   char *ret_why)
{
	uint64_t bytes, clusters;
	int r = measure(tree, &bytes, ret_why);

	if (r < 0)
		return r;
	fat->cluster = choose_cluster(tree, bytes, size);
	clusters = count_clusters(tree, fat->cluster);
	if (clusters > MOST_CLUSTERS - LEAST_CLUSTERS ||
	    clusters * fat->cluster > MOST_BYTES)
		return why(ret_why, -EFBIG,
			   "%" PRIu64 " bytes are more than FAT32 can hold "
			   "(2 TiB)",
			   bytes);
	r = extents_new(&fat->used, tree, tree->nr, fat->cluster,
			FIRST_CLUSTER);
	if (r < 0)
		return why(ret_why, r, "the layout: no memory");
	place(fat, tree, true);
	place(fat, tree, false);
	set_sizes(fat, MAX(nr_used(fat), LEAST_CLUSTERS));
	return size ? use_size(fat, size, ret_why) : 0;
}

static void fat_free(struct layout *layout)
{
	struct fat *fat = container_of(layout, struct fat, layout);

	extents_free(&fat->used);
	free(fat);
}

static int fat_make(struct layout **ret, struct vtree *tree,
		    const struct layout_options *options, char *ret_why)
{
	struct fat *fat = calloc(1, sizeof(*fat));
	const uint8_t *id = options->id;
	int r;

	if (!fat)
		return why(ret_why, -ENOMEM, "the layout: no memory");
	fat->layout.ops = &fat_ops;
	fat->tree = tree;
	fat->serial = (uint32_t)id[0] << 24 | (uint32_t)id[1] << 16 |
		      (uint32_t)id[2] << 8 | id[3];
	fat->type = options->partition == LAYOUT_ESP ? TYPE_ESP :
		    options->partition == LAYOUT_MBR ? TYPE_FAT32 :
						       0;
	(void)snprintf(fat->label, sizeof(fat->label), "%-11s", options->label);
	for (char *p = fat->label; *p; p++)
		*p = (char)toupper((unsigned char)*p);
	fat->writable = options->writable;
	r = lay_out(fat, tree, options->size, ret_why);
	if (r < 0) {
		fat_free(&fat->layout);
		return r;
	}
	*ret = &fat->layout;
	return 0;
}

static int fat_check(const struct layout_options *options, char *ret_why)
{
	const char *label = options->label;
	size_t n = strlen(label);

	for (const char *p = label; *p; p++)
		if (!isalnum((unsigned char)*p) &&
		    !strchr(" $%'-_@~!(){}^#&", *p))
			n = SIZE_MAX;
	if (n >= 1 && n <= FAT_LABEL_BYTES && label[0] != ' ')
		return 0;
	return why(ret_why, -EINVAL,
		   "label: \"%.40s\" is not 1 to 11 letters, digits or "
		   "$%%'-_@~!(){}^#&",
		   label);
}

/* --- Boot sector, FSInfo, partition table ----------------------------------- */

static uint32_t nr_sectors(const struct fat *fat)
{
	return (uint32_t)(fat->layout.size / FAT_SECTOR - fat->hidden);
}

static void sign(uint8_t *sector)
{
	sector[510] = 0x55;
	sector[511] = 0xaa;
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
	put32(ret + 44, fat->tree->nodes[0].block);
	put16(ret + 48, 1); /* FSInfo */
	put16(ret + 50, BACKUP);
	ret[64] = 0x80;
	ret[66] = 0x29;
	put32(ret + 67, fat->serial);
	memcpy(ret + 71, fat->label, FAT_LABEL_BYTES);
	memcpy(ret + 82, "FAT32   ", 8);
	ret[90] = 0xeb; /* there is nothing to boot: an endless loop */
	ret[91] = 0xfe;
	sign(ret);
}

static void fs_info(const struct fat *fat, uint8_t *ret)
{
	uint32_t left = fat->nr_clusters - nr_used(fat);

	put32(ret, 0x41615252);
	put32(ret + 484, 0x61417272);
	put32(ret + 488, left);
	put32(ret + 492, left ? fat->used.end : UINT32_MAX);
	sign(ret);
}

/* --- The FAT --------------------------------------------------------------- */

static void fat_entries(const struct fat *fat, uint32_t first, uint8_t *ret)
{
	uint32_t end = fat->used.end;
	uint32_t index = extents_owner(&fat->used, MAX(first, FIRST_CLUSTER));

	for (uint32_t c = first; c < first + FAT_SECTOR / 4 && c < end; c++) {
		if (c < FIRST_CLUSTER) { /* the medium; "clean, no errors" */
			put32(ret, c == 0 ? 0x0ffffff8 : END_OF_CHAIN);
		} else {
			if (c == extents_end(&fat->used, index))
				index++;
			put32(ret, c + 1 == extents_end(&fat->used, index) ?
					   END_OF_CHAIN :
					   c + 1);
		}
		ret += 4;
	}
}

static void fat_meta(const struct layout *layout, uint64_t sector, uint8_t *ret)
{
	const struct fat *fat = fat_of(layout);
	uint64_t n = sector - fat->hidden;

	memset(ret, 0, FAT_SECTOR);
	if (sector < fat->hidden) {
		if (sector == 0)
			layout_mbr(ret, fat->serial, fat->type, layout->size);
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
	entry(ret, bytes,
	      is_dir	    ? ATTR_FOLDER :
	      fat->writable ? ATTR_ARCHIVE :
			      ATTR_READ_ONLY,
	      node->block, is_dir ? 0 : (uint32_t)node->size, stamp);
	ret[12] = lower;
	return ret + ENTRY;
}

static void fat_folder(const struct layout *layout, uint32_t node, uint8_t *ret)
{
	const struct fat *fat = fat_of(layout);
	const struct vnode *dir = &fat->tree->nodes[node];
	struct stamp stamp = make_stamp(fat->tree->time);
	uint8_t label[SHORT_BYTES];

	if (node == 0) {
		memcpy(label, fat->label, sizeof(label));
		entry(ret, label, ATTR_LABEL, 0, 0, stamp);
		ret += ENTRY;
	} else {
		/* The root is written as 0 there, wherever it is. */
		uint32_t up =
			dir->parent ? fat->tree->nodes[dir->parent].block : 0;

		entry(ret, (const uint8_t *)".          ", ATTR_FOLDER,
		      dir->block, 0, stamp);
		entry(ret + ENTRY, (const uint8_t *)"..         ", ATTR_FOLDER,
		      up, 0, stamp);
		ret += 2 * ENTRY;
	}
	for (uint32_t i = 0; i < dir->nr; i++)
		ret = child_entries(fat, dir->first + i, i + 1, stamp, ret);
}

/* --- What is where ---------------------------------------------------------- */

static struct piece fat_find(const struct layout *layout, uint64_t offset,
			     uint64_t length)
{
	const struct fat *fat = fat_of(layout);
	uint64_t used = fat->data + (uint64_t)nr_used(fat) * fat->cluster;

	if (offset < fat->data)
		return (struct piece){ .kind = PIECE_META,
				       .length = MIN(length,
						     fat->data - offset) };
	if (offset < used)
		return extents_find(&fat->used, offset - fat->data, length);
	return (struct piece){ .length = length };
}

static void fat_describe(const struct layout *layout, char *ret, size_t size)
{
	(void)snprintf(ret, size, "FAT32, clusters of %u bytes",
		       fat_of(layout)->cluster);
}

const struct layout_ops fat_ops = {
	.name = "fat",
	.unit = FAT_SECTOR,
	.check = fat_check,
	.make = fat_make,
	.free = fat_free,
	.find = fat_find,
	.meta = fat_meta,
	.folder = fat_folder,
	.describe = fat_describe,
};
