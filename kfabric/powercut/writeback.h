/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_POWERCUT_WRITEBACK_H
#define KFABRIC_POWERCUT_WRITEBACK_H

#include <linux/types.h>

/* Declared once more in sys.rs, which calls them. */
int kfi_wb_start(void);
void kfi_wb_stop(void);
void kfi_wb_watch(u64 addr, u64 len, u32 delay_us);
long kfi_wb_take(u64 *addr, u64 *len, bool *around, void *bytes, size_t size);

#endif /* KFABRIC_POWERCUT_WRITEBACK_H */
