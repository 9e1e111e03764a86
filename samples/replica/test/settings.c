// SPDX-License-Identifier: GPL-2.0
/*
 * Settings: those that are refused, those that hold.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "test.h"

static bool bad_settings_are_refused_with_an_errno_and_a_line(void)
{
	/* A card and a word more. */
	static const char card[] = "04c0000202b7120000000001 0100000000000000a5a5a5a55a5a more";
	char longest[300] = "/";

	check(make("r"));
	check(refused("provider", " ", EINVAL));
	check(refused("provider", "two words", EINVAL));
	check(refused("provider", "0123456789012345678901234567890123", EINVAL));
	check(refused("device", "pmem0", EINVAL));
	check(refused("device", "\n", EINVAL));
	memset(longest + 1, 'x', 280);
	check(refused("device", longest, EINVAL));
	check(refused("peer", "04ff", EINVAL));
	check(refused("peer", "04ff 0103", EINVAL));
	check(refused("peer", card, EINVAL));
	check(refused("device", card, EINVAL));
	check(refused("provider", card, EINVAL));
	check(refused("size", card, EINVAL));
	check(refused("export", "yes", EINVAL));
	check(refused("size", "0", EINVAL));
	check(refused("size", "4095", EINVAL));
	check(refused("size", "4097", EINVAL));
	check(refused("size", "-4096", EINVAL));
	check(refused("size", "many", EINVAL));
	check(refused("size", "M", EINVAL));
	check(refused("size", "18446744073709551616", EINVAL));
	check(refused("size", "9223372036854775808", EFBIG));
	check(refused("enable", "2", EINVAL));
	check(refused("enable", "yes", EINVAL));
	check(down());
	return true;
}

static bool good_settings_read_back(void)
{
	char text[300];

	check(make("r"));
	check(get("provider", text, sizeof(text)) && !strcmp(text, "loopback\n"));
	check(get("size", text, sizeof(text)) && !strcmp(text, "0\n"));
	check(get("enable", text, sizeof(text)) && !strcmp(text, "0\n"));
	check(get("node", text, sizeof(text)) && !strcmp(text, "\n"));
	check(get("peer", text, sizeof(text)) && !strcmp(text, "\n"));
	check(get("card", text, sizeof(text)) && !strcmp(text, "\n"));
	check(get("export", text, sizeof(text)) && !strcmp(text, "0\n"));
	check(!set("size", "4K") && get("size", text, sizeof(text)) && !strcmp(text, "4096\n"));
	check(!set("size", "3G\n") && get("size", text, sizeof(text)));
	check(!strcmp(text, "3221225472\n"));
	check(!set("device", "/dev/x") && get("device", text, sizeof(text)));
	check(!strcmp(text, "/dev/x\n"));
	check(down());
	check(up());
	check(get("node", text, sizeof(text)) && !strcmp(text, NODE "\n"));
	check(get("enable", text, sizeof(text)) && !strcmp(text, "1\n"));
	check(down());
	return true;
}

static bool statistics_and_node_are_read_only(void)
{
	check(make("r"));
	check(fails(set("node", "x"), EACCES));
	check(fails(set("statistics", "x"), EACCES));
	check(fails(set("card", "x"), EACCES));
	check(down());
	return true;
}

static bool what_is_missing_is_named(void)
{
	check(make("r"));
	check(refused("enable", "1", EINVAL));
	check(!set("size", "8M"));
	check(refused("enable", "1", EINVAL));
	check(down());
	check(make("r") && !set("device", device));
	check(refused("enable", "1", EINVAL));
	check(down());
	return true;
}

static bool unknown_provider_is_refused(void)
{
	check(settings("r"));
	check(!set("provider", "nosuch"));
	check(refused("enable", "1", ENODEV));
	check(!set("provider", "loopback") && !set("enable", "1"));
	check(down());
	return true;
}

static bool unfit_device_is_refused(void)
{
	int control, loop, file;
	char path[32];
	long n;

	check(settings("r"));
	check(!set("device", "/dev/nosuch"));
	check(refused("enable", "1", ENOENT));
	check(!set("device", "/dev/null"));
	check(refused("enable", "1", ENOTBLK));

	control = open("/dev/loop-control", O_RDWR);
	check(control >= 0);
	n = ioctl(control, LOOP_CTL_GET_FREE);
	check(n >= 0);
	snprintf(path, sizeof(path), "/dev/loop%ld", n);
	loop = open(path, O_RDWR);
	file = open("/tmp/image", O_RDWR | O_CREAT, 0600);
	check(loop >= 0 && file >= 0 && !ftruncate(file, 16 << 20));
	check(!ioctl(loop, LOOP_SET_FD, file));
	check(!set("device", path));
	check(refused("enable", "1", EOPNOTSUPP));
	check(!ioctl(loop, LOOP_CLR_FD));
	close(loop);
	close(file);
	close(control);
	unlink("/tmp/image");
	check(down());
	return true;
}

