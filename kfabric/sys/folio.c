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
 * kfi_folio_alloc() - allocate a folio
 * @gfp: how; says whether it may sleep
 * @order: it has 2^@order pages; at most kfi_folio_max_order()
 *
 * Return: its first page, or NULL. kfi_folio_put() it.
 */
struct page *kfi_folio_alloc(gfp_t gfp, unsigned int order)
{
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
