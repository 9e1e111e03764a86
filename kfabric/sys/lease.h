/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_SYS_LEASE_H
#define KFABRIC_SYS_LEASE_H

#include <linux/refcount.h>
#include <linux/types.h>

/**
 * struct kfi_lent - the head of an allocation that readers may still look at
 * @rcu: the kernel's, once nobody uses the allocation
 */
struct kfi_lent {
	struct rcu_head rcu;
};

bool kfi_lent_use(refcount_t *users);
void kfi_lent_free(struct kfi_lent *lent);

#endif /* KFABRIC_SYS_LEASE_H */
