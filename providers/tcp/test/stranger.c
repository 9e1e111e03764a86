// SPDX-License-Identifier: GPL-2.0
/*
 * stranger ADDRESS PORT SECONDS SEED NAME [WHAT]: makes links to a host that listens
 * there, and says what it may not: everything of the list below, one after another, or
 * only WHAT. Bounded: so many links at once, so long; SIGTERM says that it is enough.
 * With never_reads it is a peer that takes messages, says so, and reads nothing; its
 * name is 040009c00002c87777777777777777.
 *
 * NAME is that of an endpoint there, in hexadecimal digits. Prints how many links it
 * made, and how many of them the other side ended. Fails if that took longer than it
 * may, or if no link could be made.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <linux/types.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define VERSION		3	/* of the protocol */
#define HEADER		64
#define FIXED		96
#define MAX_NAME	64
#define HELLO_MAX	(FIXED + 2 * MAX_NAME)
#define SILENT		24	/* so many links at once that say nothing */
#define PATIENCE_MS	20000	/* the other side gives up long before */

static struct sockaddr_in where;
static unsigned char name[MAX_NAME];
static size_t name_len;
static __u64 state;
static unsigned long made, refused, ended;
static int numb;	/* it is the peer that never reads, and has a name that is known */

/* SIGTERM is blocked, so that it interrupts no wait. */
static int enough(void)
{
	sigset_t pending;

	return !sigpending(&pending) && sigismember(&pending, SIGTERM) == 1;
}

static __u64 rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void fill(unsigned char *p, size_t len)
{
	while (len--)
		*p++ = rnd() >> 24;
}

static __u32 crc32c(const unsigned char *p, size_t len)
{
	__u32 crc = ~0u;

	while (len--) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

static void put(unsigned char *p, __u64 value, int bytes)
{
	while (bytes--) {
		*p++ = value;
		value >>= 8;
	}
}

static long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* A header whose checksum is right, whatever else it says. */
static void header(unsigned char *p, int kind, __u32 len, __u32 payload_crc)
{
	memset(p, 0, HEADER);
	p[0] = VERSION;
	p[1] = kind;
	put(p + 4, len, 4);
	put(p + 56, payload_crc, 4);
	put(p + 60, crc32c(p, HEADER), 4);
}

/* A hello without a mistake, from somebody who is not there; returns its length. */
static size_t hello(unsigned char *out, const unsigned char *to, size_t to_len)
{
	unsigned char *p = out + HEADER;
	size_t len = FIXED + 15 + to_len;

	memset(p, 0, len);
	memcpy(p, "kfabric", 8);
	put(p + 8, VERSION, 2);
	put(p + 10, VERSION, 2);
	put(p + 16, rnd() | 1, 8);
	put(p + 36, 1, 4);
	put(p + 40, 96 << 10, 4);
	put(p + 44, 8 << 10, 4);
	put(p + 48, 1 << 30, 8);
	put(p + 56, 128, 4);
	put(p + 60, 2, 2);
	p[62] = 15;
	p[63] = to_len;
	/* The discard port of an address that is nobody's. */
	memcpy(p + FIXED, "\4\0\11\300\0\2\310", 7);
	if (numb)
		memset(p + FIXED + 7, 0x77, 8);
	else
		fill(p + FIXED + 7, 8);
	memcpy(p + FIXED + 15, to, to_len);
	header(out, 1, len, crc32c(p, len));
	return HEADER + len;
}

static int make_link(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct pollfd poller = { .fd = fd, .events = POLLOUT };
	socklen_t len = sizeof(int);
	int error = 0;

	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&where, sizeof(where)) && errno == EINPROGRESS) {
		poll(&poller, 1, 5000);
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
		if (error || !(poller.revents & POLLOUT)) {
			close(fd);
			refused++;
			return -1;
		}
	}
	made++;
	return fd;
}

/* Whether the other side ends the link in time; what it says until then is thrown away. */
static int is_ended(int fd, long ms)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	long until = now_ms() + ms;
	char buffer[4096];
	ssize_t got;

	for (;;) {
		long left = until - now_ms();

		if (left <= 0 || poll(&poller, 1, left) <= 0)
			return 0;
		got = read(fd, buffer, sizeof(buffer));
		if (got == 0 || (got < 0 && errno != EAGAIN))
			return 1;
	}
}

static void say(int fd, const void *bytes, size_t len)
{
	/* Who is sent away in the midst of it has been heard enough. */
	if (write(fd, bytes, len) < 0 && errno != EPIPE && errno != ECONNRESET && errno != EAGAIN)
		perror("write");
}

/* Each of these gives the number of bytes that it wants to be said. */
static size_t noise(unsigned char *p)
{
	size_t len = 1 + rnd() % 4096;

	fill(p, len);
	return len;
}

static size_t truncated(unsigned char *p)
{
	size_t len = hello(p, name, name_len);

	return 1 + rnd() % (len - 1);
}

