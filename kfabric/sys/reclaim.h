/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_SYS_RECLAIM_H
#define KFABRIC_SYS_RECLAIM_H

unsigned int kfi_noio_save(void);
void kfi_noio_restore(unsigned int flags);

#endif /* KFABRIC_SYS_RECLAIM_H */
