// SPDX-License-Identifier: GPL-2.0
/*
 * Which bytes were written since they were made durable the last time, and
 * which the target has made durable, as its tracepoint kfi_commit tells: an
 * emulated machine keeps those that it forgets, too.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "test.h"

#define TRACING "/sys/kernel/tracing"
#define EVENT TRACING "/events/kfabric/kfi_commit/enable"

/* Whether each byte was written, but for what was committed; and committed. */
static unsigned char *written, *committed;
/* Nothing before and behind was either. */
static size_t low, high;

static bool put(const char *path, const char *value, int flags)
{
	int fd = open(path, O_WRONLY | flags);
	bool good = fd >= 0 && write(fd, value, strlen(value)) == (ssize_t)strlen(value);

	close(fd);
	return good;
}

bool watch(void)
{
	if (!written)
		written = buffer(SIZE);
	if (!committed)
		committed = buffer(SIZE);
	if (!written || !committed)
		return false;
	memset(written, 0, SIZE);
	memset(committed, 0, SIZE);
	low = SIZE;
	high = 0;
	return put(TRACING "/trace", "", O_TRUNC) && put(EVENT, "1", 0);
}

bool unwatch(void)
{
	return put(EVENT, "0", 0);
}

static void mark(unsigned char *map, size_t from, size_t len)
{
	memset(map + from, 1, len);
	low = from < low ? from : low;
	high = from + len > high ? from + len : high;
}

void wrote(size_t from, size_t len)
{
	mark(written, from, len);
}

/* Reads what was committed since the last time; fails if that was no range of the replica. */
static bool collect(void)
{
	char line[512];
	FILE *trace = fopen(TRACING "/trace", "r");
	bool good = trace;

	while (good && fgets(line, sizeof(line), trace)) {
		char *offset, *len;

		if (!strstr(line, " kfi_commit: "))
			continue;
		offset = strstr(line, " offset=");
		len = strstr(line, " len=");
		good = offset && len;
		if (good) {
			unsigned long from = strtoul(offset + strlen(" offset="), NULL, 10);
			unsigned long count = strtoul(len + strlen(" len="), NULL, 10);

			good = from <= SIZE && count <= SIZE - from;
			if (good)
				mark(committed, from, count);
		}
	}
	if (trace)
		fclose(trace);
	return put(TRACING "/trace", "", O_TRUNC) && good;
}

/* What was written and committed is not told again. */
static void settle(size_t from, size_t len)
{
	size_t end = from + len < high ? from + len : high;

	from = from > low ? from : low;
	if (from < end)
		memset(written + from, 0, end - from);
	if (low < high)
		memset(committed + low, 0, high - low);
	if (len == SIZE) {
		low = SIZE;
		high = 0;
	}
}

bool committed_just(size_t from, size_t len)
{
	if (!collect())
		return false;
	for (size_t i = low; i < high; i++) {
		bool meant = from <= i && i - from < len && written[i];

		if (committed[i] != meant) {
			printf("# byte %zu is %scommitted\n", i, meant ? "not " : "");
			return false;
		}
	}
	settle(from, len);
	return true;
}

bool committed_all(void)
{
	if (!collect())
		return false;
	for (size_t i = low; i < high; i++) {
		if (written[i] && !committed[i]) {
			printf("# byte %zu is not committed\n", i);
			return false;
		}
	}
	settle(0, SIZE);
	return true;
}
