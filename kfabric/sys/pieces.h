/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_SYS_PIECES_H
#define KFABRIC_SYS_PIECES_H

#include <linux/types.h>

struct page;
struct sg_table;

/**
 * struct kfi_piece - bytes of pages that follow each other
 * @page: the first page
 * @offset: the first byte, counted from the start of @page; may be beyond it
 * @len: how many bytes
 */
struct kfi_piece {
	struct page *page;
	size_t offset;
	size_t len;
};

void kfi_pieces_of_table(const struct sg_table *table, struct kfi_piece *pieces);
void *kfi_piece_map(struct page *page, size_t offset);

#endif /* KFABRIC_SYS_PIECES_H */
