// SPDX-License-Identifier: GPL-2.0
/*
 * TCP sockets of the kernel that never wait: each call does what can be done now,
 * and a callback tells when there is more.
 *
 * Callbacks are called with sk_callback_lock held for reading, and use nothing that
 * is not found through sk_user_data. Who holds it for writing knows that none runs.
 * It is taken inside the socket's own locks; under it, and in callbacks, no call
 * into the socket may be made.
 *
 * What is cloned from a listening socket has its callbacks, but not its user data
 * (SK_USER_DATA_NOCOPY): until it is accepted, they do nothing. A callback that was
 * just about to begin when they were put back runs in softirq context, and so in a
 * read section that the unloading of the module waits for (free_module()).
 *
 * A socket keeps its network namespace, as one of user space does.
 *
 * Pages are sent without a copy as by MSG_ZEROCOPY of user space (net/core/skbuff.c):
 * each packet, clone and part of one that has the pages counts in a ubuf_info, and who
 * is to receive them on this host copies them (skb_orphan_frags_rx()). So when its
 * count is 0, nobody will read them any more: not to send them again, nor a device.
 * A socket has some of them, which outlive it if they must.
 */

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/fs.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/inet.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/tcp.h>
#include <linux/uio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include <net/tcp.h>
#include <trace/events/sock.h>

#include "door.h"

/* How long a socket that was closed gently may take until the peer has all. */
#define KFI_TCP_LINGER (5 * HZ)

/* How many may take that time at once; more are ended at once. */
#define KFI_TCP_LINGERING 1024

#define KFI_TCP_BACKLOG SOMAXCONN

/* For how many operations a socket may leave pages where they are; they fit 2 KiB. */
#define KFI_TCP_NOTICES 62

static char address[64] = "127.0.0.1";
module_param_string(address, address, sizeof(address), 0444);
MODULE_PARM_DESC(address, "IP address to listen on, by which peers reach this host");

static unsigned short port;
module_param(port, ushort, 0444);
MODULE_PARM_DESC(port, "port to listen on; 0: any");

struct kfi_tcp_callbacks {
	void (*data_ready)(struct sock *sk);
	void (*state_change)(struct sock *sk);
	void (*write_space)(struct sock *sk);
	void (*error_report)(struct sock *sk);
};

/* Of the pages that were sent with one hold. */
struct kfi_tcp_notice {
	struct ubuf_info ubuf;
	struct kfi_tcp_notices *pool;
	void *hold;
};

struct kfi_tcp_notices {
	refcount_t users;		/* the socket, and those that are busy */
	struct kfi_tcp_notice *last;	/* that was taken */
	DECLARE_BITMAP(busy, KFI_TCP_NOTICES);
	struct kfi_tcp_notice all[KFI_TCP_NOTICES];
};

static_assert(sizeof(struct kfi_tcp_notices) <= 2048);

struct kfi_tcp_socket {
	struct socket *sock;
	struct kfi_tcp_notices *notices;	/* without them everything is copied */
	struct kfi_tcp_callbacks saved;
	kfi_tcp_wake_t wake;
	void *context;			/* of wake */
	int error;			/* the first one that was met, or 0 */
	bool drained;			/* all was taken that has come, and nothing told since */
	bool gently;			/* closed so */
	bool lingers;			/* nobody is to be woken but the work below */
	struct delayed_work linger;
};

static struct workqueue_struct *kfi_tcp_wq;
static kfi_tcp_drop_t kfi_tcp_drop;
static atomic_t kfi_tcp_lingering = ATOMIC_INIT(0);
static atomic_t kfi_tcp_pools = ATOMIC_INIT(0);	/* of notices */
static DECLARE_WAIT_QUEUE_HEAD(kfi_tcp_idle);

/* Whether nothing is left that the peer has still to get. */
static bool kfi_tcp_is_done(const struct sock *sk)
{
	switch (inet_sk_state_load(sk)) {
	case TCP_FIN_WAIT2:
	case TCP_TIME_WAIT:
	case TCP_CLOSE:
		return true;
	default:
		return false;
	}
}

