// SPDX-License-Identifier: GPL-2.0
/*
 * Blocking calls of TCP sockets. Each ends: when the peer is gone, when nothing has
 * come or gone for KFI_BARE_PATIENCE, when the module is to go, or by a signal.
 */

#include <linux/bvec.h>
#include <linux/err.h>
#include <linux/in.h>
#include <linux/inet.h>
#include <linux/tcp.h>
#include <linux/uio.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "bare.h"

/* In seconds. A call waits for one at a time, to see whether the module is to go. */
#define KFI_BARE_PATIENCE 60

/* The module is to go. */
bool kfi_bare_ends;

struct kfi_bare_words {
	__le64 magic, kind, len, depth, count, seed;
};

/* What all sockets have. One that waits for a question sees that its peer's host is gone. */
static void kfi_bare_set(struct socket *sock)
{
	struct sock *sk = sock->sk;

	tcp_sock_set_nodelay(sk);
	WRITE_ONCE(sk->sk_rcvtimeo, HZ);
	sock_set_sndtimeo(sk, 1);
	sock_set_keepalive(sk);
	tcp_sock_set_keepidle(sk, KFI_BARE_PATIENCE / 4);
	tcp_sock_set_keepintvl(sk, KFI_BARE_PATIENCE / 4);
	tcp_sock_set_keepcnt(sk, 2);
}

static struct socket *kfi_bare_socket(const char *address, u16 port, struct sockaddr_storage *addr,
				      int *len)
{
	struct socket *sock;
	char text[6];
	int ret;

	snprintf(text, sizeof(text), "%u", port);
	ret = inet_pton_with_scope(&init_net, AF_UNSPEC, address, text, addr);
	if (ret)
		return ERR_PTR(ret);
	*len = addr->ss_family == AF_INET ? sizeof(struct sockaddr_in) :
					    sizeof(struct sockaddr_in6);
	ret = sock_create_kern(&init_net, addr->ss_family, SOCK_STREAM, IPPROTO_TCP, &sock);
	return ret ? ERR_PTR(ret) : sock;
}

struct socket *kfi_bare_listen(const char *address, u16 port)
{
	struct sockaddr_storage addr = {};
	struct socket *sock;
	int ret, len;

	sock = kfi_bare_socket(address, port, &addr, &len);
	if (IS_ERR(sock))
		return sock;
	sock_set_reuseaddr(sock->sk);
	kfi_bare_set(sock);
	ret = kernel_bind(sock, (struct sockaddr_unsized *)&addr, len);
	if (!ret)
		ret = kernel_listen(sock, 1);
	if (ret) {
		sock_release(sock);
		return ERR_PTR(ret);
	}
	return sock;
}

/* -EAGAIN: nobody has come for a second. */
struct socket *kfi_bare_accept(struct socket *listener)
{
	struct socket *sock;
	int ret = kernel_accept(listener, &sock, 0);

	if (ret)
		return ERR_PTR(ret);
	kfi_bare_set(sock);
	return sock;
}

struct socket *kfi_bare_connect(const char *address, u16 port)
{
	struct sockaddr_storage addr = {};
	struct socket *sock;
	int ret, len;

	sock = kfi_bare_socket(address, port, &addr, &len);
	if (IS_ERR(sock))
		return sock;
	sock_set_sndtimeo(sock->sk, KFI_BARE_PATIENCE);
	ret = kernel_connect(sock, (struct sockaddr_unsized *)&addr, len, 0);
	if (ret) {
		sock_release(sock);
		return ERR_PTR(ret == -EINPROGRESS ? -ETIMEDOUT : ret);
	}
	kfi_bare_set(sock);
	return sock;
}

/* Whether a call that gave @ret is to be made again. @waited: for how many seconds it was. */
static bool kfi_bare_goes_on(int ret, unsigned int *waited)
{
	if (ret > 0) {
		*waited = 0;
		return true;
	}
	return ret == -EAGAIN && !READ_ONCE(kfi_bare_ends) && ++*waited < KFI_BARE_PATIENCE;
}

static int kfi_bare_error(int ret)
{
	switch (ret) {
	case 0:
		return -ECONNRESET;
	case -EAGAIN:
		return -ETIMEDOUT;
	case -ERESTARTSYS:
		return -EINTR;
	default:
		return ret;
	}
}

