// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoints of kfabric. They are exported because the functions that test
 * whether one is enabled are inlined into providers.
 */

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include "trace.h"

EXPORT_TRACEPOINT_SYMBOL_GPL(kfi_post);
EXPORT_TRACEPOINT_SYMBOL_GPL(kfi_complete);
EXPORT_TRACEPOINT_SYMBOL_GPL(kfi_error);
EXPORT_TRACEPOINT_SYMBOL_GPL(kfi_commit);
