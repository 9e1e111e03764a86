// SPDX-License-Identifier: GPL-2.0
/*
 * Removal: of the replica, and of the module.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "test.h"

static bool open_files_outlive_the_device(void)
{
	char byte = 0;
	int fd, fresh;

	check(up());
	fd = open(NODE, O_RDWR);
	check(fd >= 0 && pwrite(fd, "x", 1, 0) == 1);
	check(down());
	check(fails(read(fd, &byte, 1), ENODEV));
	check(fails(write(fd, &byte, 1), ENODEV));
	check(fails(pread(fd, &byte, 1, 0), ENODEV));
	check(fails(pwrite(fd, &byte, 1, SIZE), ENODEV));
	check(fails(lseek(fd, 0, SEEK_SET), ENODEV));
	check(fails(fsync(fd), ENODEV));
	check(fails(fdatasync(fd), ENODEV));
	check(fails(open(NODE, O_RDWR), ENOENT));
	/* A new device of the same name is not theirs. */
	check(up());
	fresh = open(NODE, O_RDWR);
	check(fresh >= 0 && pread(fresh, &byte, 1, 0) == 1 && byte == 'x');
	check(fails(pread(fd, &byte, 1, 0), ENODEV));
	check(!close(fd));
	check(pread(fresh, &byte, 1, 0) == 1);
	check(!close(fresh));
	check(down());
	return true;
}

static bool unload(void)
{
	return syscall(SYS_delete_module, "kfi_replica", O_NONBLOCK) == 0;
}

static bool module_stays_while_it_is_needed(void)
{
	int fd;

	check(make("r"));
	check(!unload());
	check(up());
	check(!unload());
	fd = open(NODE, O_RDWR);
	check(fd >= 0 && down());
	/* Its last user is a file whose device is gone. */
	check(!unload());
	close(fd);
	check(unload());
	check(access(ROOT, F_OK));
	check(system("modprobe kfi_replica") == 0);
	check(up() && down());
	return true;
}

const struct test removal_tests[] = {
	TEST(open_files_outlive_the_device),
	TEST(module_stays_while_it_is_needed),
	{}
};
