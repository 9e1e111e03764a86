/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_SYS_TRACE_H
#define KFABRIC_SYS_TRACE_H

#include <linux/tracepoint.h>
#include <linux/types.h>

/* The numbers of kfabric::op::Kind. */
#define KFI_TRACE_SEND		0
#define KFI_TRACE_RECV		1
#define KFI_TRACE_WRITE		2
#define KFI_TRACE_READ		3
#define KFI_TRACE_COMMIT	4
#define KFI_TRACE_ATOMIC	5

/* The numbers of kfabric::op::Level. */
#define KFI_TRACE_TRANSMIT	0
#define KFI_TRACE_DELIVERED	1
#define KFI_TRACE_COMMITTED	2

/**
 * struct kfi_trace_op - names an operation
 * @endpoint: the endpoint that posted it
 * @index: its slot there
 * @use: how often the slot was used
 * @kind: what it does
 */
struct kfi_trace_op {
	u64 endpoint;
	u32 index;
	u64 use;
	u32 kind;
};

/* Made by the macros of trace.h, which bindgen does not see through. */
extern struct tracepoint __tracepoint_kfi_post;
extern struct tracepoint __tracepoint_kfi_complete;
extern struct tracepoint __tracepoint_kfi_error;
extern struct tracepoint __tracepoint_kfi_commit;

void rust_do_trace_kfi_post(const struct kfi_trace_op *op, u64 len, u32 level);
void rust_do_trace_kfi_complete(const struct kfi_trace_op *op, u64 len, u32 level);
void rust_do_trace_kfi_error(const struct kfi_trace_op *op, u64 len, u64 target,
			     int error, int provider);
void rust_do_trace_kfi_commit(const struct kfi_trace_op *op, u64 len, u64 target, u64 offset);

#endif /* KFABRIC_SYS_TRACE_H */
