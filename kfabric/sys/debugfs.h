/* SPDX-License-Identifier: GPL-2.0 */
#ifndef KFABRIC_SYS_DEBUGFS_H
#define KFABRIC_SYS_DEBUGFS_H

#include <linux/debugfs.h>

struct dentry *kfi_debugfs_dir(const char *name, struct dentry *parent);
struct dentry *kfi_debugfs_file(const char *name, struct dentry *parent,
				const void *shown, bool writable);
int kfi_debugfs_rename(struct dentry *dentry, const char *name);
void kfi_debugfs_remove(struct dentry *dentry);

/* Implemented in debugfs.rs. */
void kfi_debugfs_write(struct seq_file *m, const void *shown);
int kfi_debugfs_set(const void *shown, const char *text, size_t len);

#endif /* KFABRIC_SYS_DEBUGFS_H */
