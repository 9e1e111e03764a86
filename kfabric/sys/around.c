// SPDX-License-Identifier: GPL-2.0
/*
 * Stores around the cache. Like copy.c in C, since others may write the bytes at the
 * same time, and since memcpy_flushcache() is inline.
 */

#include <linux/kconfig.h>
#include <linux/libnvdimm.h>
#include <linux/string.h>

#include "around.h"

const bool kfi_around_possible = IS_ENABLED(CONFIG_ARCH_HAS_UACCESS_FLUSHCACHE) &&
				 IS_ENABLED(CONFIG_ARCH_HAS_PMEM_API);

/**
 * kfi_copy_around - copy bytes that may change, and leave none of them in the cache
 * @dst: where to
 * @src: where from; may overlap @dst
 * @len: how many bytes
 *
 * Any context. With stores that bypass the cache, as far as they go: what is not in
 * whole aligned words, and what overlaps, is stored in the cache and its lines are
 * written back at once. The fence has other CPUs see the bytes before whatever this
 * one stores next, and sends them to the memory.
 */
void kfi_copy_around(void *dst, const void *src, size_t len)
{
	unsigned long ahead = (unsigned long)dst - (unsigned long)src;

	if (unlikely(ahead < len || -ahead < len)) {
		memmove(dst, src, len);
		arch_wb_cache_pmem(dst, len);
	} else {
		memcpy_flushcache(dst, src, len);
	}
	pmem_wmb();
}

/**
 * kfi_around_fence - wait for the stores of this CPU that went around the cache
 */
void kfi_around_fence(void)
{
	pmem_wmb();
}
