/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_SYS_FOLIO_H
#define KFABRIC_SYS_FOLIO_H

struct page;

unsigned int kfi_folio_max_order(void);
struct page *kfi_folio_zalloc(unsigned int order);
void kfi_folio_put(struct page *page);

#endif /* KFABRIC_SYS_FOLIO_H */
