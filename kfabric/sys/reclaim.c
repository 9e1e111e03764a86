// SPDX-License-Identifier: GPL-2.0

#include <linux/sched/mm.h>

#include "reclaim.h"

/**
 * kfi_noio_save() - have no allocation of this task begin I/O from now on
 *
 * Process context.
 *
 * Return: what is given to kfi_noio_restore().
 */
unsigned int kfi_noio_save(void)
{
	return memalloc_noio_save();
}

/**
 * kfi_noio_restore() - end what kfi_noio_save() began
 * @flags: what that returned
 */
void kfi_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}
