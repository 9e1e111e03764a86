// SPDX-License-Identifier: GPL-2.0
/*
 * The file: where it ends, what it does and what it does not.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "test.h"

static bool node_is_for_its_owner_only(void)
{
	struct stat st;

	check(up());
	check(!stat(NODE, &st));
	check(S_ISCHR(st.st_mode) && (st.st_mode & 07777) == 0600 && st.st_uid == 0);
	check(down());
	return true;
}

static bool seeks_as_a_file_of_its_size(void)
{
	unsigned char byte = 7, seen = 0;
	int fd;

	check(up());
	fd = open(NODE, O_RDWR);
	check(fd >= 0);
	check(lseek(fd, 0, SEEK_END) == SIZE);
	check(lseek(fd, -10, SEEK_END) == SIZE - 10);
	check(lseek(fd, 3, SEEK_CUR) == SIZE - 7);
	check(lseek(fd, 100, SEEK_SET) == 100);
	check(fails(lseek(fd, -1, SEEK_SET), EINVAL));
	check(fails(lseek(fd, -101, SEEK_CUR), EINVAL));
	check(fails(lseek(fd, SIZE + 1, SEEK_SET), EINVAL));
	check(fails(lseek(fd, 1, SEEK_END), EINVAL));
	check(fails(lseek(fd, 0, 77), EINVAL));
	check(lseek(fd, 0, SEEK_CUR) == 100);
	check(write(fd, &byte, 1) == 1 && lseek(fd, 0, SEEK_CUR) == 101);
	check(lseek(fd, -1, SEEK_CUR) == 100 && read(fd, &seen, 1) == 1 && seen == byte);
	close(fd);
	check(down());
	return true;
}

static bool ends_where_it_ends(void)
{
	unsigned char *data = buffer(3 * CHUNK);
	int fd, append;

	check(data && up());
	fill(data, 3 * CHUNK, 1);
	fd = open(NODE, O_RDWR);
	check(fd >= 0);
	check(pwrite(fd, data, 100, SIZE - 100) == 100);
	check(pwrite(fd, data, 101, SIZE - 100) == 100);
	check(pwrite(fd, data, 3 * CHUNK, SIZE - CHUNK - 7) == CHUNK + 7);
	check(fails(pwrite(fd, data, 1, SIZE), ENOSPC));
	check(fails(pwrite(fd, data, 1, SIZE + 5000), ENOSPC));
	check(fails(pwrite(fd, data, 1, 0x7ffffffffffffffe), ENOSPC));
	check(pwrite(fd, data, 0, SIZE) == 0);
	check(fails(pwrite(fd, data, 1, -1), EINVAL));
	check(pread(fd, data, 100, SIZE - 40) == 40);
	check(pread(fd, data, 3 * CHUNK, SIZE - CHUNK - 7) == CHUNK + 7);
	check(pread(fd, data, 100, SIZE) == 0);
	check(pread(fd, data, 100, SIZE + 5000) == 0);
	check(pread(fd, data, 0, 0) == 0);
	check(fails(pread(fd, data, 1, -1), EINVAL));
	check(lseek(fd, 0, SEEK_END) == SIZE && fails(write(fd, data, 1), ENOSPC));
	append = open(NODE, O_WRONLY | O_APPEND);
	check(append >= 0 && fails(write(append, data, 1), ENOSPC));
	check(fails(ftruncate(fd, 0), EINVAL));
	close(append);
	close(fd);
	munmap(data, 3 * CHUNK);
	check(down());
	return true;
}

static bool bad_addresses_are_efault(void)
{
	unsigned char *data = buffer(2 * 4096);
	unsigned char *bad;
	int fd;

	check(data && up());
	bad = data + 4096;
	check(!mprotect(bad, 4096, PROT_NONE));
	fill(data, 4096, 2);
	fd = open(NODE, O_RDWR);
	check(fd >= 0);
	check(fails(pwrite(fd, bad, 10, 0), EFAULT));
	check(fails(pread(fd, bad, 10, 0), EFAULT));
	/* As a file does: what is good of it is done. */
	check(pwrite(fd, bad - 10, 20, 0) == 10);
	check(pread(fd, bad - 10, 20, 0) == 10);
	/* Neither costs a buffer. */
	for (int i = 0; i < 100; i++) {
		check(fails(pwrite(fd, bad, 10, 0), EFAULT));
		check(fails(pread(fd, bad, 10, 0), EFAULT));
	}
	check(!fsync(fd));
	close(fd);
	munmap(data, 8192);
	check(down());
	return true;
}

