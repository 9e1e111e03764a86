/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_SYS_CONTEXT_H
#define KFABRIC_SYS_CONTEXT_H

#include <linux/types.h>

bool kfi_in_softirq(void);

#endif /* KFABRIC_SYS_CONTEXT_H */
