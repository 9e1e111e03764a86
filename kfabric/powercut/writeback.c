// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel writes back to persistent memory, seen by probes on its own
 * primitives: arch_wb_cache_pmem(), with the content of the lines at that moment,
 * __memcpy_flushcache(), with what it has stored around the cache when it returns, and
 * nvdimm_flush(), which fences and flushes the device.
 *
 * The handlers run with preemption disabled, wherever the probed function is called;
 * the log they write to is allocated before and guarded by a raw spinlock.
 */

#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/math.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/spinlock.h>
#include <linux/string.h>

#include "writeback.h"

#define KFI_WB_LINE 64
#define KFI_WB_RECORDS 16384
#define KFI_WB_BYTES (8 << 20)

struct kfi_wb_record {
	u64 addr;		/* as passed to the primitive; 0: a flush */
	u64 len;
	u32 at;			/* where the lines are in the log's bytes */
	u32 bytes;
	bool around;		/* stored around the cache, and not written back */
};

struct kfi_wb_log {
	struct kfi_wb_record record[KFI_WB_RECORDS];
	u32 head;
	u32 tail;
	u32 used;		/* of bytes */
	u64 lost;
	u64 watch;		/* the first address of interest, a line's */
	u64 watch_end;
	u32 delay_us;
	u8 bytes[KFI_WB_BYTES];
};

static struct kfi_wb_log *kfi_wb_log;
static DEFINE_RAW_SPINLOCK(kfi_wb_lock);

static void kfi_wb_add(u64 addr, u64 len, bool around)
{
	struct kfi_wb_log *log = kfi_wb_log;
	struct kfi_wb_record *record;
	u64 start = 0, end = 0;
	unsigned long flags;
	u32 delay = READ_ONCE(log->delay_us);

	/* Who completes too early is seen to do so while this waits. */
	if (delay)
		udelay(delay);

	raw_spin_lock_irqsave(&kfi_wb_lock, flags);
	if (addr) {
		/* A line is written back as a whole. */
		start = max(around ? addr : round_down(addr, KFI_WB_LINE), log->watch);
		end = min(around ? addr + len : round_up(addr + len, KFI_WB_LINE),
			  log->watch_end);
		if (start >= end)
			goto out;
	}
	if (log->tail == KFI_WB_RECORDS || end - start > KFI_WB_BYTES - log->used) {
		log->lost++;
		goto out;
	}
	record = &log->record[log->tail++];
	record->addr = addr;
	record->len = len;
	record->around = around;
	record->at = log->used;
	record->bytes = end - start;
	memcpy(log->bytes + log->used, (void *)start, end - start);
	log->used += end - start;
out:
	raw_spin_unlock_irqrestore(&kfi_wb_lock, flags);
}

static int kfi_wb_write_back(struct kprobe *probe, struct pt_regs *regs)
{
	kfi_wb_add(regs_get_kernel_argument(regs, 0), regs_get_kernel_argument(regs, 1), false);
	return 0;
}

static int kfi_wb_flush(struct kprobe *probe, struct pt_regs *regs)
{
	kfi_wb_add(0, 0, false);
	return 0;
}

/* Where a copy around the cache went: known when it begins, there when it ends. */
struct kfi_wb_copy {
	u64 addr;
	u64 len;
};

static int kfi_wb_copy_begins(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct kfi_wb_copy *copy = (void *)instance->data;

	copy->addr = regs_get_kernel_argument(regs, 0);
	copy->len = regs_get_kernel_argument(regs, 2);
	return 0;
}

static int kfi_wb_copy_ended(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct kfi_wb_copy *copy = (void *)instance->data;

	if (copy->len)
		kfi_wb_add(copy->addr, copy->len, true);
	return 0;
}

static struct kprobe kfi_wb_probes[2];
static struct kretprobe kfi_wb_copies;

/**
 * kfi_wb_start - start to record
 *
 * Process context, may sleep; once at a time.
 *
 * Return: 0, -ENOMEM, or why the kernel can't be probed.
 */
