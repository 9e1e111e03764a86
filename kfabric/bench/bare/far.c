// SPDX-License-Identifier: GPL-2.0
/*
 * The far end: a thread that receives, or sends back what comes, for one peer after
 * another.
 */

#include <linux/bvec.h>
#include <linux/err.h>
#include <linux/kthread.h>

#include "bare.h"

static struct socket *listener;
static struct task_struct *thread;

static int kfi_bare_sink(struct socket *sock, const struct kfi_bare_question *question,
			 const struct kfi_bare_buffers *buffers)
{
	unsigned int number;
	u64 n;
	int ret;

	for (number = 0; number < buffers->depth; number++) {
		ret = kfi_bare_take(sock, buffers, number);
		if (ret)
			return ret;
	}
	ret = kfi_bare_say(sock, 0);
	if (ret)
		return ret;

	for (n = 0, number = 0; n < question->count; n++) {
		ret = kfi_bare_take(sock, buffers, number);
		if (ret)
			return ret;
		if (++number == buffers->depth)
			number = 0;
	}
	ret = kfi_bare_say(sock, 0);
	if (ret)
		return ret;

	/* Not while the clock runs. */
	number = (number ?: buffers->depth) - 1;
	return kfi_bare_say(sock, kfi_bare_has(buffers, number, question->seed) ? 0 : -EBADMSG);
}

static int kfi_bare_echo(struct socket *sock, const struct kfi_bare_question *question,
			 const struct kfi_bare_buffers *buffers)
{
	void *bytes = bvec_virt(kfi_bare_vecs(buffers, 0));
	u64 n, count = KFI_BARE_WARM + question->count;
	int ret;

	for (n = 0; n < count; n++) {
		ret = kfi_bare_receive(sock, bytes, buffers->len) ?:
		      kfi_bare_send(sock, bytes, buffers->len);
		if (ret)
			return ret;
	}
	return 0;
}

static int kfi_bare_answer(struct socket *sock)
{
	struct kfi_bare_question question;
	struct kfi_bare_buffers buffers;
	int ret;

	ret = kfi_bare_asked(sock, &question);
	if (ret)
		return ret;
	ret = kfi_bare_say(sock, kfi_bare_alloc(&buffers, &question));
	if (ret)
		return ret;
	if (question.kind == KFI_BARE_STREAM)
		ret = kfi_bare_sink(sock, &question, &buffers);
	else
		ret = kfi_bare_echo(sock, &question, &buffers);
	kfi_bare_free(&buffers);
	return ret;
}

static int kfi_bare_thread(void *nothing)
{
	struct socket *sock;
	int ret;

	while (!kthread_should_stop()) {
		sock = kfi_bare_accept(listener);
		if (IS_ERR(sock)) {
			if (PTR_ERR(sock) != -EAGAIN)
				schedule_timeout_interruptible(HZ);
			continue;
		}
		do
			ret = kfi_bare_answer(sock);
		while (!ret && !kthread_should_stop());
		sock_release(sock);
		/* Who closes has no more questions. */
		if (ret != -ECONNRESET)
			pr_info("a peer was left: %d\n", ret);
	}
	return 0;
}

int kfi_bare_serve(const char *address, u16 port)
{
	listener = kfi_bare_listen(address, port);
	if (IS_ERR(listener))
		return PTR_ERR(listener);
	thread = kthread_run(kfi_bare_thread, NULL, "kfi_bare");
	if (IS_ERR(thread)) {
		sock_release(listener);
		return PTR_ERR(thread);
	}
	return 0;
}

void kfi_bare_stop(void)
{
	WRITE_ONCE(kfi_bare_ends, true);
	kthread_stop(thread);
	sock_release(listener);
}
