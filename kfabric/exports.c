// SPDX-License-Identifier: GPL-2.0
/*
 * Exports every mangled symbol of the crate `kfabric`, for the modules that use
 * it: the list is made from the object itself (Kbuild). Until Kbuild knows Rust
 * dependencies between modules, this is how nova-core does it too.
 */

#include <linux/export.h>

#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "exports_generated.h"
