// SPDX-License-Identifier: GPL-2.0
/*
 * Folios: what is inline, or a macro, of the kernel's that folio.rs calls.
 */

#include <linux/gfp.h>
#include <linux/mm.h>

#include "folio.h"

/**
 * kfi_folio_max_order() - tell how long a folio may be
 *
 * Any context.
 *
 * Return: the greatest order that the allocator has.
 */
unsigned int kfi_folio_max_order(void)
{
	return MAX_PAGE_ORDER;
}

/**
 * kfi_folio_zalloc() - allocate a folio whose bytes are 0
 * @order: it has 2^@order pages; at most kfi_folio_max_order()
 *
 * Sleeps. A long one may take the time to move others out of its way.
 *
 * Return: its first page, or NULL. kfi_folio_put() it.
 */
struct page *kfi_folio_zalloc(unsigned int order)
{
	gfp_t gfp = GFP_KERNEL | __GFP_ZERO | __GFP_RETRY_MAYFAIL | __GFP_NOWARN;
	struct folio *folio = folio_alloc(gfp, order);

	return folio ? folio_page(folio, 0) : NULL;
}

/**
 * kfi_folio_put() - give up a folio
 * @page: its first page
 *
 * It is freed if nobody else refers to it, as a socket that still sends it. Any
 * context but NMI.
 */
void kfi_folio_put(struct page *page)
{
	folio_put(page_folio(page));
}
