// SPDX-License-Identifier: GPL-2.0
/*
 * Persistent memory: what is inline, or a macro, or a structure of the kernel's that
 * pmem.rs does not need to know.
 */

#include <linux/blkdev.h>
#include <linux/dax.h>
#include <linux/libnvdimm.h>
#include <linux/memremap.h>
#include <linux/mm.h>

#include "pmem.h"

const int kfi_pmem_pre_remove = MF_MEM_PRE_REMOVE;

static const struct dax_holder_operations kfi_pmem_holder_ops = {
	.notify_failure = kfi_pmem_failure,
};

/**
 * kfi_pmem_open - open a block device exclusively, to read and write
 * @path: where it is
 * @holder: who opens it
 *
 * May sleep.
 *
 * Return: the file, to be released with bdev_fput(), or an error pointer.
 */
struct file *kfi_pmem_open(const char *path, void *holder)
{
	return bdev_file_open_by_path(path, BLK_OPEN_READ | BLK_OPEN_WRITE |
				      BLK_OPEN_RESTRICT_WRITES, holder, NULL);
}

/**
 * kfi_pmem_hold - become the holder of the dax device under a block device
 * @bdev: the block device
 * @holder: who holds it
 * @dax: where the dax device is returned; release it with fs_put_dax()
 * @start: where the byte of @dax is returned at which @bdev begins
 *
 * May sleep.
 *
 * Return: 0; -EOPNOTSUPP if there is no page-backed dax device or @bdev is not
 * aligned to pages; -EBUSY if it is held by another, or just being removed.
 */
int kfi_pmem_hold(struct block_device *bdev, void *holder,
		  struct dax_device **dax, u64 *start)
{
	if (!IS_ENABLED(CONFIG_ARCH_HAS_PMEM_API) ||
	    !blk_queue_dax(bdev_get_queue(bdev)))
		return -EOPNOTSUPP;
	if (!PAGE_ALIGNED(get_start_sect(bdev) * SECTOR_SIZE) ||
	    !PAGE_ALIGNED(bdev_nr_bytes(bdev)))
		return -EOPNOTSUPP;

	*dax = fs_dax_get_by_bdev(bdev, start, holder, &kfi_pmem_holder_ops);
	return *dax ? 0 : -EBUSY;
}

/*
 * Whether the page is part of the mapping that the dax device's own driver made.
 * Only then does the mapping live as long as the dax device: that of a stacked
 * device goes when the one below it is unbound, which kills another dax device.
 */
static bool is_own_page(struct dax_device *dax, unsigned long pfn)
{
	struct page *page;

	if (!pfn_valid(pfn))
		return false;
	page = pfn_to_page(pfn);
	return is_fsdax_page(page) &&
	       page_pgmap(page)->owner == dax_get_private(dax);
}

/**
 * kfi_pmem_map - find out where all of a block device is mapped
 * @bdev: the block device
 * @dax: its dax device
 * @start: the byte of @dax at which @bdev begins
 * @base: where the address of the first byte is returned
 * @len: where the number of bytes is returned
 *
 * May sleep. The address is good inside dax_read_lock() while dax_alive().
 *
 * Return: 0; -EOPNOTSUPP if it is not one mapping of the device's own pages;
 * -EIO if some of it is known to be bad; -ENODEV if the device is gone.
 */
int kfi_pmem_map(struct block_device *bdev, struct dax_device *dax, u64 start,
		 void **base, u64 *len)
{
	long pages = bdev_nr_bytes(bdev) >> PAGE_SHIFT;
	pgoff_t first = start >> PAGE_SHIFT;
	unsigned long pfn;
	long avail;
	int ret = 0;
	int id;

	if (!pages)
		return -EOPNOTSUPP;

	id = dax_read_lock();
	if (!dax_alive(dax)) {
		ret = -ENODEV;
		goto out;
	}
	avail = dax_direct_access(dax, first, pages, DAX_ACCESS, base, &pfn);
	if (avail == -EHWPOISON)
		ret = -EIO;
	else if (avail < 0)
		ret = avail;
	else if (avail < pages || !is_own_page(dax, pfn) ||
		 !is_own_page(dax, pfn + pages - 1))
		ret = -EOPNOTSUPP;
	*len = (u64)pages << PAGE_SHIFT;
out:
	dax_read_unlock(id);
	return ret;
}

/**
 * kfi_pmem_write_back - write back the cache lines that cover a range, and wait
 * @addr: the first byte
 * @len: how many bytes
 *
 * Any context. Afterwards the bytes are with the device, which may have to be
 * flushed itself.
 *
 * Not dax_flush(): that does nothing when the administrator switched the device's
 * write cache off in sysfs.
 */
void kfi_pmem_write_back(void *addr, size_t len)
{
	arch_wb_cache_pmem(addr, len);
	pmem_wmb();
}

/**
 * kfi_pmem_relax - let others run between two parts of a long write-back
 */
void kfi_pmem_relax(void)
{
	cond_resched();
}