static bool any_offset_and_length_reads_back(void)
{
	unsigned char *model = buffer(SIZE), *data = buffer(SIZE);
	int fd, other;

	check(model && data && up());
	seed = (unsigned long)time(NULL) | 1;
	printf("# seed %lu\n", seed);
	fd = open(NODE, O_RDWR);
	other = open(NODE, O_RDONLY);
	check(fd >= 0 && other >= 0);
	for (unsigned long at = 0; at < SIZE; at += CHUNK)
		check(pwrite(fd, model + at, CHUNK, at) == CHUNK);
	for (int i = 0; i < 1500; i++) {
		unsigned long max = i % 50 ? i % 7 ? 300 : 20000 : 400000;
		unsigned long len = 1 + random_number() % max;
		unsigned long at = random_number() % (SIZE - len);

		switch (random_number() % 3) {
		case 0:
			fill(model + at, len, random_number());
			check(pwrite(fd, model + at, len, at) == (ssize_t)len);
			/* Seen at once, through another file too, before it is durable. */
			check(pread(other, data, len, at) == (ssize_t)len);
			check(!memcmp(data, model + at, len));
			break;
		case 1:
			check(pread(fd, data, len, at) == (ssize_t)len);
			check(!memcmp(data, model + at, len));
			break;
		default:
			/* One over the other, all under way at once. */
			for (int n = 0; n < 6; n++) {
				unsigned long skip = random_number() % len;

				fill(model + at + skip, len - skip, random_number());
				check(pwrite(fd, model + at + skip, len - skip, at + skip) ==
				      (ssize_t)(len - skip));
			}
		}
	}
	check(!fsync(fd));
	check(pread(fd, data, SIZE, 0) == SIZE);
	check(!memcmp(data, model, SIZE));
	close(fd);
	close(other);
	munmap(model, SIZE);
	munmap(data, SIZE);
	check(down());
	return true;
}

static bool vectors_and_splices_work(void)
{
	unsigned char *data = buffer(CHUNK), *seen = buffer(CHUNK);
	struct iovec parts[3];
	int fd, from, n;
	off_t at = 0;

	check(data && seen && up());
	fill(data, CHUNK, 3);
	fd = open(NODE, O_RDWR);
	check(fd >= 0);
	parts[0] = (struct iovec){ data, 1 };
	parts[1] = (struct iovec){ data + 1, 5000 };
	parts[2] = (struct iovec){ data + 5001, 9999 };
	check(pwritev(fd, parts, 3, 17) == 15000);
	check(pread(fd, seen, 15000, 17) == 15000 && !memcmp(data, seen, 15000));

	from = open("/tmp/from", O_RDWR | O_CREAT | O_TRUNC, 0600);
	check(from >= 0 && write(from, data, CHUNK) == CHUNK);
	check(lseek(fd, 4096, SEEK_SET) == 4096);
	for (n = 0; n < (int)CHUNK;) {
		ssize_t some = sendfile(fd, from, &at, CHUNK - n);

		check(some > 0);
		n += some;
	}
	check(pread(fd, seen, CHUNK, 4096) == CHUNK && !memcmp(data, seen, CHUNK));
	check(!ftruncate(from, 0) && !lseek(from, 0, SEEK_SET));
	for (n = 0, at = 4096; n < (int)CHUNK;) {
		ssize_t some = sendfile(from, fd, &at, CHUNK - n);

		check(some > 0);
		n += some;
	}
	check(pread(from, seen, CHUNK, 0) == CHUNK && !memcmp(data, seen, CHUNK));
	unlink("/tmp/from");
	close(from);
	close(fd);
	munmap(data, CHUNK);
	munmap(seen, CHUNK);
	check(down());
	return true;
}

static bool what_it_does_not_do_is_refused(void)
{
	int fd;

	check(up());
	fd = open(NODE, O_RDWR);
	check(fd >= 0);
	check(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == ENODEV);
	check(fails(ioctl(fd, 0x1234, 0), ENOTTY));
	close(fd);
	fd = open(NODE, O_RDONLY);
	check(fd >= 0 && fails(write(fd, "x", 1), EBADF));
	close(fd);
	fd = open(NODE, O_WRONLY);
	check(fd >= 0 && fails(read(fd, why, 1), EBADF));
	close(fd);
	check(down());
	return true;
}

const struct test file_tests[] = {
	TEST(node_is_for_its_owner_only),
	TEST(seeks_as_a_file_of_its_size),
	TEST(ends_where_it_ends),
	TEST(bad_addresses_are_efault),
	TEST(any_offset_and_length_reads_back),
	TEST(vectors_and_splices_work),
	TEST(what_it_does_not_do_is_refused),
	{}
};
