// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of kfi_replica, run in a guest by scripts/test.d/60-replica.
 *
 *   replica_test all DEVICE     every case, behind a plan; DEVICE is the name
 *                               of a persistent-memory block device: pmem0
 *   replica_test before DEVICE  writes what `after` looks for, then waits to
 *                               be killed with the machine
 *   replica_test after DEVICE   after the cut: looks for it, behind a plan
 *
 * A case that fails says the line and what it saw, and ends there.
 */

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "test.h"

char why[256];

static const struct test * const groups[] = {
	settings_tests,
	file_tests,
	durability_tests,
	load_tests,
	removal_tests,
	signal_tests,
	loss_tests,
};

/* How many run() will run. */
static int count(const struct test *test, const char *only)
{
	int n = 0;

	for (; test->name; test++)
		n += !only || !strcmp(only, test->name);
	return n;
}

/* One "ok NAME" or "not ok NAME" line each; the script numbers them. */
static int run(const struct test *test, const char *only)
{
	int failed = 0;

	for (; test->name; test++) {
		struct timespec begin, end;
		bool good;

		if (only && strcmp(only, test->name))
			continue;
		why[0] = 0;
		clock_gettime(CLOCK_MONOTONIC, &begin);
		good = test->run();
		clock_gettime(CLOCK_MONOTONIC, &end);
		if (!good) {
			printf("# %s\n", why);
			/* The next one starts afresh. */
			drop("r");
			drop("s");
		}
		printf("# %ld ms\n", (end.tv_sec - begin.tv_sec) * 1000 +
		       (end.tv_nsec - begin.tv_nsec) / 1000000);
		printf("%sok %s\n", good ? "" : "not ", test->name);
		failed += !good;
	}
	return failed ? 1 : 0;
}

int main(int argc, char **argv)
{
	int status = 0, planned = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 3) {
		fprintf(stderr, "usage: replica_test all|before|after DEVICE [CASE]\n");
		return 2;
	}
	device_name = argv[2];
	snprintf(device, sizeof(device), "/dev/%s", device_name);
	if (!strcmp(argv[1], "before"))
		return before();
	if (!strcmp(argv[1], "after")) {
		printf("1..%d\n", count(cut_tests, NULL));
		return !up() || run(cut_tests, NULL) || !down();
	}
	/* argv ends with NULL. */
	for (unsigned int i = 0; i < sizeof(groups) / sizeof(*groups); i++)
		planned += count(groups[i], argv[3]);
	if (can_fail())
		planned += count(fault_tests, argv[3]);
	printf("1..%d\n", planned);
	for (unsigned int i = 0; i < sizeof(groups) / sizeof(*groups); i++)
		status |= run(groups[i], argv[3]);
	if (can_fail())
		status |= run(fault_tests, argv[3]);
	return status;
}
