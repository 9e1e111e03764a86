/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The tracepoints of kfabric: an operation's way from its post to its end.
 *
 * No field holds a key, or anything that a key can be told from.
 */

#undef TRACE_SYSTEM
#define TRACE_SYSTEM kfabric

#if !defined(_KFABRIC_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _KFABRIC_TRACE_H

#include <linux/tracepoint.h>

#include "sys/trace.h"

#define kfi_show_kind(kind)				\
	__print_symbolic(kind,				\
		{ KFI_TRACE_SEND, "send" },		\
		{ KFI_TRACE_RECV, "recv" },		\
		{ KFI_TRACE_WRITE, "write" },		\
		{ KFI_TRACE_READ, "read" },		\
		{ KFI_TRACE_COMMIT, "commit" },		\
		{ KFI_TRACE_ATOMIC, "atomic" })

#define kfi_show_level(level)				\
	__print_symbolic(level,				\
		{ KFI_TRACE_TRANSMIT, "transmit" },	\
		{ KFI_TRACE_DELIVERED, "delivered" },	\
		{ KFI_TRACE_COMMITTED, "committed" })

/* An operation is named by its endpoint, its slot and how often that was used. */
DECLARE_EVENT_CLASS(kfi_op,
	TP_PROTO(const struct kfi_trace_op *op, u64 len, u32 level),
	TP_ARGS(op, len, level),
	TP_STRUCT__entry(
		__field(u64, endpoint)
		__field(u64, len)
		__field(u32, index)
		__field(u64, use)
		__field(u32, kind)
		__field(u32, level)
	),
	TP_fast_assign(
		__entry->endpoint = op->endpoint;
		__entry->len = len;
		__entry->index = op->index;
		__entry->use = op->use;
		__entry->kind = op->kind;
		__entry->level = level;
	),
	TP_printk("endpoint=%llu op=%u.%llu %s len=%llu level=%s",
		  __entry->endpoint, __entry->index, __entry->use,
		  kfi_show_kind(__entry->kind), __entry->len,
		  kfi_show_level(__entry->level))
);

/* An operation is handed to its provider; @level is the one that is asked for. */
DEFINE_EVENT(kfi_op, kfi_post,
	TP_PROTO(const struct kfi_trace_op *op, u64 len, u32 level),
	TP_ARGS(op, len, level)
);

/* An operation went well; @level is the one that was reached. */
DEFINE_EVENT(kfi_op, kfi_complete,
	TP_PROTO(const struct kfi_trace_op *op, u64 len, u32 level),
	TP_ARGS(op, len, level)
);

/*
 * An operation failed, or was refused by its target: then @target is the
 * endpoint that refused it, else 0.
 */
TRACE_EVENT(kfi_error,
	TP_PROTO(const struct kfi_trace_op *op, u64 len, u64 target, int error, int provider),
	TP_ARGS(op, len, target, error, provider),
	TP_STRUCT__entry(
		__field(u64, endpoint)
		__field(u64, target)
		__field(u64, len)
		__field(u32, index)
		__field(u64, use)
		__field(u32, kind)
		__field(int, error)
		__field(int, provider)
	),
	TP_fast_assign(
		__entry->endpoint = op->endpoint;
		__entry->target = target;
		__entry->len = len;
		__entry->index = op->index;
		__entry->use = op->use;
		__entry->kind = op->kind;
		__entry->error = error;
		__entry->provider = provider;
	),
	TP_printk("endpoint=%llu op=%u.%llu %s len=%llu target=%llu error=%d provider=%d",
		  __entry->endpoint, __entry->index, __entry->use,
		  kfi_show_kind(__entry->kind), __entry->len, __entry->target,
		  __entry->error, __entry->provider)
);

/* The target made @len bytes from @offset of a region durable. */
TRACE_EVENT(kfi_commit,
	TP_PROTO(const struct kfi_trace_op *op, u64 len, u64 target, u64 offset),
	TP_ARGS(op, len, target, offset),
	TP_STRUCT__entry(
		__field(u64, endpoint)
		__field(u64, target)
		__field(u64, offset)
		__field(u64, len)
		__field(u32, index)
		__field(u64, use)
		__field(u32, kind)
	),
	TP_fast_assign(
		__entry->endpoint = op->endpoint;
		__entry->target = target;
		__entry->offset = offset;
		__entry->len = len;
		__entry->index = op->index;
		__entry->use = op->use;
		__entry->kind = op->kind;
	),
	TP_printk("endpoint=%llu op=%u.%llu %s target=%llu offset=%llu len=%llu",
		  __entry->endpoint, __entry->index, __entry->use,
		  kfi_show_kind(__entry->kind), __entry->target,
		  __entry->offset, __entry->len)
);

#endif /* _KFABRIC_TRACE_H */

/* This part must be outside protection. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
