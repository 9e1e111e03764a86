/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_SYS_COPY_H
#define KFABRIC_SYS_COPY_H

#include <linux/types.h>

void kfi_copy(void *dst, const void *src, size_t len);
size_t kfi_copy_from_medium(void *dst, const void *src, size_t len);

#endif /* KFABRIC_SYS_COPY_H */
