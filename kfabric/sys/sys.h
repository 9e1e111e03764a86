/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads for kfabric::sys::bindings: one header for each noun whose
 * kernel interface is not in kernel::bindings.
 */

#ifndef KFABRIC_SYS_H
#define KFABRIC_SYS_H

#include "around.h"
#include "chardev.h"
#include "context.h"
#include "copy.h"
#include "crc.h"
#include "debugfs.h"
#include "folio.h"
#include "lease.h"
#include "net.h"
#include "pieces.h"
#include "pmem.h"
#include "reclaim.h"
#include "trace.h"

#endif /* KFABRIC_SYS_H */