int kfi_wb_start(void)
{
	struct kprobe *probes[] = { &kfi_wb_probes[0], &kfi_wb_probes[1] };
	int ret;

	kfi_wb_log = kvzalloc_obj(*kfi_wb_log);
	if (!kfi_wb_log)
		return -ENOMEM;
	kfi_wb_log->watch_end = U64_MAX;

	/* Registering leaves its traces in a probe: begin anew. */
	memset(kfi_wb_probes, 0, sizeof(kfi_wb_probes));
	kfi_wb_probes[0].symbol_name = "arch_wb_cache_pmem";
	kfi_wb_probes[0].pre_handler = kfi_wb_write_back;
	kfi_wb_probes[1].symbol_name = "nvdimm_flush";
	kfi_wb_probes[1].pre_handler = kfi_wb_flush;

	memset(&kfi_wb_copies, 0, sizeof(kfi_wb_copies));
	kfi_wb_copies.kp.symbol_name = "__memcpy_flushcache";
	kfi_wb_copies.entry_handler = kfi_wb_copy_begins;
	kfi_wb_copies.handler = kfi_wb_copy_ended;
	kfi_wb_copies.data_size = sizeof(struct kfi_wb_copy);

	ret = register_kprobes(probes, ARRAY_SIZE(probes));
	if (ret)
		goto free;
	ret = register_kretprobe(&kfi_wb_copies);
	if (ret)
		goto unregister;
	return 0;

unregister:
	unregister_kprobes(probes, ARRAY_SIZE(probes));
free:
	kvfree(kfi_wb_log);
	kfi_wb_log = NULL;
	return ret;
}

/**
 * kfi_wb_stop - stop to record, and wait for handlers that run
 */
void kfi_wb_stop(void)
{
	struct kprobe *probes[] = { &kfi_wb_probes[0], &kfi_wb_probes[1] };

	unregister_kretprobe(&kfi_wb_copies);
	unregister_kprobes(probes, ARRAY_SIZE(probes));
	kvfree(kfi_wb_log);
	kfi_wb_log = NULL;
}

/**
 * kfi_wb_watch - record only what is in a range
 * @addr: the first address
 * @len: how many bytes
 * @delay_us: how long each primitive is held up, in microseconds
 */
void kfi_wb_watch(u64 addr, u64 len, u32 delay_us)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&kfi_wb_lock, flags);
	kfi_wb_log->watch = addr;
	kfi_wb_log->watch_end = addr + len;
	WRITE_ONCE(kfi_wb_log->delay_us, delay_us);
	raw_spin_unlock_irqrestore(&kfi_wb_lock, flags);
}

/**
 * kfi_wb_take - take the oldest record
 * @addr: where the address is returned as the primitive got it; 0: this is a flush
 * @len: where the length is returned as the primitive got it
 * @around: where it is returned whether the bytes were stored around the cache
 * @bytes: where the content of the watched lines, or of those bytes, is copied to
 * @size: how many bytes fit there
 *
 * Return: how many bytes were copied; -ENOENT without a record, -EMSGSIZE if they
 * don't fit, -EOVERFLOW if a record was lost for want of room, from then on always.
 */
long kfi_wb_take(u64 *addr, u64 *len, bool *around, void *bytes, size_t size)
{
	struct kfi_wb_log *log = kfi_wb_log;
	struct kfi_wb_record *record;
	unsigned long flags;
	long ret = -ENOENT;

	raw_spin_lock_irqsave(&kfi_wb_lock, flags);
	if (log->lost) {
		ret = -EOVERFLOW;
	} else if (log->head < log->tail) {
		record = &log->record[log->head];
		ret = -EMSGSIZE;
		if (record->bytes <= size) {
			*addr = record->addr;
			*len = record->len;
			*around = record->around;
			memcpy(bytes, log->bytes + record->at, record->bytes);
			ret = record->bytes;
			log->head++;
		}
	} else {
		log->head = 0;
		log->tail = 0;
		log->used = 0;
	}
	raw_spin_unlock_irqrestore(&kfi_wb_lock, flags);
	return ret;
}
