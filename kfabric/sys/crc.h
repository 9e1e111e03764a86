/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_SYS_CRC_H
#define KFABRIC_SYS_CRC_H

#include <linux/crc32.h>
#include <linux/types.h>

u32 kfi_crc32c(const void *data, size_t len);

#endif /* KFABRIC_SYS_CRC_H */
