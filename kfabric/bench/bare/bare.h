/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of kfi_bare share. All of it may sleep: process context.
 */
#ifndef KFI_BARE_H
#define KFI_BARE_H

#include <linux/net.h>
#include <linux/types.h>

struct bio_vec;

/* The most bytes of the buffers of one measurement, on either side. */
#define KFI_BARE_MOST (128UL << 20)

/* So many exchanges come before those that are measured. */
#define KFI_BARE_WARM 16

#define KFI_BARE_MAGIC 0x6b666962

enum kfi_bare_kind {
	KFI_BARE_STREAM,
	KFI_BARE_PINGPONG,
};

/*
 * What the near end asks for, in CPU order.
 *
 * @len: bytes of a buffer, a multiple of 8
 * @depth: how many buffers each end has
 * @count: how many times a buffer is sent, and in a ping-pong comes back
 * @seed: what the bytes are made from
 */
struct kfi_bare_question {
	enum kfi_bare_kind kind;
	u64 len, depth, count, seed;
};

/* Buffers of one length, in pages that the network may hold. */
struct kfi_bare_buffers {
	size_t len;
	unsigned int depth;
	unsigned int pieces;		/* of each buffer */
	unsigned int order;		/* of a piece's pages */
	struct bio_vec *vecs;
};

/* buffers.c */
bool kfi_bare_is_possible(const struct kfi_bare_question *question);
int kfi_bare_alloc(struct kfi_bare_buffers *buffers, const struct kfi_bare_question *question);
void kfi_bare_free(struct kfi_bare_buffers *buffers);
void kfi_bare_fill(struct kfi_bare_buffers *buffers, u64 seed);
bool kfi_bare_has(const struct kfi_bare_buffers *buffers, unsigned int number, u64 seed);
struct bio_vec *kfi_bare_vecs(const struct kfi_bare_buffers *buffers, unsigned int number);

/* socket.c */
extern bool kfi_bare_ends;
struct socket *kfi_bare_listen(const char *address, u16 port);
struct socket *kfi_bare_accept(struct socket *listener);
struct socket *kfi_bare_connect(const char *address, u16 port);
int kfi_bare_send(struct socket *sock, const void *from, size_t len);
int kfi_bare_splice(struct socket *sock, const struct kfi_bare_buffers *buffers,
		    unsigned int number);
int kfi_bare_receive(struct socket *sock, void *to, size_t len);
int kfi_bare_take(struct socket *sock, const struct kfi_bare_buffers *buffers,
		  unsigned int number);
int kfi_bare_ask(struct socket *sock, const struct kfi_bare_question *question);
int kfi_bare_asked(struct socket *sock, struct kfi_bare_question *question);
int kfi_bare_say(struct socket *sock, int error);
int kfi_bare_hear(struct socket *sock);

/* near.c */
int kfi_bare_measure(struct socket *sock, const struct kfi_bare_question *question, u64 *ns);

/* far.c */
int kfi_bare_serve(const char *address, u16 port);
void kfi_bare_stop(void);

#endif
