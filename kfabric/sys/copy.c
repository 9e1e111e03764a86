// SPDX-License-Identifier: GPL-2.0
/*
 * A copy between memories that others may write at the same time. It is done in C
 * because such a race is undefined in Rust and merely unordered in the kernel's C.
 */

#include <linux/minmax.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "copy.h"

/**
 * kfi_copy - copy bytes that may change while they are copied
 * @dst: where to
 * @src: where from; may overlap @dst
 * @len: how many bytes
 *
 * Any context. Bytes that somebody writes at the same time arrive old or new.
 */
void kfi_copy(void *dst, const void *src, size_t len)
{
	unsigned long ahead = (unsigned long)dst - (unsigned long)src;

	/*
	 * Either difference wraps round to something long where the other does not.
	 * memmove() copies with string instructions where memcpy() does not, which
	 * an emulator makes slow; nearly always nothing overlaps.
	 */
	if (unlikely(ahead < len || -ahead < len))
		memmove(dst, src, len);
	else
		memcpy(dst, src, len);
}

/**
 * kfi_copy_from_medium - copy bytes out of a persistent medium
 * @dst: where to
 * @src: where from, on the medium; must not overlap @dst
 * @len: how many bytes
 *
 * As kfi_copy(), but a medium error is returned instead of killing the kernel,
 * where the processor is able to.
 *
 * Return: how many bytes at the end could not be read, 0 if all could.
 */
size_t kfi_copy_from_medium(void *dst, const void *src, size_t len)
{
	/* copy_mc_to_kernel() takes an unsigned int. */
	while (len) {
		unsigned int part = min_t(size_t, len, SZ_1G);
		unsigned long left = copy_mc_to_kernel(dst, src, part);

		dst += part - left;
		src += part - left;
		len -= part - left;
		if (left)
			break;
	}
	return len;
}
