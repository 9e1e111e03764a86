// SPDX-License-Identifier: GPL-2.0
/*
 * Bytes to write, and room for those that are read.
 */

#include <sys/mman.h>

#include "test.h"

unsigned long seed;

unsigned long random_number(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

void fill(unsigned char *at, size_t len, unsigned long tag)
{
	for (size_t i = 0; i < len; i++)
		at[i] = (tag * 2654435761u + i * 40503u + (i >> 8)) >> 3;
}

unsigned char *buffer(size_t len)
{
	unsigned char *at = mmap(NULL, len, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}
