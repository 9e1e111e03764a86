// SPDX-License-Identifier: GPL-2.0
/*
 * The loss of the device, unbound from its driver: errors that come late.
 */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

static bool sysfs(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);
	bool good = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);

	close(fd);
	return good;
}

/* The nd device behind the block device, and its driver: pfn0.1 and nd_pmem. */
static bool namespace_of(char *name, size_t size)
{
	char path[256], target[512];
	const char *base;
	ssize_t n;
	char *at;

	snprintf(path, sizeof(path), "/sys/block/%s/device", device_name);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = 0;
	at = strrchr(target, '/');
	base = at ? at + 1 : target;
	if (strlen(base) >= size)
		return false;
	memcpy(name, base, strlen(base) + 1);
	return true;
}

/* Binds the driver again and waits for the block device. */
static bool bound_again(const char *nd)
{
	check(sysfs("/sys/bus/nd/drivers/nd_pmem/bind", nd));
	for (int i = 0; i < 1200 && access(device, F_OK); i++)
		usleep(50000);
	check(!access(device, F_OK));
	return true;
}

static bool late_error_is_told_once_to_each_file(void)
{
	char nd[64], byte = 0;
	int first, second, third;

	check(namespace_of(nd, sizeof(nd)));
	check(up());
	first = open(NODE, O_RDWR);
	second = open(NODE, O_RDWR);
	check(first >= 0 && second >= 0);
	check(pwrite(first, "a", 1, 0) == 1 && !fsync(first) && !fsync(second));

	check(sysfs("/sys/bus/nd/drivers/nd_pmem/unbind", nd));
	check(access(device, F_OK));
	/* It returns before it is known. */
	check(pwrite(first, "b", 1, 4096) == 1);
	check(fails(fsync(first), EIO));
	check(!fsync(first));
	/* Opened before anybody knew, it is told; opened afterwards, it is not. */
	third = open(NODE, O_RDWR);
	check(third >= 0 && !fsync(third));
	check(fails(fsync(second), EIO));
	check(!fsync(second) && !fsync(first) && !fsync(third));
	check(statistic("errors ") == 1);
	close(third);

	/* A new error is told again, to a file opened before it was told too. */
	check(pwrite(second, "c", 1, 4096) == 1);
	usleep(100000);
	check(fails(pread(second, &byte, 1, 0), EIO));
	third = open(NODE, O_RDWR);
	check(third >= 0);
	check(fails(fsync(third), EIO) && fails(fsync(first), EIO) && fails(fsync(second), EIO));
	check(!fsync(first) && !fsync(second) && !fsync(third));
	close(third);
	close(second);
	close(first);
	check(down());

	check(bound_again(nd));
	check(up());
	first = open(NODE, O_RDWR);
	check(first >= 0 && pread(first, &byte, 1, 0) == 1 && byte == 'a');
	check(pwrite(first, "d", 1, 0) == 1 && !fsync(first));
	close(first);
	check(down());
	return true;
}

#define CALLERS 16

/* Reads and writes of a device that is gone; what they did. */
struct caller {
	pthread_t thread;
	bool reads;
	long posted;		/* writes that returned before they failed */
	long odd;		/* answers other than EIO */
};

static void *call_in_vain(void *arg)
{
	struct caller *c = arg;
	/* Reads of several buffers, so that all are in use and somebody waits for the next. */
	ssize_t len = c->reads ? 4 * CHUNK : 512;
	unsigned char *block = buffer(len);
	int fd = open(NODE, O_RDWR);

	for (int i = 0; i < 100; i++) {
		off_t at = (random() % 4096) * 512;
		ssize_t n = c->reads ? pread(fd, block, len, at) : pwrite(fd, block, len, at);

		if (!c->reads && n == len)
			c->posted++;
		else if (n >= 0 || errno != EIO)
			c->odd++;
	}
	close(fd);
	munmap(block, len);
	return NULL;
}

/* A read that fails gives its buffer back: what the next user does with it is his. */
static bool failed_reads_take_no_write_with_them(void)
{
	struct caller c[CALLERS] = {};
	long posted = 0, odd = 0;
	char nd[64];
	int fd;

	check(namespace_of(nd, sizeof(nd)));
	check(up());
	fd = open(NODE, O_RDWR);
	check(fd >= 0);
	check(sysfs("/sys/bus/nd/drivers/nd_pmem/unbind", nd));
	for (int i = 0; i < CALLERS; i++) {
		c[i].reads = i % 2;
		check(!pthread_create(&c[i].thread, NULL, call_in_vain, &c[i]));
	}
	for (int i = 0; i < CALLERS; i++) {
		pthread_join(c[i].thread, NULL);
		posted += c[i].posted;
		odd += c[i].odd;
	}
	check(odd == 0);
	check(posted > 0 && fails(fsync(fd), EIO));
	printf("# %ld writes failed late, %ld are known\n", posted, statistic("errors "));
	check(statistic("errors ") == posted);
	close(fd);
	check(down());
	check(bound_again(nd));
	return true;
}

static bool device_unbound_under_load_ends_in_errors(void)
{
	char nd[64];
	pid_t child;
	int status;

	check(namespace_of(nd, sizeof(nd)));
	check(up());
	child = fork();
	check(child >= 0);
	if (child == 0) {
		int fd = open(NODE, O_RDWR);
		unsigned char *data = buffer(CHUNK);

		for (unsigned long i = 0;; i++) {
			pwrite(fd, data, CHUNK, i * CHUNK % SIZE);
			if (i % 8 == 0 && fsync(fd))
				_exit(errno == EIO ? 0 : 1);
		}
	}
	usleep(200000);
	check(sysfs("/sys/bus/nd/drivers/nd_pmem/unbind", nd));
	check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	check(down());
	check(bound_again(nd));
	check(up() && down());
	return true;
}

const struct test loss_tests[] = {
	TEST(late_error_is_told_once_to_each_file),
	TEST(failed_reads_take_no_write_with_them),
	TEST(device_unbound_under_load_ends_in_errors),
	{}
};
