// SPDX-License-Identifier: GPL-2.0
/*
 * Uses of a value that is found without a lock: what is inline, or a macro.
 */

#include <linux/rcupdate.h>
#include <linux/refcount.h>

#include "lease.h"

/**
 * kfi_lent_use() - count one use more, unless the last has gone
 * @users: how many there are
 *
 * Any context.
 *
 * Return: whether it was counted.
 */
bool kfi_lent_use(refcount_t *users)
{
	return refcount_inc_not_zero(users);
}

/**
 * kfi_lent_free() - free an allocation after a grace period
 * @lent: its head, with which it begins
 *
 * Any context. The kernel's own code frees it, so no module has to stay for it.
 */
void kfi_lent_free(struct kfi_lent *lent)
{
	kvfree_rcu(lent, rcu);
}
