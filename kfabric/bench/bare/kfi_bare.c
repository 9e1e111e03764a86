// SPDX-License-Identifier: GPL-2.0
/*
 * The bare module: what TCP between two hosts costs a kernel without kfabric, in threads
 * that block, with pages that are sent where they are.
 *
 * scripts/bench loads it beside kfi_bench, in the same guests, and compares: see
 * Documentation/performance.rst. It is in C, and uses nothing of kfabric: each of its
 * lines is a call of the kernel that a Rust module would have behind a door, so that of
 * this one there would be nothing but the door; and it is to be what would be written
 * here without us.
 *
 * One host loads it with `port`, and serves. On another a question is written to
 * /dev/kfi_bare, and its answer read, by who has the file open:
 *
 * - `meet ADDRESS PORT`: connects to who serves there; no answer.
 * - `stream LEN DEPTH COUNT`: sends COUNT times LEN bytes, of DEPTH buffers in turn.
 * - `pingpong LEN COUNT`: sends LEN bytes and waits until they have come back, COUNT
 *   times.
 *
 * The answer is OPERATIONS BYTES NANOSECONDS, of those that were measured; the bytes are
 * those of one direction. What the buffers hold at last is compared, after the
 * measurement: -EBADMSG. A measurement that fails ends the connection.
 *
 * File:	noun:
 * buffers.c	the buffers of one measurement
 * socket.c	blocking calls of a socket, and what ends tell each other
 * near.c	the end that asks
 * far.c	the end that serves
 */

#include <linux/err.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "bare.h"

static char address[64] = "0.0.0.0";
module_param_string(address, address, sizeof(address), 0444);
MODULE_PARM_DESC(address, "IP address at which it serves");

static unsigned short port;
module_param(port, ushort, 0444);
MODULE_PARM_DESC(port, "port at which it serves; 0: it does not");

/* What belongs to an open file. */
struct kfi_bare_file {
	struct mutex lock;		/* one question at a time */
	struct socket *sock;		/* or NULL */
	u64 seed;			/* of the next question */
	char answer[64];
	size_t len, at;			/* of the answer */
};

static int kfi_bare_open(struct inode *inode, struct file *file)
{
	struct kfi_bare_file *bare = kzalloc_obj(*bare);

	if (!bare)
		return -ENOMEM;
	mutex_init(&bare->lock);
	file->private_data = bare;
	return 0;
}

static void kfi_bare_part(struct kfi_bare_file *bare)
{
	if (bare->sock)
		sock_release(bare->sock);
	bare->sock = NULL;
}

static int kfi_bare_release(struct inode *inode, struct file *file)
{
	struct kfi_bare_file *bare = file->private_data;

	kfi_bare_part(bare);
	kfree(bare);
	return 0;
}

static int kfi_bare_meet(struct kfi_bare_file *bare, const char *to, u16 at)
{
	struct socket *sock;

	kfi_bare_part(bare);
	sock = kfi_bare_connect(to, at);
	if (IS_ERR(sock))
		return PTR_ERR(sock);
	bare->sock = sock;
	return 0;
}

static int kfi_bare_answered(struct kfi_bare_file *bare, struct kfi_bare_question *question)
{
	u64 ns = 0;
	int ret;

	if (!kfi_bare_is_possible(question))
		return -EINVAL;
	if (!bare->sock)
		return -ENOTCONN;
	question->seed = ++bare->seed;
	ret = kfi_bare_measure(bare->sock, question, &ns);
	if (ret) {
		kfi_bare_part(bare);
		return ret;
	}
	bare->len = scnprintf(bare->answer, sizeof(bare->answer), "%llu %llu %llu\n",
			      question->count, question->count * question->len, ns);
	return 0;
}

static int kfi_bare_do(struct kfi_bare_file *bare, const char *line)
{
	struct kfi_bare_question question = { .depth = 1 };
	char to[48];
	u16 at;

	bare->len = 0;
	bare->at = 0;
	if (sscanf(line, "meet %47s %hu", to, &at) == 2)
		return kfi_bare_meet(bare, to, at);
	question.kind = KFI_BARE_STREAM;
	if (sscanf(line, "stream %llu %llu %llu", &question.len, &question.depth,
		   &question.count) == 3)
		return kfi_bare_answered(bare, &question);
	question.kind = KFI_BARE_PINGPONG;
	question.depth = 1;
	if (sscanf(line, "pingpong %llu %llu", &question.len, &question.count) == 2)
		return kfi_bare_answered(bare, &question);
	return -EINVAL;
}

static ssize_t kfi_bare_write(struct file *file, const char __user *from, size_t len, loff_t *pos)
{
	struct kfi_bare_file *bare = file->private_data;
	char line[80] = {};
	int ret;

	if (len >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, from, len))
		return -EFAULT;
	ret = mutex_lock_interruptible(&bare->lock);
	if (ret)
		return ret;
	ret = kfi_bare_do(bare, line);
	mutex_unlock(&bare->lock);
	return ret ?: len;
}

/* The rest of the answer, wherever the file stands. */
static ssize_t kfi_bare_read(struct file *file, char __user *to, size_t len, loff_t *pos)
{
	struct kfi_bare_file *bare = file->private_data;
	int ret;

	ret = mutex_lock_interruptible(&bare->lock);
	if (ret)
		return ret;
	len = min(len, bare->len - bare->at);
	if (copy_to_user(to, bare->answer + bare->at, len))
		ret = -EFAULT;
	else
		bare->at += len;
	mutex_unlock(&bare->lock);
	return ret ?: len;
}

static const struct file_operations kfi_bare_operations = {
	.owner = THIS_MODULE,
	.open = kfi_bare_open,
	.release = kfi_bare_release,
	.write = kfi_bare_write,
	.read = kfi_bare_read,
};

static struct miscdevice kfi_bare_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kfi_bare",
	.fops = &kfi_bare_operations,
	.mode = 0600,
};

static int __init kfi_bare_init(void)
{
	int ret = port ? kfi_bare_serve(address, port) : 0;

	if (ret)
		return ret;
	ret = misc_register(&kfi_bare_device);
	if (ret && port)
		kfi_bare_stop();
	return ret;
}

static void __exit kfi_bare_exit(void)
{
	misc_deregister(&kfi_bare_device);
	if (port)
		kfi_bare_stop();
}

module_init(kfi_bare_init);
module_exit(kfi_bare_exit);

MODULE_AUTHOR("The kfabric developers");
MODULE_DESCRIPTION("kfabric bench: what TCP costs without kfabric");
MODULE_LICENSE("GPL");
