// SPDX-License-Identifier: GPL-2.0
/*
 * Signals: to a process that is to be killed, and to one that goes on.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

static bool killed_writer_leaves_no_trace(void)
{
	for (int i = 0; i < 4; i++) {
		pid_t child;
		int status;

		check(up());
		child = fork();
		check(child >= 0);
		if (child == 0) {
			int fd = open(NODE, O_RDWR);
			unsigned char *data = buffer(CHUNK * 8);

			for (;;) {
				pwrite(fd, data, CHUNK * 8, 0);
				pread(fd, data, CHUNK * 8, 0);
				fsync(fd);
			}
		}
		usleep(10000 + i * 9000);
		kill(child, SIGKILL);
		check(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
		/* Every buffer is there: all can be under way again. */
		{
			int fd = open(NODE, O_RDWR);
			unsigned char *data = buffer(32 * CHUNK);

			check(fd >= 0 && data);
			check(pwrite(fd, data, 32 * CHUNK, 0) == 32 * CHUNK && !fsync(fd));
			check(pread(fd, data, 32 * CHUNK, 0) == 32 * CHUNK);
			munmap(data, 32 * CHUNK);
			close(fd);
		}
		check(down());
	}
	return true;
}

static void on_alarm(int signal)
{
	(void)signal;
}

static bool signals_interrupt_nothing_half(void)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct itimerval often = { { 0, 3000 }, { 0, 3000 } }, off = {};
	unsigned char *data = buffer(SIZE), *seen = buffer(SIZE);
	unsigned long interrupted = 0;
	int fd;

	check(data && seen && up());
	fill(data, SIZE, 9);
	fd = open(NODE, O_RDWR);
	check(fd >= 0);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	for (int round = 0; round < 3; round++) {
		for (unsigned long at = 0; at < SIZE;) {
			ssize_t n = pwrite(fd, data + at, SIZE - at, at);

			check(n > 0 || (n < 0 && errno == EINTR));
			interrupted += n != (ssize_t)(SIZE - at);
			at += n > 0 ? n : 0;
		}
		while (fsync(fd)) {
			check(errno == EINTR);
			interrupted++;
		}
		for (unsigned long at = 0; at < SIZE;) {
			ssize_t n = pread(fd, seen + at, SIZE - at, at);

			check(n > 0 || (n < 0 && errno == EINTR));
			at += n > 0 ? n : 0;
		}
		check(!memcmp(data, seen, SIZE));
	}
	setitimer(ITIMER_REAL, &off, NULL);
	printf("# %lu calls interrupted\n", interrupted);
	check(statistic("errors ") == 0);
	close(fd);
	munmap(data, SIZE);
	munmap(seen, SIZE);
	check(down());
	return true;
}

const struct test signal_tests[] = {
	TEST(killed_writer_leaves_no_trace),
	TEST(signals_interrupt_nothing_half),
	{}
};
