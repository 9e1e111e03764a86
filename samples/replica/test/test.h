/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of replica_test share. A test is a function; its name is a
 * sentence.
 */

#ifndef REPLICA_TEST_H
#define REPLICA_TEST_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define ROOT "/sys/kernel/config/kfi_replica"
#define NODE "/dev/kfi_replica0"
#define SIZE (8UL << 20)
#define CHUNK (64UL << 10)

struct test {
	const char *name;
	bool (*run)(void);
};

#define TEST(f) { #f, f }

/* Each ends with an empty one. */
extern const struct test settings_tests[], file_tests[], durability_tests[], load_tests[];
extern const struct test removal_tests[], signal_tests[], loss_tests[], fault_tests[], cut_tests[];

/* Where a test failed, and what it saw. */
extern char why[256];

#define check(what) \
	do { \
		if (!(what)) { \
			snprintf(why, sizeof(why), "%s:%d: %s; errno %d (%s)", \
				 __FILE__, __LINE__, #what, errno, strerror(errno)); \
			return false; \
		} \
	} while (0)

/* Whether a call failed, and with what. */
#define fails(call, error) (errno = 0, (call) < 0 && errno == (error))

/* replica.c; the device is /dev/NAME. */
extern char device[64];
extern const char *device_name;
int set_in(const char *dir, const char *name, const char *value);
int set(const char *name, const char *value);
bool get(const char *name, char *value, size_t size);
long statistic(const char *name);
bool make(const char *name);
bool drop(const char *name);
bool settings(const char *dir);
bool up(void);
bool down(void);
bool refused(const char *name, const char *value, int error);

/* data.c */
extern unsigned long seed;
unsigned long random_number(void);
void fill(unsigned char *at, size_t len, unsigned long tag);
unsigned char *buffer(size_t len);

/*
 * durable.c: from watch() to unwatch(), what was written, and whether just what was
 * written of these bytes was committed since the last question, or all and maybe more.
 */
bool watch(void);
bool unwatch(void);
void wrote(size_t from, size_t len);
bool committed_just(size_t from, size_t len);
bool committed_all(void);

/* fault.c: whether allocations can be made to fail. */
bool can_fail(void);

/* cut.c: writes what is looked for after the cut, and waits for it. */
int before(void);

#endif
