// SPDX-License-Identifier: GPL-2.0
/*
 * A replica in configfs: set up, asked, taken down.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

char device[64];
const char *device_name;

int set_in(const char *dir, const char *name, const char *value)
{
	char path[256];
	ssize_t n;
	int fd, error;

	snprintf(path, sizeof(path), "%s/%s/%s", ROOT, dir, name);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -1;
	n = write(fd, value, strlen(value));
	error = errno;
	close(fd);
	errno = error;
	return n == (ssize_t)strlen(value) ? 0 : -1;
}

int set(const char *name, const char *value)
{
	return set_in("r", name, value);
}

bool get(const char *name, char *value, size_t size)
{
	char path[256];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/r/%s", ROOT, name);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return false;
	n = read(fd, value, size - 1);
	close(fd);
	if (n < 0)
		return false;
	value[n] = 0;
	return true;
}

long statistic(const char *name)
{
	char text[512], *at;

	if (!get("statistics", text, sizeof(text)))
		return -1;
	at = strstr(text, name);
	return at ? atol(at + strlen(name)) : -1;
}

bool make(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", ROOT, name);
	return mkdir(path, 0700) == 0 || errno == EEXIST;
}

bool drop(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", ROOT, name);
	return rmdir(path) == 0 || errno == ENOENT;
}

bool settings(const char *dir)
{
	return make(dir) && !set_in(dir, "device", device) && !set_in(dir, "size", "8M");
}

bool up(void)
{
	return settings("r") && !set("enable", "1");
}

bool down(void)
{
	return drop("r");
}

/*
 * Whether a setting is refused with `error`, and the log has a line about it, which does not
 * show where the descriptor of a card would be: it holds a key.
 */
bool refused(const char *name, const char *value, int error)
{
	char line[1024];
	const char *secret = strlen(value) > 40 ? value + 40 : NULL;
	bool said = false, told = false;
	ssize_t n;
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);

	lseek(log, 0, SEEK_END);
	errno = 0;
	if (set(name, value) == 0 || errno != error) {
		close(log);
		return false;
	}
	while ((n = read(log, line, sizeof(line) - 1)) > 0) {
		line[n] = 0;
		said |= strstr(line, "kfi_replica: ") || strstr(line, "kfabric: ");
		told |= secret && strstr(line, secret);
	}
	close(log);
	errno = 0;
	return said && !told;
}
