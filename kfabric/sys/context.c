// SPDX-License-Identifier: GPL-2.0

#include <linux/preempt.h>

#include "context.h"

/**
 * kfi_in_softirq() - tell whether the caller runs in a softirq
 *
 * Return: true in a softirq handler, a tasklet, a bottom-half work item or a
 * soft timer; false in process context, also with bottom halves disabled.
 */
bool kfi_in_softirq(void)
{
	return in_serving_softirq();
}
