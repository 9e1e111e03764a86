/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_SYS_PMEM_H
#define KFABRIC_SYS_PMEM_H

#include <linux/types.h>

struct block_device;
struct dax_device;
struct dax_operations;
struct file;

/* From linux/dax.h, which is not in kernel::bindings; pmem.c sees both. */
int dax_read_lock(void);
void dax_read_unlock(int id);
bool dax_alive(struct dax_device *dax_dev);
struct dax_device *alloc_dax(void *private, const struct dax_operations *ops);
void kill_dax(struct dax_device *dax_dev);
void put_dax(struct dax_device *dax_dev);
void fs_put_dax(struct dax_device *dax_dev, void *holder);

struct file *kfi_pmem_open(const char *path, void *holder);
int kfi_pmem_hold(struct block_device *bdev, void *holder,
		  struct dax_device **dax, u64 *start);
int kfi_pmem_map(struct block_device *bdev, struct dax_device *dax, u64 start,
		 void **base, u64 *len);
void kfi_pmem_write_back(void *addr, size_t len);
void kfi_pmem_relax(void);

/* Implemented in pmem.rs. */
int kfi_pmem_failure(struct dax_device *dax, u64 offset, u64 len, int flags);

/* What kfi_pmem_failure() is told when the device is going to be removed. */
extern const int kfi_pmem_pre_remove;

#endif /* KFABRIC_SYS_PMEM_H */