static bool size_beyond_the_device_is_refused(void)
{
	check(settings("r"));
	check(!set("size", "1G"));
	check(refused("enable", "1", ENOSPC));
	check(!set("size", "8M") && !set("enable", "1"));
	check(down());
	return true;
}

static bool live_replica_keeps_its_settings(void)
{
	char text[64];

	check(up());
	check(refused("provider", "other", EBUSY));
	check(refused("device", "/dev/other", EBUSY));
	check(refused("size", "4096", EBUSY));
	check(refused("peer", "\n", EBUSY));
	check(refused("export", "1", EBUSY));
	check(refused("enable", "1", EBUSY));
	check(get("size", text, sizeof(text)) && atol(text) == SIZE);
	check(!set("enable", "0") && !set("enable", "0"));
	check(access(NODE, F_OK));
	check(!set("size", "4M") && !set("enable", "1"));
	check(!access(NODE, F_OK));
	check(down());
	return true;
}

static bool device_in_use_is_refused(void)
{
	check(up());
	check(settings("s"));
	check(fails(set_in("s", "enable", "1"), EBUSY));
	check(!set("enable", "0"));
	check(!set_in("s", "enable", "1"));
	check(drop("s") && down());
	return true;
}

/* As on two hosts. */
static bool exported_memory_is_a_file_of_who_has_its_card(void)
{
	unsigned char out[4096], in[4096];
	char card[512], again[512];
	int fd;

	check(settings("s") && !set_in("s", "export", "1") && !set_in("s", "enable", "1"));
	check(access(NODE, F_OK));
	check(make("r") && get("../s/card", card, sizeof(card)) && strlen(card) > 64);
	check(!set("peer", card) && get("peer", again, sizeof(again)) && !strcmp(card, again));
	check(refused("enable", "1", EINVAL));
	check(!set("size", "16M"));
	check(refused("enable", "1", ENOSPC));
	check(!set("size", "8M") && !set("device", device));
	check(refused("enable", "1", EINVAL));
	check(down() && make("r") && !set("peer", card) && !set("size", "8M"));
	check(!set("enable", "1"));
	fd = open(NODE, O_RDWR);
	check(fd >= 0);
	fill(out, sizeof(out), 77);
	check(pwrite(fd, out, sizeof(out), 4321) == sizeof(out) && !fsync(fd));
	check(pread(fd, in, sizeof(in), 4321) == sizeof(in) && !memcmp(in, out, sizeof(in)));
	check(statistic("commits ") > 0);

	/* The memory is taken away: what comes next fails, and is told. */
	check(drop("s"));
	check(pwrite(fd, out, sizeof(out), 0) == sizeof(out));
	check(fails(fsync(fd), EIO));
	close(fd);
	check(down());

	/* It is in the device. */
	check(up());
	fd = open(NODE, O_RDONLY);
	check(fd >= 0);
	memset(in, 0, sizeof(in));
	check(pread(fd, in, sizeof(in), 4321) == sizeof(in) && !memcmp(in, out, sizeof(in)));
	close(fd);
	check(down());
	return true;
}

static bool names_and_numbers_are_free_again(void)
{
	for (int i = 0; i < 5; i++) {
		check(up());
		check(!access(NODE, F_OK));
		check(access("/dev/kfi_replica1", F_OK));
		check(down());
		check(access(NODE, F_OK));
	}
	return true;
}

const struct test settings_tests[] = {
	TEST(bad_settings_are_refused_with_an_errno_and_a_line),
	TEST(good_settings_read_back),
	TEST(statistics_and_node_are_read_only),
	TEST(what_is_missing_is_named),
	TEST(unknown_provider_is_refused),
	TEST(unfit_device_is_refused),
	TEST(size_beyond_the_device_is_refused),
	TEST(live_replica_keeps_its_settings),
	TEST(device_in_use_is_refused),
	TEST(exported_memory_is_a_file_of_who_has_its_card),
	TEST(names_and_numbers_are_free_again),
	{}
};