static struct kfi_tcp_socket *kfi_tcp_of(const struct sock *sk)
{
	return __locked_read_sk_user_data_with_flags(sk, SK_USER_DATA_NOCOPY);
}

/* With sk_callback_lock held. */
static void kfi_tcp_tell(struct kfi_tcp_socket *ks)
{
	if (!ks->lingers)
		ks->wake(ks->context);
	else if (kfi_tcp_is_done(ks->sock->sk))
		mod_delayed_work(kfi_tcp_wq, &ks->linger, 0);
}

static void kfi_tcp_event(struct sock *sk)
{
	struct kfi_tcp_socket *ks;

	read_lock_bh(&sk->sk_callback_lock);
	ks = kfi_tcp_of(sk);
	if (ks) {
		WRITE_ONCE(ks->drained, false);
		kfi_tcp_tell(ks);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

static void kfi_tcp_data_ready(struct sock *sk)
{
	trace_sk_data_ready(sk);
	kfi_tcp_event(sk);
}

static void kfi_tcp_write_space(struct sock *sk)
{
	struct kfi_tcp_socket *ks;

	read_lock_bh(&sk->sk_callback_lock);
	ks = kfi_tcp_of(sk);
	if (ks && sk_stream_is_writeable(sk)) {
		clear_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
		kfi_tcp_tell(ks);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

static const struct kfi_tcp_callbacks kfi_tcp_callbacks = {
	.data_ready = kfi_tcp_data_ready,
	.state_change = kfi_tcp_event,
	.write_space = kfi_tcp_write_space,
	.error_report = kfi_tcp_event,
};

static void kfi_tcp_set_callbacks(struct sock *sk, const struct kfi_tcp_callbacks *callbacks)
{
	sk->sk_data_ready = callbacks->data_ready;
	sk->sk_state_change = callbacks->state_change;
	sk->sk_write_space = callbacks->write_space;
	sk->sk_error_report = callbacks->error_report;
}

static void kfi_tcp_detach(struct kfi_tcp_socket *ks)
{
	struct sock *sk = ks->sock->sk;

	write_lock_bh(&sk->sk_callback_lock);
	rcu_assign_sk_user_data(sk, NULL);
	kfi_tcp_set_callbacks(sk, &ks->saved);
	write_unlock_bh(&sk->sk_callback_lock);
}

static void kfi_tcp_notices_put(struct kfi_tcp_notices *pool)
{
	if (!pool || !refcount_dec_and_test(&pool->users))
		return;
	kfree(pool);
	if (atomic_dec_and_test(&kfi_tcp_pools))
		wake_up(&kfi_tcp_idle);
}

static void kfi_tcp_ubuf_complete(struct sk_buff *skb, struct ubuf_info *ubuf, bool success)
{
	struct kfi_tcp_notice *notice = container_of(ubuf, struct kfi_tcp_notice, ubuf);
	struct kfi_tcp_notices *pool = notice->pool;
	void *hold = notice->hold;

	if (!refcount_dec_and_test(&ubuf->refcnt))
		return;
	clear_bit_unlock(notice - pool->all, pool->busy);
	kfi_tcp_drop(hold);
	kfi_tcp_notices_put(pool);
}

static const struct ubuf_info_ops kfi_tcp_ubuf_ops = {
	.complete = kfi_tcp_ubuf_complete,
};

static struct kfi_tcp_notices *kfi_tcp_notices_alloc(void)
{
	struct kfi_tcp_notices *pool;
	int i;

	pool = kzalloc_obj(*pool);
	if (!pool)
		return NULL;
	refcount_set(&pool->users, 1);
	atomic_inc(&kfi_tcp_pools);
	for (i = 0; i < KFI_TCP_NOTICES; i++) {
		pool->all[i].pool = pool;
		pool->all[i].ubuf.ops = &kfi_tcp_ubuf_ops;
		pool->all[i].ubuf.flags = SKBFL_ZEROCOPY_FRAG | SKBFL_DONT_ORPHAN;
	}
	return pool;
}

/*
 * A reference to a notice that has the hold, which is dropped if the last one has
 * another of the same operation; or NULL, if all are busy.
 */
static struct kfi_tcp_notice *kfi_tcp_notice(struct kfi_tcp_notices *pool, void *hold)
{
	struct kfi_tcp_notice *notice = READ_ONCE(pool->last);
	unsigned long i;

	/* A packet has one notice: what goes on with the last one may go on in its packet. */
	if (notice && refcount_inc_not_zero_acquire(&notice->ubuf.refcnt)) {
		if (notice->hold == hold) {
			kfi_tcp_drop(hold);
			return notice;
		}
		net_zcopy_put(&notice->ubuf);
	}
	do {
		i = find_first_zero_bit(pool->busy, KFI_TCP_NOTICES);
		if (i >= KFI_TCP_NOTICES)
			return NULL;
	} while (test_and_set_bit_lock(i, pool->busy));
	notice = &pool->all[i];
	notice->hold = hold;
	refcount_inc(&pool->users);
	refcount_set_release(&notice->ubuf.refcnt, 1);
	WRITE_ONCE(pool->last, notice);
	return notice;
}

/* Lets the socket go. What the peer has not got by now it does not get. */
static void kfi_tcp_release(struct kfi_tcp_socket *ks)
{
	kfi_tcp_detach(ks);
	/* It may just have been queued once more; now nobody does so any more. */
	cancel_delayed_work(&ks->linger);
	if (!kfi_tcp_is_done(ks->sock->sk))
		tcp_abort(ks->sock->sk, ECONNABORTED);
	sock_release(ks->sock);
	kfi_tcp_notices_put(ks->notices);
	kfree(ks);
}

static void kfi_tcp_linger_work(struct work_struct *work)
{
	kfi_tcp_release(container_of(to_delayed_work(work), struct kfi_tcp_socket, linger));
	if (atomic_dec_and_test(&kfi_tcp_lingering))
		wake_up(&kfi_tcp_idle);
}

static struct kfi_tcp_socket *kfi_tcp_alloc(kfi_tcp_wake_t wake, void *context)
{
	struct kfi_tcp_socket *ks = kzalloc_obj(*ks);

	if (ks) {
		ks->wake = wake;
		ks->context = context;
		INIT_DELAYED_WORK(&ks->linger, kfi_tcp_linger_work);
	}
	return ks;
}

/* The socket is the caller's alone. @parent: what it was accepted from, or NULL. */
static void kfi_tcp_adopt(struct kfi_tcp_socket *ks, struct socket *sock,
			  const struct kfi_tcp_socket *parent)
{
	struct sock *sk = sock->sk;

	ks->sock = sock;
	tcp_sock_set_nodelay(sk);
	/* It may be needed to get memory free. */
	sk->sk_allocation = GFP_NOIO;
	sk->sk_use_task_frag = false;

	write_lock_bh(&sk->sk_callback_lock);
	if (parent) {
		ks->saved = parent->saved;
	} else {
		ks->saved.data_ready = sk->sk_data_ready;
		ks->saved.state_change = sk->sk_state_change;
		ks->saved.write_space = sk->sk_write_space;
		ks->saved.error_report = sk->sk_error_report;
	}
	__rcu_assign_sk_user_data_with_flags(sk, ks, SK_USER_DATA_NOCOPY);
	kfi_tcp_set_callbacks(sk, &kfi_tcp_callbacks);
	write_unlock_bh(&sk->sk_callback_lock);
}

static int kfi_tcp_to_sockaddr(const struct kfi_tcp_address *addr, struct sockaddr_storage *to)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)to;
	struct sockaddr_in *in = (struct sockaddr_in *)to;

	memset(to, 0, sizeof(*to));
	if (addr->version == 4) {
		in->sin_family = AF_INET;
		in->sin_port = htons(addr->port);
		memcpy(&in->sin_addr, addr->ip, sizeof(in->sin_addr));
		return sizeof(*in);
	}
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(addr->port);
	in6->sin6_scope_id = addr->scope;
	memcpy(&in6->sin6_addr, addr->ip, sizeof(in6->sin6_addr));
	return sizeof(*in6);
}

static void kfi_tcp_from_sockaddr(const struct sockaddr_storage *from,
				  struct kfi_tcp_address *addr)
{
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
	const struct sockaddr_in *in = (const struct sockaddr_in *)from;

	memset(addr, 0, sizeof(*addr));
	if (from->ss_family == AF_INET) {
		addr->version = 4;
		addr->port = ntohs(in->sin_port);
		memcpy(addr->ip, &in->sin_addr, sizeof(in->sin_addr));
	} else {
		addr->version = 6;
		addr->port = ntohs(in6->sin6_port);
		addr->scope = in6->sin6_scope_id;
		memcpy(addr->ip, &in6->sin6_addr, sizeof(in6->sin6_addr));
	}
}

/* A socket that is bound to @at. */
static struct kfi_tcp_socket *kfi_tcp_open(struct net *net, const struct kfi_tcp_address *at,
					   bool listens, kfi_tcp_wake_t wake, void *context)
{
	int family = at->version == 4 ? AF_INET : AF_INET6;
	struct sockaddr_storage addr;
	struct kfi_tcp_socket *ks;
	struct socket *sock;
	int ret, len;

	ks = kfi_tcp_alloc(wake, context);
	if (!ks)
		return ERR_PTR(-ENOMEM);

	ret = sock_create_kern(net, family, SOCK_STREAM, IPPROTO_TCP, &sock);
	if (ret) {
		kfree(ks);
		return ERR_PTR(ret);
	}
	sk_net_refcnt_upgrade(sock->sk);
	kfi_tcp_adopt(ks, sock, NULL);

	if (family == AF_INET6)
		ip6_sock_set_v6only(sock->sk);
	if (!listens)
		/* Many may begin at one port that lead to several peers. */
		inet_set_bit(BIND_ADDRESS_NO_PORT, sock->sk);
	else if (at->port)
		/* What is left of former links does not keep the port. */
		sock_set_reuseaddr(sock->sk);

	len = kfi_tcp_to_sockaddr(at, &addr);
	ret = kernel_bind(sock, (struct sockaddr_unsized *)&addr, len);
	if (ret) {
		kfi_tcp_release(ks);
		return ERR_PTR(ret);
	}
	return ks;
}

/**
 * kfi_tcp_start() - make what sockets need that were closed gently
 * @drop: what is called with the hold of a kfi_tcp_splice()
 *
 * Process context, may sleep; before the first socket is made.
 *
 * Return: 0 or -ENOMEM.
 */
int kfi_tcp_start(kfi_tcp_drop_t drop)
{
	kfi_tcp_drop = drop;
	kfi_tcp_wq = alloc_workqueue("kfi_tcp_linger", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	return kfi_tcp_wq ? 0 : -ENOMEM;
}

/**
 * kfi_tcp_stop() - wait for sockets that were closed gently
 *
 * Process context, sleeps, for little longer than KFI_TCP_LINGER; when there is no
 * socket any more, nor a hold that is not dropped.
 */
void kfi_tcp_stop(void)
{
	wait_event(kfi_tcp_idle,
		   !atomic_read(&kfi_tcp_lingering) && !atomic_read(&kfi_tcp_pools));
	destroy_workqueue(kfi_tcp_wq);
	kfi_tcp_wq = NULL;
	/*
	 * The last notice may just be returning from here: in softirq context, or in a
	 * task that was preempted.
	 */
	synchronize_rcu();
	synchronize_rcu_tasks();
}

/**
 * kfi_tcp_configured() - where to listen, by the module's parameters
 * @addr: where it is returned
 *
 * Process context. The name of an interface, as in fe80::1%eth0, is one of the
 * initial network namespace.
 *
 * Return: 0, or -EINVAL if the parameter is no IP address.
 */
int kfi_tcp_configured(struct kfi_tcp_address *addr)
{
	struct sockaddr_storage parsed = {};
	int ret;

	ret = inet_pton_with_scope(&init_net, AF_UNSPEC, address, NULL, &parsed);
	if (ret) {
		pr_err("kfi_tcp: '%s' is no IP address\n", address);
		return -EINVAL;
	}
	kfi_tcp_from_sockaddr(&parsed, addr);
	addr->port = port;
	return 0;
}

/**
 * kfi_tcp_net_find() - a network namespace, and a reference to it
 * @cookie: its cookie
 *
 * Process context, may sleep.
 *
 * Return: it, or NULL if there is none with that cookie.
 */
struct net *kfi_tcp_net_find(u64 cookie)
{
	struct net *net, *found = NULL;

	down_read(&net_rwsem);
	for_each_net(net) {
		if (net->net_cookie == cookie) {
			found = maybe_get_net(net);
			break;
		}
	}
	up_read(&net_rwsem);
	return found;
}

/**
 * kfi_tcp_net_put() - drop a reference to a network namespace
 * @net: from kfi_tcp_net_find()
 *
 * Any context but hardirq.
 */
void kfi_tcp_net_put(struct net *net)
{
	put_net(net);
}

/**
 * kfi_tcp_interface() - the number of an interface
 * @net: in which network namespace
 * @name: its name
 *
 * Any context but hardirq.
 *
 * Return: it, or 0 if there is none of that name.
 */
u32 kfi_tcp_interface(struct net *net, const char *name)
{
	struct net_device *dev;
	u32 number;

	rcu_read_lock();
	dev = dev_get_by_name_rcu(net, name);
	number = dev ? dev->ifindex : 0;
	rcu_read_unlock();
	return number;
}

/**
 * kfi_tcp_has() - whether sockets could be bound to an address, at some port
 * @net: in which network namespace
 * @at: the address; its port is not looked at
 *
 * Process context, may sleep. No port is taken.
 *
 * Return: 0; -EADDRNOTAVAIL, -ENODEV if it is none of this host; -EAFNOSUPPORT without
 * IPv6; -ENOMEM; others that a bind gives.
 */
int kfi_tcp_has(struct net *net, const struct kfi_tcp_address *at)
{
	int family = at->version == 4 ? AF_INET : AF_INET6;
	struct kfi_tcp_address any = *at;
	struct sockaddr_storage addr;
	struct socket *sock;
	int ret, len;

	ret = sock_create_kern(net, family, SOCK_STREAM, IPPROTO_TCP, &sock);
	if (ret)
		return ret;
	if (family == AF_INET6)
		ip6_sock_set_v6only(sock->sk);
	inet_set_bit(BIND_ADDRESS_NO_PORT, sock->sk);
	any.port = 0;
	len = kfi_tcp_to_sockaddr(&any, &addr);
	ret = kernel_bind(sock, (struct sockaddr_unsized *)&addr, len);
	sock_release(sock);
	return ret;
}

/**
 * kfi_tcp_listen() - a socket for those that peers make
 * @net: in which network namespace
 * @at: where to listen; the port, if it is 0, is chosen, and returned there
 * @wake: called when kfi_tcp_accept() may have something
 * @context: passed to it
 *
 * Process context, may sleep.
 *
 * Return: the socket, or an error pointer: -ENOMEM; -EADDRINUSE, -EADDRNOTAVAIL;
 * -EAFNOSUPPORT without IPv6; others that a bind gives.
 */
struct kfi_tcp_socket *kfi_tcp_listen(struct net *net, struct kfi_tcp_address *at,
				      kfi_tcp_wake_t wake, void *context)
{
	struct sockaddr_storage addr;
	struct kfi_tcp_socket *ks;
	int ret;

	ks = kfi_tcp_open(net, at, true, wake, context);
	if (IS_ERR(ks))
		return ks;
	ret = kernel_listen(ks->sock, KFI_TCP_BACKLOG);
	if (!ret)
		ret = kernel_getsockname(ks->sock, (struct sockaddr *)&addr);
	if (ret < 0) {
		kfi_tcp_release(ks);
		return ERR_PTR(ret);
	}
	kfi_tcp_from_sockaddr(&addr, at);
	return ks;
}

/**
 * kfi_tcp_dial() - a socket that begins to connect
 * @net: in which network namespace
 * @from: where it comes from; port 0: any
 * @to: where it is to lead, of the same version
 * @wake: called when there is something to look at
 * @context: passed to it
 *
 * Process context, may sleep, but does not wait for the peer: kfi_tcp_state() tells.
 *
 * Return: the socket, or an error pointer: -ENOMEM; -ENETUNREACH, -EHOSTUNREACH;
 * others that a connect gives at once.
 */
struct kfi_tcp_socket *kfi_tcp_dial(struct net *net, const struct kfi_tcp_address *from,
				    const struct kfi_tcp_address *to,
				    kfi_tcp_wake_t wake, void *context)
{
	struct sockaddr_storage addr;
	struct kfi_tcp_socket *ks;
	int ret, len;

	ks = kfi_tcp_open(net, from, false, wake, context);
	if (IS_ERR(ks))
		return ks;
	len = kfi_tcp_to_sockaddr(to, &addr);
	ret = kernel_connect(ks->sock, (struct sockaddr_unsized *)&addr, len, O_NONBLOCK);
	if (ret && ret != -EINPROGRESS) {
		kfi_tcp_release(ks);
		return ERR_PTR(ret);
	}
	ks->notices = kfi_tcp_notices_alloc();
	return ks;
}

/**
 * kfi_tcp_accept() - a socket that a peer has made
 * @listener: where
 * @wake: called when there is something to look at
 * @context: passed to it
 *
 * Process context, may sleep, but does not wait for a peer.
 *
 * Return: the socket, or an error pointer: -EAGAIN without one; -EINVAL after
 * kfi_tcp_close(); -ENOMEM.
 */
struct kfi_tcp_socket *kfi_tcp_accept(struct kfi_tcp_socket *listener,
				      kfi_tcp_wake_t wake, void *context)
{
	struct kfi_tcp_socket *ks;
	struct socket *sock;
	int ret;

	/* Before there is a socket whose callbacks are to be put back. */
	ks = kfi_tcp_alloc(wake, context);
	if (!ks)
		return ERR_PTR(-ENOMEM);
	ret = kernel_accept(listener->sock, &sock, O_NONBLOCK);
	if (ret) {
		kfree(ks);
		return ERR_PTR(ret);
	}
	ks->notices = kfi_tcp_notices_alloc();
	kfi_tcp_adopt(ks, sock, listener);
	return ks;
}

/**
 * kfi_tcp_lock() - wait for a call of wake that runs, and keep others out
 * @ks: the socket
 *
 * Process context, with interrupts on; nothing may sleep until kfi_tcp_unlock().
 */
void kfi_tcp_lock(struct kfi_tcp_socket *ks)
	__acquires(&ks->sock->sk->sk_callback_lock)
{
	write_lock_bh(&ks->sock->sk->sk_callback_lock);
}

/**
 * kfi_tcp_unlock() - let wake be called again
 * @ks: the socket
 */
void kfi_tcp_unlock(struct kfi_tcp_socket *ks)
	__releases(&ks->sock->sk->sk_callback_lock)
{
	write_unlock_bh(&ks->sock->sk->sk_callback_lock);
}

/**
 * kfi_tcp_state() - whether a socket is connected
 * @ks: the socket
 *
 * Any context.
 *
 * Return: 1; 0 if it is not yet; why it is not, or not any more.
 */
int kfi_tcp_state(struct kfi_tcp_socket *ks)
{
	struct sock *sk = ks->sock->sk;
	int state, error;

	/* The reason is stored before the state. */
	state = inet_sk_state_load(sk);
	error = READ_ONCE(ks->error) ?: -READ_ONCE(sk->sk_err);
	if (error)
		return error;
	switch (state) {
	case TCP_SYN_SENT:
	case TCP_SYN_RECV:
		return 0;
	case TCP_CLOSE:
		return -ENOTCONN;
	default:
		return 1;
	}
}

/* Notes why the socket is broken: the kernel says so once. Returns the first reason. */
static int kfi_tcp_broken(struct kfi_tcp_socket *ks, int error)
{
	return cmpxchg(&ks->error, 0, error) ?: error;
}

/**
 * kfi_tcp_send() - queue bytes to be sent
 * @ks: the socket
 * @from: the bytes, which are copied; it is left as it is
 * @more: others follow at once
 *
 * Process context, may sleep, but not until there is room.
 *
 * Return: how many were taken; -EAGAIN if none, wake is called then; why the socket
 * is broken.
 */
long kfi_tcp_send(struct kfi_tcp_socket *ks, const struct iov_iter *from, bool more)
{
	struct msghdr msg = {
		.msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0),
		.msg_iter = *from,
	};
	int ret;

	iov_iter_truncate(&msg.msg_iter, MAX_RW_COUNT);
	ret = sock_sendmsg(ks->sock, &msg);
	if (ret >= 0 || ret == -EAGAIN)
		return ret;
	return kfi_tcp_broken(ks, ret);
}

/* Not to pages of kmalloc(), and not to those of a device, which may go. */
static bool kfi_tcp_may_refer_to(struct page *page)
{
	return sendpage_ok(page) && !is_zone_device_page(page);
}

/* As above, of a segment; the pages of a folio are alike. */
static bool kfi_tcp_may_refer_to_segment(const struct bio_vec *vec)
{
	size_t at, end = vec->bv_offset + vec->bv_len, pages;
	struct folio *folio;
	struct page *page;

	for (at = vec->bv_offset; at < end; at += pages * PAGE_SIZE - offset_in_page(at)) {
		page = vec->bv_page + (at >> PAGE_SHIFT);
		if (!kfi_tcp_may_refer_to(page))
			return false;
		folio = page_folio(page);
		pages = folio_nr_pages(folio) - folio_page_idx(folio, page);
	}
	return true;
}

/* Whether packets may have references to these bytes. No byte was taken from @from. */
static bool kfi_tcp_may_refer(const struct iov_iter *from)
{
	struct page *pages[16], **ppages = pages;
	struct iov_iter iter = *from;
	size_t offset, count, i;
	ssize_t len;

	if (iov_iter_is_bvec(from)) {
		for (i = 0; i < from->nr_segs; i++) {
			if (!kfi_tcp_may_refer_to_segment(&from->bvec[i]))
				return false;
		}
		return true;
	}
	while (iov_iter_count(&iter)) {
		len = iov_iter_extract_pages(&iter, &ppages, iov_iter_count(&iter),
					     ARRAY_SIZE(pages), 0, &offset);
		if (len <= 0)
			return false;
		count = DIV_ROUND_UP(offset + len, PAGE_SIZE);
		for (i = 0; i < count; i++) {
			if (!kfi_tcp_may_refer_to(pages[i]))
				return false;
		}
	}
	return true;
}

/* Whether notices of this socket are worth anything. */
static bool kfi_tcp_may_splice(const struct sock *sk)
{
	/*
	 * A probe for the path's MTU takes over references to pages, but not their notice
	 * (tcp_clone_payload()).
	 */
	if (READ_ONCE(sock_net(sk)->ipv4.sysctl_tcp_mtu_probing) ||
	    inet_csk(sk)->icsk_mtup.enabled)
		return false;
	/* Without, the kernel copies. */
	return sk->sk_route_caps & NETIF_F_SG;
}

/* Adds bytes to a packet, by references. The errors are what tcp_sendmsg() knows. */
static int kfi_tcp_sg_from_iter(struct sk_buff *skb, struct iov_iter *from, size_t length)
{
	ssize_t added = skb_splice_from_iter(skb, from, length);

	if (added > 0)
		return 0;
	return added == -EMSGSIZE ? -EMSGSIZE : -EFAULT;
}

/**
 * kfi_tcp_splice() - queue bytes to be sent, without a copy
 * @ks: the socket
 * @from: the bytes; it is left as it is
 * @more: others follow at once
 * @hold: dropped when the bytes are not used any more; those of one operation are equal
 *
 * As kfi_tcp_send().
 *
 * Return: also 0, with nothing taken: they can't be sent so. As long as the hold is not
 * dropped the bytes must stay what they are, and their pages must not be freed.
 */
long kfi_tcp_splice(struct kfi_tcp_socket *ks, const struct iov_iter *from, bool more, void *hold)
{
	struct msghdr msg = {
		.msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_ZEROCOPY | (more ? MSG_MORE : 0),
		.msg_iter = *from,
		.sg_from_iter = kfi_tcp_sg_from_iter,
	};
	struct kfi_tcp_notice *notice = NULL;
	int ret;

	iov_iter_truncate(&msg.msg_iter, MAX_RW_COUNT);
	if (ks->notices && kfi_tcp_may_splice(ks->sock->sk) && kfi_tcp_may_refer(&msg.msg_iter))
		notice = kfi_tcp_notice(ks->notices, hold);
	if (!notice) {
		kfi_tcp_drop(hold);
		return 0;
	}
	msg.msg_ubuf = &notice->ubuf;
	ret = sock_sendmsg(ks->sock, &msg);
	net_zcopy_put(&notice->ubuf);
	if (ret >= 0 || ret == -EAGAIN)
		return ret;
	return kfi_tcp_broken(ks, ret);
}

/**
 * kfi_tcp_receive() - take bytes that have come
 * @ks: the socket
 * @into: where they are put, from its beginning on; it is left as it is
 *
 * Process context, may sleep, but not until there are some.
 *
 * Return: how many; 0 if the peer has ended; -EAGAIN if there are none, wake is called
 * then; why the socket is broken, once all bytes have been taken that came before.
 */
long kfi_tcp_receive(struct kfi_tcp_socket *ks, const struct iov_iter *into)
{
	struct msghdr msg = { .msg_iter = *into };
	const struct sock *sk = ks->sock->sk;
	int ret;

	/* What comes after this is told after it: the socket's lock is between. */
	if (READ_ONCE(ks->drained))
		return -EAGAIN;
	WRITE_ONCE(ks->drained, true);
	iov_iter_truncate(&msg.msg_iter, MAX_RW_COUNT);
	ret = sock_recvmsg(ks->sock, &msg, MSG_DONTWAIT);
	/* There may be more, or the end, which was told before; and urgent data stops a call. */
	if (READ_ONCE(tcp_sk(sk)->urg_data) ||
	    (ret != -EAGAIN && (ret <= 0 || !msg_data_left(&msg) || READ_ONCE(sk->sk_err) ||
				READ_ONCE(sk->sk_shutdown) & RCV_SHUTDOWN)))
		WRITE_ONCE(ks->drained, false);
	if (ret > 0 || ret == -EAGAIN)
		return ret;
	/* Who has been told why it broke is told next that it has ended. */
	return ret ? kfi_tcp_broken(ks, ret) : READ_ONCE(ks->error);
}

/**
 * kfi_tcp_close() - end a socket
 * @ks: the socket
 * @gently: what was taken to be sent still goes, as long as that takes no longer than
 *	KFI_TCP_LINGER after kfi_tcp_free(); else the peer sees a reset
 *
 * Process context, may sleep, but does not wait for the peer. More than once does no
 * harm. A listening socket is always ended at once, with those that were not accepted.
 */
void kfi_tcp_close(struct kfi_tcp_socket *ks, bool gently)
{
	struct sock *sk = ks->sock->sk;

	if (gently && !((1 << inet_sk_state_load(sk)) & (TCPF_LISTEN | TCPF_SYN_SENT))) {
		ks->gently = true;
		/* Bytes that come are left unread: a reset would answer them otherwise. */
		kernel_sock_shutdown(ks->sock, SHUT_WR);
	} else {
		tcp_abort(sk, ECONNABORTED);
	}
}

/**
 * kfi_tcp_free() - let a socket go
 * @ks: the socket, which nobody else uses any more
 *
 * Process context, may sleep, but does not wait for the peer. A socket that was not
 * closed is aborted. When it returns, wake is not called any more.
 */
void kfi_tcp_free(struct kfi_tcp_socket *ks)
{
	struct sock *sk = ks->sock->sk;
	bool lingers;

	write_lock_bh(&sk->sk_callback_lock);
	lingers = ks->gently && kfi_tcp_wq && !kfi_tcp_is_done(sk) &&
		  atomic_read(&kfi_tcp_lingering) < KFI_TCP_LINGERING;
	if (lingers) {
		ks->lingers = true;
		atomic_inc(&kfi_tcp_lingering);
		queue_delayed_work(kfi_tcp_wq, &ks->linger, KFI_TCP_LINGER);
	}
	write_unlock_bh(&sk->sk_callback_lock);

	if (!lingers)
		kfi_tcp_release(ks);
}
