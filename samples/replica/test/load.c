// SPDX-License-Identifier: GPL-2.0
/*
 * Many threads at once, also while the replica is removed.
 */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "test.h"

#define THREADS 6

struct worker {
	pthread_t thread;
	int number;
	bool removal;		/* whether ENODEV is to come */
	long calls;
	char why[256];
};

static bool work_on(struct worker *w)
{
	unsigned long span = SIZE / THREADS, from = w->number * span;
	unsigned char *data = buffer(span), *seen = buffer(span);
	unsigned long state = 88172645463325252UL + w->number;
	int fd = open(NODE, O_RDWR);
	bool good = true;

	if (fd < 0 && w->removal)
		goto out;
	good = false;
	if (fd < 0 || !data || !seen)
		goto out;
	for (int i = 0; w->removal || i < 150; i++) {
		unsigned long len, at;
		ssize_t n;
		int error;

		state = state * 6364136223846793005UL + 1442695040888963407UL;
		len = 1 + (state >> 33) % (i % 10 ? 9000 : 200000);
		at = (state >> 20) % (span - len);
		fill(data + at, len, state);
		n = pwrite(fd, data + at, len, from + at);
		if (n >= 0 && n < (ssize_t)len && w->removal)
			n = pwrite(fd, data + at, len, from + at);
		error = errno;
		if (n == (ssize_t)len) {
			n = pread(fd, seen, len, from + at);
			error = errno;
			if (n == (ssize_t)len && memcmp(seen, data + at, len)) {
				snprintf(w->why, sizeof(w->why), "bytes differ at %lu", from + at);
				goto out;
			}
		}
		if (n == (ssize_t)len && i % 16 == 0 && fsync(fd)) {
			n = -1;
			error = errno;
		}
		w->calls++;
		if (n == (ssize_t)len)
			continue;
		if (w->removal && n >= 0)
			continue;
		if (w->removal && error == ENODEV)
			break;
		snprintf(w->why, sizeof(w->why), "%zd of %lu bytes, errno %d", n, len, error);
		goto out;
	}
	good = true;
out:
	if (fd >= 0)
		close(fd);
	munmap(data, span);
	munmap(seen, span);
	return good;
}

static void *worker(void *arg)
{
	return (void *)(long)work_on(arg);
}

static bool run_workers(struct worker *w, bool removal, int round)
{
	bool good = true;

	for (int i = 0; i < THREADS; i++) {
		w[i] = (struct worker){ .number = i, .removal = removal };
		check(!pthread_create(&w[i].thread, NULL, worker, &w[i]));
	}
	if (removal) {
		usleep(20000 + round * 7000);
		good = round % 2 ? down() : !set("enable", "0");
	}
	for (int i = 0; i < THREADS; i++) {
		void *result;

		pthread_join(w[i].thread, &result);
		if (!result) {
			good = false;
			snprintf(why, sizeof(why), "worker %d: %.200s", i, w[i].why);
		}
	}
	return good;
}

static bool many_writers_keep_their_bytes(void)
{
	struct worker w[THREADS];

	check(up());
	if (!run_workers(w, false, 0))
		return false;
	check(statistic("errors ") == 0);
	check(down());
	return true;
}

static bool removal_under_load_ends_in_enodev(void)
{
	for (int round = 0; round < 4; round++) {
		struct worker w[THREADS];

		check(up());
		if (!run_workers(w, true, round))
			return false;
		check(access(NODE, F_OK));
		check(down());
	}
	return true;
}

const struct test load_tests[] = {
	TEST(many_writers_keep_their_bytes),
	TEST(removal_under_load_ends_in_enodev),
	{}
};
