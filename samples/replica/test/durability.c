// SPDX-License-Identifier: GPL-2.0
/*
 * Durability: what is committed, by what and when.
 */

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

static bool sync_commits_what_was_written_and_no_more(void)
{
	char block[4096] = "";
	long commits;
	int fd, other;

	check(up());
	fd = open(NODE, O_RDWR);
	other = open(NODE, O_RDWR);
	check(fd >= 0 && other >= 0);
	check(!fsync(fd) && statistic("commits ") == 0);
	check(pwrite(fd, block, 4096, 0) == 4096 && pwrite(fd, block, 4096, 4096) == 4096);
	check(!fsync(fd));
	commits = statistic("commits ");
	check(commits == 1);
	check(!fsync(fd) && statistic("commits ") == commits);
	/* Whoever wrote it. */
	check(pwrite(other, block, 1, 1 << 20) == 1 && pwrite(other, block, 1, 2 << 20) == 1);
	check(!fdatasync(fd) && statistic("commits ") == commits + 2);
	check(statistic("writes ") == 4 && statistic("written ") == 8194);
	close(fd);
	close(other);
	check(down());
	return true;
}

/* Writes a range, as long as it may be. */
static bool write_at(int fd, size_t from, size_t len)
{
	static char bytes[140001];

	wrote(from, len);
	return pwrite(fd, bytes, len, from) == (ssize_t)len;
}

static bool sync_commits_each_byte_that_was_written_and_no_other(void)
{
	/* Ranges to be written between two syncs; the last has no length. */
	static const struct { size_t from, len; } rounds[][6] = {
		/* They overlap, and one lies within. */
		{ { 5000, 3000 }, { 7000, 4000 }, { 6000, 100 } },
		/* They touch, from either side; others miss that by a byte. */
		{ { 100, 50 }, { 150, 50 }, { 50, 50 }, { 300, 1 }, { 302, 1 } },
		/* Within one line of the cache, and over the border of two. */
		{ { 4096, 1 }, { 4098, 3 }, { 4159, 2 } },
		/* The first byte and the last. */
		{ { 0, 1 }, { SIZE - 1, 1 } },
		/* In several buffers. */
		{ { 65529, 140001 }, { 300000, 65537 } },
		/* Again. */
		{ { 5000, 3000 } },
		{ },
	};
	struct iovec part = { "1234567", 7 };
	int fd;

	seed = (unsigned long)time(NULL) | 1;
	printf("# seed %lu\n", seed);
	check(up() && watch());
	fd = open(NODE, O_RDWR);
	check(fd >= 0);
	for (size_t n = 0; n < sizeof(rounds) / sizeof(*rounds); n++) {
		for (int i = 0; rounds[n][i].len; i++)
			check(write_at(fd, rounds[n][i].from, rounds[n][i].len));
		check(!fsync(fd) && committed_just(0, SIZE));
	}
	/* No more than are told apart. */
	for (int n = 0; n < 3; n++) {
		for (int i = 0; i < 60; i++)
			check(write_at(fd, random_number() % 100000, 1 + random_number() % 1000));
		check(!fsync(fd) && committed_just(0, SIZE));
	}
	/* A synchronous write commits its own bytes only. */
	check(write_at(fd, 1 << 20, 10));
	wrote(99, 7);
	check(pwritev2(fd, &part, 1, 99, RWF_DSYNC) == 7 && committed_just(99, 7));
	check(!fsync(fd) && committed_just(0, SIZE));
	close(fd);
	check(unwatch() && down());
	return true;
}

static bool close_does_not_commit(void)
{
	int fd;

	check(up());
	fd = open(NODE, O_RDWR);
	check(fd >= 0 && pwrite(fd, "x", 1, 5) == 1);
	close(fd);
	check(statistic("commits ") == 0);
	fd = open(NODE, O_RDWR);
	check(fd >= 0 && !fsync(fd) && statistic("commits ") == 1);
	close(fd);
	check(down());
	return true;
}

static bool synchronous_writes_commit(void)
{
	const int flags[] = { O_DSYNC, O_SYNC };
	char text[10] = "123456789";
	struct iovec part = { text, 10 };
	long commits = 0;
	int fd;

	check(up());
	for (int i = 0; i < 2; i++) {
		fd = open(NODE, O_RDWR | flags[i]);
		check(fd >= 0 && pwrite(fd, text, 10, 4090) == 10);
		check(statistic("commits ") == ++commits);
		check(pwrite(fd, text, 0, 0) == 0 && statistic("commits ") == commits);
		close(fd);
	}
	fd = open(NODE, O_RDWR);
	check(fd >= 0 && pwritev2(fd, &part, 1, 0, RWF_DSYNC) == 10);
	check(statistic("commits ") == commits + 1);
	/* Only its own bytes. */
	check(pwrite(fd, text, 10, 1 << 20) == 10);
	check(pwritev2(fd, &part, 1, 0, RWF_SYNC) == 10);
	check(statistic("commits ") == commits + 2);
	check(!fsync(fd) && statistic("commits ") == commits + 3);
	close(fd);
	check(down());
	return true;
}

static bool scattered_writes_are_all_committed(void)
{
	int fd;

	check(up() && watch());
	fd = open(NODE, O_RDWR);
	check(fd >= 0);
	/* More extents than are told apart. */
	for (int i = 0; i < 500; i++)
		check(write_at(fd, i * 16000, 1));
	check(!fsync(fd) && committed_all());
	check(statistic("commits ") > 0 && statistic("commits ") <= 64);
	check(!fsync(fd) && statistic("commits ") <= 64 && statistic("errors ") == 0);
	close(fd);
	check(unwatch() && down());
	return true;
}

static bool data_outlives_the_replica(void)
{
	unsigned char *data = buffer(SIZE), *seen = buffer(SIZE);
	int fd;

	check(data && seen && up());
	fill(data, SIZE, 77);
	fd = open(NODE, O_RDWR);
	check(fd >= 0 && write(fd, data, SIZE) == SIZE && !fsync(fd));
	close(fd);
	check(down() && up());
	fd = open(NODE, O_RDWR);
	check(fd >= 0 && read(fd, seen, SIZE) == SIZE && !memcmp(data, seen, SIZE));
	close(fd);
	munmap(data, SIZE);
	munmap(seen, SIZE);
	check(down());
	return true;
}

const struct test durability_tests[] = {
	TEST(sync_commits_what_was_written_and_no_more),
	TEST(sync_commits_each_byte_that_was_written_and_no_other),
	TEST(close_does_not_commit),
	TEST(synchronous_writes_commit),
	TEST(scattered_writes_are_all_committed),
	TEST(data_outlives_the_replica),
	{}
};
