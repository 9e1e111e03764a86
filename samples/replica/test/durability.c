// SPDX-License-Identifier: GPL-2.0
/*
 * Durability: what is committed, by what and when.
 */

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
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

	check(up());
	fd = open(NODE, O_RDWR);
	check(fd >= 0);
	/* More extents than are told apart. */
	for (int i = 0; i < 500; i++)
		check(pwrite(fd, "x", 1, i * 16000) == 1);
	check(!fsync(fd));
	check(statistic("commits ") > 0 && statistic("commits ") <= 64);
	check(!fsync(fd) && statistic("commits ") <= 64 && statistic("errors ") == 0);
	close(fd);
	check(down());
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
	TEST(close_does_not_commit),
	TEST(synchronous_writes_commit),
	TEST(scattered_writes_are_all_committed),
	TEST(data_outlives_the_replica),
	{}
};
