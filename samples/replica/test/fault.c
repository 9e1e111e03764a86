// SPDX-License-Identifier: GPL-2.0
/*
 * Allocations that fail, where the kernel can make them fail.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

#define FAIL_NTH "/proc/thread-self/fail-nth"

bool can_fail(void)
{
	return access(FAIL_NTH, W_OK) == 0;
}

static void fail_setup(void)
{
	static const char * const files[][2] = {
		{ "failslab/ignore-gfp-wait", "N" },
		{ "fail_page_alloc/ignore-gfp-wait", "N" },
		{ "fail_page_alloc/min-order", "0" },
		{ "failslab/verbose", "0" },
		{ "fail_page_alloc/verbose", "0" },
	};

	for (unsigned int i = 0; i < sizeof(files) / sizeof(*files); i++) {
		char path[128];
		int fd;

		snprintf(path, sizeof(path), "/sys/kernel/debug/%s", files[i][0]);
		fd = open(path, O_WRONLY);
		if (fd >= 0 && write(fd, files[i][1], 1) != 1)
			printf("# %s can't be set\n", path);
		close(fd);
	}
}

static int nth_fd;

static bool fail_nth(int nth)
{
	char text[16];

	return pwrite(nth_fd, text, snprintf(text, sizeof(text), "%d", nth), 0) > 0;
}

/* Whether as many allocations were asked for as were to be made. */
static bool did_fail(void)
{
	char text[16] = "";

	return pread(nth_fd, text, sizeof(text) - 1, 0) > 0 && atoi(text) == 0 && fail_nth(0);
}

/* One in so many of the allocations fails in one run; other runs have the others. */
#define STRIDE 6

static bool failed_allocations_are_survived(void)
{
	int start = 1 + time(NULL) % STRIDE;
	int nth, enabled = 0, fd;
	char path[256];

	fail_setup();
	nth_fd = open(FAIL_NTH, O_RDWR);
	check(nth_fd >= 0 && settings("r"));
	snprintf(path, sizeof(path), "%s/r/enable", ROOT);
	for (nth = start; nth < 2000; nth += STRIDE) {
		bool hit;
		ssize_t n;
		int error;

		fd = open(path, O_WRONLY);
		check(fd >= 0);
		/* The first write allocates the attribute's page. */
		check(fails(write(fd, "x", 1), EINVAL) && lseek(fd, 0, SEEK_SET) == 0);
		check(fail_nth(nth));
		n = write(fd, "1", 1);
		error = errno;
		hit = did_fail();
		fail_nth(0);
		close(fd);
		if (n < 0) {
			errno = error;
			check(hit && errno == ENOMEM);
			continue;
		}
		enabled++;
		check(!access(NODE, F_OK) && !set("enable", "0"));
		if (!hit)
			break;
	}
	printf("# enabling makes about %d allocations; every %dth from %d, %d can fail unseen\n",
	       nth, STRIDE, start, enabled - 1);
	check(nth > 30 && nth < 2000);

	check(!set("enable", "1"));
	for (nth = 1; nth < 100; nth++) {
		bool hit;
		int error;

		check(fail_nth(nth));
		fd = open(NODE, O_RDWR);
		error = errno;
		hit = did_fail();
		fail_nth(0);
		if (fd >= 0)
			close(fd);
		errno = error;
		check(fd >= 0 || (hit && error == ENOMEM));
		if (!hit)
			break;
	}
	check(nth > 1 && nth < 100);
	close(nth_fd);
	check(down());
	return true;
}

static bool transfers_and_syncs_allocate_nothing(void)
{
	unsigned char *data = buffer(4 * CHUNK);
	int fd;

	nth_fd = open(FAIL_NTH, O_RDWR);
	check(nth_fd >= 0 && data && up());
	fill(data, 4 * CHUNK, 5);
	fd = open(NODE, O_RDWR);
	check(fd >= 0);
	for (int i = 0; i < 50; i++) {
		bool hit = true;

		/* Now and then the debugging in the kernel itself makes one: never each time. */
		for (int attempt = 0; hit && attempt < 10; attempt++) {
			check(fail_nth(1));
			check(pwrite(fd, data, 100 + i * 5000, i * 100000) == 100 + i * 5000);
			check(pread(fd, data, 100 + i * 5000, i * 100000) == 100 + i * 5000);
			check(!fsync(fd));
			hit = did_fail();
			check(fail_nth(0));
		}
		check(!hit);
	}
	close(fd);
	close(nth_fd);
	munmap(data, 4 * CHUNK);
	check(down());
	return true;
}

const struct test fault_tests[] = {
	TEST(failed_allocations_are_survived),
	TEST(transfers_and_syncs_allocate_nothing),
	{}
};
