/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_PROVIDERS_TCP_DOOR_H
#define KFABRIC_PROVIDERS_TCP_DOOR_H

#include <linux/types.h>

struct iov_iter;
struct net;
struct kfi_tcp_socket;

/**
 * struct kfi_tcp_address - where a socket is bound to, or leads to
 * @ip: in network order; of IPv4 the first 4 bytes
 * @scope: the interface of an IPv6 address that is of one link; else 0
 * @port: in host order
 * @version: 4 or 6
 */
struct kfi_tcp_address {
	u8 ip[16];
	u32 scope;
	u16 port;
	u16 version;
};

/* Called when there is something to look at, in any context but hardirq. */
typedef void (*kfi_tcp_wake_t)(void *context);

/* Called when the pages that were sent with it are used no more, in any context but hardirq. */
typedef void (*kfi_tcp_drop_t)(void *hold);

/* Declared once more in door.rs, which calls them. */
int kfi_tcp_start(kfi_tcp_drop_t drop);
void kfi_tcp_stop(void);
int kfi_tcp_configured(struct kfi_tcp_address *addr);

struct net *kfi_tcp_net_find(u64 cookie);
void kfi_tcp_net_put(struct net *net);
u32 kfi_tcp_interface(struct net *net, const char *name);
int kfi_tcp_has(struct net *net, const struct kfi_tcp_address *at);

struct kfi_tcp_socket *kfi_tcp_listen(struct net *net, struct kfi_tcp_address *at,
				      kfi_tcp_wake_t wake, void *context);
struct kfi_tcp_socket *kfi_tcp_dial(struct net *net, const struct kfi_tcp_address *from,
				    const struct kfi_tcp_address *to,
				    kfi_tcp_wake_t wake, void *context);
struct kfi_tcp_socket *kfi_tcp_accept(struct kfi_tcp_socket *listener,
				      kfi_tcp_wake_t wake, void *context);
void kfi_tcp_lock(struct kfi_tcp_socket *ks);
void kfi_tcp_unlock(struct kfi_tcp_socket *ks);
int kfi_tcp_state(struct kfi_tcp_socket *ks);
long kfi_tcp_send(struct kfi_tcp_socket *ks, const struct iov_iter *from, bool more);
long kfi_tcp_splice(struct kfi_tcp_socket *ks, const struct iov_iter *from, bool more, void *hold);
long kfi_tcp_receive(struct kfi_tcp_socket *ks, const struct iov_iter *into);
void kfi_tcp_close(struct kfi_tcp_socket *ks, bool gently);
void kfi_tcp_free(struct kfi_tcp_socket *ks);

#endif /* KFABRIC_PROVIDERS_TCP_DOOR_H */
