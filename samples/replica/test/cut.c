// SPDX-License-Identifier: GPL-2.0
/*
 * The cut: what is written before it, and what is left.
 */

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "test.h"

#define OLD 0x1111111111111111UL
#define SYNCED 0x2222222222222222UL
#define UNSYNCED 0x3333333333333333UL

static void words(unsigned long *at, size_t len, unsigned long value)
{
	for (size_t i = 0; i < len / 8; i++)
		at[i] = value ^ i;
}

int before(void)
{
	unsigned long *data = (unsigned long *)buffer(SIZE);
	int fd;

	if (!data || !up())
		return 1;
	fd = open(NODE, O_RDWR);
	words(data, SIZE, OLD);
	if (fd < 0 || write(fd, data, SIZE) != SIZE || fsync(fd))
		return 1;
	words(data, SIZE, SYNCED);
	if (pwrite(fd, data, SIZE / 2 + 24, 0) != SIZE / 2 + 24 || fsync(fd))
		return 1;
	words(data, SIZE, UNSYNCED);
	if (pwrite(fd, data + SIZE / 8 * 3 / 4, SIZE / 8, SIZE / 4 * 3) != SIZE / 8)
		return 1;
	printf("replica: cut me now\n");
	fflush(stdout);
	pause();
	return 1;
}

static bool synced_bytes_outlive_a_cut(void)
{
	unsigned long *seen = (unsigned long *)buffer(SIZE);
	int fd = open(NODE, O_RDWR);

	check(seen && fd >= 0 && read(fd, seen, SIZE) == SIZE);
	for (size_t i = 0; i < (SIZE / 2 + 24) / 8; i++)
		check(seen[i] == (SYNCED ^ i));
	close(fd);
	munmap(seen, SIZE);
	return true;
}

static bool bytes_without_sync_are_old_or_new(void)
{
	unsigned long *seen = (unsigned long *)buffer(SIZE);
	int fd = open(NODE, O_RDWR);

	check(seen && fd >= 0 && read(fd, seen, SIZE) == SIZE);
	for (size_t i = (SIZE / 2 + 24) / 8; i < SIZE / 8; i++) {
		bool may_be_new = i >= SIZE / 32 * 3 && i < SIZE / 32 * 3 + SIZE / 64;

		check(seen[i] == (OLD ^ i) || (may_be_new && seen[i] == (UNSYNCED ^ i)));
	}
	close(fd);
	munmap(seen, SIZE);
	return true;
}

const struct test cut_tests[] = {
	TEST(synced_bytes_outlive_a_cut),
	TEST(bytes_without_sync_are_old_or_new),
	{}
};
