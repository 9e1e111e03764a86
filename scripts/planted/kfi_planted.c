// SPDX-License-Identifier: GPL-2.0
/*
 * One bug of each kind that the gate must see.
 *
 * Writing a name to <debugfs>/kfi_planted/plant plants that bug. For the debug
 * kernel of the tests only; nothing installs it.
 */

#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/uaccess.h>

static struct dentry *dir;
static int hidden_int;
static void *hidden_ptr;

static void plant_none(void)
{
}

static void plant_use_after_free(void)
{
	int *p = kmalloc(64, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(p);
	kfree(p);
	barrier();
	WRITE_ONCE(hidden_int, READ_ONCE(*p));
}

static void plant_out_of_bounds(void)
{
	char *p = kmalloc(61, GFP_KERNEL);
	int at = 61;

	OPTIMIZER_HIDE_VAR(p);
	OPTIMIZER_HIDE_VAR(at);
	WRITE_ONCE(p[at], 1);
	kfree(p);
}

static void plant_double_free(void)
{
	void *p = kmalloc(64, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(p);
	kfree(p);
	OPTIMIZER_HIDE_VAR(p);
	kfree(p);
}

static void plant_shift(void)
{
	int by = 40;

	OPTIMIZER_HIDE_VAR(by);
	WRITE_ONCE(hidden_int, 1 << by);
}

static void plant_bounds(void)
{
	int room[4] = { 0 };
	int at = 4;

	OPTIMIZER_HIDE_VAR(at);
	WRITE_ONCE(hidden_int, room[at]);
}

static DEFINE_MUTEX(lock_a);
static DEFINE_MUTEX(lock_b);
static DEFINE_SPINLOCK(spin_a);
static DEFINE_SPINLOCK(spin_b);
static DEFINE_SPINLOCK(spin_irq);
static DEFINE_RAW_SPINLOCK(raw_a);

static void plant_circular(void)
{
	mutex_lock(&lock_a);
	mutex_lock(&lock_b);
	mutex_unlock(&lock_b);
	mutex_unlock(&lock_a);

	mutex_lock(&lock_b);
	mutex_lock(&lock_a);
	mutex_unlock(&lock_a);
	mutex_unlock(&lock_b);
}

/* Two locks of one class: a deadlock for lockdep, and for nobody else. */
static void plant_recursive(void)
{
	struct mutex locks[2]; /* never contended */

	for (int i = 0; i < 2; i++)
		mutex_init(&locks[i]);
	mutex_lock(&locks[0]);
	mutex_lock(&locks[1]);
	mutex_unlock(&locks[1]);
	mutex_unlock(&locks[0]);
}

static void take_in_timer(struct timer_list *unused)
{
	spin_lock(&spin_irq);
	spin_unlock(&spin_irq);
}

static DEFINE_TIMER(irq_timer, take_in_timer);

/* Taken with interrupts on, and from a timer. */
static void plant_inconsistent(void)
{
	spin_lock(&spin_irq);
	spin_unlock(&spin_irq);
	mod_timer(&irq_timer, jiffies + 1);
	while (timer_pending(&irq_timer))
		cpu_relax();
	timer_delete_sync(&irq_timer);
}

/* A lock that may sleep on a preemptible kernel, under one that may not. */
static void plant_wait_context(void)
{
	raw_spin_lock(&raw_a);
	spin_lock(&spin_b);
	spin_unlock(&spin_b);
	raw_spin_unlock(&raw_a);
}

static void plant_atomic_sleep(void)
{
	spin_lock(&spin_a);
	might_sleep();
	spin_unlock(&spin_a);
}

static void plant_atomic_schedule(void)
{
	preempt_disable();
	schedule_timeout_uninterruptible(1);
	preempt_enable();
}

static int __rcu *rcu_value;

static void plant_rcu(void)
{
	WRITE_ONCE(hidden_ptr, rcu_dereference(rcu_value));
}

static void plant_leak(void)
{
	/* More than one: a stale copy of a pointer may still lie on a stack. */
	for (int i = 0; i < 8; i++)
		WRITE_ONCE(hidden_ptr, kmalloc(1234, GFP_KERNEL));
	WRITE_ONCE(hidden_ptr, NULL);
}

static void plant_warn(void)
{
	WARN_ON(true);
}

static void plant_bug(void)
{
	BUG_ON(true);
}

static void plant_null(void)
{
	int *p = NULL;

	OPTIMIZER_HIDE_VAR(p);
	WRITE_ONCE(hidden_int, READ_ONCE(*p));
}

static void plant_refcount(void)
{
	refcount_t r = REFCOUNT_INIT(1);

	refcount_dec(&r);
	refcount_dec(&r);
}

static void plant_list(void)
{
	LIST_HEAD(head);
	struct list_head item;

	list_add(&item, &head);
	item.next = &item;
	list_del(&item);
}

static void plant_cache(void)
{
	struct kmem_cache *cache = kmem_cache_create("kfi_planted", 72, 0, SLAB_NO_MERGE, NULL);

	WRITE_ONCE(hidden_ptr, kmem_cache_alloc(cache, GFP_KERNEL));
	kmem_cache_destroy(cache);
}

static int sleep_hard(void *unused)
{
	set_current_state(TASK_UNINTERRUPTIBLE);
	schedule_timeout(5 * HZ);
	return 0;
}

static void plant_hung_task(void)
{
	kthread_run(sleep_hard, NULL, "planted");
	msleep(5500);
}

static void spin_for(unsigned int seconds)
{
	unsigned long end = jiffies + seconds * HZ;

	preempt_disable();
	while (time_before(jiffies, end))
		udelay(100);
	preempt_enable();
}

static void plant_soft_lockup(void)
{
	spin_for(5);
}

static int wait_for_readers(void *unused)
{
	synchronize_rcu_expedited();
	return 0;
}

/* Only a grace period that somebody waits for can stall. */
static void plant_rcu_stall(void)
{
	kthread_run(wait_for_readers, NULL, "waiter");
	spin_for(4);
}

static void free_with_timer(struct timer_list *unused)
{
}

static void plant_object(void)
{
	struct timer_list *t = kmalloc(sizeof(*t), GFP_KERNEL);

	timer_setup(t, free_with_timer, 0);
	mod_timer(t, jiffies + HZ);
	kfree(t);
}

static void plant_panic(void)
{
	panic("planted");
}

static const struct bug {
	const char *name;
	void (*plant)(void);
	bool needs_lockdep;
} bugs[] = {
	{ "quiet", plant_none },
	{ "quiet_again", plant_none },
	{ "use_after_free", plant_use_after_free },
	{ "out_of_bounds", plant_out_of_bounds },
	{ "double_free", plant_double_free },
	{ "shift", plant_shift },
	{ "bounds", plant_bounds },
	{ "circular", plant_circular, true },
	{ "recursive", plant_recursive, true },
	{ "inconsistent", plant_inconsistent, true },
	{ "wait_context", plant_wait_context, true },
	{ "atomic_sleep", plant_atomic_sleep },
	{ "atomic_schedule", plant_atomic_schedule },
	{ "rcu", plant_rcu, true },
	{ "leak", plant_leak },
	{ "warn", plant_warn },
	{ "bug", plant_bug },
	{ "null", plant_null },
	{ "refcount", plant_refcount },
	{ "list", plant_list },
	{ "cache", plant_cache },
	{ "hung_task", plant_hung_task },
	{ "soft_lockup", plant_soft_lockup },
	{ "rcu_stall", plant_rcu_stall },
	{ "object", plant_object },
	{ "panic", plant_panic },
};

/*
 * Lockdep switches itself off at its first report, and at every oops. Switched
 * on again, it knows nothing of the locks that were taken meanwhile. So it is
 * on for the moment of the bug only, and in a new task, which holds no lock.
 */
static int run_bug(void *data)
{
	const struct bug *bug = data;
	int before = debug_locks;

	if (bug->needs_lockdep)
		debug_locks = 1;
	bug->plant();
	if (bug->needs_lockdep)
		debug_locks &= before;
	while (!kthread_should_stop())
		msleep(20);
	return 0;
}

static ssize_t plant_write(struct file *file, const char __user *text, size_t len, loff_t *pos)
{
	struct task_struct *task;
	char name[32] = { 0 };

	if (len >= sizeof(name) || copy_from_user(name, text, len))
		return -EINVAL;
	strim(name);
	for (int i = 0; i < ARRAY_SIZE(bugs); i++) {
		if (strcmp(name, bugs[i].name))
			continue;
		task = kthread_create(run_bug, (void *)&bugs[i], "plant_%s", name);
		if (IS_ERR(task))
			return PTR_ERR(task);
		get_task_struct(task);
		wake_up_process(task);
		msleep(100);
		kthread_stop(task);
		put_task_struct(task);
		return len;
	}
	return -ENOENT;
}

static const struct file_operations plant_fops = {
	.owner = THIS_MODULE,
	.write = plant_write,
};

static int __init planted_init(void)
{
	dir = debugfs_create_dir("kfi_planted", NULL);
	debugfs_create_file("plant", 0200, dir, NULL, &plant_fops);
	return 0;
}

static void __exit planted_exit(void)
{
	debugfs_remove(dir);
}

module_init(planted_init);
module_exit(planted_exit);
MODULE_DESCRIPTION("Planted bugs that prove the test gate");
MODULE_LICENSE("GPL");
