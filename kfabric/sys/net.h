/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_SYS_NET_H
#define KFABRIC_SYS_NET_H

#include <linux/types.h>

u64 kfi_net_initial(void);
u64 kfi_net_current(void);

#endif /* KFABRIC_SYS_NET_H */