int kfi_bare_send(struct socket *sock, const void *from, size_t len)
{
	unsigned int waited = 0;
	int ret = 1;

	while (len && kfi_bare_goes_on(ret, &waited)) {
		struct msghdr msg = { .msg_flags = MSG_NOSIGNAL };
		struct kvec vec = { .iov_base = (void *)from, .iov_len = len };

		ret = kernel_sendmsg(sock, &msg, &vec, 1, len);
		if (ret > 0) {
			from += ret;
			len -= ret;
		}
	}
	return len ? kfi_bare_error(ret) : 0;
}

/* Sends a buffer without a copy: its pages must not change until the peer has them. */
int kfi_bare_splice(struct socket *sock, const struct kfi_bare_buffers *buffers,
		    unsigned int number)
{
	struct msghdr msg = { .msg_flags = MSG_NOSIGNAL | MSG_SPLICE_PAGES };
	unsigned int waited = 0;
	int ret = 1;

	iov_iter_bvec(&msg.msg_iter, ITER_SOURCE, kfi_bare_vecs(buffers, number), buffers->pieces,
		      buffers->len);
	while (iov_iter_count(&msg.msg_iter) && kfi_bare_goes_on(ret, &waited))
		ret = sock_sendmsg(sock, &msg);
	return iov_iter_count(&msg.msg_iter) ? kfi_bare_error(ret) : 0;
}

int kfi_bare_receive(struct socket *sock, void *to, size_t len)
{
	unsigned int waited = 0;
	int ret = 1;

	while (len && kfi_bare_goes_on(ret, &waited)) {
		struct kvec vec = { .iov_base = to, .iov_len = len };
		struct msghdr msg = {};

		ret = kernel_recvmsg(sock, &msg, &vec, 1, len, MSG_WAITALL);
		if (ret > 0) {
			to += ret;
			len -= ret;
		}
	}
	return len ? kfi_bare_error(ret) : 0;
}

/* Receives a buffer. */
int kfi_bare_take(struct socket *sock, const struct kfi_bare_buffers *buffers,
		  unsigned int number)
{
	struct bio_vec *vec = kfi_bare_vecs(buffers, number);
	unsigned int piece;
	int ret = 0;

	for (piece = 0; piece < buffers->pieces && !ret; piece++)
		ret = kfi_bare_receive(sock, bvec_virt(&vec[piece]), vec[piece].bv_len);
	return ret;
}

int kfi_bare_ask(struct socket *sock, const struct kfi_bare_question *question)
{
	const struct kfi_bare_words words = {
		.magic = cpu_to_le64(KFI_BARE_MAGIC),
		.kind = cpu_to_le64(question->kind),
		.len = cpu_to_le64(question->len),
		.depth = cpu_to_le64(question->depth),
		.count = cpu_to_le64(question->count),
		.seed = cpu_to_le64(question->seed),
	};

	return kfi_bare_send(sock, &words, sizeof(words));
}

/* The next question of a peer, however long that takes it. -EBADMSG: it is none. */
int kfi_bare_asked(struct socket *sock, struct kfi_bare_question *question)
{
	struct kfi_bare_words words;
	int ret;

	do
		ret = kfi_bare_receive(sock, &words.magic, sizeof(words.magic));
	while (ret == -ETIMEDOUT && !READ_ONCE(kfi_bare_ends) &&
	       sock->sk->sk_state == TCP_ESTABLISHED);
	if (ret)
		return ret;
	if (le64_to_cpu(words.magic) != KFI_BARE_MAGIC)
		return -EBADMSG;
	ret = kfi_bare_receive(sock, &words.kind, sizeof(words) - sizeof(words.magic));
	if (ret)
		return ret;
	question->len = le64_to_cpu(words.len);
	question->depth = le64_to_cpu(words.depth);
	question->count = le64_to_cpu(words.count);
	question->seed = le64_to_cpu(words.seed);
	question->kind = le64_to_cpu(words.kind);
	return le64_to_cpu(words.kind) <= KFI_BARE_PINGPONG && kfi_bare_is_possible(question) ?
	       0 : -EBADMSG;
}

/* Tells the other end how a step went; kfi_bare_hear() gives it there. */
int kfi_bare_say(struct socket *sock, int error)
{
	__le32 word = cpu_to_le32(-error);
	int ret = kfi_bare_send(sock, &word, sizeof(word));

	return error ?: ret;
}

int kfi_bare_hear(struct socket *sock)
{
	__le32 word;
	int ret = kfi_bare_receive(sock, &word, sizeof(word));
	u32 error = ret ? 0 : le32_to_cpu(word);

	if (ret)
		return ret;
	return error <= MAX_ERRNO ? -(int)error : -EBADMSG;
}
