/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_SYS_AROUND_H
#define KFABRIC_SYS_AROUND_H

#include <linux/types.h>

/* Whether this kernel can store around the cache, and write a line back. */
extern const bool kfi_around_possible;

void kfi_copy_around(void *dst, const void *src, size_t len);
void kfi_around_fence(void);

#endif /* KFABRIC_SYS_AROUND_H */
