// SPDX-License-Identifier: GPL-2.0
/*
 * The buffers of one measurement.
 *
 * Of pages of their own, in pieces of 64 KiB: the network may hold on to such a page
 * until the peer has acknowledged it, as it may not to one of slab memory.
 */

#include <linux/bvec.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "bare.h"

#define PIECE (64UL << 10)

/* Whether an end has the memory, and can tell the bytes apart. */
bool kfi_bare_is_possible(const struct kfi_bare_question *question)
{
	u64 len = question->len;

	return len && len % sizeof(u64) == 0 && len <= KFI_BARE_MOST &&
	       question->depth && question->depth <= KFI_BARE_MOST / len &&
	       question->count && question->count <= U32_MAX;
}

/* A question that is possible. -ENOMEM. */
int kfi_bare_alloc(struct kfi_bare_buffers *buffers, const struct kfi_bare_question *question)
{
	unsigned int number, piece;
	struct bio_vec *vec;
	struct page *page;
	size_t len;

	buffers->len = question->len;
	buffers->depth = question->depth;
	buffers->pieces = DIV_ROUND_UP(buffers->len, PIECE);
	buffers->order = get_order(min(buffers->len, PIECE));
	buffers->vecs = kvcalloc(array_size(buffers->depth, buffers->pieces), sizeof(*vec),
				 GFP_KERNEL);
	if (!buffers->vecs)
		return -ENOMEM;
	for (number = 0; number < buffers->depth; number++) {
		vec = kfi_bare_vecs(buffers, number);
		for (piece = 0, len = buffers->len; piece < buffers->pieces; piece++) {
			page = alloc_pages(GFP_KERNEL | __GFP_COMP | __GFP_ZERO, buffers->order);
			if (!page) {
				kfi_bare_free(buffers);
				return -ENOMEM;
			}
			bvec_set_page(&vec[piece], page, min(len, PIECE), 0);
			len -= vec[piece].bv_len;
		}
		cond_resched();
	}
	return 0;
}

/* The network may still hold some of the pages, which are freed when it lets go. */
void kfi_bare_free(struct kfi_bare_buffers *buffers)
{
	size_t n, count = array_size(buffers->depth, buffers->pieces);

	for (n = 0; n < count && buffers->vecs[n].bv_page; n++)
		__free_pages(buffers->vecs[n].bv_page, buffers->order);
	kvfree(buffers->vecs);
	buffers->vecs = NULL;
}

struct bio_vec *kfi_bare_vecs(const struct kfi_bare_buffers *buffers, unsigned int number)
{
	return &buffers->vecs[(size_t)number * buffers->pieces];
}

/* The first word of a buffer: others count on from it. */
static u64 kfi_bare_first(unsigned int number, u64 seed)
{
	return (seed << 48) + ((u64)number << 32);
}

void kfi_bare_fill(struct kfi_bare_buffers *buffers, u64 seed)
{
	unsigned int number, piece;
	struct bio_vec *vec;
	u64 word, *at, *end;

	for (number = 0; number < buffers->depth; number++) {
		vec = kfi_bare_vecs(buffers, number);
		word = kfi_bare_first(number, seed);
		for (piece = 0; piece < buffers->pieces; piece++) {
			at = bvec_virt(&vec[piece]);
			end = at + vec[piece].bv_len / sizeof(*at);
			while (at < end)
				*at++ = word++;
		}
		cond_resched();
	}
}

/* Whether a buffer has what such a buffer was filled with. */
bool kfi_bare_has(const struct kfi_bare_buffers *buffers, unsigned int number, u64 seed)
{
	const struct bio_vec *vec = kfi_bare_vecs(buffers, number);
	u64 word = kfi_bare_first(number, seed);
	const u64 *at, *end;
	unsigned int piece;

	for (piece = 0; piece < buffers->pieces; piece++) {
		at = bvec_virt((struct bio_vec *)&vec[piece]);
		end = at + vec[piece].bv_len / sizeof(*at);
		while (at < end)
			if (*at++ != word++)
				return false;
	}
	return true;
}
