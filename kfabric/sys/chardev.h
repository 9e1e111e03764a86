/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_SYS_CHARDEV_H
#define KFABRIC_SYS_CHARDEV_H

#include <linux/fs.h>

/* The flags of an I/O call that bindgen cannot take: they are casts of a __bitwise type. */
enum kfi_iocb {
	KFI_IOCB_APPEND = IOCB_APPEND,
	KFI_IOCB_DSYNC = IOCB_DSYNC,
	KFI_IOCB_SYNC = IOCB_SYNC,
};

#endif /* KFABRIC_SYS_CHARDEV_H */