static size_t oversized(unsigned char *p)
{
	static const __u32 lens[] = { HELLO_MAX + 1, 1 << 20, INT32_MAX, UINT32_MAX };

	header(p, 1, lens[rnd() % 4], 0);
	return HEADER + noise(p + HEADER);
}

static size_t no_hello(unsigned char *p)
{
	header(p, 2 + rnd() % 30, 0, 0);
	return HEADER;
}

static size_t damaged(unsigned char *p)
{
	size_t len = hello(p, name, name_len);

	p[rnd() % len] ^= 1 << rnd() % 8;
	return len;
}

static size_t wrong_door(unsigned char *p)
{
	unsigned char other[MAX_NAME];

	memcpy(other, name, name_len);
	other[name_len - 1] ^= 1;
	return hello(p, other, name_len);
}

/* Is let in, takes messages, says so, and never reads what comes. */
static int never_read(long ms)
{
	unsigned char bytes[HEADER + FIXED + 2 * MAX_NAME + HEADER];
	int fd, small = 4096;
	size_t len;
	long until = now_ms() + ms;
	struct pollfd poller = { .events = POLLRDHUP };

	fd = make_link();
	if (fd < 0)
		return 1;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	len = hello(bytes, name, name_len);
	/* Credit of the context of messages. */
	header(bytes + len, 5, 0, 0);
	put(bytes + len + 20, 1, 2);
	put(bytes + len + 40, 1 << 30, 8);
	put(bytes + len + 48, 1 << 20, 8);
	put(bytes + len + 60, 0, 4);
	say(fd, bytes, len + HEADER);
	printf("stranger: here\n");
	fflush(stdout);
	poller.fd = fd;
	while (now_ms() < until && !enough() && poll(&poller, 1, 100) == 0)
		;
	ended += !!poller.revents;
	close(fd);
	return 0;
}

/* Is let in, and talks nonsense then. */
static size_t guest(unsigned char *p)
{
	size_t len = hello(p, name, name_len);
	int frames = 1 + rnd() % 8;

	while (frames--) {
		header(p + len, rnd() % 32, rnd() % 2 ? rnd() : 0, 0);
		if (rnd() % 2)
			put(p + len + 56, 0, 8);
		len += HEADER;
	}
	return len + noise(p + len);
}

static const struct what {
	const char *name;
	size_t (*make)(unsigned char *p);
	int waits;	/* until the other side ends it */
} list[] = {
	{ "noise", noise, 1 },
	{ "truncated", truncated, 0 },
	{ "oversized", oversized, 1 },
	{ "no_hello", no_hello, 1 },
	{ "damaged", damaged, 1 },
	{ "wrong_door", wrong_door, 1 },
	{ "guest", guest, 0 },
};

#define ARRAY_SIZE(x) (sizeof(x) / sizeof((x)[0]))

int main(int argc, char **argv)
{
	static unsigned char bytes[16384];
	int silent[SILENT], late = 0;
	const char *only;
	sigset_t term;
	long until;

	if (argc < 6 || inet_pton(AF_INET, argv[1], &where.sin_addr) != 1) {
		fprintf(stderr, "stranger ADDRESS PORT SECONDS SEED NAME [WHAT]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	where.sin_family = AF_INET;
	where.sin_port = htons(atoi(argv[2]));
	until = now_ms() + atol(argv[3]) * 1000;
	state = strtoull(argv[4], NULL, 0) * 0x9e3779b97f4a7c15ull + 1;
	for (const char *hex = argv[5]; name_len < MAX_NAME; hex += 2, name_len++) {
		if (sscanf(hex, "%2hhx", &name[name_len]) != 1)
			break;
	}
	only = argc > 6 ? argv[6] : NULL;

	numb = only && !strcmp(only, "never_reads");
	if (numb) {
		int status = never_read(atol(argv[3]) * 1000);

		printf("stranger: links %lu refused %lu ended %lu\n", made, refused, ended);
		return status;
	}
	for (int i = 0; i < SILENT; i++)
		silent[i] = only && strcmp(only, "silence") ? -1 : make_link();
	for (unsigned long n = 0; now_ms() < until; n++) {
		const struct what *what = &list[n % ARRAY_SIZE(list)];
		size_t len;
		int fd;

		if (enough())
			break;
		if (only && !strcmp(only, "silence")) {
			usleep(100000);
			continue;
		}
		if (only && strcmp(only, what->name))
			continue;
		fd = make_link();
		if (fd < 0)
			continue;
		len = what->make(bytes);
		say(fd, bytes, len);
		if (is_ended(fd, what->waits ? PATIENCE_MS : (long)(rnd() % 50))) {
			ended++;
		} else if (what->waits) {
			printf("stranger: not sent away: %s\n", what->name);
			late++;
		}
		close(fd);
	}
	for (int i = 0; i < SILENT; i++) {
		if (silent[i] < 0)
			continue;
		if (is_ended(silent[i], PATIENCE_MS)) {
			ended++;
		} else {
			printf("stranger: not sent away: silence\n");
			late++;
		}
		close(silent[i]);
	}
	printf("stranger: links %lu refused %lu ended %lu\n", made, refused, ended);
	return late || !made;
}
