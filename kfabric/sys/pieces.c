// SPDX-License-Identifier: GPL-2.0
/*
 * Memory in pieces: what is inline, or a structure of the kernel's that pieces.rs
 * does not need to know.
 */

#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/scatterlist.h>

#include "pieces.h"

/**
 * kfi_pieces_of_table() - tell the pieces that a scatterlist is made of
 * @table: the scatterlist, for the CPU: what a device makes of it is left out
 * @pieces: where they are returned, as many as @table->orig_nents
 *
 * Any context.
 */
void kfi_pieces_of_table(const struct sg_table *table, struct kfi_piece *pieces)
{
	struct scatterlist *sg;
	unsigned int i;

	for_each_sgtable_sg(table, sg, i) {
		pieces[i].page = sg_page(sg);
		pieces[i].offset = sg->offset;
		pieces[i].len = sg->length;
	}
}

/**
 * kfi_piece_map() - map the page that a byte is in
 * @page: the first of pages that follow each other
 * @offset: the byte, counted from the start of @page
 *
 * Any context. The mapping is for this task or interrupt; kunmap_local() it, the
 * last one first.
 *
 * Return: where the byte is.
 */
void *kfi_piece_map(struct page *page, size_t offset)
{
	return kmap_local_page(page + (offset >> PAGE_SHIFT)) + offset_in_page(offset);
}
