// SPDX-License-Identifier: GPL-2.0

#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "debugfs.h"

/*
 * Debugfs calls it between debugfs_file_get() and debugfs_file_put(), so that
 * what is shown is there: removal waits.
 */
static int kfi_debugfs_show(struct seq_file *m, void *unused)
{
	kfi_debugfs_write(m, m->private);
	return 0;
}

/* Its owner is kfabric.ko, which an open file keeps loaded. */
DEFINE_SHOW_ATTRIBUTE(kfi_debugfs);

/* Likewise. What is written comes in one piece, of a page at most. */
static ssize_t kfi_debugfs_rw_write(struct file *file, const char __user *from,
				    size_t len, loff_t *pos)
{
	struct seq_file *m = file->private_data;
	char *text;
	int ret;

	if (len > PAGE_SIZE)
		return -EINVAL;
	text = memdup_user(from, len);
	if (IS_ERR(text))
		return PTR_ERR(text);
	ret = kfi_debugfs_set(m->private, text, len);
	kfree(text);
	return ret ? ret : len;
}

static int kfi_debugfs_rw_show(struct seq_file *m, void *unused)
{
	return kfi_debugfs_show(m, unused);
}

DEFINE_SHOW_STORE_ATTRIBUTE(kfi_debugfs_rw);

/**
 * kfi_debugfs_dir() - make a directory
 * @name: its name, copied
 * @parent: the directory to make it in, NULL for the top, or an error
 *
 * Context: Process context; sleeps.
 * Return: the directory or an error, for any function here.
 */
struct dentry *kfi_debugfs_dir(const char *name, struct dentry *parent)
{
	return debugfs_create_dir(name, parent);
}

/**
 * kfi_debugfs_file() - make a file that kfi_debugfs_write() fills
 * @name: its name, copied
 * @parent: the directory to make it in, or an error
 * @shown: what kfi_debugfs_write() and kfi_debugfs_set() are handed, until the
 *	file is removed
 * @writable: whether kfi_debugfs_set() takes what is written
 *
 * Context: Process context; sleeps.
 * Return: the file or an error, for kfi_debugfs_remove().
 */
struct dentry *kfi_debugfs_file(const char *name, struct dentry *parent,
				const void *shown, bool writable)
{
	return debugfs_create_file(name, writable ? 0644 : 0444, parent,
				   (void *)shown,
				   writable ? &kfi_debugfs_rw_fops :
					      &kfi_debugfs_fops);
}

/**
 * kfi_debugfs_rename() - give a directory another name
 * @dentry: the directory, or an error
 * @name: its new name, copied
 *
 * Context: Process context; sleeps.
 * Return: 0, also for an error; -EEXIST; -ENOMEM.
 */
int kfi_debugfs_rename(struct dentry *dentry, const char *name)
{
	return IS_ERR(dentry) ? 0 : debugfs_change_name(dentry, "%s", name);
}

/**
 * kfi_debugfs_remove() - remove a file, or a directory with all that is in it
 * @dentry: the file or directory, or an error
 *
 * Waits for those that read or write it. Who has a file open gets EIO from then
 * on.
 *
 * Context: Process context; sleeps.
 */
void kfi_debugfs_remove(struct dentry *dentry)
{
	debugfs_remove(dentry);
}
