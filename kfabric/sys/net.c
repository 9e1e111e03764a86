// SPDX-License-Identifier: GPL-2.0
/*
 * Network namespaces by their cookies, which the kernel never gives out twice.
 */

#include <linux/nsproxy.h>
#include <linux/sched.h>
#include <net/net_namespace.h>

#include "net.h"

/**
 * kfi_net_initial - the cookie of the initial network namespace
 *
 * Any context.
 */
u64 kfi_net_initial(void)
{
	return init_net.net_cookie;
}

/**
 * kfi_net_current - the cookie of the current task's network namespace
 *
 * Process context. A task on its way out has none: it gets the initial one's.
 */
u64 kfi_net_current(void)
{
	struct nsproxy *ns = current->nsproxy;

	return ns ? ns->net_ns->net_cookie : kfi_net_initial();
}
