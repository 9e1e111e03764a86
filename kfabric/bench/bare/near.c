// SPDX-License-Identifier: GPL-2.0
/*
 * The near end: it asks, and looks at the clock.
 */

#include <linux/bvec.h>
#include <linux/timekeeping.h>

#include "bare.h"

/*
 * All buffers once, so that memory is mapped and the window open, then those that are
 * measured: from the first byte sent to the word that the last was received.
 */
static int kfi_bare_stream(struct socket *sock, const struct kfi_bare_question *question,
			   const struct kfi_bare_buffers *buffers, u64 *ns)
{
	unsigned int number;
	u64 begin, n;
	int ret;

	for (number = 0; number < buffers->depth; number++) {
		ret = kfi_bare_splice(sock, buffers, number);
		if (ret)
			return ret;
	}
	ret = kfi_bare_hear(sock);
	if (ret)
		return ret;

	begin = ktime_get_ns();
	for (n = 0, number = 0; n < question->count; n++) {
		ret = kfi_bare_splice(sock, buffers, number);
		if (ret)
			return ret;
		if (++number == buffers->depth)
			number = 0;
	}
	ret = kfi_bare_hear(sock);
	*ns = ktime_get_ns() - begin;

	/* Whether the bytes were right. */
	return ret ?: kfi_bare_hear(sock);
}

static int kfi_bare_pingpong(struct socket *sock, const struct kfi_bare_question *question,
			     const struct kfi_bare_buffers *buffers, u64 *ns)
{
	u64 begin = 0, n, count = KFI_BARE_WARM + question->count;
	void *bytes = bvec_virt(kfi_bare_vecs(buffers, 0));
	int ret;

	for (n = 0; n < count; n++) {
		if (n == KFI_BARE_WARM)
			begin = ktime_get_ns();
		ret = kfi_bare_send(sock, bytes, buffers->len) ?:
		      kfi_bare_receive(sock, bytes, buffers->len);
		if (ret)
			return ret;
	}
	*ns = ktime_get_ns() - begin;

	return kfi_bare_has(buffers, 0, question->seed) ? 0 : -EBADMSG;
}

/* Asks a possible question, and does its part. After an error the socket is of no more use. */
int kfi_bare_measure(struct socket *sock, const struct kfi_bare_question *question, u64 *ns)
{
	struct kfi_bare_buffers buffers;
	int ret;

	ret = kfi_bare_alloc(&buffers, question);
	if (ret)
		return ret;
	kfi_bare_fill(&buffers, question->seed);
	ret = kfi_bare_ask(sock, question) ?: kfi_bare_hear(sock);
	if (!ret && question->kind == KFI_BARE_STREAM)
		ret = kfi_bare_stream(sock, question, &buffers, ns);
	else if (!ret)
		ret = kfi_bare_pingpong(sock, question, &buffers, ns);
	kfi_bare_free(&buffers);
	return ret;
}
